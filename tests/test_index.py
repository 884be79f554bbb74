"""The stored index: after any change to the folder it equals one made from nothing."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bpsutils import index
from bpsutils.images import write_image
from bpsutils.index import SCHEMA, update_index


def draw(path, height=20, width=30, size=None, mtime_ns=None):
    """Write an image; ``size`` pads the file with zeros, which no reader minds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(height * width).integers(0, 9, (height, width)).astype(np.uint16))
    if size is not None:
        os.truncate(path, size)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def rows_of(root, index_path, full=False):
    report = {}
    rows = update_index(root, index_path, full, report).to_pylist()
    assert report == {"unreadable": []}
    return rows


def paths_of(table):
    return table["path"].to_pylist()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    draw(root / "a.tif", 20, 30)
    draw(root / "sub/b.tif", 21, 31)
    return root


@pytest.fixture
def headers_read(monkeypatch):
    """Names of the files whose header was read."""
    names, real = [], index.read_headers

    def read(paths, **options):
        names.extend(Path(path).name for path in paths)
        return real(paths, **options)

    monkeypatch.setattr(index, "read_headers", read)
    return names


class AnyChange(RuleBasedStateMachine):
    """Files come, go, change and move; all have one size, so that only their times tell them apart."""

    SIZE = 3000

    @initialize()
    def start(self):
        self.base = Path(tempfile.mkdtemp())
        self.root = self.base / "images"
        self.root.mkdir()
        self.clock = 10**18
        self.names = set()
        self.runs = 0

    names_drawn = st.sampled_from(["a.tif", "b.tif", "sub/a.tif", "sub/c.tif", "d/e/f.tif"])
    sides = st.integers(1, 40)

    def tick(self):
        self.clock += 1
        return self.clock

    @rule(name=names_drawn, height=sides, width=sides)
    def write(self, name, height, width):
        draw(self.root / name, height, width, self.SIZE, self.tick())
        self.names.add(name)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.names)))
        (self.root / name).unlink()
        self.names.remove(name)

    @precondition(lambda self: self.names)
    @rule(data=st.data(), to=names_drawn)
    def rename(self, data, to):
        name = data.draw(st.sampled_from(sorted(self.names)))
        (self.root / to).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).replace(self.root / to)
        self.names = self.names - {name} | {to}

    @precondition(lambda self: len(self.names) > 1)
    @rule(data=st.data())
    def swap(self, data):
        one, two = data.draw(st.permutations(sorted(self.names)))[:2]
        spare = self.base / "spare"
        for source, target in ((one, spare), (two, self.root / one), (spare, self.root / two)):
            (self.root / source).replace(target)

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def spoil(self, data):
        path = self.root / data.draw(st.sampled_from(sorted(self.names)))
        path.write_bytes(bytes(self.SIZE))
        os.utime(path, ns=(self.tick(),) * 2)

    @precondition(lambda self: self.names)
    @rule()
    def move_the_folder(self):
        self.runs += 1
        self.root = self.root.rename(self.base / f"images{self.runs}")

    @invariant()
    def index_is_as_made_from_nothing(self):
        if not getattr(self, "names", None):
            return
        reports = {}, {}
        kept, fresh = self.base / "kept.parquet", self.base / "fresh.parquet"
        fresh.unlink(missing_ok=True)
        rows = update_index(self.root, kept, False, reports[0])
        assert rows.equals(update_index(self.root, fresh, False, reports[1]))
        assert reports[0] == reports[1]
        assert pq.read_table(kept).equals(pq.read_table(fresh))
        assert len(rows) + len(reports[0]["unreadable"]) == len(self.names)

    def teardown(self):
        shutil.rmtree(self.base)


TestAnyChange = AnyChange.TestCase
TestAnyChange.settings = settings(max_examples=25, stateful_step_count=15, deadline=None, database=None)


