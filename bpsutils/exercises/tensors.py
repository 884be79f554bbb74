"""Exercises of notebook 01: a shape, broadcasting, a function without side effects, an honest clock, 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bpsutils.exercises import Exercise, Misconception


def _test_shape(shape: Sequence[int]) -> str | None:
    got = tuple(int(side) for side in shape)
    told = {
        (32, 141, 149): "the channel is missing; grey images have one, and PyTorch's layers want its axis",
        (1, 32, 141, 149): "batch and channel are swapped: the batch comes first",
        (32, 141, 149, 1): "the channel is last, as NumPy and plotting like it; PyTorch wants it before the rows",
        (32, 1, 149, 141): "width before height: rows (the height) come first, as in an array",
        (32, 149, 141): "the channel is missing, and rows (the height) come before columns (the width)",
        (32 * 141, 149): "that is what joining along an existing axis gives; a batch has an axis of its own",
    }
    if got == (32, 1, 141, 149):
        return None
    return told.get(got, f"a batch is (images, channels, height, width); you have {got}")


q1 = Exercise(
    name="q1",
    answer="shape",
    test=_test_shape,
    right="images, channels, height, width: the order that every layer in PyTorch expects",
    hints=(
        "How many axes does one grey image need, if its channel has an axis too? A batch adds one more.",
        "PyTorch's order has four letters: B, C, H, W.",
        "B is 32, C is 1; H counts rows and W columns.",
    ),
    solution_code="shape = (32, 1, 141, 149)",
    why="batch, channel, height, width. The channel axis stays even if it holds one channel.",
    misconceptions={
        "no channel": Misconception("shape = (32, 141, 149)", "the channel is missing; grey"),
        "channels last": Misconception("shape = (32, 141, 149, 1)", "the channel is last"),
        "width first": Misconception("shape = (32, 1, 149, 141)", "width before height: rows"),
        "joined, not stacked": Misconception("shape = (32 * 141, 149)", "joining along an existing axis"),
    },
)


def _test_centre(centre: Callable[[torch.Tensor], Any]) -> str | None:
    # Three images of height 3: a mean without its axes has shape (3, 1) and goes, silently, along the wrong axis.
    images = torch.arange(45, dtype=torch.float32).reshape(3, 1, 3, 5) ** 2
    kept = images.clone()
    got = centre(images)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    if not torch.equal(images, kept):
        return "the images that went in have changed; make new ones"
    for message, mean in {
        "that is one mean for the whole batch: a dim image stays dimmer than the others": images.mean(),
        "that is a mean over the batch, one for each pixel: each image needs its own": images.mean(0, keepdim=True),
        "that is a mean for each row: name both axes of the image": images.mean(3, keepdim=True),
        "that is a mean for each column: name both axes of the image": images.mean(2, keepdim=True),
        "the mean lost two axes and was repeated along the rows; one argument keeps the axes": images.mean((2, 3)),
    }.items():
        wrong = images - mean
        if got.shape == wrong.shape and torch.allclose(got, wrong, atol=1e-3):
            return message
    right = images - images.mean((2, 3), keepdim=True)
    if got.shape != right.shape:
        return f"the shape should stay {tuple(right.shape)}, you return {tuple(got.shape)}"
    if not torch.allclose(got, right, atol=1e-3):
        means = ", ".join(f"{mean:.1f}" for mean in got.double().mean((1, 2, 3)))
        return f"each image should have mean 0 and be otherwise as it was; yours have means {means}"
    return None


q2 = Exercise(
    name="q2",
    answer="centre",
    test=_test_centre,
    right="one mean for each image, and its shape still fits the batch",
    hints=(
        "Which two axes of (B, C, H, W) lie inside one image? Take the mean over these.",
        "images.mean(dim=(2, 3)) has shape (B, 1). Broadcasting needs (B, 1, 1, 1).",
        "Reductions take keepdim=True: it leaves an axis of length 1 where it summed.",
    ),
    solution_code="""
def centre(images):
    return images - images.mean(dim=(2, 3), keepdim=True)
