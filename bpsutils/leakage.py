"""The leakage laboratory: one classifier, split at random and by mouse, on nuclei of mice more or less alike.

The nuclei are simulated with ``plate_effect`` 0, so that plates are all alike and nothing but the mice can leak
(notebook 05). Six numbers describe each image; those of 393 irradiated nuclei at each of three strengths of the
mouse's influence are kept in ``data_sample/leakage/numbers.csv``, which this command makes again in half a minute::

    python -m bpsutils leakage
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

from bpsutils.config import SAMPLE_DIR, atomically
from bpsutils.simulate import render, simulate_table

NUMBERS_CSV = SAMPLE_DIR / "leakage" / "numbers.csv"
NUMBERS = ("area", "background", "nucleus", "texture", "foci", "peak")
MOUSE_EFFECTS = (0.0, 1.0, 2.0)
IMAGES = 600  # as in data_sample/bps; 393 of them are irradiated
_PATCH = 4  # pixels: averages over 4 x 4 leave little of the noise


def image_numbers(image: np.ndarray) -> dict[str, float]:
    """Six numbers that describe the image of one nucleus.

    Args:
        image: Grey levels of shape ``(H, W)``.

    Returns:
        ``area``: of the nucleus, in pixels. ``background`` and ``nucleus``: their typical grey levels. ``texture``:
        how much neighbouring patches inside the nucleus differ, ``foci``: pixels more than twice as far above the
        background as the nucleus is, ``peak``: the brightest pixel; texture and peak are in units of the nucleus
        above the background.

    Example:
        >>> image = np.full((40, 40), 500)
        >>> image[8:32, 8:32] = 900
        >>> image[20, 20] = 2500
        >>> list(image_numbers(image).values())
        [576.0, 500.0, 900.0, 0.0, 1.0, 5.0]
    """
    dark, bright = np.percentile(image, [5, 90])
    edge = (dark + bright) / 2
    inside = image[image > edge]
    step = max(float(np.median(inside) - dark), 1.0) if inside.size else 1.0
    height, width = (side // _PATCH * _PATCH for side in image.shape)
    patches = image[:height, :width].reshape(height // _PATCH, _PATCH, width // _PATCH, _PATCH).mean(axis=(1, 3))
    both = (patches[:, 1:] > edge) & (patches[:, :-1] > edge)
    differences = np.abs(np.diff(patches, axis=1))[both]
    numbers = {
        "area": inside.size,
        "background": round(float(dark), 1),
        "nucleus": round(float(dark) + step, 1),
        "texture": round(float(np.median(differences)) / step, 4) if differences.size else 0.0,
        "foci": (inside > dark + 2 * step).sum(),
        "peak": round((float(image.max()) - float(dark)) / step, 3),
    }
    return {name: float(value) for name, value in numbers.items()}


def simulate_numbers(mouse_effect: float, images: int = IMAGES, seed: int = 0) -> pd.DataFrame:
    """The six numbers of simulated irradiated nuclei, plates all alike.

    Args:
        mouse_effect: How much mice differ, see `bpsutils.simulate.simulate_table`.
        images: Nuclei simulated; those with a dose of 0 Gy are left out.
        seed: Same seed, same nuclei.

    Returns:
        Columns ``mouse_effect``, ``filename``, ``particle_type``, ``mouse`` and `NUMBERS`.
    """
    table = simulate_table(images, seed, mouse_effect=mouse_effect, plate_effect=0)
    table = table[table["dose_Gy"] > 0].reset_index(drop=True)
    numbers = pd.DataFrame([image_numbers(render(row, seed)) for row in table.to_dict("records")])
    known = table[["filename", "particle_type", "mouse"]].assign(mouse_effect=float(mouse_effect))
    return pd.concat([known[["mouse_effect", "filename", "particle_type", "mouse"]], numbers], axis=1)


def compare_splits(numbers: pd.DataFrame, splits: int = 30, test_mice: int = 2, trees: int = 30) -> pd.DataFrame:
    """Balanced accuracy of a random forest, for splits by mouse and for splits at random of the same sizes.

    Args:
        numbers: ``particle_type``, ``mouse`` and `NUMBERS`; other columns are not used.
        splits: Pairs of splits; number ``n`` is drawn with the seed ``n``.
        test_mice: Mice of each particle in a test set, when whole mice are drawn.
        trees: Size of the forest.

    Returns:
        One row a pair: ``"at random"``, ``"by mouse"``, and ``"inflation"``, the first less the second.
    """
    x, y = numbers[list(NUMBERS)].to_numpy(), numbers["particle_type"].to_numpy()
    rows = []
    for seed in range(splits):
        rng = np.random.default_rng(seed)
        by_mouse = _whole_mice(numbers, test_mice, rng)
        at_random = np.zeros(len(y), bool)
        for particle in np.unique(y):  # as many test rows of each class as by mouse: only the mice differ
            own = np.flatnonzero(y == particle)
            at_random[rng.permutation(own)[: by_mouse[own].sum()]] = True
        rows.append([_score(x, y, test, trees) for test in (at_random, by_mouse)])
    scores = pd.DataFrame(rows, columns=["at random", "by mouse"])
    return scores.assign(inflation=scores["at random"] - scores["by mouse"])


def mean_interval(values: pd.Series) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval, from the spread of the values.

    Example:
        >>> mean_interval(pd.Series([0.0, 0.2]))
        (0.1, 0.196)
    """
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return round(float(values.mean()), 6), round(half, 6)


def _whole_mice(numbers: pd.DataFrame, n: int, rng: np.random.Generator) -> np.ndarray:
    """True for the rows of ``n`` mice of each particle, drawn at random."""
    chosen: list[str] = []
    for _, rows in numbers.groupby("particle_type"):
        chosen.extend(rng.choice(sorted(rows["mouse"].unique()), n, replace=False))
    test: np.ndarray = numbers["mouse"].isin(chosen).to_numpy()
    return test


def _score(x: np.ndarray, y: np.ndarray, test: np.ndarray, trees: int) -> float:
    from sklearn.ensemble import RandomForestClassifier  # here: half a second that other notebooks need not wait

    forest = RandomForestClassifier(trees, random_state=0).fit(x[~test], y[~test])
    return float(balanced_accuracy_score(y[test], forest.predict(x[test])))


def build(path: Path = NUMBERS_CSV, images: int = IMAGES) -> None:
    """Write the six numbers at the three strengths of the mouse's influence to ``path``, a CSV."""
    numbers = pd.concat([simulate_numbers(effect, images) for effect in MOUSE_EFFECTS])
    text = str(numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    with atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {len(numbers)} rows to {path}")