def test_the_machine_would_notice_an_index_that_ignores_time(folder, tmp_path):
    """A file replaced by one of the same size: the change that only its time shows."""
    draw(folder / "a.tif", 20, 30, 3000, 10**18)
    assert rows_of(folder, tmp_path / "i.parquet")[0]["height"] == 20
    draw(folder / "a.tif", 25, 30, 3000, 10**18 + 1)
    assert rows_of(folder, tmp_path / "i.parquet")[0]["height"] == 25


def test_rescan_reads_only_changed_headers(folder, tmp_path, headers_read):
    stored = tmp_path / "i.parquet"
    rows_of(folder, stored)
    assert sorted(headers_read) == ["a.tif", "b.tif"]
    headers_read.clear()
    draw(folder / "c.tif")
    os.utime(folder / "a.tif", ns=(5, 5))
    rows_of(folder, stored)
    assert sorted(headers_read) == ["a.tif", "c.tif"]
    headers_read.clear()
    rows_of(folder, stored)
    assert headers_read == []
    rows_of(folder, stored, full=True)
    assert sorted(headers_read) == ["a.tif", "b.tif", "c.tif"]


def test_an_index_that_is_right_is_not_written_again(folder, tmp_path):
    stored = tmp_path / "i.parquet"
    rows_of(folder, stored)
    before = (stored.stat().st_mtime_ns, stored.stat().st_ino)
    rows_of(folder, stored)
    assert (stored.stat().st_mtime_ns, stored.stat().st_ino) == before
    (folder / "a.tif").unlink()
    rows_of(folder, stored)
    assert stored.stat().st_ino != before[1]


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_can_move_with_or_without_its_index(folder, tmp_path, headers_read, inside):
    stored = folder / "index.parquet" if inside else tmp_path / "i.parquet"
    rows = rows_of(folder, stored)
    assert [row["path"] for row in rows] == ["a.tif", "sub/b.tif"]
    headers_read.clear()
    moved = folder.rename(tmp_path / "elsewhere")
    assert rows_of(moved, moved / "index.parquet" if inside else stored) == rows
    assert headers_read == []


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def other_version(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"bpsutils_index": b"0"}), path)


def other_columns(path):
    pq.write_table(pq.read_table(path).drop(["simulated"]), path)


def other_table(path):
    pq.write_table(pa.table({"x": [1]}), path)


@pytest.mark.parametrize("harm", [truncate, empty, other_version, other_columns, other_table])
def test_an_index_that_cannot_be_used_is_made_again_with_a_note(folder, tmp_path, harm):
    stored = tmp_path / "i.parquet"
    rows = rows_of(folder, stored)
    whole = pq.read_table(stored)
    harm(stored)
    report = {}
    assert update_index(folder, stored, False, report).to_pylist() == rows
    assert len(report["index"]) == 1
    assert str(stored) in report["index"][0]
    assert pq.read_table(stored).equals(whole)
    assert rows_of(folder, stored) == rows  # and from then on all is quiet


def test_a_full_rebuild_does_not_look_at_the_old_index(folder, tmp_path):
    stored = tmp_path / "i.parquet"
    stored.write_bytes(b"rubbish")
    assert len(rows_of(folder, stored, full=True)) == 2
    assert len(rows_of(folder, stored)) == 2


def test_unreadable_files_are_named_left_out_and_tried_again(folder, tmp_path):
    (folder / "bad.tif").write_bytes(b"no image")
    (folder / "gone.tif").symlink_to("nowhere")
    for _ in range(2):
        report = {}
        assert paths_of(update_index(folder, tmp_path / "i.parquet", False, report)) == ["a.tif", "sub/b.tif"]
        assert len(report["unreadable"]) == 2
        assert f"{folder / 'bad.tif'}: not a TIFF or PNG" in report["unreadable"][0]
        assert f"{folder / 'gone.tif'}: No such file or directory (errno 2)" in report["unreadable"][1]
    (folder / "bad.tif").unlink()
    draw(folder / "bad.tif")
    (folder / "gone.tif").unlink()
    assert len(rows_of(folder, tmp_path / "i.parquet")) == 3


