"""Every figure of the course, one function each, in one look.

Each function returns a `matplotlib.figure.Figure` and touches no global state: `show` puts it into a notebook, and
``figure.savefig`` into a file. Titles state what the data show. Colours differ in brightness, and lines in dashes, so
that figures survive colour blindness and a black-and-white printer.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from bpsutils.config import SPLITS
from bpsutils.images import read_image

SIMULATED = "Simulated data, not from a microscope."
INK, QUIET, PALE = "#222222", "#666666", "#8fc3e8"
COLOURS = ("#0b4f8a", "#e69f00", "#a34700", "#8fc3e8", "#00705a", "#d9b3d9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
WHITE_LEVEL = 65535

_LOOK = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS, linestyle=DASHES),
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "image.cmap": "gray",
    "image.interpolation": "nearest",  # a pixel is a square: nothing is made up between two of them
    "legend.frameon": False,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Give everything drawn inside a ``with`` block the course's look, whatever the user's own settings are."""
    with matplotlib.style.context(["default", _LOOK]):
        yield


# ------------------------------------------------------------------------------------------------- into a notebook


def show(figure: Figure, alt: str, sentence: str = "") -> None:
    """Put a figure into the notebook, with alternative text that JupyterLab, Colab, GitHub and nbconvert all keep.

    Args:
        figure: From any function here.
        alt: One sentence for those who do not see the figure.
        sentence: Shown under the figure.
    """
    import IPython.display  # here, because only notebooks need it

    ipython: Any = IPython.display  # its functions carry no types
    ipython.display(ipython.HTML(as_html(figure, alt, sentence)))


