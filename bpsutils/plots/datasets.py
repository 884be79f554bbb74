"""Figures of notebook 02: the class, one sample, what early reading costs, roads to one image, batches by pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bpsutils.plots.images import display_window
from bpsutils.plots.look import COLOURS, INK, PALE, QUIET, bare, new_figure, style

_BASE = ("__getitem__(index)   raises NotImplementedError", "no __init__, no __len__")
_KEPT = ("img_labels : DataFrame", "folder : Path", "transform : callable", "target_transform : callable")
_METHODS = ("__init__(csv, folder, ...)", "__len__() -> int", "__getitem__(index) -> image, label")


def class_diagram() -> Figure:
    """The custom dataset and the class it inherits from, in boxes: name, attributes, methods."""
    with style():
        figure = new_figure(7.2, 3.9, "One method is demanded, two are needed, and no image is kept", "")
        axes = figure.subplots()
        axes.set(xlim=(0, 14), ylim=(0, 9.2))
        bare(axes)
        _class(axes, 9.1, "torch.utils.data.Dataset", (_BASE,))
        _class(axes, 5.6, "Crops", (_KEPT, _METHODS))
        inherits = {"arrowstyle": "-|>", "edgecolor": QUIET, "facecolor": "white", "shrinkA": 0, "mutation_scale": 18}
        axes.annotate("", (3.6, 6.8), (3.6, 5.6), arrowprops=inherits)
        axes.text(3.9, 6.1, "inherits from", fontsize=8, color=QUIET, va="center")
        notes = [(7.6, "the only one that the base class knows"), (3.35, "small things, kept from the start")]
        notes += [(1.85, "write it if there is something to keep"), (1.25, "samplers and len() ask for it")]
        notes += [(0.65, "an image is made here, and handed out")]
        for y, text in notes:
            axes.text(7.6, y, text, fontsize=8, color=QUIET, va="center")
    return figure


def _class(axes: Axes, top: float, name: str, parts: Sequence[Sequence[str]]) -> None:
    """A class as UML draws it, its upper edge at ``top``."""
    axes.add_patch(Rectangle((0.1, top - 0.9), 7.2, 0.9, facecolor=COLOURS[0], edgecolor=COLOURS[0]))
    axes.text(3.7, top - 0.45, name, color="white", ha="center", va="center", fontsize=9, fontweight="bold")
    top -= 0.9
    for lines in parts:
        height = 0.6 * len(lines) + 0.2
        axes.add_patch(Rectangle((0.1, top - height), 7.2, height, facecolor="white", edgecolor=COLOURS[0]))
        for number, line in enumerate(lines):
            axes.text(0.4, top - 0.4 - 0.6 * number, line, va="center", fontsize=8, family="DejaVu Sans Mono")
        top -= height


def sample_figure(sample: Mapping[str, Any], classes: Sequence[str] = (), *, caption: str = "") -> Figure:
    """One sample of a dataset: its image on axes of pixels, beside everything else in the dict.

    Args:
        sample: From `bpsutils.datasets.ImageDataset`: ``image`` of shape ``(1, H, W)``, ``group``, ``path``,
            ``index``, and ``label`` where there are labels.
        classes: Names of the class numbers.
        caption: Small text below, such as `SIMULATED`.
    """
    image = sample["image"].numpy()[0]
    low, high = display_window([image])
    height, width = image.shape
    label = sample.get("label")
    named = "(none)" if label is None else f"{label}" + (f", that is {classes[label]}" if classes else "")
    entries = {
        "image": f"{tuple(sample['image'].shape)} {str(sample['image'].dtype).removeprefix('torch.')}",
        "label": named,
        "group": sample["group"] or "(none)",
        "path": "..." + str(sample["path"])[-26:],
        "index": str(sample["index"]),
    }
    with style():
        figure = new_figure(7.2, 3.2, f"Sample {sample['index']} is {height} x {width} pixels", caption)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        left.imshow(image, vmin=low, vmax=high)
        left.set(xlim=(-0.5, 189.5), ylim=(179.5, -0.5), xlabel="column (pixels)", ylabel="row (pixels)")
        if height > 180 or width > 190:  # the rare large crops
            left.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        bare(right)
        right.set(xlim=(0, 10), ylim=(6, 0))
        for row, (key, value) in enumerate(entries.items()):
            right.text(0.2, row + 0.9, f'"{key}"', fontsize=9, color=COLOURS[0], family="DejaVu Sans Mono")
            right.text(2.3, row + 0.9, value, fontsize=9, family="DejaVu Sans Mono")
    return figure


def reading_cost(files: int, mean_bytes: float, *, whole: int = 77_177, caption: str = "") -> Figure:
    """What it costs to read everything in ``__init__``: files opened before each sample, and memory for a whole set.

    Args:
        files: Images of the data set at hand.
        mean_bytes: Memory of an average image as uint16.
        whole: Images of the set that the memory is reckoned for.
        caption: Small text below, such as `SIMULATED`.
    """
    gigabytes = {"uint16": whole * mean_bytes / 1e9, "float32": 2 * whole * mean_bytes / 1e9}
    with style():
        title = f"For one sample eager opens {files} files and lazy 1; later only lazy pays"
        figure = new_figure(7.2, 3.1, title, caption)
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        handed_out = np.array([1, 2 * files])
        left.plot(handed_out, handed_out, label="lazy: in __getitem__")
        left.plot(handed_out, [files, files], label="eager: in __init__")
        left.axvline(files, ymax=0.5, color=QUIET, linewidth=0.7)
        left.text(files, 0.12 * files, "  epoch 2 begins", fontsize=8, color=QUIET, va="center")
        left.set(xlabel="samples handed out", ylabel="files opened so far", ylim=(0, 2.8 * files))
        left.legend(loc="upper left")
        bars = right.barh(["float32", "uint16"], [gigabytes["float32"], gigabytes["uint16"]], 0.5, color=COLOURS[1])
        right.bar_label(bars, fmt=" %.1f GB", padding=2)
        right.set(xlim=(0, 1.45 * gigabytes["float32"]), xlabel="memory (GB)")
        right.set_title(f"eager, for {whole:,} images", fontsize=9)
    return figure


def same_image(roads: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """One image as several datasets return it, all in the display window of the first.

    Args:
        roads: Name of each dataset and its image, of shape ``(H, W)`` or ``(H, W, 3)``; the first is the reference.
        caption: Small text below, such as `SIMULATED`.
    """
    names, images = list(roads), list(roads.values())
    low, high = display_window(images[:1])
    lost = [name for name, image in roads.items() if not np.array_equal(image, images[0])]
    title = f"{len(images) - len(lost)} of {len(images)} roads bring the grey levels of the file"
    with style():
        tall, wide = images[0].shape
        figure = new_figure(7.2, 7.0 / len(images) * tall / wide + 0.95, title, caption)
        for axes, name, image in zip(figure.subplots(1, len(images)), names, images, strict=True):
            grey = image if image.ndim == 2 else image[..., 0]
            # eight bits have a white of their own, which the window of sixteen would show as black
            axes.imshow(grey, vmin=low if name not in lost else 0, vmax=high if name not in lost else 255)
            axes.set_title(f"{name}\n{image.min():,} to {image.max():,}", fontsize=8)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=QUIET, linewidth=0.5)
    return figure


def batch_pixels(pixels: Sequence[int], batch_size: int, budget: int, *, caption: str = "") -> Figure:
    """Pixels in each batch: with a fixed number of images, and with as many as a budget of pixels holds.

    Args:
        pixels: Pixels of each image, in the order of the stream.
        batch_size: Images in a fixed batch.
        budget: Most pixels in a batch of the other kind.
        caption: Small text below, such as `SIMULATED`.
    """
    fixed = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    dynamic = _within(pixels, budget)
    sums = [np.array([sum(batch) for batch in batches]) / 1000 for batches in (fixed, dynamic)]
    counts = [len(batch) for batch in dynamic[:-1]]
    with style():
        title = f"A budget of {budget / 1000:.0f} thousand pixels holds {min(counts)} to {max(counts)} images"
        figure = new_figure(7.2, 3.0, title, caption)
        titles = (f"{batch_size} images: up to {max(sums[0]):.0f} thousand pixels", "never over the budget")
        for axes, values, name in zip(figure.subplots(1, 2, sharey=True), sums, titles, strict=True):
            axes.bar(range(len(values)), values, 0.8, color=PALE)
            axes.axhline(budget / 1000, color=INK, linewidth=1, linestyle="--")
            axes.set_title(name, fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(xlabel="batch", ylabel="pixels (thousands)" if name == titles[0] else "")
    return figure


def _within(pixels: Sequence[int], budget: int) -> list[list[int]]:
    """Images in order, in batches of as many as the budget holds; one that is too large is alone."""
    batches: list[list[int]] = [[]]
    for size in pixels:
        if batches[-1] and sum(batches[-1]) + size > budget:
            batches.append([])
        batches[-1].append(size)
    return batches
