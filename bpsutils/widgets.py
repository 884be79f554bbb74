"""Figures that move: a control, a figure from `bpsutils.plots`, and a sentence that says what the figure shows.

`interactive` makes one of any three such parts, and every interactive figure of the course is a call of it. A saved
notebook holds the figure and the sentence as they are before anything is moved, so it reads without a kernel; the
sentence alone reads without eyes. Only what ipywidgets 7 (Colab) and 8 share is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import IPython.display
import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bpsutils import plots

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
        return _ipython.HTML(plots.as_html(figure(value), alt, sentence(value)))

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


def windowing(image: np.ndarray, *, caption: str = "") -> Any:
    """A 16-bit image through a display window whose upper end is moved (notebook 01).

    Args:
        image: Grey levels of shape ``(H, W)``.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.
    """
    ends = [2**bits - 1 for bits in range(9, 17)]
    control = slider(
        ipywidgets.SelectionSlider, "grey level shown as white", options=[(f"{end:,}", end) for end in ends], value=2047
    )

    def sentence(end: int) -> str:
        used, cut = plots.screen_levels(image, 0, end), int((image > end).sum())
        return (
            f"Window 0 to {end:,}: the image's grey levels {image.min():,} to {image.max():,} become {used} of the "
            f"screen's 256 levels, and {cut:,} of {image.size:,} pixels are cut to white."
        )

    alt = "An image through a display window, beside the histogram of its grey levels with the window shaded."
    return interactive(control, lambda end: plots.window_figure(image, 0, end, caption=caption), sentence, alt)


def threshold(predictions: pd.DataFrame, *, caption: str = "") -> Any:
    """The confusion matrix of two classes at a threshold that is moved (notebook 00).

    Args:
        predictions: ``label`` and two columns ``score_<class>``, from `bpsutils.evaluation.predict`. An image whose
            score for the last class reaches the threshold is called that class.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.

    Raises:
        ValueError: If there are not two classes.
    """
    classes = [column.removeprefix("score_") for column in predictions if column.startswith("score_")]
    if len(classes) != 2:
        raise ValueError(f"a threshold divides two classes; predictions has scores for {len(classes)}: {classes}")
    control = slider(
        ipywidgets.FloatSlider, f"threshold on the score for {classes[1]}", value=0.5, min=0.0, max=1.0, step=0.05
    )

    def sentence(level: float) -> str:
        other, positive = classes
        counts = _matrix(predictions, classes, level)
        found, mistaken = counts.loc[positive, positive], counts.loc[other, positive]
        return (
            f"Threshold {level:.2f}: {found} of {counts.loc[positive].sum()} {positive} images are found, "
            f"and {mistaken} of {counts.loc[other].sum()} {other} images are called {positive} by mistake."
        )

    def figure(level: float) -> Figure:
        return plots.confusion(_matrix(predictions, classes, level), caption=caption)

    alt = "A confusion matrix: images by true and predicted class at the chosen threshold."
    return interactive(control, figure, sentence, alt)


def _matrix(predictions: pd.DataFrame, classes: list[str], level: float) -> pd.DataFrame:
    """Images by true class (rows) and the class that the threshold gives them (columns)."""
    called = np.where(predictions[f"score_{classes[1]}"] >= level, classes[1], classes[0])
    counts = pd.crosstab(predictions["label"].to_numpy(), called)
    return counts.reindex(index=classes, columns=classes, fill_value=0)
