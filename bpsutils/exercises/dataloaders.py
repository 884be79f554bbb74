"""Exercises of notebook 03: collate, a loader by hand, the weight of the odd last batch, how many workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from bpsutils.exercises import Exercise, Misconception


def _test_collate(collate: Callable[[list[dict[str, Any]]], Any]) -> str | None:
    images = torch.arange(60.0).reshape(3, 1, 4, 5)
    samples = [{"image": images[i], "label": (1, 0, 1)[i], "path": f"{i}.tif"} for i in range(3)]
    got = collate(samples)
    if not isinstance(got, dict):
        return f"return a dict, not {type(got).__name__}"
    lacking = [key for key in ("images", "labels", "paths") if key not in got]
    if lacking:
        return f"the batch has no {lacking[0]!r}; it should have 'images', 'labels' and 'paths'"
    if not isinstance(got["images"], torch.Tensor):
        return f"'images' should be one tensor, not a {type(got['images']).__name__} of them: a model takes a tensor"
    if tuple(got["images"].shape) == (3, 4, 5):
        return "'images' has shape (3, 4, 5): cat lengthens the channel axis; a batch needs an axis of its own"
    if not torch.equal(got["images"], images):
        return f"'images' should be the three images, shape (3, 1, 4, 5); yours has shape {tuple(got['images'].shape)}"
    if not isinstance(got["labels"], torch.Tensor):
        return f"'labels' should be a tensor, not a {type(got['labels']).__name__}: the loss computes with them"
    if got["labels"].tolist() != [1, 0, 1] or got["labels"].dtype != torch.int64:
        found = f"{got['labels'].tolist()} ({got['labels'].dtype})"
        return f"'labels' should be 1, 0, 1 as whole numbers (int64), yours are {found}"
    if list(got["paths"]) != ["0.tif", "1.tif", "2.tif"]:
        return f"'paths' should be the three names in order, yours is {got['paths']!r}"
    return None


_COLLATE = """
def collate(samples):
    return {{
        "images": torch.{join}([sample["image"] for sample in samples]),
        "labels": {labels},
        "paths": [sample["path"] for sample in samples],
    }}
"""
_LABELS = 'torch.tensor([sample["label"] for sample in samples])'

q1 = Exercise(
    name="q1",
    answer="collate",
    test=_test_collate,
    right="tensors where a model computes, a list where text stays text",
    hints=(
        "The images are of one size and get a new axis in front. Which of cat and stack makes one?",
        "torch.stack takes a list of tensors, torch.tensor a list of numbers. Paths are text: no tensor holds text.",
        'torch.stack([sample["image"] for sample in samples]); the other two are made the same way.',
    ),
    solution_code=_COLLATE.format(join="stack", labels=_LABELS),
    why="a batch is a dict as a sample is, with one entry for all samples: stacked, gathered, or listed.",
    misconceptions={
        "joined, not stacked": Misconception(_COLLATE.format(join="cat", labels=_LABELS), "cat lengthens the channel"),
        "labels in a list": Misconception(
            _COLLATE.format(join="stack", labels='[sample["label"] for sample in samples]'),
            "'labels' should be a tensor, not a list",
        ),
        "labels with a fraction": Misconception(
            _COLLATE.format(join="stack", labels=f"{_LABELS}.float()"), "as whole numbers (int64), yours are [1.0"
        ),
        "paths forgotten": Misconception(
            f'def collate(samples):\n    images = torch.stack([sample["image"] for sample in samples])\n'
            f'    return {{"images": images, "labels": {_LABELS}}}',
            "the batch has no 'paths'",
        ),
    },
)


def _order(batches: Callable[..., Any], generator: torch.Generator) -> list[Any]:
    """What a hand-made loader yields for ten images that hold their own number."""
    images = [torch.full((1, 2, 3), float(number)) for number in range(10)]
    return list(islice(batches(images, 4, generator), 20))


def _test_batches(batches: Callable[..., Any]) -> str | None:
    generator = torch.Generator().manual_seed(5)
    first, second = _order(batches, generator), _order(batches, generator)
    again = _order(batches, torch.Generator().manual_seed(5))
    for batch in first + second + again:
        if not isinstance(batch, torch.Tensor):
            return f"each batch should be one tensor, yours is a {type(batch).__name__}"
        if batch.ndim != 4 or tuple(batch.shape[1:]) != (1, 2, 3):
            return f"a batch of images (1, 2, 3) has shape (4, 1, 2, 3), yours has {tuple(batch.shape)}"
    sizes = [len(batch) for batch in first]
    if sizes == [4, 4]:
        return "the odd last batch is missing: ten images in fours are batches of 4, 4 and 2"
    if sizes != [4, 4, 2]:
        return f"ten images in fours are batches of 4, 4 and 2; yours have {sizes}"
    orders = [torch.cat(epoch)[:, 0, 0, 0].tolist() for epoch in (first, second, again)]
    if sorted(orders[0]) != list(range(10)):
        return "some images come twice and others never: in an epoch each comes once"
    if orders[0] == list(range(10)):
        return "the images come in the order of the dataset: draw another order"
    if orders[0] == orders[1]:
        return "two epochs have the same order: go on drawing from the generator, and do not seed it again"
    if orders[0] != orders[2]:
        return "the same seed gave another order: draw from the generator that is handed in"
    return None


_BATCHES = """
def batches(images, batch_size, generator):
    order = {order}
    for start in range(0, {end}, batch_size):
        yield torch.stack([images[i] for i in order[start : start + batch_size]])
