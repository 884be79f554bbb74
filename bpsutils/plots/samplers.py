"""Figures of notebook 04: which indices come, classes a batch, steps of gradient descent, hard examples over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, bare, new_figure, style


def index_stream(epochs: Sequence[Sequence[int]], labels: Sequence[Any] | np.ndarray, *, name: str = "") -> Figure:
    """The indices that a sampler yields, one row an epoch, dark where they are of the rarest class.

    Args:
        epochs: The indices of each epoch, in the order in which they come.
        labels: Class of each image, shape ``(N,)``.
        name: What the sampler is called.
    """
    labels = np.asarray(labels)
    rare = rarest(labels)
    first, longest = epochs[0], max(map(len, epochs))
    with style():
        draws = f"{int((labels[list(first)] == rare).sum())} of {len(first)} draws are {rare}"
        title = f"{name}: epoch 0 shows {len(set(first))} of {len(labels)} images; {draws}"
        figure = new_figure(7.2, 0.75 + 0.36 * len(epochs), title, "")
        axes = figure.subplots()
        for row, order in enumerate(epochs):
            for column, index in enumerate(order):
                dark = labels[index] == rare
                face, ink = (COLOURS[0], "white") if dark else ("#e3eef7", INK)
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=face, edgecolor="white", linewidth=1.5))
                axes.text(column + 0.5, row + 0.5, str(index), color=ink, fontsize=7, ha="center", va="center")
            axes.text(-0.3, row + 0.5, f"epoch {row}", ha="right", va="center", fontsize=9)
        axes.set(xlim=(-0.1, max(longest, 24) + 0.1), ylim=(len(epochs) + 0.1, -0.1))
        bare(axes)
        axes.set_xlabel(f"images in the order in which they come; dark: {rare}", loc="left", fontsize=9)
    return figure


def rarest(labels: np.ndarray) -> Any:
    """The class with the fewest images.

    Example:
        >>> str(rarest(np.array(["X-ray", "Fe", "X-ray"])))
        'Fe'
    """
    classes, counts = np.unique(labels, return_counts=True)
    return classes[counts.argmin()]


def rare_a_batch(order: Sequence[int], labels: np.ndarray, batch_size: int) -> np.ndarray:
    """Images of the rarest class in each batch, shape ``(batches,)``; the last batch may be short.

    Example:
        >>> rare_a_batch([0, 1, 2, 3, 4], np.array(list("abbbb")), 2).tolist()
        [1, 0, 0]
    """
    is_rare = np.asarray(labels)[list(order)] == rarest(labels)
    return np.add.reduceat(is_rare.astype(int), np.arange(0, len(is_rare), batch_size))


def class_counts(
    orders: Mapping[str, Sequence[int]], labels: Sequence[Any] | np.ndarray, batch_size: int, *, caption: str = ""
) -> Figure:
    """How many images of the rarest class, and how many others, each batch holds, one panel a sampler.

    Args:
        orders: Name of each sampler and the indices of one epoch.
        labels: Class of each image, shape ``(N,)``.
        batch_size: Images in a batch.
        caption: Small text below, such as `SIMULATED`.
    """
    labels = np.asarray(labels)
    rare = rarest(labels)
    counts = {name: rare_a_batch(order, labels, batch_size) for name, order in orders.items()}
    missing = [f"{(held == 0).sum()} of {len(held)} {name}" for name, held in counts.items() if (held == 0).any()]
    with style():
        title = f"Batches without {rare}: {', '.join(missing) or 'none'}{', else none' if missing else ''}"
        figure = new_figure(7.2, 3.1, title, caption)
        panels = figure.subplots(1, len(orders), sharey=True, squeeze=False)[0]
        for axes, (name, held) in zip(panels, counts.items(), strict=True):
            starts = np.arange(0, len(orders[name]), batch_size)
            sizes = np.diff([*starts, len(orders[name])])
            axes.bar(np.arange(len(held)), held, 0.85, color=COLOURS[0])
            axes.bar(np.arange(len(held)), sizes - held, 0.85, bottom=held, color=PALE)
            left_out = len(labels) - len(set(orders[name]))
            axes.set_title(f"{name}\n{held.sum()} of {sizes.sum()} are {rare}\n{left_out} left out", fontsize=9)
            axes.set(xlabel="batch", xlim=(-0.7, max(map(len, counts.values())) - 0.3))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panels[0].set_ylabel("images in the batch")
        keys = [Patch(color=COLOURS[0], label=str(rare)), Patch(color=PALE, label="other class")]
        figure.legend(handles=keys, loc="outside lower left", ncols=2, fontsize=9)
    return figure


def imbalance(counts: Mapping[str, np.ndarray], share: float, *, rare: str = "rare", caption: str = "") -> Figure:
    """Rare images in each batch of an epoch, one row a sampler; batches that hold none are marked.

    Args:
        counts: Name of each sampler and its rare images a batch, shape ``(batches,)``.
        share: Share of the rare class among all images, from 0 to 1.
        rare: What the rare class is called.
        caption: Small text below.
    """
    none = {name: int((held == 0).sum()) for name, held in counts.items()}
    said = ", ".join(f"{count} of {len(counts[name])} {name}" for name, count in none.items())
    with style():
        figure = new_figure(7.2, 3.4, f"{share:.0%} {rare}: batches without it, {said}", caption)
        rows = figure.subplots(len(counts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (name, held) in zip(rows, counts.items(), strict=True):
            axes.bar(np.arange(len(held)), held, 0.8, color=COLOURS[0])
            empty = np.flatnonzero(held == 0)
            axes.plot(empty, np.full(len(empty), 0.6), "x", color=COLOURS[2], markersize=5, linestyle="none")
            axes.set(title=name, ylabel=f"{rare} in it", ylim=(0, 17), yticks=[0, 4, 8, 12, 16])
        rows[-1].set_xlabel("batch (16 images each); x: the batch holds none")
    return figure


# ------------------------------------------------------------------------------------------------ gradient descent


def minibatch_sgd(sizes: Sequence[int] = (128, 16, 1), step: float = 0.4) -> Figure:
    """Gradient descent on a line through 128 points, one epoch each with batches of several sizes.

    Args:
        sizes: Images in a batch, one panel each.
        step: Size of a step; multiplies the gradient.
    """
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 128)
    points = np.stack([np.ones(128), x], axis=1)
    y = points @ [1.0, 2.0] + 0.5 * rng.standard_normal(128)
    best = np.linalg.lstsq(points, y, rcond=None)[0]
    order = rng.permutation(128)
    paths = {size: _descend(points, y, order, size, step) for size in sizes}
    gaps = [f"{np.hypot(*(path[-1] - best)):.1f} after {len(path) - 1}" for path in paths.values()]
    title = f"Gap to the best line, by steps made: {', '.join(gaps)}"
    with style():
        figure = new_figure(7.2, 2.9, title, "Points drawn at random, not from a microscope.")
        panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
        for axes, (size, path) in zip(panels, paths.items(), strict=True):
            _contours(axes, points, y, best)
            axes.plot(*path.T, "-o", color=COLOURS[2], markersize=2.5 if size < 16 else 4, linewidth=1)
            count = len(path) - 1
            axes.set_title(f"batch of {size}: {count} step{'s' * (count > 1)}")
            axes.set_xlabel("intercept of the line")
        panels[0].set_ylabel("slope of the line")
    return figure


def _contours(axes: Axes, points: np.ndarray, y: np.ndarray, best: np.ndarray) -> None:
    """Lines of equal loss over intercept and slope, and where the loss is least."""
    intercepts, slopes = np.meshgrid(np.linspace(-0.8, 2.2, 60), np.linspace(-0.8, 3.4, 60))
    residual = intercepts[..., None] + slopes[..., None] * points[:, 1] - y
    axes.contour(
        intercepts, slopes, (residual**2).mean(axis=-1), levels=[0.3, 0.6, 1, 1.5, 2.2], colors=QUIET, alpha=0.5
    )
    axes.plot(*best, "*", color=INK, markersize=11)


def _descend(points: np.ndarray, y: np.ndarray, order: np.ndarray, size: int, step: float) -> np.ndarray:
    """Where each step of one epoch leads, shape ``(steps + 1, 2)``."""
    place = np.array([-0.4, -0.2])
    path = [place]
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        gradient = 2 * points[batch].T @ (points[batch] @ place - y[batch]) / len(batch)
        place = place - step * gradient
        path.append(place)
    return np.array(path)


# --------------------------------------------------------------------------------------------------- hard examples


def hard_examples(result: pd.DataFrame, *, caption: str = "") -> Figure:
    """Balanced accuracy after some epochs, mean over trials with its 95 % interval, one line a way to draw.

    Args:
        result: From `bpsutils.rare_kinds.compare_orders`.
        caption: Small text below, such as `SIMULATED`.
    """
    settings, images = result["setting"].unique(), result["images"].unique()
    epochs = sorted(result["epoch"].unique())
    with style():
        figure = new_figure(7.2, 5.0, _gains(result, epochs), caption)
        panels = figure.subplots(len(settings), len(images), sharex=True, sharey=True, squeeze=False)
        for (row, column), axes in np.ndenumerate(panels):
            one = result[(result["setting"] == settings[row]) & (result["images"] == images[column])]
            for number, (name, group) in enumerate(one.groupby("drawn", sort=False)):
                by_epoch = group.groupby("epoch")["score"]
                mean, half = by_epoch.mean(), 1.96 * by_epoch.sem()
                # side by side, so that the bars of two lines do not hide each other
                places = mean.index * 1.06 ** (number - 1)
                look: dict[str, Any] = {"color": COLOURS[number], "linestyle": DASHES[number], "marker": "osD"[number]}
                axes.errorbar(places, mean, half, label=name, capsize=2, markersize=4, **look)
            axes.axhline(0.5, color=QUIET, linewidth=0.8)
            if images[column] == "rare":
                times = one.loc[one["drawn"] == "hard first", "emphasis"].mean()
                note = f"hard first draws these\n{times:.1f} times as often"
                axes.text(0.97, 0.2, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=9)
            axes.set_title(f"{settings[row]}: tested on {images[column]} ones", fontsize=9)
            axes.set(xscale="log", xlabel="epoch" if row else "")
            axes.set_xticks(epochs, [str(epoch) for epoch in epochs])
            axes.minorticks_off()
        figure.supylabel("balanced accuracy on held-out mice", fontsize=10)
        # the one panel where nothing lies between good and chance
        panels[0, 0].legend(loc="center left", fontsize=9)
    return figure


def _gains(result: pd.DataFrame, epochs: Sequence[int]) -> str:
    """What drawing hard examples first gains on the first rare kind, after the first and the last epoch."""
    rare = result[(result["setting"] == result["setting"].iloc[0]) & (result["images"] == "rare")]
    mean = rare.groupby(["drawn", "epoch"])["score"].mean()
    gains = [
        f"{mean['hard first', epoch] - mean['random', epoch]:+.2f} after {epoch}"
        for epoch in epochs[:: len(epochs) - 1]
    ]
    return f"Hard first on {rare['setting'].iloc[0]}: {', '.join(gains)} epochs"
