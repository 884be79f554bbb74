"""Transforms: callable classes that change an image, safe for 16 bits (notebook 06).

Each takes one image ``(C, H, W)``, as `bpsutils.datasets.ImageDataset` gives it, or a batch ``(B, C, H, W)`` of images
of one size. Where chance decides, it decides for every image of a batch anew. Chance comes from torch's global
generator, as in torchvision, so that whoever calls a transform can seed it.

``@dataclass`` writes ``__init__`` and ``__repr__``; what is left of a transform is what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bpsutils.config import Config
from bpsutils.images import to_float

Size = int | tuple[int, int]


class Compose:
    """Call transforms one after the other.

    Args:
        transforms: Callables, each of which takes what the one before returns.

    Example:
        >>> Compose([ToTensor(), CenterCrop(2)])(np.zeros((4, 6), np.uint16)).shape
        torch.Size([1, 2, 2])
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """Whatever the first transform takes in, what the last one returns out."""
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


@dataclass(frozen=True)
class ToTensor:
    """Turn an array or a PIL image into a tensor, channels first, grey levels and their type untouched.

    Unlike torchvision's namesake it does not scale: that one divides by 255, which is right for 8 bits only.

    Example:
        >>> ToTensor()(np.array([[257, 65535]], np.uint16)).tolist()
        [[[257, 65535]]]
    """

    def __call__(self, image: Any) -> Tensor:
        """``(H, W)`` or ``(H, W, C)`` in, ``(C, H, W)`` out; a tensor is returned as it is.

        Raises:
            ValueError: If an array has another number of dimensions.
        """
        if isinstance(image, Tensor):
            return image
        array = np.asarray(image)
        if array.ndim not in (2, 3):
            raise ValueError(f"ToTensor takes an image (H, W) or (H, W, C), got shape {array.shape}")
        channels_first = np.atleast_3d(array).transpose(2, 0, 1)
        # A copy, in this machine's byte order: torch takes no other, and must not write into the caller's array.
        return torch.from_numpy(channels_first.astype(array.dtype.newbyteorder("="), order="C", copy=True))


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left and right with probability ``p``.

    Example:
        >>> HorizontalFlip(p=1.0)(torch.tensor([[[1, 2, 3]]])).tolist()
        [[[3, 2, 1]]]
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability(self)

    def __call__(self, images: Tensor) -> Tensor:
        """``(..., C, H, W)`` in, the same shape out."""
        coins = _coins(self.p, images)
        return _move(images, lambda pixels: torch.where(coins, pixels.flip(-1), pixels))


