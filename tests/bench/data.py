"""Files like the real ones: the simulated sample, each crop varied until there are 20,000."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from bpsutils.images import read_header, read_image, write_image

SAMPLE = Path(__file__).parents[2] / "data_sample" / "bps"
CROPS = 600
SHIFT = 6  # px by which a side grows or shrinks
NOISE = 2  # grey levels, beside the camera's of about 15
SMALLEST, LARGEST = np.array([79, 114]), np.array([170, 182])  # height and width; rare crops are larger


@dataclass(frozen=True)
class Data:
    """The files that all contenders work on.

    Attributes:
        images: Folder with the TIFF files and their ``meta.csv``.
        paths: Of all files, sorted.
        sizes: Height and width of each, shape ``(N, 2)``.
        scratch: Folder for what contenders write (indexes, packs, caches).
    """

    images: Path
    paths: list[str]
    sizes: np.ndarray
    scratch: Path

    def __len__(self) -> int:
        return len(self.paths)


def make(folder: Path, count: int) -> Data:
    """Simulated files in the real format below a folder; those of an earlier run are kept.

    Names, wells and ``meta.csv`` are as in the real set, so `bpsutils.build_metadata` reads them.
    """
    home = folder / f"simulated-{count}"
    images, stored = home / "images", home / "sizes.npy"
    if not stored.is_file():  # it is written last: without it the folder may be half made
        images.mkdir(parents=True, exist_ok=True)
        table = _names(count)
        crops = [read_image(SAMPLE / name) for name in table["source"][:CROPS]]
        with ThreadPoolExecutor() as pool:  # zlib compresses without Python's lock
            jobs = pool.map(lambda i: _write(images / table["filename"][i], crops[i % len(crops)], i), range(count))
            sizes = np.array(list(jobs))
        table.drop(columns="source").to_csv(images / "meta.csv", index=False)
        np.save(stored, sizes[np.argsort(table["filename"].to_numpy())])
    (home / "scratch").mkdir(exist_ok=True)
    paths = sorted(os.path.join(images, name) for name in os.listdir(images) if name.endswith(".tif"))  # noqa: PTH118, PTH208
    return Data(images, paths, np.load(stored), home / "scratch")


def first(data: Data, count: int) -> Data:
    """The same files, ``count`` of them, drawn at random but always the same ones."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:count])
    return Data(data.images, [data.paths[i] for i in chosen], data.sizes[chosen], data.scratch)


def simulated_sizes(count: int) -> np.ndarray:
    """Sizes of so many files without the files, in no order, shape ``(count, 2)``."""
    shapes = [read_header(SAMPLE / name).shape for name in _names(min(count, CROPS))["source"]]
    return np.array([_size(shapes[i % len(shapes)], np.random.default_rng(i)) for i in range(count)])


def warm(paths: Iterable[str]) -> None:
    """Read all files once: whoever is timed first would else pay for the disk."""
    for path in paths:
        Path(path).read_bytes()


def checksum(pixels: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Shape and CRC-32 of an image: what a contender's pixels are compared by."""
    return pixels.shape, crc32(np.ascontiguousarray(pixels).view(np.uint8))


def _names(count: int) -> pd.DataFrame:
    """One row a file: the crop it comes from, its name (a further field of the same well), its condition."""
    sample = pd.read_csv(SAMPLE / "meta.csv").rename(columns={"filename": "source"})
    table = sample.iloc[np.arange(count) % len(sample)].reset_index(drop=True)
    turn = np.arange(count) // len(sample)
    parts = table["source"].str.rsplit("_", n=3, expand=True)  # P242_73665006707-A6, field, nucleus, proj.tif
    field = (parts[1].astype(int) + 5 * turn).astype(str).str.zfill(3)
    table.insert(0, "filename", parts[0] + "_" + field + "_" + parts[2] + "_" + parts[3])
    return table


def _write(path: Path, crop: np.ndarray, seed: int) -> tuple[int, int]:
    """A crop of another window, perhaps flipped, with noise of its own."""
    rng = np.random.default_rng(seed)
    height, width = _size(crop.shape, rng)
    wide = np.pad(crop, SHIFT, mode="reflect")
    top, left = rng.integers(0, np.array(wide.shape) - (height, width) + 1)
    image = wide[top : top + height, left : left + width][:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    noisy = np.clip(image + rng.normal(0, NOISE, image.shape).round(), 0, 65535)
    write_image(path, noisy.astype(np.uint16))
    return height, width


def _size(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    grown = np.array(shape) + rng.integers(-SHIFT, SHIFT + 1, 2)
    height, width = np.clip(grown, SMALLEST, np.maximum(LARGEST, shape)).tolist()
    return height, width
