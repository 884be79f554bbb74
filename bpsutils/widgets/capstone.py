"""The figure that moves in notebook 11."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider


def unfreezing(counts: Mapping[str, int], images: int) -> Any:
    """How much of a network is trained when its last parts are unfrozen (notebook 11).

    Args:
        counts: Weights of each part, from the first to the head, see `bpsutils.transfer.parts`.
        images: Number of training images.
    """
    sizes = list(counts.values())
    control = slider(ipywidgets.IntSlider, "parts that are trained", value=1, min=1, max=len(sizes))

    def sentence(n: int) -> str:
        trained, total = sum(sizes[-n:]), sum(sizes)
        unfrozen = "the head alone" if n == 1 else f"from {list(counts)[-n].strip('_')} to the head"
        return (
            f"Trained: {n} of {len(sizes)} parts, {unfrozen}. These are {trained:,} of {total:,} weights "
            f"({trained / total:.1%}), {trained / images:,.0f} for each of the {images} training images."
        )

    alt = "Bars: the number of weights in each part of the network, those that are trained in a darker colour."
    return interactive(control, lambda n: plots.trained_parts(counts, n), sentence, alt)
