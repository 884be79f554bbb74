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
from functools import partial
from io import BytesIO, FileIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from bpsutils.config import atomically
from bpsutils.tiff import (
    MAX_TEXT,
    SIGNATURES,
    ImageError,
    ImageHeader,
    Source,
    check_size,
    read_tiff,
    tiff_bytes,
    tiff_pixels,
)

__all__ = [
    "ImageError",
    "ImageHeader",
    "PathLike",
    "decode_image",
    "header_of",
    "read_header",
    "read_image",
    "to_float",
    "write_image",
]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WHOLE = 1 << 24  # files of up to 16 MB are read by one request

PathLike = str | os.PathLike[str]
Array = TypeVar("Array", np.ndarray, torch.Tensor)


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
    # Unbuffered: a buffer would read 8 kB of pixels to get at 8 bytes of header.
    with FileIO(path) as file:
        return header_of(file, path)


def header_of(file: FileIO, name: PathLike) -> ImageHeader:
    """`read_header` of a file that is open already; ``name`` is what error messages call it."""
    return _inspect(Source(file), name)[0]


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
    with FileIO(path) as file:
        # One request where a file is small; of a large one only what its first page needs.
        small = os.fstat(file.fileno()).st_size <= _WHOLE
        return _decode(Source(BytesIO(file.read()) if small else file), path)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """`read_image` of a file that is in memory already, such as an object from a bucket.

    Args:
        data: The whole content of a TIFF or PNG file.
        name: What error messages call it.

    Returns:
        Array of shape ``(H, W)``, or ``(H, W, C)`` with more than one channel, in the stored dtype.

    Raises:
        ImageError: As `read_image`.

    Example:
        >>> decode_image(b"<html>404</html>", "s3://bucket/a.tif")
        Traceback (most recent call last):
            ...
        bpsutils.tiff.ImageError: s3://bucket/a.tif: not a TIFF or PNG file: it starts with b'<html>40'
    """
    return _decode(Source(BytesIO(data)), name)


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
            temporary.write_bytes(tiff_bytes(image, software))


# ------------------------------------------------------------------------------------------------- which format


def _inspect(source: Source, name: PathLike) -> tuple[ImageHeader, Callable[[], np.ndarray]]:
    """The header, and the function that decodes the pixels when called."""
    try:
        start = source.take(0, min(8, source.size))
        if start == PNG_SIGNATURE:
            return _png_header(source), partial(_png_pixels, source)
        if start[:4] in SIGNATURES:
            tiff = read_tiff(source)
            return tiff.header, partial(tiff_pixels, tiff)
        raise ImageError(f"not a TIFF or PNG file: it {f'starts with {start!r}' if start else 'is empty'}")
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def _decode(source: Source, name: PathLike) -> np.ndarray:
    header, pixels = _inspect(source, name)
    try:
        # Older Pillow gives 16-bit grey as 32-bit numbers; the values are the same.
        return pixels().astype(header.dtype, copy=False).reshape(header.shape)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise  # the disk failed, not the file: another try may succeed
        raise ImageError(f"{name}: the pixels cannot be decoded ({error})") from error
    except Exception as error:
        raise ImageError(f"{name}: the pixels cannot be decoded ({error})") from error


# ---------------------------------------------------------------------------------------------------------- PNG

_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type: grey, RGB, grey and alpha, RGBA
_MAX_CHUNKS = 1_000_000


def _png_header(source: Source) -> ImageHeader:
    length, kind, width, height, depth, colour, _, _, _, crc = struct.unpack(">I4sIIBBBBBI", source.take(8, 25))
    if kind != b"IHDR" or length != 13 or crc != zlib.crc32(source.take(12, 17)):
        raise ImageError("corrupt: the PNG header does not check")
    # 16-bit colour is left out too: Pillow would cut it to 8 bits without a word.
    if colour not in _PNG_CHANNELS or not (depth == 8 or (depth == 16 and colour == 0)):
        raise ImageError(
            f"unsupported PNG: {depth} bits, colour type {colour}; store it as 8-bit grey or RGB, 16-bit grey, or TIFF"
        )
    header = ImageHeader(height, width, np.dtype(f"u{depth // 8}"), _PNG_CHANNELS[colour], _png_software(source))
    check_size(header)
    return header


def _png_software(source: Source) -> str:
    """Walk from chunk to chunk to the end (so that a cut-off file is noticed), reading text chunks only."""
    software, place = "", 33
    for _ in range(_MAX_CHUNKS):
        length, kind = struct.unpack(">I4s", source.take(place, 8))
        if kind == b"tEXt" and not software:
            keyword, _, text = source.take(place + 8, min(length, MAX_TEXT)).partition(b"\0")
            software = text.decode("latin-1") if keyword == b"Software" else ""
        place += length + 12
        if place > source.size:
            raise ImageError(f"truncated: byte {place} is needed, the file has {source.size}")
        if kind == b"IEND":
            return software
    raise ImageError(f"unsupported: a PNG file of more than {_MAX_CHUNKS} chunks")


def _png_pixels(source: Source) -> np.ndarray:
    # Not Image.open: it would try every other format, and refuse images that are merely large.
    with PngImagePlugin.PngImageFile(source.rewound()) as image:
        return np.asarray(image)
