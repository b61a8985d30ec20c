"""What annotation tools draw around a thing, and the pixels that it covers.

Coordinates are in pixels from the image's upper left corner, as COCO's: the first pixel reaches from 0 to 1. Polygons
are filled as cocoapi does; rectangles and ellipses cover the pixels whose centres lie inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmerge.sharding.readers.shared.boxes import FAR
from labelmerge.sharding.readers.shared.instance_masks import Mask, decoded
from labelmerge.sharding.source.source import Corners

Point = tuple[float, float]
_MIN_POINTS = 3


@dataclass(frozen=True)
class Polygon:
    """A polygon with holes; each is a list of (x, y)."""

    exterior: tuple[Point, ...]
    holes: tuple[tuple[Point, ...], ...] = ()

    @property
    def corners(self) -> Corners:
        """x0, y0, x1, y1 of the box around it."""
        return around(self.exterior)

    def mask(self, size: tuple[int, int]) -> Mask:
        """[H, W] of what it covers; raises ValueError where that would fill the memory."""
        covered = decoded([[value for point in self.exterior for value in point]], size)
        for hole in self.holes:
            covered = covered & ~decoded([[value for point in hole for value in point]], size)
        return covered


@dataclass(frozen=True)
class PixelPolygon:
    """A polygon with holes whose points are pixels, by column and row; all that its edges go through is in it.

    As OpenCV fills polygons. Edges of holes are in the holes.
    """

    exterior: tuple[Point, ...]
    holes: tuple[tuple[Point, ...], ...] = ()

    @property
    def corners(self) -> Corners:
        """x0, y0, x1, y1 of the box around it."""
        x0, y0, x1, y1 = around(self.exterior)
        return x0, y0, x1 + 1, y1 + 1

    def mask(self, size: tuple[int, int]) -> Mask:
        """[H, W] of what it covers; raises ValueError where that would fill the memory."""
        covered = _with_edges(self.exterior, size)
        for hole in self.holes:
            covered &= ~_with_edges(hole, size)
        return covered


def _with_edges(points: tuple[Point, ...], size: tuple[int, int]) -> Mask:
    """[H, W] of the pixels whose centres are inside, and of those on the lines from point to point."""
    covered = decoded([[value + 0.5 for point in points for value in point]], size).copy()
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        share = np.linspace(0, 1, int(max(abs(x1 - x0), abs(y1 - y0))) + 1)
        columns, rows = (np.floor(low + (high - low) * share + 0.5) for low, high in ((x0, x1), (y0, y1)))
        there = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
        covered[rows[there].astype(np.int64), columns[there].astype(np.int64)] = True
    return covered


@dataclass(frozen=True)
class Rectangle:
    """An upright rectangle."""

    corners: Corners

    def mask(self, size: tuple[int, int]) -> Mask:
        """[H, W] of what it covers."""
        covered = np.zeros(size, dtype=np.bool_)
        x0, y0, x1, y1 = self.corners
        covered[_centres(y0, y1, size[0]), _centres(x0, x1, size[1])] = True
        return covered


@dataclass(frozen=True)
class Ellipse:
    """An ellipse: its centre, its half axes, and by how many degrees they are turned clockwise."""

    x: float
    y: float
    horizontal: float
    vertical: float
    degrees: float = 0.0

    @property
    def corners(self) -> Corners:
        """x0, y0, x1, y1 of the box around it."""
        sine, cosine = self._turn
        width = math.hypot(self.horizontal * cosine, self.vertical * sine)
        height = math.hypot(self.horizontal * sine, self.vertical * cosine)
        return self.x - width, self.y - height, self.x + width, self.y + height

    @property
    def _turn(self) -> tuple[float, float]:
        return math.sin(math.radians(self.degrees)), math.cos(math.radians(self.degrees))

    def mask(self, size: tuple[int, int]) -> Mask:
        """[H, W] of what it covers."""
        covered = np.zeros(size, dtype=np.bool_)
        x0, y0, x1, y1 = self.corners
        rows, columns = _centres(y0, y1, size[0]), _centres(x0, x1, size[1])
        sine, cosine = self._turn
        right = np.arange(columns.start, columns.stop)[None, :] + 0.5 - self.x
        down = np.arange(rows.start, rows.stop)[:, None] + 0.5 - self.y
        along, across = right * cosine + down * sine, down * cosine - right * sine
        covered[rows, columns] = (along / self.horizontal) ** 2 + (across / self.vertical) ** 2 <= 1
        return covered


@dataclass(frozen=True, eq=False)
class Bitmap:
    """A small mask [h, w] whose upper left pixel lies at (x, y) of the image."""

    x: int
    y: int
    pixels: npt.NDArray[np.bool_]

    @property
    def corners(self) -> Corners:
        """x0, y0, x1, y1 of the box around what it covers; of no size where that is nothing."""
        rows, columns = np.flatnonzero(self.pixels.any(axis=1)), np.flatnonzero(self.pixels.any(axis=0))
        if not len(rows):
            return float(self.x), float(self.y), float(self.x), float(self.y)
        left, top = self.x + int(columns[0]), self.y + int(rows[0])
        return float(left), float(top), float(self.x + columns[-1] + 1), float(self.y + rows[-1] + 1)

    def mask(self, size: tuple[int, int]) -> Mask:
        """[H, W] of what it covers inside the image."""
        covered = np.zeros(size, dtype=np.bool_)
        (height, width), top, left = self.pixels.shape, max(self.y, 0), max(self.x, 0)
        bottom, right = min(self.y + height, size[0]), min(self.x + width, size[1])
        if top < bottom and left < right:
            inner = self.pixels[top - self.y : bottom - self.y, left - self.x : right - self.x]
            covered[top:bottom, left:right] = inner
        return covered


@dataclass(frozen=True)
class Parts:
    """Outlines that are one thing together."""

    outlines: tuple[Outline, ...]

    @property
    def corners(self) -> Corners:
        """x0, y0, x1, y1 of the box around them all."""
        all_corners = [outline.corners for outline in self.outlines]
        return around([point for x0, y0, x1, y1 in all_corners for point in ((x0, y0), (x1, y1))])

    def mask(self, size: tuple[int, int]) -> Mask:
        """[H, W] of what any of them covers."""
        covered = self.outlines[0].mask(size)
        for outline in self.outlines[1:]:
            covered = covered | outline.mask(size)
        return covered


Outline = Polygon | PixelPolygon | Rectangle | Ellipse | Bitmap | Parts


def _centres(low: float, high: float, edge: int) -> slice:
    """The pixels of an edge whose centres lie from `low` to `high`."""
    first = min(max(math.ceil(low - 0.5), 0), edge)
    return slice(first, max(first, min(math.floor(high - 0.5) + 1, edge)))


def around(points: Sequence[Point]) -> Corners:
    """x0, y0, x1, y1 of the box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def number(value: object, what: str) -> float:
    """A coordinate. Raises ValueError where it is none, or nowhere near a picture."""
    try:
        found = float(value)  # type: ignore[arg-type]  # whatever is not a number raises
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"no number in its {what}") from None
    if not abs(found) <= FAR:  # nor is NaN
        raise ValueError(f"a number in its {what} is nowhere near the image")
    return found


