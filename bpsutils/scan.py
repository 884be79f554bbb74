"""Find every image file below a folder, on mounts that are slow and sometimes fail (notebook 05)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from tqdm.auto import tqdm

from bpsutils.images import PathLike

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
RETRIES = 3
WORKERS = 8
CHUNK = 256  # files handed to a thread at once: one by one, the handing over would cost more than the work
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
    root = os.path.abspath(folder)  # noqa: PTH100  (Path.absolute keeps "..", and every path below would too)
    endings = tuple(suffix.lower() for suffix in suffixes)
    with ThreadPoolExecutor(workers) as pool:
        paths, failures = _walk(root, endings, retries, pool)
        found = map_files(lambda path: attempt(_stat, path, retries), paths, pool)
    if any(failure == (root, code) for failure in failures for code in PERMANENT):
        raise FileNotFoundError(f"no folder {root}; check Config.image_dir")
    failures += [entry for entry in found if isinstance(entry, ScanFailure)]
    return ScanResult(sorted(entry for entry in found if isinstance(entry, FileEntry)), sorted(failures))


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
    function: Callable[[Item], Result], items: Sequence[Item], pool: ThreadPoolExecutor, desc: str = ""
) -> list[Result]:
    """``[function(item) for item in items]``, by threads, in order; with ``desc``, long lists show a bar.

    Example:
        >>> with ThreadPoolExecutor(2) as pool:
        ...     map_files(len, ["a.tif", "bc.tif"], pool)
        [5, 6]
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    done = pool.map(lambda chunk: [function(item) for item in chunk], chunks)
    with tqdm(total=len(items), desc=desc, unit="file", disable=not desc or len(chunks) < 10) as bar:
        results: list[Result] = []
        for chunk in done:
            results += chunk
            bar.update(len(chunk))
    return results


def _walk(
    root: str, suffixes: tuple[str, ...], retries: int, pool: ThreadPoolExecutor
) -> tuple[list[str], list[ScanFailure]]:
    """Level by level, real folders before links and both in order: threads must not decide what is found."""
    paths: list[str] = []
    failures: list[ScanFailure] = []
    seen: set[tuple[int, int]] = set()
    level, links = [root], list[str]()
    while level or links:
        level, links = (level, links) if level else (links[:1], links[1:])
        following: list[str] = []
        for listing in pool.map(lambda path: attempt(_list_folder, path, retries), level):
            if isinstance(listing, ScanFailure):
                failures.append(listing)
            elif listing.identity not in seen:
                seen.add(listing.identity)
                paths += [path for path in listing.files if path.lower().endswith(suffixes)]
                following += listing.folders
                links += listing.links
        level, links = sorted(following), sorted(links)
    return paths, failures


class _Listing(NamedTuple):
    identity: tuple[int, int]  # device and inode: the same for each path that leads to a folder
    files: list[str]
    folders: list[str]
    links: list[str]


def _list_folder(path: str) -> _Listing:
    status = os.stat(path)  # noqa: PTH116  (a Path object for each of 77,177 files takes longer than the call)
    listing = _Listing((status.st_dev, status.st_ino), [], [], [])
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                listing.files.append(entry.path)
            else:
                (listing.links if entry.is_symlink() else listing.folders).append(entry.path)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False  # a link to itself; if it is named like an image, reading it is reported
        raise


def _stat(path: str) -> FileEntry:
    status = os.stat(path)  # noqa: PTH116
    return FileEntry(path, status.st_size, status.st_mtime_ns)
