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
_BRIGHT = 64  # floats up to 255 that reach this are no picture of 0 to 1 with highlights


def is_deep(image: Image.Image) -> bool:
    """Whether an image's values are of more than 8 bits in one channel."""
    return image.mode.startswith("I") or image.mode == "F"


def eight_bit(image: Image.Image) -> Image.Image:
    """A one-channel image of 16 bits, 32 bits or floats as 8-bit grey.

    16-bit values lose their lower half; values up to 255 stay as they are; floats up to 1 are scaled to 255.

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
