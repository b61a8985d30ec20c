"""Masks that overlap, of formats that have no painting order of their own: large first, small on top."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Canvas:
    """What lies on top at every pixel; holds one picture, however many masks are painted.

    Args:
        size: (height, width).

    Attributes:
        top: [H, W] int32, the number of the mask on top: 1 for the first that was painted, 0 where there is none.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.top = np.zeros(size, dtype=np.int32)
        self._areas = np.full(1, self.top.size + 1)
        self._count = 0

    def paint(self, covered: npt.NDArray[np.bool_], over_all: bool = False) -> int:
        """Put a mask [H, W] below all smaller ones, and above all that are larger or, painted before, equal.

        Args:
            covered: the mask.
            over_all: put it above all that were painted before, whatever their sizes.

        Returns:
            its area in pixels; a mask of none gets no number.
        """
        places = np.flatnonzero(covered)
        if len(places) == 0:
            return 0
        self._count += 1
        if self._count == len(self._areas):
            self._areas = np.resize(self._areas, 2 * self._count)
        self._areas[self._count] = len(places)
        flat = self.top.reshape(-1)
        flat[places if over_all else places[self._areas[flat[places]] >= len(places)]] = self._count
        return len(places)

    def classes(self, indices: list[int], ignore: int, dtype: type[np.uint8] | type[np.uint16]) -> npt.NDArray[np.uint]:
        """[H, W] class indices: `indices` are those of the painted masks, in their order."""
        table: npt.NDArray[np.uint] = np.array([ignore, *indices], dtype=dtype)
        return table[self.top]
