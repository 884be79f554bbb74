"""Samples of different sizes, joined to one padded batch (notebook 07)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Sample key -> batch key, in the order of a batch.
COLUMNS = {"label": "labels", "group": "groups", "path": "paths", "index": "indices"}


def collate_fn_pad(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join samples to a batch: pad images with zeros at the bottom and right to the largest height and width.

    Args:
        samples: Dicts with an ``"image"`` tensor ``(C, H, W)``, and ``"label"``, ``"group"``, ``"path"`` and
            ``"index"`` where there are such, as `bpsutils.datasets.ImageDataset` returns them.

    Returns:
        ``images`` ``(B, C, H, W)`` in the samples' dtype; ``mask`` ``(B, H, W)``, True where a pixel is real;
        ``sizes`` ``(B, 2)`` int64; and of what the samples have: ``labels`` ``(B,)`` int64, ``groups`` and ``paths``
        (lists of str), ``indices`` ``(B,)`` int64.

    Raises:
        TypeError: If a sample is no dict with an image tensor.
        ValueError: If there are no samples, or they differ in channels, dtype or keys.

    Example:
        >>> small, large = torch.ones(1, 2, 2), torch.ones(1, 2, 3)
        >>> batch = collate_fn_pad([{"image": small, "label": 0}, {"image": large, "label": 1}])
        >>> batch["images"][0].tolist()
        [[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]]
        >>> batch["mask"].sum().item(), batch["labels"].tolist()
        (10, [0, 1])
    """
    images = _checked_images(samples)
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = sizes.amax(0).tolist()
    padded = images[0].new_zeros((len(images), images[0].shape[0], height, width))
    mask = torch.zeros((len(images), height, width), dtype=torch.bool)
    for i, image in enumerate(images):
        _, h, w = image.shape
        padded[i, :, :h, :w] = image
        mask[i, :h, :w] = True
    batch: dict[str, Any] = {"images": padded, "mask": mask, "sizes": sizes}
    for key, name in COLUMNS.items():
        if key in samples[0]:
            batch[name] = _column(samples, key)
    return batch


def _checked_images(samples: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    if not samples:
        raise ValueError("collate_fn_pad got no samples; is the batch empty?")
    for sample in samples:
        image = sample.get("image") if isinstance(sample, Mapping) else None
        if not isinstance(image, Tensor) or image.ndim != 3:
            raise TypeError(
                "collate_fn_pad takes dicts with an 'image' tensor (C, H, W), got "
                f"{_kind(sample if image is None else image)}; use ImageDataset(..., as_tuple=False) and a "
                "transform that returns a tensor"
            )
    images = [sample["image"] for sample in samples]
    for sample, image in zip(samples, images, strict=True):
        if image.shape[0] != images[0].shape[0] or image.dtype != images[0].dtype:
            raise ValueError(
                f"images of one batch must have the same channels and dtype, got {_kind(images[0])} and "
                f"{_kind(image)} from {sample.get('path', 'a sample')}"
            )
    return images


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}" + (f" with keys {sorted(value)}" if isinstance(value, Mapping) else "")


def _column(samples: Sequence[Mapping[str, Any]], key: str) -> Tensor | list[str]:
    lacking = [i for i, sample in enumerate(samples) if key not in sample]
    if lacking:
        raise ValueError(f"samples {lacking} of the batch have no {key!r}, though the first has one")
    values = [sample[key] for sample in samples]
    return values if key in ("group", "path") else torch.stack([torch.as_tensor(value) for value in values])
