"""The figure that moves in notebook 10."""

from __future__ import annotations

from typing import Any

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider


def operating_point(predictions: pd.DataFrame, *, caption: str = "") -> Any:
    """Confusion matrix, ROC and precision-recall point of a threshold that is moved (notebook 10).

    Args:
        predictions: ``label`` (X-ray or Fe) and ``score_Fe``, from `bpsutils.predictions.load_predictions`.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.
    """
    fe, scores = (predictions["label"] == "Fe").to_numpy(), predictions["score_Fe"].to_numpy()
    control = slider(ipywidgets.FloatSlider, "threshold on the score for Fe", value=0.5, min=0.0, max=1.0, step=0.05)

    def sentence(level: float) -> str:
        (_, alarms), (_, found) = counts = plots.counts_at(fe, scores, level)
        called = alarms + found
        start = (
            f"Threshold {level:.2f}: {found} of {counts[1].sum()} Fe nuclei are found (recall "
            f"{found / counts[1].sum():.2f}) and {alarms} of {counts[0].sum()} X-ray nuclei are called Fe by mistake. "
        )
        if not called:
            return start + "Nothing is called Fe, so there is no precision."
        f1 = 2 * found / (called + counts[1].sum())
        return start + f"Of {called} called Fe, {found} are (precision {found / called:.2f}); F1 is {f1:.2f}."

    def figure(level: float) -> Figure:
        return plots.operating_point(predictions, level, caption=caption)

    alt = "A confusion matrix, and a point on the ROC curve and on the precision-recall curve for the same threshold."
    return interactive(control, figure, sentence, alt)
