import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from bpsutils import plots
from bpsutils.bucketing import BucketSampler, padding_waste


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def sizes():
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(79, 171, 600), rng.integers(114, 183, 600)], axis=1)


def test_a_padded_batch_counts_and_paints_its_padding():
    images = [np.full((10, 40), 500, np.uint16), np.full((20, 20), 900, np.uint16)]
    figure = plots.padded_batch(images, columns=2, caption=plots.SIMULATED)
    assert "2 images padded to 20 × 40 px: 50% of the pixels are padding" in words(figure)
    assert f"Padding is blue. {plots.SIMULATED}" in words(figure)
    page = figure.axes[0].images[0].get_array()
    pale = np.abs(page - np.array(to_rgb(plots.PALE))).max(axis=2) < 1 / 63
    assert pale.sum() == 2 * 400 / 4  # each pixel of the page is four of the images
    assert pale[5:10, :20].all()  # below the first image
    assert pale[:10, 33:43].all()  # to the right of the second, whose frame starts at pixel 46
    assert not pale[:5, :20].any()


def test_a_padded_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        plots.padded_batch([])


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=90), st.integers(1, 20))
def test_strips_hold_every_image_once_in_as_few_batches_as_can_be(sizes, batch_size):
    sizes = np.array(sizes)
    most = -(-len(sizes) // batch_size)
    for strips in range(1, most + 1):
        batches = plots.strip_batches(sizes, batch_size, strips)
        assert sorted(np.concatenate(batches)) == list(range(len(sizes)))
        assert len(batches) == most
        assert max(map(len, batches)) <= batch_size


def test_one_strip_sorts_by_width_and_all_strips_by_height(sizes):
    assert np.all(np.diff(sizes[np.concatenate(plots.strip_batches(sizes, 24, 1)), 1]) >= 0)
    heights = [sizes[batch, 0] for batch in plots.strip_batches(sizes, 24, 25)]
    assert all(low.max() <= high.min() for low, high in zip(heights, heights[1:], strict=False))
    with pytest.raises(ValueError, match="from 1 to the number of batches, 25; got 26"):
        plots.strip_batches(sizes, 24, 26)


def test_five_strips_are_those_of_the_sampler(sizes):
    ours = padding_waste(sizes, plots.strip_batches(sizes, 24, 5))
    assert ours == pytest.approx(padding_waste(sizes, list(BucketSampler(sizes, 24, jitter=0))), abs=0.01)


def test_the_bucket_figure_states_its_waste_and_draws_a_box_for_each_batch(sizes):
    sizes[7] = 500, 600
    figure = plots.bucket_figure(sizes, 24, 5)
    waste = padding_waste(sizes, plots.strip_batches(sizes, 24, 5))
    assert f"5 strips of height, each cut by width: {waste:.1%} is padding" in words(figure)
    assert "Each box is one batch (1 larger images are outside)" in words(figure)
    left, right = figure.axes
    assert len(left.patches) == 25
    assert right.lines[1].get_xydata().tolist() == [[5, pytest.approx(100 * waste)]]
    assert len(right.lines[0].get_xdata()) == 25


def test_bars_carry_their_numbers_and_the_title_the_best():
    wastes = pd.DataFrame({"600": [0.5, 0.25, 0.2, 0.1]}, index=["at random", "by width", "two-dimensional", "bound"])
    figure = plots.waste_bars(wastes)
    assert {"50.0", "25.0", "20.0", "10.0"} <= set(words(figure))
    assert "Two-dimensional buckets: 20.0% padding on 600, at random 50.0%" in words(figure)


def test_the_price_compares_one_jitter_with_none():
    rows = [["2d", 0, 0.04, 1], ["2d", 0.03, 0.11, 0.02], ["width", 0, 0.2, 1], ["random", np.nan, 0.5, 0.002]]
    prices = pd.DataFrame(rows, columns=["method", "jitter", "waste", "met_again"])
    figure = plots.shuffling_price(prices)
    assert "3% jitter: mates met again 100% → 2%, padding 4.0% → 11.0%" in words(figure)
    assert {"0%", "3%"} <= set(words(figure))


def test_verdicts_name_the_way_with_most_changes():
    rows = [["masked", 0.0, 0.75], ["plain", 0.04, 0.7], ["plain", 0.09, 0.72]]
    figure = plots.pooling_verdicts(pd.DataFrame(rows, columns=["pooling", "changed", "score"]))
    assert "Plain: up to 9% of the answers depend on the batch" in words(figure)
    assert figure.axes[0].lines[1].get_xdata().tolist() == [4, 9]


def test_resized_copies_say_how_far_the_brightest_stands_out():
    image, small = np.full((20, 30), 400, np.uint16), np.full((10, 10), 400, np.uint16)
    image[5, 5], small[2, 2] = 1500, 700
    figure = plots.resized_copies(image, {"10 × 10 px": small})
    assert "The brightest focus stands out by 1,100, then 300 levels" in words(figure)
    assert {axes.get_title(loc="left") for axes in figure.axes} == {"20 × 30 px, as stored", "10 × 10 px"}
    assert all(axes.images[0].get_extent() == [0, 30, 20, 0] for axes in figure.axes)
