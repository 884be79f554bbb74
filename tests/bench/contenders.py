"""What people would pick for an epoch: each library as its documentation advises, all with the same padding.

Each function gives a `Contender` whose ``work`` yields padded float32 batches ``(64, 1, H, W)``. Tar files, caches
and tables are made in ``prepare``, beside the files, and are found there by the next run.
"""

from __future__ import annotations

import io
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from .data import Data
from .harness import Contender

# bytes are read-only, and torchvision says so before it copies them
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

BATCH = 64
LEVEL = np.float32(1 / 65535)  # what one grey level becomes
PREPARED: dict[str, float] = {}  # s that each contender took to prepare
_IN_MEMORY: dict[tuple[int, type], list[np.ndarray]] = {}
to_float = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def per_sample(data: Data, name: str, read: Callable[[str], Any], workers: int = 0) -> Contender:
    """A file, decoded, through torchvision's v2: what most people write first."""
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    return _loader(name, data, lambda: Files(data.paths, read), pad, **options)


def read_pil(path: str) -> Image.Image:
    """A PIL image, its pixels decoded when they are asked for."""
    return Image.open(path)


def monai_cached(data: Data, own_collate: bool) -> Contender:
    """All images as tensors in RAM; one thread, no worker, as MONAI's guide to fast training advises."""

    def make() -> Iterable[Any]:
        from monai.data import CacheDataset, ThreadDataLoader, pad_list_data_collate

        def collate(samples: list[dict[str, Any]]) -> Tensor:
            return pad_list_data_collate(samples, method="end")["image"].as_tensor()

        cached = CacheDataset(_dicts(data), _monai_transform(), copy_cache=False, progress=False)
        options = {"batch_sampler": random_batches(data), "collate_fn": collate if own_collate else pad_column}
        return ThreadDataLoader(cached, num_workers=0, **options)

    name = "MONAI CacheDataset" + (", pad_list_data_collate" if own_collate else "")
    return contender(name, data, make, ordered=True, needs="monai")


def monai_persistent(data: Data) -> Contender:
    """Each image as a file that torch wrote."""

    def make() -> Dataset[Any]:
        from monai.data import PersistentDataset

        stored = PersistentDataset(_dicts(data), _monai_transform(), data.scratch / f"monai-{len(data)}")
        for index in range(len(stored)):
            stored[index]  # writes it where it is not there yet
        return stored

    return _loader("MONAI PersistentDataset", data, make, pad_column, needs="monai")


def webdataset_tiff(data: Data) -> Contender:
    """The files in tars of a thousand, read one after the other and mixed in a buffer of a thousand."""
    return _webdataset("webdataset", data, "tif", lambda path: Path(path).read_bytes(), _decode)


def webdataset_arrays(data: Data) -> Contender:
    """The same, decoded beforehand."""
    return _webdataset("webdataset, arrays", data, "npy", tifffile.imread, scale)


def torchdata_nodes(data: Data) -> Contender:
    """A batch's indices to one of two threads, which reads and pads it, as in the guide to migration."""

    def make() -> Iterable[Any]:
        from torchdata.nodes import Loader, ParallelMapper, SamplerWrapper

        def batch(indices: Sequence[int]) -> Tensor:
            return pad([to_float(tifffile.imread(data.paths[index])) for index in indices])

        indices = SamplerWrapper(random_batches(data))
        return Loader(ParallelMapper(indices, batch, num_workers=2, method="thread"))

    return contender("torchdata nodes, 2 threads", data, make, ordered=True, needs="torchdata.nodes")


def hugging_face_images(data: Data) -> Contender:
    """A table of files with the feature Image, which PIL decodes when it is asked for."""

    def make() -> Dataset[Any]:
        from datasets import Dataset, Image

        table = Dataset.from_dict({"image": data.paths}).cast_column("image", Image())
        return table.with_transform(lambda rows: {"image": [to_float(image) for image in rows["image"]]})

    return _loader("Hugging Face images", data, make, pad_column, needs="datasets")


def hugging_face_bytes(data: Data, by_batch: bool) -> Contender:
    """A mapped Arrow table of raw pixels and their sizes, which is asked for whole batches."""

    def make() -> Dataset[Any]:
        table = _arrow_table(data)
        return table.with_transform(lambda rows: {"image": arrays(rows)})

    def arrays(rows: dict[str, Any]) -> list[np.ndarray]:
        stored = zip(rows["pixels"], rows["height"], rows["width"], strict=True)
        images = (np.frombuffer(pixels, np.uint16).reshape(height, width) for pixels, height, width in stored)
        return list(images if by_batch else map(to_float, images))

    name = "Hugging Face raw bytes" + (", scaled by the batch" if by_batch else "")
    return _loader(name, data, make, pad_column_and_scale if by_batch else pad_column, needs="datasets")


