"""The laboratory of notebook 04: does it help to draw hard examples first, if they can be learned, and if they cannot?

A quick classifier learns from four numbers of each simulated crop whether a nucleus was irradiated. One crop in ten is
of a rare kind: either dark with its right label, which can be learned, or with a label that a coin decided, which
cannot. The training loop itself stands in the notebook and is handed in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import RandomSampler, Sampler

from bpsutils.samplers import HardExampleSampler
from bpsutils.simulate import REAL_COUNTS, render, simulate_table

RARE_SHARE = 0.1
TEST_MICE = 4
STEP = 0.1
Fit = Callable[[np.ndarray, np.ndarray, Sampler[int], float], Iterable[tuple[int, np.ndarray]]]


@dataclass(frozen=True)
class Crops:
    """Simulated nuclei, each as an ordinary crop and as a dark one.

    Attributes:
        table: What is in each image, from `bpsutils.simulate.simulate_table`.
        normal: Four numbers of each ordinary crop, shape ``(N, 4)``.
        dark: The same for the dark crops.
    """

    table: pd.DataFrame
    normal: np.ndarray
    dark: np.ndarray

    @property
    def irradiated(self) -> np.ndarray:
        """Whether each nucleus was irradiated, shape ``(N,)``."""
        return np.asarray(self.table["dose_Gy"] > 0)


def crop_numbers(image: np.ndarray) -> np.ndarray:
    """Four numbers of a crop: logarithms of its background, and of what nucleus, texture and spots stand out by.

    Args:
        image: Grey levels of shape ``(H, W)``.

    Example:
        >>> crop_numbers(np.arange(1001)).round(1).tolist()
        [3.9, 6.1, 6.1, 3.9]
    """
    background, nucleus, texture, spots = np.percentile(image, [5, 50, 95, 99.8])
    steps = np.array([background, nucleus - background, texture - nucleus, spots - texture])
    logarithms: np.ndarray = np.log(np.maximum(steps, 1))
    return logarithms


def simulate_crops(images: int = 300, seed: int = 1) -> Crops:
    """Sharp nuclei 4 h after 0.82 Gy of iron, 1 Gy of X-rays or neither, on plates that are all equally bright.

    Args:
        images: How many nuclei.
        seed: Same seed, same nuclei.
    """
    wells = pd.read_csv(REAL_COUNTS, dtype={"barcode": str})
    wells = wells[(wells["hr_post_exposure"] == 4) & wells["dose_Gy"].isin([0, 0.82, 1])]
    # A plate holds one condition: plates of different brightness would give the answer away.
    table = simulate_table(images, seed, plate_effect=0, counts=wells).assign(focus="sharp", kind="normal")
    normal, dark = (
        np.array([crop_numbers(render(row, seed)) for row in table.assign(kind=kind).to_dict("records")])
        for kind in ("normal", "dark")
    )
    return Crops(table, normal, dark)


def compare_orders(crops: Crops, fit: Fit, trials: int = 20) -> pd.DataFrame:
    """Train in random order, hard examples first, and in random order with larger steps, on both rare kinds.

    A trial holds four mice out and draws which crops are rare. Every held-out nucleus is tested as an ordinary crop and
    as one of the rare kind.

    Args:
        crops: From `simulate_crops`.
        fit: The training loop: takes numbers ``(N, 5)`` (standardised, and a 1), answers ``(N,)``, a sampler and the
            size of a step; yields an epoch and the weights ``(5,)`` whenever they are to be tested.
        trials: How many; number ``n`` is drawn with the seed ``n``.

    Returns:
        One row a trial, ``setting`` (``"dark crops"``, ``"tossed labels"``), ``drawn``, ``epoch`` and ``images``
        (``"ordinary"``, ``"rare"``), with the balanced accuracy as ``score``. ``emphasis`` says how many times as
        likely as others a rare training crop was to be drawn at the end.
    """
    rows: list[dict[str, Any]] = []
    for seed in range(trials):
        coin = np.random.default_rng([seed, 1]).random(len(crops.table)) < 0.5
        kinds = {"dark crops": (crops.dark, crops.irradiated), "tossed labels": (crops.normal, coin)}
        for setting, (rare_x, rare_y) in kinds.items():
            x, y, rare, tests = _trial(crops, rare_x, rare_y, seed)
            for drawn, (sampler, step) in _ways(len(y), seed).items():
                found = [(epoch, w) for epoch, w in fit(x, y, sampler, step)]
                known = {"trial": seed, "setting": setting, "drawn": drawn, "emphasis": _emphasis(sampler, rare)}
                for epoch, w in found:
                    scores = {images: balanced_accuracy(w, *test) for images, test in tests.items()}
                    rows += [known | {"epoch": epoch, "images": on, "score": score} for on, score in scores.items()]
    return pd.DataFrame(rows)


def lead(result: pd.DataFrame) -> pd.DataFrame:
    """How far drawing hard examples first is ahead of each other way, mean over the trials.

    Args:
        result: From `compare_orders`.

    Returns:
        One column a rival, rows by ``setting``, ``images`` and ``epoch``.
    """
    mean = result.groupby(["setting", "images", "epoch", "drawn"])["score"].mean().unstack("drawn")
    rivals = mean.drop(columns="hard first")
    return rivals.rsub(mean["hard first"], axis=0)


def balanced_accuracy(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Mean over both answers of the share that a linear classifier gets right.

    Example:
        >>> balanced_accuracy(np.array([1.0]), np.array([[2.0], [-1.0], [3.0]]), np.array([True, False, False]))
        0.75
    """
    right = (x @ w > 0) == y
    return float(right[y].mean() + right[~y].mean()) / 2


def _ways(n: int, seed: int) -> Mapping[str, tuple[Sampler[int], float]]:
    """Name of each way to draw, its sampler and its step."""

    def at_random() -> Sampler[int]:
        return RandomSampler(range(n), generator=torch.Generator().manual_seed(seed))

    return {
        "random": (at_random(), STEP),
        "hard first": (HardExampleSampler(n, seed), STEP),
        "random, step x 3": (at_random(), 3 * STEP),
    }


def _trial(
    crops: Crops, rare_x: np.ndarray, rare_y: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Training numbers, answers, which of them are rare, and the two test sets."""
    rng, mice = np.random.default_rng(seed), crops.table["mouse"]
    test = mice.isin(rng.permutation(sorted(set(mice)))[:TEST_MICE]).to_numpy()
    rare = rng.random(len(mice)) < RARE_SHARE
    x = np.where(rare[:, None], rare_x, crops.normal)
    y = np.where(rare, rare_y, crops.irradiated)
    mean, std = x[~test].mean(axis=0), x[~test].std(axis=0)

    def ready(numbers: np.ndarray) -> np.ndarray:
        return np.column_stack([(numbers - mean) / std, np.ones(len(numbers))])

    tests = {
        "ordinary": (ready(crops.normal)[test], crops.irradiated[test]),
        "rare": (ready(rare_x)[test], rare_y[test]),
    }
    return ready(x)[~test], y[~test], rare[~test], tests


def _emphasis(sampler: Sampler[int], rare: np.ndarray) -> float:
    if not isinstance(sampler, HardExampleSampler):
        return 1.0
    return float(sampler.probabilities()[rare].mean() / sampler.probabilities()[~rare].mean())