def points_of(pairs: object, what: str, least: int = _MIN_POINTS) -> tuple[Point, ...]:
    """Points [[x, y], …]. Raises ValueError where they are none, or fewer than `least`."""
    if not isinstance(pairs, list | tuple):
        raise ValueError(f"no list of points in its {what}")
    if not all(isinstance(pair, list | tuple) and len(pair) >= 2 for pair in pairs):
        raise ValueError(f"no point in its {what}")
    if len(pairs) < least:
        raise ValueError(f"fewer than {least} points in its {what}")
    return tuple((number(pair[0], what), number(pair[1], what)) for pair in pairs)


def turned(corners: Corners, degrees: float) -> Outline:
    """A rectangle, turned clockwise around its centre."""
    if degrees % 180 == 0:
        return Rectangle(corners)
    x0, y0, x1, y1 = corners
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    edges = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return Polygon(
        tuple(
            (x + (right - x) * cosine - (down - y) * sine, y + (right - x) * sine + (down - y) * cosine)
            for right, down in edges
        )
    )


def rectangle(first: Point, second: Point, what: str) -> Rectangle:
    """The rectangle with two opposite corners, whichever they are. Raises ValueError where it has no area."""
    corners = around((first, second))
    if corners[0] == corners[2] or corners[1] == corners[3]:
        raise ValueError(f"its {what} has no area")
    return Rectangle(corners)
