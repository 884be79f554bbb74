"""Figures of notebook 10: peeking, thresholds, calibration, intervals, controls, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from bpsutils.plots.look import COLOURS, DASHES, INK, QUIET, new_figure, style
from bpsutils.training import balanced_accuracy

MARKS = ("o", "s", "^", "D")


def peeking(val: np.ndarray, test: np.ndarray) -> Figure:
    """The best of many validation scores, and the test score of what was chosen by it.

    Args:
        val: Score of each epoch of each run on its validation images, shape ``(runs, epochs)``.
        test: Score of the same on other images.
    """
    best = np.maximum.accumulate(val, axis=1)
    looks = np.arange(1, val.shape[1] + 1)
    chosen = np.stack([test[np.arange(len(val)), val[:, :n].argmax(1)] for n in looks], axis=1)
    scored, elsewhere = best[:, -1].mean(), chosen[:, -1].mean()
    title = f"The best of {looks[-1]} useless epochs scores {scored:.2f} where it was chosen, {elsewhere:.2f} elsewhere"
    with style():
        figure = new_figure(7.2, 2.9, title, "")
        axes = figure.subplots()
        axes.plot(looks, best.mean(0), label="validation score\nof the best epoch")
        axes.plot(looks, chosen.mean(0), label="test score\nof that epoch")
        axes.set(xlabel="epochs looked at", ylabel=f"accuracy, mean of {len(val):,} runs", ylim=(0.45, 0.65))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def operating_point(predictions: pd.DataFrame, threshold: float, *, caption: str = "") -> Figure:
    """A threshold's confusion matrix, and the same threshold as a point on the ROC and the precision-recall curve.

    Args:
        predictions: ``label`` and ``score_Fe``.
        threshold: Nuclei whose score reaches it are called Fe.
        caption: Small text below, such as `SIMULATED`.
    """
    fe, scores = (predictions["label"] == "Fe").to_numpy(), predictions["score_Fe"].to_numpy()
    counts = counts_at(fe, scores, threshold)
    recall, alarms = counts[1, 1] / counts[1].sum(), counts[0, 1] / counts[0].sum()
    precision = counts[1, 1] / counts[:, 1].sum() if counts[:, 1].sum() else float("nan")
    said = f"precision {precision:.2f}" if counts[:, 1].sum() else "nothing is called Fe"
    with style():
        title = f"Threshold {threshold:.2f}: recall {recall:.2f}, false alarms {alarms:.2f}, {said}"
        figure = new_figure(7.2, 2.9, title, caption)
        left, middle, right = figure.subplots(1, 3, width_ratios=(0.85, 1, 1))
        _matrix(left, counts)
        false, true, _ = roc_curve(fe, scores)
        _curve(middle, false, true, (alarms, recall), "ROC")
        middle.plot([0, 1], [0, 1], color=QUIET, linestyle=":")
        middle.set(xlabel="share of X-ray called Fe", ylabel="recall")
        precisions, recalls, _ = precision_recall_curve(fe, scores)
        _curve(right, recalls, precisions, (recall, precision), "precision and recall")
        right.axhline(fe.mean(), color=QUIET, linestyle=":")
        right.set(xlabel="recall", ylabel="precision")
    return figure


def counts_at(fe: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Confusion matrix of a threshold: X-ray and Fe as rows, called X-ray and called Fe as columns.

    Example:
        >>> counts_at(np.array([False, True, True]), np.array([0.2, 0.4, 0.9]), 0.5).tolist()
        [[1, 0], [1, 1]]
    """
    called = scores >= threshold
    return np.array([[np.sum((fe == truth) & (called == said)) for said in (False, True)] for truth in (False, True)])


