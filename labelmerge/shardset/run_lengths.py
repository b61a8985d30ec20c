"""Label pictures as runs of equal pixels, row after row. Labels are drawn in areas, so there are few runs.

Finding the runs takes one comparison of neighbours; counting, looking up and sorting then cost next to nothing. Pixel
by pixel, each of them takes many times as long. Only for noise, where every pixel is a run, is it the other way round.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PIXELS_AT_A_TIME = 1 << 22


class RunLengths:
    """The runs within which none of the given pictures changes.

    Args:
        pictures: [H, W] each, or flat, of one size and at least one pixel.

    Attributes:
        lengths: [R] int64, in pixels.
    """

    def __init__(self, *pictures: Array) -> None:
        flat = [picture.ravel() for picture in pictures]
        changes = reduce(np.logical_or, (values[1:] != values[:-1] for values in flat))
        self._shape = pictures[0].shape
        self._starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        self.lengths: npt.NDArray[np.int64] = np.diff(self._starts, append=flat[0].size)

    def of(self, picture: Array) -> Array:
        """[R] the value of one of the pictures, [H, W], in each run."""
        return picture.reshape(-1)[self._starts]

    def paint(self, values: Array) -> Array:
        """The [H, W] picture that has `values`, [R], in the runs."""
        return np.repeat(values, self.lengths).reshape(self._shape)


def histogram(picture: Array) -> dict[int, int]:
    """How many pixels of [H, W] have each value that occurs; the values are 0 or above."""
    found: Counter[int] = Counter()
    flat = picture.ravel()
    for start in range(0, flat.size, _PIXELS_AT_A_TIME):  # runs of noise take several times its memory
        piece = flat[start : start + _PIXELS_AT_A_TIME]
        runs = RunLengths(piece)
        found.update(pixel_counts(runs.of(piece), runs.lengths))
    return dict(found)


def pixel_counts(values: Array, lengths: npt.NDArray[np.int64]) -> dict[int, int]:
    """How many pixels each value, 0 or above, covers in all its runs, by ascending value.

    Args:
        values, lengths: [R] each.
    """
    counts = np.bincount(values, lengths).astype(np.int64)  # float64 is exact up to 2^53 pixels
    occurring = np.flatnonzero(counts)
    return dict(zip(occurring.tolist(), counts[occurring].tolist(), strict=True))
