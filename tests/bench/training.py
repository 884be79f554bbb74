"""Training end to end: loading and steps together, on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tifffile
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bpsutils.bucketing import BucketSampler, collate_fn_pad
from bpsutils.config import Config
from bpsutils.device import autocast_policy
from bpsutils.loaders import make_loaders
from bpsutils.models import make_model
from bpsutils.packed import PackedImages, collate_fn_packed
from bpsutils.training import prepare

from .contenders import BATCH, checks, random_batches, to_float
from .data import Data, first
from .harness import Contender, Table, race

IMAGES, QUICK_IMAGES = 1_000, 640
PER_SAMPLE, PACKED, RESIDENT = "tifffile + torchvision v2", "ours packed, bucketed", "one resident batch"
GPU_COST = 1.05  # most that loading may add to a step


def tables(data: Data, quick: bool) -> Iterator[Table]:
    """Two tables for the CPU, and two for a GPU."""
    few = first(data, min(QUICK_IMAGES if quick else IMAGES, len(data)))
    threads = torch.get_num_threads()
    title = f"{len(few):,} images through SmallCNN and AdamW in batches of {BATCH}, CPU, {threads} threads"
    yield race("training", title, loading(few))
    table = race("faster steps, CPU", f"{PACKED}; {title}", options(few, torch.device("cpu")))
    table.notes.extend([] if _compilers() else ["not measured: torch.compile, for there is no C++ compiler"])
    yield table
    if torch.cuda.is_available():
        yield from _on_gpu(data)
    else:
        yield Table("training, GPU", "not measured", [], ["no GPU here"])


def _on_gpu(data: Data) -> Iterator[Table]:
    device = torch.device("cuda")
    title = f"{len(data):,} images through SmallCNN and AdamW in batches of {BATCH}, {torch.cuda.get_device_name()}"
    table = race("training, GPU", title, on_gpu(data, device))
    table.notes.append(f"{RESIDENT}: the same uint16 batch in each step, on the GPU; nothing is loaded")
    yield table
    yield race("faster steps, GPU", f"all batches on the GPU; {title}", options(data, device))


# -------------------------------------------------------------------------------------- what takes a step


@dataclass
class Trainer:
    """A network with its optimiser, and what its batches come from.

    Attributes:
        loader: Iterated anew for each epoch.
        config: Its ``value_range`` is that of the loader's images.
        device: Of the network.
        dtype: Of autocast, or None for float32.
    """

    loader: Iterable[dict[str, Any]]
    config: Config
    device: torch.device
    dtype: torch.dtype | None = None
    channels_last: bool = False
    compile: bool = False
    model: nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.model = make_model(self.config).to(self.device).train()
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.compile:
            self.model.compile(dynamic=True)
        fused = True if self.device.type == "cuda" else None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=fused)

    def epoch(self) -> Iterator[Tensor]:
        """Train on each batch, then yield its images as they were loaded."""
        for batch in self.loader:
            images, mask, labels = prepare(batch, self.device, self.config)
            if self.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                logits = self.model(images, mask)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            yield batch["images"]
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # steps are only queued until then


# ---------------------------------------------------------------------------------------------- contenders


def loading(data: Data) -> list[Contender]:
    """The same network and steps on the CPU, loaded in different ways; nothing is augmented."""
    cpu = torch.device("cpu")
    return [
        _contender(PER_SAMPLE, data, lambda: _per_sample(data, 0), cpu, value_range=(0, 1)),
        _contender(f"{PER_SAMPLE}, 2 workers", data, lambda: _per_sample(data, 2), cpu, value_range=(0, 1)),
        _contender("ours packed, random order", data, lambda: _packed(data, random_batches(data)), cpu),
        _contender(PACKED, data, lambda: _packed(data, _buckets(data)), cpu, floor=2.0),
    ]


def options(data: Data, device: torch.device) -> list[Contender]:
    """What is said to make steps faster, one at a time and together."""
    loader = _packed(data, _buckets(data), device)
    half = torch.bfloat16 if device.type == "cpu" else autocast_policy(device)[0]
    changes: dict[str, dict[str, Any]] = {"plain float32": {}, "channels_last": {"channels_last": True}}
    if half:
        changes[f"{half} autocast".removeprefix("torch.")] = {"dtype": half}
    if _compilers():
        changes["torch.compile"] = {"compile": True}
    changes["all of these"] = {name: value for change in changes.values() for name, value in change.items()}
    return [_contender(name, data, lambda: loader, device, **change) for name, change in changes.items()]


def on_gpu(data: Data, device: torch.device) -> list[Contender]:
    """The same network and steps on a GPU, its batches from nowhere, from the GPU's memory, from the host's."""

    def contender(name: str, make: Callable[[], Iterable[dict[str, Any]]], **options: Any) -> Contender:
        # one batch again and again is not what the others yield, and a run flips its images
        return _contender(name, data, make, device, same_images=False, dtype=autocast_policy(device)[0], **options)

    def pinned(dtype: torch.dtype) -> DataLoader[Any]:
        return _packed(data, _buckets(data), dtype=dtype, pin_memory=True)

    return [
        contender(RESIDENT, lambda: _one_batch(data, device)),
        contender("as `bpsutils run` loads", lambda: _as_run(data, device), floor=1 / GPU_COST),
        contender("packed on the GPU, bucketed", lambda: _packed(data, _buckets(data), device)),
        contender("packed on the host, bucketed, uint16", lambda: pinned(torch.uint16)),
        contender("packed on the host, bucketed, float32", lambda: pinned(torch.float32), value_range=(0, 1)),
    ]


def _contender(
    name: str,
    data: Data,
    make: Callable[[], Iterable[dict[str, Any]]],
    device: torch.device,
    floor: float | None = None,
    value_range: tuple[int, int] = (0, 65535),
    same_images: bool = True,
    **options: Any,
) -> Contender:
    config = replace(_config(data), value_range=value_range)
    compared = (lambda images: checks(images, data.sizes, None)) if same_images else None
    return Contender(
        name, Trainer.epoch, len(data), compared, lambda: Trainer(make(), config, device, **options), floor=floor
    )


# ------------------------------------------------------------------------------------------ where batches come from


class Labelled(Dataset[Any]):
    """A file, decoded, through torchvision's v2, with its label."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int]) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": to_float(tifffile.imread(self.paths[index])), "label": self.labels[index]}


