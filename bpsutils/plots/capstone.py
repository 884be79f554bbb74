"""Figures of notebook 11: colour patches in padded batches, and what is trained of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bpsutils.bucketing import padding_waste
from bpsutils.plots.look import COLOURS, PALE, bare, new_figure, style


def padded_patches(batches: Mapping[str, Sequence[np.ndarray]], *, caption: str = "") -> Figure:
    """Batches of colour images, one a row, as they are padded, all at one scale.

    Args:
        batches: Name of each batch and its images, uint8 of shape ``(H, W, 3)``.
        caption: Small text below, such as `SIMULATED`.
    """
    rows, wastes = [], []
    for images in batches.values():
        sizes = np.array([image.shape[:2] for image in images])
        wastes.append(padding_waste(sizes, [np.arange(len(images))]))
        frame = np.full((*sizes.max(axis=0), 3), np.array(to_rgb(PALE)) * 255, dtype=np.uint8)
        frames = [frame.copy() for _ in images]
        for padded, image in zip(frames, images, strict=True):
            padded[: image.shape[0], : image.shape[1]] = image
        rows.append(np.hstack([np.pad(frame, ((0, 0), (0, 8), (0, 0)), constant_values=255) for frame in frames]))
    widest = max(row.shape[1] for row in rows)
    with style():
        finding = ", ".join(f"{name} {waste:.0%}" for name, waste in zip(batches, wastes, strict=True))
        height = 7.0 / widest * sum(len(row) for row in rows) + 0.3 * len(rows) + 0.75
        figure = new_figure(7.2, height, f"Padding in one batch: {finding}", f"Padding is blue. {caption}".strip())
        axes = figure.subplots(len(rows), squeeze=False, height_ratios=[len(row) for row in rows])[:, 0]
        for place, name, row in zip(axes, batches, rows, strict=True):
            place.imshow(row, interpolation="antialiased")
            place.set(xlim=(0, widest), anchor="W")
            place.set_title(name, fontsize=9)
            bare(place)
    return figure


def trained_parts(counts: Mapping[str, int], n: int) -> Figure:
    """How many weights each part of a network has, and which parts are trained: the last ``n``.

    Args:
        counts: Weights of each part, from the first to the head, see `bpsutils.transfer.parts`.
        n: Number of parts that are trained, from the head backwards.

    Raises:
        ValueError: If the network has not that many parts.
    """
    if not 1 <= n <= len(counts):
        raise ValueError(f"n must be from 1 to the {len(counts)} parts, got {n}")
    sizes = np.array(list(counts.values()))
    trained = np.arange(len(sizes)) >= len(sizes) - n
    with style():
        share = sizes[trained].sum() / sizes.sum()
        title = f"The last {n} of {len(sizes)} parts hold" if n > 1 else f"The head, one of {len(sizes)} parts, holds"
        title += f" {share:.1%} of the weights"
        figure = new_figure(7.2, 3.4, title, "")
        axes = figure.subplots()
        axes.bar(np.arange(len(sizes)), sizes, color=np.where(trained, COLOURS[0], PALE))
        axes.set_xticks(
            np.arange(len(sizes)), [name.strip("_") for name in counts], rotation=60, ha="right", fontsize=8
        )
        axes.set_yscale("log")
        axes.set_ylim(10, 10 * sizes.max())
        marks = [mark for mark in (10, 1000, 100_000, 10_000_000) if mark <= 10 * sizes.max()]
        axes.set_yticks(marks, [f"{mark:,}" for mark in marks])
        axes.minorticks_off()
        axes.set(xlabel="part of the network, from the image to the head", ylabel="weights (log scale)")
        keys = [Patch(color=COLOURS[0], label="trained"), Patch(color=PALE, label="frozen")]
        axes.legend(handles=keys, loc="upper left", ncols=2)
    return figure
