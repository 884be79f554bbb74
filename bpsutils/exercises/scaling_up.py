"""Exercises of notebook 12: what a faster part is worth, a flat store, mirrored places, where pixels live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bpsutils.exercises import Exercise, Misconception


def _test_speedup(speedup: Callable[[float, float], Any]) -> str | None:
    # numbers with which each way of thinking gives another result
    got = float(speedup(0.6, 4))
    for value, message in {
        4: "only loading becomes 4 times faster; training takes as long as before",
        2.5: "that is the most that could be gained, with loading at no time at all; here it still takes a quarter",
        1 / 0.15: "you leave out training, which takes as long as before",
        0.55: "that is the share of the old time that is left; how many times faster is that?",
        0.45: "that is the share of the time that is saved; how many times faster is the epoch?",
        1.45: "you add the saved share to 1; times faster is the old time over the new one",
        2.4: "0.6 of 4 is no mean of speeds: add up times, then compare them",
        2.8: "that is a mean of speeds, weighted; add up times, then compare them",
        1 / 2.8: "you multiply loading by 4, and it takes a quarter of its time",
    }.items():
        if np.isclose(got, value):
            return message
    for share, times in ((0.6, 4), (0.5, 2), (0.75, 30), (0.0, 9), (1.0, 9)):
        got, right = float(speedup(share, times)), 1 / (1 - share + share / times)
        if not np.isclose(got, right):
            return f"with a share of {share}, {times} times faster, an epoch is {right:.2f} times faster; not {got:.2f}"
    return None


q1 = Exercise(
    name="q1",
    answer="speedup",
    test=_test_speedup,
    right="what was not made faster stays, and soon it is nearly all that is left",
    hints=(
        "Call the old time of an epoch 1. How long does each of its two parts take afterwards?",
        "Training still takes 1 - share. Loading takes share / times.",
        "Times faster is the old time over the new one: 1 / (…).",
    ),
    solution_code="""
def speedup(share, times):
    return 1 / (1 - share + share / times)
""",
    why=(
        "times add up, speeds do not. With a share of 0.8 no loader, however fast, makes the epoch more than 5 times "
        "faster. This is Amdahl's law."
    ),
    misconceptions={
        "all of it": Misconception("def speedup(share, times):\n    return times", "only loading becomes"),
        "the limit": Misconception("def speedup(share, times):\n    return 1 / (1 - share)", "the most that could be"),
        "time left": Misconception(
            "def speedup(share, times):\n    return 1 - share + share / times", "share of the old time that is left"
        ),
        "time saved": Misconception(
            "def speedup(share, times):\n    return share - share / times", "share of the time that is saved"
        ),
        "mean of speeds": Misconception("def speedup(share, times):\n    return share * times", "no mean of speeds"),
        "weighted speeds": Misconception(
            "def speedup(share, times):\n    return 1 - share + share * times", "mean of speeds, weighted"
        ),
        "without training": Misconception("def speedup(share, times):\n    return times / share", "leave out training"),
        "one and the share": Misconception(
            "def speedup(share, times):\n    return 1 + share - share / times", "add the saved share to 1"
        ),
        "times slower": Misconception(
            "def speedup(share, times):\n    return 1 / (1 - share + share * times)", "multiply loading by 4"
        ),
    },
)


def _test_offsets(offsets: Callable[[np.ndarray], Any]) -> str | None:
    sizes = np.array([[2, 3], [4, 1], [1, 5]])
    got = np.asarray(offsets(sizes))
    for value, message in (
        ([6, 10, 15, 0], "the 0 belongs in front: the first image starts there"),
        ([6, 10, 15], "these are the ends; the first image starts at 0, and the ends of the others are starts, too"),
        ([0, 6, 10], "the last image needs its end as well: N images have N + 1 offsets"),
        ([0, 6, 4, 5], "these are the images' pixels; each image starts after all the pixels before it"),
        ([0, 2, 6, 7], "you count rows; a flat array counts pixels, height times width"),
        ([0, 12, 20, 30], "these are bytes; an array of uint16 counts numbers, whatever bytes each of them has"),
    ):
        if got.shape == (len(value),) and np.array_equal(got, value):
            return message
    if got.shape != (4,):
        return f"3 images have 4 offsets, an array of shape (4,); yours has {got.shape}"
    if not np.array_equal(got, [0, 6, 10, 15]):
        return f"sizes {sizes.tolist()} make offsets [0, 6, 10, 15], not {got.tolist()}"
    if got.dtype.kind not in "iu":
        return f"offsets are whole numbers, for they are used to slice; yours are {got.dtype}"
    if np.asarray(offsets(np.full((3, 2), 40_000)))[-1] != 3 * 40_000**2:
        return "beyond 2,147,483,647 pixels your offsets wrap round: 32 bits are too few, take int64"
    return None


q2 = Exercise(
    name="q2",
    answer="offsets",
    test=_test_offsets,
    right="image i lies between offsets[i] and offsets[i + 1]",
    hints=(
        "How many pixels come before the first image? And before the second, the third?",
        "Pixels of each image: sizes.prod(axis=1). A running sum is np.cumsum.",
        "Put a 0 in front of the running sum: np.concatenate([[0], …]).",
    ),
    solution_code="""
