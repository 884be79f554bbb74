"""Exercises of notebook 02: reads counted, a Dataset written, classes that agree, a stream shared, a pixel budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from bpsutils.exercises import Exercise, Misconception, _NotYetError


class NaiveStream(IterableDataset[Any]):
    """A stream that knows nothing of workers, so each of them yields all of it.

    It stands here and not in a cell, because a worker must be able to import it.

    Example:
        >>> list(NaiveStream(range(3)))
        [0, 1, 2]
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        yield from self.items


def _test_reads(reads: Sequence[int]) -> str | None:
    got = tuple(int(number) for number in reads)
    told: dict[tuple[int, ...], str] = {
        (600, 48): "the right numbers, in the wrong order: lazy first",
        (24, 600): "24 is one epoch; the second reads its files again, for nothing was kept",
        (48, 48): "eager has read every file before you ask for the first sample",
        (48, 1200): "eager reads each file once, in __init__; later epochs come from memory",
        (600, 600): "lazy reads a file only when its sample is asked for, and you stop after 3 batches",
        (6, 600): "six batches, but a batch of 8 samples takes 8 reads",
    }
    if got == (48, 600):
        return None
    return told.get(got, f"(lazy, eager), two counts of files opened; you have {got}")


q1 = Exercise(
    name="q1",
    answer="reads",
    test=_test_reads,
    right="lazy pays for what you take, each time; eager pays for everything, once",
    hints=(
        "When does each class open a file: in __init__, or in __getitem__?",
        "Lazy: batches x samples in a batch, in every epoch. Eager: think of what is left to read after __init__.",
        "Lazy opens 3 x 8 files an epoch. Eager has opened all of its files before the first epoch starts.",
    ),
    solution_code="reads = (2 * 3 * 8, 600)",
    why="lazy opens one file a sample, 48 in all; eager opened its 600 in __init__ and none after.",
    misconceptions={
        "one epoch only": Misconception("reads = (3 * 8, 600)", "24 is one epoch"),
        "both lazy": Misconception("reads = (48, 48)", "eager has read every file"),
        "eager reads again": Misconception("reads = (48, 2 * 600)", "later epochs come from memory"),
        "all of it": Misconception("reads = (600, 600)", "you stop after 3 batches"),
    },
)


def _test_nuclei(nuclei: Callable[..., Any]) -> str | None:
    files = {f"{letter}.tif": np.full((2, 3), 300 + n, np.uint16) for n, letter in enumerate("abcde")}
    opened: list[str] = []

    def read(name: str) -> np.ndarray:
        opened.append(name)
        return files[name]

    made = nuclei(list(files), ["Fe", "X-ray", "Fe", "Fe", "X-ray"], read, lambda image: image[None])
    if opened:
        return f"{len(opened)} files were opened before anyone asked for a sample; leave reading to __getitem__"
    if not hasattr(made, "__getitem__"):
        return "an object of your class cannot be asked for a sample: write __getitem__"
    try:
        length = len(made)
    except TypeError:
        return "it has no __len__, so a loader cannot know which numbers to ask for"
    if length != 5:
        return f"there are 5 names, but len() says {length}"
    sample = made[1]
    if not isinstance(sample, tuple) or len(sample) != 2:
        return f"a sample should be a tuple of image and label, you return a {type(sample).__name__}"
    image, label = sample
    if isinstance(image, str):
        return "label and image are the wrong way round, or names and labels are mixed up"
    if not isinstance(image, torch.Tensor):
        return f"the image should be a tensor, yours is a {type(image).__name__}"
    if opened != ["b.tif"]:
        return f"sample 1 needs one file, b.tif; you opened {', '.join(opened) or 'none'}"
    if label != "X-ray":
        return f"sample 1 has the label X-ray, you return {label!r}"
    if tuple(image.shape) == (1, 1, 2, 3):
        return "you add a channel axis; here the tensor keeps the shape of the array, and the transform adds the axis"
    if tuple(image.shape) == (2, 3):
        return "the transform was given but never called: it would have added an axis"
    if not torch.equal(image.int(), torch.full((1, 2, 3), 301, dtype=torch.int32)):
        return f"sample 1 should hold level 301, shape (1, 2, 3); yours has shape {tuple(image.shape)}"
    plain, _ = nuclei(["a.tif"], ["Fe"], read)[0]
    if not isinstance(plain, torch.Tensor) or tuple(plain.shape) != (2, 3):
        return "without a transform the image should stay as read, a tensor of shape (2, 3)"
    return None


