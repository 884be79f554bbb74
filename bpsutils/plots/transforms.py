"""Figures of notebook 06, and the two numbers about foci that they state: how many there are, how far off a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter, maximum_filter

from bpsutils.plots.images import display_window
from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, bare, new_figure, style


def count_foci(image: np.ndarray, contrast: float = 100.0) -> int:
    """Bright points that stand out from what is around them, about 1 px wide against 4 px.

    Args:
        image: Grey levels of shape ``(H, W)``.
        contrast: Grey levels by which a point must stand out.

    Example:
        >>> image = np.full((40, 40), 400.0)
        >>> image[10, 10] = image[10, 30] = 9000
        >>> count_foci(image)
        2
    """
    levels = np.asarray(image, np.float64)
    points = gaussian_filter(levels, 1) - gaussian_filter(levels, 4)
    return int(((points == maximum_filter(points, 5)) & (points > contrast)).sum())


def off_line(light: np.ndarray, floor: float = 40.0) -> float:
    """Root mean square distance of light from the straight line that fits it best, in pixels.

    Args:
        light: Light of the foci alone, shape ``(H, W)``, such as ``render(row) - render(row, foci=False)`` as floats.
        floor: Grey levels that are left out.

    Example:
        >>> light = np.zeros((30, 30))
        >>> light[np.arange(30), np.arange(30)] = 100
        >>> round(off_line(light), 3)
        0.0
    """
    places = np.argwhere(light > floor).astype(float)
    weights = np.asarray(light, np.float64)[light > floor]
    centred = places - np.average(places, axis=0, weights=weights)
    spread = (centred * weights[:, None]).T @ centred / weights.sum()
    return float(np.sqrt(max(np.linalg.eigvalsh(spread)[0], 0)))


def wrong_pixels(levels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Where grey levels are more than 1 % off the image's, or no number; bool of shape ``(H, W)``.

    Example:
        >>> wrong_pixels(np.array([[100.0, -1.0, np.inf]]), np.array([[100, 65535, 65535]], np.uint16)).tolist()
        [[False, True, True]]
    """
    got, true = np.asarray(levels, np.float64), np.asarray(image, np.float64)
    with np.errstate(invalid="ignore"):
        return ~(np.abs(got - true) <= 0.01 * true)


