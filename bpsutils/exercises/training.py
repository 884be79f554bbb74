"""Exercises of notebook 09: one training step, when to stop, class weights, a checkpoint."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bpsutils.exercises import Exercise, Misconception


class _Watch(nn.Linear):
    """A linear layer of 3 numbers to 2 logits that can be compared with a copy of itself."""

    def __init__(self) -> None:
        super().__init__(3, 2, dtype=torch.float64)
        with torch.no_grad():
            self.weight.copy_(torch.tensor([[0.5, -0.25, 0.125], [0.0, 0.75, -0.5]]))
            self.bias.copy_(torch.tensor([0.1, -0.1]))


def _reference_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, optimizer: Any, kind: str) -> float:
    """One step, right or wrong in a known way."""
    logits = model(images)
    if kind == "softmax":
        logits = logits.softmax(1)
    loss = nn.functional.cross_entropy(logits, labels)
    if kind != "accumulates":
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
    optimizer.step()
    return loss.item()


def _after(step: Callable[..., Any], batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[Any], Any]:
    """What two steps return, and the weights after them."""
    model = _Watch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = [step(model, images, labels, optimizer) for images, labels in batches]
    return losses, torch.cat([model.weight.detach().flatten(), model.bias.detach()])


def _test_step(step: Callable[..., Any]) -> str | None:
    rng = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(5, 3, generator=rng, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])),
        (torch.randn(4, 3, generator=rng, dtype=torch.float64), torch.tensor([1, 0, 0, 1])),
    ]
    losses, weights = _after(step, batches)
    start = torch.cat([_Watch().weight.detach().flatten(), _Watch().bias.detach()])
    if torch.equal(weights, start):
        return "the weights have not changed: is the gradient wiped between backward() and step(), or is one missing?"
    for kind, message in {
        "accumulates": "the second step still uses the gradient of the first: wipe it with zero_grad()",
        "softmax": "cross_entropy takes logits and does the softmax itself; you gave it probabilities",
    }.items():
        if torch.allclose(weights, _after(functools.partial(_reference_step, kind=kind), batches)[1]):
            return message
    expected, right = _after(functools.partial(_reference_step, kind="right"), batches)
    if not torch.allclose(weights, right):
        return "after two steps the weights are not where one forward, backward and step a batch would bring them"
    if isinstance(losses[0], torch.Tensor):
        return "return loss.item(): the tensor keeps all that it was computed from in memory, as long as you keep it"
    if not np.allclose(losses, expected):
        return f"return the loss of the batch before the step, {expected[0]:.4f} for the first; you return {losses[0]}"
    return None


q1 = Exercise(
    name="q1",
    answer="step",
    test=_test_step,
    right="forward, loss, backward, step; and no gradient is left over",
    hints=(
        "Four lines and one that wipes: which order do they have in the cell above?",
        "model(images) gives logits; torch.nn.functional.cross_entropy(logits, labels) the loss.",
        "Then optimizer.zero_grad(), loss.backward(), optimizer.step(), and return loss.item().",
    ),
    solution_code="""
def step(model, images, labels, optimizer):
    logits = model(images)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
""",
    why="zero_grad wipes what the last step left, backward fills the gradients, step uses them.",
    misconceptions={
        "gradients add up": Misconception(
            "def step(model, images, labels, optimizer):\n"
            "    loss = torch.nn.functional.cross_entropy(model(images), labels)\n"
            "    loss.backward()\n"
            "    optimizer.step()\n"
            "    return loss.item()",
            "still uses the gradient of the first",
        ),
        "wiped too late": Misconception(
            "def step(model, images, labels, optimizer):\n"
            "    loss = torch.nn.functional.cross_entropy(model(images), labels)\n"
            "    loss.backward()\n"
            "    optimizer.zero_grad()\n"
            "    optimizer.step()\n"
            "    return loss.item()",
            "the weights have not changed",
        ),
        "softmax first": Misconception(
            "def step(model, images, labels, optimizer):\n"
            "    loss = torch.nn.functional.cross_entropy(model(images).softmax(1), labels)\n"
            "    optimizer.zero_grad()\n"
            "    loss.backward()\n"
            "    optimizer.step()\n"
            "    return loss.item()",
            "takes logits and does the softmax itself",
        ),
        "keeps the graph": Misconception(
            "def step(model, images, labels, optimizer):\n"
            "    loss = torch.nn.functional.cross_entropy(model(images), labels)\n"
            "    optimizer.zero_grad()\n"
            "    loss.backward()\n"
            "    optimizer.step()\n"
            "    return loss",
            "return loss.item()",
        ),
    },
)

_LOSSES = (
    ([0.70, 0.60, 0.65, 0.62, 0.61, 0.50], 3, 5),
    ([0.70, 0.60, 0.65, 0.62, 0.59, 0.60, 0.61], 2, 4),
    ([0.70, 0.60, 0.50, 0.40], 2, 4),
    ([0.70, 0.60, 0.65, 0.55, 0.56, 0.57, 0.54], 2, 6),
    ([0.50, 0.60, 0.70], 1, 2),
    ([0.70, 0.60, 0.60, 0.60], 2, 4),
    ([0.70, 0.60, 0.60, 0.60, 0.50], 2, 4),
)


def _test_stop(stop_epoch: Callable[[Sequence[float], int], Any]) -> str | None:
    got = [int(stop_epoch(list(losses), patience)) for losses, patience, _ in _LOSSES]
    right = [epoch for _, _, epoch in _LOSSES]
    if got == [int(np.argmin(losses)) + 1 for losses, _, _ in _LOSSES]:
        return "that is the epoch to go back to; asked is when you stop, and you cannot know it until patience ran out"
    if got == [epoch - 1 for epoch in right]:
        return "one epoch early: the first epoch is number 1"
    if got[:3] != right[:3] and got[1] != 4 and got[0] in (3, 4, 6):
        return "a loss below the one before is no progress if it is above the lowest so far: compare with the lowest"
    for (losses, patience, epoch), mine in zip(_LOSSES, got, strict=True):
        if mine != epoch:
            return f"for losses {losses} and patience {patience} you stop after epoch {mine}; it should be {epoch}"
    return None


q2 = Exercise(
    name="q2",
    answer="stop_epoch",
    test=_test_stop,
    right="stopped when patience runs out, counted from the lowest loss so far",
    hints=(
        "Go through the epochs from 1. Remember the lowest loss so far and the epoch it came in.",
        "Stop as soon as the lowest came `patience` epochs ago; if that never happens, return the last epoch.",
        "Loop over enumerate(val_losses, start=1): update lowest and best; return if epoch - best == patience.",
    ),
    solution_code="""
