"""Figures that move: a control, a figure from `bpsutils.plots`, and a sentence that says what the figure shows.

One module a notebook, every one a call of `interactive`.
"""

from bpsutils.widgets.core import interactive, slider
from bpsutils.widgets.start_here import threshold
from bpsutils.widgets.tensors import windowing

__all__ = ["interactive", "slider", "threshold", "windowing"]