q2 = Exercise(
    name="q2",
    answer="Nuclei",
    test=_test_nuclei,
    right="it knows its length, reads when asked, and returns tensors that a loader can stack",
    hints=(
        "Three methods: one remembers, one counts, one reads.",
        "__init__ keeps the four arguments as attributes; read(name) is called in __getitem__ only.",
        "In __getitem__: torch.from_numpy(self.read(self.names[index])), the transform if there is one, then a tuple.",
    ),
    solution_code="""
class Nuclei(torch.utils.data.Dataset):
    def __init__(self, names, labels, read, transform=None):
        self.names, self.labels = names, labels
        self.read, self.transform = read, transform

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        image = torch.from_numpy(self.read(self.names[index]))
        if self.transform:
            image = self.transform(image)
        return image, self.labels[index]
""",
    why="names and labels are small and kept; pixels are large and are read when their sample is asked for.",
    misconceptions={
        "reads everything first": Misconception(
            """
class Nuclei(torch.utils.data.Dataset):
    def __init__(self, names, labels, read, transform=None):
        self.images = [torch.from_numpy(read(name)) for name in names]
        self.labels, self.transform = labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return self.transform(image) if self.transform else image, self.labels[index]
""",
            "leave reading to __getitem__",
        ),
        "no length": Misconception(
            """
class Nuclei(torch.utils.data.Dataset):
    def __init__(self, names, labels, read, transform=None):
        self.names, self.labels, self.read, self.transform = names, labels, read, transform

    def __getitem__(self, index):
        image = torch.from_numpy(self.read(self.names[index]))
        return self.transform(image) if self.transform else image, self.labels[index]
""",
            "it has no __len__",
        ),
        "no tensor": Misconception(
            """
class Nuclei(torch.utils.data.Dataset):
    def __init__(self, names, labels, read, transform=None):
        self.names, self.labels, self.read, self.transform = names, labels, read, transform

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        image = self.read(self.names[index])
        return self.transform(image) if self.transform else image, self.labels[index]
""",
            "the image should be a tensor, yours is a",
        ),
        "transform forgotten": Misconception(
            """
class Nuclei(torch.utils.data.Dataset):
    def __init__(self, names, labels, read, transform=None):
        self.names, self.labels, self.read, self.transform = names, labels, read, transform

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return torch.from_numpy(self.read(self.names[index])), self.labels[index]
""",
            "never called",
        ),
    },
)


def _test_to_numbers(to_numbers: Callable[..., Any]) -> str | None:
    classes = ("X-ray", "Fe", "none")
    got = list(to_numbers(["none", "Fe"], classes))
    told = {
        (1, 0): "these numbers come from the labels at hand: a split that lacks X-ray would call Fe 0, others 1",
        (2, 0): "you sorted the classes; their order is given, and the model's outputs come in that order",
        (0, 1): "you count classes as they turn up, so another split would count differently",
        (3, 2): "class numbers start at 0, as positions do",
    }
    if tuple(got) in told:
        return told[tuple(got)]
    if got != [2, 1]:
        return f"with the classes X-ray, Fe, none the labels none, Fe are 2 and 1; you return {got}"
    if list(to_numbers(["Fe", "Fe", "X-ray"], classes)) != [1, 1, 0]:
        return "one number for each label, in the order of the labels"
    try:
        silent = list(to_numbers(["Fe", "fe"], classes))
    except Exception:  # noqa: BLE001 - any complaint will do
        return None
    return f"'fe' is no class and became {silent[1]!r} without a word; a typing error should stop you"


