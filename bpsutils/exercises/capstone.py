"""Exercises of notebook 11: joining labels, a normalisation, unfreezing, folds that keep cases whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import nn

from bpsutils.exercises import Exercise, Misconception


def _test_labels_of(labels_of: Callable[[list[str], dict[str, str]], Any]) -> str | None:
    labels = {"case01": "benign", "case02": "malignant", "case117": "malignant", "case11": "benign"}
    names = ["case117_h&e_s1_001.png", "case01_melan_s2_003.png", "case02_h&e_s4_002.png", "case01_sox10_s3_001.png"]
    got = labels_of(names, labels)
    if isinstance(got, dict | set | str) or len(got) != len(names):
        return f"return a list with one label for each of the {len(names)} names"
    if list(got) == [labels["case11"], *(labels[name[:6]] for name in names[1:])]:
        return "the first file is of case117, and you read case11: numbers differ in length, the underscore ends them"
    if list(got) == list(labels.values()):
        return "these are the map's labels in the map's order; each file needs the label of its own case"
    if list(got) != ["malignant", "benign", "malignant", "benign"]:
        return f"the labels should be malignant, benign, malignant, benign; you have {', '.join(map(str, got))}"
    try:
        labels_of(["case09_h&e_s1_001.png"], labels)
    except Exception as error:
        if isinstance(error.__cause__ or error, LookupError | ValueError | AssertionError):
            return None
        raise
    return "case09 is not in the map, and your function made up a label for it: let it stop instead"


q1 = Exercise(
    name="q1",
    answer="labels_of",
    test=_test_labels_of,
    right="each file gets the label of its own case, and a case without a label stops you",
    hints=(
        "Where does the case end in a file name? Not after a fixed number of letters.",
        'name.split("_") cuts at the underscores; the case is the first piece.',
        "labels[case] looks up and stops with a KeyError where there is none; labels.get(case, …) would not stop.",
    ),
    solution_code="""
def labels_of(names, labels):
    return [labels[name.split("_")[0]] for name in names]
""",
    why="the case is the key of both places. A missing key is an error in the data, and is to be seen as one.",
    misconceptions={
        "fixed width": Misconception(
            "def labels_of(names, labels):\n    return [labels[name[:6]] for name in names]", "you read case11"
        ),
        "by position": Misconception(
            "def labels_of(names, labels):\n    return list(labels.values())[: len(names)]", "in the map's order"
        ),
        "a default": Misconception(
            'def labels_of(names, labels):\n    return [labels.get(name.split("_")[0], "benign") for name in names]',
            "made up a label",
        ),
        "a map again": Misconception(
            'def labels_of(names, labels):\n    return {name: labels[name.split("_")[0]] for name in names}',
            "return a list",
        ),
    },
)

_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def _test_normalise(normalise: Callable[[torch.Tensor], Any]) -> str | None:
    # three columns: a mean without its axes has shape (3,) and goes, silently, along the width
    image = torch.arange(45, dtype=torch.uint8).reshape(3, 5, 3) * 5
    mean, std = _MEAN[:, None, None], _STD[:, None, None]
    got = normalise(image)
    if not isinstance(got, torch.Tensor) or not got.is_floating_point():
        return f"return a tensor of floats, not {getattr(got, 'dtype', type(got).__name__)}"
    unit = image / 255
    for message, wrong in {
        "the grey levels still go up to 255, and the constants are for 0 to 1: scale first": (image - mean) / std,
        "65535 is the range of 16 bits; these patches have 8": (image / 65535 - mean) / std,
        "mean and standard deviation went along the width; each belongs to a channel, which is axis 0": (
            (unit - _MEAN) / _STD
        ),
        "that is the image's own mean and standard deviation; the weights were trained with fixed ones": (
            (unit - unit.mean((1, 2), keepdim=True)) / unit.std((1, 2), keepdim=True)
        ),
        "you subtract the mean and leave the spread: divide by the standard deviation, too": unit - mean,
        "mean and standard deviation have changed places": (unit - std) / mean,
    }.items():
        if got.shape == wrong.shape and torch.allclose(got.float(), wrong, atol=1e-4):
            return message
    right = (unit - mean) / std
    if got.shape != right.shape:
        return f"the shape should stay {tuple(right.shape)}, you return {tuple(got.shape)}"
    if not torch.allclose(got.float(), right, atol=1e-4):
        return f"the first pixel of red is 0 and should become {right[0, 0, 0]:.3f}; yours is {got[0, 0, 0]:.3f}"
    return None


q2 = Exercise(
    name="q2",
    answer="normalise",
    test=_test_normalise,
    right="scaled by the type's range, then each channel by its own constants",
    hints=(
        "The constants are for values from 0 to 1. What range does uint8 have?",
        "A mean of shape (3,) meets the width. It has to meet the channels: shape (3, 1, 1).",
        "torch.tensor([0.485, 0.456, 0.406])[:, None, None] is the mean; then (image / 255 - mean) / std.",
    ),
    solution_code="""
