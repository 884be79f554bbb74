"""Exercises of notebook 10: precision and recall, a threshold chosen in time, calibration, mice, and a control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bpsutils.exercises import Exercise, Misconception


def _test_fe_scores(fe_scores: Callable[[np.ndarray], Any]) -> str | None:
    confusion = np.array([[70, 30], [4, 16]])  # 100 X-ray, 20 Fe: no two ways of dividing agree
    precision, recall = 16 / 46, 16 / 20
    got = [float(value) for value in fe_scores(confusion)]
    if len(got) != 3:
        return f"return three numbers, precision, recall and F1; you return {len(got)}"
    if np.allclose(got[:2], [recall, precision]):
        return "precision and recall are swapped: precision divides by what was called Fe, the column"
    if np.allclose(got[:2], [70 / 74, 70 / 100]):
        return "these are the numbers of X-ray, the first class; Fe is the second row and column"
    if np.isclose(got[0], 86 / 120) or np.isclose(got[1], 86 / 120):
        return "86/120 is accuracy, which the 100 X-ray nuclei decide"
    if np.isclose(got[2], (precision + recall) / 2):
        return "your F1 is the plain mean, which a useless classifier can raise by calling everything Fe"
    if np.allclose(got[:2], [precision, recall]) and np.isclose(got[2], precision * recall / (precision + recall)):
        return "your F1 lacks its factor 2: precision 1 and recall 1 must give 1"
    for matrix in (confusion, np.array([[5, 0], [6, 6]]), np.array([[1, 8], [0, 3]])):
        found, called, real = matrix[1, 1], matrix[:, 1].sum(), matrix[1].sum()
        right = [found / called, found / real, 2 * found / (called + real)]
        got = [float(value) for value in fe_scores(matrix)]
        if not np.allclose(got, right):
            numbers = ", ".join(f"{value:.3f}" for value in right)
            return f"for the rows {matrix.tolist()} you get {', '.join(f'{v:.3f}' for v in got)}, right is {numbers}"
    return None


q1 = Exercise(
    name="q1",
    answer="fe_scores",
    test=_test_fe_scores,
    right="one numerator, two denominators: what was called Fe, and what is Fe",
    hints=(
        "Both start from the Fe nuclei that were called Fe. One divides by a column, the other by a row.",
        "confusion[1, 1] is what was found; confusion[:, 1] was called Fe, confusion[1] truly is Fe.",
        "F1 is the harmonic mean: 2 * precision * recall / (precision + recall).",
    ),
    solution_code="""
def fe_scores(confusion):
    found = confusion[1, 1]
    precision = found / confusion[:, 1].sum()
    recall = found / confusion[1].sum()
    return precision, recall, 2 * precision * recall / (precision + recall)
