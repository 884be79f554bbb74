"""Reading and writing images: what is in the file is what comes out, or an ImageError that says why."""

import contextlib
import errno
import os
import struct
import tracemalloc
import zlib
from io import FileIO
from unittest import mock

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bpsutils import images, tiff
from bpsutils.images import ImageError, decode_image, read_header, read_image, to_float, write_image

# The tags of a real file of the data set, in their order: code, TIFF type, number of values, value.
REAL_SHAPE = (141, 149)
REAL_TAGS = [
    (256, 3, 1, 149),
    (257, 3, 1, 141),
    (258, 3, 1, 16),
    (259, 3, 1, 32946),
    (262, 3, 1, 1),
    (273, 4, 6, None),  # offsets of the strips
    (277, 3, 1, 1),
    (278, 3, 1, 27),
    (279, 4, 6, None),  # their lengths
    (296, 3, 1, 3),
    (305, 2, None, None),  # the program's name
    (339, 3, 1, 1),
]


def nucleus(shape=REAL_SHAPE, seed=0):
    image = np.random.default_rng(seed).integers(257, 2471, shape).astype(np.uint16)
    image.flat[0], image.flat[-1] = 257, 2470
    return image


@pytest.fixture
def real_like(tmp_path):
    path = tmp_path / "P242_73665006707-A6_003_013_proj.tif"
    write_image(path, nucleus())
    return path


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(image, depth=None, colour=None):
    """A PNG made by hand, for kinds that Pillow does not write."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if colour is None else colour
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], depth or image.itemsize * 8, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(image.dtype.newbyteorder(">")).tobytes() for row in image)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


# ------------------------------------------------------------------------------------------- the real format


def test_an_image_like_the_real_one_reads_as_it_was_written(real_like):
    header = read_header(real_like)
    assert (header.height, header.width, header.channels, header.shape) == (141, 149, 1, (141, 149))
    assert header.dtype == np.uint16
    assert header.software == "bpsutils simulation"
    image = read_image(real_like)
    assert image.dtype == np.uint16
    assert (image.min(), image.max()) == (257, 2470)
    np.testing.assert_array_equal(image, nucleus())


def test_a_written_file_has_the_tags_of_a_real_one(real_like):
    with tifffile.TiffFile(real_like) as tiff:
        assert (tiff.byteorder, tiff.is_bigtiff, len(tiff.pages)) == ("<", False, 1)
        page = tiff.pages[0]
        assert page.offset > max(page.dataoffsets)  # the directory comes after the strips
        tags = list(page.tags)
    assert [tag.code for tag in tags] == [code for code, *_ in REAL_TAGS]
    for tag, (code, kind, count, value) in zip(tags, REAL_TAGS, strict=True):
        assert tag.dtype == kind, code
        assert count is None or tag.count == count, code
        assert value is None or tag.value == value, code


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (79, 114), (170, 182), (300, 5000)])
def test_written_tiff_of_any_size_is_read_alike_by_others(tmp_path, shape):
    path, image = tmp_path / "a.tif", nucleus(shape)
    write_image(path, image)
    np.testing.assert_array_equal(tifffile.imread(path), image)
    with Image.open(path) as other:
        np.testing.assert_array_equal(np.asarray(other), image)
    np.testing.assert_array_equal(read_image(path), image)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
    assert page.offset % 2 == 0  # a rule of TIFF
    assert page.rowsperstrip == min(shape[0], max(1, 8192 // (2 * shape[1])))


@pytest.mark.parametrize("software", ["", "abc", "abcd", "even", "a name of odd length"])
def test_software_of_any_length_survives(tmp_path, software):
    write_image(tmp_path / "a.tif", nucleus(), software)
    assert read_header(tmp_path / "a.tif").software == software
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), nucleus())


# ------------------------------------------------------------------------------------------- every other format

LAYOUTS = [{}, {"rowsperstrip": 7}, {"tile": (16, 32)}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["one strip", "strips", "tiles"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_layouts_read_as_tifffile_reads_them(tmp_path, layout, bigtiff, byteorder, compression):
    path, image = tmp_path / "a.tif", nucleus((37, 53))
    options = {"bigtiff": bigtiff, "byteorder": byteorder, "compression": compression, "software": "other"}
    tifffile.imwrite(path, image, **layout, **options)
    header = read_header(path)
    assert (header.height, header.width, header.channels, header.software) == (37, 53, 1, "other")
    assert header.dtype.isnative
    assert read_image(path).dtype == np.uint16
    assert read_image(path).dtype.isnative  # torch takes no other
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_number_types_are_kept(tmp_path, dtype, byteorder):
    image = np.arange(6 * 5).reshape(6, 5).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=byteorder)
    assert read_header(tmp_path / "a.tif").dtype == np.dtype(dtype)
    assert read_image(tmp_path / "a.tif").dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["one strip", "strips", "tiles"])
def test_rgb_tiff_has_its_channels_last(tmp_path, planarconfig, layout):
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    stored = image if planarconfig == "contig" else np.moveaxis(image, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planarconfig, **layout)
    assert read_header(tmp_path / "a.tif").shape == (37, 53, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


def test_the_first_page_of_several_is_read(tmp_path):
    stack = np.stack([nucleus((20, 30), seed) for seed in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata=None)
    assert read_header(tmp_path / "a.tif").shape == (20, 30)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), stack[0])


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 4)])
def test_eight_bit_png_round_trip(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_image(tmp_path / "a.png", image)
    assert read_header(tmp_path / "a.png").shape == shape
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    with Image.open(tmp_path / "a.png") as other:
        np.testing.assert_array_equal(np.asarray(other), image)


def test_sixteen_bit_png_keeps_its_bits(tmp_path):
    write_image(tmp_path / "a.png", nucleus())
    assert read_header(tmp_path / "a.png").dtype == np.uint16
    assert read_image(tmp_path / "a.png").dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), nucleus())


def test_png_names_its_software_before_the_pixels(tmp_path):
    write_image(tmp_path / "a.png", nucleus((300, 400)), "bpsutils test")
    data = (tmp_path / "a.png").read_bytes()
    assert data.index(b"tEXtSoftware\0bpsutils test") < data.index(b"IDAT")
    assert read_header(tmp_path / "a.png").software == "bpsutils test"


def test_content_counts_and_not_the_suffix(tmp_path):
    write_image(tmp_path / "a.png", nucleus())
    (tmp_path / "a.png").rename(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), nucleus())


CORPUS = {
    "data set": {"compression": "zlib", "rowsperstrip": 7},
    "stored": {"rowsperstrip": 7},
    "big-endian": {"compression": "zlib", "byteorder": ">"},
    "predictor": {"compression": "zlib", "predictor": 2, "rowsperstrip": 9},
    "stored predictor": {"predictor": 2},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
    "lzw": {"compression": "lzw"},
    "packbits": {"compression": "packbits"},
    "inverted": {"photometric": "miniswhite", "compression": "zlib"},
    "volume": {"volumetric": True, "tile": (1, 16, 16)},
}


@pytest.mark.parametrize("kind", CORPUS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8"])
def test_pixels_are_those_of_tifffile_to_the_bit(tmp_path, kind, dtype):
    path, image = tmp_path / "a.tif", nucleus((37, 53)).astype(dtype)
    try:
        tifffile.imwrite(path, image[None] if kind == "volume" else image, **CORPUS[kind])
    except (ValueError, NotImplementedError, KeyError) as error:
        pytest.skip(f"tifffile does not write this without imagecodecs: {error}")
    expected = tifffile.imread(path)
    read = read_image(path)
    assert (read.dtype, read.flags.writeable) == (expected.dtype, True)
    np.testing.assert_array_equal(read, expected.reshape(read.shape))


@pytest.mark.parametrize("kind", ["data set", "stored", "big-endian"])
def test_plain_files_need_no_tifffile(tmp_path, monkeypatch, kind):
    for path in (tmp_path / "grey.tif", tmp_path / "rgb.tif"):
        image = nucleus((37, 53, 3)).astype(np.uint8) if path.stem == "rgb" else nucleus((37, 53))
        tifffile.imwrite(path, image, **CORPUS[kind])
        with monkeypatch.context() as patch:
            patch.setattr(tifffile, "TiffFile", None)
            np.testing.assert_array_equal(read_image(path), image)


def test_bits_that_fill_no_byte_are_read_by_tifffile(tmp_path):
    image = nucleus((20, 30)) % 2 == 0
    tifffile.imwrite(tmp_path / "a.tif", image)
    assert read_header(tmp_path / "a.tif").dtype == image.dtype
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


def test_complex_numbers_are_no_grey_levels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", nucleus((20, 30)).astype(np.complex64))
    assert_both_refuse(tmp_path / "a.tif", r"\[64\] bits a sample of format \[6\]")


@pytest.fixture(params=["zlib", "imagecodecs"])
def inflater(request, monkeypatch):
    """Each way to inflate, by the package itself where it is installed."""
    if request.param == "zlib":
        monkeypatch.setattr(tiff, "_inflater", lambda: tiff._inflate)
    else:
        pytest.importorskip("imagecodecs")
    return request.param


def restripped(path, strips, rows, height=20, width=30):
    """A file of the data set's kind with these strips, compressed or not as they come."""
    compress = mock.Mock(side_effect=strips)
    with mock.patch.object(zlib, "compress", compress), mock.patch.object(tiff, "_STRIP_BYTES", 2 * width * rows):
        write_image(path, nucleus((height, width)))
    return path


