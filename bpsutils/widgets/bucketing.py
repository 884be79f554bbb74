"""The figures that move in notebook 07."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from bpsutils import plots
from bpsutils.bucketing import padding_waste
from bpsutils.datasets import ImageDataset
from bpsutils.widgets.core import interactive, slider


def batch_viewer(dataset: ImageDataset, batches: Sequence[Sequence[int]], *, value: int = 1, caption: str = "") -> Any:
    """One batch after the other with its padding (notebook 07).

    Args:
        dataset: Of grey images without a transform that changes their size, from a table with sizes.
        batches: Indices of each batch, in the order of the slider.
        value: Number of the batch that is shown first, from 1.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.

    Raises:
        ValueError: If the dataset knows no sizes.
    """
    sizes = dataset.sizes
    if sizes is None:
        raise ValueError("batch_viewer needs sizes; make the dataset from a table with height and width")
    control = slider(ipywidgets.IntSlider, f"batch (of {len(batches)})", value=value, min=1, max=len(batches), step=1)

    def sentence(number: int) -> str:
        batch = np.asarray(batches[number - 1])
        (low_h, low_w), (high_h, high_w) = sizes[batch].min(axis=0), sizes[batch].max(axis=0)
        return (
            f"Batch {number} of {len(batches)}: {len(batch)} images, {low_w} to {high_w} px wide and {low_h} to "
            f"{high_h} px high, are padded to {high_h} × {high_w} px. Padding is "
            f"{padding_waste(sizes, [batch]):.0%} of this batch, and {padding_waste(sizes, _lists(batches)):.0%} of "
            "the epoch."
        )

    def figure(number: int) -> Figure:
        images = [dataset[int(index)]["image"][0].numpy() for index in batches[number - 1]]  # type: ignore[call-overload]
        return plots.padded_batch(images, caption=caption)

    alt = "The images of one batch, each at the upper left of a frame of the batch's size; the rest is padding."
    return interactive(control, figure, sentence, alt)


def _lists(batches: Sequence[Sequence[int]]) -> list[list[int]]:
    return [list(batch) for batch in batches]


def bucket_boundaries(sizes: np.ndarray, batch_size: int, *, value: int | None = None, caption: str = "") -> Any:
    """Two-dimensional buckets whose number of strips is moved, and what they waste (notebook 07).

    Args:
        sizes: Height and width of each image in pixels, shape ``(N, 2)``.
        batch_size: Images per batch.
        value: Strips that are shown first. Default: √(number of batches), as `bpsutils.BucketSampler` takes.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.
    """
    most = -(-len(sizes) // batch_size)
    first = value or max(1, round(most**0.5))
    control = slider(ipywidgets.IntSlider, "strips of height", value=first, min=1, max=most, step=1)

    def sentence(strips: int) -> str:
        batches = plots.strip_batches(sizes, batch_size, strips)
        spans = np.array([np.ptp(sizes[batch], axis=0) for batch in batches])
        height, width = np.median(spans, axis=0)
        return (
            f"{strips} {'strip' if strips == 1 else 'strips'} of height, {len(batches)} batches: inside a typical "
            f"batch heights differ by {height:.0f} px and widths by {width:.0f} px. "
            f"{padding_waste(sizes, batches):.1%} of all pixels are padding."
        )

    def figure(strips: int) -> Figure:
        return plots.bucket_figure(sizes, batch_size, strips, caption=caption)

    alt = "Images by width and height with a box around each batch, beside the padding for each number of strips."
    return interactive(control, figure, sentence, alt)