def normalise(image):
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (image / 255 - mean) / std
""",
    why="a network's first layer knows numbers in this range. ToRGB and Normalize of bpsutils do these two steps.",
    misconceptions={
        "not scaled": Misconception(
            "def normalise(image):\n"
            "    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]\n"
            "    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]\n"
            "    return (image - mean) / std",
            "scale first",
        ),
        "along the width": Misconception(
            "def normalise(image):\n"
            "    mean = torch.tensor([0.485, 0.456, 0.406])\n"
            "    std = torch.tensor([0.229, 0.224, 0.225])\n"
            "    return (image / 255 - mean) / std",
            "went along the width",
        ),
        "its own": Misconception(
            "def normalise(image):\n"
            "    unit = image / 255\n"
            "    return (unit - unit.mean((1, 2), keepdim=True)) / unit.std((1, 2), keepdim=True)",
            "the image's own mean",
        ),
        "mean only": Misconception(
            "def normalise(image):\n    return image / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]",
            "leave the spread",
        ),
        "16 bits": Misconception(
            "def normalise(image):\n"
            "    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]\n"
            "    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]\n"
            "    return (image / 65535 - mean) / std",
            "the range of 16 bits",
        ),
    },
)


def _toy_network() -> nn.Module:
    """Sixteen blocks and a head; the first three are trainable, so that freezing has something to do."""
    model = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(16)), "head": nn.Linear(2, 2)})
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number < 6)
    return model


def _test_unfreeze(unfreeze: Callable[[nn.Module, list[str]], Any]) -> str | None:
    model = _toy_network()
    got = unfreeze(model, ["blocks.1", "head"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    right = {"blocks.1.weight", "blocks.1.bias", "head.weight", "head.bias"}
    if {"blocks.10.weight", "blocks.15.bias"} <= trained and "blocks.9.weight" not in trained:
        return 'blocks.10 to blocks.15 are trained, too: their names begin with "blocks.1" as well; end it with a dot'
    if trained == right | {"blocks.0.weight", "blocks.0.bias", "blocks.2.weight", "blocks.2.bias"}:
        return "you unfreeze what is named and freeze nothing: blocks.0 and blocks.2 were trainable, and still are"
    if trained != right:
        return (
            f"blocks.1 and head should be trainable, nothing else; you have {', '.join(sorted(trained)) or 'nothing'}"
        )
    given = [names.get(id(parameter)) for parameter in got]
    if len(given) == len(names):
        return "the model is right, but you return all its parameters; the optimiser needs the trainable ones only"
    if sorted(map(str, given)) != sorted(right):
        return f"return the {len(right)} trainable parameters themselves, once each; you return {len(given)} things"
    return None


q3 = Exercise(
    name="q3",
    answer="unfreeze",
    test=_test_unfreeze,
    right="what is named is trained, all else is frozen, and the optimiser gets no more than it needs",
    hints=(
        "Go through model.named_parameters() and decide for each one. It may be trainable before you come.",
        'parameter.requires_grad_(True or False) sets it. "blocks.15.bias" begins with "blocks.1".',
        'tuple(name + "." for name in names) is what a trained name starts with; str.startswith takes a tuple.',
    ),
    solution_code="""
def unfreeze(model, names):
    beginnings = tuple(name + "." for name in names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(beginnings))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
