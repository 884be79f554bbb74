"""Figures of notebook 03: a batch on its way, the odd last batch, workers at work and what they deliver."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from bpsutils.plots.look import COLOURS, INK, PALE, QUIET, bare, new_figure, style

# What a frame of a worker's traceback means; a frame of any other file is the dataset's own code.
_FRAMES = {"_worker_loop": "PyTorch's loop", "fetch": "PyTorch's fetching"}


def batch_xray(indices: Sequence[int], stages: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """One image of a batch at each station, from its index to the device.

    Args:
        indices: The batch as the sampler hands it out; the image that is followed comes first.
        stages: Name of each later station, up to five, and what is there: one image ``(H, W)``, or a batch
            ``(B, H, W)`` whose first image is framed.
        caption: Small text below, such as `SIMULATED`.
    """
    followed = [pixels if pixels.ndim == 2 else pixels[0] for pixels in stages.values()]
    changed = sum(not np.array_equal(a, b) for a, b in pairwise(followed))
    with style():
        title = f"Image {indices[0]} passes {len(stages) + 1} stations; its pixels change at {changed} of them"
        figure = new_figure(7.2, 5.9, title, caption)
        figure.set_layout_engine("none")
        # places by hand: a layout that makes room for text differs between versions of matplotlib
        places = [(0.02 + 0.34 * column, bottom) for bottom in (0.57, 0.12) for column in range(3)]
        first, *others = (figure.add_axes((left, bottom, 0.27, 0.33)) for left, bottom in places)
        _index_cells(first, indices)
        for axes in others:
            bare(axes)
        for number, (axes, (name, pixels)) in enumerate(zip(others, stages.items(), strict=False), start=2):
            _station(axes, f"{number}  {name}", pixels)
    return figure


def _index_cells(axes: Axes, indices: Sequence[int]) -> None:
    bare(axes)
    axes.set(xlim=(-0.1, 2.1), ylim=(2.3, -0.2), aspect="equal", title="1  sampler")
    for number, index in enumerate(indices[:4]):
        row, column = divmod(number, 2)
        face, ink = (COLOURS[0], "white") if number == 0 else (PALE, INK)
        axes.add_patch(Rectangle((column, row), 0.95, 0.95, color=face))
        axes.text(column + 0.48, row + 0.48, str(index), color=ink, ha="center", va="center")
    axes.set_xlabel(f"{len(indices)} indices\nno pixels yet", fontsize=9)


def _station(axes: Axes, title: str, pixels: np.ndarray) -> None:
    """An image in its own range of levels; a batch of four as tiles, the first one framed."""
    shown = pixels if pixels.ndim == 2 else np.block([[*pixels[:2]], [*pixels[2:4]]])
    axes.imshow(shown)
    half = max(shown.shape) / 2  # square panels: all of one size, in every version of matplotlib
    middle_y, middle_x = (side / 2 - 0.5 for side in shown.shape)
    axes.set(xlim=(middle_x - half, middle_x + half), ylim=(middle_y + half, middle_y - half))
    if pixels.ndim == 3:
        height, width = pixels.shape[1:]
        axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=COLOURS[1], linewidth=3))
    low, high = (f"{level:.3f}" if pixels.dtype.kind == "f" else f"{level:,}" for level in (shown.min(), shown.max()))
    shape = " × ".join(map(str, pixels.shape))
    axes.set_title(title)
    axes.set_xlabel(f"{pixels.dtype}, {shape}\n{low} to {high}", fontsize=9)


def last_batch(n: int, batch_size: int) -> Figure:
    """Sizes of an epoch's batches, and what one image weighs in the mean of the batches' means.

    Args:
        n: Images.
        batch_size: Of all batches but the last.
    """
    sizes = np.array([min(batch_size, n - start) for start in range(0, n, batch_size)])
    weights = n / (sizes * len(sizes))
    with style():
        finding = f"In a mean of batch means, an image of the last batch weighs {weights[-1]:.1f} times its share"
        figure = new_figure(7.2, 2.9, finding, "")
        left, right = figure.subplots(1, 2)
        numbers = np.arange(1, len(sizes) + 1)
        colours = [COLOURS[0]] * (len(sizes) - 1) + [COLOURS[1]]
        left.bar(numbers, sizes, color=colours)
        left.set(xlabel="batch of the epoch", ylabel="images", title=f"{n} images in batches of {batch_size}")
        right.bar(numbers, weights, color=colours)
        right.axhline(1, color=INK, linestyle=":")
        right.set(xlabel="batch of the epoch", ylabel="weight of one image", title="1 is its fair share")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def throughput(measured: pd.DataFrame, workers: pd.DataFrame, *, caption: str = "") -> Figure:
    """What was measured: images a second by batch size, for loading and for training, and by number of workers.

    Args:
        measured: ``batch_size``, ``loading`` and ``training``, both in images per second.
        workers: ``num_workers`` and ``images_per_second``, from `bpsutils.loaders.measure_workers`.
        caption: Small text below, such as `SIMULATED`.
    """
    gain = {name: measured[name].max() / measured[name].iloc[0] for name in ("loading", "training")}
    rates = workers.set_index("num_workers")["images_per_second"]
    best = rates.idxmax()
    with style():
        finding = f"Here {best} workers load fastest; batches speed up training {gain['training']:.1f} times"
        figure = new_figure(7.2, 3.2, f"{finding}, loading {gain['loading']:.1f}", caption)
        left, right = figure.subplots(1, 2)
        for name, marker in (("loading", "o"), ("training", "s")):
            left.plot(measured["batch_size"], measured[name], marker=marker, label=f"{name}, up to × {gain[name]:.1f}")
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter(ScalarFormatter())
        left.set_xticks(measured["batch_size"], measured["batch_size"].astype(str))
        left.minorticks_off()
        left.set(xlabel="batch size (images)", ylabel="images per second", title="By batch size, no workers")
        left.set_ylim(0, measured[["loading", "training"]].to_numpy().max() * 1.35)
        left.legend(loc="upper left")
        bars = right.bar(rates.index.astype(str), rates, color=[COLOURS[1] if n == best else PALE for n in rates.index])
        right.bar_label(bars, [f"× {rate / rates.iloc[0]:.1f}" for rate in rates])
        right.set(xlabel="workers", ylabel="images per second", title="By number of workers")
        right.margins(y=0.12)
    return figure


@dataclass(frozen=True)
class Schedule:
    """A simulated epoch: who loads which batch when, and when it is trained on. Times are in milliseconds.

    Attributes:
        loading: ``(worker, batch, start, end)`` of each batch; worker -1 is the main process.
        training: ``(start, end)`` of each batch.
    """

    loading: list[tuple[int, int, float, float]]
    training: list[tuple[float, float]]

    @property
    def total(self) -> float:
        """When the last batch has been trained on."""
        return self.training[-1][1]

    @property
    def waiting(self) -> float:
        """How long the GPU had nothing to do."""
        return self.total - sum(end - start for start, end in self.training)


def schedule(
    workers: int, load: float = 30, train: float = 10, batches: int = 12, cores: int = 4, prefetch: int = 2
) -> Schedule:
    """How a DataLoader's workers and a GPU share the work, if each batch takes the same time.

    Batches go to the workers in turn and are trained on in order. A worker is never more than ``prefetch`` batches
    ahead. More workers than cores share the cores: each becomes slower. Starting a worker takes no time here.

    Args:
        workers: 0 loads in the main process, while the GPU waits.
        load: Milliseconds in which one worker on a core of its own loads a batch.
        train: Milliseconds of one training step.
        batches: Batches in the epoch.
        cores: Of the machine.
        prefetch: Batches that each worker may be ahead.

    Example:
        >>> schedule(0, batches=2).total, schedule(2, batches=2).total
        (80.0, 50.0)
    """
    loading: list[tuple[int, int, float, float]] = []
    training: list[tuple[float, float]] = []
    duration = load * max(1.0, workers / cores) if workers else load
    free = [0.0] * max(workers, 1)  # when each worker has finished what it was told so far
    for batch in range(batches):
        worker = batch % workers if workers else 0
        # the main process asks for a further batch when it takes one out; without workers, after it has trained on it
        behind = batch - prefetch * workers
        asked = 0.0 if behind < 0 else training[behind][0] if workers else training[-1][1] if training else 0
        begin = max(free[worker], asked)
        free[worker] = begin + duration
        loading.append((worker if workers else -1, batch, begin, free[worker]))
        start = max(free[worker], training[-1][1] if training else 0.0)
        training.append((start, start + train))
    return Schedule(loading, training)


def worker_timeline(workers: int, *, limit: float | None = None) -> Figure:
    """The simulated schedule of `schedule` as bars: who loads what when, and when the GPU waits.

    Args:
        workers: Number of workers; 0 loads in the main process.
        limit: Right end of the time axis in milliseconds, to compare figures. Default: the end of the epoch.
    """
    plan = schedule(workers)
    names = [f"worker {number}" for number in range(workers)] or ["main process"]
    with style():
        title = f"{workers or 'No'} worker{'s' * (workers != 1)}: the GPU waits {plan.waiting / plan.total:.0%} of"
        figure = new_figure(7.2, 1.7 + 0.24 * max(workers, 1), f"{title} {plan.total:.0f} ms", "A simulated schedule.")
        axes = figure.subplots()
        for worker, batch, start, end in plan.loading:
            _bar(axes, max(worker, 0), start, end, batch, PALE)
        for batch, (start, end) in enumerate(plan.training):
            _bar(axes, len(names), start, end, batch, COLOURS[0])
        axes.set_yticks(range(len(names) + 1), [*names, "GPU trains"])
        axes.set(xlim=(0, limit or plan.total), ylim=(len(names) + 0.6, -0.6), xlabel="time (ms)")
        axes.tick_params(axis="y", length=0)
    return figure


def _bar(axes: Axes, row: int, start: float, end: float, batch: int, colour: str) -> None:
    axes.barh(row, end - start, left=start, height=0.8, color=colour, edgecolor="white")
    ink = "white" if colour == COLOURS[0] else INK
    axes.text((start + end) / 2, row, str(batch), ha="center", va="center", fontsize=7, color=ink)


def too_many_workers(most: int = 16, cores: Sequence[int] = (2, 4, 8), batch_mb: float = 38.5) -> Figure:
    """What more workers buy in the simulated schedule, and what they cost.

    Args:
        most: Largest number of workers.
        cores: One line each.
        batch_mb: Memory of one batch in MB.
    """
    counts = np.arange(1, most + 1)
    times = {number: [schedule(int(n), cores=number, batches=48).total for n in counts] for number in cores}
    best = {number: int(counts[np.argmin(np.round(times[number], 6))]) for number in cores}
    memory = counts * 2 * batch_mb / 1000
    with style():
        few = " or ".join(map(str, sorted(set(best.values()))))
        figure = new_figure(7.2, 3.2, f"More than {few} workers save no time and take memory", "A simulated schedule.")
        left, right = figure.subplots(1, 2)
        for number in cores:
            left.plot(counts, times[number], label=f"{number} cores, best with {best[number]}")
        left.set(xlabel="workers", ylabel="epoch of 48 batches (ms)", title="Time", ylim=(0, None))
        left.legend()
        right.bar(counts, memory, color=COLOURS[1])
        right.set(
            xlabel="workers", ylabel="batches kept ready (GB)", title=f"Two batches of {batch_mb:.0f} MB a worker"
        )
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def worker_traceback(message: str) -> Figure:
    """A worker's traceback without torch's inner lines and without folders, each line with what it says.

    Args:
        message: ``str(error)`` of an exception that came out of a DataLoader with workers.

    Raises:
        ValueError: If the message is not one of a worker.
    """
    lines = message.strip().splitlines()
    caught = re.match(r"Caught \w+ in \w+ worker process (\d+)", lines[0]) if lines else None
    if not caught:
        raise ValueError("worker_traceback takes str(error) of an exception that a worker raised")
    rows = [(lines[0], f"who: worker {caught[1]}", INK)]
    own = iter(["where: your Dataset"])
    for path, name in re.findall(r'File "([^"]+)", line \d+, in (\S+)', message):
        if name in _FRAMES:
            rows.append((f"  {path.rpartition('/')[2]}, in {name}", _FRAMES[name], QUIET))
        elif "torch" not in path:
            rows.append((f"  {path.rpartition('/')[2]}, in {name}", next(own, "and what it called"), COLOURS[0]))
    what = textwrap.wrap(lines[-1].rpartition("bpsutils.images.")[2], 82)
    rows += [(text, "" if number else "what, to which file", COLOURS[2]) for number, text in enumerate(what)]
    with style():
        figure = new_figure(7.2, 0.6 + 0.25 * len(rows), "Read it from the bottom: what, then where, then who", "")
        figure.set_layout_engine("none")  # it would make room for long lines by narrowing all others
        axes = figure.add_axes((0.015, 0.03, 0.97, 0.82))
        bare(axes)
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6))
        for row, (text, note, colour) in enumerate(rows):
            axes.text(0, row, note, fontsize=9, color=colour, va="center")
            axes.text(0.22, row, text, family="DejaVu Sans Mono", fontsize=7.5, color=colour, va="center")
    return figure
