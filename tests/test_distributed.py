"""Several ranks on this machine's cores, started by torchrun as a user starts them."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import together
import torch
from torch import nn
from torch.utils.data import DataLoader

from bpsutils import distributed
from bpsutils.config import Config
from bpsutils.device import usable_cores
from bpsutils.distributed import divisor, from_rank_0, gather_images, with_totals
from bpsutils.evaluation import evaluate
from bpsutils.loaders import make_loaders
from bpsutils.models import make_model
from bpsutils.training import load_checkpoint, schedule


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def two(folder):
    """What two ranks found."""
    together.stops(folder / "one_then_two")
    done = torchrun(Path(together.__file__), "everything", folder)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt", weights_only=False)


@pytest.fixture(scope="module", params=[24, 23, 17])
def pair(request, two, tmp_path_factory):
    """The same run on two ranks and on one; of 23 images the last shares differ by one, of 17 one rank has none."""
    folder = tmp_path_factory.mktemp("alone")
    return two[str(request.param)], together.trains(folder, request.param), request.param


def test_two_ranks_lose_what_one_loses(pair):
    two, one, _ = pair
    for row, expected in zip(two["history"], one["history"], strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_two_ranks_learn_what_one_learns(pair):
    two, one, _ = pair
    for name, weights in one["weights"][0].items():
        torch.testing.assert_close(two["weights"][0][name], weights, rtol=1e-3, atol=1e-4)


def test_every_rank_holds_the_same_weights_under_their_own_names(pair):
    first, second = pair[0]["weights"]
    assert set(first) == set(make_model(Config()).state_dict())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_every_image_comes_once_an_epoch_and_steps_are_equal(pair):
    two, _, n = pair
    for epoch in (1, 2):
        shares = [[index for e, index in seen if e == epoch] for seen in two["seen"]]
        assert sorted(set(sum(shares, []))) == list(range(n))
        # of 17 images, 8, 8 and 1 a step: the second rank is dealt the last one, too
        assert len(sum(shares, [])) == n + (n == 17)


def test_predictions_are_gathered_whole_and_once(pair):
    two, one, n = pair
    assert two["predictions"][0] == two["predictions"][1]
    assert [row["path"] for row in two["predictions"][0]] == [f"{index:03d}" for index in range(n)]
    scores = [[row["score_Fe"] for row in found["predictions"][0]] for found in (two, one)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def rates(steps):
    """At the ends of four epochs of so many steps each."""
    return [Config().learning_rate * schedule(epoch * steps, 4 * steps) for epoch in (1, 2, 3, 4)]


def test_a_run_goes_on_with_fewer_ranks(two, folder):
    """17 images are 3 steps of 8, and 5 of 4."""
    with pytest.warns(UserWarning, match=r"2 ranks, which goes on with 1: batches are of 4 .* has 20 steps, not 12"):
        history = together.resumes(folder / "two_then_one")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["learning_rate"] for row in history] == pytest.approx([*rates(3)[:2], *rates(5)[2:]])


def test_a_run_goes_on_with_more_ranks(two, folder):
    history = two["one_then_two"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["learning_rate"] for row in history] == pytest.approx([*rates(5)[:2], *rates(3)[2:]])
    saved = torch.load(folder / "one_then_two" / "checkpoints" / "epoch_0004.pt", weights_only=True)
    assert (saved["world_size"], saved["steps"], saved["images"]) == (2, 12, 17)


def test_only_rank_0_is_asked(two):
    assert two["asked"] == [0, 0]


def test_ranks_share_the_cores(two):
    assert two["threads"] == 2 * [max(1, usable_cores() // 2)]
    assert two["devices"] == 2 * ["cpu"]


def test_a_rank_that_dies_ends_the_job_with_its_traceback(tmp_path):
    start = time.monotonic()
    done = torchrun(Path(together.__file__), "dies", tmp_path)
    assert done.returncode != 0
    assert time.monotonic() - start < 100  # the others wait for it, and would do so for half an hour
    assert "rank      : 1" in done.stderr.split("Root Cause")[1]
    assert "together.py" in done.stderr
    assert done.stderr.count("OSError: the disk is gone") == 1
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["best.pt", "epoch_0001.pt"]


@pytest.fixture(scope="module")
def run_by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    Config(resize=16, epochs=1, batch_size=8, device="cpu").to_toml(folder / "quick.toml")
    done = torchrun("-m", "bpsutils", "run", "--config", folder / "quick.toml", "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_the_command_line_runs_on_two_ranks_and_says_everything_once(run_by_two):
    out, printed = run_by_two
    assert printed.count("[1/4] scan") == printed.count("[4/4] evaluate") == printed.count("written to") == 1
    assert {"metrics.json", "predictions.csv", "report.html", "index.parquet"} <= {path.name for path in out.iterdir()}
    assert not list(out.rglob("*.tmp"))


def test_metrics_of_two_ranks_are_those_of_one_with_the_same_weights(run_by_two):
    out, _ = run_by_two
    config = Config.from_toml(out / "config.toml")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["world_size"] == 2
    model = make_model(config)
    load_checkpoint(out / "checkpoints" / "best.pt", model)
    alone = evaluate(model, make_loaders(config)["test"], config).metrics
    assert {name: metrics[name] for name in alone} == pytest.approx(alone, abs=1e-6)


def test_a_mistake_is_told_once(tmp_path):
    done = torchrun("-m", "bpsutils", "run", "--config", "no/such.toml", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert done.stderr.count("FileNotFoundError: no configuration file no/such.toml") == 1


# -- pieces, with a rank made up ---------------------------------------------------------------------------------------


def pretend(monkeypatch, rank, world_size):
    monkeypatch.setattr(distributed, "rank_and_world_size", lambda: (rank, world_size))


@pytest.mark.parametrize(("rank", "total", "expected"), [(0, 8, 2), (3, 5, 1.25), (1, 1, math.inf), (0, 1, 0.25)])
def test_a_repeat_is_divided_away(monkeypatch, rank, total, expected):
    pretend(monkeypatch, rank, 4)
    assert divisor(total, total) == expected


def test_loaders_that_do_not_deal_are_refused(monkeypatch):
    pretend(monkeypatch, 0, 2)
    loader = DataLoader([{"images": 1}], batch_size=1)
    with pytest.raises(ValueError, match="cannot share the batches of a BatchSampler; make the loaders with make_load"):
        next(with_totals(loader))


def test_images_of_several_ranks_count_once(monkeypatch):
    parts = [(torch.tensor([4, 0]), torch.tensor([0.4, 0.0])), (torch.tensor([2, 4]), torch.tensor([0.2, 0.4]))]
    monkeypatch.setattr(distributed, "gather", lambda value: parts)
    (values,) = gather_images(*parts[0])
    torch.testing.assert_close(values, torch.tensor([0.0, 0.2, 0.4]))


def test_alone_everything_is_as_without(monkeypatch):
    model = nn.Linear(1, 1)
    assert distributed.parallel(model) is model
    assert from_rank_0(lambda: 7) == 7
    assert [total for _, total in with_totals([{"images": torch.zeros(3)}])] == [3]