def _matrix(axes: Axes, counts: np.ndarray) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else INK
        axes.text(column, row, f"{counts[row, column]}\n{share:.0%}", color=colour, ha="center", va="center")
    axes.set_xticks([0, 1], ["X-ray", "Fe"])
    axes.set_yticks([0, 1], ["X-ray", "Fe"])
    axes.set(xlabel="called", ylabel="true class", title="confusion matrix")
    axes.spines[:].set_visible(False)


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, point: tuple[float, float], title: str) -> None:
    axes.plot(x, y, color=COLOURS[0], clip_on=False)
    axes.plot(*point, "o", color=COLOURS[2], markersize=9, clip_on=False, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], title=title)
    axes.set_box_aspect(1)


def rarer(predictions: pd.DataFrame, times: int, *, caption: str = "") -> Figure:
    """ROC and precision-recall curve of the same scores, as they are and with Fe made rarer.

    Args:
        predictions: ``label`` and ``score_Fe``.
        times: Each Fe nucleus counts as this part of one.
        caption: Small text below, such as `SIMULATED`.
    """
    fe, scores = (predictions["label"] == "Fe").to_numpy(), predictions["score_Fe"].to_numpy()
    area = roc_auc_score(fe, scores)
    both = {"as it is": np.ones(len(fe)), f"Fe {times} times rarer": np.where(fe, 1 / times, 1.0)}
    first, last = (average_precision_score(fe, scores, sample_weight=weight) for weight in both.values())
    with style():
        title = f"Fe {times} times rarer: ROC area stays {area:.2f}, average precision falls {first:.2f} to {last:.2f}"
        figure = new_figure(7.2, 3.3, title, caption)
        left, right = figure.subplots(1, 2)
        for number, (name, weight) in enumerate(both.items()):
            look: dict[str, Any] = {"linestyle": DASHES[number], "color": COLOURS[number]}
            false, true, _ = roc_curve(fe, scores, sample_weight=weight)
            left.plot(false, true, linewidth=4 - 2 * number, **look)  # they lie on each other
            precision, recall, _ = precision_recall_curve(fe, scores, sample_weight=weight)
            right.plot(recall, precision, label=name, **look)
        left.set(xlabel="share of X-ray called Fe", ylabel="recall", title="ROC")
        right.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
        right.legend(loc="upper left", bbox_to_anchor=(1, 1))
        for axes in (left, right):
            axes.set_box_aspect(1)
    return figure


def calibration(curves: Mapping[str, np.ndarray], *, caption: str = "") -> Figure:
    """What networks claimed, and what was true, in bins of equally many images.

    Args:
        curves: For each network the mean score and the share of Fe of each bin, lowest first, shape ``(bins, 2)``.
        caption: Small text below, such as `SIMULATED`.
    """
    spans = [f"{curve[0, 0]:.2f} to {curve[-1, 0]:.2f} ({name})" for name, curve in curves.items()]
    with style():
        figure = new_figure(7.2, 3.7, f"Scores span {', '.join(spans)}", caption)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="says what is true")
        for number, (name, curve) in enumerate(curves.items()):
            look: dict[str, Any] = {"color": COLOURS[2 * number], "linestyle": DASHES[number], "marker": MARKS[number]}
            axes.plot(curve[:, 0], curve[:, 1], label=name, **look)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean score for Fe in the bin", ylabel="share of Fe in the bin")
        axes.set_box_aspect(1)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def intervals(
    scores: Mapping[str, Mapping[str, float]], title: str, *, name: str = "value", caption: str = ""
) -> Figure:
    """Balanced accuracies with their intervals, one under the other, and guessing as a dotted line.

    Args:
        scores: For each row the score and the ends of its interval, ``<name>``, ``<name>_low`` and ``<name>_high``,
            see `bpsutils.evaluation.score_interval` and `bpsutils.transfer.probe`.
        title: The finding.
        name: How the score is called in ``scores``.
        caption: Small text below, such as `SIMULATED`.
    """
    keys = {name: "value", f"{name}_low": "value_low", f"{name}_high": "value_high"}
    table = pd.DataFrame(scores).T.rename(columns=keys)
    with style():
        figure = new_figure(7.2, 1.1 + 0.36 * len(table), title, caption)
        axes = figure.subplots()
        places = np.arange(len(table))[::-1]
        axes.axvline(0.5, color=QUIET, linestyle=":")
        axes.hlines(places, table["value_low"], table["value_high"], color=COLOURS[0], linewidth=2)
        axes.plot(table["value"], places, "o", color=COLOURS[0])
        beside = axes.get_yaxis_transform()  # right of the axes in shares of their width, at the height of a value
        for place, row in zip(places, table.itertuples(), strict=True):
            text = f"{row.value:.2f} [{row.value_low:.2f}, {row.value_high:.2f}]"
            axes.text(1.02, place, text, transform=beside, va="center")
        axes.set_yticks(places, table.index)
        axes.set(ylim=(-0.6, len(table) - 0.4), xlabel="balanced accuracy (95 % interval; dotted: guessing)")
    return figure


