"""Figures of notebook 12: a flat store, the ladder of loaders, what a faster part is worth, options of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from matplotlib.ticker import StrMethodFormatter

from bpsutils.plots.images import display_window
from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, bare, new_figure, style

# One training step in milliseconds, as in notebook 03: 30 to load a batch, 10 to train on it.
LOAD, TRAIN = 30.0, 10.0
FASTER = (1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def flat_store(images: Sequence[np.ndarray], *, caption: str = "") -> Figure:
    """Images of several sizes above the one array that holds all their pixels, one image after the other.

    Args:
        images: Grey images of shape ``(H, W)``, a handful.
        caption: Small text below, such as `SIMULATED`.
    """
    ends = np.cumsum([image.size for image in images])
    starts = ends - [image.size for image in images]
    low, high = display_window(list(images))
    largest = max(max(image.shape) for image in images)
    with style():
        title = f"{len(images)} images, {ends[-1]:,} pixels in one row: offsets say where each begins"
        figure = new_figure(7.2, 3.0, title, caption)
        figure.set_layout_engine("none")
        store = figure.add_axes((0.03, 0.2, 0.94, 0.14))
        bare(store)
        store.set(xlim=(0, ends[-1]), ylim=(0, 1))
        for number, (image, start, end) in enumerate(zip(images, starts, ends, strict=True)):
            left, share = 0.03 + 0.94 * number / len(images), 0.94 / len(images)
            axes = figure.add_axes((left + 0.1 * share, 0.44, 0.8 * share, 0.4))
            bare(axes)
            axes.imshow(image, vmin=low, vmax=high)
            axes.set(xlim=(-1, largest), ylim=(largest, -1))
            axes.set_title(f"{image.shape[0]} × {image.shape[1]} px", fontsize=9)
            _segment(store, int(start), int(end), PALE if number % 2 else COLOURS[0])
            lines = ConnectionPatch((0, image.shape[0]), (float(start), 1.0), "data", "data", axesA=axes, axesB=store)
            lines.set(color=QUIET, linestyle=":")
            figure.add_artist(lines)
        store.text(ends[-1], -0.12, f"{ends[-1]:,}", ha="right", va="top", fontsize=9, color=INK)
    return figure


def _segment(axes: Axes, start: int, end: int, colour: str) -> None:
    """One image's part of the store, with its offset below."""
    axes.add_patch(Rectangle((start, 0), end - start, 1, facecolor=colour, edgecolor="white"))
    axes.text(start, -0.12, f"{start:,}", ha="left", va="top", fontsize=9, color=INK)


def ladder(
    times: Mapping[str, Sequence[float]], predicted: Mapping[str, float] | None = None, *, caption: str = ""
) -> Figure:
    """How many times faster each rung is than the first, from rounds measured side by side.

    Args:
        times: Name of each rung and the milliseconds of each of its rounds, the first rung first.
        predicted: Ratios that were expected of some rungs; they are drawn as diamonds.
        caption: Small text below, such as `SIMULATED`.

    Raises:
        ValueError: If something is predicted of a rung that is not there.
    """
    names = list(times)
    if unknown := [name for name in predicted or {} if name not in times]:
        raise ValueError(f"predicted names no rung: {', '.join(unknown)}; the rungs are {', '.join(names)}")
    rounds = np.array([times[name] for name in names])
    ratios = rounds[0] / rounds  # of rungs measured in the same round, for the next one may be disturbed
    middle, low, high = np.median(ratios, axis=1), ratios.min(axis=1), ratios.max(axis=1)
    places = list(range(len(names)))
    with style():
        best = int(middle.argmax())
        title = f"Here “{names[best]}” is {_times(middle[best])} times as fast as {names[0]}"
        figure = new_figure(7.2, 1.3 + 0.42 * len(names), title, caption)
        axes = figure.subplots()
        axes.barh(places, middle, color=[QUIET, *[COLOURS[0]] * (len(names) - 1)], height=0.6)
        axes.hlines(places, low, high, color=COLOURS[1], linewidth=2.5)
        guesses = [(predicted or {}).get(name, np.nan) for name in names]
        reaches = np.fmax(high, guesses)
        for place, value, reach in zip(places, middle, reaches, strict=True):
            axes.text(reach * 1.15, place, f"× {_times(value)}", va="center", fontsize=9)
        if predicted:
            axes.plot(guesses, places, "D", color=COLOURS[2], label="your prediction")
            axes.legend(loc="upper right")
        axes.set(
            xscale="log",
            xlim=(0.7 * min(1, np.fmin(low, guesses).min()), 2.2 * reaches.max()),
            xlabel=f"times as fast as {names[0]} (log scale)",
        )
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_title(f"Bars: median of {rounds.shape[1]} rounds. Lines: slowest to fastest", fontsize=9)
    return figure


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def speedup(faster: float) -> float:
    """How many times faster a step is if its loading, `LOAD` of `LOAD` + `TRAIN` milliseconds, is ``faster`` times so.

    Example:
        >>> speedup(1), speedup(3)
        (1.0, 2.0)
    """
    return (LOAD + TRAIN) / (LOAD / faster + TRAIN)


