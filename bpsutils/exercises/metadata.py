"""Exercises of notebook 05: names, retries, an index that is right, plates and conditions, a split by mouse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bpsutils.exercises import Exercise, Misconception


def _test_name_facts(name_facts: Callable[[str], Any]) -> str | None:
    right: dict[str, Any] = {"case": "case03", "stain": "h&e", "section": 1, "patch": 2}
    got = name_facts("case03_h&e_s1_002.png")
    if not isinstance(got, dict):
        return f"return a dict, not {type(got).__name__}"
    if set(got) != set(right):
        return f"the keys should be {', '.join(right)}; yours are {', '.join(map(str, got))}"
    for name in ("case12_sox10_s10_021.png", "case03_h&e_s1_002.png", "case07_melan_s4_100.png"):
        got = name_facts(name)
        case, stain, section, patch = name[:-4].split("_")
        right = {"case": case, "stain": stain, "section": int(section[1:]), "patch": int(patch)}
        if str(got["patch"]).endswith(".png"):
            return "the patch still has the file's ending on it: take that off first"
        if str(got["section"]).startswith("s"):
            return "the section still has its letter: what follows the s is the number"
        if got["patch"] == patch or got["section"] == section[1:]:
            return f"{patch!r} is text: as text, '10' sorts before '9'; make section and patch whole numbers"
        if got["section"] != right["section"] and got["section"] == right["section"] % 10:
            return "section 10 became 0: take all digits after the s, not only the last"
        wrong = [key for key in right if got[key] != right[key] or type(got[key]) is not type(right[key])]
        if wrong:
            return f"for {name}, {wrong[0]} should be {right[wrong[0]]!r}; you have {got[wrong[0]]!r}"
    return None


q1 = Exercise(
    name="q1",
    answer="name_facts",
    test=_test_name_facts,
    right="four facts from one name, and no pixel was read",
    hints=(
        "The underscores divide the name into four parts; the ending .png belongs to none of them.",
        "name.removesuffix('.png').split('_') gives four texts. Two of them are to become numbers.",
        "section[1:] is what follows the s; int('002') is 2.",
    ),
    solution_code="""
def name_facts(name):
    case, stain, section, patch = name.removesuffix(".png").split("_")
    return {"case": case, "stain": stain, "section": int(section[1:]), "patch": int(patch)}
""",
    why="a name that does not have four parts stops with an error at once, instead of becoming a wrong row.",
    misconceptions={
        "the ending stays on": Misconception(
            'def name_facts(name):\n    case, stain, section, patch = name.split("_")\n'
            '    return {"case": case, "stain": stain, "section": int(section[1:]), "patch": patch}',
            "the file's ending",
        ),
        "the letter stays on": Misconception(
            'def name_facts(name):\n    case, stain, section, patch = name[:-4].split("_")\n'
            '    return {"case": case, "stain": stain, "section": section, "patch": int(patch)}',
            "still has its letter",
        ),
        "numbers left as text": Misconception(
            'def name_facts(name):\n    case, stain, section, patch = name[:-4].split("_")\n'
            '    return {"case": case, "stain": stain, "section": section[1:], "patch": patch}',
            "is text: as text",
        ),
        "one digit": Misconception(
            'def name_facts(name):\n    case, stain, section, patch = name[:-4].split("_")\n'
            '    return {"case": case, "stain": stain, "section": int(section[-1]), "patch": int(patch)}',
            "section 10 became 0",
        ),
    },
)


class _Mount:
    """A request that fails a number of times before it succeeds."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.calls, self.failures, self.error = 0, failures, error

    def read(self, path: str) -> str:
        self.calls += 1
        if self.calls > 40:
            raise RuntimeError("endless")
        if self.calls <= self.failures:
            raise self.error
        return f"header of {path}"


def _outcome(again: Callable[..., Any], mount: _Mount, retries: int) -> Any:
    """What ``again`` returns, or the exception that came out of it."""
    try:
        return again(mount.read, "a.tif", retries)
    except Exception as error:
        if error.__cause__ is mount.error or type(error.__cause__) is RuntimeError:
            return error.__cause__
        raise


