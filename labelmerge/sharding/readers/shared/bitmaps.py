"""Small masks inside annotation files: PNGs in base64, and runs of pixels."""

from __future__ import annotations

import base64
import binascii
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.sharding.pictures.images import decode_exact

_MAX_BYTES = 1 << 26  # of one mask, unpacked
_MAX_PIXELS = 1 << 28


def base64_bytes(text: object, what: str) -> bytes:
    """The bytes of a text in base64. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"its {what} is not text")
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        raise ValueError(f"its {what} is not base64") from None


def inflated(data: bytes, what: str) -> bytes:
    """What was packed by zlib. Raises ValueError, also where it would fill the memory."""
    unpack = zlib.decompressobj()
    try:
        found = unpack.decompress(data, _MAX_BYTES)
    except zlib.error:
        raise ValueError(f"its {what} is damaged (zlib)") from None
    if unpack.unconsumed_tail or not unpack.eof:
        raise ValueError(f"its {what} is cut off or too large")
    return found


def bitmap(data: bytes, what: str) -> npt.NDArray[np.bool_]:
    """[h, w], True where a PNG is not black; by its alpha channel alone, if it has one. Raises ValueError."""
    try:
        picture = decode_exact(data, Path(what))
    except SampleError as error:
        raise ValueError(f"its {what} {error.what}") from None
    values: npt.NDArray[Any] = np.asarray(picture.getchannel("A") if "A" in picture.getbands() else picture)
    covered: npt.NDArray[np.bool_] = np.not_equal(values, 0)
    return np.logical_or.reduce(covered, axis=-1) if covered.ndim == 3 else covered


def row_runs(text: object, size: tuple[int, int], what: str) -> npt.NDArray[np.bool_]:
    """[h, w] of runs of 0 and 1 by turns, along the rows: "5, 3, 8". Raises ValueError where they don't fit."""
    height, width = size
    if not 0 < height * width <= _MAX_PIXELS:
        raise ValueError(f"its {what} has no area, or too much")
    try:
        runs = np.array([int(part) for part in str(text).split(",") if part.strip()], dtype=np.int64)
    except (ValueError, OverflowError):
        raise ValueError(f"no number in its {what}") from None
    if (runs < 0).any() or (runs > height * width).any() or not 0 < runs.sum() <= height * width:
        raise ValueError(f"its {what} does not fit its size")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.pad(values, (0, height * width - len(values))).reshape(height, width)