""",
    why="rows are the truth, columns what was said. The harmonic mean is near the smaller of the two, so F1 is high "
    "only if both are.",
    misconceptions={
        "swapped": Misconception(
            "def fe_scores(confusion):\n"
            "    p, r = confusion[1, 1] / confusion[1].sum(), confusion[1, 1] / confusion[:, 1].sum()\n"
            "    return p, r, 2 * p * r / (p + r)",
            "precision and recall are swapped",
        ),
        "the other class": Misconception(
            "def fe_scores(confusion):\n"
            "    p, r = confusion[0, 0] / confusion[:, 0].sum(), confusion[0, 0] / confusion[0].sum()\n"
            "    return p, r, 2 * p * r / (p + r)",
            "the numbers of X-ray",
        ),
        "plain mean": Misconception(
            "def fe_scores(confusion):\n"
            "    p, r = confusion[1, 1] / confusion[:, 1].sum(), confusion[1, 1] / confusion[1].sum()\n"
            "    return p, r, (p + r) / 2",
            "the plain mean",
        ),
        "factor forgotten": Misconception(
            "def fe_scores(confusion):\n"
            "    p, r = confusion[1, 1] / confusion[:, 1].sum(), confusion[1, 1] / confusion[1].sum()\n"
            "    return p, r, p * r / (p + r)",
            "lacks its factor 2",
        ),
        "accuracy": Misconception(
            "def fe_scores(confusion):\n"
            "    p = np.trace(confusion) / confusion.sum()\n"
            "    r = confusion[1, 1] / confusion[1].sum()\n"
            "    return p, r, 2 * p * r / (p + r)",
            "86/120 is accuracy",
        ),
    },
)


def _test_pick_threshold(pick_threshold: Callable[..., Any]) -> str | None:
    rng = np.random.default_rng(0)
    val_fe, test_fe = np.arange(60) % 3 == 0, np.arange(60) % 2 == 0
    val_scores, test_scores = (rng.permutation(60) + 0.5) / 61, (rng.permutation(60) + 0.2) / 61
    val_kept, test_kept = val_scores.copy(), test_scores.copy()
    wanted = 0.8
    right = np.sort(val_scores[val_fe])[::-1][15]  # 16 of 20 are at least as high
    got = float(pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted))
    if not (np.array_equal(val_scores, val_kept) and np.array_equal(test_scores, test_kept)):
        return "the scores that went in have changed; sort a copy"
    peeked = np.sort(test_scores[test_fe])[::-1][23]  # 24 of 30
    if np.isclose(got, peeked):
        return "this threshold was chosen on the test images: their score is then no longer a test"
    if np.isclose(got, wanted):
        return "the wanted recall is a share of nuclei, not a score: which score do 80 % of the Fe nuclei reach?"
    if np.isclose(got, np.sort(val_scores[val_fe])[15]):
        return "you counted from the low end: only 25 % of the Fe nuclei reach this score"
    if np.isclose(got, np.sort(val_scores)[::-1][47]):
        return "80 % of ALL nuclei reach this score; recall is about the Fe nuclei"
    if got <= val_scores[val_fe].min():
        return "every Fe nucleus reaches this score, and too many others do; take the highest threshold that will do"
    for wanted in (0.8, 0.5, 1.0, 0.33):
        enough = [level for level in val_scores if (val_scores[val_fe] >= level).mean() >= wanted]
        right = max(enough)
        got = float(pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted))
        if not np.isclose(got, right):
            recall = (val_scores[val_fe] >= got).mean()
            return f"for a recall of {wanted:g} on val you choose {got:.3f}, which finds {recall:.0%}; take {right:.3f}"
    return None


q2 = Exercise(
    name="q2",
    answer="pick_threshold",
    test=_test_pick_threshold,
    right="the highest threshold that finds enough, chosen without a look at the test images",
    hints=(
        "Which of the five arguments may a choice depend on? The test images judge, they do not choose.",
        "Look at the Fe nuclei of val alone, from the highest score down. At how many of them may you stop?",
        "Sort them downwards; int(np.ceil(wanted * n)) of n must be reached, so take the score at that place less one.",
    ),
    solution_code="""
def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):
    fe = np.sort(val_scores[val_fe])[::-1]
    enough = int(np.ceil(wanted * len(fe)))
    return fe[enough - 1]
