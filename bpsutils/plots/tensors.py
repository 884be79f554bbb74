"""Figures of notebook 01: a display window, 16 bits in 8-bit copies, broadcasting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bpsutils.plots.look import INK, PALE, QUIET, bare, new_figure, style

WHITE_LEVEL = 65535


def window_figure(image: np.ndarray, low: int, high: int, *, caption: str = "") -> Figure:
    """A 16-bit image through a display window, beside the histogram of its grey levels with the window shaded.

    Args:
        image: Grey levels of shape ``(H, W)``.
        low: Shown as black, with everything below.
        high: Shown as white, with everything above.
        caption: Small text below, such as `SIMULATED`.

    Raises:
        ValueError: If the window is empty or upside down.
    """
    if not low < high:
        raise ValueError(f"a display window needs low < high, got {low} and {high}")
    cut = f"{int((image > high).sum()):,} of {image.size:,} pixels cut to white"
    with style():
        title = f"Window {low:,} to {high:,}: {screen_levels(image, low, high)} of 256 screen levels, {cut}"
        figure = new_figure(7.2, 3.2, title, caption)
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        left.imshow(image, vmin=low, vmax=high)
        bare(left)
        edges = np.geomspace(128, WHITE_LEVEL + 1, 109)
        right.axvspan(max(low, edges[0]), high, color=PALE, alpha=0.5, label="display window")
        right.hist(image.ravel(), bins=list(edges), color=INK, label="pixels of the image")
        right.set_xscale("log", base=2)
        marks = [256, 1024, 4096, 16384, 65536]  # given, because matplotlib's own choice differs between versions
        right.set_xticks(marks, [f"{mark:,}" for mark in marks])
        right.minorticks_off()
        right.set(xlim=(edges[0], edges[-1]), xlabel="grey level (each mark is four times the last)", ylabel="pixels")
        right.legend(loc="upper right")
    return figure


def screen_levels(image: np.ndarray, low: int, high: int) -> int:
    """How many of a screen's 256 levels an image gets through a display window.

    Example:
        >>> screen_levels(np.array([0, 128, 256, 65535]), 0, 65535)
        3
    """
    scaled = (np.asarray(image, np.float64) - low) / (high - low)
    return len(np.unique((scaled * 256).clip(0, 255).astype(np.uint8)))


def sixteen_bit_damage(versions: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """What conversions leave of one image: each version from its own darkest to its own brightest value.

    Args:
        versions: Name of each conversion and what it made, of shape ``(H, W)``; the first is the original.
        caption: Small text below, such as `SIMULATED`.
    """
    levels = {name: len(np.unique(image)) for name, image in versions.items()}
    first, *others = levels.values()
    with style():
        title = f"{first:,} grey levels in the file; {', '.join(f'{n:,}' for n in others)} in its 8-bit copies"
        tall, wide = next(iter(versions.values())).shape
        figure = new_figure(7.2, 7.0 / len(versions) * tall / wide + 0.95, title, caption)
        for axes, (name, image) in zip(figure.subplots(1, len(versions)), versions.items(), strict=True):
            # an image of one level has no range of its own: it is shown among the 256 that it could have
            low = image.min() if levels[name] > 1 else 0
            axes.imshow(image, vmin=low, vmax=max(255, low) if levels[name] == 1 else image.max())
            axes.set_title(f"{name}\n{image.min():,} to {image.max():,}", fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=QUIET, linewidth=0.5)  # else an all-white image is not there
    return figure


def broadcasting_diagram(left: tuple[int, int], right: tuple[int, int]) -> Figure:
    """How two shapes become one: sides of length 1 are repeated (pale cells) before numbers meet.

    Args:
        left: Shape of a tensor that holds 0, 10, 20, …
        right: Shape of a tensor that holds 0, 1, 2, …

    Raises:
        ValueError: If the shapes do not go together.
    """
    first = np.arange(left[0] * left[1]).reshape(left) * 10
    second = np.arange(right[0] * right[1]).reshape(right)
    total = first + second
    with style():
        figure = new_figure(7.2, 2.3, f"{left} and {right} make {total.shape}: sides of length 1 are repeated", "")
        axes = figure.subplots()
        step = total.shape[1] + 1.6
        for number, (values, sign) in enumerate([(first, "+"), (second, "="), (total, "")]):
            cells(axes, np.broadcast_to(values, total.shape), values.shape, number * step)
            axes.text((number + 1) * step - 0.8, total.shape[0] / 2, sign, ha="center", va="center", fontsize=14)
            axes.text(number * step + total.shape[1] / 2, -0.35, f"shape {values.shape}", ha="center", fontsize=9)
        axes.set(xlim=(-0.1, 3 * step - 1.4), ylim=(total.shape[0] + 0.1, -0.8), aspect="equal")
        bare(axes)
    return figure


def cells(axes: Axes, values: np.ndarray, own: tuple[int, ...], left: float) -> None:
    """A table of numbers; cells beyond the tensor's own shape are pale."""
    for (row, column), value in np.ndenumerate(values):
        stored = row < own[0] and column < own[1]
        face, ink = (PALE, INK) if stored else ("#f2f2f2", QUIET)
        axes.add_patch(Rectangle((left + column, row), 1, 1, facecolor=face, edgecolor="white", linewidth=2))
        axes.text(left + column + 0.5, row + 0.5, str(value), color=ink, ha="center", va="center", fontsize=9)
