"""The stored index: what the headers of a folder's images say, read again only where a file changed (notebook 05).

A file counts as unchanged while its path, size and time of change stay the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from bpsutils.config import atomically
from bpsutils.images import read_header
from bpsutils.scan import IMAGE_SUFFIXES, WORKERS, ScanFailure, attempt, fast_scan, map_files

INDEX_VERSION = b"1"

Report = dict[str, list[str]]  # what is odd about a folder: kind of problem -> where it was met


class IndexRow(NamedTuple):
    """One image in the index; ``path`` is relative to the image folder, with ``/``, so that the folder can move."""

    path: str
    size: int
    mtime_ns: int
    height: int
    width: int
    dtype: str
    channels: int
    simulated: bool


_TYPES = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}
_SCHEMA = pa.schema(
    [(name, _TYPES[kind]) for name, kind in get_type_hints(IndexRow).items()],
    metadata={b"bpsutils_index": INDEX_VERSION},
)


def note(report: Report, kind: str, items: Iterable[str]) -> None:
    """Add to what is odd about a folder.

    Example:
        >>> report: Report = {}
        >>> note(report, "unreadable", ["a.tif: empty"])
        >>> report
        {'unreadable': ['a.tif: empty']}
    """
    report.setdefault(kind, []).extend(items)


def update_index(root: Path, index_path: Path, full: bool, report: Report) -> list[IndexRow]:
    """Bring the stored index up to date with a folder, and return it.

    Args:
        root: Folder of the images, an absolute path.
        index_path: The index; made if missing, left untouched if it is right already.
        full: Read every header, even where the index knows it.
        report: Gets what could not be read, under ``"unreadable"`` and ``"index"``.

    Returns:
        One row an image that can be read, sorted by path.

    Raises:
        FileNotFoundError: If there is no such folder, or no image file in it.
    """
    scan = fast_scan(root)
    if not scan.files and not scan.failures:
        raise FileNotFoundError(
            f"no image files below {root} (looked for {', '.join(IMAGE_SUFFIXES)}); "
            "check Config.image_dir, or fetch images with `python -m bpsutils download`"
        )
    old = None if full else _read_index(index_path, report)
    known = {row[:3]: row for row in old or []}
    start = len(os.path.join(root, ""))  # noqa: PTH118  (plain text: 77,177 Path objects take half a second)
    keys = [(file.path[start:].replace(os.sep, "/"), file.size, file.mtime_ns) for file in scan.files]
    with ThreadPoolExecutor(WORKERS) as pool:
        fresh = map_files(partial(_read_row, root), [key for key in keys if key not in known], pool, "headers")
    known |= {row[:3]: row for row in fresh if isinstance(row, IndexRow)}
    note(report, "unreadable", [_describe(failure) for failure in scan.failures])
    note(report, "unreadable", [row for row in fresh if isinstance(row, str)])
    rows = [known[key] for key in keys if key in known]
    if rows != old:  # an index that is right already is not touched: others may be reading it
        _write_index(rows, index_path)
    return rows


def _read_row(root: Path, key: tuple[str, int, int]) -> IndexRow | str:
    """The row for a file, or why there is none."""
    path = str(root / key[0])
    try:
        key[0].encode()  # Parquet holds UTF-8, and the name is read back from there
        header = attempt(read_header, path)
    except ValueError as error:  # ImageError, or UnicodeEncodeError
        return str(error)
    if isinstance(header, ScanFailure):
        return _describe(header)
    drawn = header.software.startswith("bpsutils")
    return IndexRow(*key, header.height, header.width, str(header.dtype), header.channels, drawn)


def _describe(failure: ScanFailure) -> str:
    return f"{failure.path}: {os.strerror(failure.errno)} (errno {failure.errno})"


def _read_index(path: Path, report: Report) -> list[IndexRow] | None:
    if not path.exists():
        return None
    try:
        with pq.ParquetFile(path) as file:
            stored = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        note(report, "index", [f"{path} is not readable ({error})"])
        return None
    if not stored.schema.equals(_SCHEMA, check_metadata=True):
        note(report, "index", [f"{path} is from another version of bpsutils"])
        return None
    return [IndexRow(*values) for values in zip(*stored.to_pydict().values(), strict=True)]


def _write_index(rows: list[IndexRow], path: Path) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in IndexRow._fields}
    with atomically(path) as temporary:
        pq.write_table(pa.table(columns, schema=_SCHEMA), temporary)
