"""The packed store on disk: every image decoded once, into one flat file (notebook 12).

A folder with ``pixels.bin``, the grey levels of all images one after the other, and ``index.parquet``, which says for
each file where its pixels are, what the file was like when it was decoded, and a checksum. Pixels are only ever
appended, and the index is written after them: whatever kills a build, the index never speaks of pixels that are not
there. What lies behind those it speaks of is cut off by the next build.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from bpsutils.config import atomically
from bpsutils.images import PathLike, read_image

STORE_VERSION = b"1"
COMMIT_SECONDS = 5.0  # what a killed build loses at most
LOCK_SECONDS = 60.0  # how long a process waits for another that packs into the same folder
_DTYPES: dict[bytes, np.dtype] = {b"uint16": np.dtype("<u2"), b"uint8": np.dtype("u1")}
_NUMBERS = ("size", "mtime_ns", "height", "width", "channels", "offset", "crc32")
_SCHEMA = pa.schema([("path", pa.binary()), *((name, pa.int64()) for name in _NUMBERS)])
_CHUNK = 32  # files handed to a thread at once: one by one, the handing over would cost more than the work

File = tuple[bytes, int, int]  # path, size in bytes, time of change in nanoseconds
Packed = tuple[np.ndarray, dict[str, Any]]  # pixels (C, H, W), and the row of the index but for ``offset``


class Store(NamedTuple):
    """A packed store as its index describes it.

    Attributes:
        folder: Where it is.
        rows: One row an image: ``path`` (bytes), ``size`` and ``mtime_ns`` of its file, ``height``, ``width``,
            ``channels``, ``offset`` of its first value in ``pixels.bin``, and ``crc32`` of its pixels.
        dtype: Of all images, uint16 or uint8.
    """

    folder: Path
    rows: pd.DataFrame
    dtype: np.dtype

    @classmethod
    def read(cls, folder: PathLike) -> Self:
        """Read the index of a store; where there is none, the store is empty.

        Raises:
            ValueError: If the index cannot be read, or is from another version of bpsutils.
        """
        index = Path(folder, "index.parquet")
        if not index.exists():
            return cls(Path(folder), _SCHEMA.empty_table().to_pandas(), _DTYPES[b"uint16"])
        again = f"delete the folder {folder}, and pack it again with `python -m bpsutils pack`"
        try:
            with pq.ParquetFile(index) as file:
                table = file.read()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{index} is not readable ({error}); {again}") from error
        about = table.schema.metadata or {}
        if about.get(b"bpsutils_store") != STORE_VERSION or not table.schema.equals(_SCHEMA):
            raise ValueError(f"{index} is from another version of bpsutils; {again}")
        return cls(Path(folder), table.to_pandas(), _DTYPES[about[b"dtype"]])

    @property
    def pixels_path(self) -> Path:
        """The file of pixels."""
        return self.folder / "pixels.bin"

    @property
    def ends(self) -> np.ndarray:
        """Where the pixels of each image end, counted like ``offset``, int64 ``(N,)``."""
        counts = self.rows[["channels", "height", "width"]].to_numpy(np.int64).prod(axis=1)
        return np.asarray(self.rows["offset"].to_numpy(np.int64) + counts)

    @property
    def length(self) -> int:
        """Bytes of ``pixels.bin`` that the index speaks of."""
        return int(self.ends.max(initial=0)) * self.dtype.itemsize

    @property
    def digest(self) -> str:
        """SHA-256 of the images' paths, shapes and checksums; the order in which they were packed does not count."""
        content = self.rows[["path", "channels", "height", "width", "crc32"]].sort_values("path")
        digest = hashlib.sha256(b"\0".join(content["path"]))
        digest.update(content.drop(columns="path").to_numpy("<i8").tobytes())
        return digest.hexdigest()

    def pixels(self) -> np.ndarray:
        """All values, one after the other: an array that the system reads from disk where it is touched.

        Raises:
            ValueError: If the file is shorter than the index says.
        """
        there = _file_length(self.pixels_path)
        if there < self.length:
            raise ValueError(
                f"{self.pixels_path} has {there:,} bytes, its index speaks of {self.length:,}; "
                "`python -m bpsutils pack` packs again what is lost"
            )
        # A plain array over the mapping: every slice of an np.memmap is an np.memmap, which takes long to make.
        return np.asarray(np.memmap(self.pixels_path, self.dtype, "r", shape=(self.length // self.dtype.itemsize,)))

    def find(self, paths: list[bytes]) -> np.ndarray:
        """The row of each file, int64 ``(N,)``.

        Raises:
            ValueError: If a file is not in the store, or is no longer what it was when it was packed.
        """
        found = np.asarray(pd.Index(self.rows["path"], dtype=object).get_indexer(paths))
        now = np.array([_stat(path) for path in paths]).reshape(-1, 2)
        packed = np.append(self.rows[["size", "mtime_ns"]].to_numpy(np.int64), [[-1, -1]], axis=0)[found]
        kinds = {"missing": now[:, 0] < 0, "new": found < 0, "changed": (now != packed).any(axis=1)}
        if kinds["changed"].any() or kinds["missing"].any():
            wrong = np.select(list(kinds.values()), list(kinds), "")
            counts = [f"{(wrong == kind).sum():,} {kind}" for kind in kinds if (wrong == kind).any()]
            raise ValueError(
                f"{self.folder} does not hold the files as they are now: {', '.join(counts)}, the first is "
                f"{os.fsdecode(paths[int((wrong != '').argmax())])}; bring it up to date with "
                "`python -m bpsutils pack` and the same options"
            )
        return found

    def verify(self) -> None:
        """Read all pixels, and compare them with their checksums.

        Raises:
            ValueError: If pixels are not those that were packed; the message names the first such image.
        """
        pixels, starts, ends = self.pixels(), self.rows["offset"], self.ends
        for path, start, end, crc32 in zip(self.rows["path"], starts, ends, self.rows["crc32"], strict=True):
            if zlib.crc32(pixels[start:end].data) != crc32:
                raise ValueError(
                    f"{self.pixels_path}: the pixels of {os.fsdecode(path)} are not those that were packed; "
                    f"delete the folder {self.folder}, and pack it again with `python -m bpsutils pack`"
                )


def pack_files(folder: PathLike, paths: Iterable[bytes]) -> int:
    """Bring a store up to date: decode the files that it does not hold, or that changed since, and append them.

    An interrupted build is continued by the same call. Where another process is packing into the folder, wait for it.

    Args:
        folder: The store's folder; made if missing.
        paths: The image files.

    Returns:
        How many files were decoded.

    Raises:
        ImageError: If a file is no image that can be read.
        ValueError: If the images are not of one kind: all uint16 or all uint8, of the same channels.
        RuntimeError: If another process is still packing into the folder after a minute.
        OSError: If a file cannot be opened, or the disk is full.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bpsutils.images import write_image
        >>> with TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/a.tif", np.array([[257, 2470]], np.uint16))
        ...     path = f"{folder}/a.tif".encode()
        ...     pack_files(f"{folder}/pack", [path]), pack_files(f"{folder}/pack", [path])
        (1, 0)
    """
    wanted = list(dict.fromkeys((path, *_stat(path)) for path in paths))
    if not _lacking(_whole(Store.read(folder)), wanted):
        return 0  # without the lock, for which a folder must be writable
    with _only_one(Path(folder)):
        store = _whole(Store.read(folder))
        files = _lacking(store, wanted)
        store.pixels_path.touch()
        with closing(_decode_all(files)) as images:
            _append(store, tqdm(images, "pack", len(files), unit="image", disable=len(files) < 10 * _CHUNK))
    return len(files)


def _lacking(store: Store, wanted: list[File]) -> list[File]:
    known = set(store.rows[["path", "size", "mtime_ns"]].itertuples(index=False, name=None))
    return [file for file in wanted if file not in known]


def _stat(path: bytes) -> tuple[int, int]:
    """Size and time of change of a file; -1 where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a Path object for each of 77,177 files takes longer than the call)
    except FileNotFoundError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _file_length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep other processes from packing into the folder at the same time.

    The lock is SQLite's: in the standard library, on every system, and freed by the system when a process is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lock").touch()  # an error of its own where the folder is not ours to write into
    patience = time.monotonic() + LOCK_SECONDS
    with closing(sqlite3.connect(folder / "lock", timeout=0, isolation_level=None)) as lock:
        while not lock.in_transaction:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if time.monotonic() > patience:
                    raise RuntimeError(
                        f"another process is packing into {folder} ({error}); wait for it, or choose another folder"
                    ) from error
                time.sleep(0.1)
        yield


def _whole(store: Store) -> Store:
    """The store without images whose pixels are gone, as after a copy that was cut short."""
    return store._replace(rows=store.rows[store.ends * store.dtype.itemsize <= _file_length(store.pixels_path)])


def _decode_all(files: list[File]) -> Generator[Packed, None, None]:
    """Decode in threads (zlib lets them run side by side), in order, and a few chunks ahead of who takes the images."""
    workers = os.cpu_count() or 1
    waiting: deque[Future[list[Packed]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(files), _CHUNK):
            waiting.append(pool.submit(_decode_chunk, files[start : start + _CHUNK]))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_chunk(files: list[File]) -> list[Packed]:
    return [_decode(*file) for file in files]


def _decode(path: bytes, size: int, mtime_ns: int) -> Packed:
    image = read_image(os.fsdecode(path))
    pixels = np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1))
    channels, height, width = pixels.shape
    row = {"path": path, "size": size, "mtime_ns": mtime_ns, "height": height, "width": width, "channels": channels}
    return pixels, {**row, "crc32": zlib.crc32(pixels.data)}


def _append(store: Store, images: Iterable[Packed]) -> None:
    """Write pixels behind those that the index speaks of, and now and then an index that speaks of more."""
    fresh: list[dict[str, Any]] = []
    end, committed = int(store.ends.max(initial=0)), time.monotonic()
    kind = (store.dtype, int(store.rows["channels"].iloc[0])) if len(store.rows) else None
    # Unbuffered: a buffer would write what it still held after the file has been cut back.
    with store.pixels_path.open("r+b", buffering=0) as file:
        try:
            file.seek(store.length)
            file.truncate()
            for pixels, row in images:
                kind = _checked_kind(pixels, kind, row["path"])
                _write(file, pixels)
                fresh.append({**row, "offset": end})
                end += pixels.size
                if time.monotonic() > committed + COMMIT_SECONDS:
                    store, fresh, committed = _commit(store._replace(dtype=kind[0]), fresh), [], time.monotonic()
            if kind:
                _commit(store._replace(dtype=kind[0]), fresh)
        except BaseException:
            file.truncate(store.length)
            raise


def _checked_kind(pixels: np.ndarray, kind: tuple[np.dtype, int] | None, path: bytes) -> tuple[np.dtype, int]:
    found = (pixels.dtype, len(pixels))
    if pixels.dtype not in _DTYPES.values() or found != (kind or found):
        held = "uint16 or uint8, of the same channels" if kind is None else f"{kind[0]} of {kind[1]} channels"
        raise ValueError(
            f"{os.fsdecode(path)} is {found[0]} of {found[1]} channels; a packed store takes one kind of image, here "
            f"{held}: leave the others out, use another Config.pack_path, or set Config.packed=False"
        )
    return found


def _write(file: FileIO, pixels: np.ndarray) -> None:
    left = pixels.data.cast("B")
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:  # the system's message for a full disk names no file
        raise OSError(error.errno, f"{error.strerror}, while packing", file.name) from error


def _commit(store: Store, fresh: list[dict[str, Any]]) -> Store:
    """Let the index speak of fresh pixels too; a file that was packed before has its row replaced."""
    added = pd.DataFrame(fresh, columns=_SCHEMA.names)
    kept = store.rows[~store.rows["path"].isin(added["path"])]
    store = store._replace(rows=pd.concat([kept, added], ignore_index=True) if len(kept) else added)
    about = {b"bpsutils_store": STORE_VERSION, b"dtype": str(store.dtype).encode()}
    with atomically(store.folder / "index.parquet") as temporary:
        table = pa.Table.from_pandas(store.rows, _SCHEMA, preserve_index=False)
        pq.write_table(table.replace_schema_metadata(about), temporary)
    return store
