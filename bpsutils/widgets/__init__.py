"""Figures that move: a control, a figure from `bpsutils.plots`, and a sentence that says what the figure shows.

One module a notebook, every one a call of `interactive`.
"""

from bpsutils.widgets.bucketing import batch_viewer, bucket_boundaries
from bpsutils.widgets.capstone import unfreezing
from bpsutils.widgets.core import interactive, slider
from bpsutils.widgets.dataloaders import worker_timeline
from bpsutils.widgets.datasets import sample_viewer
from bpsutils.widgets.evaluation import operating_point
from bpsutils.widgets.metadata import leakage
from bpsutils.widgets.models import pooling
from bpsutils.widgets.samplers import imbalance, sampler_stream
from bpsutils.widgets.scaling_up import amdahl
from bpsutils.widgets.start_here import threshold
from bpsutils.widgets.tensors import windowing
from bpsutils.widgets.training import learning_rate
from bpsutils.widgets.transforms import augmentation_playground

__all__ = [
    "amdahl",
    "augmentation_playground",
    "batch_viewer",
    "bucket_boundaries",
    "imbalance",
    "interactive",
    "leakage",
    "learning_rate",
    "operating_point",
    "pooling",
    "sample_viewer",
    "sampler_stream",
    "slider",
    "threshold",
    "unfreezing",
    "windowing",
    "worker_timeline",
]
