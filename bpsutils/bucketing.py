"""Batches of images that are nearly of one size, and the padding they save (notebook 07).

Sizes are arrays ``(N, 2)``, height first, in pixels. A batch is padded to its largest height and its largest width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from bpsutils.budget import check_budget, cut_by_budget, split_largest
from bpsutils.collate import collate_fn_pad as collate_fn_pad  # what pads a batch is imported with what makes it

METHODS = ("2d", "width", "area")


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
    like the real ones, in batches of 64, where random batches are 50 % padding and width bins 24 %::

        jitter                            0   0.01  0.02  0.03  0.05  0.1   0.2
        padding, % of the pixels          4     5     6     8    11    19    28
        mates met in the next epoch, %  100    32    15     9     4     2     1

    Where height and width go together, sizes lie closer: width bins do better, and less jitter shuffles as much.

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
        jitter: Largest change of a side by the noise, as a share of its length: 0.03 puts a side of 100 px
            anywhere from 97 to 103 px. 0 pads least, and makes the same batches in every epoch, in another order.
        pixel_budget: Most pixels in a padded batch, count × largest height × largest width. Batches are cut where
            the next image would not fit, so small images come in larger batches, of at most ``batch_size``. The
            edges of width bins then give way.
        shares: Ranks to whom `bpsutils.samplers.DistributedBatches` deals each batch. Their shares differ by one
            image; the sampler allows for it, so that each keeps to ``pixel_budget / shares``.

    Raises:
        ValueError: If an argument cannot be right; the message names it.

    Example:
        >>> sizes = np.array([[80, 120], [170, 180], [81, 121], [168, 182], [82, 119]])
        >>> sampler = BucketSampler(sizes, batch_size=3, jitter=0)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 2, 4], [1, 3]]
        >>> sampler = BucketSampler(sizes, batch_size=3, jitter=0, pixel_budget=40_000)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 2, 4], [1], [3]]
    """

    def __init__(
        self,
        sizes: np.ndarray,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        method: str = "2d",
        jitter: float = 0.03,
        pixel_budget: int | None = None,
        shares: int = 1,
    ) -> None:
        self.sizes = _checked(sizes, batch_size)
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        if not 0 <= jitter < 0.5:
            raise ValueError(f"jitter must be a share from 0 to below 0.5, got {jitter}")
        if shares < 1:
            raise ValueError(f"shares must be the number of ranks, at least 1, got {shares}")
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
        self.method, self.jitter = method, jitter
        self.pixel_budget, self.shares = pixel_budget, shares
        self.epoch = 0
        if pixel_budget is None:
            self.cuts = self._cuts()
            self.batches = len(self.cuts) - 1
        else:
            if drop_last:
                raise ValueError("drop_last fills batches up to batch_size, pixel_budget does not; leave one out")
            check_budget(self.sizes, pixel_budget, shares)
            self.batches = self._batches_in_budget()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches, the same in every epoch: the schedule and all ranks count on it.

        With a ``pixel_budget`` one epoch would do with fewer batches than another. The number is then the most that
        three trial epochs need, and a reserve; in an epoch that needs fewer, the largest are halved.
        """
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        jitter = self.jitter
        order, cuts, rng = self._epoch([self.seed, self.epoch], jitter)
        while len(cuts) - 1 > len(self):
            # The reserve of a budget is used up, which is rare. Less noise needs less of it, and none needs none.
            jitter = jitter / 2 if jitter > 0.001 else 0
            order, cuts, rng = self._epoch([self.seed, self.epoch], jitter)
        cuts = split_largest(cuts, len(self))
        for batch in rng.permutation(len(self)):
            yield order[cuts[batch] : cuts[batch + 1]].tolist()

    def _epoch(self, seed: list[int], jitter: float) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """Order of the images, cuts into batches, and the generator to go on with."""
        rng = np.random.default_rng(seed)
        order = self._sorted(rng, jitter)
        if self.pixel_budget is None:
            return order, self.cuts, rng
        return order, cut_by_budget(self.sizes[order], self.batch_size, self.pixel_budget, self.shares), rng

    def _batches_in_budget(self) -> int:
        """What is needed without noise and in two epochs with it, and a hundredth in reserve if they differ."""
        trials = [0, self.jitter, self.jitter]
        needed = [len(self._epoch([number], jitter)[1]) - 1 for number, jitter in enumerate(trials)]
        reserve = max(needed) // 100 + 1 if len(set(needed)) > 1 else 0
        return min(max(needed) + reserve, len(self.sizes))

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

    def _sorted(self, rng: np.random.Generator, jitter: float) -> np.ndarray:
        """All indices of this epoch, similar sizes side by side."""
        if not self.drop_last:
            return self._order(self.sizes, rng, jitter)
        # The last batch in order of size would always be the largest images; chance leaves out others.
        kept = np.sort(rng.permutation(len(self.sizes))[: self.cuts[-1]])
        return kept.take(self._order(self.sizes[kept], rng, jitter))

    def _order(self, sizes: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
        height, width = _jittered(sizes, jitter, rng)
        if self.method == "width":
            return _argsort(width)
        if self.method == "area":
            return _argsort(np.sqrt(height * width))
        # Strips of another breadth in each epoch cut between other images; far from √ they pad more.
        vary = min(1, (20 * jitter) ** 2)
        breadth = rng.uniform(1 - vary / 2, 1 + vary) if jitter else 1
        if self.pixel_budget is None:
            return _strips(height, width, self.batch_size, breadth)
        typical = int(self.pixel_budget / self.sizes.prod(axis=1).mean())
        return _strips(height, width, min(self.batch_size, max(1, typical)), breadth, snake=True)


def _jittered(sizes: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Sizes times noise, as two rows. At the same shuffling, uniform noise pads less than Gaussian: no outliers."""
    noise = rng.random(sizes.shape, dtype=np.float32)
    noise *= 2
    noise -= 1
    noise *= np.float32(jitter)
    noise += 1
    # each side in one piece of memory is sorted in half the time
    jittered: np.ndarray = np.multiply(sizes.T, noise.T, order="C")
    return jittered


def _strips(height: np.ndarray, width: np.ndarray, batch_size: int, breadth: float, snake: bool = False) -> np.ndarray:
    """Sort by height into strips, and by width inside each: both sides vary equally little inside a batch.

    A batch that begins in one strip and ends in the next would hold its widest and the next one's narrowest images.
    Strips are whole batches, so none does; where batches are cut elsewhere, ``snake`` turns every second strip.
    """
    n_batches = -(-len(height) // batch_size)
    strip = batch_size * max(1, round(breadth * n_batches**0.5))
    order = _argsort(height)
    width_rank = _as_uint16(width)[order]
    for number, start in enumerate(range(0, len(order), strip)):
        inside = np.argsort(width_rank[start : start + strip], kind="stable")
        order[start : start + strip] = order[start : start + strip][inside[::-1] if snake and number % 2 else inside]
    return order


def _argsort(side: np.ndarray) -> np.ndarray:
    return np.argsort(_as_uint16(side), kind="stable")


def _as_uint16(side: np.ndarray) -> np.ndarray:
    """NumPy sorts 16-bit numbers by radix: faster than floats, and equal ones in the same order on every machine."""
    scaled: np.ndarray = np.round(side * (65535 / side.max(initial=1)))
    return scaled.astype(np.uint16)


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
