"""The stored index: what the headers of a folder's images say, read again only where a file changed (notebook 05).

A file counts as unchanged while its path, size and time of change stay the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bpsutils.config import atomically
from bpsutils.headers import read_headers
from bpsutils.images import ImageError, ImageHeader
from bpsutils.scan import IMAGE_SUFFIXES, ScanFailure, list_files, map_files

Report = dict[str, list[str]]  # what is odd about a folder: kind of problem -> where it was met


SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the image folder, with "/", so that the folder can move
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("dtype", pa.string()),
        ("channels", pa.int64()),
        ("simulated", pa.bool_()),
    ],
    metadata={b"bpsutils_index": b"1"},
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


def update_index(root: Path, index_path: Path, full: bool, report: Report) -> pa.Table:
    """Bring the stored index up to date with a folder, and return it.

    Only files that the index knows are asked for their size and time of change, and only the others are opened:
    no file is asked twice.

    Args:
        root: Folder of the images, an absolute path.
        index_path: The index; made if missing, left untouched if it is right already.
        full: Read every header, even where the index knows it.
        report: Gets what could not be read, under ``"unreadable"`` and ``"index"``.

    Returns:
        Table of `SCHEMA`: one row an image that can be read, sorted by path.

    Raises:
        FileNotFoundError: If there is no such folder, or no image file in it.
    """
    paths, failures = list_files(root)
    if not paths and not failures:
        raise FileNotFoundError(
            f"no image files below {root} (looked for {', '.join(IMAGE_SUFFIXES)}); "
            "check Config.image_dir, or fetch images with `python -m bpsutils download`"
        )
    note(report, "unreadable", [_describe(failure) for failure in failures])
    stored = None if full else _read_index(index_path, report)
    old = SCHEMA.empty_table() if stored is None else stored
    paths = [path for path in paths if path.isascii() or _is_text(path, report)]
    rows = _unchanged(paths, _names(paths, root), old)
    fresh = _read_rows(sorted([paths[n] for n in np.flatnonzero(rows < 0)]), root, report)
    table = pa.concat_tables([old.take(pa.array(np.sort(rows[rows >= 0]))), fresh]).sort_by("path")
    if stored is None or not table.equals(stored):  # one that is right already is not touched: others may be reading it
        _write_index(table, index_path)
    return table


def _is_text(path: str, report: Report) -> bool:
    """Whether Parquet, which holds UTF-8, can hold a name."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        # what is no text cannot be printed either
        note(report, "unreadable", [f"{path.encode(errors='backslashreplace').decode()}: rename it ({error.reason})"])
        return False
    return True


def _names(paths: list[str], root: Path) -> pa.Array:
    start = len(os.path.join(root, ""))  # noqa: PTH118  (plain text: 77,177 Path objects take half a second)
    return pa.array([path[start:].replace(os.sep, "/") for path in paths], pa.string())


def _unchanged(paths: list[str], names: pa.Array, old: pa.Table) -> np.ndarray:
    """For each file its row in the old index, -1 where it is new or changed."""
    rows: np.ndarray = pc.index_in(names, old["path"]).fill_null(-1).to_numpy().astype(np.int64)
    known = np.flatnonzero(rows >= 0)
    states = map_files(_state, [paths[n] for n in known])
    changed = np.zeros(len(known), bool)
    for column, name in enumerate(("size", "mtime_ns")):
        changed |= np.array([state[column] for state in states], np.int64) != old[name].to_numpy()[rows[known]]
    rows[known[changed]] = -1
    return rows


def _state(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return -1, -1  # opened like a new one: if it refuses that too, with patience, it is reported
    return status.st_size, status.st_mtime_ns


def _read_rows(paths: list[str], root: Path, report: Report) -> pa.Table:
    found = read_headers(paths, desc="headers")
    for header in found.headers:
        if isinstance(header, ImageError):
            note(report, "unreadable", [str(header)])
        elif isinstance(header, ScanFailure):
            note(report, "unreadable", [_describe(header)])
    right = np.array([isinstance(header, ImageHeader) for header in found.headers], bool)
    headers = [header for header in found.headers if isinstance(header, ImageHeader)]
    columns = [
        _names(paths, root).filter(pa.array(right)),
        found.sizes[right],
        found.mtimes_ns[right],
        [header.height for header in headers],
        [header.width for header in headers],
        [_text(header.dtype) for header in headers],
        [header.channels for header in headers],
        [header.software.startswith("bpsutils") for header in headers],
    ]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


_text = cache(str)  # NumPy builds the name of a type anew each time


def _describe(failure: ScanFailure) -> str:
    return f"{failure.path}: {os.strerror(failure.errno)} (errno {failure.errno})"


def _read_index(path: Path, report: Report) -> pa.Table | None:
    if not path.exists():
        return None
    try:
        with pq.ParquetFile(path) as file:
            stored = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        note(report, "index", [f"{path} is not readable ({error})"])
        return None
    if not stored.schema.equals(SCHEMA, check_metadata=True):
        note(report, "index", [f"{path} is from another version of bpsutils"])
        return None
    return stored


def _write_index(table: pa.Table, path: Path) -> None:
    with atomically(path) as temporary:
        pq.write_table(table, temporary, use_dictionary=False)  # nearly every value is another
