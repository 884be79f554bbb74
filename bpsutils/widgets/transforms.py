"""The figure that moves in notebook 06: an augmentation playground."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider


def augmentation_playground(
    image: Tensor, changes: Mapping[str, Callable[[Tensor], Tensor]], *, start: str | None = None, caption: str = ""
) -> Any:
    """One image through one augmentation after another, with the foci that can still be counted (notebook 06).

    What an augmentation draws from torch's random numbers is the same each time it is chosen.

    Args:
        image: Grey levels of shape ``(1, H, W)``.
        changes: Name and transform of each augmentation; put in your own.
        start: The augmentation that is shown first. Default: the first one.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.

    Raises:
        ValueError: If there is no augmentation.
    """
    if not changes:
        raise ValueError("a playground needs at least one augmentation: {name: transform}")
    control = slider(
        ipywidgets.SelectionSlider, "augmentation", options=list(changes), value=start or next(iter(changes))
    )
    before = image.numpy()[0]

    def sentence(name: str) -> str:
        after = _changed(image, changes[name])
        height, width = after.shape
        found, there = plots.count_foci(after), plots.count_foci(before)
        return (
            f"{name}: {found} foci can be counted, {there} before; {height} x {width} pixels, "
            f"mean grey level {after.mean():.0f} (before {before.mean():.0f})."
        )

    def figure(name: str) -> Figure:
        return plots.changed_image(before, _changed(image, changes[name]), name, caption=caption)

    alt = "A nucleus before and after the chosen augmentation, at one scale and in one display window."
    return interactive(control, figure, sentence, alt)


def _changed(image: Tensor, change: Callable[[Tensor], Tensor]) -> np.ndarray:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        changed: np.ndarray = change(image).numpy()[0]
    return changed
