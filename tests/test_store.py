import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bpsutils import store as store_module
from bpsutils.images import ImageError, read_image, write_image
from bpsutils.store import Store, pack_files


@pytest.fixture
def files(tmp_path):
    """Twelve images of twelve sizes."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"nucléus_{number:02d}.tif" for number in range(12)]
    for number, path in enumerate(paths):
        write_image(path, rng.integers(0, 65536, (8 + number, 20 - number)).astype(np.uint16))
    return list(map(os.fsencode, paths))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images.pack"


def assert_holds(folder, files):
    """The store has the pixels of each of these files."""
    store = Store.read(folder)
    pixels, ends = store.pixels(), store.ends
    for path, row in zip(files, store.find(files), strict=True):
        stored = pixels[store.rows["offset"][row] : ends[row]]
        assert np.array_equal(stored, read_image(os.fsdecode(path)).ravel())
    store.verify()


def stop_after(monkeypatch, count, error):
    """Let decoding fail at an image."""
    left = list(range(count))

    def decode(path):
        if not left:
            raise error
        left.pop()
        return read_image(path)

    monkeypatch.setattr(store_module, "read_image", decode)
    monkeypatch.setattr(store_module, "_CHUNK", 1)
    monkeypatch.setattr(store_module.os, "cpu_count", lambda: 1)  # else a thread runs ahead of the failing one
    monkeypatch.setattr(store_module, "COMMIT_SECONDS", -1.0)


# ------------------------------------------------------------------------------------- build, append, resume


def test_a_store_holds_every_file_and_decodes_it_once(folder, files):
    assert pack_files(folder, files) == 12
    assert_holds(folder, files)
    assert sorted(path.name for path in folder.iterdir()) == ["index.parquet", "lock", "pixels.bin"]
    assert pack_files(folder, [*files[3:], *files]) == 0


def test_more_files_are_appended_and_nothing_is_rewritten(folder, files):
    pack_files(folder, files[:5])
    before = (folder / "pixels.bin").read_bytes()
    assert pack_files(folder, files[3:]) == 7
    assert (folder / "pixels.bin").read_bytes()[: len(before)] == before
    assert_holds(folder, files)


def test_a_changed_file_is_packed_again(folder, files):
    pack_files(folder, files)
    changed = os.fsdecode(files[4])
    write_image(changed, read_image(changed)[::-1].copy())
    os.utime(changed, ns=(1, 1))
    assert pack_files(folder, files) == 1
    assert len(Store.read(folder).rows) == 12
    assert_holds(folder, files)


def test_an_interrupted_build_goes_on_where_it_was(folder, files, monkeypatch):
    stop_after(monkeypatch, 7, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        pack_files(folder, files)
    kept = len(Store.read(folder).rows)
    assert 1 <= kept <= 7
    assert (folder / "pixels.bin").stat().st_size == Store.read(folder).length
    monkeypatch.undo()
    assert pack_files(folder, files) == 12 - kept
    assert_holds(folder, files)


def test_pixels_that_the_index_does_not_know_are_cut_off(folder, files):
    """As a process leaves it that is killed between writing pixels and the index."""
    pack_files(folder, files[:5])
    length = Store.read(folder).length
    with (folder / "pixels.bin").open("ab") as file:
        file.write(bytes(10_000))
    assert_holds(folder, files[:5])
    pack_files(folder, files[:6])
    assert Store.read(folder).rows["offset"].max() * 2 == length
    assert (folder / "pixels.bin").stat().st_size == Store.read(folder).length
    assert_holds(folder, files[:6])


@pytest.mark.parametrize("left", [0, 1001, None])
def test_pixels_that_are_lost_are_refused_and_packed_again(folder, files, left):
    pack_files(folder, files)
    if left is None:
        (folder / "pixels.bin").unlink()
    else:
        os.truncate(folder / "pixels.bin", left)
    with pytest.raises(ValueError, match=f"pixels.bin has {left or 0:,} bytes, its index speaks of.* packs again"):
        Store.read(folder).pixels()
    whole = (Store.read(folder).ends * 2 <= (left or 0)).sum()
    assert pack_files(folder, files) == 12 - whole
    assert_holds(folder, files)


def test_a_broken_image_is_named_and_leaves_the_store_as_it_was(folder, files):
    pack_files(folder, files[:5])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    Path(os.fsdecode(files[6])).write_bytes(b"no image")
    with pytest.raises(ImageError, match="cléus_06.tif: not a TIFF or PNG"):
        pack_files(folder, files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_is_named_and_leaves_the_store_as_it_was(folder, files):
    resource = pytest.importorskip("resource", reason="only POSIX limits what a process may write")
    pack_files(folder, files[:5])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Store.read(folder).length + 500, limits[1]))
    try:
        with pytest.raises(OSError, match=r"while packing.*pixels\.bin"):
            pack_files(folder, files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_images_of_two_kinds_are_refused(folder, files, tmp_path):
    pack_files(folder, files[:2])
    write_image(tmp_path / "slide.png", np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"slide.png is uint8 of 3 channels.*here uint16 of 1 channels.*packed=False"):
        pack_files(folder, [os.fsencode(tmp_path / "slide.png")])
    assert_holds(folder, files[:2])


# -------------------------------------------------------------------------------------------- two at a time


def test_only_one_process_packs_and_a_killed_one_is_no_hindrance(folder, files, monkeypatch):
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.0)
    folder.mkdir()
    holding = (
        "import sys, time; from pathlib import Path; from bpsutils.store import _only_one\n"
        "with _only_one(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holding, folder], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline().startswith(b"held")
            with pytest.raises(RuntimeError, match="another process is packing into .*images.pack"):
                pack_files(folder, files)
        finally:
            process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    assert pack_files(folder, files) == 12


def test_who_comes_second_waits_and_finds_the_work_done(folder, files, monkeypatch):
    decoded = []
    monkeypatch.setattr(store_module, "read_image", lambda path: decoded.append(path) or read_image(path))
    with ThreadPoolExecutor(3) as pool:
        counts = list(pool.map(lambda number: pack_files(folder, files), range(3)))
    assert sorted(counts) == [0, 0, 12]
    assert len(decoded) == 12
    assert_holds(folder, files)


def test_a_finished_store_may_be_read_only(folder, files, monkeypatch):
    pack_files(folder, files)
    monkeypatch.setattr(store_module, "_only_one", None)  # to lock it is to write
    assert pack_files(folder, files) == 0


# -------------------------------------------------------------------------------- what is no longer as it was


def test_files_that_differ_are_counted_and_the_first_is_named(folder, files):
    pack_files(folder, files[:10])
    os.utime(files[2], ns=(1, 1))
    os.utime(files[5], ns=(1, 1))
    Path(os.fsdecode(files[7])).unlink()
    with pytest.raises(ValueError, match=r"1 missing, 2 new, 2 changed, the first is .*cléus_02.tif; .*bpsutils pack"):
        Store.read(folder).find(files)
    with pytest.raises(ValueError, match=r"as they are now: 1 missing, the first is .*cléus_07.tif"):
        Store.read(folder).find(files[6:10])
    assert Store.read(folder).find([files[9], files[0]]).tolist() == [9, 0]


def test_an_empty_store_has_no_file(folder, files):
    with pytest.raises(ValueError, match="12 new, the first is"):
        Store.read(folder).find(files)


def test_digest_is_that_of_the_content(folder, files, tmp_path):
    pack_files(folder, files)
    pack_files(tmp_path / "other", files[::-1])
    digest = Store.read(folder).digest
    assert digest == Store.read(tmp_path / "other").digest
    write_image(os.fsdecode(files[3]), 65535 - read_image(os.fsdecode(files[3])))
    pack_files(folder, files)
    assert Store.read(folder).digest != digest


def test_a_flipped_bit_is_found(folder, files):
    pack_files(folder, files)
    offset = 2 * Store.read(folder).rows["offset"][8]
    with (folder / "pixels.bin").open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ 1]))
    with pytest.raises(ValueError, match=r"the pixels of .*cléus_08.tif are not those that were packed; delete"):
        Store.read(folder).verify()


def test_an_index_that_is_no_index_is_refused(folder, files, monkeypatch):
    pack_files(folder, files)
    monkeypatch.setattr(store_module, "STORE_VERSION", b"2")
    with pytest.raises(ValueError, match="index.parquet is from another version of bpsutils; delete the folder"):
        pack_files(folder, files)
    monkeypatch.undo()
    (folder / "index.parquet").write_bytes(b"half an index")
    with pytest.raises(ValueError, match="index.parquet is not readable"):
        pack_files(folder, files)
    shutil.rmtree(folder)
    assert pack_files(folder, files) == 12
