import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from torch import nn

from bpsutils import SmallCNN, freeze, plots


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_softmax_sums_rows_to_one_along_dim_1_only():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [4.0, 4.0]])
    said = words(plots.softmax_figure(logits.numpy(), ["A", "B"]))
    shown = [text for text in said if text.replace(".", "").isdigit() and "." in text]
    expected = [*logits.softmax(1).ravel().tolist(), *logits.softmax(0).ravel().tolist()]
    assert shown == [f"{value:.2f}" for value in expected]
    sums = [text for text in said if text.startswith("sum ")]
    assert sums[:3] == ["sum 1.00"] * 3
    assert sums[3:] == [f"sum {total:.2f}" for total in logits.softmax(0).sum(1).tolist()]


@pytest.mark.parametrize("shift", range(5))
def test_the_spot_is_pooled_as_torch_pools(shift):
    field = plots.spot(shift)
    assert field.sum() == 4
    largest, mean = plots.pooled(field)
    tensor = torch.from_numpy(field)[None]
    np.testing.assert_allclose(largest, nn.MaxPool2d(4)(tensor)[0])
    np.testing.assert_allclose(mean, nn.AvgPool2d(4)(tensor)[0])


def test_the_pooled_spot_counts_the_windows_that_change():
    assert "Shifted by 2 px, 0 of 8 maxima and 0 averages change" in words(plots.pooled_spot(2))
    assert "Shifted by 3 px, 1 of 8 maxima and 2 averages change" in words(plots.pooled_spot(3))
    assert "Shifted by 4 px, 2 of 8 maxima and 2 averages change" in words(plots.pooled_spot(4))


def test_shift_tolerance_names_what_changed_least():
    said = words(plots.shift_tolerance({"max": [0, 0.5, 0.6], "average": [0, 0.2, 0.3]}))
    assert {"After 2 px average has changed least, by 30%", "max, 60%", "average, 30%"} <= set(said)


def test_a_convolution_says_how_few_pixels_answer():
    answer = np.zeros((10, 20))
    answer[3, 4], answer[5, 5] = 2.0, 1.5
    said = words(plots.convolution_figure(np.ones((10, 20)), np.ones((3, 3)), answer))
    assert "A kernel of 9 numbers answers to spots: 1.0% of the pixels reach half its maximum" in said


def test_a_bend_has_both_lines():
    figure = plots.bend(np.arange(3), np.arange(3), np.arange(3) ** 2)
    assert {"Linear, Linear", "Linear, ReLU, Linear"} <= set(words(figure))


def test_parameters_are_counted_by_part_and_by_whether_they_are_trained():
    model = SmallCNN()
    freeze(model, ["head"])
    said = words(plots.parameter_parts(model))
    assert "258 of 60,914 parameters are trained (0.4%)" in said
    assert {" 60,656", " 258", "blocks", "head"} <= set(said)


def test_transfer_averages_the_seeds_of_the_last_epoch():
    rows = [("random", seed, epoch, 0.5 + 0.1 * seed * epoch) for seed in (0, 1) for epoch in (1, 2)]
    scores = pd.DataFrame(rows + [("frozen", 0, 2, 0.8)], columns=["start", "seed", "epoch", "score"])
    assert "In the last epoch: random 0.60, frozen 0.80" in words(plots.transfer(scores))
