import numpy as np
import pandas as pd
import pytest
from looking import assert_it_fits
from matplotlib.text import Text

from bpsutils import plots


@pytest.fixture
def runs():
    history = {"epoch": [1, 2], "train_loss": [0.7, 0.6], "val_loss": [0.7, 0.65]}
    good = {"epoch": [1, 2], "train_loss": [0.6, 0.21], "val_loss": [0.7, 0.52]}
    return {"0.1": pd.DataFrame(history), "0.001": pd.DataFrame(good)}


@pytest.fixture
def every_figure(runs):
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.05, 0.2, 0.3, 0.6])
    return [
        plots.descent(0.01),
        plots.descent(0.21),
        plots.first_trainings([0.7, 0.1], runs, caption=plots.SIMULATED),
        plots.diagnoses(),
        plots.weights_or_threshold(labels, scores, scores + 0.3, 0.1, caption=plots.SIMULATED),
        plots.seeds({"all: a": [0.5, 0.6], "all: b": [0.7, 0.9], "few: c": [0.5]}, "b", "a", caption=plots.SIMULATED),
        plots.resumed(4, 3, equal=True),
    ]


def title(figure):
    return figure.get_suptitle()


def test_no_text_is_cut_off_and_no_figure_is_too_wide(every_figure):
    for figure in every_figure:
        assert_it_fits(figure)


def test_no_legend_lies_on_the_caption(every_figure):
    for figure in every_figure:
        plots.as_html(figure, "x")
        small = [text for text in figure.findobj(Text) if text.get_text() in (plots.SIMULATED, "Drawn, not trained.")]
        for legend in figure.legends:
            assert not any(legend.get_window_extent().overlaps(text.get_window_extent()) for text in small)


def test_descent_is_gradient_descent():
    weights, rate = np.array([-4.0, 1.5]), 0.03
    for expected in plots.descend(rate, 5):
        assert weights == pytest.approx(expected)
        weights = weights - rate * weights * [1, 10]


def test_descent_goes_down_below_a_rate_of_one_fifth_and_up_above():
    losses = {rate: plots.valley(plots.descend(rate)) for rate in (0.001, 0.1, 0.195, 0.21)}
    assert all(np.all(np.diff(losses[rate]) < 0) for rate in (0.001, 0.1))
    assert losses[0.195][-1] < losses[0.195][0]
    assert losses[0.21][-1] > 100 * losses[0.21][0]


def test_the_first_trainings_name_the_rate_that_learned(runs):
    figure = plots.first_trainings([0.7, 0.1], runs)
    assert title(figure) == "Rate 0.001 learns: training loss 0.21, validation loss 0.52"
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.7, 0.1]


def test_the_four_diagnoses_show_what_the_text_says():
    train, val = (
        {axes.get_title("left"): np.asarray(axes.lines[n].get_ydata()) for axes in plots.diagnoses().axes}
        for n in (0, 1)
    )
    assert np.all(np.abs(train["A"] - np.log(2)) < 0.1)  # crawls
    assert np.sum(np.diff(train["B"]) > 0) > 5  # jumps
    assert train["C"][-1] < 0.1 < 0.3 < val["C"][-1] - val["C"].min()  # overfits
    assert np.all(np.abs(train["D"] - val["D"])[-5:] < 0.1)  # is well


def test_weights_or_threshold_counts_the_rare_class_found():
    labels = np.array([0, 0, 1, 1, 1])
    plain, weighted = np.array([0.05, 0.2, 0.05, 0.3, 0.6]), np.array([0.1, 0.6, 0.3, 0.7, 0.9])
    figure = plots.weights_or_threshold(labels, plain, weighted, 0.25)
    assert title(figure) == "Of 3 Fe: 1 found as trained, 2 by threshold, 2 by weights"
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines[2:5]}
    assert points["plain, threshold 0.25"] == pytest.approx((0, 2 / 3))
    assert points["weighted, threshold 0.5"] == pytest.approx((1 / 2, 2 / 3))


def test_seeds_state_the_mean_gain_over_what_both_were_tried_on():
    scores = {"all: a": [0.5, 0.6], "all: b": [0.7, 0.9], "few: a": [0.5], "few: b": [0.39], "few: c": [1.0]}
    assert title(plots.seeds(scores, "b", "a")) == "B against a: +0.07 on average"  # (0.25 - 0.11) / 2


@pytest.mark.parametrize(("equal", "says"), [(True, "are the same"), (False, "differ")])
def test_resumed_says_whether_the_weights_agree(equal, says):
    figure = plots.resumed(4, killed_in=3, equal=equal)
    assert says in title(figure)
    names = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(names) == sorted([f"epoch {n}" for n in (1, 2, 3, 4, 1, 2, 3, 4)] + [" lost"])
