"""Data pipelines for microscopy, one module a chapter of the course in ``notebooks/``."""