def _test_again(again: Callable[..., Any]) -> str | None:
    shaky, gone = OSError(5, "Input/output error"), FileNotFoundError(2, "No such file")
    mount = _Mount(0, shaky)
    if _outcome(again, mount, 3) != "header of a.tif":
        return "where the first try succeeds, return what function(path) returns"
    if mount.calls > 1:
        return f"the first try succeeded, and you went on: function was called {mount.calls} times"
    for failures in (1, 2):
        mount = _Mount(failures, shaky)
        if _outcome(again, mount, 2) is shaky:
            return f"after {failures} failures and with 2 retries you gave up: a first try and 2 further ones make 3"
    mount = _Mount(99, shaky)
    got = _outcome(again, mount, 2)
    if mount.calls > 3:
        return f"a mount that stays broken was asked {mount.calls} times with 2 retries; stop after 3"
    if got is not shaky:
        return "after the last failure let the error through: whoever called must know that there is no result"
    mount = _Mount(99, gone)
    _outcome(again, mount, 2)
    if mount.calls > 1:
        return "a file that is not there was asked for again: let FileNotFoundError through at the first try"
    mount = _Mount(1, ValueError("not a TIFF file"))
    if not isinstance(_outcome(again, mount, 2), ValueError):
        return "a corrupt file (ValueError) was read again: only the mount's errors, OSError, pass with time"
    return None


q2 = Exercise(
    name="q2",
    answer="again",
    test=_test_again,
    right="what may pass is tried again, what stays is said at once",
    hints=(
        "A for loop over the retries, with try and except inside; the last call stands after the loop.",
        "FileNotFoundError is a kind of OSError: name it in an except of its own, before the other, and raise it.",
        "except FileNotFoundError: raise; except OSError: pass; and after the loop: return function(path).",
    ),
    solution_code="""
def again(function, path, retries):
    for _ in range(retries):
        try:
            return function(path)
        except FileNotFoundError:
            raise
        except OSError:
            pass
    return function(path)
""",
    why="the call after the loop has no try around it, so the last error comes out by itself.",
    misconceptions={
        "one try too few": Misconception(
            "def again(function, path, retries):\n"
            "    for attempt in range(retries):\n"
            "        try:\n            return function(path)\n"
            "        except FileNotFoundError:\n            raise\n"
            "        except OSError:\n            if attempt == retries - 1:\n                raise\n"
            "    return function(path)",
            "you gave up",
        ),
        "for ever": Misconception(
            "def again(function, path, retries):\n"
            "    while True:\n"
            "        try:\n            return function(path)\n"
            "        except FileNotFoundError:\n            raise\n"
            "        except OSError:\n            pass",
            "a mount that stays broken",
        ),
        "swallowed": Misconception(
            "def again(function, path, retries):\n"
            "    for _ in range(retries + 1):\n"
            "        try:\n            return function(path)\n"
            "        except FileNotFoundError:\n            raise\n"
            "        except OSError:\n            pass\n"
            "    return 'nothing'",
            "let the error through: whoever",
        ),
        "missing files too": Misconception(
            "def again(function, path, retries):\n"
            "    for _ in range(retries):\n"
            "        try:\n            return function(path)\n"
            "        except OSError:\n            pass\n"
            "    return function(path)",
            "a file that is not there",
        ),
        "every error": Misconception(
            "def again(function, path, retries):\n"
            "    for _ in range(retries):\n"
            "        try:\n            return function(path)\n"
            "        except FileNotFoundError:\n            raise\n"
            "        except Exception:\n            pass\n"
            "    return function(path)",
            "a corrupt file",
        ),
    },
)


def _test_to_read(to_read: Callable[..., Any]) -> str | None:
    index = {"a.tif": (100, 10), "b.tif": (100, 10), "c.tif": (100, 10), "d.tif": (100, 10), "gone.tif": (100, 10)}
    files = {"new.tif": (100, 5), "c.tif": (120, 10), "d.tif": (100, 3), "b.tif": (100, 20), "a.tif": (100, 10)}
    got = to_read(files, index)
    if not isinstance(got, list):
        return f"return a list of paths, not {type(got).__name__}"
    for missed, reason in {
        "new.tif": "new.tif is on the disk and not in the index: nobody has read it yet",
        "b.tif": "b.tif was written again and kept its size: compare the time as well",
        "c.tif": "c.tif has another size than in the index, though the same time: compare the size as well",
        "d.tif": "d.tif was replaced by an older copy: any other time means another file, not only a later one",
    }.items():
        if missed not in got:
            return reason
    if "gone.tif" in got:
        return "gone.tif is only in the index: there is nothing left to read"
    if "a.tif" in got:
        return "a.tif has not changed: what the index knows need not be read"
    if got != ["b.tif", "c.tif", "d.tif", "new.tif"]:
        return "the same folder should always give the same list: sort the paths, each of them once"
    if to_read(files, {}) != sorted(files):
        return "with an empty index every file is new"
    return None


