import numpy as np
import pytest
from matplotlib.text import Text

from bpsutils import plots

COUNTS = {"stem": 60, "blocks.0": 300, "head": 40}


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_trained_parts_are_counted_and_darker():
    figure = plots.trained_parts(COUNTS, 2)
    assert "The last 2 of 3 parts hold 85.0% of the weights" in words(figure)
    colours = [bar.get_facecolor() for bar in figure.axes[0].patches]
    assert colours[1] == colours[2] != colours[0]
    assert "The head, one of 3 parts, holds 10.0% of the weights" in words(plots.trained_parts(COUNTS, 1))
    with pytest.raises(ValueError, match="n must be from 1 to the 3 parts, got 4"):
        plots.trained_parts(COUNTS, 4)


def test_padding_of_each_batch_is_counted_and_drawn():
    images = [np.zeros((20, 10, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)]
    figure = plots.padded_patches({"both": images, "alone": images[:1]})
    assert "Padding in one batch: both 33%, alone 0%" in words(figure)
    row = figure.axes[0].get_images()[0].get_array()
    assert row.shape[0] == 20
    assert (row[:, 10:30] == row[0, 10]).all()
    assert row[0, 10].tolist() != [0, 0, 0]


def test_figures_fit_a_page():
    figure = plots.trained_parts(COUNTS, 1)
    assert figure.get_figwidth() <= 7.2
    assert figure.axes[0].get_xlabel()
