"""Samplers: which images an epoch shows, how often, and in which order (notebook 04).

The order is a function of ``(seed, epoch)``, and in `HardExampleSampler` of the losses told to it. Nothing else is
remembered between epochs, so a run continues in the middle of one by skipping, and ranks agree without talking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

from bpsutils.datasets import rank_and_world_size


class ClassBalancedSampler(Sampler[int]):
    """Draw each class equally often, each image of a class as evenly as possible.

    A class with more images than its share is undersampled: a part of it, another in each epoch. A class with fewer
    is oversampled: the whole class as often as it fits, then a part. With ``num_samples`` the size of the smallest
    class times the number of classes, nothing repeats; with that of the largest, nothing is left out.

    An image that comes twice in an epoch of an `bpsutils.datasets.ImageDataset` is augmented alike both times.

    Args:
        labels: The class of each image, numbers or text, shape ``(N,)``.
        seed: Together with the epoch it decides the order.
        num_samples: Images in an epoch. Default: as many as there are labels.

    Raises:
        ValueError: If there are no labels, or fewer samples than classes.

    Example:
        >>> labels = np.array(["X-ray"] * 6 + ["Fe"] * 2)
        >>> drawn = labels[list(ClassBalancedSampler(labels))]
        >>> (drawn == "Fe").sum().item(), (drawn == "X-ray").sum().item()
        (4, 4)
    """

    def __init__(self, labels: Sequence[Any] | np.ndarray, seed: int = 0, num_samples: int | None = None) -> None:
        labels = np.asarray(labels)
        if labels.ndim != 1 or not len(labels):
            raise ValueError(f"labels must be a sequence with the class of each image, got shape {labels.shape}")
        classes, of_class = np.unique(labels, return_inverse=True)
        self.members = [np.flatnonzero(of_class == number) for number in range(len(classes))]
        self.num_samples = len(labels) if num_samples is None else num_samples
        if self.num_samples < len(classes):
            raise ValueError(f"num_samples must be at least 1 for each of {len(classes)} classes, got {num_samples}")
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Images in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        share, left_over = divmod(self.num_samples, len(self.members))
        # What does not divide evenly goes to classes drawn by chance, others in each epoch.
        lucky = rng.permutation(len(self.members)) < left_over
        drawn = [_draw(rng, members, share + one) for members, one in zip(self.members, lucky, strict=True)]
        yield from rng.permutation(np.concatenate(drawn)).tolist()


def _draw(rng: np.random.Generator, members: np.ndarray, share: int) -> np.ndarray:
    whole, part = divmod(int(share), len(members))
    return np.concatenate([np.tile(members, whole), rng.choice(members, part, replace=False)])


class HardExampleSampler(Sampler[int]):
    """Draw images with a high loss more often; draws are with replacement.

    The probability of an image is a mixture of two: with weight ``floor`` every image is as likely as the other,
    with the rest as likely as its last recorded loss is large. So no image is ever out of reach, even one whose loss
    is 0. An image without a record counts as one of average loss.

    Args:
        n: Number of images.
        seed: Together with the epoch it decides the order.
        floor: Weight of the even part, above 0 up to 1 (plain drawing with replacement).
        num_samples: Images in an epoch. Default: ``n``.

    Attributes:
        losses: Last recorded loss of each image, ``nan`` where there is none. Keep them in a checkpoint: a resumed
            run needs them for the same order.

    Raises:
        ValueError: If an argument cannot be right; the message names it.

    Example:
        >>> sampler = HardExampleSampler(4, floor=0.2)
        >>> sampler.update([0, 1, 2, 3], [0.0, 1.0, 1.0, 2.0])
        >>> sampler.probabilities().round(2).tolist()
        [0.05, 0.25, 0.25, 0.45]
    """

    def __init__(self, n: int, seed: int = 0, floor: float = 0.2, num_samples: int | None = None) -> None:
        if n < 1:
            raise ValueError(f"n must be the number of images, at least 1, got {n}")
        if not 0 < floor <= 1:
            raise ValueError(f"floor must be above 0 and at most 1, or some images are never seen; got {floor}")
        self.num_samples = n if num_samples is None else num_samples
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        self.losses = np.full(n, np.nan)
        self.seed, self.floor = seed, floor
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def update(self, indices: Any, losses: Any) -> None:
        """Record the losses of some images; they count from the next epoch on.

        Args:
            indices: Which images, shape ``(B,)``: a batch's ``"indices"``.
            losses: Their losses, shape ``(B,)``: from a criterion with ``reduction="none"``, detached.

        Raises:
            ValueError: If there are not as many losses as indices, or a loss is negative or not finite.
            IndexError: If an index is not that of an image.
        """
        indices, losses = (np.asarray(_to_cpu(values)) for values in (indices, losses))
        if indices.shape != losses.shape:
            raise ValueError(
                f"update takes a loss for each index, got {losses.shape} losses and {indices.shape} indices; "
                'compute the loss with reduction="none"'
            )
        if not (np.isfinite(losses) & (losses >= 0)).all():
            raise ValueError("losses must be finite and not negative; a loss of nan means that training diverged")
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self.losses):
            raise IndexError(f"indices must be from 0 to {len(self.losses) - 1}, got up to {indices.max()}")
        self.losses[indices] = losses

    def probabilities(self) -> np.ndarray:
        """How likely each image is in one draw, shape ``(N,)``; they add up to 1."""
        known = ~np.isnan(self.losses)
        largest = self.losses[known].max(initial=0)
        if largest == 0:
            return np.full(len(self.losses), 1 / len(self.losses))
        weights: np.ndarray = np.where(known, self.losses, self.losses[known].mean()) / largest
        mixture: np.ndarray = self.floor / len(weights) + (1 - self.floor) * weights / weights.sum()
        return mixture

    def __len__(self) -> int:
        """Images in an epoch."""
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from rng.choice(len(self.losses), self.num_samples, p=self.probabilities()).tolist()


class Batches(Protocol):
    """A batch sampler: iterates over lists of indices, and knows how many."""

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int: ...


class DistributedBatches(Sampler[list[int]]):
    """Deal each batch of a batch sampler out to all ranks, like cards.

    Give the batch sampler the batch size of all ranks together. Every rank then takes the same number of steps, at
    each step the ranks hold images of one bucket, and together they see what a single process would see. Shares of a
    batch differ by one image at most. No image comes twice or is left out, but for this: a batch with fewer images
    than there are ranks is dealt round again, so that no rank has nothing to do.

    With a pixel budget, too, give the batch sampler that of all ranks together, and say ``shares=world_size``:
    see `bpsutils.bucketing.BucketSampler`.

    Every rank must build it with the same seed and epoch.

    Args:
        batch_sampler: Yields lists of indices, the same on every rank.
        rank: Which share is ours. Default: that of torch.distributed where it runs, else 0.
        world_size: Number of shares. Default: that of torch.distributed where it runs, else 1.

    Raises:
        ValueError: If the rank is not one of ``world_size``.

    Example:
        >>> batches = [[0, 1, 2, 3], [4, 5, 6], [7]]
        >>> list(DistributedBatches(batches, rank=0, world_size=2))
        [[0, 2], [4, 6], [7]]
        >>> list(DistributedBatches(batches, rank=1, world_size=2))
        [[1, 3], [5], [7]]
    """

    def __init__(self, batch_sampler: Batches, rank: int | None = None, world_size: int | None = None) -> None:
        self.batch_sampler = batch_sampler
        self.rank, self.world_size = rank_and_world_size(rank, world_size)

    def set_epoch(self, epoch: int) -> None:
        """Tell the batch sampler, and the sampler inside it, which epoch comes next."""
        set_epoch(self.batch_sampler, epoch)

    def __len__(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batch_sampler:
            yield batch[self.rank :: self.world_size] or [batch[self.rank % len(batch)]]


def set_epoch(part: Any, epoch: int) -> None:
    """Tell a loader's sampler, batch sampler and dataset which epoch comes next, all in one call.

    Call it before the epoch's iteration begins; workers that are already loading would not agree on the epoch.

    Args:
        part: A DataLoader, or a part of one. Parts that have no ``set_epoch`` are passed over.
        epoch: Number of the epoch, from 0.

    Example:
        >>> sampler = ClassBalancedSampler([0, 1, 1])
        >>> set_epoch(torch.utils.data.BatchSampler(sampler, 2, drop_last=False), 3)
        >>> sampler.epoch
        3
    """
    if hasattr(part, "set_epoch"):
        part.set_epoch(epoch)
    for name in ("batch_sampler", "sampler", "dataset"):
        if (inner := getattr(part, name, None)) is not None:
            set_epoch(inner, epoch)


def _to_cpu(values: Any) -> Any:
    return values.detach().cpu() if isinstance(values, torch.Tensor) else values