def trap_gallery(image: np.ndarray, results: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """What calls leave of a 16-bit image, with every pixel in colour that is more than 1 % off.

    Args:
        image: Grey levels as stored, shape ``(H, W)``.
        results: Name of each call and its result, brought back to grey levels, shape ``(H, W)``.
        caption: Small text below, such as `SIMULATED`.
    """
    wrong = {name: wrong_pixels(levels, image) for name, levels in results.items()}
    ruined = sum(bool(mask.any()) for mask in wrong.values())
    columns = 4
    rows = -(-(1 + len(results)) // columns)
    tall, wide = image.shape
    with style():
        title = f"{ruined} of {len(results)} calls change grey levels (wrong pixels are orange)"
        figure = new_figure(7.2, rows * (7.0 / columns * tall / wide + 0.25) + 0.6, title, caption)
        low, high = 200, 2500  # the nucleus; what is brighter is shown white
        panels = {"the file": np.zeros(image.shape, bool), **wrong}
        for axes in figure.subplots(rows, columns).flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=bool(panels), color=QUIET, linewidth=0.5)
            if not panels:
                continue
            name = next(iter(panels))
            mask = panels.pop(name)
            axes.imshow(image, vmin=low, vmax=high)
            axes.imshow(np.ma.masked_where(~mask, mask), cmap=ListedColormap([COLOURS[1]]))
            axes.set_title(name if name == "the file" else f"{name}: {mask.mean():.0%} wrong", fontsize=8)
    return figure


def normalised_spread(pixels: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """Where the middle 98 % of all pixels lie after each normalisation, and the shape of the last one.

    Args:
        pixels: Name of each normalisation and the pixels of all images after it, of any one shape.
        caption: Small text below, such as `SIMULATED`.
    """
    ends = {name: np.percentile(values, [1, 99]) for name, values in pixels.items()}
    narrow = sum(bool(high - low < 1) for low, high in ends.values())
    with style():
        title = f"{narrow} of {len(ends)} normalisations squeeze nearly all pixels into less than 1"
        figure = new_figure(7.2, 3.2, title, caption)
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        for row, (name, (low, high)) in enumerate(ends.items()):
            left.plot([low, high], [row, row], color=COLOURS[0], linestyle="-", linewidth=6, solid_capstyle="butt")
            left.text(high + 0.15, row, f"{high - low:.2f} wide", fontsize=8, va="center")
            left.text(-3.3, row - 0.33, name, fontsize=8, color=QUIET)
        left.set(xlim=(-3.4, 7.5), ylim=(len(ends) - 0.5, -0.7), yticks=[], xlabel="value after normalising")
        left.spines["left"].set_visible(False)
        values = list(pixels.values())[-1]
        edges = np.linspace(-3, 6, 91)
        right.hist(np.ravel(values), bins=list(edges), density=True, color=PALE, label="pixels")
        bell = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
        right.plot(edges, bell, color=INK, linestyle="--", label="normal distribution")
        right.set(xlabel="value after normalising", ylabel="density", ylim=(0, None))
        right.set_title("the last: mean 0, variance 1, no bell", fontsize=9)
        right.legend(loc="upper right", fontsize=8)
    return figure


def changed_image(image: np.ndarray, changed: np.ndarray, name: str, *, caption: str = "") -> Figure:
    """An image and what an augmentation made of it, at one scale and in one display window.

    Args:
        image: Grey levels of shape ``(H, W)``.
        changed: After the augmentation, of any shape ``(H', W')``.
        name: Of the augmentation.
        caption: Small text below, such as `SIMULATED`.
    """
    low, high = display_window([image])
    before, after = count_foci(image), count_foci(changed)
    side = max(*image.shape, *np.shape(changed))
    with style():
        title = f"{name}: {after} foci can be counted, {before} before"
        figure = new_figure(6.4, 3.5, title, f"Black is grey level {low:,}, white {high:,}. {caption}".strip())
        for axes, picture, label in zip(figure.subplots(1, 2), (image, changed), ("before", "after"), strict=True):
            axes.imshow(picture, vmin=low, vmax=high)
            bare(axes)
            axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
            axes.set_title(f"{label}, {np.shape(picture)[0]} x {np.shape(picture)[1]} pixels", fontsize=9)
    return figure


def label_breakers(
    blur: Mapping[float, float],
    crop: Mapping[int, float],
    bend: Mapping[float, float],
    scattered: float,
    *,
    caption: str = "",
) -> Figure:
    """How far three augmentations can be turned up before the label is no longer in the image.

    Args:
        blur: Share of the foci that can still be counted, by the blur's standard deviation in pixels.
        crop: Share of crops without any focus, by their side in pixels.
        bend: Median distance of a track's light from a straight line in pixels, by the elastic transform's ``alpha``.
        scattered: That distance for foci of X-rays, which lie on no line.
        caption: Small text below, such as `SIMULATED`.
    """
    worst = list(blur)[-1], min(crop)
    with style():
        title = f"A blur of {worst[0]:g} px keeps {blur[worst[0]]:.0%} of foci; {crop[worst[1]]:.0%} of crops of "
        title += f"{worst[1]} px have none"
        figure = new_figure(7.2, 3.0, title, caption)
        first, second, third = figure.subplots(1, 3)
        _series(first, blur, "blur: standard deviation (px)", "foci still counted (share)", (0, 1.05))
        _series(second, crop, "crop: side (px)", "crops without a focus (share)", (0, 1.05))
        second.invert_xaxis()
        _series(third, bend, "elastic: alpha", "distance from a line (px)", (0, 1.25 * max(*bend.values(), scattered)))
        third.axhline(scattered, color=COLOURS[1], linestyle=DASHES[1])
        third.text(0, scattered * 1.04, "foci of X-rays", fontsize=8, color=INK, va="bottom")
    return figure


def _series(axes: Axes, values: Mapping[Any, float], x: str, y: str, ylim: tuple[float, float]) -> None:
    axes.plot(list(values), list(values.values()), "o-", color=COLOURS[0], markersize=4)
    axes.set(ylim=ylim)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
