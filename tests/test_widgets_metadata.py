import numpy as np
import pandas as pd
import pytest
from IPython.utils.capture import capture_output
from looking import parts

from bpsutils import plots, widgets

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def numbers():
    mice = np.repeat(["Fe/A6", "Fe/A8", "X-ray/A7", "X-ray/C7"], 5)
    rows = pd.DataFrame({"mouse": mice, "particle_type": [mouse.split("/")[0] for mouse in mice]})
    rows["background"], rows["area"] = np.arange(20.0), np.arange(20.0) ** 2
    return pd.concat([rows.assign(mouse_effect=effect) for effect in (0.0, 1.0)])


@pytest.fixture
def scores():
    base = pd.DataFrame({"at random": [0.80, 0.84], "by mouse": [0.78, 0.82]})
    tables = {0.0: base, 1.0: base - [0.0, 0.2]}
    return {effect: t.assign(inflation=t["at random"] - t["by mouse"]) for effect, t in tables.items()}


def test_leakage_says_what_the_figure_shows(numbers, scores):
    with capture_output() as captured:
        control = widgets.leakage(numbers, scores, caption=plots.SIMULATED)
        outputs = captured._outputs
        control.value = 1.0
    assert [label for label, _ in control.options] == ["0", "1"]
    before, after = parts(outputs[1]), parts(outputs[2])
    assert before[1] == (
        "mouse_effect 0: over 2 pairs of splits, the mean balanced accuracy is 0.82 at random and 0.80 by mouse; "
        "the inflation is 0.02 ± 0.00."
    )
    assert "0.82 at random and 0.60 by mouse; the inflation is 0.22 ± 0.00." in after[1]
    static = plots.as_html(plots.mice_and_scores(numbers, scores, 1.0, caption=plots.SIMULATED), "x", "y")
    assert after[0] == parts({"data": {"text/html": static}})[0]