def litdata_arrays(data: Data, by_batch: bool) -> Contender:
    """Arrays in chunks of 64 MB, mapped; chunks are shuffled, and blocks of 256 images inside them."""

    def write(folder: Path) -> None:
        import litdata

        options = {"chunk_bytes": "64MB", "num_workers": 2, "verbose": False}
        litdata.optimize(tifffile.imread, data.paths, str(folder), **options)

    def make() -> Iterable[Any]:
        import litdata

        folder = _made(data.scratch / f"litdata-{len(data)}", write)
        stored = litdata.StreamingDataset(str(folder), shuffle=True, transform=None if by_batch else to_float)
        return litdata.StreamingDataLoader(
            stored, batch_size=BATCH, num_workers=0, collate_fn=pad_and_scale if by_batch else pad
        )

    name = "LitData arrays" + (", scaled by the batch" if by_batch else "")
    return contender(name, data, make, ordered=False, needs="litdata")


def tensors_in_memory(data: Data) -> Contender:
    """A list of float tensors, decoded once."""
    return _loader(
        "list of float tensors in RAM",
        data,
        lambda: [torch.from_numpy(image) for image in in_memory(data, np.float32)],
        pad,
    )


# ----------------------------------------------------------------------------------------- shared by all


class Files(Dataset[Any]):
    """Read and scaled one by one."""

    def __init__(self, paths: Sequence[str], read: Callable[[str], Any]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return to_float(self.read(self.paths[index]))


def contender(
    name: str,
    data: Data,
    make: Callable[[], Iterable[Any]],
    ordered: bool,
    needs: str | None = None,
    order: Sequence[Sequence[int]] | None = None,
    floor: float | None = None,
) -> Contender:
    """One that makes its loader, which is then iterated again and again.

    Args:
        ordered: Whether batches come in `random_batches`' order, or in that of ``order``.
    """

    def prepare() -> Iterable[Any]:
        start = time.perf_counter()
        loader = make()
        PREPARED[name] = time.perf_counter() - start
        return loader

    batches = (order or random_batches(data)) if ordered else None
    return Contender(
        name, iter, len(data), lambda images: checks(images, data.sizes, batches), prepare, needs=needs, floor=floor
    )


def checks(batches: Iterable[Tensor], sizes: np.ndarray, order: Sequence[Sequence[int]] | None) -> Iterator[int]:
    """A number for each image that tells its grey levels and their places, whatever it is padded to.

    Raises:
        ValueError: If a batch is padded to more than its largest height and width, or is not the one of ``order``.
    """
    for number, batch in enumerate(batches):
        images = batch.cpu().numpy()
        height, width = images.shape[-2:]
        if not (images[..., -1, :].any() and images[..., -1].any()):
            raise ValueError(f"batch {number} is padded to {height} x {width} pixels, which no image of it has")
        if order and (height, width) != tuple(sizes[order[number]].max(axis=0)):
            raise ValueError(f"batch {number} is of {height} x {width} pixels; another order was asked for")
        levels = images if images.dtype == np.uint16 else np.rint(images * np.float64(65535))
        # float64 holds these whole numbers exactly
        yield from (levels.reshape(len(images), -1) @ _places(height, width)).astype(np.int64).tolist()


@cache
def _places(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (1.0 + (31 * rows + 17 * columns) % 97).ravel()


def random_batches(data: Data) -> list[list[int]]:
    """The random order that all share who can be given one."""
    order = np.random.default_rng(1).permutation(len(data))
    return [order[start : start + BATCH].tolist() for start in range(0, len(data), BATCH)]


def pad(images: Sequence[Any]) -> Tensor:
    """Float images ``(..., H, W)``, zeros at the bottom and right. NumPy's assignment beats torch's two times."""
    return torch.from_numpy(_padded(images))


def pad_and_scale(images: Sequence[np.ndarray]) -> Tensor:
    """Grey levels into a float batch, which is then scaled at once: our own idea, lent to others."""
    batch = _padded(images)
    batch *= LEVEL
    return torch.from_numpy(batch)


def pad_column(samples: Sequence[dict[str, Any]]) -> Tensor:
    """The same for samples with a key ``"image"``."""
    return pad([sample["image"] for sample in samples])


def pad_column_and_scale(samples: Sequence[dict[str, Any]]) -> Tensor:
    """The same for samples with a key ``"image"``."""
    return pad_and_scale([sample["image"] for sample in samples])


def _padded(images: Sequence[Any]) -> np.ndarray:
    images = [np.asarray(image) for image in images]
    height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
    batch = np.zeros((len(images), 1, height, width), np.float32)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[-2], : image.shape[-1]] = image
    return batch


def scale(image: np.ndarray) -> np.ndarray:
    """Grey levels to floats from 0 to 1, in one pass."""
    return image * LEVEL


def in_memory(data: Data, dtype: type[np.uint16] | type[np.float32]) -> list[np.ndarray]:
    """All images one behind the other in one array, as grey levels or scaled; kept for the next who asks."""
    key = len(data), dtype
    if key not in _IN_MEMORY:
        ends = data.sizes.prod(axis=1).cumsum()
        pixels = np.empty(ends[-1], dtype)
        images = [part.reshape(size) for part, size in zip(np.split(pixels, ends[:-1]), data.sizes, strict=True)]
        for image, path in zip(images, data.paths, strict=True):
            levels = tifffile.imread(path)
            image[:] = scale(levels) if dtype is np.float32 else levels
        _IN_MEMORY[key] = images
    return _IN_MEMORY[key]


# ----------------------------------------------------------------------------------- parts of the contenders


def _loader(
    name: str, data: Data, make: Callable[[], Any], collate: Callable[..., Tensor], **options: Any
) -> Contender:
    needs = options.pop("needs", None)

    def loader() -> DataLoader[Any]:
        return DataLoader(make(), batch_sampler=random_batches(data), collate_fn=collate, **options)

    return contender(name, data, loader, ordered=True, needs=needs)


def _dicts(data: Data) -> list[dict[str, str]]:
    return [{"image": path} for path in data.paths]


def _monai_transform() -> Any:
    from monai.data import PILReader
    from monai.transforms import Compose, EnsureTyped, LoadImaged, ScaleIntensityRanged

    read = LoadImaged("image", PILReader(reverse_indexing=False), image_only=True, ensure_channel_first=True)
    return Compose([read, ScaleIntensityRanged("image", 0, 65535, 0, 1), EnsureTyped("image", track_meta=False)])


def _webdataset(
    name: str, data: Data, suffix: str, store: Callable[[str], Any], decode: Callable[[Any], Any]
) -> Contender:
    def write(folder: Path) -> None:
        import webdataset as wds

        folder.mkdir()
        with wds.ShardWriter(f"{folder}/%06d.tar", maxcount=1000, verbose=0) as writer:
            for index, path in enumerate(data.paths):
                writer.write({"__key__": f"{index:06d}", suffix: store(path)})

    def make() -> Iterable[Any]:
        import webdataset as wds

        folder = _made(data.scratch / f"webdataset-{suffix}-{len(data)}", write)
        shards = sorted(map(str, folder.glob("*.tar")))
        samples = wds.WebDataset(shards, shardshuffle=len(shards)).shuffle(1000)
        samples = (samples.decode() if suffix == "npy" else samples).to_tuple(suffix).map_tuple(decode)
        batches = samples.batched(BATCH, collation_fn=lambda rows: pad([image for (image,) in rows]))
        return wds.WebLoader(batches, batch_size=None, num_workers=0)

    return contender(name, data, make, ordered=False, needs="webdataset")


def _decode(file: bytes) -> Tensor:
    return to_float(tifffile.imread(io.BytesIO(file)))


def _arrow_table(data: Data) -> Any:
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        for image in map(tifffile.imread, data.paths):
            yield {"pixels": image.tobytes(), "height": image.shape[0], "width": image.shape[1]}

    def write(folder: Path) -> None:
        datasets.disable_progress_bars()
        kinds = {"pixels": "binary", "height": "int32", "width": "int32"}
        features = datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()})
        table = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(data.scratch / "arrow-cache"))
        table.save_to_disk(str(folder))

    return datasets.load_from_disk(str(_made(data.scratch / f"arrow-{len(data)}", write)))


def _made(folder: Path, write: Callable[[Path], None]) -> Path:
    """The folder, written whole unless an earlier run did."""
    if not folder.exists():
        temporary = folder.with_name(folder.name + ".part")
        shutil.rmtree(temporary, ignore_errors=True)
        write(temporary)
        temporary.rename(folder)
    return folder