def amdahl(faster: float) -> Figure:
    """A step whose loading is made faster, beside what that is worth: Amdahl's law.

    Args:
        faster: How many times faster loading is than at first, from 1.
    """
    counts = np.geomspace(FASTER[0], FASTER[-1], 100)
    limit = (LOAD + TRAIN) / TRAIN
    with style():
        title = f"Loading {faster:g} times faster makes an epoch {speedup(faster):.1f} times faster"
        figure = new_figure(7.2, 3.0, title, "A computed example.")
        left, right = figure.subplots(1, 2, width_ratios=(4, 3))
        for row, load in enumerate((LOAD, LOAD / faster)):
            left.barh(row, load, color=COLOURS[1], height=0.55)
            left.barh(row, TRAIN, left=load, color=COLOURS[0], height=0.55)
            share = load / (load + TRAIN)
            left.text(load + TRAIN + 0.6, row, f"{share:.0%} loading", va="center", fontsize=9)
        left.text(LOAD / 2, 0, "loading", ha="center", va="center")
        left.text(LOAD + TRAIN / 2, 0, "training", ha="center", va="center", color="white")
        left.set(xlim=(0, 58), ylim=(1.6, -0.6), xlabel="one step (ms)", yticks=(0, 1), yticklabels=("before", "now"))
        left.tick_params(axis="y", length=0)
        right.plot(counts, [speedup(count) for count in counts], color=COLOURS[0])
        right.axhline(limit, color=INK, linestyle=DASHES[3])
        right.text(1.1, limit * 1.03, f"training alone: × {limit:.0f}", fontsize=9)
        right.plot(faster, speedup(faster), "o", color=COLOURS[2], markersize=9)
        right.set(xscale="log", xlabel="loading, times faster", ylabel="epoch, times faster", ylim=(0, limit * 1.25))
        right.set_xticks([1, 10, 100], ["1", "10", "100"])
        right.minorticks_off()
    return figure


def step_times(times: Mapping[str, Sequence[float]], device: str, *, caption: str = "") -> Figure:
    """Milliseconds of one training step with each option, beside those without any.

    Args:
        times: Name of each option and the milliseconds of each of its rounds; the first is the plain step.
        device: What they were measured on, for the title.
        caption: Small text below, such as `SIMULATED`.
    """
    names = list(times)
    rounds = np.array([times[name] for name in names])
    middle = np.median(rounds, axis=1)
    places = list(range(len(names)))
    with style():
        best = int(middle.argmin())
        verdict = f"“{names[best]}” is fastest" if best else f"nothing beats {names[0]}"
        figure = new_figure(7.2, 1.2 + 0.42 * len(names), f"On this {device}, {verdict}", caption)
        axes = figure.subplots()
        axes.barh(places, middle, color=[COLOURS[0] if place == best else PALE for place in places], height=0.6)
        axes.hlines(places, rounds.min(axis=1), rounds.max(axis=1), color=COLOURS[1], linewidth=2.5)
        for place, value, reach in zip(places, middle, rounds.max(axis=1), strict=True):
            faster = f"× {middle[0] / value:.2f}"
            axes.text(reach + 0.02 * rounds.max(), place, f"{value:.1f} ms, {faster}", va="center", fontsize=9)
        axes.set(xlim=(0, 1.35 * rounds.max()), xlabel="one training step (ms)")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
    return figure
