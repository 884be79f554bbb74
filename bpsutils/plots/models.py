"""Figures of notebook 08: softmax, a bend, a convolution, pooling under a shift, frozen and unfrozen weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import nn

from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, bare, new_figure, style

SPOT = 2  # side of the bright spot of `spot`, in pixels
WINDOW = 4  # side of the windows that it is pooled in


def softmax_figure(logits: np.ndarray, classes: Sequence[str]) -> Figure:
    """Logits as a table, and the softmax of each row beside that of each column, with the sums over rows.

    Args:
        logits: Shape ``(images, classes)``.
        classes: Names of the columns.
    """
    tables = {"logits": logits, "softmax, dim=1": _softmax(logits, 1), "softmax, dim=0": _softmax(logits, 0)}
    with style():
        height = 1.4 + 0.3 * len(logits)
        figure = new_figure(7.2, height, "With dim=1 each image's values sum to 1; dim=0 mixes the images", "")
        for axes, (name, values) in zip(figure.subplots(1, 3), tables.items(), strict=True):
            _table(axes, values, classes, sums=name != "logits")
            axes.set_title(name)
    return figure


def _softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=axis, keepdims=True)
    return shares


def _table(axes: Axes, values: np.ndarray, classes: Sequence[str], *, sums: bool) -> None:
    rows, columns = values.shape
    for (row, column), value in np.ndenumerate(values):
        dark = sums and value > 0.5
        axes.add_patch(Rectangle((column, row), 0.95, 0.95, color=COLOURS[0] if dark else PALE if sums else "#eeeeee"))
        text = f"{value:.2f}" if sums else f"{value:.0f}"
        axes.text(column + 0.48, row + 0.48, text, ha="center", va="center", color="white" if dark else INK, fontsize=9)
    if sums:
        for row, total in enumerate(values.sum(axis=1)):
            axes.text(columns + 0.15, row + 0.48, f"sum {total:.2f}", va="center", fontsize=9, color=QUIET)
    axes.set(xlim=(0, columns + 1.4), ylim=(rows, 0))
    bare(axes)
    axes.set_xticks(np.arange(columns) + 0.48, classes, fontsize=9)
    axes.set_yticks(np.arange(rows) + 0.48, [f"image {row}" for row in range(rows)], fontsize=9)
    axes.tick_params(length=0)


def bend(x: np.ndarray, straight: np.ndarray, bent: np.ndarray) -> Figure:
    """What two linear layers make of one number, without and with a non-linearity between them.

    Args:
        x: Inputs ``(N,)``.
        straight: Outputs of linear after linear.
        bent: Outputs of linear, ReLU, linear, with the same weights.
    """
    with style():
        figure = new_figure(5.6, 3.0, "Two linear layers draw one line; a ReLU between them bends it", "")
        axes = figure.subplots()
        axes.plot(x, straight, label="Linear, Linear", color=COLOURS[1], linestyle=DASHES[1])
        axes.plot(x, bent, label="Linear, ReLU, Linear", color=COLOURS[0], linestyle=DASHES[0])
        axes.set(xlabel="input", ylabel="output")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def convolution_figure(image: np.ndarray, kernel: np.ndarray, answer: np.ndarray, *, caption: str = "") -> Figure:
    """An image, a kernel, and the feature map that the one makes of the other.

    Args:
        image: Grey levels ``(H, W)``.
        kernel: Weights ``(k, k)``.
        answer: The feature map, of the image's size.
        caption: Small text below, such as `SIMULATED`.
    """
    strong = (answer > answer.max() / 2).mean()
    side = len(kernel)
    with style():
        title = f"A kernel of {kernel.size} numbers answers to spots: {strong:.1%} of the pixels reach half its maximum"
        figure = new_figure(7.2, 2.7, title, caption)
        first, second, third = figure.subplots(1, 3, width_ratios=(3, 2, 3))
        first.imshow(image)
        first.set_title("image")
        second.imshow(kernel, cmap="PuOr", vmin=-abs(kernel).max(), vmax=abs(kernel).max())
        second.set_title(f"kernel, {side} × {side}")
        third.imshow(answer.clip(0))
        third.set_title("feature map, above 0")
        for axes in (first, second, third):
            bare(axes)
    return figure


def spot(shift: int) -> np.ndarray:
    """A field of 8 × 16 pixels with a bright square of 2 × 2, at first at the left edge of a window of 4 × 4.

    Args:
        shift: Pixels that the square is moved to the right, 0 to 10.
    """
    field = np.zeros((2 * WINDOW, 4 * WINDOW))
    left = WINDOW + shift
    field[1 : 1 + SPOT, left : left + SPOT] = 1
    return field


def pooled(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum and mean of each window of 4 × 4 of `spot`."""
    windows = field.reshape(len(field) // WINDOW, WINDOW, -1, WINDOW)
    return windows.max(axis=(1, 3)), windows.mean(axis=(1, 3))


def pooled_spot(shift: int) -> Figure:
    """A bright spot that is shifted, and what max and average pooling make of it.

    Args:
        shift: In pixels to the right.
    """
    field, before = spot(shift), pooled(spot(0))
    after = pooled(field)
    changed = [int((new != old).sum()) for new, old in zip(after, before, strict=True)]
    with style():
        title = f"Shifted by {shift} px, {changed[0]} of {after[0].size} maxima and {changed[1]} averages change"
        figure = new_figure(7.2, 1.9, title, "")
        panels = figure.subplots(1, 3)
        names = ("8 × 16 px, windows of 4 × 4", "max pooling", "average pooling")
        for axes, name, values in zip(panels, names, (field, *after), strict=True):
            axes.imshow(values, vmin=0, vmax=1, cmap="Blues", extent=(0, 16, 8, 0))
            axes.set_title(name)
            bare(axes)
            for line in range(0, 17, WINDOW):
                axes.plot([line, line], [0, 8], color=QUIET, linewidth=0.8, linestyle="-")
                axes.plot([0, 16], [min(line, 8)] * 2, color=QUIET, linewidth=0.8, linestyle="-")
            axes.set(xlim=(-0.1, 16.1), ylim=(8.1, -0.1))
        for axes, values in zip(panels[1:], after, strict=True):
            for (row, column), value in np.ndenumerate(values):
                ink = "white" if value > 0.5 else INK
                place = (WINDOW * (column + 0.5), WINDOW * (row + 0.5))
                axes.text(*place, f"{value:.3g}", ha="center", va="center", fontsize=8, color=ink)
    return figure


def shift_tolerance(changes: Mapping[str, Sequence[float]], *, caption: str = "") -> Figure:
    """How much a feature map changes when its image is shifted, for several ways to pool.

    Args:
        changes: Way of pooling and, for shifts of 0, 1, 2, … px, the change as a share of the map's own size.
        caption: Small text below, such as `SIMULATED`.
    """
    last = {name: values[-1] for name, values in changes.items()}
    least = min(last, key=lambda name: last[name])
    with style():
        title = f"After {len(changes[least]) - 1} px {least} has changed least, by {last[least]:.0%}"
        figure = new_figure(7.2, 3.0, title, caption)
        axes = figure.subplots()
        for name, values in changes.items():
            axes.plot(range(len(values)), np.asarray(values) * 100, marker="o", label=f"{name}, {last[name]:.0%}")
        axes.set(xlabel="shift of the image (px)", ylabel="change of the map (%)", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def parameter_parts(model: nn.Module) -> Figure:
    """Numbers in each part of a network: frozen ones pale, trained ones dark.

    Args:
        model: Its direct children are the parts; those without parameters are left out.
    """
    parts = pd.DataFrame(
        [(name.split(".")[0], p.numel() * p.requires_grad, p.numel()) for name, p in model.named_parameters()],
        columns=["part", "trained", "all"],
    )
    parts = parts.groupby("part", sort=False).sum()
    trained, total = parts["trained"].sum(), parts["all"].sum()
    with style():
        title = f"{trained:,} of {total:,} parameters are trained ({trained / total:.1%})"
        figure = new_figure(7.2, 1.1 + 0.28 * len(parts), title, "")
        axes = figure.subplots()
        places = np.arange(len(parts))
        axes.barh(places, parts["all"] / 1e6, color=PALE, label="frozen")
        axes.barh(places, parts["trained"] / 1e6, color=COLOURS[0], label="trained")
        for place, count in zip(places, parts["all"], strict=True):
            axes.text(count / 1e6, float(place), f" {count:,}", va="center", fontsize=8)
        axes.set_yticks(places, parts.index)
        axes.set(ylim=(len(parts) - 0.5, -0.5), xlabel="parameters (millions)")
        axes.margins(x=0.15)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def transfer(scores: pd.DataFrame, *, caption: str = "") -> Figure:
    """Balanced accuracy after each epoch for several ways to start, mean and range over the seeds.

    Args:
        scores: One row an epoch: ``start``, ``seed``, ``epoch``, ``score``.
        caption: Small text below, such as `SIMULATED`.
    """
    last = scores[scores["epoch"] == scores["epoch"].max()].groupby("start", sort=False)["score"].mean()
    with style():
        title = "In the last epoch: " + ", ".join(f"{name} {score:.2f}" for name, score in last.items())
        figure = new_figure(7.2, 3.2, title, caption)
        axes = figure.subplots()
        for number, (name, rows) in enumerate(scores.groupby("start", sort=False)):
            runs = rows.groupby("epoch")["score"].agg(["mean", "min", "max"])
            colour = COLOURS[number]
            axes.fill_between(runs.index, runs["min"], runs["max"], color=colour, alpha=0.15, linewidth=0)
            axes.plot(runs.index, runs["mean"], color=colour, linestyle=DASHES[number], label=str(name))
        axes.axhline(0.5, color=QUIET, linestyle=":")
        axes.set(xlabel="epoch", ylabel="balanced accuracy", ylim=(0.4, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=f"{scores['seed'].nunique()} seeds")
    return figure
