"""Padding: how many pixels no image fills, and how many batch-mates meet again in the next epoch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bpsutils.bucketing import BucketSampler, make_boundaries_for_batches, mates_met_again, padding_waste

from .data import Data, simulated_sizes
from .harness import ROUNDS, Contender, Row, Table, summary, time_in_turn

BATCH, POOL = 64, 50
SIZES = 20_000  # also for --quick: fewer cannot be batched so tightly, and no files are needed
JITTERS = (0, 0.01, 0.02, 0.03, 0.05, 0.1)
DEFAULT = 0.03
MANY = 1_000_000
WIDTH_BINS = "width bins"

Batches = list[list[int]]
Scheme = Callable[[np.ndarray, int, int], Batches]  # (sizes, seed, epoch) -> batches


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """One table; each ratio is width bins' padding to this way's, over seeds."""
    sizes, schemes = simulated_sizes(SIZES), _schemes()
    padding = {
        name: [_padding(sizes, scheme(sizes, seed, 0)) for seed in range(ROUNDS)] for name, scheme in schemes.items()
    }
    rows, seconds = [], _seconds(schemes)
    for name, scheme in schemes.items():
        met = mates_met_again(scheme(sizes, 0, 0), scheme(sizes, 0, 1))
        more = _columns(
            statistics.median(padding[name]), f"{met:.3f}", f"{1000 * statistics.median(seconds[name]):.0f}"
        )
        ratios = [theirs / ours for theirs, ours in zip(padding[WIDTH_BINS], padding[name], strict=True)]
        rows.append(summary(name, ratios, 3 if name == _ours(DEFAULT) else None, more))
    bound = lower_bound(sizes, BATCH)
    ratio = statistics.median(padding[WIDTH_BINS]) / bound
    rows.append(Row("lower bound", ratio, ratio, ratio, None, _columns(bound, "", "")))
    notes = [
        "padding is padded / real - 1; ratios are width bins' padding to each row's, over seeds instead of rounds",
        "met again: of the pairs of images that share a batch, the share that does so in the next epoch, too",
        "lower bound: frames no larger than the largest area in their batch, in as few batches as possible",
    ]
    yield Table("padding", f"{len(sizes):,} sizes in batches of {BATCH}", rows, notes)


def lower_bound(sizes: np.ndarray, batch_size: int) -> float:
    """Least padded / real - 1 of any way to cut ``sizes`` into ``ceil(N / batch_size)`` batches.

    A frame has at least the largest area in its batch. If it had just that, sorting by area and cutting full
    batches would be best; the one batch that is not full may stand anywhere in that order, so all places are tried.
    """
    areas = np.sort(sizes.prod(axis=1).astype(np.float64))[::-1]
    batches, rest = divmod(len(areas), batch_size)
    full = np.arange(batches) * batch_size
    totals = []
    for place in range(batches + 1):  # full batches before the rest
        starts = np.where(np.arange(batches) < place, full, full + rest)
        totals.append(batch_size * areas[starts].sum() + (rest * areas[place * batch_size] if rest else 0))
    return float(min(totals) / areas.sum() - 1)


def _schemes() -> dict[str, Scheme]:
    return {
        WIDTH_BINS: _width_bins,
        "random": _random,
        "area": _sampler("area", 0),
        f"pools of {POOL} batches, by area": _pools,
        **{_ours(jitter): _sampler("2d", jitter) for jitter in JITTERS},
    }


def _ours(jitter: float) -> str:
    return f"ours, jitter {jitter:g}" + (" (default)" if jitter == DEFAULT else "")


def _sampler(method: str, jitter: float) -> Scheme:
    def batches(sizes: np.ndarray, seed: int, epoch: int) -> Batches:
        sampler = BucketSampler(sizes, BATCH, seed=seed, method=method, jitter=jitter)
        sampler.set_epoch(epoch)
        return list(sampler)

    return batches


def _random(sizes: np.ndarray, seed: int, epoch: int) -> Batches:
    return _cut(np.random.default_rng([seed, epoch]).permutation(len(sizes)))


def _pools(sizes: np.ndarray, seed: int, epoch: int) -> Batches:
    order, areas = np.random.default_rng([seed, epoch]).permutation(len(sizes)), sizes.prod(axis=1)
    pools = [order[start : start + POOL * BATCH] for start in range(0, len(order), POOL * BATCH)]
    return _cut(np.concatenate([pool[np.argsort(areas[pool], kind="stable")] for pool in pools]))


def _width_bins(sizes: np.ndarray, seed: int, epoch: int) -> Batches:
    """Bins of equal count by width alone, shuffled inside, each cut into batches."""
    order = np.random.default_rng([seed, epoch]).permutation(len(sizes))
    bins = np.searchsorted(make_boundaries_for_batches(sizes, BATCH), sizes[order, 1])
    order = order[np.argsort(bins, kind="stable")]
    return [batch for part in np.split(order, np.cumsum(np.bincount(bins))[:-1]) for batch in _cut(part)]


def _cut(order: np.ndarray) -> Batches:
    return [order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH)]


def _padding(sizes: np.ndarray, batches: Sequence[list[int]]) -> float:
    waste = padding_waste(sizes, batches)
    return waste / (1 - waste)


def _seconds(schemes: dict[str, Scheme]) -> dict[str, list[float]]:
    """Of each way to make one epoch's batches from a million sizes, in three rounds."""
    rng = np.random.default_rng(0)
    many = np.stack([rng.integers(79, 171, MANY), rng.integers(114, 183, MANY)], axis=1)
    contenders = [Contender(name, lambda scheme: scheme(many, 0, 0), MANY) for name in schemes]
    return time_in_turn(contenders, schemes, 3)


def _columns(padding: float, met: str, milliseconds: str) -> dict[str, str]:
    return {"padding": f"{padding:.1%}", "met again": met, f"ms for {MANY:,} sizes": milliseconds}
