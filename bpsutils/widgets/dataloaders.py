"""The figure that moves in notebook 03."""

from __future__ import annotations

from typing import Any

import ipywidgets

from bpsutils import plots
from bpsutils.widgets.core import interactive, slider

MOST = 8


def worker_timeline() -> Any:
    """Who loads which batch when, in a simulated schedule, for a number of workers that is moved (notebook 03)."""
    control = slider(ipywidgets.IntSlider, "workers", value=0, min=0, max=MOST)
    longest = plots.schedule(0).total

    def sentence(workers: int) -> str:
        plan = plots.schedule(workers)
        hands = f"{workers} worker{'s' * (workers != 1)}" if workers else "no worker"
        return (
            f"With {hands}, the first batch is there after {plan.training[0][0]:.0f} ms and {len(plan.training)} "
            f"batches take {plan.total:.0f} ms: the GPU works for {plan.total - plan.waiting:.0f} ms and waits for "
            f"{plan.waiting:.0f} ms."
        )

    alt = "Bars over time: which worker loads which batch, and when the GPU trains on it or waits."
    return interactive(control, lambda workers: plots.worker_timeline(workers, limit=longest), sentence, alt)