""",
    why="keepdim leaves shape (B, 1, 1, 1), which is repeated over rows and columns, never over images.",
    misconceptions={
        "one mean for all": Misconception("def centre(images):\n    return images - images.mean()", "whole batch"),
        "mean over the batch": Misconception(
            "def centre(images):\n    return images - images.mean(dim=0)", "one for each pixel"
        ),
        "axes lost": Misconception(
            "def centre(images):\n    return images - images.mean(dim=(2, 3))", "the mean lost two axes and"
        ),
        "in place": Misconception(
            "def centre(images):\n    return images.sub_(images.mean(dim=(2, 3), keepdim=True))",
            "the images that went in have changed",
        ),
    },
    equivalent=("def centre(images):\n    return images - images.mean(dim=(3, 2), keepdim=True)",),
)


def _test_without_border(without_border: Callable[[torch.Tensor], Any]) -> str | None:
    image = torch.arange(1, 31, dtype=torch.float32).reshape(5, 6)
    kept, right = image.clone(), torch.arange(1, 31, dtype=torch.float32).reshape(5, 6)
    right[0] = right[-1] = right[:, 0] = right[:, -1] = 0
    got = without_border(image)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    if tuple(got.shape) == (3, 4):
        return "you cut the border off; the image should keep its size, with zeros around"
    if not torch.equal(image, kept) and got is not image:
        return "the image that went in has changed, too: a view is another look at the same memory, not a copy"
    if not torch.equal(image, kept):
        return "what you return is the caller's own image, changed; make a new one"
    if tuple(got.shape) != (5, 6):
        return f"the shape should stay (5, 6), you return {tuple(got.shape)}"
    if torch.equal(got, torch.where(right == 0, kept, torch.zeros(()))):
        return "that is the border alone: the inside should stay and the border become 0"
    if not torch.equal(got, right):
        wrong = int((got != right).sum())
        return f"{wrong} of 30 pixels are not as they should be: first and last row and column 0, all others unchanged"
    got[2, 2] = -1
    if not torch.equal(image, kept):
        return "whoever changes your result changes the image that went in, too: return memory of its own"
    return None


q3 = Exercise(
    name="q3",
    answer="without_border",
    test=_test_without_border,
    right="the border is gone and the caller's image is as it was",
    hints=(
        "Assigning to a part of a tensor changes the tensor. Whose tensor should that be?",
        "image.clone() makes a copy with memory of its own.",
        "Make the borders of the copy 0; or copy image[1:-1, 1:-1] into the same place of torch.zeros_like(image).",
    ),
    solution_code="""
def without_border(image):
    result = torch.zeros_like(image)
    result[1:-1, 1:-1] = image[1:-1, 1:-1]
    return result
""",
    why="zeros_like makes new memory of the same shape, dtype and device; only the inside is copied into it.",
    misconceptions={
        "the caller's image": Misconception(
            "def without_border(image):\n    image[0] = image[-1] = image[:, 0] = image[:, -1] = 0\n    return image",
            "the caller's own image",
        ),
        "a view is no copy": Misconception(
            "def without_border(image):\n"
            "    result = image.view(image.shape)\n"
            "    result[[0, -1]] = 0\n"
            "    result[:, [0, -1]] = 0\n"
            "    return result",
            "another look at the same memory",
        ),
        "cut off": Misconception("def without_border(image):\n    return image[1:-1, 1:-1]", "cut the border off"),
        "only the rows": Misconception(
            "def without_border(image):\n    result = image.clone()\n    result[[0, -1]] = 0\n    return result",
            "6 of 30 pixels",
        ),
    },
)


class _PretendGPU:
    """A device that takes orders at once and works through them later, with a clock that only it moves."""

    def __init__(self, first: float, later: float) -> None:
        self.now, self.busy_until, self.runs, self.syncs = 100.0, 0.0, 0, 0
        self._first, self._later = first, later

    def work(self) -> None:
        self.now += 0.001  # giving an order takes a moment
        self.busy_until = max(self.now, self.busy_until) + (self._later if self.runs else self._first)
        self.runs += 1

    def synchronise(self) -> None:
        self.now = max(self.now, self.busy_until)
        self.syncs += 1

    def clock(self) -> float:
        return self.now


def _test_seconds(seconds: Callable[..., Any]) -> str | None:
    gpu = _PretendGPU(first=5.0, later=0.5)
    got = float(seconds(gpu.work, gpu.synchronise, gpu.clock))
    if not gpu.runs:
        return "you never call work()"
    if got < 0:
        return "a negative time: take the first reading of the clock from the last"
    if got >= 100:
        return "that is a reading of the clock, not the time between two"
    if gpu.runs == 1:
        return "you time the very first call, which also loads and compiles: run work() once before you start the clock"
    if np.isclose(got, 0.0, atol=0.01):
        return "about 1 ms: you stop the clock when the order is given; wait for the work with synchronise()"
    if got > 5:
        return "the warm-up is in your time: wait for it with synchronise() before you start the clock"
    for later in (0.5, 0.25):
        gpu = _PretendGPU(first=5.0, later=later)
        got = float(seconds(gpu.work, gpu.synchronise, gpu.clock))
        if not np.isclose(got, later, atol=0.01):
            return f"one call takes {later} s on the pretend GPU, you measure {got:.3f} s"
    return None


q4 = Exercise(
    name="q4",
    answer="seconds",
    test=_test_seconds,
    right="warm up, wait, start, work, wait, stop",
    hints=(
        "Three things go wrong: the first call is slow, the clock starts too early, the clock stops too early.",
        "Call work() once and wait for it before the clock starts; wait again before it stops.",
        "work(); synchronise(); start = clock(); then work() and synchronise() again; return clock() - start.",
    ),
    solution_code="""