def offsets(sizes):
    return np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])
""",
    why=(
        "where one image ends, the next one starts, so N + 1 numbers say it all. NumPy sums whole numbers in 64 bits; "
        "32 would run out at a little more than the real set."
    ),
    misconceptions={
        "ends": Misconception("def offsets(sizes):\n    return np.cumsum(sizes.prod(axis=1))", "these are the ends"),
        "starts": Misconception(
            "def offsets(sizes):\n    return np.cumsum(sizes.prod(axis=1)) - sizes.prod(axis=1)",
            "needs its end as well",
        ),
        "rows": Misconception(
            "def offsets(sizes):\n    return np.concatenate([[0], np.cumsum(sizes[:, 0])])", "you count rows"
        ),
        "bytes": Misconception(
            "def offsets(sizes):\n    return np.concatenate([[0], np.cumsum(2 * sizes.prod(axis=1))])",
            "these are bytes",
        ),
        "32 bits": Misconception(
            "def offsets(sizes):\n"
            "    ends = np.cumsum(sizes.prod(axis=1), dtype=np.int32)\n"
            "    return np.concatenate([np.zeros(1, np.int32), ends])",
            "wrap round",
        ),
    },
)


def _test_mirrored(mirrored: Callable[[int, int, int], Any]) -> str | None:
    for offset, height, width in ((100, 2, 3), (0, 4, 2), (7, 1, 1)):
        got = np.asarray(mirrored(offset, height, width))
        rows, columns = np.arange(height)[:, None], np.arange(width)
        right = offset + rows * width + columns[::-1]
        if got.shape != right.shape:
            return f"an image of {height} x {width} has places of shape {right.shape}; yours has {got.shape}"
        for value, message in (
            (offset + rows * width + columns, "these are the places of the image as it is stored, not mirrored"),
            (offset + rows[::-1] * width + columns, "that turns top and bottom round; left and right were asked for"),
            (
                offset + rows[::-1] * width + columns[::-1],
                "that reverses the whole image, which is half a turn; only columns change places",
            ),
            (
                offset + rows * width - columns,
                "in column 0 you are at the row's first pixel, where its last one is to be: start width - 1 further on",
            ),
            (right + 1, "the last column is width - 1, for the first is 0: you are one pixel too far right"),
            (right - offset, "these are places within the image; in the store it starts at its offset"),
            (offset + rows * height + columns[::-1], "one row further is width pixels further, not height"),
        ):
            if offset == 100 and np.array_equal(got, value):
                return message
        if not np.array_equal(got, right):
            return f"at offset {offset}, {height} x {width}: {right.tolist()}, not {got.tolist()}"
    return None


q3 = Exercise(
    name="q3",
    answer="mirrored",
    test=_test_mirrored,
    right="a mirrored image is the same pixels, fetched from other places",
    hints=(
        "Row r and column c of a stored image lie at offset + r * width + c. Which column does a mirror show at c?",
        "The mirror shows column width - 1 - c. Make a column of rows and a row of columns, and let them broadcast.",
        "np.arange(height)[:, None] are the rows; np.arange(width)[::-1] are the columns, mirrored.",
    ),
    solution_code="""
def mirrored(offset, height, width):
    rows = np.arange(height)[:, None]
    columns = np.arange(width)[::-1]
    return offset + rows * width + columns
