"""Read the headers of many files: each opened once, and all tag directories parsed at once (notebooks 05 and 12).

One file costs two requests after its opening, the first 8 bytes and the directory of tags, and then a dozen numbers
to look up. In Python that takes longer than the reading; for thousands of files in columns of NumPy it takes no time.
The columns know only what is certain: a file with anything unusual goes to `read_header`, which says what is wrong.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import FileIO
from typing import Any

import numpy as np

from bpsutils.images import ImageError, ImageHeader, header_of
from bpsutils.scan import RETRIES, WORKERS, ScanFailure, attempt, map_files
from bpsutils.tiff import MAX_PIXELS, can_decompress, sample_dtype

_TAIL = 384  # bytes read from the directory on; a file of the data set has about 220 there
_ENTRIES = 16  # tags at most
_FORMS = 64  # kinds of directory; files of one program have a few
_BLOCK = 1 << 16  # files parsed at once: 24 MB
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # Windows would translate line ends

# Of one file: size, time of change, place of the directory, and what stands there, or already its meaning.
# A plain tuple of plain values: the garbage collector would look through hundreds of thousands of other objects.
_Peek = tuple[int, int, int, bytes | ImageHeader | ImageError]


@dataclass(frozen=True)
class Headers:
    """What one opening of each file tells; the three go in the order of the paths.

    Attributes:
        headers: The header, or the error that `read_header` raises, or the system's refusal.
        sizes: Bytes of each file, int64, shape ``(N,)``; -1 where the system refused.
        mtimes_ns: Time of the last change in nanoseconds, likewise.
    """

    headers: list[ImageHeader | ImageError | ScanFailure]
    sizes: np.ndarray
    mtimes_ns: np.ndarray


def read_headers(paths: Sequence[str], workers: int = WORKERS, retries: int = RETRIES, desc: str = "") -> Headers:
    """`read_header` of many files, each opened once.

    Args:
        paths: TIFF and PNG files.
        workers: Threads. They help where opening a file waits for a network.
        retries: Further attempts, with growing pauses, where the system reports an error.
        desc: Shown beside a bar of progress where the files are many.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bpsutils.images import write_image
        >>> with TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/dark.tif", np.zeros((79, 114), np.uint16))
        ...     read_headers([f"{folder}/dark.tif"]).headers[0].shape
        (79, 114)
    """
    peeks = map_files(partial(attempt, _look, retries=retries), paths, workers, desc)
    # An empty row first, so that there are columns also where there is no file.
    rows = [(0, 0, 0, b""), *((-1, -1, -1, peek) if isinstance(peek, ScanFailure) else peek for peek in peeks)]
    *numbers, contents = zip(*rows, strict=True)
    sizes, mtimes_ns, places = (np.array(column[1:], np.int64) for column in numbers)
    found: list[Any] = list(contents[1:])
    tails = [row for row, content in enumerate(found) if isinstance(content, bytes)]
    for block in (tails[start : start + _BLOCK] for start in range(0, len(tails), _BLOCK)):
        for row, header in zip(block, _parse([found[row] for row in block], places[block], sizes[block]), strict=True):
            found[row] = header
    unsure = [row for row in tails if found[row] is None]
    again = map_files(partial(attempt, _look_closely, retries=retries), [paths[row] for row in unsure], workers)
    for row, content in zip(unsure, again, strict=True):
        found[row] = content
    return Headers(found, sizes, mtimes_ns)


def _look(path: str) -> _Peek:
    # Not `open`: its file object would cost as much as the rest of this function.
    descriptor = os.open(path, _READ_ONLY)
    try:
        status = os.fstat(descriptor)
        start = os.read(descriptor, 8)
        if start[:4] != b"II*\0" or len(start) < 8:
            return status.st_size, status.st_mtime_ns, 0, _header_or_error(descriptor, path)
        place = int.from_bytes(start[4:], "little")
        return status.st_size, status.st_mtime_ns, place, _read_at(descriptor, _TAIL, place)
    finally:
        os.close(descriptor)


def _seek_and_read(descriptor: int, length: int, place: int) -> bytes:
    os.lseek(descriptor, place, os.SEEK_SET)
    return os.read(descriptor, length)


_read_at = getattr(os, "pread", _seek_and_read)  # one request instead of two; Windows does not know it


def _look_closely(path: str) -> ImageHeader | ImageError:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return _header_or_error(file.fileno(), path)


def _header_or_error(descriptor: int, path: str) -> ImageHeader | ImageError:
    try:
        with FileIO(descriptor, closefd=False) as file:
            return header_of(file, path)
    except ImageError as error:
        return error.with_traceback(None)  # which would keep the file's bytes


# -------------------------------------------------------------------------------------------------------- columns


def _parse(tails: list[bytes], places: np.ndarray, sizes: np.ndarray) -> list[ImageHeader | None]:
    """Headers of many TIFF files; None where the columns are not certain."""
    headers: list[ImageHeader | None] = [None] * len(tails)
    table = np.frombuffer(b"".join([tail.ljust(_TAIL, b"\0") for tail in tails]), np.uint8).reshape(-1, _TAIL)
    lengths = np.array([len(tail) for tail in tails])
    forms = _forms(table, lengths)
    for form in sorted(forms, key=lambda form: -len(forms[form]))[:_FORMS]:
        rows = forms[form]
        directories = _Directories(form, table[rows], lengths[rows], places[rows], sizes[rows])
        for row, header in zip(rows, directories.headers(), strict=True):
            headers[row] = header
    return headers


def _forms(tails: np.ndarray, lengths: np.ndarray) -> dict[bytes, list[int]]:
    """Rows of the same form: the same tags, each of the same type and number of values."""
    number = tails[:, :2].copy().view("<u2")[:, 0].astype(np.int64)
    forms = tails[:, 2 : 2 + 12 * _ENTRIES].reshape(-1, _ENTRIES, 12)[:, :, :8].copy()
    forms[np.arange(_ENTRIES) >= number[:, None]] = 0
    whole = (number <= _ENTRIES) & (2 + 12 * number <= lengths)
    keys = forms.reshape(len(forms), -1).view(f"S{8 * _ENTRIES}")[:, 0].tolist()
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row in np.flatnonzero(whole).tolist():
        rows[keys[row]].append(row)
    return rows


class _Directories:
    """What `tiff.Tags` is to one directory, for many of one form: each value is a column, of shape ``(M, count)``."""

    def __init__(
        self, form: bytes, tails: np.ndarray, lengths: np.ndarray, places: np.ndarray, sizes: np.ndarray
    ) -> None:
        self.tails, self.lengths, self.places, self.sizes = tails, lengths, places, sizes
        table = np.frombuffer(form.ljust(8 * _ENTRIES, b"\0"), [("code", "<u2"), ("kind", "<u2"), ("count", "<u4")])
        self.entries = {code: (n, kind, count) for n, (code, kind, count) in enumerate(table.tolist())}
        self.sure = np.ones(len(tails), bool)  # rows that are certain so far

    def numbers(self, code: int, default: int | np.ndarray | None = None) -> np.ndarray:
        if code not in self.entries and default is not None:
            return np.broadcast_to(default, len(self.tails))[:, None]
        entry, kind, count = self.entries.get(code, (0, 0, 0))
        width = {1: 1, 3: 2, 4: 4}.get(kind, 0)  # bytes a value
        if not 0 < width * count <= _TAIL:
            self.sure[:] = False
            return np.ones((len(self.tails), 1), np.int64)
        return self._raw(entry, width * count).view(f"<u{width}").astype(np.int64)

    def texts(self, code: int) -> list[bytes]:
        entry, kind, count = self.entries.get(code, (0, 0, 0))
        if kind != 2 or count == 0:
            return [b""] * len(self.tails)
        self.sure &= count <= _TAIL
        raw = self._raw(entry, min(count, _TAIL))
        texts: list[bytes] = raw.view(f"S{raw.shape[1]}")[:, 0].tolist()
        return texts

    def _raw(self, entry: int, length: int) -> np.ndarray:
        value = 2 + 12 * entry + 8
        if length <= 4:
            return self.tails[:, value : value + length].copy()
        start = self.tails[:, value : value + 4].copy().view("<u4")[:, 0] - self.places
        inside = (start >= 0) & (start + length <= self.lengths)
        self.sure &= inside
        if inside.all() and (start == start[0]).all():  # one program puts it at one distance: no need to gather
            return self.tails[:, start[0] : start[0] + length].copy()
        return self.tails[np.arange(len(start))[:, None], np.where(inside, start, 0)[:, None] + np.arange(length)]

    def headers(self) -> list[ImageHeader | None]:
        height, width, channels = (
            self.numbers(code, default)[:, 0] for code, default in ((257, None), (256, None), (277, 1))
        )
        bits, formats = self.numbers(258, 1), self.numbers(339, 1)
        for samples in (bits, formats):
            self.sure &= (samples == samples[:, :1]).all(axis=1)
        self.sure &= (width <= MAX_PIXELS) & (height <= MAX_PIXELS)  # so that their product fits into 64 bits
        self.sure &= (height * width > 0) & (height * width <= MAX_PIXELS) & (channels >= 1)
        self.sure &= self.numbers(262, 1)[:, 0] != 3
        compression = self.numbers(259, 1)[:, 0]
        self.sure &= np.isin(compression, [code for code in np.unique(compression).tolist() if can_decompress(code)])
        self._check_segments(height, width, channels)
        facts = (column.tolist() for column in (height, width, bits[:, 0], formats[:, 0], channels))
        rows = zip(*facts, self.texts(305), strict=True)
        return [_header(*row) if sure else None for row, sure in zip(rows, self.sure.tolist(), strict=True)]

    def _check_segments(self, height: np.ndarray, width: np.ndarray, channels: np.ndarray) -> None:
        tiled = 322 in self.entries
        across = self.numbers(322)[:, 0] if tiled else width
        down = self.numbers(323)[:, 0] if tiled else self.numbers(278, height)[:, 0]
        self.sure &= (across >= 1) & (down >= 1)
        planes = np.where(self.numbers(284, 1)[:, 0] == 2, channels, 1)
        expected = planes * -(-height // np.maximum(down, 1)) * -(-width // np.maximum(across, 1))
        offsets, lengths = (self.numbers(code) for code in ((324, 325) if tiled else (273, 279)))
        if offsets.shape != lengths.shape:
            self.sure[:] = False
            return
        self.sure &= (expected == offsets.shape[1]) & (lengths.min(axis=1) >= 1)
        self.sure &= (offsets + lengths).max(axis=1) <= self.sizes


@lru_cache(maxsize=1 << 16)
def _header(height: int, width: int, bits: int, kind: int, channels: int, software: bytes) -> ImageHeader | None:
    dtype = sample_dtype(bits, kind)
    if dtype is None:
        return None
    return ImageHeader(height, width, dtype, channels, software.split(b"\0")[0].decode("utf-8", "replace"))
