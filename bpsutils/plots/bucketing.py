"""Figures of notebook 07: a batch and its padding, buckets of sizes, what they waste, what resizing leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bpsutils.bucketing import padding_waste
from bpsutils.plots.images import display_window
from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, bare, new_figure, style


def padded_batch(images: Sequence[np.ndarray], *, columns: int = 8, title: str = "", caption: str = "") -> Figure:
    """A batch as it is padded: each image at the upper left of a frame that the largest height and width give.

    Args:
        images: Of shape ``(H, W)``, any sizes; tensors on the CPU are fine, too.
        columns: Frames in a row.
        title: Comes before what the figure counts.
        caption: Small text below, such as `SIMULATED`.

    Raises:
        ValueError: If there is no image.
    """
    if not len(images):
        raise ValueError("padded_batch needs at least one image")
    images = [np.asarray(image) for image in images]
    sizes = np.array([image.shape for image in images])
    height, width = sizes.max(axis=0)
    waste = padding_waste(sizes, [np.arange(len(images))])
    low, high = display_window(images)
    rows = -(-len(images) // columns)
    gap = 6
    page = np.ones((rows * (height + gap), columns * (width + gap), 3))
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        page[top : top + height, left : left + width] = to_rgb(PALE)
        grey = ((image - np.float64(low)) / (high - low)).clip(0, 1)
        page[top : top + image.shape[0], left : left + image.shape[1]] = grey[..., None]
    with style():
        finding = f"{title}{len(images)} images padded to {height} × {width} px: {waste:.0%} of the pixels are padding"
        note = " ".join(filter(None, ["Padding is blue.", caption]))
        figure = new_figure(7.2, 7.0 * page.shape[0] / page.shape[1] + 0.65, finding, note)
        axes = figure.subplots()
        axes.imshow(_halved(page))
        bare(axes)
    return figure


def _halved(page: np.ndarray) -> np.ndarray:
    """Every second row and column, each pixel the mean of four and one of 64 levels: a small file."""
    even = page[: page.shape[0] // 2 * 2, : page.shape[1] // 2 * 2]
    mean = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    halved: np.ndarray = np.round(mean * 63) / 63
    return halved


def strip_batches(sizes: np.ndarray, batch_size: int, strips: int) -> list[np.ndarray]:
    """Sort by height into strips of whole batches, sort each strip by width, cut batches.

    One strip is the notes' width bins with every batch filled; as many strips as batches are height bins.

    Args:
        sizes: Height and width of each image in pixels, shape ``(N, 2)``.
        batch_size: Images per batch.
        strips: How many, from 1 to the number of batches.

    Raises:
        ValueError: If there cannot be so many strips.

    Example:
        >>> sizes = np.array([[80, 150], [170, 110], [81, 120], [168, 180]])
        >>> [batch.tolist() for batch in strip_batches(sizes, batch_size=2, strips=2)]
        [[2, 0], [1, 3]]
    """
    batches = -(-len(sizes) // batch_size)
    if not 1 <= strips <= batches:
        raise ValueError(f"strips must be from 1 to the number of batches, {batches}; got {strips}")
    by_height = np.argsort(sizes[:, 0], kind="stable")
    ends = [part[-1] * batch_size + batch_size for part in np.array_split(np.arange(batches), strips)]
    cut = []
    for strip in np.split(by_height, ends[:-1]):
        by_width = strip[np.argsort(sizes[strip, 1], kind="stable")]
        cut += np.split(by_width, range(batch_size, len(by_width), batch_size))
    return cut


def bucket_figure(sizes: np.ndarray, batch_size: int, strips: int, *, caption: str = "") -> Figure:
    """All images by width and height with the box of each batch, beside the waste for every number of strips.

    Args:
        sizes: Height and width of each image in pixels, shape ``(N, 2)``.
        batch_size: Images per batch.
        strips: Strips of height, see `strip_batches`.
        caption: Small text below, such as `SIMULATED`.
    """
    counts = np.arange(1, -(-len(sizes) // batch_size) + 1)
    wastes = [padding_waste(sizes, strip_batches(sizes, batch_size, int(count))) for count in counts]
    now = wastes[strips - 1]
    with style():
        word = "strip" if strips == 1 else "strips"
        figure = new_figure(7.2, 3.7, f"{strips} {word} of height, each cut by width: {now:.1%} is padding", caption)
        left, right = figure.subplots(1, 2, width_ratios=(4, 3))
        for batch in strip_batches(sizes, batch_size, strips):
            _box_of(left, sizes[batch])
        left.plot(sizes[:, 1], sizes[:, 0], ".", color=INK, markersize=2.5)
        seen = 1.15 * np.quantile(sizes, 0.98, axis=0)  # rare large images would squeeze all others into a corner
        beyond = int((sizes > seen).any(axis=1).sum())
        left.set(xlim=(0.95 * sizes[:, 1].min(), seen[1]), ylim=(0.9 * sizes[:, 0].min(), seen[0]))
        more = f" ({beyond} larger images are outside)" if beyond else ""
        left.set(xlabel="width (px)", ylabel="height (px)")
        left.set_title(f"Each box is one batch{more}", fontsize=9)
        right.plot(counts, [100 * waste for waste in wastes], "-", color=COLOURS[0])
        right.plot(strips, 100 * now, "o", color=COLOURS[2], markersize=9)
        right.set(xlabel="strips of height", ylabel="padding (% of the pixels)", ylim=(0, 110 * max(wastes)))
        right.set_title("1: only width counts. All: only height", fontsize=9)
        right.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def _box_of(axes: Axes, sizes: np.ndarray) -> None:
    """The box around one batch's sizes: its upper right corner is what all of them are padded to."""
    (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
    box = (low_w - 0.5, low_h - 0.5), high_w - low_w + 1, high_h - low_h + 1
    axes.add_patch(Rectangle(*box, facecolor=PALE, alpha=0.35, edgecolor=COLOURS[0], linewidth=1))


def waste_bars(wastes: pd.DataFrame, *, caption: str = "") -> Figure:
    """Padding of each way to batch, as bars; the last row is a bound that none can go below.

    Args:
        wastes: Shares from 0 to 1. One row a way to batch, the first at random and the last the lower bound; one
            column a set of sizes.
        caption: Small text below, such as `SIMULATED`.
    """
    ways = wastes.iloc[1:-1]
    best, last = ways.iloc[:, -1].idxmin(), wastes.columns[-1]
    at_random = wastes.iloc[0][last]
    finding = f"{best.capitalize()} buckets: {ways.loc[best, last]:.1%} padding on {last}, at random {at_random:.1%}"
    with style():
        figure = new_figure(7.2, 0.45 * len(wastes) + 1.25, finding, caption)
        axes = figure.subplots()
        deep = 0.8 / wastes.shape[1]
        for number, (name, column) in enumerate(wastes.items()):
            places = np.arange(len(wastes)) + (number - (wastes.shape[1] - 1) / 2) * deep
            hatch = ["" for _ in places[:-1]] + ["////"]
            bars = axes.barh(places, 100 * column, deep * 0.92, color=COLOURS[3 * number % 5], label=str(name))
            for bar, marks in zip(bars, hatch, strict=True):
                bar.set(hatch=marks, edgecolor="white", linewidth=0)
            axes.bar_label(bars, [f"{100 * share:.1f}" for share in column], padding=2, fontsize=8)
        axes.set_yticks(range(len(wastes)), wastes.index)
        axes.invert_yaxis()
        axes.set(xlabel="padding (% of the pixels)", xlim=(0, 112 * wastes.to_numpy().max()))
        axes.legend(loc="lower right")
    return figure


def shuffling_price(prices: pd.DataFrame, jitter: float = 0.03, *, caption: str = "") -> Figure:
    """Padding against the share of batch-mates who meet again, one line a method along its jitters.

    Args:
        prices: ``method``, ``jitter``, ``waste`` and ``met_again`` (shares from 0 to 1). Rows of the method
            ``"random"`` have no jitter and are drawn as one point.
        jitter: Of ``"2d"``, which the title compares with none.
        caption: Small text below, such as `SIMULATED`.
    """
    two = prices[prices["method"] == "2d"]
    still, moved = two[two["jitter"] == 0].iloc[0], two[two["jitter"] == jitter].iloc[0]
    finding = (
        f"{jitter:.0%} jitter: mates met again {still['met_again']:.0%} → {moved['met_again']:.0%}, "
        f"padding {still['waste']:.1%} → {moved['waste']:.1%}"
    )
    with style():
        figure = new_figure(7.2, 3.8, finding, caption)
        axes = figure.subplots()
        for number, (method, rows) in enumerate(prices.groupby("method", sort=False)):
            marker, line = ("*", "") if method == "random" else ("o", DASHES[number])
            x, y = 100 * rows["met_again"], 100 * rows["waste"]
            size = 13 if method == "random" else 5
            axes.plot(x, y, marker=marker, linestyle=line, markersize=size, color=COLOURS[number], label=str(method))
        for noise, waste, met in two[["jitter", "waste", "met_again"]].to_numpy():
            place = (100 * met, 100 * waste)
            axes.annotate(f"{noise:.0%}", place, (-4, -13), textcoords="offset points", ha="right", fontsize=9)
        axes.set_xscale("log")
        marks = [0.1, 1, 10, 100]
        axes.set_xticks(marks, ["0.1", "1", "10", "100"])
        axes.minorticks_off()
        axes.set(xlim=(0.1, 200), ylim=(0, None))
        axes.set(xlabel="pairs of batch-mates who meet again in the next epoch (%)", ylabel="padding (% of the pixels)")
        axes.legend(title="method", loc="upper right")
    return figure


def pooling_verdicts(verdicts: pd.DataFrame, *, caption: str = "") -> Figure:
    """How many answers depend on the batch, and how good the answers are, for each way to pool.

    Args:
        verdicts: ``pooling``, ``changed`` (share of images that are called one class in some batches and another in
            others) and ``score`` (balanced accuracy), one row an untrained layer and a way.
        caption: Small text below, such as `SIMULATED`.
    """
    ways = list(dict.fromkeys(verdicts["pooling"]))
    most = verdicts.loc[verdicts["changed"].idxmax()]
    with style():
        title = f"{most['pooling'].capitalize()}: up to {most['changed']:.0%} of the answers depend on the batch"
        figure = new_figure(7.2, 2.7, title, caption)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, column, label in (
            (left, "changed", "images called both classes (%)"),
            (right, "score", "balanced accuracy (%)"),
        ):
            for place, way in enumerate(ways):
                values = 100 * verdicts.loc[verdicts["pooling"] == way, column]
                axes.plot(values, [place] * len(values), "o", color=COLOURS[place], alpha=0.8, clip_on=False)
            axes.set_xlabel(label)
            axes.set_ylim(len(ways) - 0.5, -0.5)
        left.set_yticks(range(len(ways)), ways)
        left.set_xlim(-0.5, 115 * max(verdicts["changed"].max(), 0.01))
        right.set_xlim(50, 100)
    return figure


def resized_copies(image: np.ndarray, copies: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """One image and its resized copies, all drawn at one size and in one display window.

    Args:
        image: Grey levels of shape ``(H, W)``.
        copies: What each is called, and its grey levels.
        caption: Small text below, such as `SIMULATED`.
    """
    panels = {f"{image.shape[0]} × {image.shape[1]} px, as stored": image, **copies}
    low, high = display_window([image])
    above = [int(panel.max()) - int(np.median(panel)) for panel in panels.values()]
    with style():
        tall, wide = image.shape
        fading = ", ".join(f"{height:,}" for height in above[1:])
        finding = f"The brightest focus stands out by {above[0]:,}, then {fading} levels"
        figure = new_figure(7.2, 6.8 / len(panels) * tall / wide + 0.8, finding, caption)
        for axes, (name, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.imshow(panel, vmin=low, vmax=high, extent=(0, wide, tall, 0))
            axes.set_title(name, fontsize=9, color=INK)
            bare(axes)
            axes.spines[:].set(visible=True, color=QUIET, linewidth=0.5)
    return figure
