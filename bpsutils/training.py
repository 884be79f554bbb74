"""The training loop, with checkpoints that an interrupted run goes on from (notebook 09).

A run leaves in ``config.out_dir/checkpoints``:

* ``epoch_0001.pt``, ``epoch_0002.pt``, … after each epoch, with all that the next epoch needs;
* ``best.pt``, a copy of the one with the smallest validation loss.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from bpsutils.config import Config, atomically
from bpsutils.datasets import rank_and_world_size
from bpsutils.device import autocast_policy, pick_device, to_device
from bpsutils.distributed import (
    divisor,
    from_rank_0,
    gather,
    gather_images,
    is_first,
    mean_over_ranks,
    parallel,
    share_buffers,
    with_totals,
)
from bpsutils.images import to_float
from bpsutils.loaders import set_epoch
from bpsutils.transforms import Standardise, transpose_batch

# where things lie and what computes them may differ between an interrupted run and the one that goes on from it
FREE_TO_CHANGE = (
    "image_dir",
    "meta",
    "labels",
    "out_dir",
    "index_path",
    "force_rebuild_metadata_full",
    "device",
    "num_workers",
    "packed",
    "pack_path",
    "mixed_precision",
    "channels_last",
    "compile",
)


def prepare(
    batch: Mapping[str, Any], device: torch.device, config: Config
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Bring a batch to the device and into the form that networks take.

    Images travel as they were stored (uint16 is half of float32) and are scaled and standardised on the device.

    Args:
        batch: From a loader: ``images`` ``(B, C, H, W)``, and ``mask`` ``(B, H, W)`` and ``labels`` ``(B,)`` if any.
        device: Where the model is.
        config: Its ``value_range`` says which grey levels become 0 and 1.

    Returns:
        Images as float32 with mean 0 and spread 1 over each image's own pixels, the mask, the labels.
    """
    images, mask, labels = batch["images"], batch.get("mask"), batch.get("labels")
    if device.type == "mps":  # Apple's GPUs have no uint16
        images = images.float()
    moved = to_device({"images": images, "mask": mask, "labels": labels}, device)
    low, high = config.value_range
    images = Standardise()(to_float(moved["images"], (low, high)), moved["mask"])
    return images, moved["mask"], moved["labels"]


def train(model: nn.Module, loaders: Mapping[str, Any], config: Config, *, resume: bool = False) -> pd.DataFrame:
    """Train on ``loaders["train"]``, watch ``loaders["val"]``, keep a checkpoint of every epoch.

    The loss is cross-entropy, weighted by class if ``config.class_weights``; the optimiser is AdamW on the parameters
    that require a gradient; the learning rate follows `schedule`. A run that was interrupted and resumed ends with the
    same weights as one that was not: bit for bit on a CPU with the same number of threads.

    Where torchrun started several ranks, they share each batch, which is ``config.batch_size`` times as large as there
    are ranks; the learning rate is not raised for that. A run may go on with another number of ranks: an epoch then
    has another number of steps, and the schedule goes on at the same share of training.

    Args:
        model: From `bpsutils.models.make_model`; trained in place and moved to the device.
        loaders: From `bpsutils.loaders.make_loaders`.
        config: The experiment.
        resume: Go on from the newest whole checkpoint in ``config.out_dir``, if there is one. Otherwise start from
            the beginning; checkpoints of an earlier run in this folder are removed.

    Returns:
        One row an epoch: ``epoch`` (from 1), ``train_loss``, ``val_loss``, ``val_balanced_accuracy``,
        ``learning_rate`` (at the end of the epoch).

    Raises:
        ValueError: If there is nothing to train (no batches, no parameters, a class without training images), or if
            the checkpoint to resume from belongs to another experiment.
        RuntimeError: If the loss is no longer a finite number.
    """
    steps = len(loaders["train"])
    if not steps:
        raise ValueError("loaders['train'] has no batches; check the splits' sizes, Config.batch_size and drop_last")
    run = _Run.start(model, loaders["train"], config)
    if resume:
        run.load_newest(config)
    else:
        _remove_checkpoints(config)
    done = len(run.history) * steps
    with tqdm(total=config.epochs * steps, initial=done, unit="batch", mininterval=0.5, disable=not is_first()) as bar:
        for epoch in range(len(run.history) + 1, config.epochs + 1):
            bar.set_description(f"epoch {epoch}/{config.epochs}")
            # all randomness is a function of (seed, epoch), so an epoch done again is the same epoch
            torch.manual_seed(int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0]))
            set_epoch(loaders["train"], epoch)
            row: dict[str, float] = {"epoch": epoch, "train_loss": _train_epoch(run, loaders["train"], config, bar)}
            row |= _validate(run, loaders["val"], config)
            row["learning_rate"] = run.optimizer.param_groups[0]["lr"]
            bar.set_postfix(val_loss=f"{row['val_loss']:.3f}", val_balanced=f"{row['val_balanced_accuracy']:.3f}")
            run.history.append(row)
            if is_first():
                run.save(config)
    gather(None)  # the last checkpoint is written before any rank goes on to read it
    return pd.DataFrame(run.history)


