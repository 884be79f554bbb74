"""The figure that moves in notebook 05."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets
import pandas as pd

from bpsutils import plots
from bpsutils.leakage import mean_interval
from bpsutils.widgets.core import interactive, slider


def leakage(numbers: pd.DataFrame, scores: Mapping[float, pd.DataFrame], *, caption: str = "") -> Any:
    """Mice that differ more and more, and what a split at random then claims (notebook 05).

    Args:
        numbers: Six numbers of each nucleus at each ``mouse_effect``, from `bpsutils.leakage`.
        scores: For each ``mouse_effect`` the table of `bpsutils.leakage.compare_splits`.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.
    """
    effects = list(scores)
    options = [(f"{effect:g}", effect) for effect in effects]
    control = slider(ipywidgets.SelectionSlider, "mouse_effect", options=options, value=effects[0])

    def sentence(effect: float) -> str:
        table = scores[effect]
        mean, half = mean_interval(table["inflation"])
        return (
            f"mouse_effect {effect:g}: over {len(table)} pairs of splits, the mean balanced accuracy is "
            f"{table['at random'].mean():.2f} at random and {table['by mouse'].mean():.2f} by mouse; "
            f"the inflation is {mean:.2f} ± {half:.2f}."
        )

    alt = "Nuclei of four mice in two of their numbers, beside the scores of 30 splits at random and 30 by mouse."
    return interactive(
        control, lambda effect: plots.mice_and_scores(numbers, scores, effect, caption=caption), sentence, alt
    )
