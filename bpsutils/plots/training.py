"""Figures of notebook 09: steps down a valley, curves to read, imbalance, runs by seed, a run killed and resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_auc_score, roc_curve

from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, new_figure, style

CURVATURE = np.array([1.0, 10.0])
START = np.array([-4.0, 1.5])
GUESSING = float(np.log(2))


def valley(points: np.ndarray) -> np.ndarray:
    """A loss of two weights, ten times as steep along the second as along the first; 0 at its lowest point.

    Args:
        points: Weights of shape ``(..., 2)``.

    Example:
        >>> valley(np.array([2.0, 1.0])).item()
        7.0
    """
    loss: np.ndarray = (CURVATURE * np.asarray(points) ** 2).sum(-1) / 2
    return loss


def descend(rate: float, steps: int = 40) -> np.ndarray:
    """The weights before and after each step of plain gradient descent in the `valley`, shape ``(steps + 1, 2)``.

    Args:
        rate: The learning rate. From 0.2 on, each step overshoots by more than it had to go.
        steps: How many.

    Example:
        >>> descend(0.1, 2).round(2).tolist()
        [[-4.0, 1.5], [-3.6, 0.0], [-3.24, 0.0]]
    """
    factors = 1 - rate * CURVATURE  # a step multiplies each weight by its factor: the gradient is curvature * weight
    path: np.ndarray = START * factors ** np.arange(steps + 1)[:, None]
    return path


def descent(rate: float, steps: int = 40) -> Figure:
    """Gradient descent in the `valley`: its path on a map, and the loss after each step.

    Args:
        rate: The learning rate.
        steps: How many steps are drawn.
    """
    path = descend(rate, steps)
    losses = valley(path)
    with style():
        figure = new_figure(7.2, 3.3, f"Rate {rate:g}: the loss goes from {losses[0]:.3g} to {losses[-1]:.2g}", "")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        across, down = np.meshgrid(np.linspace(-5, 5, 101), np.linspace(-3, 3, 61))
        levels = [0.5, 2, 5, 10, 20, 35]
        left.contour(across, down, valley(np.stack([across, down], -1)), levels, colors=[QUIET], linewidths=0.7)
        left.plot(*path.T, "-o", color=COLOURS[0], markersize=3.5, linewidth=1.2)
        left.plot(*START, "o", color=COLOURS[1], markersize=8, label="start")
        left.plot(0, 0, "*", color=COLOURS[2], markersize=12, label="lowest point")
        left.set(xlim=(-5, 5), ylim=(-3, 3), xlabel="weight 1", ylabel="weight 2", title="seen from above")
        left.legend(loc="upper right", ncols=2, frameon=True, edgecolor="white", framealpha=1)
        right.plot(losses, color=COLOURS[0])
        right.axhline(losses[0], color=QUIET, linestyle=":")
        marks = [1e-4, 1e-2, 1, 1e2, 1e4]
        right.set_yscale("log")
        right.set_yticks(marks, ["0.0001", "0.01", "1", "100", "10,000"])
        right.minorticks_off()
        right.set(xlim=(0, steps), ylim=(3e-5, 3e4), xlabel="step", ylabel="loss", title="loss; dots: at the start")
    return figure


def first_trainings(one_batch: Sequence[float], runs: Mapping[str, pd.DataFrame], *, caption: str = "") -> Figure:
    """One batch learned by heart, and runs that differ in their learning rate.

    Args:
        one_batch: Loss after each step on one and the same batch.
        runs: Name of each run and its history: ``epoch``, ``train_loss``, ``val_loss``.
        caption: Small text below, such as `SIMULATED`.
    """
    lowest = min(runs, key=lambda name: runs[name]["train_loss"].iloc[-1])
    ends = runs[lowest].iloc[-1]
    title = f"Rate {lowest} learns: training loss {ends['train_loss']:.2f}, validation loss {ends['val_loss']:.2f}"
    with style():
        figure = new_figure(7.2, 3.5, title, caption)
        left, middle, right = figure.subplots(1, 3)
        left.plot(one_batch, color=INK, linestyle="-")
        left.set(xlabel="step", ylabel="loss (cross-entropy)", title="One batch, learned by heart")
        for number, (name, run) in enumerate(runs.items()):
            look = {"color": COLOURS[number], "linestyle": DASHES[number]}
            middle.plot(run["epoch"], run["train_loss"], label=f"rate {name}", **look)
            right.plot(run["epoch"], run["val_loss"], **look)
        for axes, name in ((middle, "Training images"), (right, "Validation images")):
            axes.axhline(GUESSING, color=QUIET, linestyle=":", linewidth=1)
            axes.set(xlabel="epoch", title=name, ylim=(0, 1.3))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(*middle.get_legend_handles_labels(), loc="outside lower left", ncols=len(runs))
        left.set_ylim(bottom=0)
    return figure


def diagnoses() -> Figure:
    """Four pairs of curves to read. They are drawn by formulas, not trained, so that each shows one thing clearly."""
    epoch = np.arange(1, 21)
    wobble = np.sin(2.3 * epoch) + np.sin(3.7 * epoch)
    pairs = {
        "A": (0.693 - 0.004 * epoch, 0.695 - 0.003 * epoch + 0.003 * wobble),
        "B": (0.72 + 0.06 * wobble, 0.75 + 0.09 * np.roll(wobble, 3)),
        "C": (0.75 * np.exp(-epoch / 7), 0.42 + 0.28 * np.exp(-epoch / 2) + 0.0011 * epoch**2 + 0.01 * wobble),
        "D": (0.33 + 0.40 * np.exp(-epoch / 4), 0.37 + 0.38 * np.exp(-epoch / 4) + 0.01 * wobble),
    }
    with style():
        title = "Height, slope and gap: four pairs of curves, four diagnoses"
        figure = new_figure(7.2, 2.9, title, "Drawn, not trained.")
        for axes, (name, (train, val)) in zip(figure.subplots(1, 4, sharey=True), pairs.items(), strict=True):
            axes.plot(epoch, train, label="training loss")
            axes.plot(epoch, val, label="validation loss")
            axes.axhline(GUESSING, color=QUIET, linestyle=":", linewidth=1)
            axes.set(title=name, xlabel="epoch", ylim=(0, 1.05), xticks=[1, 10, 20])
        figure.axes[0].set_ylabel("loss (dots: guessing)")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def weights_or_threshold(
    labels: np.ndarray, plain: np.ndarray, weighted: np.ndarray, moved: float, *, caption: str = ""
) -> Figure:
    """Two ways to find a class that is rare in training, as points on ROC curves.

    Args:
        labels: 1 for the class that is rare in training, 0 for the other, shape ``(N,)``.
        plain: Scores of a model trained without class weights.
        weighted: Scores of one trained with them.
        moved: The threshold, below 0.5, that the plain scores are judged by instead.
        caption: Small text below, such as `SIMULATED`.
    """
    points = {
        "plain, threshold 0.5": (plain, 0.5, "X"),
        f"plain, threshold {moved:.2f}": (plain, moved, "o"),
        "weighted, threshold 0.5": (weighted, 0.5, "s"),
    }
    found = [int((scores[labels == 1] >= at).sum()) for scores, at, _ in points.values()]
    with style():
        counts = f"{found[0]} found as trained, {found[1]} by threshold, {found[2]} by weights"
        title = f"Of {int(labels.sum())} Fe: {counts}"
        figure = new_figure(6.4, 4.0, title, caption)
        axes = figure.subplots()
        for number, (name, scores) in enumerate({"plain": plain, "weighted": weighted}.items()):
            false, true, _ = roc_curve(labels, scores)
            area = roc_auc_score(labels, scores)
            axes.plot(false, true, label=f"{name}, area {area:.2f}", color=COLOURS[number], linestyle=DASHES[number])
        for name, (scores, at, marker) in points.items():
            place = [(scores[labels == kind] >= at).mean() for kind in (0, 1)]
            axes.plot(*place, marker, color=INK, markersize=10, markerfacecolor=PALE, label=name, clip_on=False)
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="guessing, area 0.50")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="share of X-ray images called Fe", ylabel="share of Fe images found")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def seeds(scores: Mapping[str, Sequence[float]], tried: str, against: str, *, caption: str = "") -> Figure:
    """One dot for each run and a bar at their mean, for ways to train that differ in one thing.

    Args:
        scores: Balanced accuracy of the runs of each way, named ``"<data>: <way>"``.
        tried: The way that the title is about.
        against: The way that it is compared with, over all data that both were tried on.
        caption: Small text below, such as `SIMULATED`.
    """
    names = [name.removesuffix(f": {tried}") for name in scores if name.endswith(f": {tried}")]
    gain = np.mean([np.mean(scores[f"{name}: {tried}"]) - np.mean(scores[f"{name}: {against}"]) for name in names])
    with style():
        title = f"{tried.capitalize()} against {against}: {gain:+.2f} on average"
        figure = new_figure(7.2, 1.2 + 0.36 * len(scores), title, caption)
        axes = figure.subplots()
        for row, values in enumerate(scores.values()):
            axes.plot(values, [row] * len(values), "o", color=COLOURS[0], markersize=7)
            axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=COLOURS[1], linewidth=3, linestyle="-")
        axes.axvline(0.5, color=QUIET, linestyle=":")
        axes.set_yticks(range(len(scores)), list(scores))
        axes.set(ylim=(len(scores) - 0.5, -0.5), xlim=(0.3, 0.9))
        axes.set_xlabel("balanced accuracy (dotted: guessing; bar: mean)")
    return figure


def resumed(epochs: int, killed_in: int, equal: bool) -> Figure:
    """A run that was killed and resumed, beside one that was not.

    Args:
        epochs: Of the whole run.
        killed_in: The epoch, from 1, in whose middle the run was killed.
        equal: Whether both ended with the same weights.
    """
    verdict = "the weights are the same, bit for bit" if equal else "the weights differ"
    with style():
        figure = new_figure(7.2, 2.6, f"Killed in epoch {killed_in}, resumed from epoch {killed_in - 1}: {verdict}", "")
        axes = figure.subplots()
        _bars(axes, 0, 0, epochs)
        _bars(axes, 1, 0, killed_in - 1)
        axes.barh(1, 0.45, left=killed_in - 1 + 0.02, height=0.6, color="white", edgecolor=INK, hatch="////")
        axes.text(killed_in - 0.48, 1, " lost", va="center", color=INK)
        axes.plot(killed_in - 0.53, 1, "X", color=COLOURS[2], markersize=11)
        _bars(axes, 2, killed_in - 1, epochs)
        axes.set_yticks(range(3), ["left alone", "killed", "resumed"])
        axes.set(ylim=(2.6, -0.6), xlim=(0, epochs + 0.1), xlabel="time, in epochs (dot: checkpoint written)")
        axes.set_xticks(range(epochs + 1))
    return figure


def _bars(axes: Axes, row: int, first: int, last: int) -> None:
    """Whole epochs of one run, with a dot where each one's checkpoint is written."""
    for epoch in range(first, last):
        axes.barh(row, 0.96, left=epoch + 0.02, height=0.6, color=PALE)
        axes.text(epoch + 0.45, row, f"epoch {epoch + 1}", ha="center", va="center", fontsize=9)
        axes.plot(epoch + 0.9, row, "o", color=COLOURS[0], markersize=7)
