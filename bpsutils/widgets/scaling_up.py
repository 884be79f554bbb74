"""The figure that moves in notebook 12."""

from __future__ import annotations

from typing import Any

import ipywidgets

from bpsutils import plots
from bpsutils.plots.scaling_up import FASTER, LOAD, TRAIN, speedup
from bpsutils.widgets.core import interactive, slider


def amdahl(*, value: float = 1) -> Any:
    """What faster loading is worth to an epoch, for a factor that is moved (notebook 12).

    Args:
        value: How many times faster loading is at first: one of `bpsutils.plots.scaling_up.FASTER`.
    """
    options = [(f"{faster:g}", faster) for faster in FASTER]
    control = slider(ipywidgets.SelectionSlider, "loading, times faster", value=value, options=options)

    def sentence(faster: float) -> str:
        load = LOAD / faster
        return (
            f"A batch loads in {load:.1f} ms and trains in {TRAIN:.0f} ms: the epoch is {speedup(faster):.2f} times "
            f"faster than at first, and at most {speedup(float('inf')):.0f} times if loading took no time. Loading is "
            f"now {load / (load + TRAIN):.0%} of a step."
        )

    alt = "One step as a bar of loading and training, before and now, beside the gain for each factor."
    return interactive(control, plots.amdahl, sentence, alt)
