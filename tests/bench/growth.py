"""Growth: whether an item costs as much among 100,000 as among 10,000."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bpsutils.bucketing import BucketSampler
from bpsutils.images import read_image, write_image
from bpsutils.index import update_index
from bpsutils.packed import PackedImages

from .data import Data
from .harness import ROUNDS, Contender, Row, Table, paired_ratios, summary, time_in_turn

BATCH, SOURCES = 64, 200
REFERENCE = 10_000
COUNTS, MORE_SIZES = (1_000, 10_000, 100_000), (1_000_000, 10_000_000)
FLAT, LOGARITHMIC = 1 / 1.2, 1 / 4  # of the speed at 10,000: within 20 %, and within 4 times

Job = Callable[[Data, int], Contender]


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """One table; a ratio is the speed by item among so many, in units of the speed among 10,000."""
    counts = COUNTS[:2] if quick else COUNTS
    sources = _sources(data)
    for count in counts:
        _link(sources, _folder(data) / str(count), count)
    jobs: list[tuple[str, Job, tuple[int, ...], float]] = [
        ("scan", _scan, counts, FLAT),
        ("pack", _pack, counts, FLAT),
        ("packed epoch", _epoch, counts, FLAT),
        ("sampler", _sampler, counts if quick else counts + MORE_SIZES, LOGARITHMIC),
    ]
    rows = [row for name, job, numbers, floor in jobs for row in _rows(name, job, numbers, floor, data)]
    notes = [
        f"scan and pack: hard links to {SOURCES} crops of 24 to 40 px, so that no disk outgrows a cache",
        f"packed epoch: a table that names {len(data):,} packed images again and again",
    ]
    yield Table("growth", f"speed by item, in units of that among {REFERENCE:,}", rows, notes)


def _rows(name: str, job: Job, counts: tuple[int, ...], floor: float, data: Data) -> list[Row]:
    contenders = [job(data, count) for count in counts]
    states = {one.name: one.prepare() for one in contenders}
    time_in_turn(contenders, states, 1)  # warm
    seconds = time_in_turn(contenders, states, ROUNDS)
    rows = []
    for one, count in zip(contenders, counts, strict=True):
        ratios = paired_ratios(contenders, seconds, one.name, str(REFERENCE))
        cost = f"{1e6 * np.median(seconds[one.name]) / count:.3g}"
        rows.append(summary(f"{name}, {count:,}", ratios, floor if count > REFERENCE else None, {"µs by item": cost}))
    return rows


def _scan(data: Data, count: int) -> Contender:
    images, index = _folder(data) / str(count), _folder(data) / f"{count}.parquet"

    def work(_: None) -> Any:
        return update_index(images, index, True, {})

    return Contender(str(count), work, count, before=lambda _: index.unlink(missing_ok=True))


def _pack(data: Data, count: int) -> Contender:
    store = _folder(data) / f"packed-{count}"

    def prepare() -> pd.DataFrame:
        return _table(sorted(str(path) for path in (_folder(data) / str(count)).iterdir()))

    def work(table: pd.DataFrame) -> Any:
        return PackedImages.build(table, store)

    return Contender(
        str(count), work, count, prepare=prepare, before=lambda _: shutil.rmtree(store, ignore_errors=True)
    )


def _epoch(data: Data, count: int) -> Contender:
    def prepare() -> tuple[PackedImages, BucketSampler]:
        paths = [data.paths[number % len(data)] for number in range(count)]
        packed = PackedImages.build(_table(paths), data.scratch / "images.pack")
        return packed, BucketSampler(packed.sizes, BATCH)

    def work(state: tuple[PackedImages, BucketSampler]) -> Iterator[Any]:
        packed, sampler = state
        return (packed.__getitems__(batch) for batch in sampler)

    return Contender(str(count), work, count, prepare=prepare)


def _sampler(_: Data, count: int) -> Contender:
    rng = np.random.default_rng(0)
    sizes = np.stack([rng.integers(79, 171, count), rng.integers(114, 183, count)], axis=1)
    return Contender(str(count), lambda sampler: iter(sampler), count, prepare=lambda: BucketSampler(sizes, BATCH))


def _table(paths: list[str]) -> pd.DataFrame:
    """A file a row, of two kinds."""
    return pd.DataFrame({"path": paths, "particle_type": np.where(np.arange(len(paths)) % 2, "Fe", "X-ray")})


def _folder(data: Data) -> Path:
    return data.scratch / "growth"


def _sources(data: Data) -> list[Path]:
    """Small crops of various sizes: what grows is the number of files, not of pixels."""
    folder = _folder(data) / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(data.paths[:SOURCES]):
        height, width = 24 + number % 17, 24 + number // 17
        write_image(folder / f"{number}.tif", read_image(path)[:height, :width])
    return sorted(folder.iterdir())


def _link(sources: list[Path], folder: Path, count: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(count):
        os.link(sources[number % len(sources)], folder / f"{number:06}.tif")
