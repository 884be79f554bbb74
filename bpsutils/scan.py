"""Find every image file below a folder, on mounts that are slow and sometimes fail (notebook 05)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import NamedTuple, TypeVar

from tqdm.auto import tqdm

from bpsutils.images import PathLike

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
RETRIES = 3
WORKERS = 8
CHUNK = 256  # quick items are worked on in pieces of this many
SLOW = 0.0005  # seconds; an item that takes longer waits for something, and others can be asked for meanwhile
TRIAL = 2  # items before that is judged: a single one may be late by chance
PERMANENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # a broken link stays broken: no use in trying again

Item = TypeVar("Item")
Result = TypeVar("Result")


class FileEntry(NamedTuple):
    """A file as the scan found it: path, size in bytes, time of its last change in nanoseconds."""

    path: str
    size: int
    mtime_ns: int


class ScanFailure(NamedTuple):
    """A file or folder that could not be read, and the system's error number (`os.strerror` has its text)."""

    path: str
    errno: int


class ScanResult(NamedTuple):
    """What `fast_scan` found, and what it could not read; each sorted by path."""

    files: list[FileEntry]
    failures: list[ScanFailure]


def fast_scan(
    folder: PathLike,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    retries: int = RETRIES,
    workers: int = WORKERS,
) -> ScanResult:
    """List the image files below a folder, with size and time of change.

    A slow mount (Google Drive) answers some requests with an error, and the same request later with success:
    each is repeated up to ``retries`` times, after 0.1, 0.2, 0.4 ... seconds. What still fails is in the result.
    Symbolic links are followed; a folder that several of them lead to is listed once, so loops end.
    Hidden files and folders are left out: macOS writes a ``._name.tif`` beside each file that it copies to
    another disk, and these are no images.

    Args:
        folder: Searched with everything below it.
        suffixes: Endings of the file names to list; upper and lower case count the same.
        retries: Further attempts after a first that failed.
        workers: Threads. They help where each request waits for a network.

    Returns:
        Absolute paths, with symbolic links left as they are.

    Raises:
        FileNotFoundError: If there is no such folder.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.TIF", "notes.txt"):
        ...         _ = Path(folder, name).write_bytes(b"12345")
        ...     [(Path(file.path).name, file.size) for file in fast_scan(folder).files]
        [('a.TIF', 5), ('b.png', 5)]
    """
    paths, failures = list_files(folder, suffixes, retries, workers)
    found = map_files(lambda path: attempt(_entry, path, retries), sorted(paths), workers)
    failures += [entry for entry in found if isinstance(entry, ScanFailure)]
    return ScanResult([entry for entry in found if isinstance(entry, FileEntry)], sorted(failures))


def list_files(
    folder: PathLike,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    retries: int = RETRIES,
    workers: int = WORKERS,
) -> tuple[list[str], list[ScanFailure]]:
    """`fast_scan` without asking for the sizes and times of the files: one request a folder, none a file.

    Returns:
        The paths of the files, in no order, and the folders that could not be read, sorted.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = os.path.abspath(folder)  # noqa: PTH100  (Path.absolute keeps "..", and every path below would too)
    paths, failures = _walk(root, tuple(suffix.lower() for suffix in suffixes), retries, workers)
    if any(failure == (root, code) for failure in failures for code in PERMANENT):
        raise FileNotFoundError(f"no folder {root}; check Config.image_dir")
    return paths, sorted(failures)


def _entry(path: str) -> FileEntry:
    status = os.stat(path)  # noqa: PTH116  (a Path object for each of 77,177 files takes longer than the call)
    return FileEntry(path, status.st_size, status.st_mtime_ns)


def attempt(function: Callable[[str], Result], path: str, retries: int = RETRIES) -> Result | ScanFailure:
    """Call ``function(path)``; where the system reports an error, wait and try again, up to ``retries`` times.

    Example:
        >>> attempt(os.listdir, "no such folder").errno == errno.ENOENT
        True
    """
    for tried in range(retries + 1):
        try:
            return function(path)
        except OSError as error:
            failure = ScanFailure(path, error.errno or errno.EIO)
            if failure.errno in PERMANENT:
                break
            if tried < retries:
                time.sleep(0.1 * 2**tried)
    return failure


def map_files(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int = WORKERS, desc: str = ""
) -> list[Result]:
    """``[function(item) for item in items]``, in order, by threads where items are slow; ``desc`` shows a bar if long.

    Threads help while each waits for a network. On a local disk they only wait for each other: so the work begins
    without, and they join it once an item takes longer than half a millisecond.

    Example:
        >>> map_files(len, ["a.tif", "bc.tif"], workers=2)
        [5, 6]
    """
    results: dict[int, list[Result]] = {}
    begun, size, lock = 0, 1, Lock()

    def step(size: int) -> float:
        """Work on the next piece; returns seconds an item."""
        nonlocal begun
        with lock:
            start, begun = begun, begun + size
        since = time.perf_counter()
        results[start] = [function(item) for item in items[start : start + size]]
        return (time.perf_counter() - since) / size

    def help_out() -> None:
        while begun < len(items):
            step(1)  # one by one, so that all are done at the same time

    helpers: list[Future[None]] = []
    hidden = not desc or len(items) < 10 * CHUNK
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(items), desc=desc, unit="file", disable=hidden) as bar:
        try:
            while begun < len(items):
                slow = step(size) > SLOW
                size = 1 if slow else min(2 * size, CHUNK)
                if slow and not helpers and begun >= TRIAL:
                    helpers = [pool.submit(help_out) for _ in range(workers - 1)]
                bar.update(min(begun, len(items)) - bar.n)
        finally:
            begun = len(items)  # after an error or Ctrl-C the others finish their item and stop
        for helper in helpers:
            helper.result()  # raises what the function raised
    return [result for start in sorted(results) for result in results[start]]


def _walk(root: str, suffixes: tuple[str, ...], retries: int, workers: int) -> tuple[list[str], list[ScanFailure]]:
    """Level by level, real folders before links and both in order: threads must not decide what is found."""
    paths: list[str] = []
    failures: list[ScanFailure] = []
    seen: set[tuple[int, int]] = set()
    level, links = [root], list[str]()
    while level or links:
        level, links = (level, links) if level else (links[:1], links[1:])
        following: list[str] = []
        for listing in map_files(lambda path: attempt(partial(_list_folder, suffixes), path, retries), level, workers):
            if isinstance(listing, ScanFailure):
                failures.append(listing)
            elif listing.identity not in seen:
                seen.add(listing.identity)
                paths += listing.files
                following += listing.folders
                links += listing.links
        level, links = sorted(following), sorted(links)
    return paths, failures


class _Listing(NamedTuple):
    identity: tuple[int, int]  # device and inode: the same for each path that leads to a folder
    files: list[str]
    folders: list[str]
    links: list[str]


def _list_folder(suffixes: tuple[str, ...], path: str) -> _Listing:
    status = os.stat(path)  # noqa: PTH116
    listing = _Listing((status.st_dev, status.st_ino), [], [], [])
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if _is_folder(entry):
                (listing.links if entry.is_symlink() else listing.folders).append(entry.path)
            elif name.endswith(suffixes) or name.lower().endswith(suffixes):
                listing.files.append(entry.path)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False  # a link to itself; if it is named like an image, reading it is reported
        raise
