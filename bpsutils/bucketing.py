"""Batches of images that are nearly of one size, and the padding they save (notebook 07).

Sizes are arrays ``(N, 2)``, height first, in pixels. A batch is padded to its largest height and its largest width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

METHODS = ("2d", "width", "area")
# Sample key -> batch key, in the order of a batch.
COLUMNS = {"label": "labels", "group": "groups", "path": "paths", "index": "indices"}


def make_boundaries_for_batches(sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """Edges that cut the widths into bins of equal count, one bin for each batch.

    There are as many bins as batches in an epoch (images / batch size, rounded up). Many images share a width, so
    edges repeat; a repeated edge is kept once, and the bins it parted become one bin of more than a batch.

    Args:
        sizes: Height and width of each image in pixels, shape ``(N, 2)``.
        batch_size: Images per batch.

    Returns:
        Edges, rising, in pixels: bin 0 holds widths up to and with ``edges[0]``, the last bin those above
        ``edges[-1]``. ``np.searchsorted(edges, widths)`` is each image's bin.

    Raises:
        ValueError: If the sizes or the batch size cannot be right.

    Example:
        >>> sizes = np.array([[90, 114], [90, 120], [90, 131], [90, 149], [90, 160], [90, 182]])
        >>> make_boundaries_for_batches(sizes, batch_size=2).tolist()
        [120, 149]
    """
    widths = _checked(sizes, batch_size)[:, 1]
    n_bins = -(-len(widths) // batch_size)
    # The smallest width with k/n_bins of the images at or below it: an edge is always a width that occurs.
    edges = np.quantile(widths, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
    return np.unique(edges[edges < widths.max()])


class BucketSampler(Sampler[list[int]]):
    """Batch images of similar size: every image once an epoch, in an order made of ``(seed, epoch)`` alone.

    If images were sorted strictly, the same ones would meet in a batch in every epoch. So each epoch sorts sizes
    that are jittered by a little noise: more noise, more padding, fewer batch-mates who meet again. On 20,000 sizes
    like the real ones, in batches of 64, padding is 52 % at random, 4 % sorted strictly and 12 % with the default
    jitter, where 4 % of batch-mates meet again in the next epoch.

    Methods:
        ``"2d"``: sort by height into about √(number of batches) strips, sort each strip by width, cut batches.
        ``"width"``: bins of `make_boundaries_for_batches`; a bin larger than a batch is cut. Heights vary freely.
        ``"area"``: sort by area, cut batches.

    Args:
        sizes: Height and width of each image as the network will see it, in pixels, shape ``(N, 2)``.
        batch_size: Most images in a batch.
        seed: Together with the epoch it decides the order.
        drop_last: Keep every batch full, by leaving out ``N % batch_size`` images, others in each epoch. The
            edges of width bins then give way.
        method: ``"2d"``, ``"width"`` or ``"area"``.
        jitter: Standard deviation of the noise, as a share of a side's length. 0 pads least, and makes the same
            batches in every epoch, in another order.

    Raises:
        ValueError: If an argument cannot be right; the message names it.

    Example:
        >>> sizes = np.array([[80, 120], [170, 180], [81, 121], [168, 182], [82, 119]])
        >>> sampler = BucketSampler(sizes, batch_size=3, jitter=0)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 2, 4], [1, 3]]
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        method: str = "2d",
        jitter: float = 0.03,
    ) -> None:
        self.sizes = _checked(sizes, batch_size)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if not 0 <= jitter < 0.5:
            raise ValueError(f"jitter must be a share from 0 to below 0.5, got {jitter}")
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
        self.method, self.jitter = method, jitter
        self.epoch = 0
        self.cuts = self._cuts()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches, the same in every epoch."""
        return len(self.cuts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._sorted(rng)
        for batch in rng.permutation(len(self)):
            yield order[self.cuts[batch] : self.cuts[batch + 1]].tolist()

    def _cuts(self) -> np.ndarray:
        """Where the sorted order is cut into batches: they stay when the order changes."""
        n = len(self.sizes)
        if self.drop_last:
            return np.arange(0, n + 1, self.batch_size)
        ends = [n]
        if self.method == "width":
            edges = make_boundaries_for_batches(self.sizes, self.batch_size)
            ends = np.searchsorted(np.sort(self.sizes[:, 1]), [*edges, np.inf], side="right").tolist()
        starts = [0, *ends[:-1]]
        cuts = [np.arange(start, end, self.batch_size) for start, end in zip(starts, ends, strict=True)]
        return np.concatenate([*cuts, [n]])

    def _sorted(self, rng: np.random.Generator) -> np.ndarray:
        """All indices of this epoch, similar sizes side by side."""
        kept: np.ndarray = np.arange(len(self.sizes))
        if self.drop_last:
            # The last batch in order of size would always be the largest images; chance leaves out others.
            kept = np.sort(rng.permutation(kept)[: self.cuts[-1]])
        height, width = _jittered(self.sizes[kept], self.jitter, rng).T
        if self.method == "width":
            order = _argsort(width)
        elif self.method == "area":
            order = _argsort(np.sqrt(height * width))
        else:
            # Strips of another breadth in each epoch cut between other images, which costs no padding.
            breadth = rng.uniform(0.5, 2) if self.jitter else 1
            order = _strips(height, width, self.batch_size, breadth)
        return kept.take(order)


def _jittered(sizes: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Sizes times noise. At the same shuffling, uniform noise pads less than Gaussian: it has no outliers."""
    noise = 2 * rng.random(sizes.shape, dtype=np.float32) - 1
    jittered: np.ndarray = sizes * (1 + np.float32(jitter * np.sqrt(3)) * noise)
    return jittered