def stop_epoch(val_losses, patience):
    lowest = np.inf
    for epoch, loss in enumerate(val_losses, start=1):
        if loss < lowest:
            lowest, best = loss, epoch
        if epoch - best == patience:
            return epoch
    return len(val_losses)
""",
    why="what counts is how long ago the lowest loss was, not whether the last step went up or down.",
    misconceptions={
        "the best epoch": Misconception(
            "def stop_epoch(val_losses, patience):\n    return int(np.argmin(val_losses)) + 1",
            "the epoch to go back to",
        ),
        "compared with the one before": Misconception(
            "def stop_epoch(val_losses, patience):\n"
            "    rises = 0\n"
            "    for epoch in range(2, len(val_losses) + 1):\n"
            "        rises = rises + 1 if val_losses[epoch - 1] >= val_losses[epoch - 2] else 0\n"
            "        if rises == patience:\n"
            "            return epoch\n"
            "    return len(val_losses)",
            "compare with the lowest",
        ),
        "counted from 0": Misconception(
            "def stop_epoch(val_losses, patience):\n"
            "    best = 0\n"
            "    for epoch, loss in enumerate(val_losses):\n"
            "        if loss < val_losses[best]:\n"
            "            best = epoch\n"
            "        if epoch - best == patience:\n"
            "            return epoch\n"
            "    return len(val_losses) - 1",
            "the first epoch is number 1",
        ),
    },
)


def _test_weights(weights: Callable[[torch.Tensor, int], Any]) -> str | None:
    labels = torch.tensor([2, 0, 0, 0, 0, 1, 1, 0, 0, 0])
    got = weights(labels, 3)
    if not isinstance(got, torch.Tensor):
        return f"the criterion takes a tensor, you return {type(got).__name__}"
    if got.shape == labels.shape:
        return "that is a weight for each image; the criterion takes one for each class"
    if got.shape != (3,):
        return f"one weight for each of the 3 classes, in the order of their numbers; your shape is {tuple(got.shape)}"
    counts = torch.tensor([7.0, 2.0, 1.0])
    for message, wrong in {
        "those are the counts: the frequent class would weigh most": counts,
        "those are the shares: the frequent class would weigh most": counts / 10,
        "right up to a factor: let the weights be 1 on average over the images, so that the loss keeps its size": (
            1 / counts
        ),
        "the sizes are right and the order is not: the first weight belongs to class 0": (10 / (3 * counts)).flip(0),
    }.items():
        if torch.allclose(got.float(), wrong):
            return message
    right = 10 / (3 * counts)
    if torch.allclose(got.float(), 3 * right):
        return "right up to a factor: divide by the number of classes as well"
    if not torch.allclose(got.float(), right):
        return "with 7, 2 and 1 images every class should add up to 10 / 3; yours add up to " + ", ".join(
            f"{total:.2f}" for total in (got.float() * counts).tolist()
        )
    absent = weights(torch.tensor([0, 0, 2]), 3)
    if absent.shape != (3,):
        return "a class without an image in these labels still needs its place: count up to the number of classes"
    if got.dtype != torch.float32:
        return f"the logits are float32, so the weights should be; yours are {got.dtype}"
    return None


q3 = Exercise(
    name="q3",
    answer="weights",
    test=_test_weights,
    right="every class adds up to the same, and the loss keeps its size",
    hints=(
        "A class with half as many images needs twice the weight. Start from the counts.",
        "torch.bincount(labels, minlength=n_classes) counts the classes in the order of their numbers.",
        "Each class should add up to images / classes: weight = images / (classes * count).",
    ),
    solution_code="""
