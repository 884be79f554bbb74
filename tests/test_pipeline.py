"""The main job, end to end on the shipped simulated sample, through the command line as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bpsutils.__main__ import main
from bpsutils.config import SAMPLE_DIR, Config
from bpsutils.evaluation import evaluate
from bpsutils.images import write_image
from bpsutils.loaders import make_loaders
from bpsutils.metadata import load_table
from bpsutils.models import make_model
from bpsutils.pipeline import fit, run
from bpsutils.simulate import render
from bpsutils.splits import split_table
from bpsutils.training import load_checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The default run, whole: about a minute."""
    out = tmp_path_factory.mktemp("run") / "sample"
    assert main(["run", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def metrics(finished):
    return json.loads((finished / "metrics.json").read_text())


@pytest.fixture
def quick(tmp_path):
    """A configuration that trains in seconds: the road is the same, the result is worth nothing."""
    path = tmp_path / "quick.toml"
    Config(resize=32, epochs=4).to_toml(path)
    return path


def test_run_writes_everything_it_promises(finished):
    for name in (
        "metrics.json",
        "predictions.csv",
        "config.toml",
        "report.html",
        "index.parquet",
        "checkpoints/best.pt",
    ):
        assert (finished / name).stat().st_size > 0, name
    assert not list(finished.rglob("*.part"))


def test_held_out_mice_score_well_above_chance(metrics):
    assert metrics["balanced_accuracy"] >= 0.65
    assert metrics["balanced_accuracy_low"] > 0.55
    assert metrics["balanced_accuracy_low"] <= metrics["balanced_accuracy"] <= metrics["balanced_accuracy_high"]


def test_metrics_name_the_confounders_and_the_doubt(metrics):
    assert metrics["n_test"] >= 80
    assert metrics["simulated"] is True
    assert metrics["world_size"] == 1
    assert 0 <= metrics["background_balanced_accuracy"] <= 1
    assert 0 <= metrics["control_rate"] <= 1
    assert "unreliable" in metrics["note"]  # two test mice per particle


def test_split_holds_out_whole_mice(finished):
    config = Config.from_toml(finished / "config.toml")
    table = split_table(load_table(config), config)
    mice = table.groupby(["particle_type", "split"])["group"].nunique().unstack()
    assert mice.to_dict("index") == {p: {"train": 4, "val": 2, "test": 2} for p in ("Fe", "X-ray")}
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert (table["dose_Gy"] > 0).all()


def test_predictions_are_those_of_the_metrics(finished, metrics):
    predictions = pd.read_csv(finished / "predictions.csv")
    assert list(predictions.columns[:4]) == ["path", "group", "label", "prediction"]
    assert len(predictions) == metrics["n_test"]
    right = predictions["label"] == predictions["prediction"]
    assert right.groupby(predictions["label"]).mean().mean() == pytest.approx(metrics["balanced_accuracy"])


def test_report_is_one_page_that_says_simulated(finished):
    page = (finished / "report.html").read_text()
    assert "simulated" in page
    assert page.count("<img alt=") == 5
    assert 'src="http' not in page


def test_a_finished_run_is_left_alone(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(["run", "--out", str(finished)]) == 0
    assert "finished run" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def _without_foci(table, folder):
    """The same simulated nuclei, rendered again without foci; the table points at them."""
    truth = pd.read_csv(SAMPLE_DIR / "bps" / "truth.csv").set_index("filename", drop=False)
    changed = table.copy()
    for position, path in table["path"].items():
        name = Path(path).name
        write_image(folder / name, render(truth.loc[name], foci=False))
        changed.loc[position, "path"] = str(folder / name)
    return changed


def test_without_foci_the_model_falls_to_chance(finished, metrics, tmp_path):
    config = Config.from_toml(finished / "config.toml")
    table = split_table(load_table(config), config)
    test = _without_foci(table[table["split"] == "test"], tmp_path)
    loader = make_loaders(config, pd.concat([table[table["split"] != "test"], test], ignore_index=True))["test"]
    model = make_model(config)
    load_checkpoint(finished / "checkpoints" / "best.pt", model)
    blind = evaluate(model, loader, config).metrics
    assert abs(blind["balanced_accuracy"] - 0.5) < 0.12
    assert blind["balanced_accuracy"] < metrics["balanced_accuracy"] - 0.1


def test_shuffled_labels_stay_at_chance(tmp_path):
    """On average over shuffles: a single one can lean to a class by luck, and the foci then carry it to the test."""
    scores = []
    for seed in range(4):
        config = Config(out_dir=tmp_path / str(seed), resize=64, epochs=8)
        table = split_table(load_table(config), config)
        rng = np.random.default_rng(seed)
        for split in ("train", "val"):
            rows = table["split"] == split
            table.loc[rows, config.target] = rng.permutation(table.loc[rows, config.target].to_numpy())
        scores.append(fit(table, config).evaluation.metrics["balanced_accuracy"])
    assert abs(np.mean(scores) - 0.5) < 0.1, scores


def test_a_killed_run_resumes_to_the_same_result(quick, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "bpsutils", "run", "--config", str(quick), "--out", str(killed)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(killed.glob("checkpoints/epoch_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    subprocess.run([*command[:-1], str(whole)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (killed / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    weights = [torch.load(out / "checkpoints" / "best.pt", weights_only=True)["model"] for out in (killed, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_colour_images_in_three_places_run_too(tmp_path):
    slides = SAMPLE_DIR / "slides"
    places = {"image_dir": slides / "images", "labels": slides / "annotations" / "labels.csv", "out_dir": tmp_path}
    what = {"scheme": "slides", "stain": "h&e", "target": "label", "classes": ("benign", "malignant")}
    groups = {"group": ("case",), "irradiated_only": False, "value_range": (0, 255)}
    metrics = run(Config(**places, **what, **groups, resize=32, epochs=1, batch_size=8))
    assert 0 <= metrics["balanced_accuracy"] <= 1


def test_images_of_different_channels_are_not_mixed(tmp_path):
    table = pd.DataFrame({"channels": [1, 3, 3], "path": ["a", "b", "c"]})
    with pytest.raises(ValueError, match="2 of 3 channels, 1 of 1 channels"):
        fit(table, Config(out_dir=tmp_path))


def test_another_configuration_is_refused_not_mixed(finished, quick, capsys):
    assert main(["run", "--config", str(quick), "--out", str(finished)]) == 1
    error = capsys.readouterr().err
    assert "another configuration" in error
    assert "resize was None, is 32" in error


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["run", "--out", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_holds_only_what_was_prepared_is_used(quick, tmp_path):
    """As `python -m bpsutils pack --out` leaves it, also killed while it wrote a file."""
    (tmp_path / "out" / "images.pack").mkdir(parents=True)
    (tmp_path / "out" / ".0a1b2c.tmp").touch()
    Config(resize=16, epochs=1).to_toml(quick)
    assert main(["run", "--config", str(quick), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "metrics.json").exists()


def test_overwrite_removes_only_what_a_run_wrote(quick, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    Config(resize=16, epochs=1).to_toml(out / "config.toml")
    (out / "notes.txt").write_text("keep me")
    assert main(["run", "--config", str(quick), "--out", str(out), "--overwrite"]) == 0
    assert (out / "notes.txt").read_text() == "keep me"
    assert json.loads((out / "metrics.json").read_text())["n_test"] >= 80


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--config", "no/such.toml"], "no configuration file no/such.toml"),
    ],
)
def test_a_mistake_costs_one_clear_line(arguments, says, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert says in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
