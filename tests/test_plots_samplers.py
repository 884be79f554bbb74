import numpy as np
import pandas as pd
import pytest
from looking import assert_it_fits
from matplotlib.text import Text

from bpsutils import plots

LABELS = np.array(["X-ray"] * 9 + ["Fe"] * 3)


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def result():
    rng = np.random.default_rng(0)
    rows = [
        (trial, setting, drawn, epoch, images, 0.6 + gain + 0.01 * rng.random(), 2.0)
        for trial in range(3)
        for setting in ("dark crops", "tossed labels")
        for drawn, gain in (("random", 0.0), ("hard first", 0.1), ("random, step x 3", 0.2))
        for epoch in (3, 10, 100)
        for images in ("ordinary", "rare")
    ]
    return pd.DataFrame(rows, columns=["trial", "setting", "drawn", "epoch", "images", "score", "emphasis"])


FIGURES = {
    "stream": lambda: plots.index_stream([[0, 9, 1], [9, 9, 2]], LABELS, name="weighted"),
    "counts": lambda: plots.class_counts(
        {name: list(range(12)) for name in "abcde"}, LABELS, 4, caption=plots.SIMULATED
    ),
    "imbalance": lambda: plots.imbalance({"a": np.array([0, 2]), "b": np.array([1, 1])}, 0.05),
    "sgd": plots.minibatch_sgd,
    "hard": lambda: plots.hard_examples(result(), caption=plots.SIMULATED),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off_and_no_figure_is_too_wide(name):
    figure = FIGURES[name]()
    assert_it_fits(figure)


def test_the_stream_shows_the_indices_in_order_and_counts_them():
    figure = FIGURES["stream"]()
    assert [text for text in words(figure) if text.isdigit()] == ["0", "9", "1", "9", "9", "2"]
    assert "weighted: epoch 0 shows 3 of 12 images; 1 of 3 draws are Fe" in words(figure)


def test_rare_images_are_counted_batch_by_batch():
    assert plots.rarest(LABELS) == "Fe"
    assert plots.rare_a_batch(range(12), LABELS, 5).tolist() == [0, 1, 2]
    assert plots.rare_a_batch([9, 9, 0], LABELS, 2).tolist() == [2, 0]


def test_class_counts_states_the_batches_without_the_rare_class():
    figure = plots.class_counts({"sequential": range(12), "mixed": [9, 0, 1, 10, 2, 3, 11, 4, 5]}, LABELS, 3)
    assert "Batches without Fe: 3 of 4 sequential, else none" in words(figure)
    assert "sequential\n3 of 12 are Fe\n0 left out" in words(figure)
    assert "mixed\n3 of 9 are Fe\n3 left out" in words(figure)
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights == [1, 1, 1, 2, 2, 2]  # rare, then the others on top


def test_imbalance_marks_the_batches_that_hold_none():
    figure = plots.imbalance({"in random order": np.array([0, 2, 0]), "balanced": np.array([5, 4, 3])}, 0.05)
    assert "5% rare: batches without it, 2 of 3 in random order, 0 of 3 balanced" in words(figure)
    assert [line.get_xdata().tolist() for axes in figure.axes for line in axes.lines] == [[0, 2], []]


def test_each_batch_size_makes_its_number_of_steps_and_batches_come_near():
    figure = plots.minibatch_sgd((128, 16, 1))
    paths = [axes.lines[-1].get_xydata() for axes in figure.axes]
    assert [len(path) - 1 for path in paths] == [1, 8, 128]
    star = figure.axes[0].lines[0].get_xydata()[0]
    one, few, _ = (np.hypot(*(path[-1] - star)) for path in paths)
    assert few < one / 3


def test_hard_examples_draws_means_and_states_the_gain():
    figure = FIGURES["hard"]()
    assert "Hard first on dark crops: +0.10 after 3, +0.10 after 100 epochs" in words(figure)
    assert words(figure).count("hard first draws these\n2.0 times as often") == 2
    means = figure.axes[0].containers[0].lines[0].get_ydata()
    assert np.allclose(means, 0.605, atol=0.005)
