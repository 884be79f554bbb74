"""Batches that hold so many pixels, not so many images (notebook 12).

A budget of pixels gives every step about the same work and the same memory, whatever the images' sizes: many small
images in one batch, few large ones in another.
"""

from __future__ import annotations

import numpy as np


def check_budget(sizes: np.ndarray, pixel_budget: int, shares: int = 1) -> None:
    """Refuse a budget that one of the images exceeds on its own.

    Args:
        sizes: Height and width of each image in pixels, shape ``(N, 2)``.
        pixel_budget: See `cut_by_budget`.
        shares: See `cut_by_budget`.

    Raises:
        ValueError: If an image is too large; the message names it and the smallest budget that works.
    """
    areas = sizes[:, 0].astype(np.int64) * sizes[:, 1]
    largest = int(areas.argmax())
    if areas[largest] * shares > pixel_budget:
        height, width = sizes[largest].tolist()
        raise ValueError(
            f"pixel_budget allows {pixel_budget // shares:,} pixels, and image {largest} of {height} x {width} px has "
            f"{areas[largest]:,}; allow at least as many, or leave out large images by Config.max_size"
        )


def cut_by_budget(sizes: np.ndarray, batch_size: int, pixel_budget: int, shares: int = 1) -> np.ndarray:
    """Cut images, in the order they are in, into the fewest batches whose padded pixels keep to a budget.

    Each batch takes images for as long as count × largest height × largest width fits; in a given order no other
    cuts make fewer batches.

    Args:
        sizes: Height and width of each image in pixels, in the order to be cut, shape ``(N, 2)``.
        batch_size: Most images in a batch.
        pixel_budget: Most padded pixels in a batch.
        shares: Ranks among which a batch will be dealt out. Their shares differ by one image, so the count is rounded
            up to a multiple of ``shares``: then each share fits into its part of the budget.

    Returns:
        Where the batches begin, and ``N``: batch ``i`` is ``cuts[i]:cuts[i + 1]``.

    Example:
        >>> sizes = np.array([[10, 10], [10, 10], [10, 12], [20, 20]])
        >>> cut_by_budget(sizes, batch_size=8, pixel_budget=400).tolist()
        [0, 3, 4]
    """
    height, width = sizes.T.astype(np.int64, order="C")
    least = (height * width).tolist()
    counts = -(-np.arange(1, min(batch_size, len(sizes)) + 1) // shares) * shares
    cuts = [0]
    while (start := cuts[-1]) < len(sizes):
        # one image more never needs fewer pixels, so no more than this many can fit
        end = start + min(batch_size, max(1, pixel_budget // least[start]))
        tallest, widest = (np.maximum.accumulate(side[start:end]) for side in (height, width))
        padded = tallest * widest * counts[: len(tallest)]
        cuts.append(start + max(1, int(padded.searchsorted(pixel_budget, side="right"))))
    return np.array(cuts)


def split_largest(cuts: np.ndarray, batches: int) -> np.ndarray:
    """Halve the batches of most images until there are so many batches; a half needs no more pixels than the whole.

    Args:
        cuts: As `cut_by_budget` returns them.
        batches: How many there shall be, from ``len(cuts) - 1`` to the number of images.

    Example:
        >>> split_largest(np.array([0, 4, 5]), batches=3).tolist()
        [0, 2, 4, 5]
    """
    while (lacking := batches + 1 - len(cuts)) > 0:
        counts = np.diff(cuts)
        largest = np.argsort(-counts, kind="stable")[:lacking]
        largest = largest[counts[largest] > 1]
        cuts = np.sort(np.concatenate([cuts, cuts[largest] + counts[largest] // 2]))
    return cuts
