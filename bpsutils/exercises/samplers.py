"""Exercises of notebook 04: batches by hand, class weights, a batch size, a sampler from scratch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bpsutils.exercises import Exercise, Misconception


def _test_batches(batches: Sequence[Any]) -> str | None:
    got = [[int(index) for index in batch] if np.ndim(batch) else [int(batch)] for batch in batches]
    told: dict[tuple[tuple[int, ...], ...], str] = {
        ((4, 1, 7), (5, 3, 9), (0, 8)): "drop_last leaves out what does not fill a batch: two indices are not three",
        ((0, 1, 3), (4, 5, 7)): "a batch sampler keeps the order of its sampler; it sorts nothing",
        ((4,), (1,), (7,), (5,), (3,), (9,)): "that is one index after the other; a batch sampler yields lists of them",
        (
            (4, 1),
            (7, 5),
            (3, 9),
            (0, 8),
        ): "these batches hold 2; batch_size=3 is how many indices, not how many batches",
        ((0, 1, 2), (3, 4, 5)): "those are places in the sampler's list; what is batched is what stands there",
    }
    if got == [[4, 1, 7], [5, 3, 9]]:
        return None
    return told.get(tuple(tuple(batch) for batch in got), f"two lists of three, in the sampler's order; you have {got}")


q1 = Exercise(
    name="q1",
    answer="batches",
    test=_test_batches,
    right="lists of indices in the sampler's order, and what does not fill a batch is left out",
    hints=(
        "A batch sampler takes indices from the sampler, in its order, until it has batch_size of them.",
        "8 indices, 3 a batch: 3, 3, and 2 are left. What does drop_last do with those?",
        "The first batch is [4, 1, 7]. There is one more.",
    ),
    solution_code="batches = [[4, 1, 7], [5, 3, 9]]",
    why="the sampler decides the order, the batch sampler only where it is cut. drop_last leaves out [0, 8].",
    misconceptions={
        "last batch kept": Misconception("batches = [[4, 1, 7], [5, 3, 9], [0, 8]]", "drop_last leaves out"),
        "sorted": Misconception("batches = [[0, 1, 3], [4, 5, 7]]", "it sorts nothing"),
        "flat": Misconception("batches = [4, 1, 7, 5, 3, 9]", "one index after the other"),
        "three batches asked for": Misconception("batches = [[4, 1], [7, 5], [3, 9], [0, 8]]", "these batches hold 2"),
        "places": Misconception("batches = [[0, 1, 2], [3, 4, 5]]", "places in the sampler's list"),
    },
)


def _test_weights(weights: Callable[[np.ndarray], Any]) -> str | None:
    for labels in (np.array(list("bbbbbbabbbbc")), np.array(["X-ray"] * 2 + ["Fe"] * 3 + ["none"] * 7)):
        classes, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
        got = np.asarray(weights(labels), dtype=float)
        if got.shape == (len(classes),):
            return f"that is a weight for each of the {len(classes)} classes; the sampler wants one for each image"
        if got.shape != labels.shape:
            return f"one weight for each of {len(labels)} images; you return an array of shape {got.shape}"
        if not (got > 0).all():
            return "a weight of 0 or below: such an image never comes"
        drawn = np.bincount(of_class, got) / got.sum()
        if np.allclose(drawn, counts / len(labels)):
            return "with these weights the classes come as often as before: no image outweighs another"
        if np.allclose(drawn, counts**2 / (counts**2).sum()):
            return "the more images a class has, the heavier you make them; it should be the other way round"
        if np.allclose(got, 1 - counts[of_class] / len(labels)):
            return "1 - share is even for two classes only; here are three. A weight falls as a count grows: divide"
        if not np.allclose(drawn, 1 / len(classes)):
            shares = ", ".join(f"{name} {share:.2f}" for name, share in zip(classes, drawn, strict=True))
            return f"each of {len(classes)} classes should come equally often; yours come in shares of {shares}"
    return None


q2 = Exercise(
    name="q2",
    answer="weights",
    test=_test_weights,
    right="however many images a class has, together they weigh the same",
    hints=(
        "Together, the images of each class should weigh the same. A class has so many; what must each of them weigh?",
        "An image of a class with n images weighs 1 / n. Count the classes, then look up the count of each image.",
        "np.unique(labels, return_inverse=True, return_counts=True) gives classes, each image's class number, counts.",
    ),
    solution_code="""
