import numpy as np
import pytest
import torch
from matplotlib.text import Text

from bpsutils import plots
from bpsutils.plots.datasets import _within


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def sample():
    image = torch.from_numpy(np.arange(300, 300 + 12 * 15, dtype=np.uint16).reshape(1, 12, 15))
    return {"image": image, "group": "Fe/A6", "path": "some/long/folder/a_name_of_a_file.tif", "index": 3, "label": 1}


def test_the_class_diagram_names_methods_and_attributes_once():
    texts = words(plots.class_diagram())
    assert sum(text.startswith("__getitem__") for text in texts) == 2  # the base class and the custom one
    assert sum(text.startswith("__len__") for text in texts) == 1
    assert not any("ndarray" in text for text in texts)


def test_a_sample_is_shown_with_every_entry(sample):
    texts = words(plots.sample_figure(sample, ("X-ray", "Fe")))
    assert "Sample 3 is 12 x 15 pixels" in texts
    assert {"(1, 12, 15) uint16", "1, that is Fe", "Fe/A6", "3"} <= set(texts)
    assert plots.sample_figure(sample).axes[0].images[0].get_array().shape == (12, 15)


def test_a_sample_without_a_label_says_so(sample):
    del sample["label"]
    assert "(none)" in words(plots.sample_figure(sample | {"group": "Fe/A6"}))


def test_reading_cost_counts_files_and_memory():
    figure = plots.reading_cost(600, 40_000, whole=100_000)
    lazy, eager = figure.axes[0].lines[:2]
    assert lazy.get_xydata().tolist() == [[1, 1], [1200, 1200]]
    assert set(eager.get_ydata()) == {600}
    assert [bar.get_width() for bar in figure.axes[1].patches] == [8.0, 4.0]  # GB, float32 and uint16
    assert any("eager opens 600 files and lazy 1" in text for text in words(figure))


def test_roads_are_compared_with_the_first():
    image = np.arange(300, 1500, 10, dtype=np.uint16).reshape(10, 12)
    white = np.full((10, 12, 3), 255, np.uint8)
    figure = plots.same_image({"map": image, "stream": image.copy(), "folder": white})
    assert "2 of 3 roads bring the grey levels of the file" in words(figure)
    assert figure.axes[2].get_title(loc="left") == "folder\n255 to 255"


def test_batches_within_a_budget_lose_nothing():
    pixels = [40, 60, 20, 40, 42, 120, 9]
    batches = _within(pixels, 100)
    assert [size for batch in batches for size in batch] == pixels
    assert batches == [[40, 60], [20, 40], [42], [120], [9]]


def test_batch_pixels_draws_both_kinds():
    figure = plots.batch_pixels([40_000, 60_000, 20_000, 40_000, 42_000, 18_000], 3, 100_000)
    fixed, dynamic = ([bar.get_height() for bar in axes.patches] for axes in figure.axes)
    assert (fixed, dynamic) == ([120, 100], [100, 60, 60])
    assert "A budget of 100 thousand pixels holds 2 to 2 images" in words(figure)
