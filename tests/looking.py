"""What several tests need to look at figures, those that move and those that stand still."""

import contextlib
import re

from IPython.utils.capture import capture_output

from bpsutils import plots


@contextlib.contextmanager
def shown(make):
    """What a call returns, and what it shows: a list that grows when a control is moved inside the block."""
    with capture_output() as captured:
        yield make(), captured._outputs


def parts(output):
    """Picture and sentence of what a figure that moves shows."""
    page = output["data"]["text/html"]
    return re.search(r'src="data:image/png;base64,([^"]+)"', page)[1], re.search(r"<p>(.*)</p>", page)[1]


def assert_it_fits(figure):
    """No text is cut off, and the figure is no wider than a page."""
    plots.as_html(figure, "x")  # lays the figure out
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert width <= 7.2
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02, figure.get_suptitle()