def schedule(step: int, steps: int) -> float:
    """Learning rate after ``step`` of ``steps`` steps, as a share of its largest value.

    It rises in a straight line over the first tenth, for the first gradients point anywhere, and falls along half a
    cosine to 0 (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983).

    Example:
        >>> [round(schedule(step, 20), 2) for step in (0, 1, 2, 11, 20)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = max(1, steps // 10)
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2


def class_weights(labels: np.ndarray, classes: tuple[str, ...]) -> torch.Tensor:
    """Weights that make every class count alike, and that are 1 on average over the images.

    Args:
        labels: Class numbers of the training images, shape ``(N,)``.
        classes: Names of the classes.

    Raises:
        ValueError: If a class has no image.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), ("X-ray", "Fe"))
        tensor([0.6667, 2.0000])
    """
    counts = np.bincount(labels, minlength=len(classes))
    if missing := [name for name, count in zip(classes, counts, strict=True) if count == 0]:
        raise ValueError(f"no training image of class {', '.join(missing)}; check Config.classes and the split")
    return torch.tensor(len(labels) / (len(classes) * counts), dtype=torch.float32)


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes in ``labels`` of the share that is predicted right; 0.5 is chance for two classes.

    It is scikit-learn's ``balanced_accuracy_score``, written out because intervals need it a thousand times.

    Args:
        labels: True class numbers, shape ``(N,)``.
        predicted: Predicted class numbers, shape ``(N,)``.

    Example:
        >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
        0.5
    """
    return float(np.mean([(predicted[labels == c] == c).mean() for c in np.unique(labels)]))


@torch.no_grad()
def forward_all(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], config: Config
) -> Iterator[tuple[Mapping[str, Any], torch.Tensor]]:
    """Run a model over batches without training it.

    Args:
        model: Stays on the device it is on.
        batches: A loader, or batches of one.
        config: See `prepare`.

    Yields:
        Each batch, and its logits as float32 on the CPU, shape ``(B, n_classes)``.
    """
    model.eval()
    device = next(model.parameters()).device
    for batch in batches:
        images, mask, _ = prepare(batch, device, config)
        yield batch, _forward(model, images, mask, config).cpu()


def load_checkpoint(path: str | os.PathLike[str], model: nn.Module) -> dict[str, Any]:
    """Put a checkpoint's weights into a model.

    Args:
        path: A file from ``config.out_dir/checkpoints``.
        model: A network of the kind that was trained; changed in place.

    Returns:
        The checkpoint: ``model``, ``optimizer``, ``scheduler``, ``scaler``, ``epoch``, ``steps``, ``images``,
        ``world_size``, ``seed``, ``config``, ``versions``, ``history``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no whole checkpoint, or of another network.
    """
    checkpoint = _read(Path(path))
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        saved = checkpoint["config"]
        raise ValueError(
            f"{path} holds weights of {saved['model']!r} for {', '.join(saved['classes'])}, which do not fit this "
            f"model; make it with the same Config ({str(error).splitlines()[-1].strip()})"
        ) from error
    return checkpoint


