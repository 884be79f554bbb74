"""The whole road in one call: scan, metadata, split, loaders, train, evaluate (notebook 00)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from bpsutils.config import SPLITS, Config, atomically
from bpsutils.datasets import rank_and_world_size
from bpsutils.device import seed_everything
from bpsutils.distributed import announce, from_rank_0, is_first
from bpsutils.evaluation import Evaluation, background_baseline, control_rates, evaluate
from bpsutils.loaders import make_loaders
from bpsutils.metadata import load_table
from bpsutils.models import make_model
from bpsutils.report import write_report
from bpsutils.splits import split_table
from bpsutils.training import FREE_TO_CHANGE, load_checkpoint, train

# what may lie in a folder before its run: the index, and the packed images
PREPARED = ("index.parquet", "images.pack")
OUTPUTS = ("config.toml", *PREPARED, "metrics.json", "predictions.csv", "report.html", "checkpoints")


@dataclasses.dataclass(frozen=True)
class Fit:
    """What training leaves behind.

    Attributes:
        model: The network with the weights of its best epoch.
        history: One row an epoch, see `bpsutils.training.train`.
        evaluation: The best weights on the test split.
    """

    model: nn.Module
    history: pd.DataFrame
    evaluation: Evaluation


def fit(table: pd.DataFrame, config: Config, *, resume: bool = False) -> Fit:
    """Train on the table's train split, choose by its val split, evaluate once on its test split.

    Args:
        table: Rows with ``path``, ``group``, ``split`` and the target, from `bpsutils.splits.split_table`.
        config: The experiment.
        resume: Continue from the newest checkpoint in ``config.out_dir``.
    """
    channels = _channels(table)
    seed_everything(config.seed)
    loaders = make_loaders(config, table)
    # training gives every rank the first weights of rank 0, so only that one needs to fetch pretrained ones
    model = make_model(config if is_first() else dataclasses.replace(config, pretrained=False), channels)
    history = train(model, loaders, config, resume=resume)
    load_checkpoint(config.out_dir / "checkpoints" / "best.pt", model)
    return Fit(model, history, evaluate(model, loaders["test"], config))


def _channels(table: pd.DataFrame) -> int:
    """Channels of every image; a network takes one number of them."""
    counts = table["channels"].value_counts() if "channels" in table else pd.Series({1: len(table)})
    if len(counts) > 1:
        found = ", ".join(f"{count:,} of {channels} channels" for channels, count in counts.items())
        raise ValueError(f"the table mixes images of different channels ({found}); keep one kind and split it again")
    return int(counts.index[0])


def run(config: Config, *, overwrite: bool = False) -> dict[str, Any]:
    """Scan, split, train and evaluate; write everything into ``config.out_dir``.

    An interrupted run is resumed by the same call. A finished one is left alone, and its metrics are returned.
    Where torchrun started several ranks, all of them call it; rank 0 reads the folder and writes the results.

    Args:
        config: The experiment.
        overwrite: Remove what an earlier run left in ``config.out_dir`` and start again.

    Returns:
        The content of ``metrics.json``.

    Raises:
        FileExistsError: If ``config.out_dir`` holds something else, or a run with another configuration.
    """
    finished, resume = from_rank_0(lambda: _open_out_dir(config, overwrite))
    if finished is not None:
        return finished
    start = time.perf_counter()
    everything, table = from_rank_0(lambda: _tables(config))
    announce("[3/4] train" + (" (resumed)" if resume else ""))
    fitted = fit(table, config, resume=resume)
    announce("[4/4] evaluate")
    metrics = _metrics(fitted, table, everything, config)
    metrics["seconds"] = round(time.perf_counter() - start, 1)
    from_rank_0(lambda: _write(fitted, table, metrics, config))
    return metrics


def summary(metrics: dict[str, Any], config: Config) -> str:
    """The short table that ends a run."""

    def interval(name: str) -> str:
        return f"{metrics[name]:.3f}  [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"

    rows = [
        ("balanced accuracy, held-out groups", interval("balanced_accuracy")),
        ("ROC AUC", interval("roc_auc")),
        ("images: train / val / test", " / ".join(str(metrics[f"n_{split}"]) for split in SPLITS)),
        ("groups: train / val / test", " / ".join(str(metrics[f"groups_{split}"]) for split in SPLITS)),
    ]
    if "background_balanced_accuracy" in metrics:
        rows.append(("seeing background pixels only", interval("background_balanced_accuracy")))
    if "control_rate" in metrics:
        rows.append((f"{config.classes[-1]} rate on 0 Gy controls", f"{metrics['control_rate']:.3f}"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    kind = "SIMULATED images" if metrics["simulated"] else "real images"
    lines += [f"{kind}; 95 % intervals in brackets. {metrics['note']}".rstrip(), f"written to {config.out_dir}"]
    return "\n".join(lines)


def _open_out_dir(config: Config, overwrite: bool) -> tuple[dict[str, Any] | None, bool]:
    """Make ``out_dir`` ready; return the metrics of a finished run, and whether there is one to resume."""
    out = config.out_dir
    if overwrite:
        _remove_outputs(out)
    if (out / "config.toml").exists():
        _check_same_run(config)
        if not (out / "metrics.json").exists():
            return None, (out / "checkpoints").exists()
        print(f"{out} holds a finished run; --overwrite starts it again")
        return dict(json.loads((out / "metrics.json").read_text(encoding="utf-8"))), False
    # what `atomically` was killed over is no reason to refuse to go on
    held = {path.name for path in out.iterdir() if not path.match(".*.tmp")} if out.exists() else set()
    if not overwrite and held - set(PREPARED):
        raise FileExistsError(f"{out} is not empty and holds no run; choose another --out, nothing was changed")
    config.to_toml(out / "config.toml")
    return None, False


def _tables(config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All images, and those of the experiment with their splits."""
    print(f"[1/4] scan {config.image_dir}")
    everything = load_table(config)
    print(f"[2/4] split {len(everything)} images")
    table = split_table(everything, config)
    print(_counts(table, config).to_string())
    return everything, table


