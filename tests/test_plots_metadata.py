import re

import numpy as np
import pandas as pd
import pytest
from looking import assert_it_fits
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from bpsutils import plots
from bpsutils.simulate import REAL_COUNTS


@pytest.fixture
def slides():
    sizes = [(64, 64), (200, 200), (63, 100), (100, 201), (120, 90)]
    table = pd.DataFrame(sizes, columns=["height", "width"])
    return table.assign(stain=["h&e", "melan", "h&e", "melan", "sox10"], simulated=True)


@pytest.fixture
def numbers():
    rng, mice = np.random.default_rng(0), ["Fe/A6", "Fe/A8", "Fe/C6", "X-ray/A7", "X-ray/C7"]
    rows = pd.DataFrame({"mouse": np.repeat(mice, 8), "particle_type": np.repeat(mice, 8)})
    rows["particle_type"] = rows["particle_type"].str.split("/").str[0]
    levels = [rows.assign(mouse_effect=effect, background=rng.normal(350, 20, 40)) for effect in (0.0, 2.0)]
    return pd.concat(levels).assign(area=lambda table: 10 * table["background"])


@pytest.fixture
def scores():
    return {
        effect: pd.DataFrame({"at random": [0.8, 0.82], "by mouse": [0.8 - gap, 0.82 - gap - 0.02]}).assign(
            inflation=[gap, gap + 0.02]
        )
        for effect, gap in ((0.0, 0.0), (2.0, 0.1))
    }


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def title(figure):
    return figure.get_suptitle()


@pytest.fixture
def every_figure(slides, numbers, scores):
    return {
        "size_filter": plots.size_filter(slides, 64, 200),
        "scan_counts": plots.scan_counts({"os.walk": [600, 565, 0], "with retries": [600] * 3}, 600),
        "rebuild_times": plots.rebuild_times({"force rebuild": 0.8, "six files changed": 0.1}),
        "conditions": plots.conditions(pd.read_csv(REAL_COUNTS)),
        "inflation": plots.inflation(scores, caption=plots.SIMULATED),
        "mice_and_scores": plots.mice_and_scores(numbers, scores, 2.0, caption=plots.SIMULATED),
    }


def test_no_text_is_cut_off_and_no_figure_is_too_wide(every_figure):
    for figure in every_figure.values():
        assert_it_fits(figure)


def test_axes_are_labelled_and_simulated_data_are_called_so(every_figure):
    for name, figure in every_figure.items():
        assert all(axes.get_xlabel() for axes in figure.axes), name
        real = name in ("conditions", "scan_counts", "rebuild_times")
        assert any(plots.SIMULATED in text for text in words(figure)) != real, name


def test_size_filter_counts_both_ends_as_kept(every_figure):
    assert title(every_figure["size_filter"]) == "Sides from 64 to 200 px: 3 of 5 images are kept"


def test_scan_counts_names_how_many_scans_missed_files(every_figure):
    assert title(every_figure["scan_counts"]) == "Scans that miss files: os.walk in 2 of 3; with retries in 0 of 3"


def test_rebuild_times_compares_the_first_two(every_figure):
    assert title(every_figure["rebuild_times"]).startswith("A force rebuild takes 8 times as long")
    assert {"0.80 s", "0.10 s"} <= set(words(every_figure["rebuild_times"]))


def test_conditions_finds_conditions_on_several_plates(every_figure):
    assert title(every_figure["conditions"]) == "17 conditions on 17 plates: none of them on more than one plate"
    counts = pd.DataFrame(
        [("P1", "Fe", 1.0, 4, 5), ("P1", "Fe", 1.0, 4, 6), ("P2", "Fe", 1.0, 4, 7), ("P3", "X-ray", 1.0, 4, 8)],
        columns=["plate", "particle_type", "dose_Gy", "hr_post_exposure", "n"],
    )
    figure = plots.conditions(counts)
    assert title(figure) == "2 conditions on 3 plates: 1 of them on more than one plate"
    assert sum(len(dots.get_offsets()) for dots in figure.findobj(PathCollection)) >= 3


def test_inflation_states_both_ends(every_figure):
    ends = re.findall(r"(\d\.\d\d) ± (\d\.\d\d)", title(every_figure["inflation"]))
    assert ends == [("0.01", "0.02"), ("0.11", "0.02")]


def test_mice_and_scores_shows_one_strength_on_axes_that_stand_still(every_figure, numbers, scores):
    figure = every_figure["mice_and_scores"]
    assert title(figure) == "mouse_effect 2: a split at random flatters by 0.11 ± 0.02"
    assert {"mean 0.81", "mean 0.70", "Fe/A6", "Fe/A8", "X-ray/A7", "X-ray/C7"} <= set(words(figure))
    assert "Fe/C6" not in words(figure)  # one of the pale dots
    other = plots.mice_and_scores(numbers, scores, 0.0)
    assert other.axes[0].get_xlim() == figure.axes[0].get_xlim()
    assert other.axes[0].get_ylim() == figure.axes[0].get_ylim()