def as_html(figure: Figure, alt: str, sentence: str = "") -> str:
    """A figure as one ``<img>`` that needs no other file, and the sentence under it.

    Example:
        >>> as_html(recipe_diagram(), "Two classes & six objects")[:41]
        '<img alt="Two classes &amp; six objects" '
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="{html.escape(alt)}" style="max-width:100%" src="data:image/png;base64,{data}">'
    return image + (f"<p>{html.escape(sentence)}</p>" if sentence else "")


def _figure(width: float, height: float, title: str, caption: str) -> Figure:
    """An empty figure with its title and its caption; call it inside `style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, horizontalalignment="left")
    if caption:
        figure.supxlabel(caption, x=0.99, horizontalalignment="right", fontsize=8, color=QUIET)
    return figure


def _bare(axes: Axes) -> None:
    """No ticks and no frame, for pictures and drawings."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _caption(caption: str, table: pd.DataFrame) -> str:
    """The caption given, or what the table itself says about where its images come from."""
    simulated = "simulated" in table and bool(table["simulated"].any())
    return caption or (SIMULATED if simulated else "")


# ---------------------------------------------------------------------------------------------------------- images


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
        figure = _figure(7.2, height, title, " ".join(filter(None, [scale, caption])))
        for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            _bare(axes)
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
        figure = _figure(7.2, 3.2, title, caption)
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        left.imshow(image, vmin=low, vmax=high)
        _bare(left)
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
        figure = _figure(7.2, 7.0 / len(versions) * tall / wide + 0.95, title, caption)
        for axes, (name, image) in zip(figure.subplots(1, len(versions)), versions.items(), strict=True):
            # an image of one level has no range of its own: it is shown among the 256 that it could have
            low = image.min() if levels[name] > 1 else 0
            axes.imshow(image, vmin=low, vmax=max(255, low) if levels[name] == 1 else image.max())
            axes.set_title(f"{name}\n{image.min():,} to {image.max():,}", fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=QUIET, linewidth=0.5)  # else an all-white image is not there
    return figure


# ---------------------------------------------------------------------------------------------------------- tables


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
        figure = _figure(6.4, 3.2, finding, _caption(caption, table))
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
        caption=_caption(caption, table),
    )


# --------------------------------------------------------------------------------------------------------- results


def curves(history: pd.DataFrame, *, caption: str = "") -> Figure:
    """Loss and validation score after each epoch.

    Args:
        history: ``epoch``, ``train_loss``, ``val_loss`` and ``val_balanced_accuracy``, from `bpsutils.training.train`.
        caption: Small text below, such as `SIMULATED`.
    """
    lowest = history.loc[history["val_loss"].idxmin()]
    best = history.loc[history["val_balanced_accuracy"].idxmax()]
    with style():
        figure = _figure(7.2, 3.0, "", caption)
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
        figure = _figure(4.9, 3.6, title, caption)
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
        figure = _figure(4.9, 4.2, title, caption)
        axes = figure.subplots()
        for name in shown:
            false, true, _ = roc_curve(predictions["label"] == name, predictions[f"score_{name}"])
            axes.plot(false, true, label=f"{name}, area {areas[name]:.2f}", clip_on=False)
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="guessing, area 0.50")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="share of other images called the class", ylabel="share of the class found")
        axes.legend(loc="lower right")
    return figure


# -------------------------------------------------------------------------------------------------------- drawings


def recipe_diagram() -> Figure:
    """The three-step recipe: one Dataset class makes three Datasets, which three DataLoaders read."""
    with style():
        figure = _figure(7.2, 3.6, "Two classes, three splits, six objects", "")
        axes = figure.subplots()
        axes.set(xlim=(0, 12), ylim=(0, 7))
        _bare(axes)
        _box(axes, 2, 6, "your Dataset class\n__len__, __getitem__", COLOURS[0])
        _box(axes, 10, 6, "DataLoader class\nfrom torch.utils.data", COLOURS[0])
        for split, y in zip(SPLITS, (4.1, 2.5, 0.9), strict=True):
            _box(axes, 4, y, f"{split} Dataset", PALE)
            _box(axes, 8, y, f"{split} DataLoader", PALE)
            _arrow(axes, (5.5, y), (6.45, y))
            _arrow(axes, (1.2, 5.4), (2.45, y), "angle,angleA=-90,angleB=180")
            _arrow(axes, (10.8, 5.4), (9.55, y), "angle,angleA=-90,angleB=0")
        steps = ((2, "Step 1: say how a sample is loaded"), (10, "Step 3: batch, shuffle, load in parallel"))
        for x, text in steps:
            axes.text(x, 6.85, text, fontsize=8, color=QUIET, horizontalalignment="center")
        axes.text(6, 0.05, "Step 2: one object per split", fontsize=8, color=QUIET, horizontalalignment="center")
    return figure


def _box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    """A rounded box with text, centred at ``(x, y)``."""
    wide, tall = (3.4, 1.1) if "\n" in text else (3.0, 0.9)
    corner = (x - wide / 2, y - tall / 2)
    axes.add_patch(FancyBboxPatch(corner, wide, tall, boxstyle="round,pad=0,rounding_size=0.2", color=colour))
    ink = "white" if colour == COLOURS[0] else INK
    axes.text(x, y, text, color=ink, horizontalalignment="center", verticalalignment="center", fontsize=9)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: str = "arc3") -> None:
    properties: dict[str, Any] = {"arrowstyle": "-|>", "color": QUIET, "connectionstyle": bend, "shrinkA": 0}
    axes.annotate("", end, start, arrowprops=properties)


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
        figure = _figure(7.2, 2.3, f"{left} and {right} make {total.shape}: sides of length 1 are repeated", "")
        axes = figure.subplots()
        step = total.shape[1] + 1.6
        for number, (values, sign) in enumerate([(first, "+"), (second, "="), (total, "")]):
            _cells(axes, np.broadcast_to(values, total.shape), values.shape, number * step)
            axes.text((number + 1) * step - 0.8, total.shape[0] / 2, sign, ha="center", va="center", fontsize=14)
            axes.text(number * step + total.shape[1] / 2, -0.35, f"shape {values.shape}", ha="center", fontsize=9)
        axes.set(xlim=(-0.1, 3 * step - 1.4), ylim=(total.shape[0] + 0.1, -0.8), aspect="equal")
        _bare(axes)
    return figure


def _cells(axes: Axes, values: np.ndarray, own: tuple[int, ...], left: float) -> None:
    """A table of numbers; cells beyond the tensor's own shape are pale."""
    for (row, column), value in np.ndenumerate(values):
        stored = row < own[0] and column < own[1]
        face, ink = (PALE, INK) if stored else ("#f2f2f2", QUIET)
        axes.add_patch(Rectangle((left + column, row), 1, 1, facecolor=face, edgecolor="white", linewidth=2))
        axes.text(left + column + 0.5, row + 0.5, str(value), color=ink, ha="center", va="center", fontsize=9)