q3 = Exercise(
    name="q3",
    answer="to_numbers",
    test=_test_to_numbers,
    right="the same name has the same number in every split, and a name that is no class is an error",
    hints=(
        "Where does the order come from: the labels of this split, or the list of classes that all splits share?",
        "Make a dict from class name to position, once. Look each label up in it.",
        "dict(zip(classes, range(len(classes)))); square brackets complain about a missing name, .get() does not.",
    ),
    solution_code="""
def to_numbers(labels, classes):
    number = dict(zip(classes, range(len(classes))))
    return [number[label] for label in labels]
""",
    why="the classes are declared once and passed to train, val and test; ImageDataset(classes=...) does the same.",
    misconceptions={
        "from this split": Misconception(
            "def to_numbers(labels, classes):\n    return np.unique(labels, return_inverse=True)[1].tolist()",
            "come from the labels at hand",
        ),
        "sorted": Misconception(
            "def to_numbers(labels, classes):\n    return [sorted(classes).index(label) for label in labels]",
            "you sorted the classes",
        ),
        "as they turn up": Misconception(
            "def to_numbers(labels, classes):\n    return pd.factorize(np.array(labels))[0].tolist()",
            "as they turn up",
        ),
        "a silent -1": Misconception(
            "def to_numbers(labels, classes):\n"
            "    number = {name: n for n, name in enumerate(classes)}\n"
            "    return [number.get(label, -1) for label in labels]",
            "without a word",
        ),
    },
)


def _stream(length: int | None, limit: int = 200) -> Iterator[int]:
    """Numbers from 10, one by one and once only; without a length there is no end, so taking many is stopped."""
    for taken, number in enumerate(itertools.count(10)):
        if taken == length:
            return
        if taken >= limit:
            raise _NotYetError("you collect the stream before you share it, and this one has no end: yield as you go")
        yield number


def _test_share(share: Callable[..., Any]) -> str | None:
    try:
        shares = [list(share(_stream(7), worker, 3)) for worker in range(3)]
    except TypeError as error:
        return f"a stream can only be walked through, it has no length and no numbers ({error})"
    together, all_seven = sorted(itertools.chain(*shares)), list(range(10, 17))
    if shares == [all_seven] * 3:
        return "each of the 3 workers yields the whole stream, so every sample comes three times"
    if len(together) != len(set(together)):
        return "some samples come from more than one worker"
    if 10 not in shares[0]:
        return "the first sample belongs to worker 0: positions and workers are both counted from 0"
    if together != all_seven:
        return f"together the 3 workers should yield 10 to 16; {sorted(set(all_seven) - set(together))} got lost"
    if max(map(len, shares)) - min(map(len, shares)) > 1:
        return f"7 samples for 3 workers are 3, 2 and 2; yours are {', '.join(str(len(part)) for part in shares)}"
    if list(share(_stream(4), 0, 1)) != [10, 11, 12, 13]:
        return "a single worker yields everything, in the stream's order"
    first = list(itertools.islice(share(_stream(None), 1, 2), 3))
    return None if first == [11, 13, 15] else f"worker 1 of 2 yields every second sample, 11, 13, 15; yours {first}"


q4 = Exercise(
    name="q4",
    answer="share",
    test=_test_share,
    right="every sample comes from exactly one worker, and the stream may be endless",
    hints=(
        "Number the samples while you walk: which positions belong to worker 0, which to worker 1?",
        "Position p belongs to worker p % workers. enumerate counts positions while you walk.",
        "for position, sample in enumerate(stream): yield the sample if position % workers == worker.",
    ),
    solution_code="""
def share(stream, worker, workers):
    for position, sample in enumerate(stream):
        if position % workers == worker:
            yield sample
""",
    why="all workers walk the same stream and each keeps its own positions, so nothing is doubled and nothing lost.",
    misconceptions={
        "everything to everyone": Misconception("def share(stream, worker, workers):\n    yield from stream", "whole"),
        "the rest is lost": Misconception(
            """
def share(stream, worker, workers):
    samples = list(stream)
    each = len(samples) // workers
    return samples[worker * each : (worker + 1) * each]
""",
            "got lost",
        ),
        "collects first": Misconception(
            "def share(stream, worker, workers):\n    return list(stream)[worker::workers]", "this one has no end"
        ),
        "slices a stream": Misconception(
            "def share(stream, worker, workers):\n    yield from stream[worker::workers]", "no length and no numbers"
        ),
    },
)