def _per_sample(data: Data, workers: int) -> DataLoader[Any]:
    config = _config(data)
    labels = _table(data)[config.target].map(config.classes.index).tolist()
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    batches = random_batches(data)
    return DataLoader(Labelled(data.paths, labels), batch_sampler=batches, collate_fn=collate_fn_pad, **options)


def _packed(
    data: Data,
    order: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.uint16,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    config = _config(data)
    images = PackedImages.build(_table(data), config.pack, target=config.target, classes=config.classes, dtype=dtype)
    images.to(device)
    return DataLoader(images, batch_sampler=order, collate_fn=collate_fn_packed, pin_memory=pin_memory)


def _one_batch(data: Data, device: torch.device) -> list[dict[str, Any]]:
    """As many steps as there are batches, all with the one whose padded size is nearest to their mean."""
    loader = _packed(data, _buckets(data), device)
    pixels = [float(data.sizes[batch].max(axis=0).prod()) for batch in loader.batch_sampler]
    full = [number for number, batch in enumerate(loader.batch_sampler) if len(batch) == BATCH]
    mean = sum(pixels) / len(pixels)
    chosen = min(full, key=lambda number: abs(pixels[number] - mean))
    return [loader.dataset.__getitems__(loader.batch_sampler[chosen])] * len(pixels)


def _as_run(data: Data, device: torch.device) -> DataLoader[Any]:
    """The loader for training that a configuration gives, augmentation included."""
    table = _table(data)
    table["split"] = "train"
    table.loc[:1, "split"] = ["val", "test"]
    return make_loaders(replace(_config(data), device=device.type, packed=True), table)["train"]


def _config(data: Data) -> Config:
    return Config(image_dir=data.images, out_dir=data.scratch, batch_size=BATCH)


def _table(data: Data) -> pd.DataFrame:
    meta = pd.read_csv(data.images / "meta.csv").set_index("filename")
    names = [Path(path).name for path in data.paths]
    height, width = data.sizes.T
    return meta.loc[names].assign(path=data.paths, height=height, width=width).reset_index(drop=True)


def _buckets(data: Data) -> list[list[int]]:
    return list(BucketSampler(data.sizes, BATCH))


def _compilers() -> list[str]:
    """What torch.compile needs on a CPU, and Triton on a GPU."""
    return [name for name in ("cc", "gcc", "clang", "cl") if shutil.which(name)]