def control_rates(controls: Mapping[str, pd.DataFrame], *, caption: str = "") -> Figure:
    """How often classifiers say Fe to nuclei that nothing hit, plate by plate.

    Args:
        controls: For each classifier its predictions for 0 Gy nuclei: ``plate``, ``label`` (its
            branch), ``prediction``.
        caption: Small text below, such as `SIMULATED`.
    """
    keys = ["label", "plate"]
    table = {
        name: (rows["prediction"] == "Fe").groupby([rows[key] for key in keys]).mean()
        for name, rows in controls.items()
    }
    rates = pd.DataFrame(table)
    *most, least = (f"{100 * (rate.max() - rate.min()):.0f}" for _, rate in rates.items())
    title = f"From plate to plate, controls called Fe differ by {', '.join(most)} and {least} points"
    with style():
        figure = new_figure(7.2, 3.4, title, caption)
        axes = figure.subplots()
        width = 0.84 / len(rates.columns)
        for number, name in enumerate(rates):
            places = np.arange(len(rates)) + (number - (len(rates.columns) - 1) / 2) * width
            bars = axes.bar(places, rates[name], width * 0.92, label=name, color=COLOURS[number])
            axes.bar_label(bars, fmt="{:.0%}", fontsize=7)
        axes.set_xticks(np.arange(len(rates)), [f"{plate}\n{branch}" for branch, plate in rates.index])
        axes.set(xlabel="plate of 0 Gy controls, and its branch", ylabel="share called Fe", ylim=(0, 1.08))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def one_plate(tables: Mapping[str, pd.DataFrame], *, caption: str = "") -> Figure:
    """Each nucleus twice: its score on its own plate, and on one plate for all.

    Args:
        tables: For each network its predictions with ``label``, ``score_Fe`` and ``score_Fe_one_plate``.
        caption: Small text below, such as `SIMULATED`.
    """
    with style():
        figure = new_figure(7.2, 3.7, "", caption)
        panels, changes = figure.subplots(1, len(tables), sharey=True), []
        for axes, (name, table) in zip(panels, tables.items(), strict=True):
            fe, columns = (table["label"] == "Fe").to_numpy(int), ("score_Fe", "score_Fe_one_plate")
            own, one = (balanced_accuracy(fe, (table[column] > 0.5).to_numpy(int)) for column in columns)
            changes.append(f"{own:.2f} to {one:.2f}")
            axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":")
            for number, (label, rows) in enumerate(table.groupby("label")):
                look: dict[str, Any] = {
                    "marker": MARKS[number],
                    "color": COLOURS[(2, 0)[number]],
                    "markersize": 3.5,
                    "alpha": 0.6,
                }
                axes.plot(rows["score_Fe"], rows["score_Fe_one_plate"], linestyle="none", label=label, **look)
            axes.set(title=f"{name}:\nbalanced accuracy {changes[-1]}", xlabel="score for Fe, own plate")
            axes.set_box_aspect(1)
        figure.suptitle(f"On one plate, scores go from {' and from '.join(changes)}", x=0.01, ha="left")
        panels[0].set(ylabel="score for Fe, one plate")
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def by_condition(table: pd.DataFrame, *, caption: str = "") -> Figure:
    """Share of right answers at each dose and time, with intervals.

    Args:
        table: ``label``, ``dose_Gy``, ``hr_post_exposure``, ``value``, ``value_low``, ``value_high``; one row a
            condition.
        caption: Small text below, such as `SIMULATED`.
    """
    ends = table.loc[[table["value"].idxmin(), table["value"].idxmax()]]
    worst, best = (f"{r.value:.0%} ({r.label} {r.dose_Gy:g} Gy, {r.hr_post_exposure} h)" for r in ends.itertuples())
    with style():
        figure = new_figure(7.2, 3.2, f"Recognised: from {worst} to {best}", caption)
        for axes, (label, rows) in zip(figure.subplots(1, 2, sharey=True), table.groupby("label"), strict=True):
            for number, (dose, line) in enumerate(rows.groupby("dose_Gy")):
                places = line["hr_post_exposure"].map({4: 0, 24: 1, 48: 2}) + 0.08 * (2 * number - 1)
                spread = np.stack([line["value"] - line["value_low"], line["value_high"] - line["value"]])
                look: dict[str, Any] = {
                    "color": COLOURS[2 * number],
                    "linestyle": DASHES[number],
                    "marker": MARKS[number],
                }
                axes.errorbar(places, line["value"], spread, label=f"{dose:g} Gy", **look)
            axes.axhline(0.5, color=QUIET, linestyle=":", linewidth=1)
            axes.set_xticks([0, 1, 2], ["4", "24", "48"])
            axes.set(xlabel="hours after exposure", title=label, xlim=(-0.4, 2.4), ylim=(0, 1.05))
            axes.legend(loc="lower right", ncols=2)
        figure.axes[0].set(ylabel="share recognised\n(95 % interval, by mouse)")
    return figure


