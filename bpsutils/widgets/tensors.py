"""The figure that moves in notebook 01."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider


def windowing(image: np.ndarray, *, caption: str = "") -> Any:
    """A 16-bit image through a display window whose upper end is moved (notebook 01).

    Args:
        image: Grey levels of shape ``(H, W)``.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.
    """
    ends = [2**bits - 1 for bits in range(9, 17)]
    control = slider(
        ipywidgets.SelectionSlider, "grey level shown as white", options=[(f"{end:,}", end) for end in ends], value=2047
    )

    def sentence(end: int) -> str:
        used, cut = plots.screen_levels(image, 0, end), int((image > end).sum())
        return (
            f"Window 0 to {end:,}: the image's grey levels {image.min():,} to {image.max():,} become {used} of the "
            f"screen's 256 levels, and {cut:,} of {image.size:,} pixels are cut to white."
        )

    alt = "An image through a display window, beside the histogram of its grey levels with the window shaded."
    return interactive(control, lambda end: plots.window_figure(image, 0, end, caption=caption), sentence, alt)
