import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from looking import assert_it_fits
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from bpsutils import plots
from bpsutils.plots.scaling_up import FASTER, LOAD, TRAIN, speedup


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_the_flat_store_writes_each_offset_and_the_end():
    figure = plots.flat_store([np.full((20, 30), 500), np.full((10, 40), 900), np.ones((30, 10))], caption="small")
    said = words(figure)
    assert "3 images, 1,300 pixels in one row: offsets say where each begins" in said
    assert {"0", "600", "1,000", "1,300", "20 × 30 px", "small"} <= set(said)
    parts = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [(part.get_x(), part.get_width()) for part in parts] == [(0, 600), (600, 400), (1000, 300)]
    assert_it_fits(figure)


def test_the_ladder_compares_within_a_round():
    # in the second round everything takes twice as long: the ratios stay
    times = {"a file per sample": [100, 200, 100], "flat": [10, 20, 5], "uint16": [2, 4, 2]}
    figure = plots.ladder(times)
    assert "Here “uint16” is 50 times as fast as a file per sample" in words(figure)
    assert {"× 1.0", "× 10", "× 50"} <= set(words(figure))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1, 10, 50]
    assert "your prediction" not in words(figure)
    assert_it_fits(figure)


def test_predictions_stand_on_their_rungs():
    figure = plots.ladder({"file": [8, 8], "strips": [4, 4], "flat": [1, 1]}, {"flat": 5})
    (guesses,) = figure.axes[0].lines
    assert np.isfinite(guesses.get_xdata()).tolist() == [False, False, True]
    assert guesses.get_xdata()[2] == 5
    assert guesses.get_ydata()[2] == 2
    assert "your prediction" in words(figure)


def test_a_prediction_far_off_is_in_the_figure_and_one_of_no_rung_is_refused():
    figure = plots.ladder({"file": [8, 8], "strips": [4, 4], "flat": [1, 1]}, {"strips": 0.2, "flat": 1000})
    low, high = figure.axes[0].get_xlim()
    assert low < 0.2
    assert high > 1000
    assert_it_fits(figure)
    with pytest.raises(ValueError, match="no rung: stripes; the rungs are file, strips"):
        plots.ladder({"file": [8], "strips": [4]}, {"stripes": 2})


@given(st.floats(1, 1e6))
def test_faster_loading_never_gains_more_than_its_share(faster):
    assert 1 <= speedup(faster) <= (LOAD + TRAIN) / TRAIN
    assert speedup(faster) <= faster + 1e-9


@pytest.mark.parametrize("faster", FASTER)
def test_amdahls_law_is_said_and_drawn(faster):
    figure = plots.amdahl(faster)
    assert f"Loading {faster:g} times faster makes an epoch {speedup(faster):.1f} times faster" in words(figure)
    left, right = figure.axes
    before, _, now, training = left.patches
    assert before.get_width() / now.get_width() == pytest.approx(faster)
    assert training.get_x() == pytest.approx(now.get_width())
    assert [line.get_xydata().tolist() for line in right.lines][-1] == [[faster, pytest.approx(speedup(faster))]]
    assert_it_fits(figure)


def test_the_steps_name_the_fastest_and_compare_with_the_first():
    figure = plots.step_times({"float32": [10, 11, 10], "half": [5, 5, 9], "channels last": [20, 20, 20]}, "GPU")
    assert "On this GPU, “half” is fastest" in words(figure)
    assert {"10.0 ms, × 1.00", "5.0 ms, × 2.00", "20.0 ms, × 0.50"} <= set(words(figure))
    assert_it_fits(figure)
    plain = plots.step_times({"float32": [10], "half": [12]}, "CPU")
    assert "On this CPU, nothing beats float32" in words(plain)
