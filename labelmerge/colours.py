"""How labels and datasets look in every picture: a colour for each label's name, a colour and a shape for each dataset.

Shapes come with the datasets' colours so that nobody has to tell datasets apart by colour alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from labelmerge.names import prompt_name

Palette = npt.NDArray[np.uint8]
Vertices = tuple[tuple[float, float], ...]

# What everybody expects to look like itself; nothing grey, because the image under a colour is grey.
_NATURAL = {
    "sky": (112, 178, 232),
    "road": (128, 70, 142),
    "sidewalk": (232, 98, 204),
    "pavement": (232, 98, 204),
    "building": (184, 92, 68),
    "wall": (226, 190, 138),
    "vegetation": (64, 138, 58),
    "tree": (48, 118, 62),
    "grass": (142, 196, 74),
    "terrain": (176, 214, 130),
    "water": (44, 128, 182),
    "sea": (24, 98, 168),
    "river": (74, 156, 202),
    "sand": (232, 206, 140),
    "snow": (226, 238, 246),
    "earth": (158, 92, 36),
    "mountain": (116, 98, 50),
    "floor": (198, 156, 106),
    "fence": (206, 150, 150),
    "person": (224, 44, 70),
    "rider": (255, 96, 16),
    "car": (36, 62, 190),
    "truck": (28, 30, 116),
    "bus": (10, 140, 150),
    "bicycle": (140, 22, 58),
    "traffic light": (250, 176, 24),
    "traffic sign": (236, 226, 22),
}

_FAR_ENOUGH = 0.09  # distance in OKLab from which two areas of colour are told apart at a glance


def palette(names: Sequence[str]) -> Palette:
    """A colour for each name: uint8 ``[K, 3]``, RGB.

    A name has the same colour wherever it is drawn (case and surrounding blanks don't matter). Only where an earlier
    one of `names` has a colour too much like it does it take another; things whose colour everybody expects (the sky's,
    a road's) choose before all others. The other colour is the next one along that is far enough from all earlier ones,
    or, in long lists, the farthest there is. Equal names have equal colours.
    """
    colours, lab = _candidates()
    chosen: dict[str, Palette] = {}
    taken = np.empty((0, 3))
    gaps = np.full(len(lab), np.inf)  # from each candidate to the nearest colour taken
    for name in sorted(map(_key, names), key=lambda name: prompt_name(name) not in _NATURAL):
        if name in chosen:
            continue
        own, start = _own(name)
        place = oklab(own)
        if (np.linalg.norm(taken - place, axis=1) < _FAR_ENOUGH).any():
            onwards = np.roll(gaps, -start)
            far = np.flatnonzero(onwards >= _FAR_ENOUGH)
            index = (start + int(far[0] if len(far) else onwards.argmax())) % len(colours)
            own, place = colours[index], lab[index]
        chosen[name] = own
        taken = np.vstack([taken, place])
        gaps = np.minimum(gaps, np.linalg.norm(lab - place, axis=1))
    return np.array([chosen[_key(name)] for name in names], dtype=np.uint8).reshape(-1, 3)


def _key(name: str) -> str:
    return name.strip().casefold()


def _own(name: str) -> tuple[Palette, int]:
    """The colour that a name has by itself, and where the search for another begins."""
    colours, _ = _candidates()
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(colours)
    natural = _NATURAL.get(prompt_name(name))  # grass-merged is grass
    return (np.array(natural, dtype=np.uint8) if natural else colours[start]), start


@cache
def _candidates() -> tuple[Palette, npt.NDArray[np.float64]]:
    """Colours that are neither near black nor near white nor grey: uint8 ``[n, 3]``, and their OKLab ``[n, 3]``.

    A regular grid of hue, chroma and lightness in OKLab, as far as screens can show it, in a fixed jumbled order.
    """
    grid = [
        (lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        for lightness in (0.45, 0.56, 0.67, 0.78, 0.88)
        for chroma in (0.09, 0.14, 0.19)
        for hue in np.arange(0, 2 * np.pi, np.pi / 12)
    ]
    linear = _lab_to_linear(np.array(grid))
    visible = linear[((linear >= 0) & (linear <= 1)).all(axis=1)]
    encoded = np.where(visible <= 0.0031308, 12.92 * visible, 1.055 * visible ** (1 / 2.4) - 0.055)
    colours = np.round(encoded * 255).astype(np.uint8)
    colours = colours[np.random.Generator(np.random.PCG64(5)).permutation(len(colours))]
    return colours, np.array([oklab(colour) for colour in colours])


# Björn Ottosson, "A perceptual color space for image processing" (2020): OKLab's two matrices.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colour: Palette) -> npt.NDArray[np.float64]:
    """An sRGB colour, uint8 ``[3]``, in OKLab, float64 ``[3]``, where distances are as large as they look."""
    value = colour.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lab: npt.NDArray[np.float64] = _TO_LAB @ np.cbrt(_TO_CONES @ linear)
    return lab


def _lab_to_linear(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear: npt.NDArray[np.float64] = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    return linear


# M. Okabe and K. Ito, "Color Universal Design" (2008), without black and yellow, which vanish on dark or light paper.
# Beyond six datasets the colours come again in other lightness, then duller; none comes near black or white. Shapes
# come again after seven, so hues that look alike must not stand side by side, nor the last and the first.
_DATASET_COLOURS = (
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
        styles[name] = Style(_DATASET_COLOURS[number % len(_DATASET_COLOURS)], shapes[number % len(shapes)])
    return styles
