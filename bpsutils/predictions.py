"""The stored table of out-of-fold predictions that notebook 10 draws from, and the command that rebuilds it.

Eight networks take turns: each is trained without one Fe mouse and one X-ray mouse, and then scores these two. So every
nucleus is scored by a network that never saw its mouse. Four experiments change one thing each, see `EXPERIMENTS`.
``python -m bpsutils predictions`` takes a few minutes on one core, and goes on where it was interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from bpsutils.config import SAMPLE_DIR, Config, atomically
from bpsutils.evaluation import background_features
from bpsutils.images import read_image, to_float
from bpsutils.metadata import load_table
from bpsutils.models import make_model
from bpsutils.samplers import HardExampleSampler
from bpsutils.simulate import render
from bpsutils.splits import group_ids
from bpsutils.training import class_weights, schedule
from bpsutils.transforms import Compose, HorizontalFlip, Resize, Standardise, VerticalFlip, transpose_batch

STORED = SAMPLE_DIR / "predictions" / "predictions.csv"
ENDING = "_proj.tif"  # of every file name, so the stored table does without: it travels with the course
FOLDS = 8
RECIPE = Config(resize=64, batch_size=8, learning_rate=1e-3, epochs=16, device="cpu")


@dataclass(frozen=True)
class Experiment:
    """One way to train the eight networks.

    Attributes:
        seeds: It is repeated with each of these.
        by_mouse: Hold out whole mice; otherwise nuclei are dealt out at random, which leaks.
        shuffle_labels: Train on the labels of other nuclei, drawn at random.
        standardise: Give each image mean 0 and spread 1; otherwise all images share one scale, and plates differ.
        hard_examples: Draw training nuclei by `bpsutils.samplers.HardExampleSampler`.
        controls: Score the held-out mice's 0 Gy nuclei too, and all of their nuclei as if on one plate.
    """

    seeds: tuple[int, ...] = (0,)
    by_mouse: bool = True
    shuffle_labels: bool = False
    standardise: bool = True
    hard_examples: bool = False
    controls: bool = False


EXPERIMENTS = {
    "mouse": Experiment(seeds=(0, 1), controls=True),
    "random": Experiment(seeds=(0, 1), by_mouse=False),
    "hard": Experiment(seeds=(0, 1), hard_examples=True),
    "shuffled": Experiment(seeds=(0, 1, 2), shuffle_labels=True),
    "brightness": Experiment(standardise=False, controls=True),
}


def load_predictions(path: Path = STORED) -> pd.DataFrame:
    """The stored table, one row for each nucleus that a network scored.

    Args:
        path: The CSV that `build` wrote.

    Returns:
        ``experiment`` (of `EXPERIMENTS`), ``seed``, ``fold``, ``path`` (file name), ``plate``, ``group`` (mouse),
        ``label``, ``dose_Gy``, ``hr_post_exposure``; ``score_Fe`` and ``score_X-ray`` from 0 to 1, ``prediction`` (the
        class of the higher score), and ``score_Fe_one_plate``: what the same network says to the same nucleus,
        simulated again without its plate's gain and offset (empty where ``controls`` is False or the seed above 0).

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no stored predictions at {path}; `python -m bpsutils predictions` makes them")
    table = pd.read_csv(path)
    table["path"] += ENDING
    table["plate"] = table["path"].str.split("_").str[0]
    table["score_X-ray"] = (1 - table["score_Fe"]).round(4)
    table["prediction"] = np.where(table["score_Fe"] > 0.5, "Fe", "X-ray")
    return table


def build(out: Path = STORED, parts: Path = Path("runs/predictions")) -> None:
    """Train all networks of `EXPERIMENTS` and write the table.

    Args:
        out: The CSV to write.
        parts: Folder that keeps each finished fold until the table is whole; the same call continues from it.
    """
    nuclei = load_nuclei()
    pieces = []
    for name, seed, fold in tqdm(list(_all_folds()), unit="fold"):
        part = parts / f"{name}_{seed}_{fold}.csv"
        if not part.exists():
            with atomically(part) as temporary:
                run_fold(nuclei, name, seed, fold).to_csv(temporary, index=False, lineterminator="\n")
        pieces.append(pd.read_csv(part))
    with atomically(out) as temporary:
        pd.concat(pieces).to_csv(temporary, index=False, lineterminator="\n")
    shutil.rmtree(parts)


def _all_folds() -> Iterator[tuple[str, int, int]]:
    for name, experiment in EXPERIMENTS.items():
        for seed in experiment.seeds:
            yield from ((name, seed, fold) for fold in range(FOLDS))


def load_nuclei() -> pd.DataFrame:
    """All nuclei of the simulated sample, with their ``group`` and the fold that holds out their mouse.

    Returns:
        The table of `bpsutils.metadata.load_table` with ``group`` and ``fold``: the number of a mouse among those of
        its branch, from 0 to 7.
    """
    table = load_table(RECIPE)
    table["group"] = group_ids(table, RECIPE.group)
    names = table.groupby("particle_type")["group"].unique()
    fold_of = {mouse: fold for mice in names for fold, mouse in enumerate(sorted(mice))}
    return table.assign(fold=table["group"].map(fold_of))


