"""Images of more than 8 bits as 8: only where it is certain what their values mean.

A 16-bit file may hold 16 bits, or 12, or 8; floats may go to 1, to 255 or to 65535. A wrong guess is a black picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.errors import SampleError

_SMALL = 4096  # a 16-bit picture without any value from here on may well hold 12 bits
_DARK = _SMALL >> 8  # what is left of that in 8 bits
_SIGNIFICANT = "significant_bits"  # in the info of an image
_BRIGHT = 64  # floats up to 255 that reach this are no picture of 0 to 1 with highlights


def is_deep(image: Image.Image) -> bool:
    """Whether an image's values are of more than 8 bits in one channel."""
    return image.mode.startswith("I") or image.mode == "F"


def note_significant_bits(image: Image.Image, head: bytes) -> None:
    """Keep with a 16-bit grey PNG how many of its bits mean something, if it says so: for `eight_bit`.

    Args:
        image: opened or decoded.
        head: the beginning of its file, up to the first IDAT or further.
    """
    if image.format == "PNG" and is_deep(image):
        place = head.find(b"sBIT", 0, max(0, head.find(b"IDAT")))
        if place > 0 and head[place - 4 : place] == b"\0\0\0\1":  # one channel, one byte
            image.info[_SIGNIFICANT] = head[place + 4]


def _unscaled(values: npt.NDArray[Any], bits: int) -> bool:
    """Whether 16-bit values are certainly those of fewer bits, as they were.

    PNG (ISO/IEC 15948, 11.3.2.6 and 12.4) asks for values that are scaled to all 16 bits, so that what is below the
    significant bits is zero or repeats them; some cameras' software writes the plain values and says how many bits.
    """
    if not 8 <= bits < 16 or values.max() >> bits:
        return False
    lowest = (1 << 16 - bits) - 1
    return bool(((values & lowest != 0) & (values & lowest != values >> bits)).any())


def eight_bit(image: Image.Image) -> Image.Image:
    """A one-channel image of 16 bits, 32 bits or floats as 8-bit grey.

    16-bit values lose their lower half; values up to 255 stay as they are; floats up to 1 are scaled to 255. PNGs whose
    significant bits (`note_significant_bits`) say so are taken at fewer bits.

    Raises:
        SampleError: it is not certain what the values mean.
    """
    values: npt.NDArray[Any] = np.asarray(image)
    least, most = values.min(), values.max()
    if not (np.isfinite(least) and np.isfinite(most)) or least < 0:
        raise SampleError(f"its values go from {least:g} to {most:g}: which of them are black and white is not known")
    if values.dtype.kind == "f":
        if most <= 1:
            return Image.fromarray((values * 255 + 0.5).astype(np.uint8))
        if most <= 255 and (most >= _BRIGHT or (values == np.floor(values)).all()):
            return Image.fromarray(values.astype(np.uint8))
        if not (values == np.floor(values)).all():
            raise SampleError(f"its values are floats up to {most:g}: which of them is white is not known")
    bits = image.info.get(_SIGNIFICANT)
    if isinstance(bits, int) and values.dtype.kind != "f" and _unscaled(values, bits):
        return Image.fromarray((values >> bits - 8).astype(np.uint8))
    if most <= 255:
        return Image.fromarray(values.astype(np.uint8))
    if not _SMALL <= most <= 65535:
        raise SampleError(f"its values go to {most:g}: dark, or white at fewer than 16 bits, which is not known")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


def refuse_black(image: Image.Image, bits: int) -> None:
    """Refuse a colour image of more than 8 bits, as Pillow decodes it to 8, if next to nothing is left of it.

    Raises:
        SampleError: it holds 12 bits or fewer, or nothing but night.
    """
    if bits > 8 and max(int(high) for _, high in _ranges(image)) < _DARK:
        raise SampleError(f"is black at 8 of its {bits} bits: its values may have fewer, which is not known")


def _ranges(image: Image.Image) -> list[tuple[Any, Any]]:
    found: Any = image.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]