def _strips(height: np.ndarray, width: np.ndarray, batch_size: int, breadth: float) -> np.ndarray:
    """Sort by height into strips, and by width inside each: both sides vary equally little inside a batch."""
    n_batches = -(-len(height) // batch_size)
    strip = batch_size * max(1, round(breadth * n_batches**0.5))
    order, width_rank = _argsort(height), _as_uint16(width)
    for start in range(0, len(order), strip):
        part = order[start : start + strip]
        order[start : start + strip] = part[np.argsort(width_rank[part], kind="stable")]
    return order


def _argsort(side: np.ndarray) -> np.ndarray:
    return np.argsort(_as_uint16(side), kind="stable")


def _as_uint16(side: np.ndarray) -> np.ndarray:
    """NumPy sorts 16-bit numbers by radix: faster than floats, and equal ones in the same order on every machine."""
    scaled: np.ndarray = np.round(side * (65535 / side.max(initial=1)))
    return scaled.astype(np.uint16)


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


def padding_waste(sizes: np.ndarray, batches: Sequence[np.ndarray] | Sequence[list[int]]) -> float:
    """Share of padded pixels that no image fills.

    Args:
        sizes: Height and width of each image in pixels, shape ``(N, 2)``.
        batches: Indices into ``sizes``, one array or list per batch.

    Returns:
        ``1 - real / padded``, from 0 (every image fills its batch) up to 1.

    Raises:
        ValueError: If there is no batch, a batch is empty, or it names an image that is not there.

    Example:
        >>> padding_waste(np.array([[4, 4], [4, 2]]), [np.array([0, 1])])
        0.25
    """
    sizes = _checked(sizes)
    counts = np.array([len(batch) for batch in batches], dtype=np.int64)
    if not counts.size or not counts.all():
        raise ValueError("padding_waste needs at least one batch, and an image in each; a batch is empty")
    indices = np.concatenate([np.asarray(batch) for batch in batches])
    if indices.min() < 0 or indices.max() >= len(sizes):
        raise ValueError(
            f"a batch names image {indices.min()} or {indices.max()}, but there are sizes for 0 to {len(sizes) - 1}"
        )
    sides = sizes[indices].astype(np.float64)
    largest = np.maximum.reduceat(sides, counts.cumsum() - counts)
    return float(1 - sides.prod(axis=1).sum() / (counts * largest.prod(axis=1)).sum())


def mates_met_again(first: Sequence[list[int]], second: Sequence[list[int]]) -> float:
    """Of all pairs of images that share a batch in one epoch, the share that does so in another epoch too.

    Args:
        first: Indices of each batch of one epoch; no image twice.
        second: Batches of the other epoch.

    Returns:
        From 0 (no pair meets again) to 1 (the same batches). Random batches of B among N images give about B / N.

    Raises:
        ValueError: If no batch of ``first`` holds a pair.

    Example:
        >>> mates_met_again([[0, 1, 2], [3, 4]], [[0, 1], [2, 3, 4]])
        0.5
    """
    batch_of = {image: number for number, batch in enumerate(second) for image in batch}
    # images that the other epoch leaves out have no batch there, and meet nobody
    met = [[batch_of[image] for image in batch if image in batch_of] for batch in first]
    pairs = sum(math.comb(len(batch), 2) for batch in first)
    if not pairs:
        raise ValueError("mates_met_again needs a batch of at least two images")
    return sum(math.comb(count, 2) for numbers in met for count in Counter(numbers).values()) / pairs


def _checked(sizes: np.ndarray, batch_size: int = 1) -> np.ndarray:
    sizes = np.asarray(sizes)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not len(sizes):
        raise ValueError(
            f"sizes must be an array (N, 2) of heights and widths, N at least 1, got shape {sizes.shape}; "
            'from a table: table[["height", "width"]].to_numpy()'
        )
    if not (sizes > 0).all():
        raise ValueError("sizes must be at least 1 pixel; leave out images without a size")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return sizes
