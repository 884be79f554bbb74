"""The figure that moves in notebook 00."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider


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
