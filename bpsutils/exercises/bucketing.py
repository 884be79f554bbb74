"""Exercises of notebook 07: padding, waste, buckets by two sides, batch-mates, pooling by a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bpsutils.bucketing import mates_met_again, padding_waste
from bpsutils.exercises import Exercise, Misconception


def _test_pad_batch(pad_batch: Callable[[list[torch.Tensor]], Any]) -> str | None:
    def image(height: int, width: int, first: int) -> torch.Tensor:
        levels = np.arange(first, first + height * width, dtype=np.uint16).reshape(1, height, width)
        return torch.from_numpy(levels)

    for sizes in ([(2, 5), (4, 3), (1, 2)], [(3, 2)]):
        images = [image(h, w, 40_000 + 100 * n) for n, (h, w) in enumerate(sizes)]
        got = pad_batch(images)
        height, width = np.max(sizes, axis=0).tolist()
        problem = _padding_problem(images, got, (len(images), 1, height, width))
        if problem:
            return problem
    return None


def _padding_problem(images: list[torch.Tensor], got: Any, shape: tuple[int, ...]) -> str | None:
    if not isinstance(got, torch.Tensor):
        return f"return one tensor, not {type(got).__name__}"
    if tuple(got.shape) == (len(images), 1, 2, 5) or tuple(got.shape) == (len(images), 1, 4, 3):
        return (
            "height and width are those of one image; the largest height may come from one image and the largest "
            "width from another"
        )
    if tuple(got.shape) != shape:
        return f"images of {[tuple(image.shape) for image in images]} make a batch {shape}, not {tuple(got.shape)}"
    if got.dtype != torch.uint16:
        return f"the images are torch.uint16 and the batch should be, too; yours is {got.dtype}"
    for number, image in enumerate(images):
        levels, own = got[number, 0].numpy(), image[0].numpy()
        inside = levels[: own.shape[0], : own.shape[1]]
        if not np.array_equal(inside, own):
            if sorted(levels[levels > 0]) == sorted(own.ravel()):
                return "each image should start at row 0 and column 0, with zeros below and to the right only"
            return f"image {number} is not in the batch as it was"
        if int((levels != 0).sum()) != own.size:
            return f"around image {number} there is something other than zeros"
    return None


q1 = Exercise(
    name="q1",
    answer="pad_batch",
    test=_test_pad_batch,
    right="one frame for all, zeros below and to the right, and still 16 bits",
    hints=(
        "Two questions: how large is the frame, and where in it does each image go?",
        "Height and width of the frame are separate maxima. Fill a tensor of zeros, one image after the other.",
        "torch.zeros(B, 1, H, W, dtype=…), then batch[i, :, : image.shape[1], : image.shape[2]] = image.",
    ),
    solution_code="""
def pad_batch(images):
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    batch = torch.zeros(len(images), 1, height, width, dtype=images[0].dtype)
    for i, image in enumerate(images):
        batch[i, :, : image.shape[1], : image.shape[2]] = image
    return batch
""",
    why=(
        "an image that starts at row 0 and column 0 is found again by its own height and width. Zeros and the images "
        "have one dtype, so nothing is converted."
    ),
    misconceptions={
        "the largest image's frame": Misconception(
            "def pad_batch(images):\n"
            "    largest = max(images, key=lambda image: image.numel())\n"
            "    batch = torch.zeros(len(images), *largest.shape, dtype=largest.dtype)\n"
            "    for i, image in enumerate(images):\n"
            "        part = image[:, : largest.shape[1], : largest.shape[2]]\n"
            "        batch[i, :, : part.shape[1], : part.shape[2]] = part\n"
            "    return batch",
            "largest height may come from one image",
        ),
        "centred": Misconception(
            "def pad_batch(images):\n"
            "    height = max(image.shape[1] for image in images)\n"
            "    width = max(image.shape[2] for image in images)\n"
            "    batch = torch.zeros(len(images), 1, height, width, dtype=images[0].dtype)\n"
            "    for i, image in enumerate(images):\n"
            "        _, h, w = image.shape\n"
            "        top, left = (height - h) // 2, (width - w) // 2\n"
            "        batch[i, :, top : top + h, left : left + w] = image\n"
            "    return batch",
            "should start at row 0",
        ),
        "floats on the way": Misconception(
            "def pad_batch(images):\n"
            "    height = max(image.shape[1] for image in images)\n"
            "    width = max(image.shape[2] for image in images)\n"
            "    batch = torch.zeros(len(images), 1, height, width)\n"
            "    for i, image in enumerate(images):\n"
            "        batch[i, :, : image.shape[1], : image.shape[2]] = image\n"
            "    return batch",
            "yours is torch.float32",
        ),
        "a list": Misconception("def pad_batch(images):\n    return list(images)", "return one tensor, not list"),
    },
    equivalent=(
        """