def _check_same_run(config: Config) -> None:
    """Two experiments in one folder would mix their results."""
    old = Config.from_toml(config.out_dir / "config.toml")
    # a checkpoint may be taken to moved images, but what lies in this folder came from those it names
    free = set(FREE_TO_CHANGE) - {"image_dir", "meta", "labels"}
    names = [field.name for field in dataclasses.fields(Config) if field.name not in free]
    changed = [
        f"{n} was {getattr(old, n)}, is {getattr(config, n)}" for n in names if getattr(old, n) != getattr(config, n)
    ]
    if changed:
        raise FileExistsError(
            f"{config.out_dir} holds a run with another configuration ({'; '.join(changed)}); "
            "choose another --out, or --overwrite to lose it"
        )


def _remove_outputs(out: Path) -> None:
    """Remove what a run writes, and nothing else that may lie beside it."""
    for name in OUTPUTS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _counts(table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Images per split and class."""
    return pd.crosstab(table["split"], table[config.target]).reindex(list(SPLITS), fill_value=0)


def _metrics(fitted: Fit, table: pd.DataFrame, everything: pd.DataFrame, config: Config) -> dict[str, Any]:
    """All numbers of a run, flat."""
    metrics: dict[str, Any] = dict(fitted.evaluation.metrics)
    metrics["note"] = fitted.evaluation.note
    _, metrics["world_size"] = rank_and_world_size()
    metrics["simulated"] = bool(table["simulated"].any())
    for split in SPLITS:
        rows = table[table["split"] == split]
        metrics[f"n_{split}"], metrics[f"groups_{split}"] = len(rows), int(rows["group"].nunique())
    background = from_rank_0(lambda: background_baseline(table, config))
    metrics |= {f"background_{name}": value for name, value in background.items()}
    if "dose_Gy" in everything and config.irradiated_only:
        metrics |= control_rates(fitted.model, everything, table, config)
    return metrics


def _write(fitted: Fit, table: pd.DataFrame, metrics: dict[str, Any], config: Config) -> None:
    """Results, each under its final name only when whole; ``metrics.json`` last, for it marks a finished run."""
    out = config.out_dir
    with atomically(out / "predictions.csv") as temporary:
        fitted.evaluation.predictions.to_csv(temporary, index=False)
    with atomically(out / "report.html") as temporary:
        write_report(temporary, table, fitted.history, fitted.evaluation, metrics, config)
    with atomically(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
