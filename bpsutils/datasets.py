"""Datasets: from a row of the table to a sample (notebook 02).

`ImageDataset` answers "give me sample 7" and leaves the order to a sampler. `ImageStream` decides the order itself
and hands samples out one after the other. Both read an image when it is asked for, never before, except from a
bucket: there a stream reads ahead (notebook 12).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from bpsutils.bucket import ENDPOINT, is_local
from bpsutils.images import decode_image, read_image
from bpsutils.splits import group_ids
from bpsutils.streaming import REMOTE, fetch_ahead


class ImageDataset(Dataset[Any]):
    """Map-style dataset of image files: ``len(dataset)`` samples, ``dataset[i]`` is one of them.

    A sample is a dict: ``"image"`` is a tensor ``(C, H, W)`` of the stored dtype (16 bits stay ``torch.uint16``) after
    ``transform``; ``"label"`` is the number of its class, absent without ``target``; ``"group"`` names its mouse or
    case, "" where the table knows none; ``"path"`` is its file; ``"index"`` is its row.

    What a transform draws from torch's random numbers is a function of ``(seed, epoch, index)``, whichever worker
    runs it and whatever was drawn before. Call `set_epoch` before each epoch, or all epochs are augmented alike.

    Args:
        table: One row an image, with a column ``path``; rows are counted from 0, whatever the table's index.
        transform: Called with the image tensor, ours or torchvision's v2. Default: the image as it is stored.
        target: Column to predict, or None for images without labels.
        classes: Values of ``target``, as text, in the order of the class numbers. Default: those that occur, sorted.
            Name them where several datasets must agree, for a split may lack a class.
        target_transform: Called with the class number.
        group: The column or columns that name a group. Default: the column ``group``, where there is one.
        as_tuple: Return ``(image, label)`` as torchvision's datasets do, without target ``(image,)``.
        seed: First part of what fixes a transform's random numbers.

    Attributes:
        classes: Names of the classes, () without target.
        labels: Class number of each image, int64 ``(N,)``, or None without target.
        sizes: Height and width of each file's image, int64 ``(N, 2)``, or None where the table has no such columns.

    Raises:
        ValueError: If the table lacks a column or has no rows, or a target is missing or not among ``classes``.

    Example:
        >>> from bpsutils.images import write_image
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/a.tif", np.full((79, 114), 582, np.uint16))
        ...     table = pd.DataFrame({"path": [f"{folder}/a.tif"], "particle_type": ["Fe"]})
        ...     sample = ImageDataset(table, classes=["X-ray", "Fe"])[0]
        >>> sample["image"].shape, sample["image"].dtype, sample["label"]
        (torch.Size([1, 79, 114]), torch.uint16, 1)
    """

    def __init__(
        self,
        table: pd.DataFrame,
        transform: Callable[[Tensor], Any] | None = None,
        target: str | None = "particle_type",
        classes: Sequence[str] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        group: str | Sequence[str] | None = None,
        as_tuple: bool = False,
        seed: int = 0,
    ) -> None:
        group = [group] if isinstance(group, str) else list(group or [])
        _check_table(table, ["path", *([target] if target else []), *group])
        self.transform, self.target_transform = transform, target_transform
        self.as_tuple, self.seed = as_tuple, seed
        # Arrays of bytes of one width, not lists of str and not the table: a worker that reads a Python object
        # writes its reference count, and so copies the memory page it shares with the main process. At 400,000
        # paths a list grows each worker from 81 to 231 MB within an epoch, the array stays at 49.
        self.paths = np.array([os.fsencode(path) for path in table["path"]])
        self.groups = np.array([name.encode() for name in _groups(table, group)])
        self.labels: np.ndarray | None = None
        self.classes: tuple[str, ...] = ()
        if target:
            self.labels, self.classes = _labels(table, target, classes)
        self.sizes = _sizes(table)
        # In shared memory, because workers that live on after an epoch hold copies of everything else.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers transforms get; workers that are alive see it too."""
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that was set last, at first 0."""
        return int(self._epoch)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any] | tuple[Any, ...]:
        """Read and transform one image.

        Raises:
            IndexError: If there is no such row.
            ValueError: If the image is in a bucket, where one at a time would be slow.
            ImageError: If the file is no image that can be read.
            OSError: If the file cannot be opened.
        """
        index = range(len(self))[index]  # the list's rules: -1 is the last, beyond the end is an IndexError
        path = self.path(index)
        if path.startswith(REMOTE):
            raise ValueError(f"{path} is in a bucket: read it by ImageStream, or copy it first by download_images")
        return self.sample(index, read_image(path))

    def path(self, index: int) -> str:
        """Where an image is: its file, or ``s3://bucket/key``."""
        return os.fsdecode(self.paths[index])

    def sample(self, index: int, pixels: np.ndarray) -> dict[str, Any] | tuple[Any, ...]:
        """The sample of a row whose pixels ``(H, W)`` or ``(H, W, C)`` have been read."""
        path = self.path(index)
        stacked = np.atleast_3d(pixels).transpose(2, 0, 1)
        image = self._transformed(torch.from_numpy(stacked.copy()), index, path)
        label = self._label(index)
        if self.as_tuple:
            return (image, *label)
        sample = {"image": image, "group": self.groups[index].decode(), "path": path, "index": index}
        return {**sample, "label": label[0]} if label else sample

    def _transformed(self, image: Tensor, index: int, path: str) -> Any:
        if self.transform is None:
            return image
        # The generator is put back afterwards: dropout and the like must not depend on how images are loaded.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would reseed every GPU as well, which nothing here puts back.
            torch.default_generator.manual_seed(sample_seed(self.seed, self.epoch, index))
            try:
                return self.transform(image)
            except Exception as error:
                error.add_note(f"while transforming {path}, {image.dtype} of shape {tuple(image.shape)}")
                raise

    def _label(self, index: int) -> list[Any]:
        if self.labels is None:
            return []
        number = int(self.labels[index])
        return [self.target_transform(number) if self.target_transform else number]