def pad_batch(images):
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    batch = torch.zeros(len(images), 1, height, width, dtype=images[-1].dtype)
    for i, image in enumerate(images):
        batch[i, :, : image.shape[1], : image.shape[2]] = image
    return batch
""",
    ),
)


def _test_waste(waste: Callable[[np.ndarray, list[list[int]]], Any]) -> str | None:
    sizes = np.array([[4, 4], [4, 2], [3, 9], [6, 5], [2, 7]])
    batches = [[0, 1], [2, 3, 4]]
    got = float(waste(sizes, batches))
    right = padding_waste(sizes, batches)
    shares = [padding_waste(sizes, [batch]) for batch in batches]
    areas = sizes.prod(axis=1)
    largest = 1 - areas.sum() / sum(len(batch) * areas[batch].max() for batch in batches)
    for value, message in {
        1 - right: "that is the share of real pixels; the waste is what is left of 1",
        right / (1 - right): "you divide by the real pixels; the waste is a share of all pixels, the padded ones",
        float(
            np.mean(shares)
        ): "that is the mean of the batches' shares; a large batch has more pixels and counts more",
        largest: "the frame is the largest height times the largest width; the largest area can be less",
    }.items():
        if np.isclose(got, value, rtol=0, atol=1e-9):
            return message
    if not np.isclose(got, right, rtol=0, atol=1e-9):
        return f"sizes {sizes.tolist()} in batches {batches} waste {right:.4f}, you say {got:.4f}"
    return None


q2 = Exercise(
    name="q2",
    answer="waste",
    test=_test_waste,
    right="real pixels over padded ones, both summed over the epoch before they are divided",
    hints=(
        "Two sums over the epoch: pixels that are image, and pixels that are stored.",
        "A batch stores as many frames as it has images; a frame is its largest height times its largest width.",
        "real += sizes[batch].prod(axis=1).sum(); padded += len(batch) * sizes[batch].max(axis=0).prod()",
    ),
    solution_code="""
def waste(sizes, batches):
    real = padded = 0
    for batch in batches:
        real += sizes[batch].prod(axis=1).sum()
        padded += len(batch) * sizes[batch].max(axis=0).prod()
    return 1 - real / padded
