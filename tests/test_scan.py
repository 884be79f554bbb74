"""Finding files: all of them, once, in order, and what cannot be read is named."""

import errno
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpsutils import scan
from bpsutils.scan import CHUNK, SLOW, FileEntry, ScanFailure, attempt, fast_scan, map_files


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Seconds that the code would have waited."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def paths(result):
    return [entry.path for entry in result.files]


def test_files_of_all_folders_are_listed_in_order(tmp_path):
    expected = sorted(touch(tmp_path / name) for name in ("b/z.tif", "b/c/d/a.png", "a.TIFF", "c.Tif", "b.tif"))
    for other in ("notes.txt", "b/tif", "a.tif.part", "b/.hidden.tif", "._a.tif", ".cache/a.tif"):
        touch(tmp_path / other)
    (tmp_path / "folder.tif").mkdir()
    result = fast_scan(tmp_path)
    assert paths(result) == expected
    assert result.failures == []


def test_size_and_time_are_those_of_the_file(tmp_path):
    path = touch(tmp_path / "a.tif", b"12345")
    os.utime(path, ns=(7, 1_700_000_000_123_456_789))
    assert fast_scan(tmp_path).files == [FileEntry(path, 5, 1_700_000_000_123_456_789)]


def test_suffixes_can_be_chosen(tmp_path):
    touch(tmp_path / "a.tif")
    wanted = touch(tmp_path / "b.JPG")
    assert paths(fast_scan(tmp_path, (".Jpg",))) == [wanted]


@given(tree=st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), max_size=25))
def test_any_tree_is_listed_as_by_rglob(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("tree")
    for name in tree:
        touch(root / name / "image.tif")
    for workers in (1, 5):
        assert paths(fast_scan(root, workers=workers)) == sorted(map(str, root.rglob("*.tif")))


def test_loops_of_links_end_and_each_folder_is_listed_once(tmp_path):
    expected = [touch(tmp_path / "a/1.tif"), touch(tmp_path / "b/2.tif"), touch(tmp_path / "z/deep/3.tif")]
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    (tmp_path / "a/first").symlink_to(tmp_path / "z/deep")  # met before the real folder
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    result = fast_scan(tmp_path)
    assert paths(result) == expected
    assert result.failures == []


def test_links_to_elsewhere_are_followed(tmp_path):
    touch(tmp_path / "elsewhere/1.tif", b"123")
    touch(tmp_path / "elsewhere/sub/2.tif")
    root = tmp_path / "images"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "one.tif").symlink_to(tmp_path / "elsewhere/1.tif")
    result = fast_scan(root)
    assert paths(result) == [str(root / name) for name in ("link/1.tif", "link/sub/2.tif", "one.tif")]
    assert result.files[-1].size == 3


def test_broken_links_named_like_images_are_reported(tmp_path, waits):
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.tif").symlink_to(tmp_path / "self.tif")
    assert fast_scan(tmp_path).failures == [
        (str(tmp_path / "gone.tif"), errno.ENOENT),
        (str(tmp_path / "self.tif"), errno.ELOOP),
    ]
    assert waits == []  # these do not mend themselves


def test_a_missing_folder_is_an_error(tmp_path):
    touch(tmp_path / "a.tif")
    for wrong in ("none", "a.tif"):
        with pytest.raises(FileNotFoundError, match=f"no folder .*{wrong}; check Config.image_dir"):
            fast_scan(tmp_path / wrong)


def flaky(monkeypatch, name, times, code=errno.EIO):
    """Let ``os.<name>`` fail ``times`` times on each path that has "bad" in its name."""
    real, failed = getattr(os, name), Counter()

    def call(path, *args, **kwargs):
        if "bad" in Path(path).name and failed[path] < times:
            failed[path] += 1
            raise OSError(code, os.strerror(code), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, name, call)
    return failed


