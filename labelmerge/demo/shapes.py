"""Outlines of things as lists of polygons, in a unit box: x from -0.5 to 0.5, y from 0 (on the ground) to 1 (top)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIRST, SECOND, DARK, LIGHT = "first", "second", "dark", "light"


@dataclass(frozen=True)
class Part:
    """One polygon of a thing: `points` [N, 2], and which of the thing's colours fills it."""

    points: Floats
    fill: str = FIRST


def box(x0: float, y0: float, x1: float, y1: float, fill: str = FIRST) -> Part:
    return Part(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), fill)


def polygon(*points: tuple[float, float], fill: str = FIRST) -> Part:
    return Part(np.array(points, dtype=np.float64), fill)


def ellipse(x: float, y: float, rx: float, ry: float, fill: str = FIRST, corners: int = 18) -> Part:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return Part(np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1), fill)


def blob(x: float, y: float, rx: float, ry: float, rng: np.random.Generator, fill: str = FIRST) -> Part:
    """A round, uneven outline, as of leaves."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    radius = 1 + rng.normal(0, 0.10, 16)
    return Part(np.stack([x + rx * radius * np.cos(angles), y + ry * radius * np.sin(angles)], axis=1), fill)


def _quadruped(s: Floats, rng: np.random.Generator) -> list[Part]:
    leg, thick, head, neck = 0.40 + 0.09 * s[0], 0.20 + 0.03 * s[1], 0.13 + 0.025 * s[2], 0.16 + 0.08 * s[3]
    ear, tail = 0.10 + 0.05 * s[4], 0.14 + 0.06 * s[5]
    step = rng.uniform(-0.03, 0.03)
    back = leg + 2 * thick
    legs = [
        box(x + d - 0.035, 0, x + d + 0.035, leg + 0.1)
        for x, d in ((-0.28, step), (-0.17, -step), (0.16, step), (0.26, -step))
    ]
    head_x, head_y = 0.36, min(back + neck, 0.97 - head)
    return [
        *legs,
        polygon((-0.30, back - 0.06), (-0.30 - tail, back - 0.22), (-0.27 - tail, back - 0.26), (-0.28, back - 0.14)),
        ellipse(-0.01, leg + thick, 0.33, thick),
        polygon(
            (0.16, back - 0.04), (head_x - 0.04, head_y + 0.04), (head_x + 0.05, head_y - 0.05), (0.30, leg + 0.08)
        ),
        ellipse(head_x + 0.05, head_y, head + 0.02, head * 0.8),
        polygon(
            (head_x - 0.02, head_y + head * 0.5),
            (head_x, head_y + head * 0.6 + ear),
            (head_x + 0.06, head_y + head * 0.6),
        ),
        ellipse(-0.05, leg + thick * 0.7, 0.2, thick * 0.45, SECOND),
        ellipse(head_x + 0.08, head_y + 0.03, 0.018, 0.025, DARK, 8),
    ]


def _bird(s: Floats, rng: np.random.Generator) -> list[Part]:
    leg, neck, bill, body = 0.26 + 0.10 * s[0], 0.14 + 0.09 * s[3], 0.16 + 0.05 * s[4], 0.17 + 0.03 * s[1]
    y = leg + body
    head_x, head_y = 0.26, min(y + body * 0.6 + max(neck, 0.02), 0.90)
    return [
        box(-0.03, 0, 0.0, leg + 0.05, DARK),
        box(0.06, 0, 0.09, leg + 0.05, DARK),
        polygon((-0.22, y + 0.05), (-0.48, y - 0.06 + 0.05 * s[5]), (-0.44, y - 0.14), (-0.15, y - 0.10)),
        ellipse(0, y, 0.28, body),
        polygon((0.12, y + body * 0.5), (head_x - 0.05, head_y), (head_x + 0.05, head_y - 0.04), (0.25, y)),
        ellipse(head_x, head_y, 0.10, 0.09),
        polygon(
            (head_x + 0.07, head_y + 0.03),
            (head_x + 0.07 + bill, head_y - 0.01),
            (head_x + 0.07, head_y - 0.04),
            fill=DARK,
        ),
        ellipse(-0.05, y + 0.01, 0.19, body * 0.5, SECOND),
    ]


def _rodent(s: Floats, rng: np.random.Generator) -> list[Part]:
    ear, high, tail = 0.13 + 0.04 * s[4], 0.34 + 0.06 * s[1], 0.03 + 0.012 * s[5]
    return [
        polygon((-0.25, 0.15), (-0.50, 0.30), (-0.50, 0.30 + tail), (-0.22, 0.22 + 2 * tail)),
        ellipse(-0.05, high + 0.02, 0.30, high),
        ellipse(0.28, high * 0.9, 0.19, high * 0.62),
        ellipse(0.20, high * 1.5 + 0.05, ear, ear * 1.4, SECOND, 12),
        ellipse(0.35, high, 0.025, 0.05, DARK, 8),
        ellipse(0.46, high * 0.8, 0.02, 0.04, DARK, 8),
    ]


def _person(s: Floats, rng: np.random.Generator) -> list[Part]:
    waist, wide, stride = 0.46 + 0.03 * s[0], 0.24 + 0.04 * s[1], rng.uniform(0.02, 0.16)
    return [
        polygon((-0.16, waist), (-0.14 - stride, 0), (-0.02 - stride, 0), (0.04, waist), fill=SECOND),
        polygon((-0.04, waist), (0.04 + stride, 0), (0.16 + stride, 0), (0.16, waist), fill=SECOND),
        polygon((-wide, 0.80), (-wide - 0.12, 0.45), (-wide, 0.43), (-0.10, 0.76)),
        polygon((wide, 0.80), (wide + 0.12, 0.45), (wide, 0.43), (0.10, 0.76)),
        polygon((-wide, 0.82), (wide, 0.82), (0.18, waist - 0.02), (-0.18, waist - 0.02)),
        ellipse(0, 0.90, 0.15 + 0.015 * s[2], 0.10, LIGHT),
        polygon((-0.15, 0.92), (0, 1.0), (0.15, 0.92), (0.1, 0.95), (-0.1, 0.95), fill=DARK),
    ]


def _rider(s: Floats, rng: np.random.Generator) -> list[Part]:
    lean = 0.10 + 0.03 * s[0]
    return [
        polygon((-0.18, 0.45), (0.08, 0.22), (0.02, 0.02), (0.12, 0.02), (0.2, 0.26), (0.0, 0.5), fill=SECOND),
        polygon((-0.26, 0.42), (0.0, 0.42), (lean + 0.16, 0.78), (lean - 0.12, 0.80)),
        polygon((lean, 0.72), (0.40, 0.50), (0.42, 0.56), (lean + 0.14, 0.80)),
        ellipse(lean + 0.06, 0.89, 0.14 + 0.015 * s[2], 0.10, LIGHT),
        polygon((lean - 0.10, 0.91), (lean + 0.06, 1.0), (lean + 0.22, 0.91), fill=DARK),
    ]


def _cycle(s: Floats, rng: np.random.Generator) -> list[Part]:
    wheel, bulk = 0.21 + 0.02 * s[1], 0.05 + 0.05 * max(s[0] + 0.5, 0.0)
    return [
        ellipse(-0.28, wheel * 1.6, wheel, wheel * 1.6, DARK),
        ellipse(0.28, wheel * 1.6, wheel, wheel * 1.6, DARK),
        ellipse(-0.28, wheel * 1.6, wheel * 0.6, wheel * 0.95, SECOND),
        ellipse(0.28, wheel * 1.6, wheel * 0.6, wheel * 0.95, SECOND),
        polygon(
            (-0.30, 0.36),
            (-0.10, 0.70 + bulk),
            (0.20, 0.72 + bulk),
            (0.30, 0.36),
            (0.20, 0.36 - bulk),
            (-0.10, 0.36 - bulk),
        ),
        polygon((0.16, 0.70), (0.22, 0.98), (0.30, 0.98), (0.24, 0.66)),
        box(-0.22, 0.72, -0.02, 0.82, DARK),
    ]


def _wheels(*places: tuple[float, float, float]) -> list[Part]:
    """Wheels at (x, radius, aspect)."""
    out = []
    for x, radius, aspect in places:
        out += [
            ellipse(x, radius * aspect, radius, radius * aspect, DARK, 14),
            ellipse(x, radius * aspect, radius * 0.45, radius * 0.45 * aspect, LIGHT, 8),
        ]
    return out


def _car(s: Floats, rng: np.random.Generator) -> list[Part]:
    roof, long = 0.96, 0.20 + 0.04 * s[1]
    waist = 0.54 + 0.03 * s[0]
    return [
        polygon((-0.5, 0.2), (-0.48, waist), (-0.34, waist + 0.04), (0.36, waist), (0.5, waist - 0.1), (0.5, 0.2)),
        polygon((-0.36, waist), (-long - 0.04, roof), (long - 0.04, roof), (0.30, waist)),
        polygon((-0.28, waist + 0.03), (-long, roof - 0.07), (-0.03, roof - 0.07), (-0.03, waist + 0.03), fill=LIGHT),
        polygon(
            (0.02, waist + 0.03), (0.02, roof - 0.07), (long - 0.06, roof - 0.07), (0.22, waist + 0.03), fill=LIGHT
        ),
        box(-0.5, 0.3, 0.5, 0.36, SECOND),
        *_wheels((-0.28, 0.11, 1.8), (0.28, 0.11, 1.8)),
    ]


def _bus(s: Floats, rng: np.random.Generator) -> list[Part]:
    low, high = 0.48 + 0.03 * s[0], 0.82 + 0.02 * s[1]
    windows = [box(x, low, x + 0.12, high, LIGHT) for x in np.arange(-0.45, 0.36, 0.155)]
    return [
        box(-0.5, 0.12, 0.5, 0.98),
        box(-0.5, 0.26, 0.5, 0.36, SECOND),
        *windows,
        *_wheels((-0.30, 0.075, 1.9), (0.30, 0.075, 1.9)),
    ]


def _truck(s: Floats, rng: np.random.Generator) -> list[Part]:
    cab = 0.24 + 0.02 * s[1]
    return [
        box(-0.5, 0.22, cab - 0.06, 0.98, SECOND),
        polygon((cab - 0.04, 0.18), (cab - 0.04, 0.80), (0.42, 0.80), (0.5, 0.48), (0.5, 0.18)),
        polygon((cab + 0.04, 0.50), (cab + 0.04, 0.74), (0.40, 0.74), (0.46, 0.50), fill=LIGHT),
        box(-0.5, 0.16, 0.5, 0.26, DARK),
        *_wheels((-0.34, 0.09, 1.6), (-0.14, 0.09, 1.6), (0.33, 0.09, 1.6)),
    ]


def _tractor(s: Floats, rng: np.random.Generator) -> list[Part]:
    rear = 0.24 + 0.02 * s[1]
    return [
        box(-0.12, 0.26, 0.46, 0.56),
        box(-0.38, 0.40, 0.02, 0.98),
        box(-0.30, 0.60, -0.04, 0.90, LIGHT),
        box(-0.42, 0.92, 0.06, 1.0, SECOND),
        box(0.30, 0.54, 0.34, 0.80, DARK),
        *_wheels((-0.24, rear, 1.25), (0.34, 0.13, 1.25)),
    ]


def _windows(x0: float, x1: float, y0: float, y1: float, columns: int, rows: int) -> list[Part]:
    w, h = (x1 - x0) / columns, (y1 - y0) / rows
    return [
        box(
            x0 + (c + 0.22) * w,
            y0 + (r + 0.25) * h,
            x0 + (c + 0.78) * w,
            y0 + (r + 0.78) * h,
            LIGHT if (c + r) % 3 else DARK,
        )
        for c in range(columns)
        for r in range(rows)
    ]


def _house(s: Floats, rng: np.random.Generator) -> list[Part]:
    eaves = 0.70 + 0.05 * s[0]
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    return [
        box(-0.46, 0, 0.46, eaves),
        polygon((-0.5, eaves), (-0.5 + 0.15, 1.0), (0.5 - 0.15, 1.0), (0.5, eaves), fill=SECOND),
        *_windows(-0.42, 0.42, 0.18, eaves, columns, rows),
        box(-0.07, 0, 0.07, 0.2, DARK),
    ]


def _cottage(s: Floats, rng: np.random.Generator) -> list[Part]:
    eaves = 0.44 + 0.05 * s[0]
    return [
        box(-0.44, 0, 0.44, eaves),
        box(0.18, eaves + 0.1, 0.28, 1.0),
        polygon((-0.5, eaves), (-0.26, 0.94), (0.26, 0.94), (0.5, eaves), fill=SECOND),
        *_windows(-0.42, 0.42, 0.08, eaves, 3, 1),
        box(-0.08, 0, 0.08, eaves * 0.7, DARK),
    ]


def _tower(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [
        box(-0.46, 0, 0.46, 0.94),
        box(-0.30, 0.93, 0.30, 1.0, SECOND),
        *_windows(-0.42, 0.42, 0.04, 0.92, int(rng.integers(3, 5)), int(rng.integers(6, 9))),
    ]


def _tree(s: Floats, rng: np.random.Generator) -> list[Part]:
    trunk, crown = 0.07 + 0.012 * s[1], 0.30 + 0.05 * s[0]
    return [
        box(-trunk, 0, trunk, crown + 0.15, DARK),
        blob(-0.20, crown + 0.22, 0.28, 0.22, rng),
        blob(0.20, crown + 0.24, 0.28, 0.22, rng),
        blob(0.0, 0.74, 0.32, 0.25, rng),
        blob(0.06, 0.60, 0.16, 0.12, rng, SECOND),
    ]


def _hedge(s: Floats, rng: np.random.Generator) -> list[Part]:
    tops = [blob(x, 0.74, 0.13, 0.22, rng) for x in np.linspace(-0.40, 0.40, 6)]
    return [box(-0.5, 0, 0.5, 0.78), *tops, blob(rng.uniform(-0.3, 0.3), 0.5, 0.12, 0.2, rng, SECOND)]


def _fence(s: Floats, rng: np.random.Generator) -> list[Part]:
    pales = [
        polygon((x, 0), (x, 0.86), (x + 0.03, 1.0), (x + 0.06, 0.86), (x + 0.06, 0))
        for x in np.arange(-0.5, 0.45, 0.095)
    ]
    return [box(-0.5, 0.24, 0.5, 0.40, SECOND), box(-0.5, 0.62, 0.5, 0.76, SECOND), *pales]


def _wall(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [box(-0.5, 0, 0.5, 0.9), box(-0.5, 0.86, 0.5, 1.0, SECOND)]


def _pole(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [box(-0.5, 0, 0.5, 1.0)]


def _sign(s: Floats, rng: np.random.Generator) -> list[Part]:
    if s[0] + rng.normal(0, 0.5) > 0:
        return [ellipse(0, 0.5, 0.5, 0.5), ellipse(0, 0.5, 0.3, 0.3, SECOND)]
    return [polygon((-0.5, 0.05), (0.5, 0.05), (0, 1.0)), polygon((-0.25, 0.2), (0.25, 0.2), (0, 0.7), fill=SECOND)]


def _chair(s: Floats, rng: np.random.Generator) -> list[Part]:
    seat = 0.46 + 0.03 * s[0]
    legs = [box(x, 0, x + 0.09, seat) for x in (-0.42, -0.22, 0.14, 0.33)]
    return [
        *legs,
        box(-0.46, seat - 0.04, 0.46, seat + 0.1, SECOND),
        polygon((-0.46, seat), (-0.5, 1.0), (-0.30, 1.0), (-0.26, seat)),
        box(-0.46, 0.84, 0.30, 1.0),
    ]


def _sofa(s: Floats, rng: np.random.Generator) -> list[Part]:
    back = 0.92 + 0.03 * s[0]
    return [
        box(-0.46, 0.36, 0.46, back),
        box(-0.42, 0.12, 0.42, 0.46, SECOND),
        ellipse(-0.43, 0.42, 0.08, 0.20),
        ellipse(0.43, 0.42, 0.08, 0.20),
        box(-0.5, 0.05, -0.37, 0.44),
        box(0.37, 0.05, 0.5, 0.44),
    ]


def _bed(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [
        box(-0.5, 0, -0.44, 1.0),
        box(-0.5, 0.16, 0.5, 0.44),
        box(0.45, 0, 0.5, 0.62),
        polygon((-0.44, 0.42), (-0.44, 0.60), (0.46, 0.60), (0.46, 0.42), fill=SECOND),
        ellipse(-0.32, 0.66, 0.12, 0.12, LIGHT),
    ]


def _table(s: Floats, rng: np.random.Generator) -> list[Part]:
    top = 0.84 + 0.02 * s[0]
    return [
        box(-0.44, 0, -0.36, top),
        box(0.36, 0, 0.44, top),
        box(-0.40, top - 0.16, 0.40, top, SECOND),
        box(-0.5, top, 0.5, 1.0),
    ]


def _cabinet(s: Floats, rng: np.random.Generator) -> list[Part]:
    doors = 2 + int(s[1] > 0)
    width = 0.92 / doors
    panels = [box(-0.46 + i * width + 0.03, 0.10, -0.46 + (i + 1) * width - 0.03, 0.80, SECOND) for i in range(doors)]
    handles = [box(-0.46 + (i + 0.8) * width, 0.42, -0.46 + (i + 0.8) * width + 0.02, 0.56, DARK) for i in range(doors)]
    return [box(-0.48, 0, 0.48, 0.92), *panels, *handles, box(-0.5, 0.88, 0.5, 1.0)]


def _desk(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [
        polygon((-0.44, 0), (-0.5, 0.86), (0.5, 0.86), (0.44, 0)),
        box(-0.40, 0.18, 0.40, 0.62, SECOND),
        box(-0.5, 0.84, 0.5, 1.0),
        box(0.16, 0.84, 0.36, 1.0, DARK),
    ]


def _screen(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [
        box(-0.06, 0, 0.06, 0.2),
        box(-0.2, 0, 0.2, 0.08),
        box(-0.5, 0.18, 0.5, 1.0),
        box(-0.43, 0.28, 0.43, 0.92, SECOND),
    ]


def _keyboard(s: Floats, rng: np.random.Generator) -> list[Part]:
    keys = [box(x, y, x + 0.075, y + 0.24, SECOND) for y in (0.14, 0.56) for x in np.arange(-0.44, 0.40, 0.11)]
    return [polygon((-0.5, 0), (-0.46, 1.0), (0.46, 1.0), (0.5, 0)), *keys]


def _computer_mouse(s: Floats, rng: np.random.Generator) -> list[Part]:
    return [ellipse(0, 0.5, 0.5, 0.5), box(-0.02, 0.55, 0.02, 0.95, SECOND), ellipse(0.0, 0.66, 0.07, 0.12, SECOND, 8)]


SHAPES: dict[str, Callable[[Floats, np.random.Generator], list[Part]]] = {
    "quadruped": _quadruped,
    "bird": _bird,
    "rodent": _rodent,
    "person": _person,
    "rider": _rider,
    "cycle": _cycle,
    "car": _car,
    "bus": _bus,
    "truck": _truck,
    "tractor": _tractor,
    "house": _house,
    "cottage": _cottage,
    "tower": _tower,
    "tree": _tree,
    "hedge": _hedge,
    "fence": _fence,
    "wall": _wall,
    "pole": _pole,
    "sign": _sign,
    "chair": _chair,
    "sofa": _sofa,
    "bed": _bed,
    "table": _table,
    "cabinet": _cabinet,
    "desk": _desk,
    "screen": _screen,
    "keyboard": _keyboard,
    "computer_mouse": _computer_mouse,
}
"""The outline of each shape: (traits [6], rng of the individual) -> parts, painted in this order."""
