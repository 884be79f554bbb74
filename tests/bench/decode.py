"""Decoding: from the bytes of a file to its pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from bpsutils.images import read_image

from .data import Data, checksum, first
from .harness import Contender, Table, race

FILES = 2_000


def contenders(data: Data) -> list[Contender]:
    """All of them read warm files, one thread."""
    import tifffile
    from PIL import Image

    def cv2_read(path: str) -> Any:
        import cv2

        return cv2.imread(path, cv2.IMREAD_UNCHANGED)

    def imagecodecs_read(path: str) -> Any:
        import imagecodecs

        return imagecodecs.imread(path)

    return [
        _reader(data, "tifffile", tifffile.imread),
        _reader(data, "PIL", lambda path: np.asarray(Image.open(path))),
        _reader(data, "OpenCV", cv2_read, "cv2"),
        _reader(data, "imagecodecs", imagecodecs_read, "imagecodecs"),
        _reader(data, "ours", read_image, floor=1.5),
    ]


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """One table."""
    few = first(data, min(FILES, len(data)))
    yield race("decode", f"{len(few):,} warm files of Deflate strips, one by one", contenders(few))


def _reader(
    data: Data, name: str, read: Callable[[str], Any], needs: str | None = None, floor: float | None = None
) -> Contender:
    def work(_: None) -> Iterator[Any]:
        return (read(path) for path in data.paths)

    def checks(images: Iterable[np.ndarray]) -> Iterable[Any]:
        return map(checksum, images)

    return Contender(name, work, len(data), checks, needs=needs, floor=floor)