def by_foci(table: pd.DataFrame, *, caption: str = "") -> Figure:
    """Share called Fe by the number of foci that are in the nucleus, for both particles.

    Args:
        table: ``label``, ``prediction``, and ``foci``, the number that the simulation put there.
        caption: Small text below, such as `SIMULATED`.
    """
    edges = [-1, 0, 2, 4, 8, 16, 10_000]
    names = ["0", "1-2", "3-4", "5-8", "9-16", "17+"]
    bins = pd.cut(table["foci"], edges, labels=names)
    called = table["prediction"] == "Fe"
    few, many = (f"{called[table['foci'].between(*span)].mean():.0%}" for span in ((0, 2), (9, 10_000)))
    with style():
        figure = new_figure(6.8, 3.3, f"Called Fe: {few} of nuclei with up to 2 foci, {many} with 9 and more", caption)
        axes = figure.subplots()
        for number, (label, rows) in enumerate(table.groupby("label")):
            share = called[rows.index].groupby(bins[rows.index], observed=True).agg(["mean", "size"])
            places = [names.index(name) for name in share.index]
            look: dict[str, Any] = {
                "color": COLOURS[(2, 0)[number]],
                "linestyle": DASHES[number],
                "marker": MARKS[number],
            }
            axes.plot(places, share["mean"], label=label, **look)
            for place, mean, size in zip(places, share["mean"], share["size"], strict=True):
                offset = (0, 7) if number == 0 else (0, -14)
                axes.annotate(f"{size}", (place, mean), offset, textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(range(len(names)), names)
        axes.set(xlabel="foci in the nucleus", ylabel="share called Fe", ylim=(-0.12, 1.12))
        axes.legend(title="particle\n(numbers: nuclei)", loc="upper left", bbox_to_anchor=(1, 1))
    return figure