""",
    why="a threshold is a choice like any other, so it is made on val. Recall counts Fe nuclei only, so their sorted "
    "scores answer it; any lower threshold would only add false alarms.",
    misconceptions={
        "chosen on the test": Misconception(
            "def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):\n"
            "    fe = np.sort(test_scores[test_fe])[::-1]\n"
            "    return fe[int(np.ceil(wanted * len(fe))) - 1]",
            "chosen on the test images",
        ),
        "recall taken for a score": Misconception(
            "def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):\n    return wanted",
            "a share of nuclei, not a score",
        ),
        "from the low end": Misconception(
            "def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):\n"
            "    fe = np.sort(val_scores[val_fe])\n"
            "    return fe[int(np.ceil(wanted * len(fe))) - 1]",
            "counted from the low end",
        ),
        "all nuclei": Misconception(
            "def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):\n"
            "    scores = np.sort(val_scores)[::-1]\n"
            "    return scores[int(np.ceil(wanted * len(scores))) - 1]",
            "of ALL nuclei",
        ),
        "everything is Fe": Misconception(
            "def pick_threshold(val_scores, val_fe, test_scores, test_fe, wanted):\n    return 0.0",
            "every Fe nucleus reaches",
        ),
    },
)


def _test_calibration(calibration: Callable[[np.ndarray, np.ndarray, int], Any]) -> str | None:
    scores = np.array([0.9, 0.02, 0.3, 0.08, 0.95, 0.04, 0.06, 0.97, 0.99, 0.1, 0.2, 0.6])
    fe = np.array([True, False, False, False, True, False, True, False, True, False, True, True])
    got = np.asarray(calibration(scores, fe, 3), float)
    if got.shape == (2, 3):
        return "one row a bin, please: shape (3, 2), with the mean score first"
    if got.shape != (3, 2):
        return f"three bins give shape (3, 2), mean score and share of Fe; yours is {got.shape}"
    order = np.argsort(scores)
    right = np.array([[scores[part].mean(), fe[part].mean()] for part in np.array_split(order, 3)])
    edges = np.digitize(scores, [1 / 3, 2 / 3])
    if np.allclose(got, [[scores[edges == number].mean(), fe[edges == number].mean()] for number in range(3)]):
        return "these bins are equally wide and hold 7, 1 and 4 nuclei; sort, so that each holds as many"
    if np.allclose(got, [[scores[part].mean(), fe[part].mean()] for part in np.array_split(np.arange(12), 3)]):
        return "you cut the nuclei into bins as they come; sort them by score first"
    if np.allclose(got[:, 0], right[:, 0]) and np.allclose(
        got[:, 1], [part.mean() for part in np.array_split(np.sort(fe), 3)]
    ):
        return "you sorted scores and truths each by itself: a nucleus must keep its own truth"
    if np.allclose(got, right[:, ::-1]):
        return "the columns are swapped: first the mean score, then the share of Fe"
    if np.allclose(got, right[::-1]):
        return "from the highest score down; start with the lowest bin"
    if not np.allclose(got, right):
        return f"the lowest bin has mean score 0.05 and a share of 0.25; yours has {got[0, 0]:.2f} and {got[0, 1]:.2f}"
    for bins in (2, 4, 6):
        right = np.array([[scores[part].mean(), fe[part].mean()] for part in np.array_split(order, bins)])
        got = np.asarray(calibration(scores, fe, bins), float)
        if got.shape != right.shape or not np.allclose(got, right):
            return f"three bins are right, {bins} are not: use the argument"
    return None


q3 = Exercise(
    name="q3",
    answer="calibration",
    test=_test_calibration,
    right="each bin says what the network claimed and what was true",
    hints=(
        "Each bin should hold as many nuclei as the others. Which order makes that a plain cut?",
        "np.argsort(scores) gives an order of row numbers; np.array_split(order, bins) cuts it into parts.",
        "For each part: scores[part].mean() and fe[part].mean().",
    ),
    solution_code="""
def calibration(scores, fe, bins):
    parts = np.array_split(np.argsort(scores), bins)
    return np.array([[scores[part].mean(), fe[part].mean()] for part in parts])