""",
    why=(
        "max(axis=0) takes the largest height and the largest width apart, as padding does. Summing first gives each "
        "pixel the same weight, whichever batch it is in."
    ),
    misconceptions={
        "the largest area": Misconception(
            "def waste(sizes, batches):\n"
            "    real = padded = 0\n"
            "    for batch in batches:\n"
            "        areas = sizes[batch].prod(axis=1)\n"
            "        real += areas.sum()\n"
            "        padded += len(batch) * areas.max()\n"
            "    return 1 - real / padded",
            "the largest area can be less",
        ),
        "mean of shares": Misconception(
            "def waste(sizes, batches):\n"
            "    shares = []\n"
            "    for batch in batches:\n"
            "        real = sizes[batch].prod(axis=1).sum()\n"
            "        shares.append(1 - real / (len(batch) * sizes[batch].max(axis=0).prod()))\n"
            "    return np.mean(shares)",
            "the mean of the batches' shares",
        ),
        "share of real pixels": Misconception(
            "def waste(sizes, batches):\n"
            "    real = sum(sizes[batch].prod(axis=1).sum() for batch in batches)\n"
            "    return real / sum(len(batch) * sizes[batch].max(axis=0).prod() for batch in batches)",
            "the share of real pixels",
        ),
        "of the real pixels": Misconception(
            "def waste(sizes, batches):\n"
            "    real = sum(sizes[batch].prod(axis=1).sum() for batch in batches)\n"
            "    return sum(len(batch) * sizes[batch].max(axis=0).prod() for batch in batches) / real - 1",
            "you divide by the real pixels",
        ),
    },
)


def _test_buckets(buckets: Callable[[np.ndarray, int], Any]) -> str | None:
    rng = np.random.default_rng(0)
    sizes = np.stack([rng.integers(79, 171, 900), rng.integers(114, 183, 900)], axis=1)
    batches = [np.asarray(batch) for batch in buckets(sizes, 9)]
    if any(batch.ndim != 1 for batch in batches):
        return "each batch should be a list or array of image numbers"
    seen = np.bincount(np.concatenate(batches).astype(int), minlength=900)
    if (seen != 1).any():
        return f"each image belongs into exactly one batch: {int((seen == 0).sum())} of 900 are in none"
    if len(batches) != 100 or max(map(len, batches)) > 9:
        return f"900 images make 100 batches of 9; yours are {len(batches)}, the largest of {max(map(len, batches))}"
    got = padding_waste(sizes, batches)
    height, width = np.median([np.ptp(sizes[batch], axis=0) for batch in batches], axis=0)
    if got <= 0.06:
        return None
    told = f"{got:.1%} is padding, and 6 % can be reached: "
    if height < 3 and width > 40:
        return told + "heights are alike in your batches, widths are not; each height has room for a sort by width"
    if width < 3 and height > 50:
        return told + "widths are alike in your batches, and heights vary freely"
    areas = np.median([np.ptp(sizes[batch].prod(axis=1)) for batch in batches])
    if areas < 500:
        return told + "areas are alike in your batches, but a tall image and a broad one can have the same area"
    return told + f"in a typical batch heights differ by {height:.0f} px and widths by {width:.0f} px; balance the two"


q3 = Exercise(
    name="q3",
    answer="buckets",
    test=_test_buckets,
    right="both sides are nearly alike in every batch, and each image is in one",
    hints=(
        "One sort makes one side alike. Sort twice: first all images by one side, then groups of them by the other.",
        "100 batches can be 10 strips of height, each of 10 batches of width: √(number of batches) of each.",
        "for strip in np.array_split(by_height, n_strips): sort it by sizes[strip, 1] and cut it every batch_size.",
    ),
    solution_code="""
def buckets(sizes, batch_size):
    n_strips = int((len(sizes) / batch_size) ** 0.5)
    by_height = np.argsort(sizes[:, 0])
    batches = []
    for strip in np.array_split(by_height, n_strips):
        by_width = strip[np.argsort(sizes[strip, 1])]
        batches += np.split(by_width, range(batch_size, len(by_width), batch_size))
    return batches
""",
    why=(
        "with √n strips, heights differ inside a batch about as little as widths do. More strips would make heights "
        "more alike and widths less."
    ),
    misconceptions={
        "by width alone": Misconception(
            "def buckets(sizes, batch_size):\n"
            "    return np.split(np.argsort(sizes[:, 1]), range(batch_size, len(sizes), batch_size))",
            "heights vary freely",
        ),
        "ties by width": Misconception(
            "def buckets(sizes, batch_size):\n"
            "    order = np.lexsort((sizes[:, 1], sizes[:, 0]))\n"
            "    return np.split(order, range(batch_size, len(sizes), batch_size))",
            "heights are alike in your batches",
        ),
        "by area": Misconception(
            "def buckets(sizes, batch_size):\n"
            "    return np.split(np.argsort(sizes.prod(axis=1)), range(batch_size, len(sizes), batch_size))",
            "a tall image and a broad one",
        ),
        "strips of one batch": Misconception(
            "def buckets(sizes, batch_size):\n    return np.array_split(np.argsort(sizes[:, 0]), 10)",
            "make 100 batches of 9",
        ),
        "only the first strip": Misconception(
            "def buckets(sizes, batch_size):\n"
            "    strip = np.argsort(sizes[:, 0])[:90]\n"
            "    return np.split(strip[np.argsort(sizes[strip, 1])], 10)",
            "exactly one batch: 810",
        ),
    },
    equivalent=(  # NumPy cuts a number of parts down to a whole one by itself
        """
