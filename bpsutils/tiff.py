"""The inside of a TIFF file: its directory of tags, where its pixels stand, and how they are inflated (notebook 12).

TIFF 6.0 and BigTIFF, strips or tiles, either byte order. Plain files (strips, stored as they are or by Deflate) are
decoded here; every other kind goes to tifffile, which knows hundreds. What would come out wrong in silence is refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO, FileIO
from operator import add
from typing import Literal, cast

import numpy as np
import tifffile

MAX_PIXELS = 1_000_000_000
MAX_TEXT = 1000
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class ImageError(ValueError):
    """An image file that cannot be read; the message names the file and the reason."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image, read without its pixels.

    Attributes:
        height: Rows, in pixels.
        width: Columns, in pixels.
        dtype: Type of a stored value, in this machine's byte order.
        channels: Values per pixel: 1 for grey, 3 for RGB.
        software: The program that wrote the file, where it says so.
    """

    height: int
    width: int
    dtype: np.dtype
    channels: int = 1
    software: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that `read_image` returns."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)


class Source:
    """A file, or bytes in memory, read piece by piece, each piece named by its place."""

    def __init__(self, file: FileIO | BytesIO) -> None:
        self.file = file
        self.size = file.seek(0, os.SEEK_END)

    def take(self, offset: int, length: int) -> bytes:
        """Read ``length`` bytes from ``offset`` on, or raise `ImageError`: never fewer."""
        # Asked before reading: a corrupt length must not allocate memory.
        if offset + length > self.size:
            raise ImageError(f"truncated: byte {offset + length} is needed, the file has {self.size}")
        self.file.seek(offset)
        piece = self.file.read(length)
        if len(piece) < length:
            raise ImageError(f"truncated at byte {offset + len(piece)} while it was read")
        return piece

    def rewound(self) -> FileIO | BytesIO:
        """The file for another reader, who expects to stand at its beginning."""
        self.file.seek(0)
        return self.file


def check_size(header: ImageHeader) -> None:
    """Refuse an image without pixels, and one of more than `MAX_PIXELS`."""
    if not 0 < header.height * header.width <= MAX_PIXELS or header.channels < 1:
        raise ImageError(f"declares {header.height} x {header.width} pixels; 1 to {MAX_PIXELS:,} are supported")


# ------------------------------------------------------------------------------------------------------ directory

_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # TIFF's unsigned types, as struct spells them
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat; 4 is "undefined", which is read as unsigned
_DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


class Tags:
    """The first directory of tags of a TIFF file; values that do not fit in it are read when asked for."""

    def __init__(self, source: Source) -> None:
        start = source.take(0, min(8, source.size))
        if len(start) < 8:
            raise ImageError(f"truncated: {len(start)} bytes are no TIFF file")
        self.source = source
        self.order: Literal["<", ">"] = "<" if start[:2] == b"II" else ">"
        self.big = 43 in start[2:4]
        if self.big:  # 20-byte entries instead of 12, 8-byte counts and offsets instead of 2 and 4
            self.entry, self.offset = struct.Struct(self.order + "HHQ8s"), struct.Struct(self.order + "Q")
            (place,) = self.offset.unpack(source.take(8, 8))
            (count,) = self.offset.unpack(source.take(place, 8))
        else:
            self.entry, self.offset = struct.Struct(self.order + "HHI4s"), struct.Struct(self.order + "I")
            (place,) = self.offset.unpack(start[4:])
            (count,) = struct.unpack(self.order + "H", source.take(place, 2))
        table = source.take(place + (8 if self.big else 2), count * self.entry.size)
        # Only the first directory is asked for, so a chain of directories that loops does no harm.
        self.entries = {code: entry for code, *entry in self.entry.iter_unpack(table)}

    def numbers(self, code: int, default: int | None = None) -> tuple[int, ...]:
        """The values of a tag of whole numbers, or the default where the tag is missing."""
        if code not in self.entries:
            if default is None:
                raise ImageError(f"TIFF tag {code} is missing")
            return (default,)
        kind, count, inline = self.entries[code]
        if kind not in _LETTERS or count < 1:
            raise ImageError(f"TIFF tag {code} has type {kind} and {count} values; expected whole numbers")
        return struct.unpack(f"{self.order}{count}{_LETTERS[kind]}", self._raw(kind, count, inline))

    def text(self, code: int) -> str:
        """The text of a tag, or nothing."""
        kind, count, inline = self.entries.get(code, (2, 0, b""))
        if kind != 2:
            return ""
        return self._raw(kind, min(count, MAX_TEXT), inline).split(b"\0")[0].decode("utf-8", "replace")

    def _raw(self, kind: int, count: int, inline: bytes) -> bytes:
        length = count * struct.calcsize("=" + _LETTERS.get(kind, "s"))
        if length <= len(inline):
            return inline[:length]
        (place,) = self.offset.unpack(inline)
        return self.source.take(place, length)


@dataclass(frozen=True)
class Tiff:
    """The first page of a TIFF file: its header, its tags, and where the strips or tiles of its pixels stand."""

    header: ImageHeader
    tags: Tags
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]


def read_tiff(source: Source) -> Tiff:
    """Read and check the directory of a TIFF file, and none of its pixels.

    Raises:
        ImageError: If the file is truncated, corrupt or of an unsupported kind; without the file's name.
        OSError: If the disk fails.
    """
    tags = Tags(source)
    (height, *_), (width, *_), (channels, *_) = tags.numbers(257), tags.numbers(256), tags.numbers(277, 1)
    header = ImageHeader(height, width, _dtype(tags), channels, tags.text(305))
    check_size(header)
    return Tiff(header, tags, *_segments(tags, header))


def _dtype(tags: Tags) -> np.dtype:
    bits, formats = set(tags.numbers(258, 1)), set(tags.numbers(339, 1))
    dtype = sample_dtype(min(bits), min(formats)) if len(bits) == len(formats) == 1 else None
    if dtype is None:
        dtype = _odd_dtype(tags.source, bits, formats)
    if tags.numbers(262, 1)[0] == 3:
        raise ImageError("unsupported: a palette image stores colour numbers; convert it to grey or RGB")
    compression = tags.numbers(259, 1)[0]
    if not can_decompress(compression):
        raise ImageError(f"unsupported compression {compression}: `pip install imagecodecs` may add it")
    return dtype


def sample_dtype(bits: int, kind: int) -> np.dtype | None:
    """The type of a sample of so many bits and this number in the tag SampleFormat; None if NumPy has none."""
    name = f"{_KINDS.get(kind)}{bits // 8}"
    return np.dtype(name) if bits % 8 == 0 and name in _DTYPES else None


def can_decompress(compression: int) -> bool:
    """Whether tifffile, with what is installed beside it, knows the compression of this number."""
    try:
        return bool(tifffile.TIFF.DECOMPRESSORS[compression] is not None or compression == 1)
    except KeyError:
        return False


def _odd_dtype(source: Source, bits: set[int], formats: set[int]) -> np.dtype:
    """What tifffile makes of samples that fill no whole bytes, such as 1 or 12 bits, or 5, 6 and 5."""
    reason = f"unsupported: {sorted(bits)} bits a sample of format {sorted(formats)}"
    try:
        with tifffile.TiffFile(source.rewound(), name="image") as tiff:
            dtype = tiff.pages.first.dtype
    except Exception as error:
        raise ImageError(f"{reason} ({error})") from error
    if dtype is None or dtype.kind not in "buif":  # complex numbers are no grey levels
        raise ImageError(reason)
    if len(bits) == 1 and bits != {1} and find_spec("imagecodecs") is None:
        raise ImageError(f"{reason}: `pip install imagecodecs` may add it")
    return np.dtype(dtype)


def _segments(tags: Tags, header: ImageHeader) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Every strip or tile must be listed and inside the file: tifffile would fill the others with zeros."""
    planes = header.channels if tags.numbers(284, 1)[0] == 2 else 1
    if 322 in tags.entries:
        codes = 324, 325
        across, down = tags.numbers(322)[0], tags.numbers(323)[0]
    else:
        codes = 273, 279
        across, down = header.width, tags.numbers(278, header.height)[0]
    if across < 1 or down < 1:
        raise ImageError(f"corrupt: strips or tiles of {down} x {across} pixels")
    expected = planes * -(-header.height // down) * -(-header.width // across)
    listed = {tags.entries[code][1] if code in tags.entries else 0 for code in codes}
    if listed != {expected}:
        raise ImageError(f"corrupt: {expected} strips or tiles are needed, {sorted(listed)} are listed")
    offsets, lengths = tags.numbers(codes[0]), tags.numbers(codes[1])
    if min(lengths) < 1:
        raise ImageError("unsupported: a strip or tile without data")
    end = max(map(add, offsets, lengths))
    if end > tags.source.size:
        raise ImageError(f"truncated: pixels reach to byte {end}, the file has {tags.source.size}")
    return offsets, lengths


# --------------------------------------------------------------------------------------------------------- pixels

_DEFLATE = (8, 32946)  # the number that the standard gives, and the older one of the data set's files
# What a plain file says, by tag: compression, grey or RGB, order of bits, interleaved channels, predictor, depth.
_PLAIN = {259: (1, *_DEFLATE), 262: (0, 1, 2), 266: (1,), 284: (1,), 317: (1,), 32997: (1,)}


def tiff_pixels(tiff: Tiff) -> np.ndarray:
    """Decode the pixels of a file whose directory is read.

    Returns:
        Array that has the header's shape after a `reshape`, in the file's byte order or this machine's.

    Raises:
        Exception: If the pixels cannot be decoded; of many kinds, for there are many decoders.
    """
    plain = all(tiff.tags.numbers(code, 1)[0] in values for code, values in _PLAIN.items())
    if plain and 322 not in tiff.tags.entries:
        pieces = _strips(tiff)  # also checks lengths where 12 bits, say, are left to tifffile
        if set(tiff.tags.numbers(258, 1)) == {8 * tiff.header.dtype.itemsize}:
            return np.frombuffer(bytearray().join(pieces), tiff.header.dtype.newbyteorder(tiff.tags.order))
    return _by_tifffile(tiff)


def _strips(tiff: Tiff) -> list[bytes]:
    header, tags = tiff.header, tiff.tags
    bits = tags.numbers(258, 1)
    row = -(-header.width * (sum(bits) if len(bits) == header.channels else bits[0] * header.channels) // 8)
    rows = min(tags.numbers(278, header.height)[0], header.height)
    deflated = tags.numbers(259, 1)[0] in _DEFLATE
    pieces = []
    for number, (offset, length) in enumerate(zip(tiff.offsets, tiff.lengths, strict=True)):
        expected = row * min(rows, header.height - number * rows)
        piece = tags.source.take(offset, length)
        if deflated:
            piece = _inflater()(piece, row * rows)
        # Some programs fill the last strip up to the height of the others; those rows are no pixels.
        if len(piece) not in (expected, row * rows):
            raise ImageError(f"strip {number + 1} holds {len(piece)} bytes, expected {expected}")
        pieces.append(piece[:expected])
    return pieces


@cache
def _inflater() -> Callable[[bytes, int], bytes]:
    """The fastest way to inflate that is installed; called with the bytes and the most that may come out."""
    try:
        imagecodecs = import_module("imagecodecs")
    except ImportError:
        return _inflate
    return lambda data, most: cast("bytes", imagecodecs.deflate_decode(data, out=most))


def _inflate(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    piece = stream.decompress(data, most + 1)  # no more than this: a few bytes could inflate to gigabytes
    if not stream.eof:
        raise ImageError(f"more than {most} bytes in a strip" if len(piece) > most else "a strip ends too early")
    return piece


def _by_tifffile(tiff: Tiff) -> np.ndarray:
    header = tiff.header
    with tifffile.TiffFile(tiff.tags.source.rewound(), name="image") as file:
        page = file.pages.first
        # One thread: tifffile's own threads fight with those of a loader's workers.
        pixels = page.asarray(maxworkers=1)
        if header.channels > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            return np.moveaxis(pixels.reshape(header.channels, header.height, header.width), 0, -1)
        return pixels


# -------------------------------------------------------------------------------------------------------- writing


_STRIP_BYTES = 8192  # before compression, at most, as the microscope's program has it


def tiff_bytes(image: np.ndarray, software: str) -> bytes:
    """The file that `write_image` writes for an ``(H, W)`` uint16 array."""
    height, width = image.shape
    rows = min(height, max(1, _STRIP_BYTES // (2 * width)))
    strips = [zlib.compress(image[top : top + rows].astype("<u2").tobytes()) for top in range(0, height, rows)]
    lengths = [len(strip) for strip in strips]
    offsets = [8 + sum(lengths[:n]) for n in range(len(strips))]
    pixels = b"".join(strips) + b"\0" * (sum(lengths) % 2)  # the directory starts on an even byte
    text = software.encode("ascii") + b"\0"
    tags = [(256, "H", [width]), (257, "H", [height]), (258, "H", [16]), (259, "H", [32946]), (262, "H", [1])]
    tags += [(273, "I", offsets), (277, "H", [1]), (278, "H", [rows]), (279, "I", lengths), (296, "H", [3])]
    tags += [(305, "s", [text]), (339, "H", [1])]
    directory, after = struct.pack("<H", len(tags)), b""
    end = 8 + len(pixels) + 2 + 12 * len(tags) + 4
    for code, letter, values in tags:
        count, form = (len(text), f"{len(text)}s") if letter == "s" else (len(values), f"{len(values)}{letter}")
        value = struct.pack("<" + form, *values)
        if len(value) > 4:
            value, after = struct.pack("<I", end + len(after)), after + value
        directory += struct.pack("<HHI", code, {"s": 2, "H": 3, "I": 4}[letter], count) + value.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + directory + bytes(4) + after