def weights(labels, n_classes):
    counts = torch.bincount(labels, minlength=n_classes)
    return len(labels) / (n_classes * counts)
""",
    why="count times weight is the same for all classes; the mean weight over the images is 1.",
    misconceptions={
        "the counts": Misconception(
            "def weights(labels, n_classes):\n    return torch.bincount(labels, minlength=n_classes).float()",
            "those are the counts",
        ),
        "one over the count": Misconception(
            "def weights(labels, n_classes):\n    return 1 / torch.bincount(labels, minlength=n_classes)",
            "so that the loss keeps its size",
        ),
        "one for each image": Misconception(
            "def weights(labels, n_classes):\n"
            "    counts = torch.bincount(labels, minlength=n_classes)\n"
            "    return (len(labels) / (n_classes * counts))[labels]",
            "one for each class",
        ),
        "only classes that are there": Misconception(
            "def weights(labels, n_classes):\n"
            "    counts = torch.unique(labels, return_counts=True)[1]\n"
            "    return len(labels) / (n_classes * counts)",
            "still needs its place",
        ),
    },
)


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> torch.Tensor:
    images = torch.arange(12, dtype=torch.float64).reshape(4, 3).sin()
    for _ in range(steps):
        _reference_step(model, images, torch.tensor([0, 1, 1, 0]), optimizer, "right")
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _test_remember(remember: Callable[..., Any]) -> str | None:
    model = _Watch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    _trained(model, optimizer, 3)
    right = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    got = remember(model, optimizer, 3)
    if not isinstance(got, Mapping) or not {"model", "optimizer", "epoch"} <= set(got):
        return "return a dict with the keys 'model', 'optimizer' and 'epoch'"
    if isinstance(got["model"], nn.Module) or isinstance(got["optimizer"], torch.optim.Optimizer):
        return "keep state_dict(), values only: a file with whole objects breaks when their code changes"
    if got["epoch"] != 3:
        return f"the epoch is 3, yours is {got['epoch']}"
    on = _trained(model, optimizer, 2)  # training goes on, while what was remembered must not change
    if not _same(got["model"], right[0]):
        return "the weights in your dict went on training: a state_dict holds the model's own tensors, so copy them"
    again = _Watch()
    fresh = torch.optim.Adam(again.parameters(), lr=0.1)
    again.load_state_dict(got["model"])
    try:
        fresh.load_state_dict(copy.deepcopy(got["optimizer"]))
    except (KeyError, ValueError, AttributeError, TypeError):
        return "'optimizer' is not what load_state_dict takes: keep optimizer.state_dict()"
    if not got["optimizer"]["state"]:
        return "the optimiser's memory is empty: Adam's moments belong into the checkpoint"
    if not torch.allclose(_trained(again, fresh, 2), on):
        return "weights right, and yet resumed training goes elsewhere: the optimiser's memory went on too, so copy it"
    return None


q4 = Exercise(
    name="q4",
    answer="remember",
    test=_test_remember,
    right="weights, the optimiser's memory and the epoch, and no later step changes them",
    hints=(
        "Three things: model.state_dict(), optimizer.state_dict() and the number of the epoch.",
        "A state_dict holds the very tensors that the next step changes in place. A file freezes them, this does not.",
        "copy.deepcopy copies a dict and all tensors in it. Do it for both.",
    ),
    solution_code="""
def remember(model, optimizer, epoch):
    import copy
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return copy.deepcopy(states) | {"epoch": epoch}
""",
    why="state_dict shares memory with the model, as from_numpy did in 01; deepcopy gives memory of its own.",
    misconceptions={
        "not copied": Misconception(
            "def remember(model, optimizer, epoch):\n"
            "    return {'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'epoch': epoch}",
            "the weights in your dict went on training",
        ),
        "only the weights copied": Misconception(
            "def remember(model, optimizer, epoch):\n"
            "    weights = {name: value.clone() for name, value in model.state_dict().items()}\n"
            "    return {'model': weights, 'optimizer': optimizer.state_dict(), 'epoch': epoch}",
            "the optimiser's memory went on too",
        ),
        "without the optimiser": Misconception(
            "def remember(model, optimizer, epoch):\n"
            "    import copy\n"
            "    return {'model': copy.deepcopy(model.state_dict()), 'epoch': epoch}",
            "'model', 'optimizer' and 'epoch'",
        ),
        "whole objects": Misconception(
            "def remember(model, optimizer, epoch):\n"
            "    import copy\n"
            "    return {'model': copy.deepcopy(model), 'optimizer': copy.deepcopy(optimizer), 'epoch': epoch}",
            "keep state_dict(), values only",
        ),
    },
)


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], value) for name, value in other.items())
