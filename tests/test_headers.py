"""Many headers at once: whatever the files are, the same as one by one; each opened once."""

import errno
import os
import struct
from collections import Counter

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpsutils import headers, scan
from bpsutils.headers import read_headers
from bpsutils.images import ImageError, read_header, write_image
from bpsutils.scan import ScanFailure

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
GREY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
RGB = (GREY[..., None] // np.array([9, 10, 11])).astype(np.uint8)
# Written by tifffile: little-endian ones come into the columns, the others go to `read_header`.
KINDS = {
    "plain": (GREY, {}),
    "strips": (GREY, {"rowsperstrip": 3, "compression": "zlib"}),
    "tiles": (GREY, {"tile": (16, 16)}),
    "float": (GREY.astype(np.float32), {"software": "a microscope"}),
    "int8": (GREY.astype(np.int8), {"description": "many words " * 20}),
    "rgb": (RGB, {"photometric": "rgb"}),
    "planes": (np.moveaxis(RGB, -1, 0), {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 7}),
    "pages": (np.stack([GREY] * 3), {"photometric": "minisblack"}),
    "bilevel": (GREY % 2 == 0, {}),
    "complex": (GREY.astype(np.complex64), {}),
    "big-endian": (GREY, {"byteorder": ">"}),
    "bigtiff": (GREY, {"bigtiff": True}),
    "palette": (RGB[..., 0], {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
}


def make(folder, kind):
    path = folder / f"{kind}.tif"
    if kind in KINDS:
        tifffile.imwrite(path, KINDS[kind][0], **KINDS[kind][1])
    elif kind == "png":
        path = path.with_suffix(".png")
        write_image(path, RGB)
    else:
        write_image(path, GREY[:, : 20 if kind == "narrow" else 30])
    return path.read_bytes()


ALL = [*KINDS, "png", "ours", "narrow"]


def one_by_one(path):
    try:
        return read_header(path)
    except ImageError as error:
        return str(error)


def plain(found):
    return [str(header) if isinstance(header, ImageError) else header for header in found.headers]


def assert_same(paths, **options):
    found = read_headers(paths, **options)
    assert plain(found) == [one_by_one(path) for path in paths]
    assert found.sizes.tolist() == [os.stat(path).st_size for path in paths]  # noqa: PTH116
    assert found.mtimes_ns.tolist() == [os.stat(path).st_mtime_ns for path in paths]  # noqa: PTH116


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: make(folder, kind) for kind in ALL}


@pytest.fixture
def careful(monkeypatch):
    """Names of files that the columns could not answer for."""
    names, real = [], headers._header_or_error

    def read(descriptor, path):
        names.append(os.path.basename(path))  # noqa: PTH119
        return real(descriptor, path)

    monkeypatch.setattr(headers, "_header_or_error", read)
    return names


@pytest.mark.parametrize("workers", [1, 8])
def test_a_folder_of_all_kinds_is_read_as_one_by_one(tmp_path, contents, workers):
    paths = []
    for number in range(3):
        for kind, content in contents.items():
            path = tmp_path / f"{kind}-{number}"
            path.write_bytes(content)
            paths.append(str(path))
    assert_same(paths, workers=workers)


def test_ordinary_files_are_answered_by_the_columns(tmp_path, contents, careful):
    for kind, content in contents.items():
        (tmp_path / kind).write_bytes(content)
    read_headers([str(tmp_path / kind) for kind in contents])
    # Bits that fill no byte, complex numbers, palettes; other byte orders, BigTIFF and PNG; a long text among the tags.
    assert sorted(careful) == sorted(["bilevel", "complex", "palette", "big-endian", "bigtiff", "png", "int8"])


@pytest.mark.parametrize("kind", ["plain", "strips", "tiles", "planes", "ours", "float", "int8"])
@FUZZ
@given(data=st.data())
def test_damaged_files_are_read_as_one_by_one(tmp_path, contents, kind, data):
    """Half of the flips hit a tag; a file may be cut; whole ones stand between, so that forms have many rows."""
    whole = contents[kind]
    (place,) = struct.unpack("<I", whole[4:8])
    spots = st.one_of(st.integers(place, min(place + 200, len(whole)) - 1), st.integers(0, len(whole) - 1))
    damage = st.lists(st.tuples(spots, st.integers(0, 255)), max_size=3)
    paths = []
    for number, changes in enumerate(data.draw(st.lists(damage, min_size=1, max_size=6))):
        content = bytearray(whole)
        for spot, value in changes:
            content[spot] = value
        path = tmp_path / f"{number}.tif"
        path.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(whole))))])
        paths.append(str(path))
    assert_same(paths)


