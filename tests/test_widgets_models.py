import re

from IPython.utils.capture import capture_output

from bpsutils import widgets


def test_pooling_says_what_each_kind_shows(shell):
    with capture_output() as captured:
        control = widgets.pooling()
        control.value = 3
    said = [re.search(r"<p>(.*)</p>", output["data"]["text/html"])[1] for output in captured._outputs[1:]]
    assert said == [
        "With the spot shifted by 0 px, max pooling shows 1 in 1 of 8 windows and has changed in 0, "
        "average pooling shows 0.25 in 1 of 8 windows and has changed in 0.",
        "With the spot shifted by 3 px, max pooling shows 1 in 2 of 8 windows and has changed in 1, "
        "average pooling shows 0.125 in 2 of 8 windows and has changed in 2.",
    ]
