"""The figure that moves in notebook 09."""

from __future__ import annotations

from typing import Any

import ipywidgets

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.15, 0.18, 0.195, 0.2, 0.205, 0.21)
STEPS = 40


def learning_rate() -> Any:
    """Gradient descent in a valley of two weights, with a learning rate that is moved (notebook 09)."""
    control = slider(
        ipywidgets.SelectionSlider, "learning rate", options=[(f"{rate:g}", rate) for rate in RATES], value=0.01
    )
    alt = "A path of gradient descent on a map of a long valley, beside the loss after each step."
    return interactive(control, lambda rate: plots.descent(rate, STEPS), _sentence, alt)


def _sentence(rate: float) -> str:
    start, *_, last = plots.valley(plots.descend(rate, STEPS))
    ends = f"after {STEPS} steps the loss is {last:.2g} of {start:.3g} at the start"
    if last > start:
        return f"Rate {rate:g} diverges: {ends}. Each step overshoots the valley's floor and lands higher up."
    if last > 0.5 * start and rate > 0.1:
        return f"Rate {rate:g} bounces: {ends}. Each step lands on the opposite slope, as high as before."
    if last > 0.1 * start:
        return f"Rate {rate:g} crawls: {ends}. The direction is right, the steps are too short."
    if last > 0.001 * start:
        return f"Rate {rate:g} is on its way: {ends}. More steps would bring it down."
    return f"Rate {rate:g} converges: {ends}."