q3 = Exercise(
    name="q3",
    answer="to_read",
    test=_test_to_read,
    right="new, grown, touched or put back: each is read again, and nothing else",
    hints=(
        "Go through the files on the disk. For which of them does the index say exactly the same?",
        "index.get(path) is None for a path that the index does not know, and None equals no (size, time).",
        "Keep each path where index.get(path) != stamp, with path and stamp from files.items(); sort them.",
    ),
    solution_code="""
def to_read(files, index):
    return sorted(path for path, stamp in files.items() if index.get(path) != stamp)
""",
    why="any difference counts: a file put back from a backup is older, and another file all the same.",
    misconceptions={
        "only new paths": Misconception(
            "def to_read(files, index):\n    return sorted(set(files) - set(index))", "b.tif was written again"
        ),
        "only later ones": Misconception(
            "def to_read(files, index):\n"
            "    return sorted(p for p, (size, time) in files.items()\n"
            "                  if p not in index or size != index[p][0] or time > index[p][1])",
            "an older copy",
        ),
        "only the time": Misconception(
            "def to_read(files, index):\n"
            "    return sorted(p for p, (size, time) in files.items() if p not in index or time != index[p][1])",
            "c.tif has another size",
        ),
        "everything": Misconception("def to_read(files, index):\n    return sorted(files)", "a.tif has not changed"),
        "what is gone, too": Misconception(
            "def to_read(files, index):\n"
            "    return sorted(p for p in {**files, **index} if files.get(p) != index.get(p))",
            "only in the index",
        ),
    },
)


def _test_on_several(on_several: Callable[[pd.DataFrame], Any]) -> str | None:
    rows = [("Fe", "P1"), ("Fe", "P1"), ("Fe", "P2"), ("mixed", "P2"), ("X-ray", "P3"), ("X-ray", "P3")]
    rows += [("none", "P4"), ("none", "P5"), ("none", "P6"), ("also", "P7"), ("also", "P8")]
    table = pd.DataFrame(rows[::-1], columns=["condition", "plate"])
    got = on_several(table)
    if not isinstance(got, list):
        return f"return a list of conditions, not {type(got).__name__}"
    told = {
        ("Fe", "X-ray", "also", "none"): "X-ray has two images and one plate: count different plates, not rows",
        ("P2",): "P2 is a plate with two conditions; asked is the other way round, conditions with two plates",
        ("none",): "two plates are enough: one to train on, one to test on",
        ("X-ray", "mixed"): "these are the conditions that are on one plate only: turn the comparison round",
        (
            "Fe",
            "X-ray",
            "also",
            "mixed",
            "none",
        ): "X-ray is on one plate only, so training has seen all of it",
    }
    if got == ["Fe", "also", "none"]:
        alone = pd.DataFrame({"condition": ["a", "b"], "plate": ["P1", "P2"]})
        return None if on_several(alone) == [] else "where each condition has its own plate, the list is empty"
    if sorted(map(str, got)) == ["Fe", "also", "none"]:
        return "the right conditions; return them sorted, so that the order of the rows does not matter"
    return told.get(tuple(map(str, got)), f"here Fe, also and none are on two plates or more; you have {got}"[:200])


q4 = Exercise(
    name="q4",
    answer="on_several",
    test=_test_on_several,
    right="only these conditions can be tested on a plate that training has not seen",
    hints=(
        "For each condition, count how many different plates it is on.",
        "table.groupby('condition')['plate'].nunique() has one count a condition; its index has their names.",
        "Keep the names where the count is at least 2, and return sorted(...) of them.",
    ),
    solution_code="""
def on_several(table):
    plates = table.groupby("condition")["plate"].nunique()
    return sorted(plates.index[plates >= 2])
""",
    why="with one plate a condition, whatever is odd about the plate looks like an effect of the condition.",
    misconceptions={
        "rows counted": Misconception(
            'def on_several(table):\n    rows = table.groupby("condition")["plate"].count()\n'
            "    return sorted(rows.index[rows >= 2])",
            "X-ray has two images",
        ),
        "the other way round": Misconception(
            'def on_several(table):\n    n = table.groupby("plate")["condition"].nunique()\n'
            "    return sorted(n.index[n >= 2])",
            "asked is the other way round",
        ),
        "more than two": Misconception(
            'def on_several(table):\n    n = table.groupby("condition")["plate"].nunique()\n'
            "    return sorted(n.index[n > 2])",
            "two plates are enough",
        ),
        "only one plate": Misconception(
            'def on_several(table):\n    n = table.groupby("condition")["plate"].nunique()\n'
            "    return sorted(n.index[n == 1])",
            "turn the comparison round",
        ),
    },
)