class ImageStream(IterableDataset[Any]):
    """Iterable-style dataset of image files: samples come one after the other, in an order of its own.

    Each worker of each rank yields its share; together they yield every image exactly once. Shares differ by one
    image at most. A sampler cannot be combined with it, and it has no length, for a stream may have no end.

    Images in a bucket, as in `stream_table`'s table, are fetched ahead of their turn and never stored: the samples
    are those of a local copy, in memory are at most ``read_ahead`` files for each worker.

    Args:
        table: As for `ImageDataset`; a ``path`` may also be ``s3://bucket/key``.
        transform: As for `ImageDataset`.
        shuffle: Mix the rows, by ``(seed, epoch)``. Default: in the order of the table.
        rank: Which process this is. Default: what torch.distributed says where it runs, else 0.
        world_size: Number of processes. Default: what torch.distributed says where it runs, else 1.
        read_ahead: Requests to the bucket that are under way at once, in each worker.
        endpoint: URL of the S3 server that has the buckets. Default: the one of NASA's.
        options: The other arguments of `ImageDataset`, among them ``seed``.

    Raises:
        ValueError: As `ImageDataset`, or if the rank is not one of ``world_size``, or no request may be under way.
        ConnectionError: While it is iterated over, if an image cannot be fetched after several attempts.

    Example:
        >>> table = pd.DataFrame({"path": ["a.tif", "b.tif", "c.tif"]})
        >>> ImageStream(table, target=None, rank=1, world_size=2).share().tolist()
        [1]
    """

    def __init__(
        self,
        table: pd.DataFrame,
        transform: Callable[[Tensor], Any] | None = None,
        shuffle: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        read_ahead: int = 64,
        endpoint: str = ENDPOINT,
        **options: Any,
    ) -> None:
        if read_ahead < 1:
            raise ValueError(f"read_ahead must be at least 1, got {read_ahead}")
        is_local(endpoint)  # refuses what is no URL of a server now, not in a worker
        rank_and_world_size(rank, world_size)
        self.images = ImageDataset(table, transform, **options)
        self.shuffle, self.rank, self.world_size = shuffle, rank, world_size
        self.read_ahead, self.endpoint = read_ahead, endpoint

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch: it decides the order and what transforms draw."""
        self.images.set_epoch(epoch)

    def share(self) -> np.ndarray:
        """Rows that this worker of this rank yields, in order."""
        n = len(self.images)
        rng = np.random.default_rng([self.images.seed, self.images.epoch])
        order = rng.permutation(n) if self.shuffle else np.arange(n)
        rank, world_size = rank_and_world_size(self.rank, self.world_size)
        worker = get_worker_info()
        if worker is None:
            return order[rank::world_size]
        return order[rank * worker.num_workers + worker.id :: world_size * worker.num_workers]

    def __iter__(self) -> Iterator[Any]:
        share = self.share().tolist()
        remote = (path for index in share if (path := self.images.path(index)).startswith(REMOTE))
        with closing(fetch_ahead(remote, self.read_ahead, self.endpoint)) as bodies:
            for index in share:
                path = self.images.path(index)
                if path.startswith(REMOTE):
                    yield self.images.sample(index, decode_image(next(bodies), path))
                else:
                    yield self.images[index]

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned gets a pickle, and knows nothing of torch.distributed: tell it the rank.
        rank, world_size = rank_and_world_size(self.rank, self.world_size)
        return {**self.__dict__, "rank": rank, "world_size": world_size}


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A seed of 64 bits for one sample of one epoch, unrelated to those beside it.

    Sums such as ``seed + epoch + index`` would give sample 1 of epoch 0 what sample 0 of epoch 1 gets.

    Example:
        >>> sample_seed(0, 1, 7) != sample_seed(0, 7, 1)
        True
    """
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0])


