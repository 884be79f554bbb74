import pytest
from looking import parts, shown

from bpsutils import plots, widgets

pytestmark = pytest.mark.usefixtures("shell")


@pytest.mark.parametrize(
    ("rate", "verdict", "last"),
    [
        (0.001, "crawls", "12"),
        (0.01, "crawls", "3.6"),
        (0.03, "is on its way", "0.7"),
        (0.1, "converges", "0.0017"),
        (0.18, "converges", "1.2e-06"),
        (0.2, "bounces", "11"),
        (0.21, "diverges", "2.3e+04"),
    ],
)
def test_the_sentence_judges_the_rate_with_numbers(rate, verdict, last):
    with shown(widgets.learning_rate) as (control, outputs):
        control.value = 0.15  # somewhere else first
        control.value = rate
    start = f"Rate {rate:g} {verdict}: after 40 steps the loss is {last} of 19.2 at the start."
    assert parts(outputs[-1])[1].startswith(start)


def test_the_first_picture_is_the_figure_function_s_and_moving_changes_it():
    with shown(widgets.learning_rate) as (control, outputs):
        control.value = 0.2
    first, moved = (parts(output)[0] for output in outputs[1:])
    still = {"data": {"text/html": plots.as_html(plots.descent(0.01), "x", "y")}}
    assert first == parts(still)[0] != moved