@dataclasses.dataclass
class _Run:
    """What changes from step to step, and is saved and loaded together."""

    model: nn.Module
    net: nn.Module  # the model, or what averages its gradients over several ranks
    device: torch.device
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    steps: int
    images: int
    history: list[dict[str, Any]]

    @classmethod
    def start(cls, model: nn.Module, loader: Any, config: Config) -> _Run:
        device = pick_device(config.device)
        model.to(device)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            raise ValueError("every parameter of the model is frozen; name some in Config.trainable")
        weights = class_weights(_labels(loader), config.classes) if config.class_weights else None
        # fused: one kernel for all weights, and no waiting for the GPU to learn whether the scaler skips the step
        fused = True if device.type == "cuda" else None
        rate, decay = config.learning_rate, config.weight_decay
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused)
        steps = config.epochs * len(loader)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
        # the usual first scale of 2**16 overflows at the first steps, which would then be lost
        scaled = config.mixed_precision and autocast_policy(device)[1]
        scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=scaled)
        # summed over a batch and divided by its number of images: each image weighs the same in a batch of any size
        loss = nn.CrossEntropyLoss(weight=weights, reduction="sum").to(device)
        if config.compile:
            # in place, so that the names of the weights stay; dynamic, or every new image size would be compiled anew
            model.compile(dynamic=True)
        net = parallel(model)
        return cls(model, net, device, loss, optimizer, scheduler, scaler, steps, len(loader.dataset), [])

    def save(self, config: Config) -> None:
        """Write the checkpoint of the epoch that just ended."""
        epoch = self.history[-1]["epoch"]
        checkpoint = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": epoch,
            "steps": self.steps,
            "images": self.images,
            "world_size": rank_and_world_size()[1],
            "seed": config.seed,
            "config": _plain(config),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__},
            "history": self.history,
        }
        # best.pt first: killed in between, the epoch is done again and writes the same best.pt
        if epoch == min(self.history, key=lambda row: row["val_loss"])["epoch"]:
            _write(checkpoint, _folder(config) / "best.pt")
        _write(checkpoint, _folder(config) / f"epoch_{epoch:04d}.pt")

    def load_newest(self, config: Config) -> None:
        """Go on from the newest checkpoint that is whole, if there is one."""
        path = from_rank_0(lambda: _newest(_folder(config)))
        if path is None:
            return
        _check_same_experiment(path, _read(path), config, self)
        checkpoint = load_checkpoint(path, self.model)
        for saved, own in zip(checkpoint["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            saved["fused"] = own["fused"]  # as this device does it
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        if checkpoint["scaler"] and self.scaler.is_enabled():  # a run in full precision has none
            self.scaler.load_state_dict(checkpoint["scaler"])
        self.history = checkpoint["history"]
        if checkpoint["steps"] != self.steps:
            self._place_in_schedule(len(self.history) * self.steps // config.epochs)

    def _place_in_schedule(self, step: int) -> None:
        """Let the learning rate go on as after ``step`` steps."""
        rates = [rate * schedule(step, self.steps) for rate in self.scheduler.base_lrs]
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), "last_epoch": step, "_last_lr": rates})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def _train_epoch(run: _Run, loader: Any, config: Config, bar: Any) -> float:
    """One pass over the training images; their mean loss."""
    run.net.train()
    losses, counts = [], []
    for batch, total in with_totals(loader):
        # under a pixel budget steps differ in size: a mean over the usual number lets each image weigh the same
        count = run.images * config.epochs / run.steps if config.pixel_budget else total
        images, mask, labels = prepare(batch, run.device, config)
        images, mask = transpose_batch(images, mask)
        logits = _forward(run.net, images, mask, config)
        loss = run.loss(logits, labels) / divisor(total, count)
        run.optimizer.zero_grad()
        run.scaler.scale(loss).backward()
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.scheduler.step()
        losses.append(loss.detach())
        counts.append(count)
        bar.update()
    share_buffers(run.model)
    # read once an epoch: reading a loss from a GPU makes it wait
    means = mean_over_ranks(torch.stack(losses).double()).cpu().numpy()
    return _mean_loss(means, np.array(counts), len(run.history) + 1, config)


def _forward(net: nn.Module, images: torch.Tensor, mask: torch.Tensor | None, config: Config) -> torch.Tensor:
    """Logits as float32, computed in the precision and memory format that the configuration asks for."""
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    dtype = autocast_policy(images.device)[0] if config.mixed_precision else None
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        logits: torch.Tensor = net(images, mask)
    return logits.float()


def _mean_loss(losses: np.ndarray, counts: np.ndarray, epoch: int, config: Config) -> float:
    """Mean over the images, from the mean and the number of images of each step."""
    if not np.isfinite(losses).all():
        step = int(np.argmin(np.isfinite(losses)))
        raise _diverged(losses[step], f"epoch {epoch}, step {step + 1}", config)
    return float((losses * counts).sum() / counts.sum())


