"""A mask as one polygon along the edges of its pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Point = tuple[int, int]


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The polygon around the pixels of a mask, in the coordinates of pixel corners.

    Several parts, and holes, are joined by lines of no width, there and back, so that the even-odd rule fills exactly
    the mask. (YOLO's files have one polygon for an object.)

    Args:
        mask: ``[H, W]``, not empty.

    Returns:
        float64 ``[N, 2]``, x and y.
    """
    loops = _loops(mask)
    start = loops[0][0]
    points = [*loops[0], start]
    for loop in loops[1:]:
        points += [*loop, loop[0], start]
    return np.array(points[:-1] if len(loops) == 1 else points, dtype=np.float64)


def _loops(mask: npt.NDArray[np.bool_]) -> list[list[Point]]:
    """The closed lines between the mask and what is not mask, corners only, the mask on their right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    after: dict[Point, list[Point]] = {}
    for beyond, begin, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # the upper edge, to the right
        (padded[1:-1, 2:], (1, 0), (1, 1)),  # the right edge, down
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(inside & ~beyond)), strict=True):
            after.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while after:
        first = min(after)
        loop, at = [first], _next(after, first)
        while at != first:
            loop.append(at)
            at = _next(after, at)
        loops.append(_corners(loop))
    return loops


def _next(after: dict[Point, list[Point]], at: Point) -> Point:
    """Take the edge that leaves a point away; where two pixels meet at a corner there are two, either will do."""
    ends = after[at]
    end = ends.pop()
    if not ends:
        del after[at]
    return end


def _corners(loop: list[Point]) -> list[Point]:
    """Without the points on straight lines."""
    return [
        point
        for before, point, behind in zip([loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True)
        if (before[0] == point[0]) != (point[0] == behind[0])
    ]
