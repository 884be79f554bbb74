"""Exercises of notebook 00: read a result, see a leak, know what a GPU buys, draw repeatable random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bpsutils.exercises import Exercise, Misconception


def _test_balanced_accuracy(balanced_accuracy: Callable[[np.ndarray], float]) -> str | None:
    uneven = np.array([[90, 10], [5, 5]])  # 100 X-ray, 10 Fe: each way of dividing gives another number
    got = float(balanced_accuracy(uneven))
    if np.isclose(got, 95 / 110):
        return "95/110 is plain accuracy: the 100 X-ray nuclei drown the 10 Fe nuclei; take each class by itself first"
    if np.isclose(got, (90 / 95 + 5 / 15) / 2):
        return "you divide by the columns, what the model said; a row holds the nuclei that truly are of a class"
    if np.isclose(got, 90 / 100 + 5 / 10):
        return "you add up the shares of the classes; a perfect matrix would get 2 instead of 1"
    for confusion, expected in ((uneven, 0.7), (np.diag([3, 40]), 1.0), (np.diag([2, 3, 4])[::-1], 1 / 3)):
        got = float(balanced_accuracy(confusion))
        if not np.isclose(got, expected):
            return f"for the rows {confusion.tolist()} you get {got:.3f}, right is {expected:.3f}"
    return None


q1 = Exercise(
    name="q1",
    answer="balanced_accuracy",
    test=_test_balanced_accuracy,
    right="each class counts the same, however many nuclei it has, and three classes work as well as two",
    hints=(
        "Take one row at a time: of the nuclei that truly are of this class, which share lies on the diagonal?",
        "np.diag(confusion) holds the right answers, confusion.sum(axis=1) the nuclei of each true class.",
        "Divide the one by the other and take the mean.",
    ),
    solution_code="""
def balanced_accuracy(confusion):
    right = np.diag(confusion)
    return np.mean(right / confusion.sum(axis=1))
""",
    why="a row holds one true class, so right / row sum is that class's share, and a plain mean weighs classes alike.",
    misconceptions={
        "plain accuracy": Misconception(
            "def balanced_accuracy(confusion):\n    return np.trace(confusion) / confusion.sum()",
            "plain accuracy",
        ),
        "columns instead of rows": Misconception(
            "def balanced_accuracy(confusion):\n    return np.mean(np.diag(confusion) / confusion.sum(axis=0))",
            "divide by the columns",
        ),
        "sum instead of mean": Misconception(
            "def balanced_accuracy(confusion):\n    return np.sum(np.diag(confusion) / confusion.sum(axis=1))",
            "add up the shares",
        ),
    },
)


def _test_shared_mice(shared_mice: Callable[[Sequence[str], Sequence[str]], Any]) -> str | None:
    train = ["Fe/A6", "Fe/A6", "X-ray/C7", "Fe/C7", "X-ray/D5"]
    test = ["X-ray/D5", "Fe/A8", "Fe/C7", "Fe/C7"]
    got = shared_mice(train, test)
    if isinstance(got, bool | np.bool_):
        return "you say whether mice are shared; say which ones, so that somebody can act on it"
    if isinstance(got, int | np.integer):
        return "you count them; name the mice, so that somebody can act on it"
    got = list(got)
    if len(got) != len(set(got)):
        return "a mouse has many nuclei, and you name it once for each; name every mouse once"
    if set(got) == set(train) | set(test):
        return "these are all mice of either split; which are in both?"
    if {str(name).rpartition("/")[2] for name in got} >= {"C7", "D5"} and "Fe/C7" not in got:
        return "a well alone is no mouse: well C7 is in both branches, so keep the whole name, like Fe/C7"
    if set(got) != {"Fe/C7", "X-ray/D5"}:
        return f"Fe/C7 and X-ray/D5 are in both splits, you name {', '.join(map(str, got)) or 'none'}"
    if list(shared_mice(["Fe/A6"], ["Fe/A8"])):
        return "Fe/A6 and Fe/A8 share nothing, and you name something"
    return None


q2 = Exercise(
    name="q2",
    answer="shared_mice",
    test=_test_shared_mice,
    right="each shared mouse is named once, and an honest split names none",
    hints=(
        "A mouse appears once per nucleus. Which Python type holds each value once?",
        "Make a set of each split; two sets can be compared with one operator.",
        "set(train) & set(test) holds what is in both; sorted() makes a list of it.",
    ),
    solution_code="""
def shared_mice(train, test):
    return sorted(set(train) & set(test))
