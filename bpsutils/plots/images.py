"""Images side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from bpsutils.plots.look import bare, new_figure, style


def display_window(images: Sequence[np.ndarray]) -> tuple[int, int]:
    """Grey levels to show as black and as white: the 0.5th and 99.8th percentile of all images together.

    A single saturated pixel or dead row does not darken the rest, as minimum and maximum would.

    Args:
        images: One or more of shape ``(H, W)``, any sizes.

    Example:
        >>> display_window([np.arange(1001)])
        (5, 998)
    """
    pixels = np.concatenate([np.asarray(image).ravel() for image in images])
    low, high = np.percentile(pixels, [0.5, 99.8])
    return int(low), max(int(high), int(low) + 1)


def image_grid(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    window: tuple[int, int] | None = None,
    *,
    columns: int = 6,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Images side by side, all in one display window and at one scale, so that they can be compared.

    Args:
        images: Of shape ``(H, W)``, any sizes; RGB of shape ``(H, W, 3)`` is shown as it is.
        titles: One above each image.
        window: Grey levels shown as black and as white. Default: `display_window` of all images.
        columns: Images in a row.
        title: What the grid shows.
        caption: Small text below, such as `SIMULATED`.

    Raises:
        ValueError: If there is no image, or there are titles but not one for each.
    """
    if not len(images) or len(titles) not in (0, len(images)):
        raise ValueError(f"image_grid needs images and one title each or none, got {len(images)} and {len(titles)}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    grey = [image for image in images if np.ndim(image) == 2]
    low, high = window or (display_window(grey) if grey else (0, 255))
    scale = f"Black is grey level {low:,}, white {high:,}." if grey else ""
    tall, wide = max(len(image) for image in images), max(np.shape(image)[1] for image in images)
    with style():
        cell = 7.2 / columns
        height = rows * (cell * tall / wide + 0.25 * bool(titles)) + 0.35 * bool(title) + 0.25
        figure = new_figure(7.2, height, title, " ".join(filter(None, [scale, caption])))
        for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            bare(axes)
            axes.set(xlim=(-0.5, wide - 0.5), ylim=(tall - 0.5, -0.5), aspect="equal")
            if number < len(images):
                axes.imshow(images[number], vmin=low, vmax=high, extent=_centred(images[number], tall, wide))
            if number < len(titles):
                axes.set_title(titles[number], fontsize=9)
    return figure


def _centred(image: np.ndarray, tall: int, wide: int) -> tuple[float, float, float, float]:
    """Where an image lies in a cell that the largest image fills: left, right, bottom, top."""
    height, width = np.shape(image)[:2]
    left, top = (wide - width) // 2 - 0.5, (tall - height) // 2 - 0.5
    return left, left + width, top + height, top