LIMITS = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 12, 16, 20, 30, 1000, 65535, 10**9, 10**9 + 1, 2**31, 2**32 - 1])
CODES = st.sampled_from([256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 305, 317, 322, 323, 324, 325, 339])


@pytest.mark.parametrize("kind", ["plain", "strips", "tiles", "planes", "ours"])
@FUZZ
@given(data=st.data())
def test_any_values_of_the_tags_are_read_as_one_by_one(tmp_path, contents, kind, data):
    whole = bytearray(contents[kind])
    (place,) = struct.unpack("<I", whole[4:8])
    (count,) = struct.unpack("<H", whole[place : place + 2])
    for _ in range(data.draw(st.integers(1, 3))):
        entry = place + 2 + 12 * data.draw(st.integers(0, count - 1))
        form, value, start = data.draw(
            st.sampled_from([("<H", CODES, 0), ("<H", st.integers(0, 18), 2), ("<I", LIMITS, 4), ("<I", LIMITS, 8)])
        )
        struct.pack_into(form, whole, entry + start, data.draw(value))
    (tmp_path / "a.tif").write_bytes(whole)
    assert_same([str(tmp_path / "a.tif")])


def test_more_forms_than_the_columns_take_are_read_all_the_same(tmp_path, monkeypatch, careful):
    monkeypatch.setattr(headers, "_FORMS", 2)
    monkeypatch.setattr(headers, "_BLOCK", 7)
    paths = []
    for number in range(20):
        paths.append(str(tmp_path / f"{number}.tif"))
        write_image(paths[-1], GREY, "x" * (number % 5))
    assert_same(paths)
    assert 0 < len(careful) < 20


def test_lists_at_different_distances_from_their_directories_are_read(tmp_path, careful):
    """The same form, but in the second file eight bytes lie between the directory and what it points to."""
    tall = np.arange(600 * 90, dtype=np.uint16).reshape(600, 90)
    write_image(tmp_path / "near.tif", tall)
    data = bytearray((tmp_path / "near.tif").read_bytes())
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    end = place + 2 + 12 * count + 4
    for entry in range(place + 2, end - 4, 12):
        (value,) = struct.unpack_from("<I", data, entry + 8)
        if value >= end:
            struct.pack_into("<I", data, entry + 8, value + 8)
    data[end:end] = b"\xff" * 8
    (tmp_path / "far.tif").write_bytes(data)
    assert_same([str(tmp_path / "near.tif"), str(tmp_path / "far.tif"), str(tmp_path / "near.tif")])
    assert careful == []


def test_a_system_without_pread_reads_the_same(tmp_path, contents, monkeypatch):
    monkeypatch.setattr(headers, "_read_at", headers._seek_and_read)
    for kind, content in contents.items():
        (tmp_path / kind).write_bytes(content)
    assert_same([str(tmp_path / kind) for kind in contents])


def test_each_file_is_opened_once(tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{number}.tif") for number in range(40)]
    for path in paths:
        write_image(path, GREY)
    write_image(tmp_path / "a.png", RGB)
    paths.append(str(tmp_path / "a.png"))
    real, opened = os.open, Counter()

    def count(path, *args, **options):
        opened[path] += 1
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", count)
    read_headers(paths)
    assert opened == dict.fromkeys(paths, 1)


def test_no_file_stays_open(tmp_path, contents):
    if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        pytest.skip("counts open files in /proc")
    paths = []
    for kind, content in contents.items():
        (tmp_path / kind).write_bytes(content)
        paths.append(str(tmp_path / kind))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    read_headers([*paths, str(tmp_path / "none.tif"), str(tmp_path)], retries=0)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_the_system_refuses_is_named(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(scan.time, "sleep", waited.append)
    write_image(tmp_path / "a.tif", GREY)
    found = read_headers([str(tmp_path / "none.tif"), str(tmp_path / "a.tif")])
    assert found.headers[0] == ScanFailure(str(tmp_path / "none.tif"), errno.ENOENT)
    assert found.headers[1].shape == (20, 30)
    assert found.sizes.tolist() == [-1, (tmp_path / "a.tif").stat().st_size]
    assert waited == []


def test_no_files_have_no_headers():
    found = read_headers([])
    assert (found.headers, found.sizes.shape, found.mtimes_ns.shape) == ([], (0,), (0,))
