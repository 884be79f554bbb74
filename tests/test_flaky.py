"""A mount that fails at random: what fails, what is counted, and that nothing stays behind."""

import builtins
import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bpsutils import images
from bpsutils.images import read_header, read_image, write_image
from bpsutils.metadata import build_metadata
from bpsutils.scan import fast_scan
from bpsutils.simulate import flaky_mount

NAME = "P242_73665006707-A6_001_{:03d}_proj.tif"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "drive"
    for plate in "abc":
        for number in range(20):
            write_image(root / plate / NAME.format(number), np.full((20, 30), 400, np.uint16))
    return root


def failing(root, rate, seed):
    """Which files cannot be opened, each asked for once."""
    lost, paths = set(), sorted(root.glob("?/*.tif"))
    with flaky_mount(root, rate, seed):
        for path in paths:
            try:
                path.read_bytes()
            except OSError:
                lost.add(path.name + path.parent.name)
    return lost


# Looked up when asked, as any code does: what was picked up before is not behind the layer.
@pytest.mark.parametrize(
    "ask",
    [
        lambda path: os.stat(path),  # noqa: PTH116
        lambda path: os.stat(os.fsencode(path)),  # noqa: PTH116
        lambda path: os.listdir(path),  # noqa: PTH208
        lambda path: os.scandir(path),
        lambda path: next(Path(path).iterdir()),
        lambda path: Path(path).stat(),
    ],
)
def test_every_way_to_ask_for_a_folder_fails(folder, ask):
    with flaky_mount(folder, rate=1), pytest.raises(OSError, match="Input/output error") as caught:
        ask(folder / "a")
    assert caught.value.errno == errno.EIO
    ask(folder / "a")


@pytest.mark.parametrize(
    "ask",
    [
        lambda path: builtins.open(path, "rb").close(),  # noqa: PTH123
        lambda path: io.open(path, "rb").close(),  # noqa: UP020
        lambda path: images.FileIO(path).close(),
        Path.read_bytes,
        read_header,
        read_image,
    ],
)
def test_every_way_to_open_a_file_fails(folder, ask):
    path = folder / "a" / NAME.format(0)
    with flaky_mount(folder, rate=1, code=errno.ENOTCONN), pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        ask(path)
    ask(path)


def test_what_lies_beside_the_folder_is_left_alone(folder, tmp_path):
    beside = tmp_path / "drive2"
    beside.mkdir()
    with flaky_mount(folder, rate=1) as mount:
        assert list(beside.iterdir()) == []
        assert Path(beside, "a.txt").write_text("x") == 1
        with io.FileIO(os.open(beside / "a.txt", os.O_RDONLY)) as opened, open(opened.fileno(), closefd=False) as file:
            assert file.read() == "x"
    assert not mount.requests


def test_everything_is_as_before_also_after_an_error(folder):
    doors = [os.stat, os.scandir, os.listdir, builtins.open, io.open, images.FileIO]
    with pytest.raises(RuntimeError, match="stop"), flaky_mount(folder):
        raise RuntimeError("stop")
    assert [os.stat, os.scandir, os.listdir, builtins.open, io.open, images.FileIO] == doors


def test_failures_follow_the_seed_the_rate_and_not_the_place(folder, tmp_path):
    lost = failing(folder, 0.3, seed=1)
    assert 6 <= len(lost) <= 30  # of 60
    assert failing(folder, 0.3, seed=1) == lost
    assert failing(folder, 0.3, seed=2) != lost
    assert failing(folder, 0, seed=1) == set()
    assert lost <= failing(folder, 0.6, seed=1)
    moved = folder.rename(tmp_path / "elsewhere")
    assert failing(moved, 0.3, seed=1) == lost


def test_threads_do_not_change_what_fails(folder):
    def lost(workers):
        with flaky_mount(folder, 0.3, seed=3):
            return fast_scan(folder, retries=0, workers=workers).failures

    assert lost(1) == lost(8) != []


def test_the_same_request_may_succeed_when_it_is_made_again(folder):
    path = folder / "a" / NAME.format(0)
    with flaky_mount(folder, 0.5, seed=0) as mount:
        outcomes = []
        for _ in range(40):
            try:
                outcomes.append(path.stat().st_size > 0)
            except OSError:
                outcomes.append(False)
    assert 8 < sum(outcomes) < 32
    assert mount.requests == {"stat": 40}
    assert mount.failures == {"stat": 40 - sum(outcomes)}


def test_counting_sees_what_an_index_reads(folder, tmp_path):
    counts = []
    for _ in range(2):
        with flaky_mount(folder, rate=0) as mount:
            build_metadata(folder, tmp_path / "index.parquet")
        counts.append((mount.requests["open"], mount.requests["list"], mount.failures.total()))
    assert counts == [(60, 4, 0), (0, 4, 0)]


def test_many_threads_lose_no_count(folder):
    with flaky_mount(folder, rate=0) as mount, ThreadPoolExecutor(8) as pool:
        list(pool.map(os.stat, [folder] * 2000))
    assert mount.requests["stat"] == 2000


def test_opening_waits_and_asking_does_not(folder, monkeypatch):
    waited = []
    monkeypatch.setattr("bpsutils.flaky.time.sleep", waited.append)
    with flaky_mount(folder, rate=0, delay=0.25):
        folder.stat()
        read_header(folder / "a" / NAME.format(0))
    assert waited == [0.25]


@pytest.mark.parametrize("wrong", [{"rate": -0.1}, {"rate": 1.1}, {"delay": -1}])
def test_a_rate_is_a_probability_and_a_delay_a_time(folder, wrong):
    with (
        pytest.raises(ValueError, match="rate must be from 0 to 1 and delay at least 0 s"),
        flaky_mount(folder, **wrong),
    ):
        pass