"""
_SHUFFLED = "torch.randperm(len(images), generator=generator)"

q2 = Exercise(
    name="q2",
    answer="batches",
    test=_test_batches,
    right="shuffled, cut, loaded, stacked: automatic batching is these four steps",
    hints=(
        "First an order of all indices, then a loop that cuts it into pieces, and in the loop a batch from each piece.",
        "torch.randperm(n, generator=generator) shuffles 0 to n - 1. `yield` hands out a batch and goes on after it.",
        "for start in range(0, len(images), batch_size): the indices are order[start : start + batch_size].",
    ),
    solution_code=_BATCHES.format(order=_SHUFFLED, end="len(images)"),
    why="a slice may reach beyond the end, so the last batch is just shorter. Each call draws the next order.",
    misconceptions={
        "never shuffled": Misconception(
            _BATCHES.format(order="range(len(images))", end="len(images)"), "in the order of the dataset"
        ),
        "drawn with replacement": Misconception(
            _BATCHES.format(order="torch.randint(10, (len(images),), generator=generator)", end="len(images)"),
            "some images come twice",
        ),
        "last batch lost": Misconception(
            _BATCHES.format(order=_SHUFFLED, end="len(images) - batch_size + 1"), "the odd last batch is missing"
        ),
        "seeded in every epoch": Misconception(
            _BATCHES.format(order="torch.randperm(len(images), generator=generator.manual_seed(0))", end="len(images)"),
            "two epochs have the same order",
        ),
    },
)


def _test_epoch_mean(epoch_mean: Callable[[Sequence[float], Sequence[int]], Any]) -> str | None:
    losses, sizes = [0.5, 0.75, 2.0], [16, 16, 8]
    got = float(epoch_mean(losses, sizes))
    right = float(np.average(losses, weights=sizes))
    told = {
        np.mean(losses): "that is the mean over batches: an image of the small batch counts twice",
        np.sum(losses): "that is the sum of the batches' means",
        np.mean(losses[:2]): "the last batch is missing; its images count as well",
        np.dot(losses, sizes): "that is the sum over all images; divide by how many there are",
        np.dot(losses, sizes) / 3: "you divide by the number of batches; the sum above is over images",
    }
    for wrong, message in told.items():
        if np.isclose(got, wrong):
            return message
    if not np.isclose(got, right):
        return f"for losses {losses} of {sizes} images the mean over images is {right}, yours is {got:.4f}"
    return None


q3 = Exercise(
    name="q3",
    answer="epoch_mean",
    test=_test_epoch_mean,
    right="every image counts once, whatever batch it came in",
    hints=(
        "A batch's mean, times the number of its images, is the sum over its images.",
        "Add up these sums over all batches; then divide once.",
        "sum(loss * size for loss, size in zip(losses, sizes)) is the numerator.",
    ),
    solution_code="""
