"""Figures of notebook 05: sizes kept, lost files, rebuild times, conditions and plates, the leakage laboratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bpsutils.leakage import mean_interval
from bpsutils.plots.look import COLOURS, INK, PALE, QUIET, new_figure, style, table_caption

MARKERS = ("o", "^", "s", "D", "v", "P")


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of the ``number``-th kind of dot."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def size_filter(table: pd.DataFrame, min_size: int, max_size: int, *, caption: str = "") -> Figure:
    """Height and width of each image, by stain, and the square that a size filter keeps.

    Args:
        table: ``height`` and ``width`` in pixels, and ``stain``.
        min_size: Smallest shorter side that is kept.
        max_size: Largest longer side that is kept.
        caption: Small text below; a table with simulated rows says so by itself.
    """
    sides = table[["height", "width"]]
    kept = (sides.min(axis=1) >= min_size) & (sides.max(axis=1) <= max_size)
    with style():
        title = f"Sides from {min_size} to {max_size} px: {kept.sum()} of {len(table)} images are kept"
        figure = new_figure(6.4, 4.2, title, table_caption(caption, table))
        axes = figure.subplots()
        across = max_size - min_size
        axes.add_patch(Rectangle((min_size, min_size), across, across, facecolor=PALE, alpha=0.35, label="kept"))
        for number, (stain, rows) in enumerate(table.groupby("stain")):
            axes.scatter(rows["width"], rows["height"], s=22, label=str(stain), linewidths=0, **_look(number))
        axes.set(xlabel="width (pixels)", ylabel="height (pixels)", aspect="equal")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    return figure


def scan_counts(found: Mapping[str, Sequence[int]], total: int) -> Figure:
    """How many files each way of scanning found, scan after scan.

    Args:
        found: Name of each way, and its number of files in each scan.
        total: How many files there are.
    """
    missed = {name: sum(count < total for count in counts) for name, counts in found.items()}
    finding = "; ".join(f"{name} in {n} of {len(found[name])}" for name, n in missed.items())
    with style():
        figure = new_figure(7.2, 3.0, f"Scans that miss files: {finding}", "")
        axes = figure.subplots()
        axes.axhline(total, color=QUIET, linestyle=":", label=f"all {total} files")
        for number, (name, counts) in enumerate(found.items()):
            axes.plot(range(1, len(counts) + 1), counts, linestyle="", markersize=6, label=name, **_look(number))
        axes.set(xlabel="scan (each with failures of its own)", ylabel="files found", xlim=(0.3, None))
        axes.set_ylim(min(map(min, found.values())) - 0.08 * total, total * 1.06)
        axes.set_xticks(range(1, max(map(len, found.values())) + 1))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def rebuild_times(seconds: Mapping[str, float]) -> Figure:
    """How long each way of bringing an index up to date took.

    Args:
        seconds: Name and time of each way; the first is compared with the second.
    """
    names, times = list(seconds), list(seconds.values())
    with style():
        title = f"A {names[0]} takes {times[0] / times[1]:.0f} times as long as an update with {names[1]}"
        figure = new_figure(7.2, 2.2, title, "Times of this machine.")
        axes = figure.subplots()
        bars = axes.barh(names, times, color=[COLOURS[0], *[PALE] * (len(names) - 1)])
        axes.bar_label(bars, [f"{time:.2f} s" for time in times], padding=3)
        axes.invert_yaxis()
        axes.set(xlabel="seconds", xlim=(0, 1.15 * max(times)))
    return figure


def conditions(counts: pd.DataFrame) -> Figure:
    """Which condition is on which plate.

    Args:
        counts: ``plate``, ``particle_type``, ``dose_Gy``, ``hr_post_exposure`` and ``n``, images of each plate-well.
    """
    columns = ["particle_type", "dose_Gy", "hr_post_exposure"]
    table = counts.groupby([*columns, "plate"], as_index=False)["n"].sum()
    names = [f"{kind} {dose:g} Gy, {hours} h" for kind, dose, hours in table[columns].itertuples(index=False)]
    shown, plates = list(dict.fromkeys(names)), list(dict.fromkeys(table["plate"]))
    several = sum(names.count(name) > 1 for name in shown)
    with style():
        title = f"{len(shown)} conditions on {len(plates)} plates: {several or 'none'} of them on more than one plate"
        figure = new_figure(7.2, 4.6, title, "The real meta.csv, 77,177 images.")
        axes = figure.subplots()
        for kind, colour in zip(sorted(set(table["particle_type"])), COLOURS, strict=False):
            rows = np.flatnonzero(table["particle_type"] == kind)
            x, y = [plates.index(table["plate"][row]) for row in rows], [shown.index(names[row]) for row in rows]
            marker = MARKERS[0] if kind == "Fe" else MARKERS[2]
            axes.scatter(x, y, s=110, color=colour, marker=marker, label=kind)
        axes.set_xticks(range(len(plates)), plates, rotation=90)
        axes.set_yticks(range(len(shown)), shown)
        axes.invert_yaxis()
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set(xlabel="plate", ylabel="condition")
        axes.legend(loc="upper right", frameon=True)
    return figure


def inflation(scores: Mapping[float, pd.DataFrame], *, caption: str = "") -> Figure:
    """How much a split at random flatters, at each strength of the mouse's influence.

    Args:
        scores: For each ``mouse_effect`` the table of `bpsutils.leakage.compare_splits`.
        caption: Small text below, such as `SIMULATED`.
    """
    effects = list(scores)
    ends = [mean_interval(scores[effect]["inflation"]) for effect in (effects[0], effects[-1])]
    first, last = (f"{mean:.2f} ± {half:.2f}" for mean, half in ends)
    with style():
        title = f"A random split flatters by {first} if mice are alike, {last} if not"
        figure = new_figure(7.2, 3.4, title, caption)
        left, right = figure.subplots(1, 2)
        for number, kind in enumerate(("at random", "by mouse")):
            marks = [mean_interval(scores[effect][kind]) for effect in effects]
            _intervals(left, effects, marks, number, label=kind, offset=0.08 * (number - 0.5))
        left.set(ylabel="balanced accuracy", title="Score on the test nuclei")
        left.legend(loc="lower left")
        marks = [mean_interval(scores[effect]["inflation"]) for effect in effects]
        _intervals(right, effects, marks, 2, label="", offset=0.0)
        right.axhline(0, color=QUIET, linestyle=":")
        right.set(ylabel="difference of the scores", title="Inflation: at random less by mouse")
        for axes in (left, right):
            axes.set(xlabel="mouse_effect: how much mice differ", xlim=(effects[0] - 0.3, effects[-1] + 0.3))
            axes.set_xticks(effects, [f"{effect:g}" for effect in effects])
    return figure


def _intervals(
    axes: Axes, x: Sequence[float], marks: Sequence[tuple[float, float]], number: int, *, label: str, offset: float
) -> None:
    means, halves = zip(*marks, strict=True)
    places = np.asarray(x) + offset
    line = "-" if label else ""
    axes.errorbar(places, means, halves, capsize=4, label=label or None, linestyle=line, **_look(number))


def mice_and_scores(
    numbers: pd.DataFrame, scores: Mapping[float, pd.DataFrame], effect: float, *, caption: str = ""
) -> Figure:
    """Nuclei of some mice in two of their numbers, beside the scores of both kinds of split.

    Args:
        numbers: ``mouse_effect``, ``mouse``, ``particle_type``, ``background`` and ``area``, all strengths together.
        scores: For each ``mouse_effect`` the table of `bpsutils.leakage.compare_splits`.
        effect: The strength that is shown.
        caption: Small text below, such as `SIMULATED`.
    """
    mean, half = mean_interval(scores[effect]["inflation"])
    with style():
        title = f"mouse_effect {effect:g}: a split at random flatters by {mean:.2f} ± {half:.2f}"
        figure = new_figure(7.2, 3.7, title, caption)
        left, right = figure.subplots(1, 2, width_ratios=(5, 4))
        _mice(left, numbers, effect)
        for place, kind in enumerate(("at random", "by mouse")):
            values = scores[effect][kind]
            aside = 0.22 * np.sin(7.0 * np.arange(len(values)))  # beside each other, in the same way every time
            right.scatter(place + aside, values, s=16, alpha=0.7, linewidths=0, **_look(place))
            right.hlines(values.mean(), place - 0.35, place + 0.35, color=INK)
            right.text(place, 1.0, f"mean {values.mean():.2f}", horizontalalignment="center", verticalalignment="top")
        right.axhline(0.5, color=QUIET, linestyle=":")
        right.text(-0.5, 0.49, "guessing", fontsize=8, color=QUIET, verticalalignment="top")
        right.set_xticks([0, 1], ["at random", "by mouse"])
        right.set(xlim=(-0.55, 1.55), ylim=(0.3, 1.02), xlabel="split", ylabel="balanced accuracy")
    return figure


def _mice(axes: Axes, numbers: pd.DataFrame, effect: float) -> None:
    """All nuclei of one strength in pale grey, those of two mice of each particle in colour."""
    rows = numbers[numbers["mouse_effect"] == effect]
    axes.scatter(rows["background"], rows["area"], s=8, color="#cccccc", linewidths=0, label="other mice")
    chosen = [mouse for _, own in rows.groupby("particle_type") for mouse in sorted(own["mouse"].unique())[:2]]
    for number, mouse in enumerate(chosen):
        own = rows[rows["mouse"] == mouse]
        axes.scatter(own["background"], own["area"], s=20, linewidths=0, label=mouse, **_look(number))
    for name, set_limits in (("background", axes.set_xlim), ("area", axes.set_ylim)):
        low, high = np.percentile(numbers[name], [3, 99])  # of all strengths: the axes stand still
        above = 0.35 if name == "area" else 0.1  # room for the legend
        set_limits(low - 0.1 * (high - low), high + above * (high - low))
    axes.set(xlabel="background (grey level)", ylabel="area of the nucleus (pixels)", title="One dot, one nucleus")
    axes.legend(loc="upper left", fontsize=8, ncols=3, handletextpad=0.1, borderpad=0.2, columnspacing=1.0)
