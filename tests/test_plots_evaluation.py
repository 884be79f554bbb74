import re

import numpy as np
import pandas as pd
import pytest

from bpsutils import plots


@pytest.fixture
def predictions():
    """Four X-ray and four Fe nuclei; at 0.5 two of the X-ray and three of the Fe nuclei are called Fe."""
    scores = [0.1, 0.2, 0.6, 0.7, 0.3, 0.65, 0.8, 0.9]
    return pd.DataFrame({"label": ["X-ray"] * 4 + ["Fe"] * 4, "score_Fe": scores, "score_Fe_one_plate": scores[::-1]})


def title(figure):
    return figure._suptitle.get_text()


def lines(axes):
    return [np.column_stack(line.get_data()) for line in axes.lines]


def test_peeking_takes_the_best_validation_score_and_the_test_score_beside_it():
    val = np.array([[0.5, 0.6, 0.4], [0.5, 0.4, 0.7]])
    test = np.array([[0.5, 0.1, 0.9], [0.5, 0.9, 0.3]])
    figure = plots.peeking(val, test)
    best, chosen = lines(figure.axes[0])
    assert best[:, 1] == pytest.approx([0.5, 0.55, 0.65])
    assert chosen[:, 1] == pytest.approx([0.5, 0.3, 0.2])
    assert "The best of 3 useless epochs scores 0.65 where it was chosen, 0.20 elsewhere" in title(figure)


def test_a_threshold_counts_what_reaches_it(predictions):
    fe, scores = (predictions["label"] == "Fe").to_numpy(), predictions["score_Fe"].to_numpy()
    assert plots.counts_at(fe, scores, 0.5).tolist() == [[2, 2], [1, 3]]
    assert plots.counts_at(fe, scores, 0.65).tolist() == [[3, 1], [1, 3]]
    assert plots.counts_at(fe, scores, 0.0).tolist() == [[0, 4], [0, 4]]


def test_the_operating_point_lies_on_both_curves(predictions):
    figure = plots.operating_point(predictions, 0.5)
    _, roc, pr = figure.axes
    assert title(figure) == "Threshold 0.50: recall 0.75, false alarms 0.50, precision 0.60"
    for axes, point in ((roc, [0.5, 0.75]), (pr, [0.75, 0.6])):
        curve, marked = lines(axes)[:2]
        assert marked[0].tolist() == point
        assert np.abs(curve - point).sum(axis=1).min() < 1e-9


def test_a_threshold_that_calls_nothing_fe_has_no_precision(predictions):
    assert "nothing is called Fe" in title(plots.operating_point(predictions, 1.0))


def test_rare_positives_change_precision_only(predictions):
    figure = plots.rarer(predictions, 10)
    roc, pr = figure.axes
    first, second = lines(roc)
    assert np.allclose(first, second)
    usual, rare = lines(pr)
    assert (rare[:-1, 1] <= usual[:-1, 1]).all()
    assert rare[0, 1] == pytest.approx(0.4 / 4.4)  # everything is called Fe: 4 tenths of Fe among 4 X-ray
    before, after = map(float, re.findall(r"falls ([\d.]+) to ([\d.]+)", title(figure))[0])
    assert after < before


def test_calibration_draws_its_bins_beside_the_diagonal():
    figure = plots.calibration({"a": np.array([[0.1, 0.2], [0.9, 0.7]]), "b": np.array([[0.4, 0.4], [0.6, 0.5]])})
    diagonal, first, second = lines(figure.axes[0])
    assert diagonal.tolist() == [[0, 0], [1, 1]]
    assert (first.tolist(), second.tolist()) == ([[0.1, 0.2], [0.9, 0.7]], [[0.4, 0.4], [0.6, 0.5]])
    assert title(figure) == "Scores span 0.10 to 0.90 (a), 0.40 to 0.60 (b)"


def test_intervals_name_their_numbers_from_top_to_bottom():
    rows = {name: {"value": v, "value_low": v - 0.1, "value_high": v + 0.1} for name, v in (("a", 0.6), ("b", 0.8))}
    axes = plots.intervals(rows, "t").axes[0]
    texts = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert texts["0.60 [0.50, 0.70]"] > texts["0.80 [0.70, 0.90]"]
    places = {label.get_text(): place for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert places["a"] == texts["0.60 [0.50, 0.70]"]
    named = {row: {f"score{key.removeprefix('value')}": v for key, v in ends.items()} for row, ends in rows.items()}
    assert {text.get_text() for text in plots.intervals(named, "t", name="score").axes[0].texts} == set(texts)


def test_control_rates_are_shares_of_each_plate():
    keys = {"plate": ["P1", "P1", "P2", "P2"], "label": ["Fe", "Fe", "X-ray", "X-ray"]}
    sees = pd.DataFrame(keys | {"prediction": ["Fe", "Fe", "X-ray", "Fe"]})
    blind = pd.DataFrame(keys | {"prediction": ["X-ray"] * 4})
    figure = plots.control_rates({"sees": sees, "fair": blind})
    assert title(figure) == "From plate to plate, controls called Fe differ by 50 and 0 points"
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 0.5, 0.0, 0.0]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["P1\nFe", "P2\nX-ray"]


def test_one_plate_shows_both_scores_and_what_becomes_of_the_balanced_accuracy(predictions):
    figure = plots.one_plate({"first": predictions, "second": predictions.assign(score_Fe_one_plate=0.0)})
    assert title(figure) == "On one plate, scores go from 0.62 to 0.38 and from 0.62 to 0.50"
    marks = np.concatenate(lines(figure.axes[0])[1:])
    assert sorted(marks.tolist()) == sorted(predictions[["score_Fe", "score_Fe_one_plate"]].to_numpy().tolist())


def test_conditions_stand_at_their_hour_and_the_ends_are_named():
    rows = [("Fe", 0.3, 4, 0.5), ("Fe", 0.82, 4, 0.9), ("X-ray", 0.1, 24, 1.0), ("X-ray", 1.0, 48, 0.8)]
    table = pd.DataFrame(rows, columns=["label", "dose_Gy", "hr_post_exposure", "value"])
    figure = plots.by_condition(table.assign(value_low=table["value"] - 0.1, value_high=table["value"]))
    assert title(figure) == "Recognised: from 50% (Fe 0.3 Gy, 4 h) to 100% (X-ray 0.1 Gy, 24 h)"
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Fe", "X-ray"]
    assert round(figure.axes[1].lines[0].get_xdata()[0]) == 1


def test_foci_are_binned_and_every_nucleus_is_counted():
    foci = [0, 0, 1, 2, 3, 9, 20]
    table = pd.DataFrame({"foci": foci, "label": ["X-ray"] * 4 + ["Fe"] * 3, "prediction": ["X-ray"] * 4 + ["Fe"] * 3})
    figure = plots.by_foci(table)
    assert title(figure) == "Called Fe: 0% of nuclei with up to 2 foci, 100% with 9 and more"
    assert sum(int(text.get_text()) for text in figure.axes[0].texts) == len(foci)


def test_figures_are_narrow_enough_for_a_page(predictions):
    figures = [
        plots.operating_point(predictions, 0.5),
        plots.rarer(predictions, 10),
        plots.peeking(*np.ones((2, 3, 4))),
    ]
    assert all(figure.get_figwidth() <= 7.2 for figure in figures)