def background_predictions(nuclei: pd.DataFrame) -> pd.DataFrame:
    """What the background alone gives away, out of fold: logistic regression that never sees a nucleus.

    It learns from the irradiated nuclei of the other folds, as the networks do, and scores all of a fold's.

    Args:
        nuclei: From `load_nuclei`.

    Returns:
        ``nuclei`` with ``label``, ``score_Fe`` and ``prediction``.
    """
    features = np.stack([background_features(read_image(path)) for path in nuclei["path"]])
    fe, irradiated = (nuclei["particle_type"] == "Fe").to_numpy(), (nuclei["dose_Gy"] > 0).to_numpy()
    scores = np.empty(len(nuclei))
    for fold in range(FOLDS):
        held_out = (nuclei["fold"] == fold).to_numpy()
        train = irradiated & ~held_out
        # a small tolerance, so that every version of the solver ends at the same numbers
        classifier = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=1000)
        model = make_pipeline(StandardScaler(), classifier).fit(features[train], fe[train])
        scores[held_out] = model.predict_proba(features[held_out])[:, 1]
    prediction = np.where(scores > 0.5, "Fe", "X-ray")
    return nuclei.assign(label=nuclei["particle_type"], score_Fe=scores, prediction=prediction)


def run_fold(nuclei: pd.DataFrame, name: str, seed: int, fold: int) -> pd.DataFrame:
    """Train one network and let it score what it was not trained on. One thread, on the CPU, by the seed.

    Args:
        nuclei: From `load_nuclei`.
        name: Of `EXPERIMENTS`.
        seed: Decides initial weights, order, augmentation, and what else the experiment draws.
        fold: From 0 to 7.

    Returns:
        The rows of this fold, with the columns of the stored table.
    """
    experiment = EXPERIMENTS[name]
    rng = np.random.default_rng([seed, fold])
    irradiated = nuclei["dose_Gy"].to_numpy() > 0
    folds = nuclei["fold"].to_numpy() if experiment.by_mouse else _random_folds(nuclei, seed)
    train = np.flatnonzero(irradiated & (folds != fold))
    wanted = (folds == fold) & (irradiated | (experiment.controls and seed == 0))
    held_out = nuclei[wanted]
    labels = (nuclei["particle_type"] == "Fe").to_numpy(int)[train]
    labels = rng.permutation(labels) if experiment.shuffle_labels else labels
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads add up in another order than one
    try:
        images = [read_image(path) for path in nuclei["path"].iloc[train]]
        model = _train(_tensor(images, experiment), torch.from_numpy(labels), experiment, seed * FOLDS + fold)
        rows = _rows(model, held_out, experiment, controls=experiment.controls and seed == 0)
    finally:
        torch.set_num_threads(threads)
    for position, (column, value) in enumerate([("experiment", name), ("seed", seed), ("fold", fold)]):
        rows.insert(position, column, value)
    return rows


def _random_folds(nuclei: pd.DataFrame, seed: int) -> np.ndarray:
    """Deal the nuclei of each plate out to the folds, whichever mouse they come from."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(nuclei), int)
    for rows in nuclei.groupby("plate").indices.values():
        folds[rng.permutation(rows)] = (np.arange(len(rows)) + rng.integers(FOLDS)) % FOLDS
    return folds


def _tensor(images: list[np.ndarray], experiment: Experiment) -> torch.Tensor:
    """All images as one float tensor ``(N, 1, 64, 64)``, small enough to be kept in memory."""
    resize = Resize(RECIPE.resize or 64)
    pixels = torch.stack([resize(to_float(torch.from_numpy(image)[None])) for image in images])
    # one scale for all: a background of about 450 grey levels becomes 0, a nucleus of about 850 becomes 1
    return Standardise()(pixels) if experiment.standardise else (pixels * 65535 - 450) / 400


def _train(images: torch.Tensor, labels: torch.Tensor, experiment: Experiment, seed: int) -> nn.Module:
    """A network trained for a number of epochs that was fixed before; no score of any image chooses among them."""
    model = make_model(Config(seed=seed))
    weights = class_weights(labels.numpy(), RECIPE.classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE.learning_rate, weight_decay=RECIPE.weight_decay)
    hard = HardExampleSampler(len(images), seed)
    flip, size = Compose([HorizontalFlip(), VerticalFlip()]), RECIPE.batch_size
    steps = RECIPE.epochs * (len(images) // size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, steps))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for epoch in range(RECIPE.epochs):
            hard.set_epoch(epoch)
            order = torch.tensor(list(hard)) if experiment.hard_examples else torch.randperm(len(images))
            for batch in order[: len(order) // size * size].reshape(-1, size):
                pixels, _ = transpose_batch(flip(images[batch]))
                losses = cross_entropy(model(pixels), labels[batch], weights, reduction="none")
                optimizer.zero_grad()
                torch.autograd.backward(losses.mean())
                optimizer.step()
                scheduler.step()
                hard.update(batch, losses.detach())
    return model.eval()


def _rows(model: nn.Module, held_out: pd.DataFrame, experiment: Experiment, controls: bool) -> pd.DataFrame:
    columns = ["group", "particle_type", "dose_Gy", "hr_post_exposure"]
    rows = held_out[columns].rename(columns={"particle_type": "label"}).reset_index(drop=True)
    names = [Path(path).name for path in held_out["path"]]
    rows.insert(0, "path", [name.removesuffix(ENDING) for name in names])
    rows["score_Fe"] = _scores(model, _tensor([read_image(path) for path in held_out["path"]], experiment))
    rows["score_Fe_one_plate"] = float("nan")
    if controls:
        rows["score_Fe_one_plate"] = _scores(model, _tensor(_on_one_plate(names), experiment))
    return rows


@torch.no_grad()
def _scores(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    scores: np.ndarray = torch.softmax(model(images).double(), dim=1)[:, 1].numpy().round(4)
    return scores


def _on_one_plate(names: list[str]) -> list[np.ndarray]:
    """The same nuclei, simulated again as if all plates had the same gain and offset."""
    truth = pd.read_csv(SAMPLE_DIR / "bps" / "truth.csv", dtype={"barcode": str, "field": str, "nucleus": str})
    rows = truth.set_index("filename", drop=False).loc[names].assign(gain=1.0, offset=0.0)
    return [render(row) for row in rows.to_dict("records")]
