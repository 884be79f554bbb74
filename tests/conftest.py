"""Settings that every test shares."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads add up in another order than one

import matplotlib

matplotlib.use("Agg")