def _test_held_out(held_out: Callable[..., Any]) -> str | None:
    # Mice of very different size: drawing rows instead of mice would nearly always meet the large ones.
    sizes = {"Fe/C6": 2, "Fe/C7": 30, "Fe/E4": 3, "Fe/G3": 2, "X-ray/C7": 25, "X-ray/D5": 2, "X-ray/E1": 2}
    mice = [mouse for mouse, n in sizes.items() for _ in range(n)]
    table = pd.DataFrame({"particle_type": [mouse.split("/")[0] for mouse in mice], "mouse": mice})
    shuffled = table.sample(frac=1, random_state=1)
    state, drawn = str(np.random.get_state()), []  # noqa: NPY002 - the shared generator is what must not move
    for seed in range(12):
        test = pd.Series(np.asarray(held_out(table, 2, seed)), table.index)
        if test.dtype != bool:
            return f"return True or False for each row, not {test.dtype}"
        whole = test.groupby(table["mouse"]).nunique()
        if (whole > 1).any():
            return f"mouse {whole.idxmax()} has nuclei on both sides: draw mice, not rows"
        chosen = sorted(set(table["mouse"][test]))
        each = [sum(mouse.startswith(particle) for mouse in chosen) for particle in ("Fe/", "X-ray/")]
        if len(chosen) == 7:
            return "every mouse is in the test set: none is left to train on"
        if each != [2, 2]:
            return f"asked were 2 mice of each particle; with seed {seed} you hold out {each[0]} and {each[1]}"
        if np.asarray(held_out(table, 2, seed)).tolist() != test.tolist():
            return f"called twice with seed {seed}, you hold out different mice"
        again = pd.Series(np.asarray(held_out(shuffled, 2, seed)), shuffled.index)
        if sorted(set(shuffled["mouse"][again])) != chosen:
            return "the same rows in another order give other mice: sort the mice before you draw"
        drawn.append(tuple(chosen))
    if len(set(drawn)) == 1:
        return "each seed holds out the same mice: let the seed choose"
    if str(np.random.get_state()) != state:  # noqa: NPY002
        return "you used the generator that everybody shares: make your own with np.random.default_rng(seed)"
    one = pd.Series(np.asarray(held_out(table, 1, 0)), table.index)
    return None if table["mouse"][one].nunique() == 2 else "with n = 1, hold out one mouse of each particle"


q5 = Exercise(
    name="q5",
    answer="held_out",
    test=_test_held_out,
    right="whole mice of both particles, the same for the same seed and for any order of the rows",
    hints=(
        "Draw from the list of mice, not from the rows, and for each particle on its own.",
        "for particle, rows in table.groupby('particle_type'): the mice are sorted(rows['mouse'].unique()).",
        "rng.choice(mice, n, replace=False) draws n different ones; table['mouse'].isin(chosen) marks their rows.",
    ),
    solution_code="""
def held_out(table, n, seed):
    rng = np.random.default_rng(seed)
    chosen = []
    for particle, rows in table.groupby("particle_type"):
        mice = sorted(rows["mouse"].unique())
        chosen.extend(rng.choice(mice, n, replace=False))
    return table["mouse"].isin(chosen)
""",
    why="the mouse is what is drawn, so no mouse is divided; bpsutils.split_by_group also evens out the sizes.",
    misconceptions={
        "rows at random": Misconception(
            "def held_out(table, n, seed):\n    return np.random.default_rng(seed).random(len(table)) < 0.3",
            "on both sides",
        ),
        "particles forgotten": Misconception(
            "def held_out(table, n, seed):\n"
            '    mice = sorted(table["mouse"].unique())\n'
            '    return table["mouse"].isin(np.random.default_rng(seed).choice(mice, 2 * n, replace=False))',
            "of each particle; with seed",
        ),
        "the first ones": Misconception(
            "def held_out(table, n, seed):\n"
            '    chosen = [m for _, rows in table.groupby("particle_type") for m in sorted(set(rows["mouse"]))[:n]]\n'
            '    return table["mouse"].isin(chosen)',
            "let the seed choose",
        ),
        "in the order of the rows": Misconception(
            "def held_out(table, n, seed):\n"
            "    rng, chosen = np.random.default_rng(seed), []\n"
            '    for _, rows in table.groupby("particle_type"):\n'
            '        chosen += list(rng.choice(rows["mouse"].unique(), n, replace=False))\n'
            '    return table["mouse"].isin(chosen)',
            "sort the mice before",
        ),
        "everybody's generator": Misconception(
            "def held_out(table, n, seed):\n"
            "    np.random.seed(seed)\n"
            "    chosen = []\n"
            '    for _, rows in table.groupby("particle_type"):\n'
            '        chosen += list(np.random.choice(sorted(rows["mouse"].unique()), n, replace=False))\n'
            '    return table["mouse"].isin(chosen)',
            "that everybody shares",
        ),
    },
)
