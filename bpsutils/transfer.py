"""A pretrained network on images of another kind: its weights, its normalisation, its features (notebook 11)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from bpsutils.config import Config
from bpsutils.device import pick_device, seed_everything
from bpsutils.evaluation import group_intervals
from bpsutils.images import PathLike, to_float, write_image
from bpsutils.metadata import build_metadata
from bpsutils.models import Backbone, freeze, make_model
from bpsutils.scan import fast_scan
from bpsutils.splits import group_ids
from bpsutils.training import balanced_accuracy
from bpsutils.transforms import Compose, HorizontalFlip, VerticalFlip

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Google trained EfficientNet-lite on (grey level - 127) / 128, see efficientnet_lite_builder.py in tensorflow/tpu
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
OTHER_SUFFIXES = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")


class Pretrained(NamedTuple):
    """A network with ImageNet weights, and the constants of the normalisation that these weights were trained with."""

    model: Backbone
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str


def pretrained_backbone(classes: Sequence[str], seed: int = 0) -> Pretrained:
    """An EfficientNet with ImageNet weights and a new head, for RGB images.

    EfficientNet-lite0 where its packages are installed; otherwise torchvision's EfficientNet-B0, whose weights are
    downloaded once.

    Args:
        classes: Names of our classes: the new head has one logit each.
        seed: Of the new head's first weights.

    Raises:
        RuntimeError: If neither can be had: random weights would look like pretrained ones, and be worthless.
    """
    config = Config(model="efficientnet_lite0", classes=tuple(classes), seed=seed)
    try:
        return Pretrained(_backbone(config), LITE_MEAN, LITE_STD, config.model)
    except ModuleNotFoundError as missing:
        config = Config(model="efficientnet_b0", classes=tuple(classes), seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # make_model warns, and goes on with random weights
            try:
                return Pretrained(_backbone(config), IMAGENET_MEAN, IMAGENET_STD, config.model)
            except UserWarning as unreachable:
                raise RuntimeError(
                    f"no pretrained weights: {missing}; or connect to a network, {unreachable}"
                ) from None


def _backbone(config: Config) -> Backbone:
    model = make_model(config, channels=3)
    assert isinstance(model, Backbone)  # tells the type checker what make_model knows by the name
    return model


def parts(model: nn.Module) -> dict[str, int]:
    """Number of weights of each part of a network, from the first part to the last.

    A part is a block of a numbered series, such as ``"layer4.1"``, or a layer outside of any, such as ``"fc"``.

    Example:
        >>> parts(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)))
        {'0': 8, '2': 6}
    """
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = re.match(r"(?:[^.]+\.)*?\d+(?=\.)|[^.]+", name)
        assert part is not None  # every name has a first word
        counts[part[0]] = counts.get(part[0], 0) + parameter.numel()
    return counts


def train_last(model: nn.Module, n: int) -> list[nn.Parameter]:
    """Freeze all but the last ``n`` `parts` of a network.

    Args:
        model: Changed in place.
        n: How many parts are trained; 1 is the head alone.

    Returns:
        The parameters that are trained: what an optimiser is to be given.

    Raises:
        ValueError: If there are not that many parts.
    """
    names = list(parts(model))
    if not 1 <= n <= len(names):
        raise ValueError(f"n must be from 1 to {len(names)}, the number of the network's parts, got {n}")
    freeze(model, [f"{name}." for name in names[-n:]])  # the dot: "blocks.1" would name "blocks.15" too
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@dataclass(frozen=True)
class ToRGB:
    """Bring an image to what networks for photographs take: three channels, float32 from 0 to 1.

    The range is that of the image's type, 255 or 65535. Grey is repeated; a fourth channel, opacity, is left out.

    Example:
        >>> ToRGB()(torch.tensor([[[0, 255]]], dtype=torch.uint8)).tolist()
        [[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]]
    """

    def __call__(self, image: Tensor) -> Tensor:
        """Whole numbers ``(C, H, W)`` of 8 or 16 bits in, ``(3, H, W)`` out.

        Raises:
            ValueError: If the image is of another type, or has no channel to take.
        """
        if image.dtype not in (torch.uint8, torch.uint16) or image.ndim != 3 or not 1 <= len(image) <= 4:
            raise ValueError(
                f"ToRGB takes uint8 or uint16 images with 1 to 4 channels, got {image.dtype} {tuple(image.shape)}"
            )
        scaled = to_float(image, (0, torch.iinfo(image.dtype).max))
        return scaled[:3] if len(image) > 2 else scaled[:1].expand(3, -1, -1)


@torch.no_grad()
def frozen_features(model: Backbone, batches: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """What a network hands to its head, for each image: computed once, because frozen weights do not change.

    Args:
        model: Set to evaluation mode and moved to the best device, otherwise left as it is.
        batches: From a loader with `bpsutils.bucketing.collate_fn_pad`; normalised RGB images.

    Returns:
        Shape ``(N, features)``, float32, in the order of the images' ``index``.
    """
    device = pick_device()
    found: dict[int, np.ndarray] = {}
    model.eval().to(device)
    head = model.net.get_submodule(model.head_name)
    caught: list[Tensor] = []
    hook = head.register_forward_hook(lambda _, inputs, __: caught.append(inputs[0].cpu()))
    try:
        for batch in batches:
            model(batch["images"].to(device))
            found.update(zip(batch["indices"].tolist(), caught.pop().numpy(), strict=True))
    finally:
        hook.remove()
    return np.stack([found[index] for index in sorted(found)])


def probe(
    features: np.ndarray, labels: Sequence[str], groups: Sequence[str], folds: int = 6, seed: int = 0
) -> tuple[np.ndarray, dict[str, float]]:
    """A linear classifier on features, judged on groups that it has not seen.

    The groups are dealt into folds; each fold is predicted by a logistic regression that was fitted to the others.

    Args:
        features: Shape ``(N, features)``.
        labels: Class of each image.
        groups: Group of each image; no group is on both sides.
        folds: Most folds; fewer if a class has fewer groups.
        seed: Deals the groups.

    Returns:
        The class predicted for each image; and ``balanced_accuracy`` with the ends of its 95 % interval over groups.

    Raises:
        ValueError: If there is one class only, or a class with one group only.
    """
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    deal = _deal(numbers, groups, folds, seed)
    predicted = cross_val_predict(classifier, features, numbers, groups=np.asarray(groups), cv=deal)
    return classes[predicted], _score(numbers, predicted, groups)


def finetune(
    batch: Mapping[str, Any], n: int, epochs: int, learning_rate: float = 1e-3, folds: int = 3, seed: int = 0
) -> dict[str, float]:
    """Train the last ``n`` parts of a pretrained network, judged on groups that it has not seen.

    Args:
        batch: All images, normalised and of one size, as `bpsutils.bucketing.collate_fn_pad` joins them.
        n: How many `parts` are trained; 1 is the head alone.
        epochs: Passes over the training images of each fold.
        learning_rate: Step size of AdamW.
        folds: Parts into which the groups are dealt; each is predicted by a network trained on the others.
        seed: Deals the groups, makes the new head, and orders the batches.

    Returns:
        ``balanced_accuracy`` over the out-of-fold predictions, with the ends of its 95 % interval over groups.
    """
    device, labels = pick_device(), batch["labels"].numpy()
    images, predicted = batch["images"].to(device), np.zeros_like(labels)
    for train, test in _deal(labels, batch["groups"], folds, seed).split(images.cpu(), labels, batch["groups"]):
        model = pretrained_backbone([str(number) for number in np.unique(labels)], seed).model.to(device)
        _train(
            model,
            images[train],
            batch["labels"][train].to(device),
            train_last(model.net, n),
            epochs,
            learning_rate,
            seed,
        )
        with torch.no_grad():
            predicted[test] = model.eval()(images[test]).argmax(1).cpu().numpy()
    return _score(labels, predicted, batch["groups"])


def _train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    parameters: list[nn.Parameter],
    epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """The loop of notebook 09, in batches of 8 with random flips."""
    seed_everything(seed)
    flips, optimizer = Compose([HorizontalFlip(), VerticalFlip()]), torch.optim.AdamW(parameters, lr=learning_rate)
    for _ in range(epochs):
        model.train()
        for chosen in torch.randperm(len(images)).split(8):  # type: ignore[no-untyped-call]
            loss = nn.functional.cross_entropy(model(flips(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _deal(labels: np.ndarray, groups: Sequence[str], folds: int, seed: int) -> StratifiedGroupKFold:
    counts = pd.Series(np.asarray(groups)).groupby(labels).nunique()
    if len(counts) < 2 or counts.min() < 2:
        raise ValueError(
            f"each of two or more classes needs images of two or more groups, got {counts.tolist()} groups"
        )
    return StratifiedGroupKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed)


def _score(labels: np.ndarray, predicted: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """Balanced accuracy, with the ends of its 95 % interval over groups."""

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {"balanced_accuracy": balanced_accuracy(labels[rows], predicted[rows])}

    return statistic(np.arange(len(labels))) | group_intervals(statistic, list(groups), labels)


def folder_table(folders: Mapping[str, PathLike], work_dir: PathLike, group: str | None = None) -> pd.DataFrame:
    r"""Table of the images in some folders, one folder a class.

    TIFF and PNG are read where they lie. JPEG, BMP, GIF and WebP are copied to PNG in ``work_dir`` first: what they
    have lost is lost, and no more.

    Args:
        folders: Name of each class and its folder, searched with everything below it.
        work_dir: For the index of each folder, and the copies.
        group: Regular expression with a group ``(?P<group>...)``, searched in the file name: images that share it
            (a patient, a slide) stay on one side of every split. Default: every file is its own group.

    Returns:
        As `bpsutils.metadata.build_metadata`, with the columns ``label`` and ``group``.

    Raises:
        FileNotFoundError: If a folder is not there or has no image.
        ValueError: If two classes share a folder.
    """
    if len({Path(folder).resolve() for folder in folders.values()}) < len(folders):
        raise ValueError(f"each class needs a folder of its own, got {dict(folders)}")
    tables = []
    for label, folder in folders.items():
        home = Path(work_dir) / label
        copies = _copy_to_png(Path(folder), home / "copies")
        for place in [folder] * bool(fast_scan(folder).files) + [copies] * bool(fast_scan(copies).files):
            index = home / f"{'copies' if place is copies else 'own'}.parquet"
            table = build_metadata(place, index, group or r"(?P<group>.+)")
            tables.append(table.assign(label=label))
        if not tables or tables[-1]["label"].iloc[0] != label:
            raise FileNotFoundError(f"no image files below {folder} for class {label!r}")
    table = pd.concat(tables, ignore_index=True)
    if group is None:
        table["group"] = table["path"]
    return table.assign(group=group_ids(table, "group"))


def _copy_to_png(folder: Path, out: Path) -> Path:
    """Copies of the images that `bpsutils.images.read_image` does not read, under the same names."""
    out.mkdir(parents=True, exist_ok=True)
    for file in fast_scan(folder, OTHER_SUFFIXES).files:
        inside = Path(file.path).relative_to(folder.resolve())
        target = out / inside.with_name(inside.name + ".png")
        if not target.exists():
            with Image.open(file.path) as image:
                write_image(target, np.asarray(image.convert("RGB")), software=f"copied from {inside.suffix}")
    return out