def _images(*pixels: int) -> Iterator[torch.Tensor]:
    return iter([torch.zeros(1, 1, number) for number in pixels])


def _test_batches(batches: Callable[..., Any]) -> str | None:
    def counts(*pixels: int) -> list[list[int]]:
        return [[image.numel() for image in batch] for batch in batches(_images(*pixels), 100)]

    got, right = counts(120, 40, 60, 20, 40, 42, 18, 9), [[120], [40, 60], [20, 40], [42, 18, 9]]
    flat = list(itertools.chain(*got))
    if any(not batch for batch in got):
        return "one of your batches is empty; an image too large for the budget gets a batch of its own"
    if got == right[:-1]:
        return "the last batch is missing: when the stream ends, what you have collected still goes out"
    if flat != list(itertools.chain(*right)):
        return f"every image once and in order; you yield images of {flat} pixels"
    if any(sum(batch) > 100 and len(batch) > 1 for batch in got):
        return "one of your batches is over the budget: look at the next image before you take it in"
    if got == [[pixels] for pixels in flat]:
        return "each image is alone: put images together while they fit, and after each batch count from 0 again"
    if got[1] == [40]:
        return "40 and 60 pixels are exactly the budget of 100, so they fit together"
    if got != right:
        return f"with a budget of 100 the batches hold {right} pixels; yours hold {got}"
    if counts(40, 60, 40, 60) != [[40, 60]] * 2 or counts(41, 60, 41, 60) != [[41], [60]] * 2:
        return "both at the start and after a batch has gone out, counting begins at 0"
    return "no images, no batch" if counts() else None


q5 = Exercise(
    name="q5",
    answer="batches",
    test=_test_batches,
    right="as many images as the budget holds, whatever their sizes: the data decide the batch size",
    hints=(
        "Keep a list and a count of its pixels. When must the list go out, before or after the next image joins?",
        "If the list is not empty and the next image would exceed the budget, yield the list and start a new one.",
        "image.numel() counts pixels of one channel. After the loop: if the list is not empty, yield it too.",
    ),
    solution_code="""
def batches(images, budget):
    batch, pixels = [], 0
    for image in images:
        if batch and pixels + image.numel() > budget:
            yield batch
            batch, pixels = [], 0
        batch.append(image)
        pixels += image.numel()
    if batch:
        yield batch
""",
    why="an image's size is known only once it is fetched, so no list of indices could say this before.",
    misconceptions={
        "last batch lost": Misconception(
            """
def batches(images, budget):
    batch, pixels = [], 0
    for image in images:
        if batch and pixels + image.numel() > budget:
            yield batch
            batch, pixels = [], 0
        batch.append(image)
        pixels += image.numel()
""",
            "the last batch is missing",
        ),
        "looks too late": Misconception(
            """
def batches(images, budget):
    batch, pixels = [], 0
    for image in images:
        batch.append(image)
        pixels += image.numel()
        if pixels >= budget:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
""",
            "over the budget: look at the next",
        ),
        "empty batch": Misconception(
            """
def batches(images, budget):
    batch, pixels = [], 0
    for image in images:
        if pixels + image.numel() > budget:
            yield batch
            batch, pixels = [], 0
        batch.append(image)
        pixels += image.numel()
    yield batch
""",
            "one of your batches is empty",
        ),
        "never reset": Misconception(
            """
def batches(images, budget):
    batch, pixels = [], 0
    for image in images:
        if batch and pixels + image.numel() > budget:
            yield batch
            batch = []
        batch.append(image)
        pixels += image.numel()
    if batch:
        yield batch
""",
            "each image is alone",
        ),
    },
)
