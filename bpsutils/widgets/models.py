"""The figure that moves in notebook 08."""

from __future__ import annotations

from typing import Any

import ipywidgets

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider


def pooling() -> Any:
    """Max and average pooling of a bright spot that is moved (notebook 08)."""
    control = slider(ipywidgets.IntSlider, "shift of the spot (px)", value=0, min=0, max=4)
    before = plots.pooled(plots.spot(0))

    def sentence(shift: int) -> str:
        after = plots.pooled(plots.spot(shift))
        told = [
            f"{name} pooling shows {new.max():.3g} in {int((new == new.max()).sum())} of {new.size} windows and has "
            f"changed in {int((new != old).sum())}"
            for name, new, old in zip(("max", "average"), after, before, strict=True)
        ]
        return f"With the spot shifted by {shift} px, {', '.join(told)}."

    alt = "A bright spot in a field of windows, and beside it the maximum and the mean of each window."
    return interactive(control, plots.pooled_spot, sentence, alt)