def weights(labels):
    classes, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1 / counts[of_class]
""",
    why="n images of weight 1 / n weigh 1 together, in every class. Only the ratios matter: 100 / n is as right.",
    misconceptions={
        "one for each class": Misconception(
            "def weights(labels):\n    return 1 / np.unique(labels, return_counts=True)[1]", "a weight for each of the"
        ),
        "not inverted": Misconception(
            "def weights(labels):\n    return [(labels == label).sum() for label in labels]", "the other way round"
        ),
        "one minus share": Misconception(
            "def weights(labels):\n    return [1 - (labels == label).mean() for label in labels]",
            "for two classes only",
        ),
        "all alike": Misconception("def weights(labels):\n    return np.ones(len(labels))", "as often as before"),
    },
    equivalent=(
        "def weights(labels):\n"
        "    classes, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)\n"
        "    return 2 / counts[of_class]",
    ),
)


def _test_batch_size(batch_size: Callable[[float, float], Any]) -> str | None:
    for share, chance, right in ((0.05, 0.1, 45), (0.1, 0.01, 44), (0.3, 0.2, 5), (0.02, 0.5, 35)):
        got = batch_size(share, chance)
        asked = f"a class of {share:.0%} and a chance of {chance:.0%}"
        if isinstance(got, bool | np.bool_) or not isinstance(got, int | float | np.integer | np.floating):
            return f"return a number, not {type(got).__name__}"
        if got == np.ceil(1 / share):
            return f"1 / share makes one rare image the average: with {asked}, too many batches still hold none"
        if got == right - 1:
            return f"one too few for {asked}: round up, a batch that is smaller by one misses the class too often"
        if got == np.ceil((1 - chance) / share):
            return f"chances multiply, they do not add up: for {asked} you return {got}, which is too few"
        if got != right:
            return f"for {asked} it is {right}, for (1 - {share})**{right} is at most {chance}; you return {got}"
        if not isinstance(got, int | np.integer):
            return "the number is right; a batch size is an int, so wrap it in int()"
    return None


q3 = Exercise(
    name="q3",
    answer="batch_size",
    test=_test_batch_size,
    right="now you can say how large a batch a rare class needs before you reach for a sampler",
    hints=(
        "The chance that one random image is not of the class is 1 - share. And B of them?",
        "(1 - share)**B should be at most chance. Take logarithms of both sides and solve for B.",
        "log(1 - share) is negative, so dividing turns the sign round: B is at least log(chance) / log(1 - share).",
    ),
    solution_code="""
def batch_size(share, chance):
    return int(np.ceil(np.log(chance) / np.log(1 - share)))
