"""How good a model is, how sure that is, and what else could explain it (notebook 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import BatchSampler, DataLoader
from tqdm.auto import tqdm

from bpsutils.bucketing import collate_fn_pad
from bpsutils.config import Config
from bpsutils.datasets import ImageDataset
from bpsutils.device import pick_device
from bpsutils.distributed import gather, is_first
from bpsutils.images import read_image, to_float
from bpsutils.samplers import DistributedBatches
from bpsutils.splits import group_ids
from bpsutils.training import balanced_accuracy, forward_all
from bpsutils.transforms import eval_transform

FEW_GROUPS = 5


@dataclass(frozen=True)
class Evaluation:
    """What a model does on images it was not trained on.

    Attributes:
        metrics: ``accuracy``, ``balanced_accuracy`` and ``roc_auc``, each with the ends of its 95 % interval
            (``accuracy_low``, ``accuracy_high``, …), and ``precision_Fe``, ``recall_Fe``, ``f1_Fe``, … for each class.
        confusion: Images by true class (rows) and predicted class (columns).
        per_class: ``precision``, ``recall``, ``f1`` and number of ``images``, one row a class.
        predictions: One row an image, see `predict`.
        note: What to keep in mind about the numbers; empty if nothing.
    """

    metrics: dict[str, float]
    confusion: pd.DataFrame
    per_class: pd.DataFrame
    predictions: pd.DataFrame
    note: str


def predict(model: nn.Module, loader: Any, config: Config) -> pd.DataFrame:
    """Class and scores that a model gives to each image of a loader.

    Args:
        model: Moved to the device of ``config``.
        loader: One of `bpsutils.loaders.make_loaders`.
        config: Names the classes.

    Returns:
        One row an image, by path: ``path``, ``group``, ``label`` (its class), ``prediction`` (the class with the
        highest score), and ``score_<class>`` for each class, from 0 to 1, which add up to 1. Without ``label`` where
        the loader has none. Several ranks predict their shares of the images, and each gets the whole table.

    Raises:
        ValueError: If the loader is empty.
    """
    model.to(pick_device(config.device))
    bar = tqdm(loader, desc="predict", unit="batch", leave=False, disable=not is_first())
    tables = [_rows(batch, logits, config.classes) for batch, logits in forward_all(model, bar, config)]
    if not tables:
        raise ValueError("the loader has no images to predict; check the split and the filters of Config")
    table = pd.concat([part for tables_of_rank in gather(tables) for part in tables_of_rank])
    # a last batch smaller than the number of ranks was dealt round again; such a repeat does not count
    table = table[~table.index.duplicated()]
    return table.sort_values("path", kind="stable", ignore_index=True)


def _rows(batch: Any, logits: torch.Tensor, classes: tuple[str, ...]) -> pd.DataFrame:
    scores = torch.softmax(logits.double(), dim=1).numpy()
    names = np.array(classes)
    table = {"path": batch["paths"], "group": batch["groups"]}
    if "labels" in batch:
        table["label"] = names[batch["labels"].cpu().numpy()]
    table["prediction"] = names[scores.argmax(1)]
    table |= {f"score_{name}": scores[:, number] for number, name in enumerate(classes)}
    return pd.DataFrame(table, index=batch["indices"].cpu().numpy())


def evaluate(model: nn.Module, loader: Any, config: Config) -> Evaluation:
    """Measure a model on images it was not trained on.

    Args:
        model: Trained on groups that ``loader`` does not hold.
        loader: ``make_loaders(config)["test"]``, or the ``"val"`` one.
        config: The experiment.

    Raises:
        ValueError: If the images are of one class only, or there are none.
    """
    predictions = predict(model, loader, config)
    classes = config.classes
    labels = _numbers(predictions["label"], classes)
    if len(np.unique(labels)) < 2:
        only = ", ".join(predictions["label"].unique())
        raise ValueError(f"all {len(labels)} images are of class {only}; accuracy by class needs two or more")
    scores = predictions[[f"score_{name}" for name in classes]].to_numpy()

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return _statistics(labels[rows], scores[rows])

    everything = np.arange(len(labels))
    intervals = group_intervals(statistic, predictions["group"], labels)
    per_class = _per_class(labels, scores.argmax(1), classes)
    metrics = statistic(everything) | intervals
    metrics |= {f"{name}_{c}": float(per_class.loc[c, name]) for c in classes for name in ("precision", "recall", "f1")}
    confusion = confusion_matrix(labels, scores.argmax(1), labels=range(len(classes)))
    table = pd.DataFrame(confusion, pd.Index(classes, name="true"), pd.Index(classes, name="predicted"))
    return Evaluation(metrics, table, per_class, predictions, _note(predictions, classes))


def group_intervals(
    statistic: Callable[[np.ndarray], dict[str, float]],
    groups: Sequence[str] | pd.Series,
    labels: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """95 % intervals by the percentile bootstrap over groups.

    Images of one mouse are alike, so the number of mice, not that of images, says how sure a result is. Groups are
    drawn with replacement, as many as there are, within each class: a resample always holds every class. A group with
    images of several classes counts to its most frequent one.

    Args:
        statistic: From row numbers, in which a row may come more than once, to named numbers.
        groups: Group of each row, shape ``(N,)``.
        labels: Class number of each row, shape ``(N,)``.
        resamples: How many times groups are drawn.
        seed: Same seed, same draws.

    Returns:
        ``<name>_low`` and ``<name>_high`` for each number that ``statistic`` returns.

    Example:
        >>> values = np.array([0.0, 0.0, 1.0, 1.0])
        >>> mean = lambda rows: {"mean": float(values[rows].mean())}
        >>> group_intervals(mean, ["a", "a", "b", "b"], np.zeros(4, int))
        {'mean_low': 0.0, 'mean_high': 1.0}
    """
    rng = np.random.default_rng(seed)
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(number == group) for group in range(len(names))]
    branch = np.array([np.bincount(labels[own]).argmax() for own in rows])
    branches = [np.flatnonzero(branch == label) for label in np.unique(branch)]
    drawn = []
    for _ in range(resamples):
        chosen = np.concatenate([rng.choice(members, len(members)) for members in branches])
        drawn.append(statistic(np.concatenate([rows[group] for group in chosen])))
    table = pd.DataFrame(drawn)
    low, high = table.quantile(0.025), table.quantile(0.975)
    return {f"{name}_{end}": float(value[name]) for name in table for end, value in (("low", low), ("high", high))}


def score_interval(
    predictions: pd.DataFrame, groups: str = "group", scores: str = "score_Fe", threshold: float = 0.5
) -> dict[str, float]:
    """Balanced accuracy of stored predictions, with its 95 % interval.

    Args:
        predictions: ``label``, and the columns named by the next two; see `bpsutils.predictions.load_predictions`.
        groups: Column with what is drawn: ``"group"`` draws mice, ``"path"`` single images.
        scores: Column with the score for Fe.
        threshold: Images with a score above it are called Fe.

    Returns:
        ``value``, ``value_low``, ``value_high``. Of rows of one class only, ``value`` is the share that is right.

    Example:
        >>> table = pd.DataFrame({"group": ["a", "b"], "label": ["Fe", "X-ray"], "score_Fe": [0.8, 0.7]})
        >>> score_interval(table)
        {'value': 0.5, 'value_low': 0.5, 'value_high': 0.5}
    """
    fe = (predictions["label"] == "Fe").to_numpy(int)
    called = (predictions[scores] > threshold).to_numpy(int)

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {"value": balanced_accuracy(fe[rows], called[rows])}

    return statistic(np.arange(len(fe))) | group_intervals(statistic, predictions[groups], fe)


def paired_gain(new: pd.DataFrame, old: pd.DataFrame) -> dict[str, float]:
    """How much higher the balanced accuracy of ``new`` is, compared image by image, with its 95 % interval by group.

    Two models that were scored on the same images share what is hard about them. Differences within an image leave
    that out, so their interval is narrower than what two separate intervals suggest.

    Args:
        new: ``path``, ``group``, ``label``, ``prediction``; an image may come several times, once for each seed.
        old: The same images.

    Returns:
        ``value``, ``value_low``, ``value_high``.

    Raises:
        ValueError: If the two do not hold the same images.

    Example:
        >>> old = pd.DataFrame({"path": ["1", "2"], "group": ["a", "b"], "label": ["Fe", "X-ray"], "prediction": "Fe"})
        >>> paired_gain(old.assign(prediction=["Fe", "X-ray"]), old)
        {'value': 0.5, 'value_low': 0.5, 'value_high': 0.5}
    """
    images = old.drop_duplicates("path").set_index("path").sort_index()
    right, before = ((t["prediction"] == t["label"]).groupby(t["path"]).mean().sort_index() for t in (new, old))
    if not right.index.equals(before.index):
        raise ValueError(f"new has {len(right)} images and old {len(before)}, not the same ones; a pair needs both")
    gain, labels = (right - before).to_numpy(), (images["label"] == "Fe").to_numpy(int)

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {"value": float(np.mean([gain[rows][labels[rows] == c].mean() for c in np.unique(labels)]))}

    return statistic(np.arange(len(gain))) | group_intervals(statistic, images["group"], labels)


def background_baseline(table: pd.DataFrame, config: Config) -> dict[str, float]:
    """What the background alone gives away: a classifier that never sees a nucleus.

    A plate holds one condition, so its brightness names the particle. Logistic regression on the mean, spread and
    percentiles of the background's grey levels learns the train split and is scored on the test split, as a model is.

    Args:
        table: From `bpsutils.splits.split_table`: ``path``, ``group``, ``split`` and the target.
        config: The experiment.

    Returns:
        ``balanced_accuracy`` with the ends of its interval, see `group_intervals`.

    Raises:
        ValueError: If the train split or the test split has fewer than two classes.
    """
    parts = {}
    low, high = config.value_range
    for split in ("train", "test"):
        rows = table[table["split"] == split]
        if rows[config.target].nunique() < 2:
            raise ValueError(f"the {split} split needs images of two classes of {config.target} for a baseline")
        features = np.stack([background_features(read_image(path), (low, high)) for path in rows["path"]])
        parts[split] = features, _numbers(rows[config.target], config.classes), rows["group"]
    features, labels, _ = parts["train"]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    classifier.fit(features, labels)
    features, labels, groups = parts["test"]
    predicted = classifier.predict(features)

    def statistic(rows: np.ndarray) -> dict[str, float]:
        return {"balanced_accuracy": balanced_accuracy(labels[rows], predicted[rows])}

    return statistic(np.arange(len(labels))) | group_intervals(statistic, groups, labels)


def background_features(
    image: np.ndarray, value_range: tuple[float, float] = (0, 65535), distance: int = 8
) -> np.ndarray:
    """Mean, standard deviation and percentiles 5, 25, 50, 75, 95 of the pixels far from anything bright.

    Args:
        image: Grey levels, shape ``(H, W)`` or ``(H, W, C)``; channels are averaged.
        value_range: See `bpsutils.images.to_float`.
        distance: How far from a pixel above Otsu's threshold the background begins, in pixels along each side. Nuclei
            fade out over several pixels, so the edge of a nucleus is no background.

    Returns:
        Shape ``(7,)``. Of an image without background, such as a crop inside a nucleus: of its darkest twentieth.

    Example:
        >>> image = np.full((40, 40), 400, np.uint16)
        >>> image[15:25, 15:25] = 900
        >>> background_features(image, (0, 1000)).round(3).tolist()
        [0.4, 0.0, 0.4, 0.4, 0.4, 0.4, 0.4]
    """
    levels = np.asarray(to_float(image, value_range))
    levels = levels.mean(2) if levels.ndim == 3 else levels
    bright = torch.from_numpy((levels > otsu_threshold(levels)).astype(np.float32))
    near = torch.nn.functional.max_pool2d(bright[None, None], 2 * distance + 1, stride=1, padding=distance)[0, 0] > 0
    background = levels[~near.numpy()]
    if background.size < levels.size / 100:
        background = levels[levels <= np.percentile(levels, 5)]
    return np.array([background.mean(), background.std(), *np.percentile(background, [5, 25, 50, 75, 95])])


def otsu_threshold(levels: np.ndarray, bins: int = 256) -> float:
    """The level that splits pixels into dark and bright with the largest variance between the two (Otsu 1979).

    Source: https://doi.org/10.1109/TSMC.1979.4310076.

    Args:
        levels: Any shape.
        bins: Of the histogram from the smallest to the largest level.

    Example:
        >>> 1.0 < otsu_threshold(np.array([0.0, 1.0, 0.5, 8.0, 9.0, 8.5])) < 8.0
        True
    """
    counts, edges = np.histogram(levels, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    dark = counts.cumsum()[:-1]
    bright = counts.sum() - dark
    total = (counts * centres).cumsum()
    difference = total[:-1] / np.maximum(dark, 1) - (total[-1] - total[:-1]) / np.maximum(bright, 1)
    return float(edges[1:-1][np.argmax(dark * bright * difference**2)])


def control_rates(model: nn.Module, everything: pd.DataFrame, table: pd.DataFrame, config: Config) -> dict[str, float]:
    """How often a model sees the last class in nuclei that were not irradiated, of mice it never saw.

    At 0 Gy the particle is only the name of a branch. A model that sees foci gives both branches the same rate; one
    that sees plates or mice gives them different ones.

    Args:
        model: Trained on the train split of ``table``.
        everything: All images, from `bpsutils.metadata.load_table`: ``path``, ``dose_Gy`` and the columns of the group.
        table: From `bpsutils.splits.split_table`: its ``group`` and ``split`` say which groups are held out.
        config: The experiment.

    Returns:
        ``control_rate``, ``control_rate_<class>`` for each branch, and ``n_control``, the number of images. Empty if
        the held-out groups have no images at 0 Gy.
    """
    controls = everything[(everything["dose_Gy"] == 0) & everything[config.target].isin(config.classes)]
    held_out = table.loc[table["split"] == "test", "group"]
    controls = controls[group_ids(controls, config.group).isin(held_out)]
    if controls.empty:
        return {}
    dataset = ImageDataset(controls, eval_transform(config), config.target, config.classes, group=config.group)
    batches = BatchSampler(range(len(dataset)), config.batch_size, drop_last=False)
    loader = DataLoader(dataset, batch_sampler=DistributedBatches(batches), collate_fn=collate_fn_pad)
    predictions = predict(model, loader, config)
    last = predictions["prediction"] == config.classes[-1]
    by_branch = last.groupby(predictions["label"]).mean()
    rates = {f"control_rate_{name}": float(rate) for name, rate in by_branch.items()}
    return {"control_rate": float(last.mean()), **rates, "n_control": len(last)}


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: how often an image of a class has a higher score for it than one of another class.

    Ties count half. The mean over the classes in ``labels``, each against the rest; for two classes both are the same.
    It is scikit-learn's ``roc_auc_score``, written out because intervals need it a thousand times.

    Args:
        labels: Class numbers, at least two different ones, shape ``(N,)``.
        scores: Of each class, shape ``(N, n_classes)``.

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
        >>> roc_auc(np.array([0, 0, 1, 1]), scores)
        0.75
    """
    areas = []
    for c in np.unique(labels):
        own, others = scores[labels == c, c], np.sort(scores[labels != c, c])
        below = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
        areas.append(below.mean() / (2 * len(others)))
    return float(np.mean(areas))


def _numbers(labels: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    numbers: np.ndarray = pd.Index(classes).get_indexer(labels.astype(str))
    return numbers


def _statistics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Numbers that get an interval."""
    predicted = scores.argmax(1)
    return {
        "accuracy": float((labels == predicted).mean()),
        "balanced_accuracy": balanced_accuracy(labels, predicted),
        "roc_auc": roc_auc(labels, scores),
    }


def _per_class(labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    columns = precision_recall_fscore_support(labels, predicted, labels=range(len(classes)), zero_division=0)
    return pd.DataFrame(dict(zip(("precision", "recall", "f1", "images"), columns, strict=True)), index=list(classes))


def _note(predictions: pd.DataFrame, classes: tuple[str, ...]) -> str:
    """Two mice cannot say how much mice differ."""
    counts = predictions.groupby("label")["group"].nunique().reindex(list(classes), fill_value=0)
    few = [f"{count} of {name}" for name, count in counts.items() if count < FEW_GROUPS]
    if not few:
        return ""
    return f"Intervals are unreliable: fewer than {FEW_GROUPS} groups of a class were held out ({', '.join(few)})."