@pytest.mark.parametrize(
    ("last", "match"),
    [
        (zlib.compress(bytes(5 * 60)), None),
        (zlib.compress(bytes(15 * 60)), None),  # filled up to the height of the other
        (zlib.compress(bytes(5 * 60 - 1)), "strip 2 holds 299 bytes, expected 300"),
        (zlib.compress(bytes(5 * 60 + 1)), "strip 2 holds 301 bytes, expected 300"),
        (zlib.compress(bytes(0)), "cannot be decoded"),
        (zlib.compress(bytes(50_000_000)), "cannot be decoded"),
        (zlib.compress(bytes(5 * 60))[:-6], "cannot be decoded"),
        (zlib.compress(bytes(5 * 60))[:-1] + b"\xff", "cannot be decoded"),
        (b"no deflate", "cannot be decoded"),
    ],
    ids=["right", "filled", "short", "long", "empty", "bomb", "cut", "checksum", "other"],
)
def test_a_strip_of_another_length_is_an_error_and_never_zeros(tmp_path, inflater, last, match):
    path = restripped(tmp_path / "a.tif", [zlib.compress(bytes(range(60)) * 15), last], rows=15)
    if match is None:
        assert read_image(path)[:15].tobytes() == bytes(range(60)) * 15
        assert not read_image(path)[15:].any()
    else:
        with pytest.raises(ImageError, match=match):
            read_image(path)