def _diverged(loss: float, where: str, config: Config) -> RuntimeError:
    return RuntimeError(
        f"the loss is {loss} at {where}; try a tenth of the step size, Config.learning_rate="
        f"{config.learning_rate / 10:g}, then look for broken images in the training split"
    )


def _validate(run: _Run, loader: Any, config: Config) -> dict[str, float]:
    """Loss and balanced accuracy on images that are not trained on."""
    found = [
        (batch["indices"].cpu(), logits, batch["labels"].cpu())
        for batch, logits in forward_all(run.model, loader, config)
    ]
    if not found:
        raise ValueError("loaders['val'] has no batches; check Config.fractions or Config.val_cases")
    logits, labels = gather_images(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    loss = run.loss(logits.to(run.device), labels.to(run.device)).item() / len(labels)
    if not math.isfinite(loss):
        raise _diverged(loss, f"epoch {len(run.history) + 1}, validation", config)
    return {"val_loss": loss, "val_balanced_accuracy": balanced_accuracy(labels.numpy(), logits.argmax(1).numpy())}


def _labels(loader: Any) -> np.ndarray:
    labels = getattr(loader.dataset, "labels", None)
    if labels is None:
        raise ValueError(
            f"{type(loader.dataset).__name__} of loaders['train'] has no `labels`, of which class weights are made; "
            "use an ImageDataset with a target, or set Config.class_weights=False"
        )
    return np.asarray(labels)


def _folder(config: Config) -> Path:
    return config.out_dir / "checkpoints"


def _newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of an epoch; a warning names each file that is not whole."""
    for part in sorted(folder.glob(".*.tmp")):
        warnings.warn(f"removed {part}: its writing was interrupted", stacklevel=4)
        part.unlink()
    for path in sorted(folder.glob("epoch_*.pt"), reverse=True):
        try:
            _read(path)
        except ValueError as error:
            warnings.warn(f"skipped: {error}", stacklevel=4)
        else:
            return path
    return None


def _remove_checkpoints(config: Config) -> None:
    """Epochs of an earlier run would be taken for this one's when it is resumed."""
    for path in [*_folder(config).glob("epoch_*.pt"), *_folder(config).glob(".*.tmp"), _folder(config) / "best.pt"]:
        path.unlink(missing_ok=True)


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    with atomically(path) as part, part.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())  # else a power cut could keep the name and lose the content


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU; only plain values and tensors are accepted, so that reading one runs no code."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; train first, or check Config.out_dir")
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, pickle.UnpicklingError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else "file ends early"
        raise ValueError(f"{path} is not a whole checkpoint ({reason}); use an earlier one, or train again") from error


def _plain(config: Config) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _check_same_experiment(path: Path, checkpoint: dict[str, Any], config: Config, run: _Run) -> None:
    """Going on with another experiment would give neither; so would another schedule of the learning rate."""
    saved, now = checkpoint["config"], _plain(config)
    changed = [
        f"Config.{name} was {saved[name]!r}, is {value!r}"
        for name, value in now.items()
        if name not in FREE_TO_CHANGE and name in saved and saved[name] != value
    ]
    before, ranks = checkpoint.get("world_size", 1), rank_and_world_size()[1]
    if not changed and checkpoint.get("images", run.images) != run.images:
        changed = [f"the run had {checkpoint['images']} training images, has {run.images}"]
    if not changed and before == ranks and checkpoint["steps"] != run.steps:
        changed = [f"the run had {checkpoint['steps']} steps, has {run.steps}: the training images changed"]
    if changed:
        raise ValueError(
            f"cannot resume from {path}: {'; '.join(changed)}. Set it back, or train from the start (resume=False) "
            "into another Config.out_dir; more epochs too need a new run, for the learning rate falls over all of them"
        )
    if before != ranks and is_first():
        warnings.warn(
            f"{path} is of a run on {before} ranks, which goes on with {ranks}: batches are of "
            f"{config.batch_size * ranks} images now, and the whole run has {run.steps} steps, not "
            f"{checkpoint['steps']}; the learning rate goes on at the same share of training",
            stacklevel=4,
        )