""",
    why="argsort moves row numbers, so a score keeps its truth. Bins of equal count rest on equally many nuclei; bins "
    "of equal width can hold one or none.",
    misconceptions={
        "equal width": Misconception(
            "def calibration(scores, fe, bins):\n"
            "    number = np.minimum((scores * bins).astype(int), bins - 1)\n"
            "    return np.array([[scores[number == b].mean(), fe[number == b].mean()] for b in range(bins)])",
            "equally wide",
        ),
        "not sorted": Misconception(
            "def calibration(scores, fe, bins):\n"
            "    parts = np.array_split(np.arange(len(scores)), bins)\n"
            "    return np.array([[scores[part].mean(), fe[part].mean()] for part in parts])",
            "as they come",
        ),
        "sorted apart": Misconception(
            "def calibration(scores, fe, bins):\n"
            "    both = zip(np.array_split(np.sort(scores), bins), np.array_split(np.sort(fe), bins))\n"
            "    return np.array([[a.mean(), b.mean()] for a, b in both])",
            "each by itself",
        ),
        "one row a column": Misconception(
            "def calibration(scores, fe, bins):\n"
            "    parts = np.array_split(np.argsort(scores), bins)\n"
            "    return np.array([[scores[part].mean(), fe[part].mean()] for part in parts]).T",
            "one row a bin",
        ),
    },
    equivalent=(
        "def calibration(scores, fe, bins):\n"
        "    parts = np.array_split(np.argsort(scores), bins)\n"
        "    return [[scores[part].mean(), fe[part].mean()] for part in parts]",
    ),
)


def _test_resample(resample: Callable[[np.ndarray, np.random.Generator], Any]) -> str | None:
    mice = np.array(["a", "b", "b", "c", "a", "d", "b", "c", "e", "f", "f", "a"])
    drawn = [np.asarray(resample(mice, np.random.default_rng(seed))) for seed in range(40)]
    if drawn[0].ndim != 1:
        return f"return one axis of row numbers; yours has shape {drawn[0].shape}"
    if drawn[0].dtype.kind in "US":
        return "you return names of mice; return the numbers of their rows"
    if drawn[0].dtype.kind not in "iu":
        return f"row numbers are whole numbers; you return {drawn[0].dtype}"
    if any(rows.min() < 0 or rows.max() >= len(mice) for rows in drawn if len(rows)):
        return f"row numbers go from 0 to {len(mice) - 1}; you return others"
    rows_of = {mouse: np.flatnonzero(mice == mouse) for mouse in np.unique(mice)}
    times = [np.bincount(rows, minlength=len(mice)) for rows in drawn]
    if any(len(set(count[own].tolist())) > 1 for count in times for own in rows_of.values()):
        return "some rows of a mouse came more often than others: draw mice, and take all rows of each"
    per_mouse = [np.array([count[own[0]] for own in rows_of.values()]) for count in times]
    if all((count <= 1).all() for count in per_mouse) and any((count == 0).any() for count in per_mouse):
        return "a mouse that was drawn twice brings its rows once: repeat them"
    if all((count <= 1).all() for count in per_mouse):
        return "no mouse ever comes twice: draw with replacement, or every resample is the same set"
    sums = {int(count.sum()) for count in per_mouse}
    if sums == {len(mice)}:
        return f"you draw {len(mice)} mice, as many as there are rows; there are {len(rows_of)} mice"
    if sums != {len(rows_of)}:
        return f"draw as many mice as there are, {len(rows_of)}; you draw {', '.join(map(str, sorted(sums)))}"
    if len({tuple(count) for count in per_mouse}) < 10:
        return "different generators give the same draw: draw from rng"
    return None


q4 = Exercise(
    name="q4",
    answer="resample",
    test=_test_resample,
    right="mice are drawn, and each brings all its nuclei, every time it is drawn",
    hints=(
        "What would a repetition of the experiment bring: other nuclei of the same mice, or other mice?",
        "names = np.unique(mice); rng.choice(names, len(names)) draws as many, with replacement.",
        "np.flatnonzero(mice == name) are the rows of a mouse; np.concatenate joins those of all drawn mice.",
    ),
    solution_code="""
def resample(mice, rng):
    names = np.unique(mice)
    drawn = rng.choice(names, len(names))
    return np.concatenate([np.flatnonzero(mice == name) for name in drawn])
""",
    why="another experiment would have other mice, so mice are what varies. A mouse drawn twice brings its rows twice; "
    "isin would bring them once.",
    misconceptions={
        "images instead of mice": Misconception(
            "def resample(mice, rng):\n    return rng.choice(len(mice), len(mice))", "draw mice, and take all rows"
        ),
        "without replacement": Misconception(
            "def resample(mice, rng):\n"
            "    drawn = rng.permutation(np.unique(mice))\n"
            "    return np.concatenate([np.flatnonzero(mice == name) for name in drawn])",
            "no mouse ever comes twice",
        ),
        "isin forgets repeats": Misconception(
            "def resample(mice, rng):\n"
            "    names = np.unique(mice)\n"
            "    return np.flatnonzero(np.isin(mice, rng.choice(names, len(names))))",
            "brings its rows once",
        ),
        "names": Misconception(
            "def resample(mice, rng):\n    names = np.unique(mice)\n    return rng.choice(names, len(names))",
            "names of mice",
        ),
        "as many mice as rows": Misconception(
            "def resample(mice, rng):\n"
            "    drawn = rng.choice(np.unique(mice), len(mice))\n"
            "    return np.concatenate([np.flatnonzero(mice == name) for name in drawn])",
            "as many as there are rows",
        ),
    },
)


def _pretend(plates: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Predictions in which of each plate's 0 Gy nuclei, so many of so many are called Fe; and irradiated ones."""
    rows = []
    for plate, (called, of) in plates.items():
        branch = "Fe" if plate < "P260" else "X-ray"
        rows += [(plate, branch, 0.0, "Fe" if number < called else "X-ray") for number in range(of)]
    rows += [("P242", "Fe", 0.82, said) for said in ["Fe"] * 9 + ["X-ray"]]
    rows += [("P280", "X-ray", 1.0, said) for said in ["X-ray"] * 8]
    table = pd.DataFrame(rows, columns=["plate", "label", "dose_Gy", "prediction"])
    return table.sample(frac=1, random_state=0, ignore_index=True)


