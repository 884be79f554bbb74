"""Exercises of notebook 06: a window, a wrapped level, a test for transforms, mean and std, a coin for each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bpsutils.exercises import Exercise, Misconception


def _test_window(window: Callable[..., Any]) -> str | None:
    image = torch.tensor([[[100, 500, 1000], [1500, 2500, 65535]]], dtype=torch.uint16)
    transform = window(500, 1500)
    if not callable(transform):
        return "an object of your class cannot be called like a function: write __call__"
    got = transform(image)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    if got.shape != image.shape:
        return f"return a tensor of the image's shape {tuple(image.shape)}, yours is {tuple(got.shape)}"
    if image.tolist() != [[[100, 500, 1000], [1500, 2500, 65535]]]:
        return "the image that went in has changed; make a new one"
    levels, values = torch.tensor(image.tolist(), dtype=torch.float64), got.double()
    free = (levels - 500) / 1000
    if torch.allclose(values, free, atol=1e-5):
        return "right inside the window, but not cut: below the window should be 0, above it 1"
    if torch.allclose(values, (levels / 1500).clamp(0, 1), atol=1e-5):
        return "you divide by the upper end; the window's lower end should become 0"
    if torch.allclose(values, (levels - levels.min()) / (levels.max() - levels.min()), atol=1e-5):
        return "that is this image's own darkest and brightest; the window is given, so that images can be compared"
    if not torch.allclose(values, free.clamp(0, 1), atol=1e-5):
        return (
            f"window 500 to 1500: levels 100, 1000 and 2500 become 0, 0.5 and 1; yours are {values.flatten().tolist()}"
        )
    other = window(0, 2)(torch.tensor([[[1, 3]]], dtype=torch.uint16))
    return None if other.flatten().tolist() == [0.5, 1.0] else "another window gives other numbers: use its own ends"


q1 = Exercise(
    name="q1",
    answer="Window",
    test=_test_window,
    right="made once with its two ends, then called like a function on any image",
    hints=(
        "__init__ keeps the two ends; __call__ does the work. uint16 cannot subtract, so what comes first?",
        "To float, minus low, divided by (high - low). Then cut what lies outside 0 to 1.",
        "((image.float() - self.low) / (self.high - self.low)).clamp(0, 1)",
    ),
    solution_code="""
class Window:
    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, image):
        scaled = (image.float() - self.low) / (self.high - self.low)
        return scaled.clamp(0, 1)
""",
    why="the settings live in the object, so Compose can call every transform with the image alone.",
    misconceptions={
        "not cut": Misconception(
            """
class Window:
    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, image):
        return (image.float() - self.low) / (self.high - self.low)
""",
            "but not cut",
        ),
        "its own ends": Misconception(
            """
class Window:
    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, image):
        image = image.float()
        return (image - image.min()) / (image.max() - image.min())
""",
            "own darkest and brightest",
        ),
        "upper end only": Misconception(
            """
class Window:
    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, image):
        return (image.float() / self.high).clamp(0, 1)
""",
            "you divide by the upper end",
        ),
        "no __call__": Misconception(
            """
class Window:
    def __init__(self, low, high):
        self.low, self.high = low, high

    def apply(self, image):
        return ((image.float() - self.low) / (self.high - self.low)).clamp(0, 1)
