"""Figures that move: a control, a figure from `bpsutils.plots`, and a sentence that says what the figure shows.

`interactive` makes one of any three such parts, and every interactive figure of the course is a call of it. A saved
notebook holds the figure and the sentence as they are before anything is moved, so it reads without a kernel; the
sentence alone reads without eyes. Only what ipywidgets 7 (Colab) and 8 share is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import IPython.display
from matplotlib.figure import Figure

from bpsutils.plots import as_html

_ipython: Any = IPython.display  # its functions carry no types
_VIEW = "application/vnd.jupyter.widget-view+json"


def interactive(control: Any, figure: Callable[[Any], Figure], sentence: Callable[[Any], str], alt: str) -> Any:
    """Show a control with a figure under it that is drawn again whenever the control's value changes.

    Args:
        control: An ipywidgets widget with a ``value``, such as one from `slider`.
        figure: Draws the figure for a value.
        sentence: Says in words what that figure shows, numbers included. It stands under the figure.
        alt: What kind of figure it is, for those who do not see it; the sentence says the rest.

    Returns:
        The control. Give it a name (``slider = …``): as the last line of a cell it would be shown a second time.
    """

    def page(value: Any) -> Any:
        return _ipython.HTML(as_html(figure(value), alt, sentence(value)))

    # In our own words, because ipywidgets 7 and 8 print a widget differently where no kernel runs.
    words = f"[Run this cell to get a control: {control.description}]"
    view = {"version_major": 2, "version_minor": 0, "model_id": control.model_id}
    _ipython.display({"text/plain": words, _VIEW: view}, raw=True)
    handle = _ipython.display(page(control.value), display_id=True)
    control.observe(lambda change: handle.update(page(change["new"])), names="value")
    return control


def slider(kind: type, description: str, **settings: Any) -> Any:
    """A slider that the arrow keys move, and that reports where it was let go, not every place on the way.

    Args:
        kind: ``ipywidgets.IntSlider``, ``FloatSlider``, ``SelectionSlider``, …
        description: What is moved, with its unit.
        settings: What that kind takes: ``value``, ``min``, ``max``, ``step``, ``options``, …
    """
    layout, label = {"width": "95%", "max_width": "40rem"}, {"description_width": "initial"}
    return kind(description=description, continuous_update=False, layout=layout, style=label, **settings)
