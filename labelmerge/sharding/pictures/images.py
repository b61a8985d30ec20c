"""Image bytes: decoding that never lies about class indices, and encoding that always gives the same bytes."""

from __future__ import annotations

import re
import stat
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.sharding.pictures.orientation import tiff_as_stored
from labelmerge.shardset.depth import eight_bit, is_deep, note_significant_bits, refuse_black
from labelmerge.shardset.pixels import decode_whole, is_whole_png, open_checked, png_bytes

_INDEX_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
_DEFAULT_QUALITY = 95
_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000", "AVIF": "AVIF"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_0 = 258, 262, 0  # TIFF 6.0
_PGM, _PGM_COMMENT, _PGM_HEADER = (
    (b"P2", b"P5"),
    re.compile(rb"#[^\r\n]*"),
    4096,
)  # netpbm's pgm(5): magic, sides, maxval
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp", "jpeg2000")

MAX_FILE_BYTES = 1 << 30
"""No image or annotation of one image is as large; `verify` reads no larger samples either."""

Array = npt.NDArray[Any]


def read_file(path: Path) -> bytes:
    """A file's content; raises SampleError, also where it is not a plain file, or would fill the memory."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise SampleError("is not a plain file", where=path)
        if found.st_size > MAX_FILE_BYTES:
            raise SampleError(f"has {found.st_size} bytes, more than the {MAX_FILE_BYTES} that are read", where=path)
        return path.read_bytes()
    except OSError as error:
        raise SampleError(f"can't be read ({error.strerror})", where=path) from error


def open_image(data: bytes, where: Path) -> Image.Image:
    """Open an image whose file is whole; pixels are decoded when they are asked for.

    JPEG and PNG are looked through without decoding, which takes a tenth of the time: the segments of a JPEG up to its
    end marker, the checksums of a PNG. Other formats are decoded. Raises SampleError.
    """

    def check(image: Image.Image) -> None:
        whole = {"JPEG": _is_whole_jpeg, "PNG": is_whole_png}.get(image.format or "")
        if whole is None:
            image.load()
        elif not whole(data):
            raise ValueError("truncated or damaged")

    image = open_checked(tiff_as_stored(data), where, check)
    note_significant_bits(image, data)
    return image


def load(image: Image.Image, where: Path) -> None:
    """Decode what `open_image` has opened. Raises SampleError."""
    try:
        image.load()
    except Exception as error:
        raise SampleError("is not a readable image", where=where) from error


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether the segments of a JPEG lead up to a scan, and an end marker comes after it (ITU T.81, B.1)."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers that stand alone
            place += 2
        elif marker == 0xDA:
            return data.rfind(b"\xff\xd9", place) != -1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


def decode_exact(data: bytes, where: Path) -> Image.Image:
    """Decode a picture whose values are ids: as stored, never turned.

    Raises:
        SampleError: unreadable; of a kind that stores nearly the same values (JPEG and its like, whatever the file
            is called), where ids would be guesses; or one of several pages or frames.
    """
    image = decode_whole(tiff_as_stored(data), where)
    if is_stack(image, data):
        raise SampleError("holds several pages or frames, and nothing says which of them is meant", where=where)
    if kind := _lossy_kind(image, data):
        raise SampleError(f"is a {kind}, which does not keep values exactly: its ids would be guesses", where=where)
    return image


def is_stack(image: Image.Image, data: bytes) -> bool:
    """Whether more pictures of its size follow the first in a file: pages or frames.

    Not the smaller ones that a TIFF may have for quick views, nor what cameras and phones put behind a JPEG (MPO).
    """
    if image.format in ("JPEG", "MPO") or not getattr(image, "is_animated", False):
        return False
    try:
        with Image.open(BytesIO(data)) as again:  # as `image` must keep its pixels
            again.seek(1)
            return again.size == image.size
    except Exception:  # whatever damage comes after the first picture
        return False


def _lossy_kind(image: Image.Image, data: bytes) -> str | None:
    if image.format == "TIFF":
        compression = str(image.info.get("compression", ""))
        return f"TIFF with {compression} compression" if compression in _LOSSY_TIFF else None
    if image.format == "WEBP":
        return None if b"VP8L" in data[12:64] and b"VP8 " not in data[12:64] else "lossy WebP"
    return _LOSSY.get(image.format or "")


def read_indices(path: Path) -> Array:
    """Read an index PNG of any kind (palette, 1 to 16 bit) as [H, W] integers: the stored values, never colours.

    Raises:
        SampleError: unreadable, or a colour picture.
    """
    return indices(read_file(path), path)


def indices(data: bytes, where: Path) -> Array:
    """As `read_indices`, for a picture that is not a file of its own."""
    image = decode_exact(data, where)
    if image.mode not in _INDEX_MODES:
        raise SampleError(f"is a colour picture ({image.mode}), not an index PNG", where=where)
    return stored_values(image, data)


def stored_values(image: Image.Image, data: bytes) -> Array:
    """[H, W] values of a grey or paletted picture as its file stores them, ``[H, W, channels]`` of one in colour.

    Pillow makes greys of them: it stretches those of fewer than 8 bits (PNG, TIFF) and of a PGM whose largest value is
    not 255 or 65535, and turns those of a TIFF around in which 0 is white, as ImageJ and microscopes write them.

    Args:
        image: decoded.
        data: its file.
    """
    values: Array = np.asarray(image)
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    bits = 8
    if image.mode == "L" and image.format == "PNG":
        bits = data[24]
    elif image.mode == "L" and image.format == "TIFF":
        tags = cast(Any, image).tag_v2
        bits = tags.get(_BITS_PER_SAMPLE, (8,))[0]
        values = np.uint8(255) - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_0 else values
    elif image.format == "PPM" and image.mode in ("L", "I"):
        header = _PGM_COMMENT.sub(b" ", data[:_PGM_HEADER]).split()
        largest, stretched = int(header[3]) if header[0] in _PGM else 0, 255 if image.mode == "L" else 65535
        if 0 < largest != stretched:
            values = np.rint(values * (largest / stretched)).astype(values.dtype)
    return values // np.uint8(255 // (2**bits - 1)) if bits < 8 else values


def packed_colours(data: bytes, where: Path) -> npt.NDArray[np.uint32]:
    """[H, W] colours of a picture, red << 16 | green << 8 | blue. Raises SampleError."""
    picture = decode_exact(data, where)
    if picture.mode not in ("RGB", "RGBA", "P"):
        raise SampleError(f"is not a colour picture (mode {picture.mode})", where=where)
    # Not straight to RGB: Pillow has doubts about palettes with transparency.
    return packed_pixels(picture if picture.mode == "RGB" else picture.convert("RGBA")).byteswap() >> np.uint32(8)


def packed_pixels(picture: Image.Image) -> npt.NDArray[np.uint32]:
    """[H, W] pixels of an RGB or RGBA picture: red + (green << 8) + (blue << 16), and anything in the highest byte."""
    # As Pillow keeps them: taking the fourth byte out, or converting to RGBA, takes longer.
    stored = picture.tobytes("raw", "RGBX" if picture.mode == "RGB" else "RGBA")
    return np.frombuffer(stored, "<u4").reshape(picture.height, picture.width)


def image_member(
    data: bytes, image: Image.Image, image_format: str, size: tuple[int, int], quality: int | None
) -> tuple[bytes, bool]:
    """The bytes of a sample's image member, and whether they had to be encoded again.

    The original bytes pass through where they already are what is asked for: 8-bit RGB or greyscale in the right file
    format and size. Otherwise a PNG is made without loss, a JPEG at 4:4:4.

    Args:
        data: the source file.
        image: the same, opened.
        image_format: ``jpg`` or ``png``.
        size: (height, width) asked for.
        quality: of a JPEG that has to be made; 95 where None.
    """
    if passes_through(image, data, image_format, size):
        return data, False
    rgb = to_rgb(image)
    refuse_black(rgb, stored_bits(image, data))
    if (image.height, image.width) != size:
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    if image_format == "png":
        return png_bytes(rgb), True
    out = BytesIO()
    rgb.save(out, "JPEG", quality=_DEFAULT_QUALITY if quality is None else quality, subsampling=0)
    return out.getvalue(), True


def passes_through(image: Image.Image, data: bytes, image_format: str, size: tuple[int, int]) -> bool:
    """Whether the bytes of an image are what is asked for already; see `image_member`."""
    plain = image.mode in ("RGB", "L") and not (image.format == "PNG" and data[24] != 8)
    return plain and image.format == {"jpg": "JPEG", "png": "PNG"}[image_format] and (image.height, image.width) == size


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB, without metadata. Raises SampleError where its values may mean anything."""
    if is_deep(image):  # Pillow's own conversion would clip instead of scale
        return eight_bit(image).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    rgb.info.clear()  # colour profiles and such would make the bytes depend on more than pixels
    return rgb


def stored_bits(image: Image.Image, data: bytes) -> int:
    """Bits of a channel in a file whose channels Pillow decodes to 8 bits: more than 8 in some PNGs and TIFFs."""
    if image.mode not in ("RGB", "RGBA", "LA", "L") or image.format not in ("PNG", "TIFF"):
        return 8
    if image.format == "PNG":
        return data[24]
    bits: Any = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return max(bits) if isinstance(bits, tuple) else 8


def resize_nearest(values: Array, size: tuple[int, int]) -> Array:
    """Resize [H, W] values to (height, width) by taking the value under each new pixel's centre."""
    height, width = values.shape
    rows = (2 * np.arange(size[0]) + 1) * height // (2 * size[0])
    columns = (2 * np.arange(size[1]) + 1) * width // (2 * size[1])
    return values if (height, width) == size else values[rows[:, None], columns]


def shrunk(size: tuple[int, int], short_edge: int | None) -> tuple[int, int]:
    """(height, width) after bringing the short edge down to `short_edge`; images are never enlarged."""
    height, width = size
    short = min(size)
    if short_edge is None or short <= short_edge:
        return size
    return max(1, round(height * short_edge / short)), max(1, round(width * short_edge / short))