@dataclass(frozen=True)
class VerticalFlip:
    """Mirror top and bottom with probability ``p``.

    Example:
        >>> VerticalFlip(p=1.0)(torch.tensor([[[1], [2], [3]]])).tolist()
        [[[3], [2], [1]]]
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability(self)

    def __call__(self, images: Tensor) -> Tensor:
        """``(..., C, H, W)`` in, the same shape out."""
        coins = _coins(self.p, images)
        return _move(images, lambda pixels: torch.where(coins, pixels.flip(-2), pixels))


@dataclass(frozen=True)
class QuarterTurn:
    """Turn by 0, 90, 180 or 270 degrees, each as likely. A nucleus has no upright.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> QuarterTurn()(torch.tensor([[[1, 2, 3]]])).shape in ((1, 1, 3), (1, 3, 1))
        True
    """

    def __call__(self, images: Tensor) -> Tensor:
        """``(C, H, W)`` in, ``(C, H, W)`` or ``(C, W, H)`` out; in a batch, images must be square.

        Raises:
            ValueError: If a batch is not square: its images would no longer be of one size.
        """
        if images.ndim == 3:
            turns = int(torch.randint(4, ()))
            return _move(images, lambda pixels: torch.rot90(pixels, turns, (-2, -1)))
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(
                f"QuarterTurn turns batches of square images, got {tuple(images.shape)}; "
                "crop or resize to a square first, or turn each image before it is batched"
            )
        return torch.stack([self(image) for image in images])


@dataclass(frozen=True)
class RandomCrop:
    """Cut a window of ``size`` out of the image, every place as likely.

    An image smaller than the window is an error, not padded: a black border is no tissue, and only
    `bpsutils.bucketing.collate_fn_pad` also says which pixels are padding.

    Example:
        >>> RandomCrop(64)(torch.zeros(1, 141, 149)).shape
        torch.Size([1, 64, 64])
    """

    size: Size

    def __post_init__(self) -> None:
        _height_width(self)

    def __call__(self, images: Tensor) -> Tensor:
        """``(..., C, H, W)`` in, ``(..., C, *size)`` out; each image of a batch has a place of its own.

        Raises:
            ValueError: If the image is smaller than the window.
        """
        if images.ndim > 3:
            return torch.stack([self(image) for image in images])
        room_down, room_right = _room(self, images)
        top, left = int(torch.randint(room_down + 1, ())), int(torch.randint(room_right + 1, ()))
        return _window(images, top, left, _height_width(self))


@dataclass(frozen=True)
class CenterCrop:
    """Cut a window of ``size`` out of the middle. An image smaller than that is an error, as in `RandomCrop`.

    Example:
        >>> CenterCrop((1, 2))(torch.arange(12).reshape(1, 3, 4)).tolist()
        [[[5, 6]]]
    """

    size: Size

    def __post_init__(self) -> None:
        _height_width(self)

    def __call__(self, images: Tensor) -> Tensor:
        """``(..., C, H, W)`` in, ``(..., C, *size)`` out.

        Raises:
            ValueError: If the image is smaller than the window.
        """
        room_down, room_right = _room(self, images)
        return _window(images, room_down // 2, room_right // 2, _height_width(self))


@dataclass(frozen=True)
class Resize:
    """Resize to ``size``, a square's side or ``(height, width)``: bilinear, and smoothed first when shrinking.

    Without the smoothing (``antialias``) a shrunken image takes some pixels and skips others, and with them a focus
    of 4 pixels.

    Example:
        >>> Resize(2)(torch.full((1, 5, 7), 65535, dtype=torch.uint16)).tolist()
        [[[65535, 65535], [65535, 65535]]]
    """

    size: Size

    def __post_init__(self) -> None:
        _height_width(self)

    def __call__(self, images: Tensor) -> Tensor:
        """``(..., C, H, W)`` in, ``(..., C, *size)`` out, in the same dtype; whole numbers are rounded."""
        batch = images.reshape(-1, *images.shape[-3:])
        resized = torch.nn.functional.interpolate(
            _as_float(batch), _height_width(self), mode="bilinear", antialias=True
        )
        return _as_dtype(resized, images.dtype).reshape(*images.shape[:-2], *resized.shape[-2:])


@dataclass(frozen=True)
class AddNoise:
    """Add Gaussian noise of standard deviation ``sigma``, in the image's own grey levels.

    Example:
        >>> AddNoise(sigma=30)(torch.full((1, 2, 2), 65535, dtype=torch.uint16)).dtype
        torch.uint16
    """

    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise ValueError(f"AddNoise.sigma must not be negative, got {self.sigma}")

    def __call__(self, images: Tensor) -> Tensor:
        """Any shape in, the same shape and dtype out; whole numbers are rounded and stay in their range."""
        exact = _as_float(images)
        return _as_dtype(exact + self.sigma * torch.randn_like(exact), images.dtype)


@dataclass(frozen=True)
class ToFloat:
    """Scale grey levels to float32 by a declared range, see `bpsutils.images.to_float`.

    Example:
        >>> ToFloat((0, 65535))(torch.tensor([0, 65535], dtype=torch.uint16)).tolist()
        [0.0, 1.0]
    """

    value_range: tuple[float, float] = (0, 65535)

    def __call__(self, images: Tensor) -> Tensor:
        """Any shape in, the same shape out, as float32."""
        return to_float(images, self.value_range)


@dataclass(frozen=True)
class Normalize:
    """Subtract ``mean`` and divide by ``std``: the data set's, one number a channel.

    What comes out has mean 0 and variance 1 over the data set; its shape of distribution stays.

    Example:
        >>> Normalize(mean=[0.5], std=[0.25])(torch.tensor([[[0.5, 1.0]]])).tolist()
        [[[0.0, 2.0]]]
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(spread > 0 for spread in self.std):
            raise ValueError(
                f"Normalize takes a mean and a std above 0 for each channel, got {self.mean} and {self.std}"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Floats ``(..., C, H, W)`` in, the same shape and dtype out.

        Raises:
            TypeError: If the image is of whole numbers: those cannot go below zero.
            ValueError: If the image has another number of channels.
        """
        _check_float(self, images)
        if images.shape[-3] != len(self.mean):
            raise ValueError(f"{self} is for {len(self.mean)} channels, got an image {tuple(images.shape)}")
        mean, std = (images.new_tensor(list(values))[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True)
class Standardise:
    """Take out each image's own brightness and contrast: mean 0 and standard deviation 1 in every channel.

    A plate that is brighter (an offset) or lit more strongly (a gain) gives the same image afterwards, so a network
    cannot tell plates by it. Mean and standard deviation, not median and quartiles: a gain and an offset cancel in
    either pair, and sums need no sorting and leave padding out easily. An image of one grey level becomes zeros.

    Example:
        >>> Standardise()(torch.tensor([[[1.0, 3.0]]])).tolist()
        [[[-1.0, 1.0]]]
    """

    def __call__(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardise over the real pixels, and set padding to 0.

        Args:
            images: Floats, ``(B, C, H, W)`` or ``(C, H, W)``.
            mask: True where a pixel is real, ``(B, H, W)`` or ``(H, W)``. Without it, everywhere.

        Returns:
            The same shape and dtype.

        Raises:
            TypeError: If the images are of whole numbers.
        """
        _check_float(self, images)
        real = images.new_ones(()) if mask is None else mask.unsqueeze(-3).to(images.dtype)
        pixels = real.expand_as(images).sum((-2, -1), keepdim=True).clamp_min(1)
        mean = (images * real).sum((-2, -1), keepdim=True) / pixels
        centred = (images - mean) * real
        spread = (centred.square().sum((-2, -1), keepdim=True) / pixels).sqrt()
        # One grey level throughout leaves only rounding errors, which must not be blown up to contrast.
        flat = spread <= 1e-6 * mean.abs()
        return torch.where(flat, 0, centred / spread.masked_fill(flat, 1))


def train_transform(config: Config) -> Compose:
    """What training images go through: resizing where asked for, then every mirror image as likely as the other.

    A quarter turn changes height for width, which takes an image out of the bucket of its size: on sizes like the
    real ones a batch of 64 is then 27 % padding, not 12. So `transpose_batch` turns a batch as a whole.

    Example:
        >>> train_transform(Config())
        Compose([ToTensor(), HorizontalFlip(p=0.5), VerticalFlip(p=0.5)])
    """
    return Compose([*eval_transform(config).transforms, HorizontalFlip(), VerticalFlip()])


def eval_transform(config: Config) -> Compose:
    """What validation and test images go through: nothing left to chance.

    Example:
        >>> eval_transform(Config(resize=64))
        Compose([ToTensor(), Resize(size=64)])
    """
    return Compose([ToTensor(), *([Resize(config.resize)] if config.resize else [])])


def transpose_batch(images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Exchange rows and columns of a whole batch, or leave it: a coin for the batch.

    With the flips of `train_transform` before it, an image is seen in all eight ways it can lie on a grid. Padding
    stays at the bottom and right.

    Args:
        images: On any device, shape ``(B, C, H, W)``.
        mask: Where pixels are real, shape ``(B, H, W)``.

    Returns:
        Both as they were, or of shape ``(B, C, W, H)`` and ``(B, W, H)``.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> images, mask = transpose_batch(torch.rand(2, 1, 3, 5), torch.ones(2, 3, 5, dtype=torch.bool))
        >>> images.shape[2:] == mask.shape[1:]
        True
    """
    if torch.rand(()) < 0.5:
        return images, mask
    return images.transpose(-2, -1), None if mask is None else mask.transpose(-2, -1)


def _move(images: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Move pixels about. Torch 2.11, which Colab has, flips no uint16 on the CPU, but int16 of the same bits."""
    if images.dtype != torch.uint16:
        return move(images)
    return move(images.view(torch.int16)).view(torch.uint16)


def _coins(p: float, images: Tensor) -> Tensor:
    """A coin for each image, shaped so that it counts for the whole image."""
    coins = torch.rand(images.shape[:-3]) < p
    return coins[..., None, None, None].to(images.device)


def _height_width(transform: RandomCrop | CenterCrop | Resize) -> tuple[int, int]:
    size = transform.size
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"{type(transform).__name__}.size must be at least 1 pixel, got {size}")
    return height, width


def _room(transform: RandomCrop | CenterCrop, images: Tensor) -> tuple[int, int]:
    height, width = _height_width(transform)
    room_down, room_right = images.shape[-2] - height, images.shape[-1] - width
    if room_down < 0 or room_right < 0:
        raise ValueError(
            f"{transform} got an image of only {images.shape[-2]} x {images.shape[-1]} pixels; "
            "leave small images out with Config.min_size, or use Resize"
        )
    return room_down, room_right


def _window(images: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    return images[..., top : top + size[0], left : left + size[1]]


def _as_float(images: Tensor) -> Tensor:
    """uint16 knows no arithmetic in torch; float32 holds every whole number of up to 24 bits exactly."""
    return images if images.is_floating_point() else images.to(torch.float32)


def _as_dtype(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Back to the image's type; whole numbers are rounded and clamped, because a cast would cut and wrap."""
    if dtype.is_floating_point:
        return images.to(dtype)
    limits = torch.iinfo(dtype)
    return images.round().clamp(limits.min, limits.max).to(dtype)


def _check_float(transform: Normalize | Standardise, images: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(
            f"{type(transform).__name__} takes floats, got {images.dtype}: uint16 has no values below zero; "
            "scale first, with ToFloat(value_range)"
        )


def _check_probability(transform: HorizontalFlip | VerticalFlip) -> None:
    if not 0 <= transform.p <= 1:
        raise ValueError(f"{type(transform).__name__}.p must be from 0 to 1, got {transform.p}")