def test_a_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_inflater", lambda: tiff._inflate)
    bomb = zlib.compress(bytes(200_000_000))
    path = restripped(tmp_path / "a.tif", [bomb], rows=20)
    tracemalloc.start()
    with pytest.raises(ImageError, match="more than 1200 bytes in a strip"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


# ------------------------------------------------------------------------------------------- never the pixels


class Recorder(FileIO):
    """A file that remembers which of its bytes were read."""

    read_bytes: set[int] = set()

    def read(self, size=-1):
        place = self.tell()
        data = super().read(size)
        Recorder.read_bytes |= set(range(place, place + len(data)))
        return data


def bytes_read_by_header(path, monkeypatch):
    monkeypatch.setattr(images, "FileIO", Recorder)
    monkeypatch.setattr(Recorder, "read_bytes", set())
    read_header(path)
    return Recorder.read_bytes


@pytest.mark.parametrize("layout", LAYOUTS, ids=["one strip", "strips", "tiles"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("ours", [False, True], ids=["directory first", "directory last"])
def test_header_of_tiff_reads_no_pixel(tmp_path, monkeypatch, layout, bigtiff, ours):
    path = tmp_path / "a.tif"
    if ours:
        write_image(path, nucleus((100, 300)))
    else:
        tifffile.imwrite(path, nucleus((100, 300)), bigtiff=bigtiff, **layout)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        segments = zip(page.dataoffsets, page.databytecounts, strict=True)
        pixels = {byte for start, length in segments for byte in range(start, start + length)}
    read = bytes_read_by_header(path, monkeypatch)
    assert len(pixels) > 20_000
    assert len(read) > 100  # the recorder was in use
    assert not read & pixels


def test_header_of_png_reads_no_pixel(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, nucleus((300, 400)))
    data, place, pixels = path.read_bytes(), 8, set()
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"IDAT":
            pixels |= set(range(place + 8, place + 8 + length))
        place += length + 12
    read = bytes_read_by_header(path, monkeypatch)
    assert len(pixels) > 100_000
    assert len(read) > 40
    assert not read & pixels


# ------------------------------------------------------------------------------------------- what is not right


def patched(path, code, value, kind=None):
    """The file with another value in one of its (classic, little-endian) tags."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags[code]
    data[tag.offset + 8 : tag.offset + 12] = struct.pack("<I", value)
    if kind is not None:
        data[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", kind)
    path.write_bytes(data)
    return path


def assert_both_refuse(path, match):
    for read in (read_header, read_image):
        with pytest.raises(ImageError, match=match) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a TIFF or PNG file: it is empty"),
        (b"filename,dose_Gy\n", "not a TIFF or PNG file: it starts with"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "not a TIFF or PNG file"),
        (b"II*\0", "truncated"),
        (b"II*\0\x08\0\0\0", "truncated"),
        (b"MM\0*\0\0\0\x08\xff\xff", "truncated"),
        (b"II*\0\x08\0\0\0" + bytes(8), "tag 257 is missing"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 40, "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "the PNG header does not check"),
        (png_bytes(np.zeros((3, 4), np.uint8)).replace(b"\0\0\0\3", b"\0\0\0\5"), "the PNG header does not check"),
    ],
)
def test_what_is_no_image_is_refused_by_name_and_reason(tmp_path, content, match):
    path = tmp_path / "P242.tif"
    path.write_bytes(content)
    assert_both_refuse(path, match)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_file_cut_anywhere_is_refused(tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_image(whole, nucleus((60, 70)), "")
    data = whole.read_bytes()
    for length in [*range(0, 300, 7), *range(300, len(data), 97), *range(len(data) - 13, len(data))]:
        path.write_bytes(data[:length])
        assert_both_refuse(path, "truncated|empty|not a TIFF or PNG")


def test_a_cut_file_with_its_directory_first_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, nucleus())
    path.write_bytes(path.read_bytes()[:-10])
    assert_both_refuse(path, "truncated: pixels reach to byte")


@pytest.mark.parametrize(
    ("code", "value", "kind", "match"),
    [
        (256, 0, 4, "declares 141 x 0 pixels"),
        (257, 7_000_000, 4, "declares 7000000 x 149 pixels"),
        (256, 2**32 - 1, 4, "declares 141 x 4294967295 pixels"),
        (257, 900, None, "34 strips or tiles are needed"),
        (278, 0, None, "strips or tiles of 0 x 149"),
        (258, 12, None, r"12\] bits|cannot be decoded"),
        (339, 6, None, r"format \[6\]"),
        (259, 60000, None, "unsupported compression 60000"),
        (262, 3, None, "palette"),
        (256, 1, 5, "type 5"),
        (256, 1, 12, "type 12"),
        (256, 1, 99, "type 99"),
        (273, 2**32 - 1, None, "truncated"),
        (305, 2**32 - 1, None, "truncated"),
        (277, 0, None, "declares"),
        (277, 3, None, "cannot be decoded|bits"),
    ],
)
def test_odd_tags_are_refused(real_like, code, value, kind, match):
    path = patched(real_like, code, value, kind)
    if (code, value) in ((277, 3), (258, 12)):  # the header alone cannot tell, if imagecodecs can unpack 12 bits
        with pytest.raises(ImageError, match=match):
            read_image(path)
    else:
        assert_both_refuse(path, match)


def test_a_strip_without_data_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    write_image(path, nucleus((10, 10)))
    assert_both_refuse(patched(path, 279, 0), "without data")


def test_more_than_a_gigapixel_is_refused_in_png_too(tmp_path):
    data = bytearray(png_bytes(nucleus((3, 4))))
    data[16:24] = struct.pack(">II", 40_000, 25_001)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    assert_both_refuse(tmp_path / "a.png", "declares 25001 x 40000 pixels; 1 to 1,000,000,000 are supported")


@pytest.mark.parametrize(("depth", "colour"), [(8, 3), (1, 0), (4, 0), (16, 2), (16, 4), (16, 6)])
def test_png_that_pillow_would_change_is_refused(tmp_path, depth, colour):
    (tmp_path / "a.png").write_bytes(png_bytes(np.zeros((4, 8), np.uint8), depth, colour))
    assert_both_refuse(tmp_path / "a.png", f"unsupported PNG: {depth} bits, colour type {colour}")


def outcome(function, *args):
    """What a call gives: an array as bytes with its type and shape, or the error's text."""
    try:
        image = function(*args)
    except ImageError as error:
        return str(error)
    return image.dtype, image.shape, image.tobytes()


@FUZZ
@given(data=st.data(), kind=st.sampled_from(["ours", "tiles", "big-endian", "big", "rgb", "png", "png16"]))
def test_from_memory_and_from_disk_pixels_and_errors_are_the_same(tmp_path, kind, data):
    whole = bytearray(_sample(tmp_path / f"whole-{kind}", kind))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=2)):
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    content, path = bytes(whole[: data.draw(st.one_of(st.none(), st.integers(0, len(whole))))]), tmp_path / "a"
    path.write_bytes(content)
    assert outcome(read_image, path) == outcome(decode_image, content, str(path))


def test_a_chain_of_directories_that_loops_ends(real_like):
    data = bytearray(real_like.read_bytes())
    (place,) = struct.unpack("<I", data[4:8])
    data[place + 146 : place + 150] = struct.pack("<I", place)  # the next directory is this one
    real_like.write_bytes(data)
    assert read_header(real_like).shape == REAL_SHAPE
    np.testing.assert_array_equal(read_image(real_like), nucleus())


def test_a_missing_file_and_a_folder_are_the_systems_errors(tmp_path):
    for read in (read_header, read_image):
        with pytest.raises(FileNotFoundError, match="none.tif"):
            read(tmp_path / "none.tif")
        with pytest.raises(IsADirectoryError, match="directory"):
            read(tmp_path)


def test_a_failing_disk_is_not_the_images_fault(tmp_path, monkeypatch):
    def fail(file, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, nucleus((40, 40)), tile=(16, 16))  # of a kind that tifffile decodes
    monkeypatch.setattr(tifffile, "TiffFile", fail)
    with pytest.raises(OSError, match="Errno 5") as caught:
        read_image(path)
    assert not isinstance(caught.value, ImageError)


def only_image_errors(path, data):
    path.write_bytes(data)
    for read in (read_header, read_image):
        with contextlib.suppress(ImageError):
            read(path)


STARTS = [b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0", b"\x89PNG\r\n\x1a\n"]


@FUZZ
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=400))
def test_random_bytes_give_image_errors_only(tmp_path, start, rest):
    only_image_errors(tmp_path / "a", start + rest)