def epoch_mean(losses, sizes):
    return sum(loss * size for loss, size in zip(losses, sizes)) / sum(sizes)
""",
    why="the mean over images does not depend on how they were cut into batches; the mean over batches does.",
    misconceptions={
        "mean of means": Misconception(
            "def epoch_mean(losses, sizes):\n    return sum(losses) / len(losses)", "mean over batches"
        ),
        "last batch left out": Misconception(
            "def epoch_mean(losses, sizes):\n    return sum(losses[:-1]) / len(losses[:-1])",
            "the last batch is missing",
        ),
        "divided by batches": Misconception(
            "def epoch_mean(losses, sizes):\n"
            "    return sum(loss * size for loss, size in zip(losses, sizes)) / len(sizes)",
            "you divide by the number of batches",
        ),
        "never divided": Misconception(
            "def epoch_mean(losses, sizes):\n    return sum(loss * size for loss, size in zip(losses, sizes))",
            "divide by how many there are",
        ),
    },
)


def _test_workers_needed(workers_needed: Callable[[float, float, int], Any]) -> str | None:
    right = {(30, 10, 8): 3, (25, 10, 8): 3, (8, 10, 4): 1, (30, 10, 2): 2, (10, 10, 4): 1, (90, 10, 4): 4}
    got = {case: workers_needed(*case) for case in right}
    if got[30, 10, 8] == right[30, 10, 8] and got[25, 10, 8] == 2:
        return "loading 25 ms, training 10 ms: 2 workers bring a batch every 12.5 ms, and the GPU waits; round up"
    if got[30, 10, 8] == 3 and got[30, 10, 2] == 3:
        return "3 workers on 2 cores share the cores and are no faster than 2: never more than the cores"
    if got[30, 10, 8] == 4:
        return "loading 30 ms, training 10 ms: 3 workers already bring a batch every 10 ms; 4 are one too many"
    if got[30, 10, 8] == 1 and got[8, 10, 4] == 2:
        return "upside down: the longer loading takes, the more workers are needed"
    if got[30, 10, 8] == 3 and got[8, 10, 4] == 0:
        return "with 0 workers the GPU waits while each batch is loaded, however fast that is: at least 1"
    for (load, train, cores), workers in right.items():
        if got[load, train, cores] != workers:
            found = got[load, train, cores]
            return f"loading {load} ms, training {train} ms, {cores} cores: {workers}, you say {found}"
        if not isinstance(got[load, train, cores], int | np.integer):
            return "num_workers must be a whole number (int), yours has a fraction"
    return None


q4 = Exercise(
    name="q4",
    answer="workers_needed",
    test=_test_workers_needed,
    right="as many as it takes to hide the loading, no more than there are cores",
    hints=(
        "One worker brings a batch every `load` ms, two workers every `load / 2` ms. When is that fast enough?",
        "load / workers must be at most train, and workers is a whole number: round up, with np.ceil.",
        "int(np.ceil(load / train)), but min(cores, …) of it.",
    ),
    solution_code="""
def workers_needed(load, train, cores):
    return min(cores, int(np.ceil(load / train)))
""",
    why="n workers bring a batch every load / n ms; from n = load / train on, loading hides behind training.",
    misconceptions={
        "rounded down": Misconception(
            "def workers_needed(load, train, cores):\n    return min(cores, max(1, int(load // train)))",
            "the GPU waits; round up",
        ),
        "cores ignored": Misconception(
            "def workers_needed(load, train, cores):\n    return int(np.ceil(load / train))",
            "never more than the cores",
        ),
        "one too many": Misconception(
            "def workers_needed(load, train, cores):\n    return min(cores, int(load // train) + 1)", "one too many"
        ),
        "upside down": Misconception(
            "def workers_needed(load, train, cores):\n    return min(cores, int(np.ceil(train / load)))", "upside down"
        ),
    },
)