""",
            "write __call__",
        ),
    },
)


def _test_wrapped(wrapped: float) -> str | None:
    got = float(wrapped)
    told = {
        40000.0: "int16 goes up to 32,767; a level beyond it does not fit",
        32767.0: "that would be clipping; nothing is clipped, the same 16 bits are only read with a sign",
        156.0: "that is the upper byte, as an 8-bit reader keeps it",
        255.0: "that is 8 bits, cut; here all 16 bits stay, and their meaning changes",
        -7232.0: "you took 32,768 twice off the wrong number; the whole range of 16 bits is 65,536",
        25536.0: "the right distance, with the wrong sign: the first bit says minus",
        -25535.0: "off by one: the range has 65,536 levels, 0 among them",
    }
    if got == -25536:
        return None
    if abs(got - 40000 / 65535) < 1e-3:
        return "that is 40,000 scaled to [0, 1], which ToTensor does from 8 bits only"
    return told.get(got, f"the 16 bits stay and the first one means minus 32,768; you have {got:g}")


q2 = Exercise(
    name="q2",
    answer="wrapped",
    test=_test_wrapped,
    right="the bits are the same, the first one now means minus",
    hints=(
        "65535 becomes -1. What does 65534 become?",
        "From 32768 on, a level of uint16 is read 65536 too low.",
        "40000 - 65536",
    ),
    solution_code="wrapped = 40000 - 2**16",
    why="int16 runs from -32,768 to 32,767; a level above that is read as itself minus 65,536.",
    misconceptions={
        "as it is": Misconception("wrapped = 40000", "a level beyond it does not fit"),
        "clipped": Misconception("wrapped = 2**15 - 1", "that would be clipping"),
        "upper byte": Misconception("wrapped = 40000 // 256", "that is the upper byte"),
        "scaled": Misconception("wrapped = 40000 / 65535", "scaled to [0, 1]"),
        "one too few": Misconception("wrapped = 40000 - 65535", "off by one"),
    },
)


def _by_numpy(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A transform made of NumPy's, because torch cannot flip uint16 everywhere."""
    return lambda image: torch.from_numpy(np.ascontiguousarray(change(image.numpy())))


def _mirror_in_place(image: torch.Tensor) -> torch.Tensor:
    image.numpy()[...] = image.numpy()[..., ::-1].copy()
    return image


def _trade(levels: np.ndarray) -> np.ndarray:
    """One level up, one down: same size, same sum."""
    changed = levels.copy()
    changed[..., 0, 0] += 1
    changed[..., 0, 1] -= 1
    return changed


def _repeat(levels: np.ndarray) -> np.ndarray:
    """One pixel takes its neighbour's level: no new level appears and none that was there twice vanishes."""
    changed = levels.copy()
    changed[..., 0, 0] = changed[..., 0, 2]
    return changed


def _test_only_moves(only_moves: Callable[..., Any]) -> str | None:
    def image() -> torch.Tensor:
        return torch.from_numpy(np.array([[[7, 7, 3], [40000, 9, 12]]], np.uint16))

    cases: list[tuple[str, Callable[[torch.Tensor], torch.Tensor], bool, str]] = [
        ("a mirror", _by_numpy(lambda a: a[..., ::-1]), True, "it only moves pixels"),
        ("a quarter turn", _by_numpy(lambda a: np.rot90(a, 1, (1, 2))), True, "height and width may change places"),
        ("nothing at all", lambda x: x.clone(), True, "every pixel may stay where it is"),
        ("8 bits", _by_numpy(lambda a: a.astype(np.uint8)), False, "40000 became 64"),
        ("int32", _by_numpy(lambda a: a.astype(np.int32)), False, "the levels are right and the dtype is not"),
        ("a trade of one grey level", _by_numpy(_trade), False, "the sum is the same, the levels are not"),
        ("a repeated pixel", _by_numpy(_repeat), False, "the levels that occur are the same, how often is not"),
        ("a crop", _by_numpy(lambda a: a[..., 1:]), False, "pixels are lost"),
        ("a mirror in place", _mirror_in_place, False, "the caller's image has changed, too"),
    ]
    for name, transform, right, reason in cases:
        got = only_moves(transform, image())
        if not isinstance(got, bool | np.bool_):
            return f"answer True or False, not a {type(got).__name__}"
        if bool(got) != right:
            return f"{name} gets {bool(got)}, and should get {right}: {reason}"
    return None


