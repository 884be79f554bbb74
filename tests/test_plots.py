import base64
import io
import itertools
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from looking import assert_it_fits
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from bpsutils import plots
from bpsutils.images import write_image


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(257, 2471, (30, 40)).astype(np.uint16)


@pytest.fixture
def table(tmp_path):
    rows = []
    for number in range(24):
        path = tmp_path / f"{number}.tif"
        write_image(path, np.full((20 + number, 30), 400 + number, np.uint16))
        split = ("test", "train", "train", "val")[number % 4]  # not in the order that figures keep
        rows.append({"path": str(path), "split": split, "particle_type": "Fe" if number < 9 else "X-ray"})
    return pd.DataFrame(rows)


@pytest.fixture
def history():
    scores, losses = [0.5, 0.8, 0.7], [0.9, 0.6, 0.65]
    return pd.DataFrame(
        {"epoch": [1, 2, 3], "train_loss": [1.0, 0.7, 0.5], "val_loss": losses, "val_balanced_accuracy": scores}
    )


@pytest.fixture
def matrix():
    return pd.DataFrame([[6, 2], [1, 11]], index=["X-ray", "Fe"], columns=["X-ray", "Fe"])


@pytest.fixture
def predictions():
    scores = np.array([0.1, 0.6, 0.4, 0.9])  # 3 of the 4 pairs of an Fe and an X-ray image are in order
    labels = ["X-ray", "X-ray", "Fe", "Fe"]
    return pd.DataFrame({"label": labels, "prediction": labels, "score_X-ray": 1 - scores, "score_Fe": scores})