""",
    why="a set holds each mouse once and & keeps what both have. A split is honest if nothing is left.",
    misconceptions={
        "every nucleus": Misconception(
            "def shared_mice(train, test):\n    return [mouse for mouse in test if mouse in train]",
            "name every mouse once",
        ),
        "either instead of both": Misconception(
            "def shared_mice(train, test):\n    return sorted(set(train) | set(test))",
            "which are in both",
        ),
        "yes or no": Misconception(
            "def shared_mice(train, test):\n    return bool(set(train) & set(test))",
            "say which ones",
        ),
        "how many": Misconception(
            "def shared_mice(train, test):\n    return len(set(train) & set(test))",
            "you count them",
        ),
        "wells for mice": Misconception(
            "def shared_mice(train, test):\n"
            "    return sorted({mouse.split('/')[1] for mouse in train} & {mouse.split('/')[1] for mouse in test})",
            "a well alone is no mouse",
        ),
    },
    equivalent=("def shared_mice(train, test):\n    return set(train) & set(test)",),
)


def _test_speedup(speedup: Callable[[float, float, float], float]) -> str | None:
    got = float(speedup(60, 60, 10))
    if np.isclose(got, 10):
        return "10 would be right if loading got faster too; the GPU only computes"
    if np.isclose(got, 66 / 120):
        return "you divide the new time by the old one; a speed-up above 1 means faster"
    if np.isclose(got, 66):
        return "66 seconds is the new time; the speed-up is the old time divided by it"
    if np.isclose(got, 120 / (60 / 10 + 60 / 10)) or np.isclose(got, 60 / 6):
        return "divide only the computing time by the GPU's factor"
    for load, compute, factor in ((60, 60, 10), (0, 30, 4), (90, 10, 1), (45, 5, 1000)):
        expected = (load + compute) / (load + compute / factor)
        got = float(speedup(load, compute, factor))
        if not np.isclose(got, expected):
            return (
                f"loading {load} s, computing {compute} s, a GPU {factor} times as fast: "
                f"you get {got:.2f}, right is {expected:.2f}"
            )
    return None


q3 = Exercise(
    name="q3",
    answer="speedup",
    test=_test_speedup,
    right="and with any GPU the time for loading stays: to go further you must load faster",
    hints=(
        "How long does an epoch take now, and how long with the GPU? Only one of its two parts changes.",
        "Now it takes load + compute. With the GPU, computing takes compute / factor.",
        "Divide the old time by the new one: (load + compute) / (load + compute / factor).",
    ),
    solution_code="""
def speedup(load, compute, factor):
    return (load + compute) / (load + compute / factor)
""",
    why="the GPU divides the computing time only. This is Amdahl's law: what you do not speed up sets the limit.",
    misconceptions={
        "everything gets faster": Misconception(
            "def speedup(load, compute, factor):\n    return factor",
            "if loading got faster too",
        ),
        "upside down": Misconception(
            "def speedup(load, compute, factor):\n    return (load + compute / factor) / (load + compute)",
            "divide the new time by the old one",
        ),
        "a time, not a ratio": Misconception(
            "def speedup(load, compute, factor):\n    return load + compute / factor",
            "66 seconds is the new time",
        ),
    },
)


def _test_draw(draw: Callable[[int], torch.Tensor]) -> str | None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(5)
    moved = not torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again, other = draw(5), draw(6)
    if not isinstance(first, torch.Tensor) or first.shape != (3,):
        return "draw(seed) should return a tensor of three numbers"
    if not torch.equal(first, again):
        return "the same seed gave other numbers the second time: the draw does not use the seed"
    if torch.equal(again, other):
        return "seeds 5 and 6 give the same numbers: is the seed put into the generator?"
    if moved:
        return "it repeats, but it also moved PyTorch's global generator, and with it whatever is drawn elsewhere"
    if float(first.min()) < 0 or float(first.max()) >= 1:
        return "the numbers should lie between 0 and 1, as torch.rand draws them"
    return None


q4 = Exercise(
    name="q4",
    answer="draw",
    test=_test_draw,
    right="same seed, same numbers, and nobody else's random numbers change",
    hints=(
        "torch.manual_seed would repeat, too, but it changes what everybody else draws next.",
        "torch.Generator() is a source of random numbers of your own; it has a method manual_seed.",
        "torch.rand(3, generator=...) draws from it.",
    ),
    solution_code="""
def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, generator=generator)
""",
    why="its own generator makes the draw a function of the seed alone. The course's datasets and samplers do this.",
    misconceptions={
        "no seed": Misconception(
            "def draw(seed):\n    return torch.rand(3)",
            "the draw does not use the seed",
        ),
        "the global seed": Misconception(
            "def draw(seed):\n    torch.manual_seed(seed)\n    return torch.rand(3)",
            "moved PyTorch's global generator",
        ),
        "a generator without the seed": Misconception(
            "def draw(seed):\n    return torch.rand(3, generator=torch.Generator())",
            "is the seed put into the generator",
        ),
    },
)