def _test_control_spread(control_spread: Callable[[pd.DataFrame], float]) -> str | None:
    # by branch 0.5 and 0.4, by plate 0.2, 0.7, 0.1 and 0.5
    table = _pretend({"P244": (2, 10), "P250": (14, 20), "P278": (1, 10), "P282": (10, 20)})
    got = float(control_spread(table))
    if np.isclose(got, 16 / 30 - 11 / 30):
        return "you compare the branches: each averages over plates, and bright and dark plates cancel; compare plates"
    if np.isclose(got, 0.9):
        return "irradiated nuclei are among yours, and these should differ by plate; take those at 0 Gy"
    if np.isclose(got, 27 / 60):
        return "that is one rate for all plates together; a network may call many controls Fe and still see no plate"
    if np.isclose(got, 13):
        return "that is a difference of counts, and plates have different numbers of controls; divide first"
    if np.isclose(got, 0.7):
        return "that is the highest rate alone; a network that calls 0.7 of EVERY plate Fe sees no plate"
    cases = {
        "a network that sees plates": ({"P244": (4, 4), "P250": (0, 6), "P278": (5, 5)}, 1.0),
        "a network that calls every control Fe": ({"P244": (4, 4), "P250": (6, 6), "P278": (5, 5)}, 0.0),
        "a network that calls every control X-ray": ({"P244": (0, 4), "P250": (0, 6), "P278": (0, 5)}, 0.0),
        "a network that cancels between branches": ({"P244": (0, 4), "P250": (4, 4), "P278": (2, 4)}, 1.0),
        "the first table": ({"P244": (2, 10), "P250": (14, 20), "P278": (1, 10), "P282": (10, 20)}, 0.6),
    }
    for name, (plates, right) in cases.items():
        got = float(control_spread(_pretend(plates)))
        if not np.isclose(got, right):
            return f"{name} should get a spread of {right:g}, yours is {got:.3g}"
    return None


q5 = Exercise(
    name="q5",
    answer="control_spread",
    test=_test_control_spread,
    right="0 for a network that sees foci only, and large for one that sees the plate",
    hints=(
        "Which nuclei differ from plate to plate in nothing that a network should see?",
        "controls = table[table['dose_Gy'] == 0]; then a share of (controls['prediction'] == 'Fe') for each plate.",
        "A boolean column has groupby(controls['plate']).mean(); take its max() less its min().",
    ),
    solution_code="""
def control_spread(table):
    controls = table[table["dose_Gy"] == 0]
    rate = (controls["prediction"] == "Fe").groupby(controls["plate"]).mean()
    return rate.max() - rate.min()
""",
    why="at 0 Gy nothing hit any nucleus, so what makes plates differ is no radiation. Averages over a branch can "
    "hide it, as bright and dark plates cancel.",
    misconceptions={
        "branches instead of plates": Misconception(
            "def control_spread(table):\n"
            "    controls = table[table['dose_Gy'] == 0]\n"
            "    rate = (controls['prediction'] == 'Fe').groupby(controls['label']).mean()\n"
            "    return rate.max() - rate.min()",
            "you compare the branches",
        ),
        "all doses": Misconception(
            "def control_spread(table):\n"
            "    rate = (table['prediction'] == 'Fe').groupby(table['plate']).mean()\n"
            "    return rate.max() - rate.min()",
            "irradiated nuclei are among yours",
        ),
        "one rate": Misconception(
            "def control_spread(table):\n"
            "    controls = table[table['dose_Gy'] == 0]\n"
            "    return (controls['prediction'] == 'Fe').mean()",
            "one rate for all plates",
        ),
        "counts": Misconception(
            "def control_spread(table):\n"
            "    controls = table[table['dose_Gy'] == 0]\n"
            "    called = (controls['prediction'] == 'Fe').groupby(controls['plate']).sum()\n"
            "    return called.max() - called.min()",
            "a difference of counts",
        ),
        "the highest": Misconception(
            "def control_spread(table):\n"
            "    controls = table[table['dose_Gy'] == 0]\n"
            "    return (controls['prediction'] == 'Fe').groupby(controls['plate']).mean().max()",
            "the highest rate alone",
        ),
    },
    equivalent=(
        "def control_spread(table):\n"
        "    controls = table[table['dose_Gy'] == 0]\n"
        "    rate = (controls['prediction'] != 'Fe').groupby(controls['plate']).mean()\n"
        "    return rate.max() - rate.min()",
    ),
)
