"""Loaders: dataset, sampler and collate function joined, with workers that read ahead (notebook 03)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bpsutils.bucketing import BucketSampler, collate_fn_pad
from bpsutils.config import SPLITS, Config
from bpsutils.datasets import ImageDataset, rank_and_world_size
from bpsutils.device import pick_device
from bpsutils.distributed import from_rank_0
from bpsutils.metadata import load_table
from bpsutils.packed import PACK_FROM, PackedImages, collate_fn_packed, file_paths
from bpsutils.samplers import DistributedBatches, set_epoch
from bpsutils.splits import split_table
from bpsutils.store import pack_files
from bpsutils.transforms import eval_transform, train_transform

__all__ = ["make_loaders", "measure_workers", "set_epoch"]

# More than the sampler's default, for shuffling counts more in training than padding: of 20,000 images' batch-mates
# 4 % meet again in the next epoch instead of 9 %. All trained numbers in the notebooks come from these batches.
TRAIN_JITTER = 0.03 * 3**0.5


def make_loaders(config: Config, table: pd.DataFrame | None = None) -> dict[str, DataLoader[Any]]:
    """A loader for each split, all of which yield what `bpsutils.bucketing.collate_fn_pad` returns.

    Batches hold images of similar size. Those of ``"train"`` are made anew in each epoch, and augmented: call
    ``set_epoch(loader, epoch)`` before each. Those of ``"val"`` and ``"test"`` stay the same, unaugmented.

    Where torch.distributed runs, each rank gets its share of every batch, and ``config.batch_size`` and
    ``config.pixel_budget`` are those of a share.

    With ``config.packed``, all images are decoded once into the folder ``config.pack``, and batches are cut from
    there (`bpsutils.packed.PackedImages`): the same batches, without workers. On an NVIDIA GPU whose free memory is
    twice what the pixels take, they are kept and assembled there.

    Args:
        config: The experiment: what to load, how, and with how many workers.
        table: Rows with ``split`` and ``group``, from `bpsutils.splits.split_table`. Default: read and split what
            the configuration names.

    Raises:
        ValueError: If the table lacks a column, a split has no image, or with ``config.packed=True`` if the images
            differ in type or channels.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     loaders = make_loaders(Config(out_dir=folder, batch_size=8))
        >>> list(loaders)
        ['train', 'val', 'test']
        >>> batch = next(iter(loaders["val"]))
        >>> batch["images"].dtype, len(batch["labels"])
        (torch.uint16, 8)
    """
    if table is None:
        table = split_table(load_table(config), config)
    lacking = {"split", "height", "width", config.target} - set(table.columns)
    if lacking:
        raise ValueError(
            f"the table has no column {', '.join(sorted(lacking))}; "
            "make it with split_table(load_table(config), config)"
        )
    parts = {split: _rows(table, split) for split in SPLITS}
    packed = _is_packed(config, table)
    if packed:
        from_rank_0(lambda: pack_files(config.pack, file_paths(table)))
    # The classes of the whole table, for a split may lack one.
    classes = config.classes or sorted(table[config.target].unique())
    datasets = {split: _dataset(rows, split == "train", classes, packed, config) for split, rows in parts.items()}
    _to_gpu([dataset for dataset in datasets.values() if isinstance(dataset, PackedImages)], config)
    return {split: _loader(datasets[split], parts[split], split == "train", config) for split in SPLITS}


def _rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    rows = table[table["split"] == split]
    if not len(rows):
        raise ValueError(
            f"the {split} split has no image; check Config.{split}_cases, Config.fractions and the filters"
        )
    return rows


def _is_packed(config: Config, table: pd.DataFrame) -> bool:
    """As configured, else where there are many images, and all of a kind that a store takes."""
    if config.packed is not None:
        return config.packed
    known = {"dtype", "channels"} <= set(table.columns)
    kinds = set(zip(table["dtype"], table["channels"], strict=True)) if known else {("uint16", 1)}
    return len(table) >= PACK_FROM and len(kinds) == 1 and kinds.pop()[0] in ("uint16", "uint8")


def _dataset(rows: pd.DataFrame, train: bool, classes: Sequence[str], packed: bool, config: Config) -> ImageDataset:
    transform = train_transform(config) if train else eval_transform(config)
    if not packed:
        return ImageDataset(rows, transform, config.target, classes, seed=config.seed)
    return PackedImages(config.pack, rows, transform, config.target, classes, seed=config.seed, dtype=torch.uint16)


def _to_gpu(datasets: Sequence[PackedImages], config: Config) -> None:
    device = pick_device(config.device)
    # Resizing works on one image at a time, on the CPU.
    if device.type != "cuda" or config.resize or not datasets:
        return
    free, _ = torch.cuda.mem_get_info()
    if sum(dataset.nbytes for dataset in datasets) < free / 2:
        for dataset in datasets:
            dataset.to(device)


def _loader(dataset: ImageDataset, rows: pd.DataFrame, train: bool, config: Config) -> DataLoader[Any]:
    packed = isinstance(dataset, PackedImages)
    workers = 0 if packed else config.num_workers
    on_gpu = isinstance(dataset, PackedImages) and dataset.device.type == "cuda"
    return DataLoader(
        dataset,
        batch_sampler=_batches(rows, config, jitter=TRAIN_JITTER if train else 0),
        collate_fn=collate_fn_packed if packed else collate_fn_pad,
        num_workers=workers,
        # Forked from a rank, whose other threads talk to the other ranks, a worker may wait for ever.
        multiprocessing_context="spawn" if workers and rank_and_world_size()[1] > 1 else None,
        # Workers of validation would else start again after every epoch.
        persistent_workers=workers > 0,
        # The loader copies into pinned memory in a thread of its own; only CUDA can make use of it.
        pin_memory=pick_device(config.device).type == "cuda" and not on_gpu,
        # Else every epoch takes a number from the global generator, which the network's dropout also draws from.
        generator=torch.Generator().manual_seed(config.seed),
    )


def _batches(rows: pd.DataFrame, config: Config, jitter: float) -> BucketSampler | DistributedBatches:
    sizes = rows[["height", "width"]].to_numpy()
    if config.resize:
        sizes = np.full_like(sizes, config.resize)  # what is batched are the resized images
    rank, world_size = rank_and_world_size()
    batches = BucketSampler(
        sizes,
        config.batch_size * world_size,
        seed=config.seed,
        jitter=jitter,
        pixel_budget=config.pixel_budget and config.pixel_budget * world_size,
        shares=world_size,
    )
    return DistributedBatches(batches, rank, world_size) if world_size > 1 else batches


def measure_workers(source: DataLoader[Any] | Dataset[Any], candidates: Sequence[int] = (0, 1, 2, 4)) -> pd.DataFrame:
    """Images per second with different numbers of workers, on this machine and these files.

    Each number loads two epochs; the first, which starts the workers and warms up the disk's cache, is not timed.

    Args:
        source: A loader with a sampler, or a dataset (in batches of 32).
        candidates: Values of ``num_workers`` to try.

    Returns:
        One row a candidate: ``num_workers``, ``images_per_second``.

    Raises:
        ValueError: If the loader has no batch sampler, as that of a stream.

    Example:
        >>> batches = torch.utils.data.DataLoader([1.0, 2.0, 3.0], batch_size=2)
        >>> measure_workers(batches, candidates=[0, 1])["num_workers"].tolist()
        [0, 1]
    """
    if not isinstance(source, DataLoader):
        collate = collate_fn_packed if isinstance(source, PackedImages) else collate_fn_pad
        source = DataLoader(source, batch_size=32, collate_fn=collate)
    rates = [_images_per_second(source, workers) for workers in candidates]
    return pd.DataFrame({"num_workers": list(candidates), "images_per_second": rates})


def _images_per_second(loader: DataLoader[Any], workers: int) -> float:
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        raise ValueError("measure_workers takes a map-style dataset or its loader: streams have no batch sampler")
    trial = DataLoader(
        loader.dataset,
        batch_sampler=loader.batch_sampler,
        collate_fn=loader.collate_fn,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context if workers else None,
    )
    for _ in trial:
        pass
    start = time.perf_counter()
    for _ in trial:
        pass
    seconds = time.perf_counter() - start
    return sum(map(len, loader.batch_sampler)) / seconds