q3 = Exercise(
    name="q3",
    answer="only_moves",
    test=_test_only_moves,
    right="same dtype, same levels, each as often, and the caller's image untouched",
    hints=(
        "What stays the same when pixels only change places? What must not happen to the image that went in?",
        "Sort all levels before and after: equal lists mean the same levels, each as often. Keep a copy to compare.",
        "np.sort(array, axis=None) flattens and sorts; np.array_equal compares; .dtype must be compared as well.",
    ),
    solution_code="""
def only_moves(transform, image):
    before = image.numpy().copy()
    after = transform(image).numpy()
    untouched = np.array_equal(image.numpy(), before)
    same_levels = np.array_equal(np.sort(after, axis=None), np.sort(before, axis=None))
    return after.dtype == before.dtype and untouched and same_levels
""",
    why="sorted levels forget the places and nothing else; the copy shows whether the input was changed.",
    misconceptions={
        "same sum": Misconception(
            "def only_moves(transform, image):\n"
            "    before = image.numpy().copy()\n"
            "    after = transform(image).numpy()\n"
            "    same = after.dtype == before.dtype and np.array_equal(image.numpy(), before)\n"
            "    return same and after.sum() == before.sum()",
            "the sum is the same, the levels are not",
        ),
        "levels that occur": Misconception(
            "def only_moves(transform, image):\n"
            "    before = image.numpy().copy()\n"
            "    after = transform(image).numpy()\n"
            "    same = after.dtype == before.dtype and np.array_equal(image.numpy(), before)\n"
            "    return same and set(after.ravel()) == set(before.ravel())",
            "how often is not",
        ),
        "same shape": Misconception(
            "def only_moves(transform, image):\n    return transform(image).shape == image.shape",
            "height and width may change places",
        ),
        "any dtype": Misconception(
            "def only_moves(transform, image):\n"
            "    before = image.numpy().copy()\n"
            "    after = transform(image).numpy()\n"
            "    return np.array_equal(np.sort(after, axis=None), np.sort(before, axis=None))",
            "the dtype is not",
        ),
        "in place": Misconception(
            "def only_moves(transform, image):\n"
            "    after = transform(image).numpy()\n"
            "    same_levels = np.array_equal(np.sort(after, axis=None), np.sort(image.numpy(), axis=None))\n"
            "    return after.dtype == image.numpy().dtype and same_levels",
            "the caller's image has changed, too",
        ),
    },
    equivalent=(
        """
def only_moves(transform, image):
    before = image.numpy().copy()
    after = transform(image).numpy()
    untouched = np.array_equal(image, before)
    same_levels = np.array_equal(np.sort(after, axis=None), np.sort(before, axis=None))
    return after.dtype == before.dtype and untouched and same_levels
""",
    ),
)


def _test_mean_std(mean_std: Callable[..., Any]) -> str | None:
    for levels in (([[1, 9]], [[0, 2, 2], [4, 5, 1]]), ([[300, 7]], [[900, 2, 2], [4, 5, 1]])):
        arrays = [np.array(array) for array in levels]
        images = [torch.from_numpy(array.astype(np.uint16))[None] for array in arrays]
        pixels = np.concatenate([array.ravel() for array in arrays]).astype(float)
        mean, std = (float(number) for number in mean_std(images))
        means, stds = [a.mean() for a in arrays], [a.std() for a in arrays]
        if np.isclose(mean, np.mean(means)) and not np.isclose(mean, pixels.mean()):
            return "that is the mean of the images' means: a small image counts as much as a large one"
        if not np.isclose(mean, pixels.mean(), rtol=1e-5):
            return f"8 pixels with the mean {pixels.mean():g}; you have {mean:g}"
        if np.isclose(std, pixels.var()):
            return "that is the variance; std is its square root"
        if np.isclose(std, np.mean(stds)) or np.isclose(std, np.sqrt(np.mean(np.square(stds)))):
            return "you average the spread inside images; how images differ from each other is missing"
        if not (np.isclose(std, pixels.std(), rtol=1e-6) or np.isclose(std, pixels.std(ddof=1), rtol=1e-6)):
            return f"8 pixels with the std {pixels.std():.5g}; you have {std:.5g}"
    return None