@pytest.mark.parametrize("kind", ["ours", "tiles", "big-endian", "big", "rgb", "png", "png16"])
@FUZZ
@given(data=st.data())
def test_flipped_bits_give_image_errors_only(tmp_path, kind, data):
    whole = bytearray(_sample(tmp_path / "whole", kind))
    # Half of the flips hit the header or the directory, where they do the most harm.
    ends = st.one_of(st.integers(0, min(300, len(whole)) - 1), st.integers(max(0, len(whole) - 300), len(whole) - 1))
    for place in data.draw(st.lists(st.one_of(ends, st.integers(0, len(whole) - 1)), min_size=1, max_size=4)):
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    only_image_errors(tmp_path / "a", bytes(whole[: data.draw(st.one_of(st.none(), st.integers(0, len(whole))))]))


def _sample(path, kind):
    if path.exists():
        return path.read_bytes()
    image = nucleus((20, 30))
    rgb = (image[..., None] // np.array([9, 10, 11])).astype(np.uint8)
    if kind == "ours":
        write_image(path.with_suffix(".tif"), image)
        return path.with_suffix(".tif").read_bytes()
    if kind.startswith("png"):
        write_image(path.with_suffix(".png"), image if kind == "png16" else rgb)
        return path.with_suffix(".png").read_bytes()
    options = {"tiles": {"tile": (16, 16)}, "big-endian": {"byteorder": ">"}, "big": {"bigtiff": True}}
    tifffile.imwrite(path, rgb if kind == "rgb" else image, **options.get(kind, {}))
    return path.read_bytes()


# ------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("name", "image", "match"),
    [
        ("a.jpg", np.zeros((2, 2), np.uint16), "writes .tif, .tiff and .png"),
        ("a.tif", np.zeros((2, 2), np.float32), "takes .H, W. uint16; got float32"),
        ("a.tif", np.zeros((2, 2, 3), np.uint16), r"of shape \(2, 2, 3\)"),
        ("a.tif", np.zeros((0, 2), np.uint16), r"of shape \(0, 2\)"),
        ("a.png", np.zeros((2, 2, 3), np.uint16), "or uint8 grey, RGB or RGBA"),
        ("a.png", np.zeros((2, 2, 2), np.uint8), "or uint8 grey, RGB or RGBA"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, image, match):
    with pytest.raises(ValueError, match=match):
        write_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    write_image(path, nucleus())

    def write_half(self, target, *args, **options):
        (self if suffix == ".tif" else target).open("wb").write(b"half")
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("pathlib.Path.write_bytes", write_half)
    monkeypatch.setattr(Image.Image, "save", write_half)
    with pytest.raises(OSError, match="no space"):
        write_image(path, nucleus(seed=1))
    np.testing.assert_array_equal(read_image(path), nucleus())
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------- to_float


def test_to_float_scales_by_the_declared_range_alone():
    image = np.array([[0, 257], [2470, 65535]], np.uint16)
    scaled = to_float(image)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, np.array([[0, 257], [2470, 65535]]) / 65535, rtol=1e-6)
    np.testing.assert_allclose(to_float(image[:1], (257, 2470)), [[-257 / 2213, 0]], rtol=1e-6)


def test_to_float_is_the_same_for_arrays_and_tensors():
    image = nucleus()
    tensor = to_float(torch.from_numpy(image), (200, 3000))
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), to_float(image, (200, 3000)))


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, float("nan"))])
def test_to_float_refuses_a_range_that_is_none(value_range):
    with pytest.raises(ValueError, match="low < high"):
        to_float(nucleus(), value_range)
