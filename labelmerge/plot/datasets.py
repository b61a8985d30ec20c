"""How a dataset looks in every picture: a colour and a shape, so that no one has to tell datasets by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Vertices = tuple[tuple[float, float], ...]

# M. Okabe and K. Ito, "Color Universal Design" (2008), without black and yellow, which vanish on dark or light paper.
# Beyond six datasets the colours come again in other lightness, then duller; none comes near black or white. Shapes
# come again after seven, so hues that look alike must not stand side by side, nor the last and the first.
_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"),
    *("#66aad1", "#e69e66", "#66c5ab", "#854f6d", "#387597", "#966700"),
    *("#3d6fb4", "#a14c0c", "#006f50", "#e0afca", "#9ad2f2", "#f0c566"),
    *("#4d7a94", "#a2724d", "#4d8c7b", "#9e7d90", "#6f95aa", "#a98c4d"),
)


def _polygon(corners: int, turn: float = 0.0) -> Vertices:
    angles = np.radians(turn) + 2 * np.pi * np.arange(corners) / corners
    return tuple((round(float(np.sin(a)), 3), round(float(np.cos(a)), 3)) for a in angles)


def _star(points: int, inner: float) -> Vertices:
    outer, inward = _polygon(points), _polygon(points, 180 / points)
    return tuple(v for a, (x, y) in zip(outer, inward, strict=True) for v in (a, (inner * x, inner * y)))


def _cross(length: float, half_width: float) -> Vertices:
    corner: Vertices = ((half_width, half_width), (half_width, length), (-half_width, length))
    outline: list[tuple[float, float]] = []
    for _ in range(4):
        outline += corner
        corner = tuple((-y, x) for x, y in corner)  # a quarter turn
    return tuple(outline)


SHAPES: dict[str, Vertices] = {
    "circle": tuple((0.92 * x, 0.92 * y) for x, y in _polygon(24)),
    "square": ((-0.8, -0.8), (-0.8, 0.8), (0.8, 0.8), (0.8, -0.8)),
    "triangle": ((-1.0, -0.75), (0.0, 1.0), (1.0, -0.75)),
    "diamond": _polygon(4),
    "cross": _cross(0.95, 0.35),
    "wedge": ((-1.0, 0.75), (1.0, 0.75), (0.0, -1.0)),
    "star": _star(5, 0.45),
}
"""Outlines in the square from -1 to 1, y upwards."""


@dataclass(frozen=True)
class Style:
    """A dataset's colour ``#rrggbb`` and its shape, a name in `SHAPES`."""

    colour: str
    shape: str

    @property
    def outline(self) -> Vertices:
        return SHAPES[self.shape]


def dataset_styles(names: Sequence[str]) -> dict[str, Style]:
    """How each dataset is drawn, in order of name; the same names get the same styles.

    Six hues that the colour-blind can tell apart, in four shades, and seven shapes: up to 24 datasets differ in colour,
    up to 168 in colour or shape, and neighbours in the alphabet in both.
    """
    shapes = list(SHAPES)
    styles = {}
    for number, name in enumerate(sorted(set(names))):
        styles[name] = Style(_COLOURS[number % len(_COLOURS)], shapes[number % len(shapes)])
    return styles