""",
    why="images come independently (in a large set), so the chances multiply: none in B has chance (1 - share)**B.",
    misconceptions={
        "one on average": Misconception(
            "def batch_size(share, chance):\n    return int(np.ceil(1 / share))", "one rare image the average"
        ),
        "rounded down": Misconception(
            "def batch_size(share, chance):\n    return int(np.log(chance) / np.log(1 - share))", "one too few"
        ),
        "chances added": Misconception(
            "def batch_size(share, chance):\n    return int(np.ceil((1 - chance) / share))", "do not add up"
        ),
        "not a whole number": Misconception(
            "def batch_size(share, chance):\n    return np.ceil(np.log(chance) / np.log(1 - share))", "wrap it in int()"
        ),
    },
)


def _test_undersampler(sampler_class: Callable[..., Any]) -> str | None:
    labels = np.array(["X-ray"] * 30 + ["Fe"] * 5 + ["none"] * 12)

    def epoch_of(sampler: Any, epoch: int) -> list[int]:
        sampler.set_epoch(epoch)
        return [int(index) for index in sampler]

    sampler = sampler_class(labels, 3)
    first = [int(index) for index in sampler]
    counts = {name: int((labels[first] == name).sum()) for name in ("X-ray", "Fe", "none")}
    if len(set(first)) < len(first):
        return "an image comes twice in one epoch; undersampling leaves out and never repeats (replace=False)"
    if set(counts.values()) != {5}:
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        return f"the smallest of the three classes has 5 images, so an epoch shows 5 of each; yours shows {said}"
    if len(sampler) != 15:
        return f"an epoch has 15 images, your len() says {len(sampler)}; a progress bar and a schedule rely on it"
    if len([1 for a, b in zip(first, first[1:], strict=False) if labels[a] != labels[b]]) < 4:
        return "the classes come one after the other: shuffle what you have drawn"
    orders = [epoch_of(sampler, epoch) for epoch in range(6)]
    if [int(index) for index in sampler] != orders[5]:
        return "the same epoch, iterated twice, gives two orders: draw from a generator made in __iter__"
    if orders[0] == orders[1]:
        return "every epoch has the same order: the epoch must decide, too"
    if len(set().union(*orders)) < 20:
        return "only the order changes: every epoch shows the same images, and the rest is never seen"
    if first != orders[0]:
        return "before set_epoch is called, the order should be that of epoch 0"
    again = epoch_of(sampler_class(labels, 3), 4)
    if again != orders[4]:
        return "a resumed run gets another epoch 4 than the run that came there step by step"
    if epoch_of(sampler_class(labels, 4), 4) == again:
        return "two seeds give one order: the seed must decide, too"
    return None


_UNDERSAMPLER = """
class Undersampler(torch.utils.data.Sampler):
    def __init__(self, labels, seed):
        self.members = [np.flatnonzero(labels == name) for name in np.unique(labels)]
        self.smallest = min(map(len, self.members))
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.smallest * len(self.members)

    def __iter__(self):
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = [rng.choice(indices, self.smallest, replace=False) for indices in self.members]
        return iter(rng.permutation(np.concatenate(drawn)).tolist())
"""


def _undersampler(*changes: tuple[str, str]) -> str:
    """The solution of q4 with parts of it changed."""
    code = _UNDERSAMPLER
    for old, new in changes:
        code = code.replace(old, new)
    return code


q4 = Exercise(
    name="q4",
    answer="Undersampler",
    test=_test_undersampler,
    right="5 of each class, other ones in each epoch, and an order that a resumed run finds again",
    hints=(
        "In __init__, find the indices of each class and the size of the smallest; draw nothing yet.",
        "In __iter__, begin with rng = np.random.default_rng([self.seed, self.epoch]) and draw from each class.",
        "rng.choice(indices, smallest, replace=False) for each class, np.concatenate, rng.permutation, iter().",
    ),
    solution_code=_UNDERSAMPLER,
    why="all chance comes from a generator that is made anew from seed and epoch, so nothing depends on the past.",
    misconceptions={
        "epoch forgotten": Misconception(
            _undersampler(("[self.seed, self.epoch]", "self.seed")), "every epoch has the same order"
        ),
        "generator kept": Misconception(
            _undersampler(
                ("np.random.default_rng([self.seed, self.epoch])", "self.rng"),
                ("self.seed, self.epoch = seed, 0", "self.rng = np.random.default_rng(seed)"),
            ),
            "iterated twice, gives two orders",
        ),
        "with replacement": Misconception(_undersampler(("replace=False", "replace=True")), "comes twice in one epoch"),
        "not shuffled": Misconception(
            _undersampler(("rng.permutation(np.concatenate(drawn))", "np.concatenate(drawn)")),
            "after the other: shuffle",
        ),
        "the same images": Misconception(
            _undersampler(("rng.choice(indices, self.smallest, replace=False)", "indices[: self.smallest]")),
            "the rest is never seen",
        ),
    },
    equivalent=(
        _undersampler(("[self.seed, self.epoch]", "[self.epoch, self.seed]")),
        _undersampler((".tolist()", "")),
    ),
)
