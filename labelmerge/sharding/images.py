"""Image bytes: decoding that never lies about class indices, and encoding that always gives the same bytes."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.errors import SampleError

_INDEX_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
_DEFAULT_QUALITY = 95

Array = npt.NDArray[Any]


def read_file(path: Path) -> bytes:
    """A file's content; raises SampleError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SampleError(f"can't be read ({error.strerror})", where=path) from error


def decode(data: bytes, where: Path) -> Image.Image:
    """Decode an image completely; pixels as stored, EXIF orientation not applied. Raises SampleError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is large: no matter
            image = Image.open(BytesIO(data))
        image.load()
    except Image.DecompressionBombError as error:
        raise SampleError("has more pixels than Pillow takes for safe", where=where) from error
    except Exception as error:  # Pillow's decoders raise about anything on damaged files
        raise SampleError("is not a readable image", where=where) from error
    return image


def read_indices(path: Path) -> Array:
    """Read an index PNG of any kind (palette, 1 to 16 bit) as [H, W] integers: the stored values, never colours.

    Raises:
        SampleError: unreadable, or a colour picture.
    """
    data = read_file(path)
    image = decode(data, path)
    if image.mode not in _INDEX_MODES:
        raise SampleError(f"is a colour picture ({image.mode}), not an index PNG", where=path)
    indices: Array = np.asarray(image)
    if indices.dtype == np.bool_:
        return indices.astype(np.uint8)
    if image.format == "PNG" and image.mode == "L":
        # Pillow stretches the values of greyscale PNGs of 2 and 4 bits to 0..255.
        depth = data[24]
        if depth < 8:
            indices = indices // (255 // (2**depth - 1))
    return indices


def png_bytes(pixels: Array | Image.Image) -> bytes:
    """Encode [H, W] uint8 or uint16 values, or an image, as a PNG."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def image_member(
    data: bytes, image: Image.Image, image_format: str, size: tuple[int, int], quality: int | None
) -> tuple[bytes, bool]:
    """The bytes of a sample's image member, and whether they were encoded anew.

    The original bytes pass through where they already are what is asked for: 8-bit RGB or greyscale in the right file
    format and size. Otherwise a PNG is made without loss, a JPEG at 4:4:4.

    Args:
        data: the source file.
        image: the same, decoded.
        image_format: ``jpg`` or ``png``.
        size: (height, width) asked for.
        quality: of a JPEG that has to be made; 95 where None.
    """
    wanted = {"jpg": "JPEG", "png": "PNG"}[image_format]
    fits = (image.height, image.width) == size
    plain = image.mode in ("RGB", "L") and not (image.format == "PNG" and data[24] != 8)
    if fits and plain and image.format == wanted:
        return data, False
    rgb = _to_rgb(image)
    if not fits:
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    if image_format == "png":
        return png_bytes(rgb), True
    out = BytesIO()
    rgb.save(out, "JPEG", quality=_DEFAULT_QUALITY if quality is None else quality, subsampling=0)
    return out.getvalue(), True


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits to 8: Pillow's own conversion would clip instead of scale.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    rgb.info.clear()  # colour profiles and such would make the bytes depend on more than pixels
    return rgb


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