def failing_open(monkeypatch, times, code, fails=lambda path: True):
    """Let the opening of each file fail so many times; returns the paths that failed, and the waits."""
    real, failed, waited = os.open, [], []

    def flaky(path, *args, **options):
        if str(path).endswith(".tif") and fails(path) and failed.count(path) < times:
            failed.append(path)
            raise OSError(code, os.strerror(code))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", flaky)
    monkeypatch.setattr("time.sleep", waited.append)
    return failed, waited


def test_a_header_that_fails_for_a_moment_is_read(folder, tmp_path, monkeypatch):
    failed, waited = failing_open(monkeypatch, 2, errno.EIO, lambda path: path.endswith("a.tif"))
    assert len(rows_of(folder, tmp_path / "i.parquet")) == 2
    assert len(failed) == 2
    assert waited == [0.1, 0.2]


def test_a_header_that_keeps_failing_is_reported_and_not_remembered(folder, tmp_path, monkeypatch):
    report = {}
    with monkeypatch.context() as patch:
        failing_open(patch, 99, errno.ENOTCONN)
        assert len(update_index(folder, tmp_path / "i.parquet", False, report)) == 0
    assert len(report["unreadable"]) == 2
    assert report["unreadable"][0].endswith("(errno 107)")
    assert len(rows_of(folder, tmp_path / "i.parquet")) == 2


def test_a_known_file_that_cannot_be_asked_for_its_state_is_opened(folder, tmp_path, monkeypatch, headers_read):
    stored, real = tmp_path / "i.parquet", os.stat
    rows = rows_of(folder, stored)
    headers_read.clear()

    def refuse(path, *args, **options):
        if str(path).endswith("a.tif"):
            raise OSError(errno.EIO, "I/O error")
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert rows_of(folder, stored) == rows
    assert headers_read == ["a.tif"]


def test_the_state_that_is_kept_is_that_of_the_file_whose_header_was_read(folder, tmp_path, monkeypatch):
    """Else a file that is replaced while the index is made would keep a wrong row for ever."""
    real = os.open

    def replaced(path, *args, **options):
        if str(path).endswith("a.tif"):
            draw(tmp_path / "new.tif", 25, 30)
            (tmp_path / "new.tif").replace(path)
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", replaced)
        first = rows_of(folder, tmp_path / "i.parquet")[0]
    assert (first["height"], first["mtime_ns"]) == (25, (folder / "a.tif").stat().st_mtime_ns)


def test_a_name_that_is_no_text_is_reported(folder, tmp_path):
    (folder / os.fsdecode(b"caf\xe9.tif")).write_bytes((folder / "a.tif").read_bytes())
    report = {}
    assert len(update_index(folder, tmp_path / "i.parquet", False, report)) == 2
    assert report["unreadable"] == [rf"{folder.resolve()}/caf\udce9.tif: rename it (surrogates not allowed)"]


def test_a_write_that_fails_leaves_the_old_index(folder, tmp_path, monkeypatch):
    stored = tmp_path / "i.parquet"
    rows_of(folder, stored)
    before = stored.read_bytes()

    def fail(table, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left")

    draw(folder / "c.tif")
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", fail)
        with pytest.raises(OSError, match="no space left"):
            update_index(folder, stored, False, {})
    assert stored.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i.parquet", "images"]


def test_a_folder_without_images_is_an_error_that_helps(tmp_path):
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(FileNotFoundError, match=r"no image files below .* \(looked for .tif, .tiff, .png\)"):
        update_index(tmp_path, tmp_path / "i.parquet", False, {})


def test_rows_say_what_the_files_say(folder, tmp_path):
    os.utime(folder / "a.tif", ns=(3, 3))
    write_image(folder / "c.png", np.zeros((5, 6, 3), np.uint8), software="a microscope")
    rows = {row["path"]: tuple(row.values()) for row in rows_of(folder, tmp_path / "i.parquet")}
    size = (folder / "a.tif").stat().st_size
    assert rows["a.tif"] == ("a.tif", size, 3, 20, 30, "uint16", 1, True)
    assert rows["c.png"][3:] == (5, 6, "uint8", 3, False)
    assert pq.read_table(tmp_path / "i.parquet").schema.equals(SCHEMA, check_metadata=True)
