"""The pictures of a sample, encoded and decoded, and no more of them than a view shows.

A JPEG or PNG is decoded from the top, so the rows below a view cost nothing if the decoder does not know of them:
`first_rows` tells it so in the file's header. What is decoded is then equal to the last bit. A view that shrinks a JPEG
a lot is decoded at a half, a quarter or an eighth of its size, which is close, but not equal (`SHRINKS`).

Pillow reads every kind of file. Ordinary JPEGs go through simplejpeg, which is the same decoder (libjpeg-turbo) with
less copying around it, and the masks that `labelmerge shard` writes through zlib-ng. The pixels are the same.

Decoders look at few of a PNG's checksums, and a flipped bit of a mask is often another mask that decodes well. So the
checksums are compared before a PNG is decoded.
"""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from zlib_ng import zlib_ng

from labelmerge.errors import SampleError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Region = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

# What a JPEG can be divided by while it is decoded, coarsest first.
SHRINKS = (8, 4, 2, 1)

# The colour of a row may be taken from the row of blocks below it (16 rows where colour is stored at half the height).
_MARGIN = 16
_SEQUENTIAL = (0xC0, 0xC1)  # SOF0, SOF1: one pass over the picture from top to bottom, Huffman coded
_OTHER_FRAMES = (*range(0xC2, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SCAN = 0xDA
_FILTER_UP = 2  # PNG specification 9.2
_BLOCK = 16  # rows of a mask that are added up side by side
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_END = b"\xff\xd9"
MAX_PIXELS = 1 << 26
"""An image with more is not decoded: a few hundred kilobytes can unfold to gigabytes. See `refuse_huge`."""
_PIXELS_VARIABLE = "LABELMERGE_MAX_PIXELS"
_EXTRANEOUS = 64  # bytes; some cameras write a few that mean nothing
_TAIL = 64  # where a whole JPEG's end is; some files have a few bytes more


def open_image(data: bytes) -> Image.Image:
    """The picture in a file, not decoded yet: its size and mode are known from the header.

    Raises:
        SampleError: it has too many pixels.
        What Pillow raises at other files.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `refuse_huge` is stricter
        image = Image.open(io.BytesIO(data))
    refuse_huge(image.size)
    return image


def refuse_huge(size: tuple[int, int], where: Path | str | None = None) -> None:
    """Refuse a picture of more than `MAX_PIXELS`, before it is decoded; the environment may allow more.

    Args:
        size: as its header says it, in pixels.

    Raises:
        SampleError: it is larger.
    """
    allowed = os.environ.get(_PIXELS_VARIABLE, "")
    most = int(allowed) if allowed.isascii() and allowed.isdigit() else MAX_PIXELS
    if size[0] * size[1] > most:
        what = f"has {size[0]}x{size[1]} pixels, more than the {most:,} that are decoded"
        raise SampleError(f"{what} ({_PIXELS_VARIABLE} sets how many)", where=where)


def decode_whole(data: bytes, where: Path, remarks: list[str] | None = None) -> Image.Image:
    """Decode an image completely; pixels as stored, EXIF orientation not applied. Raises SampleError.

    `remarks` gets what is odd about the file and costs no pixel.
    """
    if data.startswith(_PNG) and not is_whole_png(data):
        raise SampleError("is not a readable image", where=where)
    image = open_checked(data, where, lambda image: image.load())
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        odd = _refuse_half_jpeg(data, where)
        if odd and remarks is not None:
            remarks.append(odd)
    return image


def _refuse_half_jpeg(data: bytes, where: Path) -> str:
    """Pillow fills up with grey what a JPEG with an end marker lacks; libjpeg knows, and says so as a warning.

    Returns a warning that is no reason to refuse it, or "".
    """
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except ValueError as error:
        few = re.search(r"(\d+) extraneous bytes", str(error))
        if "premature end" in str(error).lower() or (few is not None and int(few[1]) > _EXTRANEOUS):
            raise SampleError(f"is a damaged JPEG ({error})", where=where) from error
        return str(error)
    return ""


def open_checked(data: bytes, where: Path, check: Callable[[Image.Image], object]) -> Image.Image:
    """Open the image in a file, and have it checked. Raises SampleError, also where `check` raises anything."""
    try:
        image = open_image(data)
        check(image)
    except SampleError as error:
        raise SampleError(error.what, where=where) from error
    except Image.DecompressionBombError as error:
        raise SampleError("has more pixels than Pillow takes for safe", where=where) from error
    except Exception as error:  # Pillow's decoders raise about anything on damaged files
        raise SampleError("is not a readable image", where=where) from error
    return image


def image_region(data: bytes, region: Region, shrink: int = 1) -> npt.NDArray[np.uint8]:
    """A part of an image.

    Args:
        data: a file of any kind that Pillow reads.
        region: left, top, right, bottom in pixels of the image at full size; multiples of `shrink`.
        shrink: 1, or 2, 4 or 8 for a JPEG's region at that fraction of its size.

    Returns:
        uint8 ``[height // shrink, width // shrink, 3]``, RGB.

    Raises:
        SampleError: a checksum of a PNG is wrong, wherever in it.
        What Pillow raises at files that are damaged in what is decoded: OSError, SyntaxError, ValueError and others.
    """
    _refuse_damaged_png(data, "its image")
    x0, y0, x1, y1 = (side // shrink for side in region)
    return _decoded(first_rows(data, region[3]), shrink)[y0:y1, x0:x1]


def decode_image(data: bytes) -> npt.NDArray[np.uint8]:
    """A whole image: uint8 ``[H, W, 3]``, RGB. Raises what `image_region` does."""
    _refuse_damaged_png(data, "its image")
    return _decoded(data, 1)


def _decoded(data: bytes, shrink: int) -> npt.NDArray[np.uint8]:
    image = open_image(data)
    width, height = image.size
    small = (-(-height // shrink), -(-width // shrink))
    # simplejpeg would not notice that a file ends too early, and turns CMYK into other colours than Pillow
    if image.format == "JPEG" and image.mode in ("RGB", "L") and _JPEG_END in data[-_TAIL:]:
        with suppress(ValueError):  # Pillow says what is wrong
            found = simplejpeg.decode_jpeg(data, min_height=small[0], min_width=small[1], strict=False)
            if found.shape[:2] == small:
                return np.asarray(found, dtype=np.uint8)
    if shrink > 1:
        image.draft(None, (width // shrink, height // shrink))
    whole = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if whole.shape[:2] != small:
        raise SampleError(f"a {image.format} that can't be decoded at 1/{shrink} of its size")
    return whole


def decode_mask(data: bytes, name: str, size: tuple[int, int], region: Region | None = None) -> Mask:
    """A single channel PNG: uint8 or uint16 ``[H, W]``, or a part of it.

    Args:
        name: what errors call it.
        size: height and width that it must have.
        region: left, top, right, bottom in pixels, within it; None for all of it.

    Raises:
        SampleError: it is damaged anywhere, or has several channels or another size.
        What Pillow raises at files that are none of its own.
    """
    _refuse_damaged_png(data, name)
    image = open_image(data)
    if image.mode not in ("L", "P", "I;16", "I"):
        raise SampleError(f"{name} is not a single channel image ({image.mode})")
    if image.size != (size[1], size[0]):
        raise SampleError(f"{name} is {image.size[0]}x{image.size[1]}, the image {size[1]}x{size[0]}")
    x0, y0, x1, y1 = region or (0, 0, size[1], size[0])
    mask = _differences_added(data, size[1], x0, x1, y1)
    if mask is None:
        values = np.asarray(image if y1 == size[0] else open_image(first_rows(data, y1)))[:y1, x0:x1]
        mask = values if values.dtype == np.uint8 else values.astype(np.uint16)
    return mask[y0:]


def is_whole_png(data: bytes) -> bool:
    """Whether the chunks of a PNG have the right checksums, up to its end (PNG specification, 5.3)."""
    view, place = memoryview(data), len(_PNG)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(view[place : place + 4], "big")
        if zlib_ng.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        if data[place + 4 : place + 8] == b"IEND":
            return data.startswith(_PNG)
        place = end + 4
    return False


def _refuse_damaged_png(data: bytes, name: str) -> None:
    if data.startswith(_PNG) and not is_whole_png(data):
        raise SampleError(f"{name} is a damaged PNG (a checksum is wrong, or it ends too early)")


def _differences_added(data: bytes, width: int, left: int, right: int, rows: int) -> Mask | None:
    """The first rows, from left to right, of a grey PNG whose every row is its difference from the one above ("Up").

    `labelmerge shard` writes masks so. Unpacking them here takes a third of the time of Pillow, whose decoder goes byte
    by byte. None where it is another PNG or a damaged one: Pillow says what is wrong with it.
    """
    bits, kind, interlaced = data[24], data[25], data[28]
    if kind != 0 or bits not in (8, 16) or interlaced or data[37:41] != b"IDAT":
        return None
    size = bits // 8
    stride = 1 + width * size
    packed = memoryview(data)[41 : 41 + struct.unpack_from(">I", data, 33)[0]]
    try:
        unpacked = zlib_ng.decompressobj().decompress(packed, rows * stride)
    except zlib_ng.error:  # type: ignore[misc]  # its stub declares it as an instance
        return None
    if len(unpacked) < rows * stride:
        return None
    stored = np.frombuffer(unpacked, dtype=np.uint8).reshape(rows, stride)
    if (stored[:, 0] != _FILTER_UP).any():
        return None
    values = stored[:, 1 + left * size : 1 + right * size].copy()
    _add_downwards(values)
    return values if bits == 8 else values.view(">u2").astype(np.uint16)


def _add_downwards(values: npt.NDArray[np.uint8]) -> None:
    """Add to every row all rows above it, modulo 256, in place; in blocks, because a few large additions are fast."""
    count = len(values) // _BLOCK
    blocks = values[: count * _BLOCK].reshape(count, _BLOCK, values.shape[1])
    for row in range(1, _BLOCK):
        blocks[:, row] += blocks[:, row - 1]
    for block in range(1, count):
        blocks[block, -1] += blocks[block - 1, -1]
    blocks[1:, :-1] += blocks[:-1, -1:]
    for row in range(max(1, count * _BLOCK), len(values)):
        values[row] += values[row - 1]


def first_rows(data: bytes, rows: int) -> bytes:
    """The same JPEG or PNG with a header that ends it below the first `rows` rows, or a little later.

    Every decoder gives the same pixels in these rows as for the whole file. What can't be cut so is returned as it is:
    progressive and arithmetic coded JPEGs, those with one scan per colour, interlaced PNGs, other kinds of file.
    """
    if data.startswith(_PNG):
        return _shorter_png(data, rows)
    if data.startswith(b"\xff\xd8"):
        return _shorter_jpeg(data, rows)
    return data


def _shorter_png(data: bytes, rows: int) -> bytes:
    # PNG specification 11.2.2: IHDR comes first; 13 bytes of width, height, …, interlace method, then their CRC.
    if data[12:16] != b"IHDR" or len(data) < 33:
        return data
    height, interlaced = struct.unpack_from(">I8xB", data, 20)[0], data[28]
    if interlaced or rows >= height:
        return data
    header = data[12:20] + struct.pack(">I", rows) + data[24:29]
    return b"".join((data[:12], header, struct.pack(">I", zlib.crc32(header)), memoryview(data)[33:]))


def _shorter_jpeg(data: bytes, rows: int) -> bytes:
    # ITU T.81, annex B: segments of marker, length and content up to the scan; the frame header says the height.
    place, frame, channels = 2, 0, 0
    while place + 10 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _OTHER_FRAMES:
            return data
        if marker in _SEQUENTIAL:
            frame, channels = place, data[place + 9]
        if marker == _SCAN:
            height = struct.unpack_from(">H", data, frame + 5)[0] if frame else 0
            if data[place + 4] != channels or rows + _MARGIN >= height:
                return data
            return b"".join((data[: frame + 5], struct.pack(">H", rows + _MARGIN), memoryview(data)[frame + 7 :]))
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return data


def png_bytes(pixels: Array | Image.Image) -> bytes:
    """Encode [H, W] uint8 or uint16 values, or an image, as a PNG."""
    if not isinstance(pixels, Image.Image):
        return _grey_png(pixels)
    out = io.BytesIO()
    pixels.save(out, "PNG")
    return out.getvalue()


def _grey_png(values: Array) -> bytes:
    """A greyscale PNG of [H, W] uint8 or uint16 values (PNG specification, 5 and 9).

    A row of a label mask is much like the row above: always storing the difference (the filter "Up") makes the files
    of Pillow, which tries all filters on every row, three times faster to write and to read (docs/performance.md).
    """
    height, width = values.shape
    stored = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, stored.shape[1] + 1), dtype=np.uint8)
    rows[:, 0] = _FILTER_UP
    rows[0, 1:] = stored[0]
    np.subtract(stored[1:], stored[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8 * values.dtype.itemsize, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, level=1)), (b"IEND", b""))
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
