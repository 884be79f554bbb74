import pandas as pd
import pytest
from looking import parts, shown

from bpsutils import plots, widgets


@pytest.fixture
def predictions():
    scores = [0.1, 0.2, 0.6, 0.7, 0.3, 0.65, 0.8, 0.9]
    return pd.DataFrame({"label": ["X-ray"] * 4 + ["Fe"] * 4, "score_Fe": scores})


def test_moving_the_threshold_changes_picture_and_sentence(shell, predictions):
    with shown(lambda: widgets.operating_point(predictions)) as (control, outputs):
        assert len(outputs) == 2  # the control and its figure
        control.value = 0.75
        before, after = map(parts, outputs[1:])
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert before[1] == (
        "Threshold 0.50: 3 of 4 Fe nuclei are found (recall 0.75) and 2 of 4 X-ray nuclei are called Fe by mistake. "
        "Of 5 called Fe, 3 are (precision 0.60); F1 is 0.67."
    )
    assert "2 of 4 Fe nuclei are found (recall 0.50) and 0 of 4" in after[1]


def test_a_threshold_above_every_score(shell, predictions):
    with shown(lambda: widgets.operating_point(predictions)) as (control, outputs):
        control.value = 1.0
        assert parts(outputs[-1])[1].endswith("Nothing is called Fe, so there is no precision.")


def test_the_first_picture_is_the_figure_function_s(shell, predictions):
    with shown(lambda: widgets.operating_point(predictions)) as (_, outputs):
        pass
    static = plots.as_html(plots.operating_point(predictions, 0.5), "x", "y")
    assert parts(outputs[1])[0] == parts({"data": {"text/html": static}})[0]
