"""Figures of notebook 00 and of the report: what is in the splits, how training went, how good the model is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from bpsutils.config import SPLITS
from bpsutils.images import read_image
from bpsutils.plots.images import image_grid
from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, arrow, bare, box, new_figure, style, table_caption


def recipe_diagram() -> Figure:
    """The three-step recipe: one Dataset class makes three Datasets, which three DataLoaders read."""
    with style():
        figure = new_figure(7.2, 3.6, "Two classes, three splits, six objects", "")
        axes = figure.subplots()
        axes.set(xlim=(0, 12), ylim=(0, 7))
        bare(axes)
        box(axes, 2, 6, "your Dataset class\n__len__, __getitem__", COLOURS[0])
        box(axes, 10, 6, "DataLoader class\nfrom torch.utils.data", COLOURS[0])
        for split, y in zip(SPLITS, (4.1, 2.5, 0.9), strict=True):
            box(axes, 4, y, f"{split} Dataset", PALE)
            box(axes, 8, y, f"{split} DataLoader", PALE)
            arrow(axes, (5.5, y), (6.45, y))
            arrow(axes, (1.2, 5.4), (2.45, y), "angle,angleA=-90,angleB=180")
            arrow(axes, (10.8, 5.4), (9.55, y), "angle,angleA=-90,angleB=0")
        steps = ((2, "Step 1: say how a sample is loaded"), (10, "Step 3: batch, shuffle, load in parallel"))
        for x, text in steps:
            axes.text(x, 6.85, text, fontsize=8, color=QUIET, horizontalalignment="center")
        axes.text(6, 0.05, "Step 2: one object per split", fontsize=8, color=QUIET, horizontalalignment="center")
    return figure


def class_balance(table: pd.DataFrame, target: str = "particle_type", *, caption: str = "") -> Figure:
    """Images of each class in each split.

    Args:
        table: Rows with ``split`` and ``target``.
        target: The column that names the class.
        caption: Small text below; a table with simulated rows says so by itself.
    """
    counts = pd.crosstab(table["split"], table[target])
    counts = counts.reindex([split for split in SPLITS if split in counts.index])
    largest = counts.sum().idxmax()
    shares = counts[largest] / counts.sum(axis=1)
    finding = f"{largest} is " + ", ".join(f"{share:.0%} of {split}" for split, share in shares.items())
    with style():
        figure = new_figure(6.4, 3.2, finding, table_caption(caption, table))
        axes = figure.subplots()
        width = 0.8 / len(counts.columns)
        for number, name in enumerate(counts.columns):
            places = np.arange(len(counts)) + (number - (len(counts.columns) - 1) / 2) * width
            bars = axes.bar(places, counts[name], width * 0.92, label=str(name), color=COLOURS[number % len(COLOURS)])
            axes.bar_label(bars)
        axes.set_xticks(np.arange(len(counts)), counts.index)
        axes.set(xlabel="split", ylabel="images")
        axes.margins(y=0.12)
        axes.legend(title=target, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def split_examples(
    table: pd.DataFrame, target: str = "particle_type", *, each: int = 6, seed: int = 0, caption: str = ""
) -> Figure:
    """A few images of each split, drawn by the seed, in one display window.

    Args:
        table: Rows with ``path`` and ``split``.
        target: Column written above each image, where the table has it.
        each: Images of each split.
        seed: Same seed, same images.
        caption: Small text below; a table with simulated rows says so by itself.
    """
    splits = [split for split in SPLITS if (table["split"] == split).any()]
    drawn = []
    for split in splits:
        rows = table[table["split"] == split]
        drawn.append(rows.sample(min(each, len(rows)), random_state=seed))
    chosen = pd.concat(drawn)
    columns = [column for column in ("split", target) if column in chosen]
    titles = [" ".join(map(str, row)) for row in chosen[columns].to_numpy()]
    return image_grid(
        [read_image(path) for path in chosen["path"]],
        titles,
        columns=max(len(rows) for rows in drawn),
        title=f"Drawn at random from {' and '.join(', '.join(splits).rsplit(', ', 1))}, before any model saw them",
        caption=table_caption(caption, table),
    )


def curves(history: pd.DataFrame, *, caption: str = "") -> Figure:
    """Loss and validation score after each epoch.

    Args:
        history: ``epoch``, ``train_loss``, ``val_loss`` and ``val_balanced_accuracy``, from `bpsutils.training.train`.
        caption: Small text below, such as `SIMULATED`.
    """
    lowest = history.loc[history["val_loss"].idxmin()]
    best = history.loc[history["val_balanced_accuracy"].idxmax()]
    with style():
        figure = new_figure(7.2, 3.0, "", caption)
        left, right = figure.subplots(1, 2)
        left.plot(history["epoch"], history["train_loss"], label="train")
        left.plot(history["epoch"], history["val_loss"], label="val")
        left.set(ylabel="loss (cross-entropy)", title=f"Validation loss is lowest in epoch {lowest['epoch']:.0f}")
        left.legend()
        score = history["val_balanced_accuracy"]
        right.plot(history["epoch"], score, color=COLOURS[1], linestyle=DASHES[1], label="val")
        right.plot(best["epoch"], best["val_balanced_accuracy"], "o", color=INK)
        right.set(ylabel="balanced accuracy", ylim=(min(0.4, score.min()), 1.0))
        right.set_title(f"Best score {best['val_balanced_accuracy']:.2f} in epoch {best['epoch']:.0f}")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def confusion(matrix: pd.DataFrame, *, caption: str = "") -> Figure:
    """Images by true class (rows) and predicted class (columns), shaded by the share of the true class.

    Args:
        matrix: Square; its index and columns name the classes in one order.
        caption: Small text below, such as `SIMULATED`.
    """
    counts = matrix.to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    seen = counts.sum(axis=1) > 0
    balanced = float(np.diag(shares)[seen].mean()) if seen.any() else float("nan")
    title = f"{np.trace(counts)} of {counts.sum()} images are right; balanced accuracy {balanced:.2f}"
    with style():
        figure = new_figure(4.9, 3.6, title, caption)
        axes = figure.subplots()
        shading = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.55 else INK
            text = f"{counts[row, column]}\n{share:.0%}"
            axes.text(column, row, text, color=colour, horizontalalignment="center", verticalalignment="center")
        axes.set_xticks(range(len(counts)), matrix.columns)
        axes.set_yticks(range(len(counts)), matrix.index)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.spines[:].set_visible(False)
        figure.colorbar(shading, label="share of the true class", format=PercentFormatter(1), shrink=0.8)
    return figure


def roc(predictions: pd.DataFrame, *, caption: str = "") -> Figure:
    """True against false positives over all thresholds: of the last class, or of each of three and more.

    Args:
        predictions: ``label`` and ``score_<class>`` for each class, from `bpsutils.evaluation.predict`.
        caption: Small text below, such as `SIMULATED`.
    """
    names = [column.removeprefix("score_") for column in predictions if column.startswith("score_")]
    shown = names[-1:] if len(names) == 2 else names
    areas = {name: roc_auc_score(predictions["label"] == name, predictions[f"score_{name}"]) for name in shown}
    if len(shown) == 1:
        title = f"{shown[0]} images outrank others in {areas[shown[0]]:.0%} of all pairs"
    else:
        worst = min(areas, key=lambda name: areas[name])
        title = f"{worst} is hardest to rank: area {areas[worst]:.2f}"
    with style():
        figure = new_figure(4.9, 4.2, title, caption)
        axes = figure.subplots()
        for name in shown:
            false, true, _ = roc_curve(predictions["label"] == name, predictions[f"score_{name}"])
            axes.plot(false, true, label=f"{name}, area {areas[name]:.2f}", clip_on=False)
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="guessing, area 0.50")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="share of other images called the class", ylabel="share of the class found")
        axes.legend(loc="lower right")
    return figure
