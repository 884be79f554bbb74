"""The figure that moves in notebook 02."""

from __future__ import annotations

from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from bpsutils import plots
from bpsutils.datasets import ImageDataset
from bpsutils.widgets.core import interactive, slider


def sample_viewer(dataset: ImageDataset, *, caption: str = "") -> Any:
    """What a dataset returns for an index that is moved (notebook 02).

    Args:
        dataset: Of images of one channel, samples as dicts.
        caption: Small text below the figure, such as `bpsutils.plots.SIMULATED`.
    """
    control = slider(ipywidgets.IntSlider, "index", value=0, min=0, max=len(dataset) - 1)

    def sentence(index: int) -> str:
        sample = _sample(dataset, index)
        (_, height, width), (_, *first) = sample["image"].shape, _sample(dataset, 0)["image"].shape
        label = sample.get("label")
        named = "no label" if label is None else f"label {label} ({dataset.classes[label]})"
        stacks = "it has the size of sample 0" if [height, width] == first else "it does not stack with sample 0"
        if index == 0:
            stacks = "only another one of this size stacks with it"
        return (
            f"dataset[{index}] of {len(dataset)}: {height} x {width} pixels, {named}, group "
            f"{sample['group'] or 'unknown'}; {stacks}."
        )

    def figure(index: int) -> Figure:
        return plots.sample_figure(_sample(dataset, index), dataset.classes, caption=caption)

    alt = "The image of one sample on axes of pixels, beside the other entries of its dict."
    return interactive(control, figure, sentence, alt)


def _sample(dataset: ImageDataset, index: int) -> dict[str, Any]:
    sample = dataset[index]
    if not isinstance(sample, dict):
        raise TypeError("sample_viewer shows samples that are dicts: make the dataset without as_tuple")
    return sample
