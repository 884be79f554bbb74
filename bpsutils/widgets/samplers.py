"""The figures that move in notebook 04."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from bpsutils import plots
from bpsutils.samplers import ClassBalancedSampler, set_epoch
from bpsutils.widgets.core import interactive, slider

IMAGES, BATCH_SIZE = 640, 16
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def sampler_stream(samplers: Mapping[str, Iterable[int]], labels: Sequence[Any] | np.ndarray, epochs: int = 4) -> Any:
    """Which indices come, epoch by epoch, for a sampler that is chosen (notebook 04).

    Args:
        samplers: Name of each and the sampler; it is told the epoch where it has a ``set_epoch``.
        labels: Class of each image, shape ``(N,)``.
        epochs: How many to draw.
    """
    # Drawn once: a sampler with a generator of its own would answer differently whenever the control comes back.
    streams = {name: _epochs(sampler, epochs) for name, sampler in samplers.items()}
    control = slider(ipywidgets.SelectionSlider, "sampler", options=list(streams), value=next(iter(streams)))
    labels = np.asarray(labels)

    def sentence(name: str) -> str:
        first, seen = streams[name][0], set().union(*streams[name])
        again = "the same" if streams[name][0] == streams[name][1] else "another"
        rare = plots.rarest(labels)
        return (
            f"{name}: {len(first)} draws in epoch 0 show {len(set(first))} of {len(labels)} images, "
            f"{int((labels[first] == rare).sum())} draws are {rare}; epoch 1 has {again} order; "
            f"{len(labels) - len(seen)} images do not come in {epochs} epochs."
        )

    alt = "A row of numbered cells for each epoch: the indices in the order in which they come, rare class dark."
    return interactive(control, lambda name: plots.index_stream(streams[name], labels, name=name), sentence, alt)


def _epochs(sampler: Iterable[int], epochs: int) -> list[list[int]]:
    drawn = []
    for epoch in range(epochs):
        set_epoch(sampler, epoch)
        drawn.append([int(index) for index in sampler])
    return drawn


def imbalance(seed: int = 0) -> Any:
    """What each batch holds of a class that becomes rarer, in random order and balanced (notebook 04).

    Args:
        seed: Of both orders.
    """
    options = [(f"{share:.0%}", share) for share in SHARES]
    control = slider(ipywidgets.SelectionSlider, "share of the rare class", options=options, value=0.05)

    def sentence(share: float) -> str:
        counts = _counts(share, seed)
        shuffled, balanced = counts["in random order"], counts["balanced"]
        return (
            f"{share:.0%}: {shuffled.sum()} of {IMAGES} images are rare. In random order {(shuffled == 0).sum()} of "
            f"{len(shuffled)} batches hold none. Balanced, {(balanced == 0).sum()} hold none, a batch has "
            f"{balanced.min()} to {balanced.max()}, and each rare image comes {balanced.sum() / shuffled.sum():g} "
            "times an epoch on average."
        )

    def figure(share: float) -> Figure:
        return plots.imbalance(_counts(share, seed), share)

    alt = "Rare images in each batch of an epoch, above in random order, below with balanced classes."
    return interactive(control, figure, sentence, alt)


def _counts(share: float, seed: int) -> dict[str, np.ndarray]:
    """Rare images a batch in random order and balanced."""
    labels = np.arange(IMAGES) < round(share * IMAGES)
    orders = {
        "in random order": np.random.default_rng(seed).permutation(IMAGES).tolist(),
        "balanced": list(ClassBalancedSampler(labels, seed)),
    }
    starts = np.arange(0, IMAGES, BATCH_SIZE)
    return {name: np.add.reduceat(labels[order].astype(int), starts) for name, order in orders.items()}