""",
    why="each parameter is decided, so what was trainable before does not matter. The dot ends the name of a part.",
    misconceptions={
        "no dot": Misconception(
            "def unfreeze(model, names):\n"
            "    for name, parameter in model.named_parameters():\n"
            "        parameter.requires_grad_(name.startswith(tuple(names)))\n"
            "    return [parameter for parameter in model.parameters() if parameter.requires_grad]",
            "end it with a dot",
        ),
        "nothing frozen": Misconception(
            "def unfreeze(model, names):\n"
            "    for name in names:\n"
            "        model.get_submodule(name).requires_grad_(True)\n"
            "    return [parameter for parameter in model.parameters() if parameter.requires_grad]",
            "freeze nothing",
        ),
        "all to the optimiser": Misconception(
            "def unfreeze(model, names):\n"
            "    model.requires_grad_(False)\n"
            "    for name in names:\n"
            "        model.get_submodule(name).requires_grad_(True)\n"
            "    return list(model.parameters())",
            "you return all its parameters",
        ),
        "the wrong way round": Misconception(
            "def unfreeze(model, names):\n"
            "    model.requires_grad_(True)\n"
            "    for name in names:\n"
            "        model.get_submodule(name).requires_grad_(False)\n"
            "    return [parameter for parameter in model.parameters() if parameter.requires_grad]",
            "should be trainable, nothing else",
        ),
    },
)


def _test_deal(deal: Callable[[list[str], list[str], int], Any]) -> str | None:
    for folds, per_class in ((2, (4, 4)), (3, (6, 6)), (3, (5, 4))):
        table = _patches(per_class)
        got = list(deal(table["case"].tolist(), table["label"].tolist(), folds))
        if len(got) != len(table):
            return f"return one fold number an image: {len(table)}, not {len(got)}"
        table["fold"] = [int(fold) for fold in got]
        problem = _deal_problem(table, folds)
        if problem:
            return f"{problem} (tried with {per_class[0]} and {per_class[1]} cases in {folds} folds)"
    return None


def _patches(per_class: tuple[int, int]) -> pd.DataFrame:
    """Images of benign and malignant cases, one to four of each case, not sorted."""
    cases = [(f"case{9 * number % 31:02d}", "benign" if number < per_class[0] else "malignant")
             for number in range(sum(per_class))]  # fmt: skip
    rows = [row for number, row in enumerate(cases) for _ in range(1 + number * 3 % 4)]
    return pd.DataFrame(rows, columns=["case", "label"]).sample(frac=1, random_state=0, ignore_index=True)


def _deal_problem(table: pd.DataFrame, folds: int) -> str | None:
    if table.groupby("case")["fold"].nunique().max() > 1:
        return "a case has images in two folds: what is learned from one half is tested on the other"
    if not table["fold"].isin(range(folds)).all():
        return f"folds are numbered from 0 to {folds - 1}; you have {sorted(map(int, table['fold'].unique()))}"
    cases = table.drop_duplicates("case")
    counts = pd.crosstab(cases["fold"], cases["label"]).reindex(range(folds), fill_value=0)
    if (counts == 0).any(axis=None):
        return "a fold lacks a class: deal the cases of each class by themselves"
    if (counts.max() - counts.min()).max() > 1:
        return "a class is dealt unevenly: its cases in two folds should differ by one at most"
    return None


q4 = Exercise(
    name="q4",
    answer="deal",
    test=_test_deal,
    right="cases stay whole, and every fold has its share of both classes",
    hints=(
        "What is dealt are cases, not images. First make a list of the cases, each once, with its label.",
        "Deal the cases of one class like cards: 0, 1, 2, 0, 1, 2, … Then those of the other class.",
        "drop_duplicates gives one row a case; groupby('label').cumcount() counts inside each class; % folds deals.",
    ),
    solution_code="""
def deal(cases, labels, folds):
    table = pd.DataFrame({"case": cases, "label": labels}).drop_duplicates()
    table["fold"] = table.groupby("label").cumcount() % folds
    return pd.Series(cases).map(table.set_index("case")["fold"])
""",
    why="the case is what is independent, so it is what is dealt; within a class, so that no fold lacks one.",
    misconceptions={
        "images are dealt": Misconception(
            "def deal(cases, labels, folds):\n    return [number % folds for number in range(len(cases))]",
            "a case has images in two folds",
        ),
        "class by class": Misconception(
            "def deal(cases, labels, folds):\n"
            "    table = pd.DataFrame({'case': cases, 'label': labels}).drop_duplicates().sort_values('label')\n"
            "    table['fold'] = [n * folds // len(table) for n in range(len(table))]\n"
            "    return pd.Series(cases).map(table.set_index('case')['fold'])",
            "a fold lacks a class",
        ),
        "from one": Misconception(
            "def deal(cases, labels, folds):\n"
            "    table = pd.DataFrame({'case': cases, 'label': labels}).drop_duplicates()\n"
            "    table['fold'] = table.groupby('label').cumcount() % folds + 1\n"
            "    return pd.Series(cases).map(table.set_index('case')['fold'])",
            "folds are numbered from 0",
        ),
        "one a case": Misconception(
            "def deal(cases, labels, folds):\n"
            "    table = pd.DataFrame({'case': cases, 'label': labels}).drop_duplicates()\n"
            "    return table.groupby('label').cumcount() % folds",
            "one fold number an image",
        ),
    },
)
