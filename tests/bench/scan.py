"""Scanning: the size of every image below a folder, from its header."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from glob import glob
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bpsutils.headers import read_headers
from bpsutils.images import ImageHeader
from bpsutils.index import update_index
from bpsutils.scan import list_files

from .data import Data
from .harness import ROUNDS, Contender, Table, Versus, paired_ratios, race, summary, time_in_turn

CHANGED = 0.01  # of the files, before each rescan
DELAY = 0.005  # s added to each opening of a file, as on a network mount
SLOW_FILES, THREADS = 600, 32

Sized = tuple[str, int, int]  # file name, height, width
BASELINE, OURS, RESCAN = "glob + PIL", "ours, all files", f"ours, {CHANGED:.0%} changed (with its index)"
LIST_STAT, LIST_READ = "only list and stat", "only list, open and read 4 kB"


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """One table on a local disk, one with each opening delayed."""
    versus = [
        Versus(f"{OURS}, against: {LIST_READ}", OURS, LIST_READ, 0.5),
        # Reading and writing an index takes a while even for a few files.
        Versus(f"{RESCAN}, against: {LIST_STAT}", RESCAN, LIST_STAT, None if quick else 0.6),
    ]
    yield race("scan", f"sizes of {len(data):,} images in one folder, their files warm", contenders(data), versus)
    paths = data.paths[:SLOW_FILES]
    # A process of its own, for an audit hook cannot be taken off again.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ratios = pool.submit(_slow_opening, paths, str(data.images)).result()
    rows = [summary("ours, 1 thread", [1.0]), summary(f"ours, {THREADS} threads", ratios, 20)]
    yield Table("slow scan", f"headers of {len(paths)} files, {1000 * DELAY:g} ms added to each opening", rows)


def contenders(data: Data) -> list[Contender]:
    """From a folder to names, heights and widths; and two that do less."""
    fresh, kept = data.scratch / "fresh.parquet", data.scratch / "kept.parquet"
    rng = np.random.default_rng(0)

    def index(path: Path) -> pa.Table:
        return update_index(data.images, path, False, {})

    def change(_: Path) -> None:
        for position in rng.permutation(len(data))[: max(1, round(CHANGED * len(data)))]:
            os.utime(data.paths[position])

    def prepare() -> Path:
        index(kept)
        return kept

    def forget(path: Path) -> None:
        path.unlink(missing_ok=True)

    return [
        _scanner(data, BASELINE, _by_pil),
        _scanner(data, "glob + tifffile", _by_tifffile),
        _scanner(data, "glob + imagesize", _by_imagesize, needs="imagesize"),
        _scanner(data, OURS, _ours, floor=8),
        Contender(f"{OURS}, index written", index, len(data), _rows, lambda: fresh, forget),
        Contender(RESCAN, index, len(data), _rows, prepare, change),
        Contender(LIST_STAT, _list_stat, len(data), prepare=lambda: data.images),
        Contender(LIST_READ, _list_read, len(data), prepare=lambda: data.images),
    ]


def _scanner(
    data: Data,
    name: str,
    work: Callable[[Path], list[Sized]],
    needs: str | None = None,
    floor: float | None = None,
) -> Contender:
    return Contender(name, work, len(data), _as_they_are, lambda: data.images, needs=needs, floor=floor)


def _as_they_are(sizes: list[Sized]) -> Iterable[Sized]:
    return ((os.path.basename(path), height, width) for path, height, width in sizes)  # noqa: PTH119


def _rows(table: pa.Table) -> Iterable[Sized]:
    return zip(*(table[name].to_pylist() for name in ("path", "height", "width")), strict=True)


def _by_pil(folder: Path) -> list[Sized]:
    from PIL import Image

    sizes = []
    for path in glob(f"{folder}/*.tif"):  # noqa: PTH207  (Path.glob is slower)
        with Image.open(path) as image:
            sizes.append((path, image.height, image.width))
    return sizes


def _by_tifffile(folder: Path) -> list[Sized]:
    import tifffile

    sizes = []
    for path in glob(f"{folder}/*.tif"):  # noqa: PTH207
        with tifffile.TiffFile(path) as tiff:
            sizes.append((path, *tiff.pages.first.shape))
    return sizes


def _by_imagesize(folder: Path) -> list[Sized]:
    import imagesize

    return [(path, *imagesize.get(path)[::-1]) for path in glob(f"{folder}/*.tif")]  # noqa: PTH207


def _ours(folder: Path) -> list[Sized]:
    paths, _ = list_files(folder)
    found = zip(paths, read_headers(paths).headers, strict=True)
    return [(path, header.height, header.width) for path, header in found if isinstance(header, ImageHeader)]


def _list_stat(folder: Path) -> list[Any]:
    with os.scandir(folder) as entries:
        return [(entry.path, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries]


def _list_read(folder: Path) -> list[bytes]:
    with os.scandir(folder) as entries:
        return [_first_bytes(entry.path) for entry in entries]


def _first_bytes(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def _slow_opening(paths: list[str], folder: str) -> list[float]:
    """How many times faster many threads are than one, round by round, where each opening of a file waits."""

    def delay(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(folder):
            time.sleep(DELAY)

    sys.addaudithook(delay)
    both = [
        Contender(str(workers), lambda workers: read_headers(paths, workers), len(paths), prepare=lambda n=workers: n)
        for workers in (1, THREADS)
    ]
    seconds = time_in_turn(both, {one.name: one.prepare() for one in both}, ROUNDS)
    return paired_ratios(both, seconds, str(THREADS), "1")
