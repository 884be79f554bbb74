"""Epochs: padded batches of 64 from files, caches and tables, and ours; and the first epoch, packing included."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bpsutils.bucketing import BucketSampler, collate_fn_pad
from bpsutils.datasets import ImageDataset
from bpsutils.transforms import ToFloat

from . import contenders as libraries
from .contenders import BATCH, PREPARED, contender, in_memory, random_batches
from .data import Data, first
from .harness import Contender, Table, Versus, race
from .memory import peak

Order = Sequence[Sequence[int]]

BASELINE = "tifffile + torchvision v2"
RANDOM, BUCKETED = "ours packed, random order", "ours packed, bucketed"
COPIES, COPIES_BUCKETED = "only copies, random order", "only copies, bucketed"
UINT16 = ", uint16"


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """Two tables."""
    title = f"padded batches of {BATCH} from {len(data):,} files, float32 where nothing else is said"
    everyone = contenders(data)
    items = {one.name: one.items for one in everyone}
    table = race("epochs", title, everyone, _versus(), more=lambda name: _columns(name, items[name], data))
    table.notes[:0] = [
        "slow contenders load a part of the files, drawn at random; ratios are of images per second",
        "all are given one random order, but for LitData and webdataset, which mix blocks or a buffer of their own",
        "only copies: a NumPy loop that copies pixels of that type in RAM into zeroed batches, and does nothing else",
        "prepare: seconds, 0 where an earlier run's files were found",
        "memory: most that preparing (but for what is on disk) and one epoch add to an idle process, workers included",
    ]
    yield table
    title = f"{len(data):,} files, from the first look to the end of the first epoch"
    yield race("first epoch", title, first_epochs(data))


def contenders(data: Data) -> list[Contender]:
    """All that `tables` compares; those that decode files again and again load a part of them."""
    part = _part(data)
    return [
        libraries.per_sample(data, BASELINE, tifffile.imread),
        libraries.per_sample(part, f"{BASELINE}, 2 workers", tifffile.imread, workers=2),
        libraries.per_sample(part, "PIL + torchvision v2", libraries.read_pil),
        libraries.per_sample(part, "PIL + torchvision v2, 2 workers", libraries.read_pil, workers=2),
        libraries.torchdata_nodes(part),
        libraries.webdataset_tiff(part),
        libraries.webdataset_arrays(part),
        libraries.monai_persistent(part),
        libraries.monai_cached(part, own_collate=True),
        libraries.monai_cached(part, own_collate=False),
        libraries.hugging_face_images(part),
        libraries.hugging_face_bytes(data, by_batch=False),
        libraries.hugging_face_bytes(data, by_batch=True),
        libraries.litdata_arrays(data, by_batch=False),
        libraries.litdata_arrays(data, by_batch=True),
        libraries.tensors_in_memory(data),
        _from_files(part),
        *_ours(data),
        *_copies(data),
    ]


def first_epochs(data: Data) -> list[Contender]:
    """What a user waits for on the first day."""

    def pack(folder: Path) -> Iterator[Tensor]:
        yield from _packed(data, folder, random_batches(data), torch.float32)

    folder = data.scratch / "fresh.pack"
    ours = contender("ours: pack, then load", data, lambda: folder, ordered=True, floor=1.5)
    ours = replace(ours, work=pack, before=lambda folder: shutil.rmtree(folder, ignore_errors=True))
    return [libraries.per_sample(data, BASELINE, tifffile.imread), ours]


def _versus() -> list[Versus]:
    others = ["Hugging Face raw bytes", "LitData arrays"]
    rows = [Versus(f"packed, random order, against {other}", RANDOM, other, 1.8) for other in others]
    rows += [Versus(f"{row.name}, scaled by the batch", RANDOM, f"{row.against}, scaled by the batch") for row in rows]
    for ours, copies, name in ((RANDOM, COPIES, "random order"), (BUCKETED, COPIES_BUCKETED, "bucketed")):
        rows.append(Versus(f"packed, {name}, against only copies", ours, copies, 0.28))
        rows.append(Versus(f"packed, {name}{UINT16}, against only copies", ours + UINT16, copies + UINT16, 0.40))
    return rows


def _columns(name: str, images: int, data: Data) -> dict[str, str]:
    memory = peak("epochs", name, data)
    return {"images": f"{images:,}", "prepare, s": f"{PREPARED[name]:.1f}", "memory, MB": memory}


def _part(data: Data) -> Data:
    return first(data, max(500, len(data) // 5))


def _table(data: Data) -> pd.DataFrame:
    return pd.DataFrame({"path": data.paths, "height": data.sizes[:, 0], "width": data.sizes[:, 1]})


def _from_files(data: Data) -> Contender:
    def make() -> Iterable[Any]:
        images = ImageDataset(_table(data), ToFloat(), target=None)
        return DataLoader(
            images, batch_sampler=random_batches(data), collate_fn=lambda one: collate_fn_pad(one)["images"]
        )

    return contender("ours from files", data, make, ordered=True)


def _ours(data: Data) -> Iterator[Contender]:
    for name, order, floor in ((RANDOM, random_batches(data), 15), (BUCKETED, _buckets(data), 30)):
        for dtype in (torch.float32, torch.uint16):

            def make(order: Order = order, dtype: torch.dtype = dtype) -> Iterable[Any]:
                return _packed(data, data.scratch / "images.pack", order, dtype)

            float32 = dtype == torch.float32
            yield contender(
                name if float32 else name + UINT16,
                data,
                make,
                ordered=True,
                order=order,
                floor=floor if float32 else None,
            )


def _packed(data: Data, folder: Path, order: Order, dtype: torch.dtype) -> DataLoader[Any]:
    from bpsutils.packed import PackedImages

    PackedImages.build(_table(data), folder, target=None)
    images = PackedImages(folder, _table(data), target=None, dtype=dtype)
    return DataLoader(images, batch_sampler=order, collate_fn=lambda batch: batch["images"])


def _buckets(data: Data) -> Order:
    return list(BucketSampler(data.sizes, BATCH))


def _copies(data: Data) -> Iterator[Contender]:
    for name, order in ((COPIES, random_batches(data)), (COPIES_BUCKETED, _buckets(data))):
        for dtype in (np.float32, np.uint16):

            def make(order: Order = order, dtype: Any = dtype) -> Iterable[Any]:
                return Copies(in_memory(data, dtype), order)

            yield contender(name if dtype is np.float32 else name + UINT16, data, make, ordered=True, order=order)


class Copies:
    """Pixels in RAM to padded batches, with nothing around it."""

    def __init__(self, images: Sequence[np.ndarray], order: Order) -> None:
        self.images, self.order = images, order

    def __iter__(self) -> Iterator[Tensor]:
        for indices in self.order:
            images = [self.images[index] for index in indices]
            height, width = (max(image.shape[side] for image in images) for side in (0, 1))
            batch = np.zeros((len(images), 1, height, width), images[0].dtype)
            for place, image in zip(batch[:, 0], images, strict=True):
                place[: image.shape[0], : image.shape[1]] = image
            yield torch.from_numpy(batch)
