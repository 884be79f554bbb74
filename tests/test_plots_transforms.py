import numpy as np
import pytest
from matplotlib.text import Text

from bpsutils import plots


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def spots():
    """Five points of light on a dark ground."""
    image = np.full((60, 60), 400, np.uint16)
    image[[10, 20, 30, 40, 50], [10, 50, 30, 12, 48]] = 20_000
    return image


def test_foci_are_counted_where_they_stand_out(spots):
    assert plots.count_foci(spots) == 5
    assert plots.count_foci(spots[:25]) == 2
    assert plots.count_foci(spots // 100) == 0
    assert plots.count_foci(np.full((60, 60), 40_000, np.uint16)) == 0


def test_light_on_a_line_is_off_it_by_nothing_whatever_its_direction():
    for step in ((0, 1), (1, 0), (1, 1), (1, 2)):
        light = np.zeros((40, 40))
        for n in range(12):
            light[5 + step[0] * n, 5 + step[1] * n] = 100 + n
        assert plots.off_line(light) == pytest.approx(0, abs=1e-6)


def test_two_parallel_lines_are_off_by_half_their_distance():
    light = np.zeros((40, 40))
    light[[10, 16]] = 100
    assert plots.off_line(light) == pytest.approx(3)
    assert plots.off_line(light + 39) == pytest.approx(3)  # light below the floor does not count


def test_wrong_pixels_are_those_more_than_a_hundredth_off():
    image = np.array([[1000, 1000, 1000, 65535]], np.uint16)
    got = np.array([[1009, 1011, np.nan, np.inf]])
    assert plots.wrong_pixels(got, image).tolist() == [[False, True, True, True]]


def test_the_gallery_counts_calls_that_change_levels(spots):
    half = spots.astype(float)
    half[:30] = -1
    figure = plots.trap_gallery(spots, {"right": spots, "half": half, "all": spots >> 8})
    assert "2 of 3 calls change grey levels (wrong pixels are orange)" in words(figure)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:4] == ["the file", "right: 0% wrong", "half: 50% wrong", "all: 100% wrong"]


def test_spread_is_that_of_the_middle_98_percent():
    narrow, wide = np.linspace(0, 0.5, 1001), np.linspace(-2, 2, 1001)
    figure = plots.normalised_spread({"narrow": narrow, "wide": wide})
    assert "1 of 2 normalisations squeeze nearly all pixels into less than 1" in words(figure)
    assert {"0.49 wide", "3.92 wide"} <= set(words(figure))
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines] == [
        pytest.approx([0.005, 0.495]),
        pytest.approx([-1.96, 1.96]),
    ]


def test_before_and_after_are_at_one_scale_and_counted(spots):
    figure = plots.changed_image(spots, spots[:25, 5:], "crop")
    assert "crop: 2 foci can be counted, 5 before" in words(figure)
    assert {axes.get_xlim() for axes in figure.axes} == {(-0.5, 59.5)}
    assert {axes.images[0].get_clim() for axes in figure.axes} == {figure.axes[0].images[0].get_clim()}


def test_label_breakers_state_the_strongest_of_each():
    blur, crop, bend = {0: 1.0, 3: 0.4}, {72: 0.0, 48: 0.25}, {0: 1.5, 1000: 12.0}
    figure = plots.label_breakers(blur, crop, bend, 11.0)
    assert "A blur of 3 px keeps 40% of foci; 25% of crops of 48 px have none" in words(figure)
    assert figure.axes[2].lines[1].get_ydata()[0] == 11.0
    assert figure.axes[1].xaxis_inverted()