""",
    why=(
        "nothing is moved or copied before it is fetched: a flip costs a subtraction per column. Turns and the edge of "
        "a padded frame work in the same way."
    ),
    misconceptions={
        "as stored": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return offset + np.arange(height * width).reshape(height, width)",
            "not mirrored",
        ),
        "upside down": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return offset + np.arange(height)[::-1, None] * width + np.arange(width)",
            "turns top and bottom round",
        ),
        "reversed": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return offset + np.arange(height * width)[::-1].reshape(height, width)",
            "half a turn",
        ),
        "one too far": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return offset + np.arange(height)[:, None] * width + width - np.arange(width)",
            "the last column is width - 1",
        ),
        "from the first": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return offset + np.arange(height)[:, None] * width - np.arange(width)",
            "start width - 1 further on",
        ),
        "without its offset": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return np.arange(height)[:, None] * width + np.arange(width)[::-1]",
            "places within the image",
        ),
        "rows of height": Misconception(
            "def mirrored(offset, height, width):\n"
            "    return offset + np.arange(height)[:, None] * height + np.arange(width)[::-1]",
            "not height",
        ),
    },
)


def _test_home(home: Callable[[int, float, float, float], Any]) -> str | None:
    # images, mean area, GB of the GPU and of the main memory; the store takes 4 GB in the first five
    cases = (
        (1000, 2_000_000, 8, 32, "gpu", "4 GB fit the half of a GPU's 8 GB exactly"),
        (1, 2_000_000_001, 8, 32, "ram", "a little more than 4 GB is more than half of a GPU's 8 GB"),
        (1000, 2_000_000, 6, 32, "ram", "half of a GPU's 6 GB are 3, and the other half is for the model"),
        (1000, 2_000_000, 0, 8, "ram", "without a GPU, 4 GB fit the half of 8 GB of main memory exactly"),
        (1, 2_000_000_001, 0, 8, "disk", "a little more than 4 GB is more than half of 8 GB of main memory"),
        (1000, 2_000_000, 0, 6, "disk", "half of 6 GB of main memory are 3: read from a file on the disk"),
        (77_177, 15_500, 16, 12.7, "gpu", "the real set, 2.4 GB of uint16, fits a T4"),
        (500_000, 15_500, 40, 64, "gpu", "15.5 GB fit the half of a GPU's 40 GB"),
    )
    answers = [home(*case[:4]) for case in cases]
    for answer in answers:
        if answer not in ("gpu", "ram", "disk"):
            return f'answer "gpu", "ram" or "disk", not {answer!r}'
    if answers == ["ram", "ram", "ram", "disk", "disk", "disk", "gpu", "ram"]:
        return "you count 4 bytes a pixel; the store keeps uint16, which has 2"
    if answers[2] == "gpu" and answers[0] == "gpu":
        return (
            "the store may take half of a memory; the rest is for the model and its batches (and a pixel has 2 bytes)"
        )
    if answers == ["gpu", "gpu", "ram", "ram", "ram", "disk", "gpu", "gpu"]:
        return "you divide by 1024**3; a GB is a billion bytes here, 1e9"
    if answers[0] == "ram" and answers[7] == "ram":
        return "ask for the GPU first: what is there need not travel at every step"
    for answer, (n, area, gpu, ram, expected, reason) in zip(answers, cases, strict=True):
        if answer != expected:
            return f'{n:,} images of {area:,} px, GPU {gpu} GB, memory {ram} GB: "{expected}", for {reason}'
    return None


q4 = Exercise(
    name="q4",
    answer="home",
    test=_test_home,
    right="as near to the model as memory allows",
    hints=(
        "First the size of the store: images, times pixels each, times bytes a pixel, in billions of bytes.",
        "Compare it with half of each memory, the nearest first.",
        'if gigabytes <= gpu_gb / 2: return "gpu"; then the same with ram_gb; else "disk".',
    ),
    solution_code="""
def home(n, area, gpu_gb, ram_gb):
    gigabytes = n * area * 2 / 1e9
    if gigabytes <= gpu_gb / 2:
        return "gpu"
    return "ram" if gigabytes <= ram_gb / 2 else "disk"
""",
    why=(
        "left as uint16 a pixel has 2 bytes. On the GPU nothing has to travel at each step; in main memory nothing has "
        "to be read; on the disk the system keeps in memory what was read last."
    ),
    misconceptions={
        "float32": Misconception(
            "def home(n, area, gpu_gb, ram_gb):\n"
            "    gigabytes = n * area * 4 / 1e9\n"
            '    return "gpu" if gigabytes <= gpu_gb / 2 else "ram" if gigabytes <= ram_gb / 2 else "disk"',
            "you count 4 bytes a pixel",
        ),
        "all of it": Misconception(
            "def home(n, area, gpu_gb, ram_gb):\n"
            "    gigabytes = n * area * 2 / 1e9\n"
            '    return "gpu" if gigabytes <= gpu_gb else "ram" if gigabytes <= ram_gb else "disk"',
            "may take half of a memory",
        ),
        "1024**3": Misconception(
            "def home(n, area, gpu_gb, ram_gb):\n"
            "    gigabytes = n * area * 2 / 1024**3\n"
            '    return "gpu" if gigabytes <= gpu_gb / 2 else "ram" if gigabytes <= ram_gb / 2 else "disk"',
            "a GB is a billion bytes",
        ),
        "main memory first": Misconception(
            "def home(n, area, gpu_gb, ram_gb):\n"
            "    gigabytes = n * area * 2 / 1e9\n"
            '    return "ram" if gigabytes <= ram_gb / 2 else "gpu" if gigabytes <= gpu_gb / 2 else "disk"',
            "ask for the GPU first",
        ),
        "never the disk": Misconception(
            'def home(n, area, gpu_gb, ram_gb):\n    return "gpu" if n * area * 2 / 1e9 <= gpu_gb / 2 else "ram"',
            'GPU 0 GB, memory 8 GB: "disk"',
        ),
    },
)
