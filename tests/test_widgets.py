import ipywidgets
import numpy as np
import pandas as pd
import pytest
from looking import parts, shown

from bpsutils import plots, widgets

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def image():
    return np.arange(200, 200 + 30 * 40, dtype=np.uint16).reshape(30, 40)


@pytest.fixture
def predictions():
    scores = np.array([0.1, 0.2, 0.6, 0.9, 0.4, 0.8])
    labels = ["X-ray", "X-ray", "X-ray", "Fe", "Fe", "Fe"]
    return pd.DataFrame({"label": labels, "score_X-ray": 1 - scores, "score_Fe": scores})


@pytest.mark.parametrize("name", ["windowing", "threshold"])
def test_moving_the_control_changes_picture_and_sentence(shell, image, predictions, name):
    make = {"windowing": lambda: widgets.windowing(image), "threshold": lambda: widgets.threshold(predictions)}[name]
    with shown(make) as (control, outputs):
        assert len(outputs) == 2  # the control and its figure
        control.value = {"windowing": 511, "threshold": 0.85}[name]
        assert len(outputs) == 3
        before, after = outputs[1:]
        assert after["update"]
        assert before["transient"]["display_id"] == after["transient"]["display_id"]
        assert all(old != new for old, new in zip(parts(before), parts(after), strict=True))


def test_moving_back_brings_back_picture_and_sentence(shell, image):
    with shown(lambda: widgets.windowing(image)) as (control, outputs):
        start, control.value = control.value, 1023
        control.value = start
        assert parts(outputs[1]) == parts(outputs[3])


def test_the_control_comes_first_and_says_what_it_is_without_a_kernel(shell, image):
    with shown(lambda: widgets.windowing(image)) as (control, outputs):
        pass
    assert outputs[0]["data"][VIEW]["model_id"] == control.model_id
    assert outputs[0]["data"]["text/plain"] == "[Run this cell to get a control: grey level shown as white]"


def test_the_first_picture_is_the_figure_function_s(shell, image):
    with shown(lambda: widgets.windowing(image, caption=plots.SIMULATED)) as (control, outputs):
        pass
    static = plots.as_html(plots.window_figure(image, 0, control.value, caption=plots.SIMULATED), "x", "y")
    assert parts(outputs[1])[0] == parts({"data": {"text/html": static}})[0]


def test_sliders_report_where_they_are_let_go():
    made = widgets.slider(ipywidgets.IntSlider, "batch size (images)", value=4, min=1, max=9)
    assert made.continuous_update is False
    assert (made.description, made.value, made.max) == ("batch size (images)", 4, 9)


def test_windowing_counts_what_is_cut(shell, image):
    with shown(lambda: widgets.windowing(image)) as (control, outputs):
        control.value = 1023
    # 200 to 1399: 1024 to 1399 lie above the window
    assert "Window 0 to 1,023: the image&#x27;s grey levels 200 to 1,399 become" in parts(outputs[2])[1]
    assert "and 376 of 1,200 pixels are cut to white." in parts(outputs[2])[1]


@pytest.mark.parametrize(
    ("level", "found", "mistaken"), [(0.0, 3, 3), (0.4, 3, 1), (0.45, 2, 1), (0.65, 2, 0), (1.0, 0, 0)]
)
def test_threshold_counts_each_class(shell, predictions, level, found, mistaken):
    with shown(lambda: widgets.threshold(predictions)) as (control, outputs):
        control.value = level
    assert parts(outputs[-1])[1] == (
        f"Threshold {level:.2f}: {found} of 3 Fe images are found, "
        f"and {mistaken} of 3 X-ray images are called Fe by mistake."
    )


def test_a_threshold_needs_two_classes(predictions):
    with pytest.raises(ValueError, match="divides two classes; predictions has scores for 3"):
        widgets.threshold(predictions.assign(score_C=0.0))