def buckets(sizes, batch_size):
    n_strips = (len(sizes) / batch_size) ** 0.5
    by_height = np.argsort(sizes[:, 0])
    batches = []
    for strip in np.array_split(by_height, n_strips):
        by_width = strip[np.argsort(sizes[strip, 1])]
        batches += np.split(by_width, range(batch_size, len(by_width), batch_size))
    return batches
""",
    ),
)


def _test_met_again(met_again: Callable[[list[list[int]], list[list[int]]], Any]) -> str | None:
    # 13 pairs, of which 7 meet again; the four slips below give four other numbers
    first = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11]]
    second = [[6, 5, 4], [0, 9, 1], [2, 3, 7, 8], [11, 10]]
    got = float(met_again(first, second))
    for value, message in {
        7 / 19: "you divide by the pairs of both epochs together; the question is about those of the first",
        2 / 4: "whole batches are compared; two mates can meet again in a batch that is not the same",
        3 / 13: "a pair has no order: 4 and 5 are mates in [4, 5, 6] and in [6, 5, 4]",
        11 / 12: "you count images that meet some mate again; count pairs",
    }.items():
        if np.isclose(got, value):
            return message
    for one, other in ((first, second), (second, first), (first, first), ([[0, 1, 2]], [[0, 1], [2]])):
        got, right = float(met_again(one, other)), mates_met_again(one, other)
        if not np.isclose(got, right):
            return f"of batches {one} and then {other}, the share that meets again is {right:.3f}, you say {got:.3f}"
    return None


q4 = Exercise(
    name="q4",
    answer="met_again",
    test=_test_met_again,
    right="pairs of the first epoch that are pairs of the second, too",
    hints=(
        "What is counted are pairs of images. Which pairs does one epoch make?",
        "Make a set of the pairs of each epoch. Two sets have an intersection.",
        "{(a, b) for batch in batches for a in batch for b in batch if a < b} holds each pair once.",
    ),
    solution_code="""
def met_again(first, second):
    def pairs(batches):
        return {(a, b) for batch in batches for a in batch for b in batch if a < b}

    return len(pairs(first) & pairs(second)) / len(pairs(first))
""",
    why=(
        "a < b writes each pair in one order only, so that sets can compare them. bpsutils counts the same without "
        "making the pairs, which are many."
    ),
    misconceptions={
        "pairs of both epochs": Misconception(
            "def met_again(first, second):\n"
            "    def pairs(batches):\n"
            "        return {(a, b) for batch in batches for a in batch for b in batch if a < b}\n"
            "    return len(pairs(first) & pairs(second)) / len(pairs(first) | pairs(second))",
            "the pairs of both epochs together",
        ),
        "whole batches": Misconception(
            "def met_again(first, second):\n"
            "    first, second = ({frozenset(batch) for batch in batches} for batches in (first, second))\n"
            "    return len(first & second) / len(first)",
            "whole batches are compared",
        ),
        "pairs in order": Misconception(
            "def met_again(first, second):\n"
            "    from itertools import combinations\n"
            "    first, second = ({p for b in batches for p in combinations(b, 2)} for batches in (first, second))\n"
            "    return len(first & second) / len(first)",
            "a pair has no order",
        ),
        "images": Misconception(
            "def met_again(first, second):\n"
            "    mates = {a: set(batch) - {a} for batch in first for a in batch}\n"
            "    again = {a for batch in second for a in batch if mates[a] & set(batch)}\n"
            "    return len(again) / len(mates)",
            "count images that meet some mate",
        ),
    },
    equivalent=(
        """