def seconds(work, synchronise, clock):
    work()
    synchronise()
    start = clock()
    work()
    synchronise()
    return clock() - start
""",
    why="the warm-up pays for loading and compiling; each synchronise makes the clock wait for the device.",
    misconceptions={
        "no warm-up": Misconception(
            "def seconds(work, synchronise, clock):\n"
            "    start = clock()\n"
            "    work()\n"
            "    synchronise()\n"
            "    return clock() - start",
            "the very first call",
        ),
        "never waits": Misconception(
            "def seconds(work, synchronise, clock):\n"
            "    work()\n"
            "    start = clock()\n"
            "    work()\n"
            "    return clock() - start",
            "when the order is given",
        ),
        "warm-up still running": Misconception(
            "def seconds(work, synchronise, clock):\n"
            "    work()\n"
            "    start = clock()\n"
            "    work()\n"
            "    synchronise()\n"
            "    return clock() - start",
            "the warm-up is in your time",
        ),
        "the wrong way round": Misconception(
            "def seconds(work, synchronise, clock):\n"
            "    work()\n"
            "    synchronise()\n"
            "    start = clock()\n"
            "    work()\n"
            "    synchronise()\n"
            "    return start - clock()",
            "a negative time",
        ),
    },
)


def _test_to_unit(to_unit: Callable[[torch.Tensor], Any]) -> str | None:
    image = torch.tensor([[0, 257, 2470], [456, 40000, 13107]], dtype=torch.uint16)
    got = to_unit(image)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    if got.shape != image.shape:
        return f"the shape should stay {tuple(image.shape)}, you return {tuple(got.shape)}"
    values, levels = got.double(), image.double()
    if torch.allclose(values, levels / levels.max()):
        return (
            "you divide by this image's own maximum: every image then ends at 1, and a dim one looks like a bright one"
        )
    if torch.allclose(values, levels / 255):
        return "255 is the largest of 8 bits; 16 bits go further"
    if torch.allclose(values, levels / 65536):
        return "65536 is how many levels there are; the largest is one less, and only it should become 1"
    if torch.equal(values, levels):
        return "the type is right, the range is not: the values still go up to 40000"
    if got.dtype != torch.float32:
        return f"the values should be torch.float32, which models compute in; yours are {got.dtype}"
    right = (levels / 65535).float()
    if not torch.allclose(got, right, rtol=1e-6, atol=0):
        return f"level 13107 is a fifth of the range, so 0.2; you make it {float(got[1, 2]):.4f}"
    return None


q5 = Exercise(
    name="q5",
    answer="to_unit",
    test=_test_to_unit,
    right="float32, scaled by the range that 16 bits can hold, so images stay comparable",
    hints=(
        "Two things change: the type and the range. Do the type first, uint16 computes badly.",
        "The range is declared by the file's type, not by what this image happens to hold.",
        "image.to(torch.float32), then divide by the largest number of 16 bits, 2**16 - 1.",
    ),
    solution_code="""
def to_unit(image):
    return image.to(torch.float32) / 65535
""",
    why="a grey level becomes the same float in every image. bpsutils.to_float does it for any declared range.",
    misconceptions={
        "its own maximum": Misconception(
            "def to_unit(image):\n    image = image.to(torch.float32)\n    return image / image.max()", "own maximum"
        ),
        "8 bits": Misconception("def to_unit(image):\n    return image.to(torch.float32) / 255", "255 is the largest"),
        "one too many": Misconception(
            "def to_unit(image):\n    return image.to(torch.float32) / 2**16", "65536 is how many"
        ),
        "type only": Misconception("def to_unit(image):\n    return image.to(torch.float32)", "the range is not"),
        "half precision": Misconception(
            "def to_unit(image):\n    return (image.to(torch.float32) / 65535).half()", "yours are torch.float16"
        ),
    },
    equivalent=("def to_unit(image):\n    return image / 65535",),
)
