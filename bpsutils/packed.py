"""Packed images: whole batches cut out of one flat file of decoded pixels (notebook 12).

`ImageDataset` opens and decodes a file for each sample of each epoch. `PackedImages` gives the same samples and the
same batches, bit for bit, from a store (`bpsutils.store`) in which every image lies decoded. What is left to do for a
batch is to copy pixels, and what mirrors or turns an image happens while they are copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bpsutils.collate import collate_fn_pad
from bpsutils.datasets import ImageDataset, sample_seed
from bpsutils.device import to_device
from bpsutils.images import PathLike, to_float
from bpsutils.store import Store, pack_files
from bpsutils.transforms import Compose, HorizontalFlip, QuarterTurn, ToTensor, VerticalFlip

PACK_FROM = 300  # images from which `Config.packed=None` packs: fewer load from their files in no time
_UPLOAD = 1024  # images copied to a device at once: all together would need their size again in memory

Move = HorizontalFlip | VerticalFlip | QuarterTurn


class PackedImages(ImageDataset):
    """`ImageDataset` from a packed store, which also assembles whole batches: ``dataset.__getitems__(indices)``.

    A DataLoader calls ``__getitems__`` by itself; give it `collate_fn_packed`, for the batch is a batch already, and
    no workers: sending batches between processes costs more than assembling them.

    Samples, labels and what transforms draw are those of `ImageDataset` with the same seed. Flips, `QuarterTurn` and
    `ToTensor`, alone or in `Compose`, cost next to nothing; another transform is called for each image, as there.

    Args:
        path: Folder of the store, from `build` or ``python -m bpsutils pack``.
        table: As for `ImageDataset`; each of its files must be in the store as it is now.
        transform: As for `ImageDataset`.
        target: As for `ImageDataset`.
        classes: As for `ImageDataset`.
        group: As for `ImageDataset`.
        seed: As for `ImageDataset`.
        dtype: ``torch.float32`` for images scaled by ``value_range``, with 0 for padding. ``torch.uint16`` leaves the
            stored grey levels (and a store of 8 bits at 8 bits).
        value_range: Grey levels that become 0 and 1, see `bpsutils.images.to_float`.

    Attributes:
        sizes: Height and width of each stored image, int64 ``(N, 2)``.
        store: The store's index, with ``digest`` and ``verify()``.

    Raises:
        ValueError: As `ImageDataset`; or if the store does not hold the files as they are now, is cut short, or comes
            from another version.

    Example:
        >>> from bpsutils.images import write_image
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name, size in {"a": (79, 114), "b": (141, 149)}.items():
        ...         write_image(f"{folder}/{name}.tif", np.full(size, 582, np.uint16))
        ...     table = pd.DataFrame({"path": [f"{folder}/a.tif", f"{folder}/b.tif"], "particle_type": ["Fe", "X-ray"]})
        ...     images = PackedImages.build(table, f"{folder}/pack")
        ...     batch = images.__getitems__([0, 1])
        >>> batch["images"].shape, batch["images"].dtype, batch["labels"].tolist()
        (torch.Size([2, 1, 141, 149]), torch.float32, [0, 1])
    """

    def __init__(
        self,
        path: PathLike,
        table: pd.DataFrame,
        transform: Callable[[Tensor], Any] | None = None,
        target: str | None = "particle_type",
        classes: Sequence[str] | None = None,
        group: str | Sequence[str] | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        value_range: tuple[float, float] = (0, 65535),
    ) -> None:
        super().__init__(table, transform, target, classes, group=group, seed=seed)
        if dtype not in (torch.float32, torch.uint16):
            raise ValueError(
                f"dtype must be torch.float32 (scaled) or torch.uint16 (grey levels as stored), got {dtype}"
            )
        to_float(np.zeros(0), value_range)  # its error for a range that is upside down
        self.dtype, self.value_range = dtype, value_range
        self.store = Store.read(path)
        rows = self.store.rows.iloc[self.store.find(self.paths.tolist())]
        self._sizes = rows[["height", "width"]].to_numpy(np.int64)
        self.sizes = self._sizes
        self.channels = int(rows["channels"].iloc[0])
        self._starts = rows["offset"].to_numpy(np.int64)
        self._counts = self.channels * self._sizes.prod(axis=1)
        self._pixels = self.store.pixels()
        self._resident: Tensor | None = None

    @classmethod
    def build(cls, table: pd.DataFrame, path: PathLike, **options: Any) -> Self:
        """Pack the files of a table that the store does not hold yet, and open the store.

        Args:
            table: As for `ImageDataset`.
            path: Folder of the store; made if missing.
            options: The other arguments of `PackedImages`.

        Raises:
            ImageError: If a file is no image that can be read.
            ValueError: If the images are not of one kind, or as for `PackedImages`.
            RuntimeError: If another process is packing into the folder.
            OSError: If a file cannot be opened, or the disk is full.
        """
        files = ImageDataset(table, target=None)  # which refuses what is no table of images
        pack_files(path, files.paths.tolist())
        return cls(path, table, **options)

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels of the table's rows take."""
        return int(self._counts.sum()) * self.store.dtype.itemsize

    @property
    def device(self) -> torch.device:
        """Where batches are assembled, see `to`."""
        return torch.device("cpu") if self._resident is None else self._resident.device

    def to(self, device: str | torch.device) -> Self:
        """Copy the table's pixels to a device, and assemble batches there from now on; ``"cpu"`` ends that.

        They stay as they are stored, 2.4 GB for all 77,177 images of the real set. As with a module, the dataset
        itself is changed, and returned.
        """
        device = torch.device(device)
        self._resident = None if device.type == "cpu" else self._upload(device)
        return self

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, see `ImageDataset`; scaled, unless ``dtype`` or the transform decided otherwise.

        Raises:
            IndexError: If there is no such row.
        """
        index = range(len(self))[index]
        start, (height, width) = self._starts[index], self._sizes[index]
        pixels = self._pixels[start : start + self._counts[index]]
        sample = self.sample(index, pixels.reshape(self.channels, height, width).transpose(1, 2, 0))
        assert isinstance(sample, dict)  # as_tuple is not offered here
        image = sample["image"]
        if self.dtype == torch.float32 and isinstance(image, Tensor) and not image.is_floating_point():
            sample["image"] = to_float(image, self.value_range)
        return sample

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """The batch that `bpsutils.bucketing.collate_fn_pad` makes of these samples, on the device of the pixels.

        Raises:
            ValueError: If there are no indices.
            IndexError: If there is no such row.
        """
        if not len(indices):
            raise ValueError("PackedImages got no indices; is the batch empty?")
        moves = _moves(self.transform)
        if moves is None:
            batch = collate_fn_pad([self[index] for index in indices])
            return batch if self._resident is None else to_device(batch, self._resident.device)
        rows = np.arange(len(self))[np.asarray(indices)]
        turns = self._turns(rows, moves)
        sizes = np.where(turns[:, :1], self._sizes[rows, ::-1], self._sizes[rows])
        if self._resident is None:
            images, mask = self._assemble(rows, turns, sizes)
        else:
            images, mask = self._gather(self._resident, rows, turns, sizes)
        batch = {"images": images, "mask": mask, "sizes": self._tensor(sizes)}
        if self.labels is not None:
            batch["labels"] = self._tensor(self.labels[rows])
        batch["groups"] = [name.decode() for name in self.groups[rows].tolist()]
        batch["paths"] = [os.fsdecode(path) for path in self.paths[rows].tolist()]
        return {**batch, "indices": self._tensor(rows)}

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens the file itself: a pickle of the pixels would be as large as all of them.
        if self._resident is not None:
            raise ValueError(f"pixels on {self._resident.device} cannot be shared with workers; set num_workers=0")
        return {**self.__dict__, "_pixels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pixels=state["store"].pixels())

    def _turns(self, rows: np.ndarray, moves: list[Move]) -> np.ndarray:
        """Whether each image is transposed, and then mirrored up-down and left-right: bool ``(B, 3)``.

        Every chain of flips and quarter turns comes down to these three bits.
        """
        if not moves:
            return np.zeros((len(rows), 3), dtype=bool)
        generator, epoch = torch.Generator(), self.epoch  # one of its own: nothing else draws from it
        seeds = [sample_seed(self.seed, epoch, row) for row in rows.tolist()]
        return np.array([_draw(moves, generator.manual_seed(seed)) for seed in seeds])

    def _assemble(self, rows: np.ndarray, turns: np.ndarray, sizes: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images and mask from the file; ``sizes`` are those of the turned images."""
        low, high = self.value_range if self.dtype == torch.float32 else (0, 0)
        height, width = sizes.max(axis=0).tolist()
        shape = (len(rows), self.channels, height, width)
        dtype = np.dtype(np.float32) if self.dtype == torch.float32 else self.store.dtype
        # Padding is filled with what the scaling makes 0. Zeros cost nothing: the system hands out memory that is 0.
        images = np.full(shape, low, dtype) if low else np.zeros(shape, dtype)
        mask = np.zeros((len(rows), height, width), dtype=bool)
        places = zip(self._starts[rows].tolist(), self._sizes[rows].tolist(), turns.tolist(), strict=True)
        for image, real, (start, (h, w), (transposed, up, left)) in zip(images, mask, places, strict=True):
            pixels = self._pixels[start : start + self.channels * h * w].reshape(self.channels, h, w)
            if transposed:
                pixels, h, w = pixels.swapaxes(1, 2), w, h
            if up:
                pixels = pixels[:, ::-1]
            if left:
                pixels = pixels[:, :, ::-1]
            image[:, :h, :w] = pixels
            real[:h, :w] = True
        if self.dtype == torch.float32:  # as `to_float`, once for the batch and in place
            if low:
                images -= np.float32(low)
            images /= np.float32(high - low)
        return torch.from_numpy(images), torch.from_numpy(mask)

    def _upload(self, device: torch.device) -> Tensor:
        """The pixels of the table's rows, one after the other, on a device."""
        counts, ends = self._counts, self._counts.cumsum()
        # Torch cannot gather uint16 on a GPU, but int16 of the same bits.
        signed = np.dtype(np.int16) if self.store.dtype.itemsize == 2 else np.dtype(np.uint8)
        resident = torch.empty(int(ends[-1]), dtype=torch.from_numpy(np.empty(0, signed)).dtype, device=device)
        for first in range(0, len(self), _UPLOAD):
            part = slice(first, first + _UPLOAD)
            pieces = [self._pixels[a : a + n] for a, n in zip(self._starts[part], counts[part], strict=True)]
            block = torch.from_numpy(np.concatenate(pieces).view(signed))
            resident[ends[first] - counts[first] :][: len(block)] = block
        return resident

    def _gather(
        self, resident: Tensor, rows: np.ndarray, turns: np.ndarray, sizes: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """What `_assemble` gives, on the device: for each pixel of the batch, compute where it is stored."""
        (transposed, up, left), (h, w), stored_width = turns.T, sizes.T, self._sizes[rows, 1]
        down = np.where(transposed, 1, stored_width)  # a step down in the batch is this many steps in the store
        right = np.where(transposed, stored_width, 1)
        start = (self._counts.cumsum() - self._counts)[rows] + up * (h - 1) * down + left * (w - 1) * right
        plan = np.stack([start, np.where(up, -down, down), np.where(left, -right, right), h, w, h * w])
        # One copy for all: each would make the device wait.
        first, below, beside, high, wide, plane = self._tensor(plan)[:, :, None, None, None]
        height, width = sizes.max(axis=0).tolist()
        c = torch.arange(self.channels, device=resident.device)[:, None, None]
        i = torch.arange(height, device=resident.device)[:, None]
        j = torch.arange(width, device=resident.device)
        mask = (i < high) & (j < wide)
        place = (first + i * below + j * beside).masked_fill_(~mask, 0) + c * plane
        levels = resident[place]
        if self.dtype == torch.float32:
            levels = self._scaled(levels)
        levels = levels.masked_fill_(~mask, 0)
        return levels.view(torch.uint16) if levels.dtype == torch.int16 else levels, mask[:, 0]

    def _scaled(self, levels: Tensor) -> Tensor:
        """As `to_float`, in place. The divisor is a tensor: by a number, a GPU would multiply with its inverse."""
        low, high = self.value_range
        images = (levels.to(torch.int32) & 0xFFFF).to(torch.float32)
        if low:
            images -= low
        return images.div_(torch.full((), high - low, device=images.device))

    def _tensor(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        # Without waiting: such small copies are taken out of this memory at once.
        return tensor if self._resident is None else tensor.to(self._resident.device, non_blocking=True)


def collate_fn_packed(batch: Any) -> Any:
    """The ``collate_fn`` for `PackedImages`: returns its batch as it is."""
    return batch


def file_paths(table: pd.DataFrame) -> list[bytes]:
    """The files of a table, as the store names them."""
    return [os.fsencode(path) for path in table["path"]]


def _moves(transform: Any) -> list[Move] | None:
    """The flips and turns that a transform consists of; None if there is more to it."""
    if transform is None or type(transform) is ToTensor:
        return []
    if isinstance(transform, Move) and type(transform) in get_args(Move):  # what inherits from one may do more
        return [transform]
    if type(transform) is not Compose:
        return None
    parts = [_moves(part) for part in transform.transforms]
    return None if None in parts else [move for part in parts for move in part or []]


def _draw(moves: list[Move], generator: torch.Generator) -> tuple[bool, bool, bool]:
    """Draw as each of `bpsutils.transforms` draws for one image: transposed, then mirrored up-down, left-right."""
    transposed = up = left = False
    for move in moves:
        if isinstance(move, QuarterTurn):
            for _ in range(int(torch.randint(4, (), generator=generator))):
                transposed, up, left = not transposed, not left, up  # a turn: transpose, then mirror up-down
        elif torch.rand((), generator=generator) < move.p:
            up, left = up ^ isinstance(move, VerticalFlip), left ^ isinstance(move, HorizontalFlip)
    return transposed, up, left