def rank_and_world_size(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Which process this is, and of how many: as given, else from torch.distributed, else 0 of 1.

    Raises:
        ValueError: If only one of them is given, or they contradict each other.

    Example:
        >>> rank_and_world_size()
        (0, 1)
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"give both rank and world_size or neither, got {rank} and {world_size}")
    if rank is None or world_size is None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else (0, 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to below world_size, got {rank} of {world_size}")
    return rank, world_size


def _check_table(table: pd.DataFrame, needed: list[str]) -> None:
    lacking = [column for column in needed if column not in table]
    if lacking:
        raise ValueError(
            f"the table has no column {', '.join(lacking)}; its columns are {', '.join(map(str, table.columns))}; "
            "bpsutils.build_metadata makes a table with a path, and target=None leaves labels out"
        )
    if not len(table):
        raise ValueError("the table has no rows: the filters or the split left no image over")


def _groups(table: pd.DataFrame, group: list[str]) -> list[str]:
    if group:
        return [str(name) for name in group_ids(table, group)]
    return [str(name) for name in table["group"]] if "group" in table else [""] * len(table)


def _labels(table: pd.DataFrame, target: str, classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    values = table[target]
    if values.isna().any():
        raise ValueError(
            f"{values.isna().sum()} rows have no {target}, the first is {table['path'][values.isna()].iloc[0]}; "
            "leave them out, or use target=None"
        )
    names = tuple(map(str, sorted(values.unique()) if classes is None else classes))
    unknown = sorted(set(values.astype(str)) - set(names))
    if unknown:
        raise ValueError(f"{target} has the unknown class {', '.join(unknown)}; classes are {', '.join(names)}")
    number = {name: position for position, name in enumerate(names)}
    return np.array([number[name] for name in values.astype(str)], dtype=np.int64), names


def _sizes(table: pd.DataFrame) -> np.ndarray | None:
    if not {"height", "width"} <= set(table.columns):
        return None
    return np.asarray(table[["height", "width"]].to_numpy(np.int64))
