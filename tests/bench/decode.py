"""Decoding: from a file to its pixels, with the standard library's zlib and with imagecodecs.

Where imagecodecs is installed, tifffile and this package use it. So that one run shows both, each contender says
before it works which one is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import tifffile
from tifffile import _imagecodecs as standard

from bpsutils import tiff
from bpsutils.images import read_image

from .data import Data, checksum, first
from .harness import Contender, Table, race

FILES = 2_000
DEFLATE = 32946  # how the data set's files call it
FAST = "imagecodecs"

Read = Callable[[str], Any]


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """One table."""
    few = first(data, min(FILES, len(data)))
    inflater = tiff._inflater
    try:
        yield race("decode", f"{len(few):,} files of Deflate strips, warm, one by one", contenders(few))
    finally:
        tiff._inflater = inflater
        tifffile.TIFF.DECOMPRESSORS._codecs.pop(DEFLATE, None)  # tifffile then chooses again


def contenders(data: Data) -> list[Contender]:
    """All read files, not bytes in memory; one thread."""
    return [
        _reader(data, "tifffile", lambda: tifffile.imread),
        _reader(data, "PIL", _pil),
        _reader(data, "OpenCV", _opencv, needs="cv2"),
        _reader(data, "ours", lambda: read_image, floor=1.5),
        _reader(data, f"tifffile with {FAST}", lambda: tifffile.imread, _inflate_fast, FAST),
        _reader(data, FAST, lambda: import_module(FAST).imread, needs=FAST),
        _reader(data, f"ours with {FAST}", lambda: read_image, _inflate_fast, FAST),
    ]


def _reader(
    data: Data,
    name: str,
    make: Callable[[], Read],
    before: Callable[[Read], None] | None = None,
    needs: str | None = None,
    floor: float | None = None,
) -> Contender:
    def work(read: Read) -> Iterator[Any]:
        return (read(path) for path in data.paths)

    def checks(images: Iterable[np.ndarray]) -> Iterable[Any]:
        return map(checksum, images)

    return Contender(name, work, len(data), checks, make, before or _inflate_standard, needs, floor)


def _inflate_standard(_: Read) -> None:
    tifffile.TIFF.DECOMPRESSORS._codecs[DEFLATE] = standard.zlib_decode
    tiff._inflater = lambda: tiff._inflate


def _inflate_fast(_: Read) -> None:
    decode = import_module(FAST).deflate_decode
    tifffile.TIFF.DECOMPRESSORS._codecs[DEFLATE] = decode
    tiff._inflater = lambda: lambda data, most: decode(data, out=most)


def _pil() -> Read:
    image = import_module("PIL.Image")
    return lambda path: np.asarray(image.open(path))


def _opencv() -> Read:
    cv2 = import_module("cv2")
    return lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED)