def met_again(first, second):
    def pairs(batches):
        return {(b, a) for batch in batches for a in batch for b in batch if a < b}

    return len(pairs(first) & pairs(second)) / len(pairs(first))
""",
    ),
)


def _test_masked_mean(masked_mean: Callable[[torch.Tensor, torch.Tensor], Any]) -> str | None:
    features = torch.arange(1, 2 * 3 * 4 * 5 + 1, dtype=torch.float32).reshape(2, 3, 4, 5)
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[0, :2, :3] = mask[1, :4, :2] = True
    got = masked_mean(features, mask)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    real = mask[:, None].float()
    summed, count = (features * real).sum((2, 3)), real.sum((2, 3))
    got = got.float()
    for value, message in _means(features, summed, count):
        if got.shape == value.shape and torch.allclose(got, value):
            return message
    right = summed / count
    if got.shape != right.shape:
        return f"one number an image and channel, shape {tuple(right.shape)}; yours is {tuple(got.shape)}"
    if not torch.allclose(got, right):
        return f"channel 0 of image 0 has a mean of {right[0, 0]:.2f} over its 6 real pixels, you say {got[0, 0]:.2f}"
    return None


def _means(features: torch.Tensor, summed: torch.Tensor, count: torch.Tensor) -> Sequence[tuple[torch.Tensor, str]]:
    """Wrong means and what they are told."""
    return (
        (features.mean((2, 3)), "that is the plain mean: padding is averaged in"),
        (summed / 20, "padding is left out of the sum, but you divide by all pixels of the frame"),
        (features.sum((2, 3)) / count, "you divide by the real pixels, but padding is still in the sum"),
        (summed / count.sum(), "you divide by the real pixels of the whole batch: each image has its own number"),
        (summed, "that is the sum over the real pixels; a large image then has larger features"),
    )


q5 = Exercise(
    name="q5",
    answer="masked_mean",
    test=_test_masked_mean,
    right="sum of the real pixels over their number, image by image",
    hints=(
        "A mean is a sum over a count. Padding has to stay out of both.",
        "The mask lacks the channel axis; mask[:, None] has shape (B, 1, H, W) and is repeated over the channels.",
        "(features * mask[:, None]).sum(dim=(2, 3)), divided by mask[:, None].sum(dim=(2, 3)).",
    ),
    solution_code="""
def masked_mean(features, mask):
    real = mask[:, None]
    return (features * real).sum(dim=(2, 3)) / real.sum(dim=(2, 3))
""",
    why=(
        "True counts as 1. The sum (B, C) is divided by a count (B, 1), so each image is averaged over its own pixels, "
        "whatever frame it is in."
    ),
    misconceptions={
        "plain mean": Misconception(
            "def masked_mean(features, mask):\n    return features.mean(dim=(2, 3))", "that is the plain mean"
        ),
        "all pixels count": Misconception(
            "def masked_mean(features, mask):\n    return (features * mask[:, None]).mean(dim=(2, 3))",
            "divide by all pixels of the frame",
        ),
        "padding in the sum": Misconception(
            "def masked_mean(features, mask):\n    return features.sum(dim=(2, 3)) / mask[:, None].sum(dim=(2, 3))",
            "padding is still in the sum",
        ),
        "one count for all": Misconception(
            "def masked_mean(features, mask):\n    return (features * mask[:, None]).sum(dim=(2, 3)) / mask.sum()",
            "of the whole batch",
        ),
    },
    equivalent=(
        """
def masked_mean(features, mask):
    real = mask[:, None]
    return (features * real).sum(dim=(2, 3)) / real.sum(dim=(3, 2))
""",
        """
def masked_mean(features, mask):
    real = mask[:, None]
    return (features * real).sum(dim=(3, 2)) / real.sum(dim=(2, 3))
""",
    ),
)