@pytest.mark.parametrize("name", ["scandir", "stat"])
def test_what_fails_three_times_is_found_by_the_fourth(tmp_path, monkeypatch, waits, name):
    expected = [touch(tmp_path / "a.tif"), touch(tmp_path / "bad/bad.tif"), touch(tmp_path / "bad/c.tif")]
    failed = flaky(monkeypatch, name, 3)
    result = fast_scan(tmp_path)
    assert paths(result) == expected
    assert result.failures == []
    assert set(failed.values()) == {3}
    assert sorted(waits) == sorted([0.1, 0.2, 0.4] * len(failed))


def test_what_keeps_failing_is_named_with_its_error(tmp_path, monkeypatch):
    kept = touch(tmp_path / "a.tif")
    touch(tmp_path / "bad/b.tif")
    bad = touch(tmp_path / "sub/bad.tif")
    flaky(monkeypatch, "stat", 99, errno.ENOTCONN)
    result = fast_scan(tmp_path, retries=1)
    assert paths(result) == [kept]
    assert result.failures == [(str(tmp_path / "bad"), errno.ENOTCONN), (bad, errno.ENOTCONN)]


def test_a_root_that_keeps_failing_is_reported_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "bad").mkdir()
    flaky(monkeypatch, "scandir", 99)
    assert fast_scan(tmp_path / "bad") == ([], [(str(tmp_path / "bad"), errno.EIO)])


def test_no_retry_waits_after_the_last_attempt(waits):
    def fail(path):
        raise OSError("without a number")

    assert attempt(fail, "a", retries=2) == ScanFailure("a", errno.EIO)
    assert waits == [0.1, 0.2]
    assert attempt(fail, "a", retries=0) == ScanFailure("a", errno.EIO)
    assert len(waits) == 2


@pytest.mark.parametrize("n", [0, 1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1, 12 * CHUNK])
@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("slow", [False, True])
def test_map_files_does_each_item_once_in_order(monkeypatch, n, workers, slow):
    monkeypatch.setattr(scan, "SLOW", -1 if slow else 1e9)
    done = []
    assert map_files(lambda item: done.append(item) or item + 1, range(n), workers) == list(range(1, n + 1))
    assert sorted(done) == list(range(n))


def test_slow_items_are_shared_and_quick_ones_are_not(monkeypatch):
    clock = iter(range(10**9))
    for seconds, expected in ((10 * SLOW, True), (SLOW / CHUNK, False)):
        monkeypatch.setattr(scan.time, "perf_counter", lambda step=seconds: next(clock) * step)
        barrier = threading.Barrier(4, timeout=5) if expected else None
        # Four items wait for each other: only threads that work side by side get past the barrier.
        used = map_files(lambda item, b=barrier: (b and item >= 2 and b.wait(), threading.get_ident())[1], range(6), 4)
        assert (len(set(used)) == 4) == expected


@pytest.mark.parametrize("slow", [False, True])
def test_an_error_in_any_item_comes_out_and_stops_the_others(monkeypatch, slow):
    monkeypatch.setattr(scan, "SLOW", -1 if slow else 1e9)
    done = []

    def function(item):
        done.append(item)
        if item == 50:
            raise RuntimeError("item 50")

    with pytest.raises(RuntimeError, match="item 50"):
        map_files(function, range(100_000), workers=4)
    assert slow or len(done) < 100_000


def test_a_bar_is_shown_for_long_lists_only(monkeypatch):
    shown = []
    monkeypatch.setattr(scan, "tqdm", lambda **options: shown.append(_Bar(options)) or shown[-1])
    for n, desc in ((CHUNK, "headers"), (12 * CHUNK, ""), (12 * CHUNK, "headers")):
        map_files(str, range(n), 2, desc)
    assert [bar.options["disable"] for bar in shown] == [True, True, False]
    assert [bar.n for bar in shown] == [bar.options["total"] for bar in shown]


class _Bar:
    def __init__(self, options):
        self.options, self.n = options, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, n):
        self.n += n


def test_paths_are_absolute(tmp_path, monkeypatch):
    touch(tmp_path / "images/a.tif")
    monkeypatch.chdir(tmp_path)
    assert paths(fast_scan("images/../images")) == [str(Path(tmp_path, "images", "a.tif"))]