q4 = Exercise(
    name="q4",
    answer="mean_std",
    test=_test_mean_std,
    right="every pixel counts once, whatever the size of its image; with running sums, one image in memory is enough",
    hints=(
        "Images differ in size, so means of means are wrong. Which three sums do you need?",
        "Count pixels, sum levels, sum squared levels, image by image. uint16 cannot be squared: convert first.",
        "mean = total / pixels; the variance is squares / pixels - mean**2, and std is its square root.",
    ),
    solution_code="""
def mean_std(images):
    pixels = total = squares = 0
    for image in images:
        levels = image.double()
        pixels += levels.numel()
        total += levels.sum()
        squares += levels.square().sum()
    mean = total / pixels
    return mean, (squares / pixels - mean**2) ** 0.5
""",
    why="three running sums are all that mean and std need; float64 keeps large sums exact.",
    misconceptions={
        "mean of means": Misconception(
            "def mean_std(images):\n"
            "    means = [image.double().mean() for image in images]\n"
            "    stds = [image.double().std(correction=0) for image in images]\n"
            "    return sum(means) / len(means), sum(stds) / len(stds)",
            "the mean of the images' means",
        ),
        "the variance": Misconception(
            "def mean_std(images):\n"
            "    levels = torch.cat([image.double().flatten() for image in images])\n"
            "    return levels.mean(), levels.var(correction=0)",
            "that is the variance",
        ),
        "spread inside images": Misconception(
            "def mean_std(images):\n"
            "    levels = torch.cat([image.double().flatten() for image in images])\n"
            "    stds = [image.double().std(correction=0) for image in images]\n"
            "    return levels.mean(), sum(stds) / len(stds)",
            "how images differ from each other is missing",
        ),
    },
)


def _test_mirror_some(mirror_some: Callable[..., Any]) -> str | None:
    images = torch.arange(3 * 2 * 3 * 3, dtype=torch.float32).reshape(3, 2, 3, 3)
    kept, coins = images.clone(), torch.tensor([True, False, False])
    got = mirror_some(images, coins)
    if not isinstance(got, torch.Tensor) or got.shape != images.shape:
        return f"return a batch of the same shape, (3, 2, 3, 3), not {getattr(got, 'shape', type(got).__name__)}"
    if not torch.equal(images, kept):
        return "the batch that went in has changed; make a new one"
    mirrored, flat = kept.flip(-1), coins[:, None, None, None]
    right = torch.where(flat, mirrored, kept)
    told: Sequence[tuple[str, torch.Tensor]] = (
        ("all images are mirrored: each has a coin of its own", mirrored),
        ("no image is mirrored", kept),
        ("the wrong ones are mirrored: True means mirror", torch.where(flat, kept, mirrored)),
        ("coin and columns were matched: the coins' axis must come first", torch.where(coins, mirrored, kept)),
        ("coin and rows were matched: the coins' axis must come first", torch.where(coins[:, None], mirrored, kept)),
        ("those are upside down: left and right is the last axis", torch.where(flat, kept.flip(-2), kept)),
    )
    for message, wrong in told:
        if torch.equal(got, wrong):
            return message
    if not torch.equal(got, right):
        return f"{int((got != right).sum())} of 54 numbers are not where they should be"
    second = mirror_some(kept[:2, :, :, :2], torch.tensor([False, True]))
    same = torch.equal(second, torch.stack([kept[0, :, :, :2], kept[1, :, :, :2].flip(-1)]))
    return None if same else "it works for three images of 3 x 3 pixels only"


q5 = Exercise(
    name="q5",
    answer="mirror_some",
    test=_test_mirror_some,
    right="one operation for the whole batch, and still a coin for each image",
    hints=(
        "Mirror all of them, then choose for each image: the mirrored or the old one.",
        "torch.where(condition, a, b) chooses number by number. Which shape must the coins have to count for images?",
        "coins[:, None, None, None] has shape (B, 1, 1, 1); images.flip(-1) mirrors left and right.",
    ),
    solution_code="""
def mirror_some(images, coins):
    return torch.where(coins[:, None, None, None], images.flip(-1), images)
""",
    why="both versions are made at once, which a batch does fast; the coin only decides which one is kept.",
    misconceptions={
        "one coin": Misconception(
            "def mirror_some(images, coins):\n    return images.flip(-1) if coins[0] else images", "all images are"
        ),
        "coins along the columns": Misconception(
            "def mirror_some(images, coins):\n    return torch.where(coins, images.flip(-1), images)",
            "coin and columns were matched",
        ),
        "upside down": Misconception(
            "def mirror_some(images, coins):\n"
            "    return torch.where(coins[:, None, None, None], images.flip(2), images)",
            "those are upside down",
        ),
        "in place": Misconception(
            "def mirror_some(images, coins):\n    images[coins] = images[coins].flip(-1)\n    return images",
            "the batch that went in has changed",
        ),
    },
)