@pytest.fixture
def every_figure(image, table, history, matrix, predictions):
    return [
        plots.image_grid([image] * 7, list("abcdefg"), title="t", caption=plots.SIMULATED),
        plots.window_figure(image, 0, 65535, caption=plots.SIMULATED),
        plots.sixteen_bit_damage({"kept": image, "cut": image.clip(0, 255)}, caption=plots.SIMULATED),
        plots.class_balance(table.assign(simulated=True)),
        plots.split_examples(table.assign(simulated=True)),
        plots.curves(history, caption=plots.SIMULATED),
        plots.confusion(matrix, caption=plots.SIMULATED),
        plots.roc(predictions, caption=plots.SIMULATED),
        plots.recipe_diagram(),
        plots.broadcasting_diagram((3, 1), (1, 4)),
    ]


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def pixels(figure):
    data = re.search(r'base64,([^"]+)"', plots.as_html(figure, "x"))[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


# ------------------------------------------------------------------------------------------------ the look of all


def test_no_text_is_cut_off_and_no_figure_is_too_wide(every_figure):
    for figure in every_figure:
        assert_it_fits(figure)


def test_every_figure_of_data_can_say_that_the_data_are_simulated(every_figure):
    for figure in every_figure[:-2]:  # all but the two drawings
        assert any(plots.SIMULATED in text for text in words(figure))


def test_a_users_settings_change_nothing_and_are_left_alone(image):
    expected = pixels(plots.window_figure(image, 0, 2047))
    with mpl.rc_context({"font.size": 25, "axes.grid": True, "savefig.dpi": 30, "figure.facecolor": "red"}):
        assert np.array_equal(pixels(plots.window_figure(image, 0, 2047)), expected)
        assert mpl.rcParams["font.size"] == 25


def test_neighbouring_colours_differ_in_grey():
    grey = [np.dot(to_rgb(colour), [0.2126, 0.7152, 0.0722]) for colour in plots.COLOURS]
    assert all(abs(a - b) > 0.1 for a, b in itertools.pairwise(grey))


def test_html_holds_alternative_text_a_picture_and_a_sentence(history):
    page = plots.as_html(plots.curves(history), 'loss "falls" & rises', "Epoch 2 < epoch 3.")
    assert page.startswith('<img alt="loss &quot;falls&quot; &amp; rises" style="max-width:100%" src="data:image/png;')
    assert page.endswith("<p>Epoch 2 &lt; epoch 3.</p>")
    assert pixels(plots.curves(history)).shape == (300, 720, 3)


def test_show_displays_the_html(history, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    plots.show(plots.curves(history), "alt", "A sentence.")
    assert shown[0].data == plots.as_html(plots.curves(history), "alt", "A sentence.")


# ---------------------------------------------------------------------------------------------------------- images


@given(st.integers(0, 60000), st.integers(1, 5000))
def test_the_display_window_ignores_one_wild_pixel(level, spread):
    image = np.linspace(level, level + spread, 2000).reshape(40, 50).astype(np.uint16)
    wild = image.copy()
    wild[7, 7] = 65535
    low, high = plots.display_window([wild])
    assert level <= low < high <= max(level + spread, low + 1)


def test_the_display_window_of_a_flat_image_is_not_empty():
    assert plots.display_window([np.full((3, 3), 7)]) == (7, 8)


def test_a_grid_has_one_window_and_one_scale(image):
    bright = image[:20, :10] + np.uint16(1000)
    figure = plots.image_grid([image, bright], ["a", "b"])
    left, right = (axes.images[0] for axes in figure.axes)
    assert left.get_clim() == right.get_clim() == plots.display_window([image, bright])
    assert [np.ptp(picture.get_extent()[:2]) for picture in (left, right)] == [40, 10]  # one unit is one pixel
    assert [np.ptp(picture.get_extent()[2:]) for picture in (left, right)] == [30, 20]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    low, high = left.get_clim()
    assert f"Black is grey level {low:,.0f}, white {high:,.0f}." in words(figure)


def test_a_grid_keeps_the_window_it_is_given_and_the_image_upright(image):
    axes = plots.image_grid([image], window=(0, 4095)).axes[0]
    assert axes.images[0].get_clim() == (0, 4095)
    assert axes.get_ylim() == (29.5, -0.5)
    assert axes.images[0].get_extent() == [-0.5, 39.5, 29.5, -0.5]


def test_rgb_images_are_shown_as_they_are():
    figure = plots.image_grid([np.zeros((5, 6, 3), np.uint8)])
    assert words(figure) == []  # no window to state


@pytest.mark.parametrize("arguments", [([],), ([np.zeros((2, 2))], ["a", "b"])])
def test_a_grid_needs_images_and_as_many_titles(arguments):
    with pytest.raises(ValueError, match="image_grid needs images and one title each or none"):
        plots.image_grid(*arguments)


def test_the_window_figure_counts_and_shades(image):
    image[0, :5] = 5000
    figure = plots.window_figure(image, 300, 4095)
    title = words(figure)[-1]
    assert "Window 300 to 4,095" in title
    assert "5 of 1,200 pixels cut to white" in title
    assert figure.axes[0].images[0].get_clim() == (300, 4095)
    assert sum(bar.get_height() for bar in figure.axes[1].patches[1:]) == image.size


@pytest.mark.parametrize("window", [(5, 5), (9, 2)])
def test_a_window_must_not_be_empty(image, window):
    with pytest.raises(ValueError, match="a display window needs low < high"):
        plots.window_figure(image, *window)


def test_screen_levels_are_those_of_an_8_bit_screen(image):
    assert plots.screen_levels(image, 0, 65535) == 9  # 257 to 2470 is 1 to 9 of 255
    assert plots.screen_levels(np.arange(256), 0, 255) == 256
    assert plots.screen_levels(image, 5000, 6000) == 1  # all black


def test_damage_is_counted(image):
    versions = {"kept": image, "cut": image.clip(0, 255), "top byte": image >> 8}
    figure = plots.sixteen_bit_damage(versions)
    assert f"{len(np.unique(image)):,} grey levels in the file; 1, 9 in its 8-bit copies" in words(figure)
    assert "top byte\n1 to 9" in words(figure)
    assert figure.axes[1].images[0].get_clim() == (0, 255)  # all 255 is white, not black
    assert figure.axes[2].images[0].get_clim() == (1, 9)


# ---------------------------------------------------------------------------------------------------------- tables


def test_class_balance_has_a_bar_for_each_class_of_each_split_in_order(table):
    axes = plots.class_balance(table).axes[0]
    bars = {(b.get_x() + b.get_width() / 2).round(2): b.get_height() for b in axes.patches}
    expected = pd.crosstab(table["split"], table["particle_type"])
    for number, split in enumerate(["train", "val", "test"]):
        assert bars[round(number - 0.2, 2)] == expected.loc[split, "Fe"]
        assert bars[round(number + 0.2, 2)] == expected.loc[split, "X-ray"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["train", "val", "test"]


def test_class_balance_titles_the_share_of_the_larger_class(table):
    shares = (table["particle_type"] == "X-ray").groupby(table["split"]).mean()
    expected = ", ".join(f"{shares[split]:.0%} of {split}" for split in ("train", "val", "test"))
    assert f"X-ray is {expected}" in words(plots.class_balance(table))


def test_a_table_of_real_images_is_not_called_simulated(table):
    assert plots.SIMULATED in words(plots.class_balance(table.assign(simulated=[True] + [False] * 23)))
    for one in (table, table.assign(simulated=False)):
        assert plots.SIMULATED not in words(plots.class_balance(one))


def test_split_examples_are_images_of_their_split_and_repeat(table):
    figure, again = plots.split_examples(table, each=2), plots.split_examples(table, each=2)
    levels = [int(axes.images[0].get_array().max()) for axes in figure.axes]
    assert levels == [int(axes.images[0].get_array().max()) for axes in again.axes]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    rows = table.loc[[level - 400 for level in levels]]
    assert titles == [f"{row.split} {row.particle_type}" for row in rows.itertuples()]
    assert [title.split()[0] for title in titles] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2


# --------------------------------------------------------------------------------------------------------- results


def test_curves_draw_the_history_and_name_the_best_epoch(history):
    left, right = plots.curves(history).axes
    assert left.lines[0].get_ydata().tolist() == [1.0, 0.7, 0.5]
    assert left.lines[1].get_ydata().tolist() == [0.9, 0.6, 0.65]
    assert right.lines[0].get_ydata().tolist() == [0.5, 0.8, 0.7]
    assert left.get_title(loc="left") == "Validation loss is lowest in epoch 2"
    assert right.get_title(loc="left") == "Best score 0.80 in epoch 2"


def test_confusion_writes_counts_and_shares_of_the_true_class(matrix):
    figure = plots.confusion(matrix)
    texts = {(text.get_position()): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "6\n75%", (1, 0): "2\n25%", (0, 1): "1\n8%", (1, 1): "11\n92%"}
    assert "17 of 20 images are right; balanced accuracy 0.83" in words(figure)


def test_confusion_leaves_out_a_class_without_images():
    matrix = pd.DataFrame([[3, 1], [0, 0]], index=["X-ray", "Fe"], columns=["X-ray", "Fe"])
    assert "3 of 4 images are right; balanced accuracy 0.75" in words(plots.confusion(matrix))


def test_roc_states_the_share_of_pairs_in_order(predictions):
    figure = plots.roc(predictions)
    assert "Fe images outrank others in 75% of all pairs" in words(figure)
    false, true = figure.axes[0].lines[0].get_data()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert {(float(x), float(y)) for x, y in zip(false, true, strict=True)} >= {(0, 0.5), (0.5, 0.5), (0.5, 1)}


def test_roc_of_three_classes_has_a_curve_for_each():
    labels = ["a", "b", "c", "a", "b", "c"]
    scores = {f"score_{name}": [float(label == name) for label in labels] for name in "abc"}
    scores["score_b"][0] = 2.0  # the one mistake: an image of a looks like b
    figure = plots.roc(pd.DataFrame({"label": labels, **scores}))
    assert "b is hardest to rank: area 0.75" in words(figure)
    assert len(figure.axes[0].lines) == 4


# -------------------------------------------------------------------------------------------------------- drawings


def test_the_recipe_pairs_a_dataset_with_a_loader_for_each_split():
    texts = set(words(plots.recipe_diagram()))
    assert texts >= {f"{split} {kind}" for split in ("train", "val", "test") for kind in ("Dataset", "DataLoader")}


def test_broadcasting_adds_what_it_draws():
    numbers = [int(text) for text in words(plots.broadcasting_diagram((3, 1), (1, 4))) if text.isdigit()]
    assert numbers[:12] == [0, 0, 0, 0, 10, 10, 10, 10, 20, 20, 20, 20]
    assert numbers[12:24] == [0, 1, 2, 3] * 3
    assert numbers[24:] == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]


def test_broadcasting_refuses_what_tensors_refuse():
    with pytest.raises(ValueError, match="could not be broadcast"):
        plots.broadcasting_diagram((2, 3), (2, 4))
