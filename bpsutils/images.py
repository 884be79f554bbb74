"""Read and write microscopy images without changing a grey level (notebook 01).

A header says how large an image is; it costs a few hundred bytes of reading, where the pixels cost thousands.
Formats: TIFF 6.0 and BigTIFF (strips or tiles, either byte order), and PNG (ISO/IEC 15948).
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import tifffile
import torch
from PIL import Image, PngImagePlugin

from bpsutils.config import atomically

MAX_PIXELS = 1_000_000_000
_MAX_TEXT = 1000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

PathLike = str | os.PathLike[str]
Array = TypeVar("Array", np.ndarray, torch.Tensor)


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


def read_header(path: PathLike) -> ImageHeader:
    """Read size and type of an image from its header and tag directory, never its pixels.

    A TIFF with several pages is described by its first.

    Args:
        path: A TIFF or PNG file; its content counts, not its suffix.

    Raises:
        ImageError: If the file is empty, truncated, no image, over 1 gigapixel, or of an unsupported kind.
        OSError: If the file cannot be opened or the disk fails.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/dark.tif", np.zeros((79, 114), np.uint16))
        ...     read_header(f"{folder}/dark.tif").shape
        (79, 114)
    """
    return _inspect(path)[0]


def read_image(path: PathLike) -> np.ndarray:
    """Read an image as it is stored: 16 bits stay 16 bits.

    Args:
        path: A TIFF or PNG file. Of a TIFF with several pages, the first is read.

    Returns:
        Array of shape ``(H, W)``, or ``(H, W, C)`` with more than one channel, in the stored dtype.

    Raises:
        ImageError: As `read_header`, or if the pixels cannot be decoded.
        OSError: If the file cannot be opened or the disk fails.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_image(f"{folder}/two.png", np.array([[257, 2470]], np.uint16))
        ...     read_image(f"{folder}/two.png").tolist()
        [[257, 2470]]
    """
    header, decode = _inspect(path)
    try:
        # Older Pillow gives 16-bit grey as 32-bit numbers; the values are the same.
        return decode(path, header).astype(header.dtype, copy=False).reshape(header.shape)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise  # the disk failed, not the file: another try may succeed
        raise ImageError(f"{path}: the pixels cannot be decoded ({error})") from error
    except Exception as error:
        raise ImageError(f"{path}: the pixels cannot be decoded ({error})") from error


def to_float(image: Array, value_range: tuple[float, float] = (0, 65535)) -> Array:
    """Scale grey levels to float32 by a declared range, never by the image's own.

    Args:
        image: Array or tensor of any shape and number type.
        value_range: Grey levels that become 0 and 1. Values outside land outside 0 and 1, they are not cut.

    Returns:
        float32 array or tensor of the same shape.

    Raises:
        ValueError: If the range is empty or upside down.

    Example:
        >>> to_float(np.array([0, 65535], np.uint16)).tolist()
        [0.0, 1.0]
        >>> to_float(torch.tensor([400, 500]), (400, 600)).tolist()
        [0.0, 0.5]
    """
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high) with low < high, got {value_range}")
    # Float first: uint16 arithmetic wraps in NumPy and is missing in torch.
    if isinstance(image, torch.Tensor):
        return (image.to(torch.float32) - low) / (high - low)
    return (image.astype(np.float32) - np.float32(low)) / np.float32(high - low)


def write_image(path: PathLike, image: np.ndarray, software: str = "bpsutils simulation") -> None:
    """Write a TIFF in the format of the BPS data set, or a PNG, by the path's suffix.

    The TIFF is what the microscope's files are: uint16, one page, Deflate (tag value 32946), strips of at most
    8 kB (27 rows of 149 px), the tag directory at the end. A file is there whole or not at all.

    Args:
        path: Ends with ``.tif``, ``.tiff`` or ``.png``.
        image: ``(H, W)`` uint16 for TIFF; for PNG also ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` uint8.
        software: Stored as the program that made the image.

    Raises:
        ValueError: If the suffix is another, or the format does not take this array.

    Example:
        >>> write_image("nucleus.jpg", np.zeros((2, 2), np.uint16))
        Traceback (most recent call last):
            ...
        ValueError: nucleus.jpg: write_image writes .tif, .tiff and .png (JPEG would change grey levels)
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".tif", ".tiff", ".png"):
        raise ValueError(f"{path}: write_image writes .tif, .tiff and .png (JPEG would change grey levels)")
    grey16 = image.dtype == np.uint16 and image.ndim == 2
    colour8 = image.dtype == np.uint8 and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4)))
    if not image.size or not (grey16 or (suffix == ".png" and colour8)):
        raise ValueError(
            f"{path}: {suffix} takes (H, W) uint16{', or uint8 grey, RGB or RGBA' if suffix == '.png' else ''}; "
            f"got {image.dtype} of shape {image.shape}"
        )
    with atomically(path) as temporary:
        if suffix == ".png":
            text = PngImagePlugin.PngInfo()
            text.add_text("Software", software)
            Image.fromarray(image).save(temporary, format="png", pnginfo=text)
        else:
            temporary.write_bytes(_tiff_bytes(image, software))


# ------------------------------------------------------------------------------------------------- which format

_Decode = Callable[[PathLike, ImageHeader], np.ndarray]


class _Source:
    """A file read piece by piece, each piece named by its place."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def take(self, offset: int, length: int) -> bytes:
        # Asked before reading: a corrupt length must not allocate memory.
        if offset + length > self.size:
            raise ImageError(f"truncated: byte {offset + length} is needed, the file has {self.size}")
        self.file.seek(offset)
        piece = self.file.read(length)
        if len(piece) < length:
            raise ImageError(f"truncated at byte {offset + len(piece)} while it was read")
        return piece


def _inspect(path: PathLike) -> tuple[ImageHeader, _Decode]:
    # Unbuffered: a buffer would read 8 kB of pixels to get at 8 bytes of header.
    with FileIO(path) as file:
        source = _Source(file)
        try:
            start = source.take(0, min(8, source.size))
            if start == PNG_SIGNATURE:
                return _png_header(source), _decode_png
            if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return _tiff_header(source, start), _decode_tiff
            raise ImageError(f"not a TIFF or PNG file: it {f'starts with {start!r}' if start else 'is empty'}")
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from None


def _check_size(header: ImageHeader) -> None:
    if not 0 < header.height * header.width <= MAX_PIXELS or header.channels < 1:
        raise ImageError(f"declares {header.height} x {header.width} pixels; 1 to {MAX_PIXELS:,} are supported")


# --------------------------------------------------------------------------------------------------------- TIFF

_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # TIFF's unsigned types, as struct spells them
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat; 4 is "undefined", which is read as unsigned
_DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


class _Tags:
    """The first directory of tags of a TIFF file; values that do not fit in it are read when asked for."""

    def __init__(self, source: _Source, start: bytes) -> None:
        self.source = source
        self.order = "<" if start[:2] == b"II" else ">"
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
        if code not in self.entries:
            if default is None:
                raise ImageError(f"TIFF tag {code} is missing")
            return (default,)
        kind, count, inline = self.entries[code]
        if kind not in _LETTERS or count < 1:
            raise ImageError(f"TIFF tag {code} has type {kind} and {count} values; expected whole numbers")
        return struct.unpack(f"{self.order}{count}{_LETTERS[kind]}", self._raw(kind, count, inline))

    def text(self, code: int) -> str:
        kind, count, inline = self.entries.get(code, (2, 0, b""))
        if kind != 2:
            return ""
        return self._raw(kind, min(count, _MAX_TEXT), inline).split(b"\0")[0].decode("utf-8", "replace")

    def _raw(self, kind: int, count: int, inline: bytes) -> bytes:
        length = count * struct.calcsize("=" + _LETTERS.get(kind, "s"))
        if length <= len(inline):
            return inline[:length]
        (place,) = self.offset.unpack(inline)
        return self.source.take(place, length)


def _tiff_header(source: _Source, start: bytes) -> ImageHeader:
    if len(start) < 8:
        raise ImageError(f"truncated: {len(start)} bytes are no TIFF file")
    tags = _Tags(source, start)
    (height, *_), (width, *_), (channels, *_) = tags.numbers(257), tags.numbers(256), tags.numbers(277, 1)
    header = ImageHeader(height, width, _tiff_dtype(tags), channels, tags.text(305))
    _check_size(header)
    _check_segments(tags, header, source.size)
    return header


def _tiff_dtype(tags: _Tags) -> np.dtype:
    bits, formats = set(tags.numbers(258, 1)), set(tags.numbers(339, 1))
    name = f"{_KINDS.get(min(formats))}{min(bits) // 8}"
    if len(bits) > 1 or len(formats) > 1 or min(bits) % 8 or name not in _DTYPES:
        raise ImageError(f"unsupported: {sorted(bits)} bits a sample of format {sorted(formats)}")
    if tags.numbers(262, 1)[0] == 3:
        raise ImageError("unsupported: a palette image stores colour numbers; convert it to grey or RGB")
    compression = tags.numbers(259, 1)[0]
    try:
        tifffile.TIFF.DECOMPRESSORS[compression]
    except KeyError as error:
        raise ImageError(f"unsupported compression {compression}: `pip install imagecodecs` may add it") from error
    return np.dtype(name)


def _check_segments(tags: _Tags, header: ImageHeader, file_size: int) -> None:
    """Every strip or tile must be listed and inside the file: tifffile would fill the others with zeros."""
    planes = header.channels if tags.numbers(284, 1)[0] == 2 else 1
    if 322 in tags.entries:
        offsets, counts = 324, 325
        across, down = tags.numbers(322)[0], tags.numbers(323)[0]
    else:
        offsets, counts = 273, 279
        across, down = header.width, tags.numbers(278, header.height)[0]
    if across < 1 or down < 1:
        raise ImageError(f"corrupt: strips or tiles of {down} x {across} pixels")
    expected = planes * -(-header.height // down) * -(-header.width // across)
    listed = {tags.entries[code][1] if code in tags.entries else 0 for code in (offsets, counts)}
    if listed != {expected}:
        raise ImageError(f"corrupt: {expected} strips or tiles are needed, {sorted(listed)} are listed")
    places, lengths = np.array(tags.numbers(offsets), object), np.array(tags.numbers(counts), object)
    if min(lengths) < 1:
        raise ImageError("unsupported: a strip or tile without data")
    if max(places + lengths) > file_size:
        raise ImageError(f"truncated: pixels reach to byte {max(places + lengths)}, the file has {file_size}")


def _decode_tiff(path: PathLike, header: ImageHeader) -> np.ndarray:
    with tifffile.TiffFile(os.fspath(path)) as tiff:
        page = tiff.pages.first
        # One thread: tifffile's own threads fight with those of a loader's workers.
        pixels = page.asarray(maxworkers=1)
        if header.channels > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            return np.moveaxis(pixels.reshape(header.channels, header.height, header.width), 0, -1)
        return pixels


def _tiff_bytes(image: np.ndarray, software: str) -> bytes:
    height, width = image.shape
    rows = min(height, max(1, 8192 // (2 * width)))
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


# ---------------------------------------------------------------------------------------------------------- PNG

_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type: grey, RGB, grey and alpha, RGBA
_MAX_CHUNKS = 1_000_000


def _png_header(source: _Source) -> ImageHeader:
    length, kind, width, height, depth, colour, _, _, _, crc = struct.unpack(">I4sIIBBBBBI", source.take(8, 25))
    if kind != b"IHDR" or length != 13 or crc != zlib.crc32(source.take(12, 17)):
        raise ImageError("corrupt: the PNG header does not check")
    # 16-bit colour is left out too: Pillow would cut it to 8 bits without a word.
    if colour not in _PNG_CHANNELS or not (depth == 8 or (depth == 16 and colour == 0)):
        raise ImageError(
            f"unsupported PNG: {depth} bits, colour type {colour}; store it as 8-bit grey or RGB, 16-bit grey, or TIFF"
        )
    header = ImageHeader(height, width, np.dtype(f"u{depth // 8}"), _PNG_CHANNELS[colour], _png_software(source))
    _check_size(header)
    return header


def _png_software(source: _Source) -> str:
    """Walk from chunk to chunk to the end (so that a cut-off file is noticed), reading text chunks only."""
    software, place = "", 33
    for _ in range(_MAX_CHUNKS):
        length, kind = struct.unpack(">I4s", source.take(place, 8))
        if kind == b"tEXt" and not software:
            keyword, _, text = source.take(place + 8, min(length, _MAX_TEXT)).partition(b"\0")
            software = text.decode("latin-1") if keyword == b"Software" else ""
        place += length + 12
        if place > source.size:
            raise ImageError(f"truncated: byte {place} is needed, the file has {source.size}")
        if kind == b"IEND":
            return software
    raise ImageError(f"unsupported: a PNG file of more than {_MAX_CHUNKS} chunks")


def _decode_png(path: PathLike, header: ImageHeader) -> np.ndarray:
    # Not Image.open: it would try every other format, and refuse images that are merely large.
    with PngImagePlugin.PngImageFile(os.fspath(path)) as image:
        return np.asarray(image)
