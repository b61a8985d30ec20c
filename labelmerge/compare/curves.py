"""The loss curves of runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labelmerge.colours import dataset_styles
from labelmerge.compare.records import RunRecord
from labelmerge.compare.tables import is_number

_CURVE_WIDTH, _CURVE_HEIGHT = 640.0, 220.0
_MOST_POINTS = 400
_SHOWN = 0.98  # of the losses: of many, the few highest would leave no room for the others
_TICKS = 4  # about how many


@dataclass(frozen=True)
class Curve:
    """One run's loss: the points of an SVG polyline."""

    name: str
    colour: str
    points: str


@dataclass(frozen=True)
class Curves:
    """The loss of every run over its steps; `ticks` are round losses and their heights, `cut` says if any is higher."""

    lines: Sequence[Curve]
    last_step: int
    ticks: Sequence[tuple[float, float]]
    cut: bool
    width: float = _CURVE_WIDTH
    height: float = _CURVE_HEIGHT


def loss_curves(runs: Sequence[RunRecord]) -> Curves | None:
    """The loss of each run over its steps, cut off above the 98th percentile of all."""
    logged = {run.name: [line for line in run.log if is_number(line.get("loss"))] for run in runs}
    points = {name: [(line["step"], float(line["loss"])) for line in log] for name, log in logged.items() if log[1:]}
    if not points:
        return None
    last = max(step for line in points.values() for step, _ in line)
    values = sorted(loss for line in points.values() for _, loss in line)
    highest = values[math.ceil(_SHOWN * (len(values) - 1))]
    top = max(highest * 1.05, 1e-9)
    styles = dataset_styles([run.name for run in runs])
    curves = []
    for name, line in points.items():
        places = line[:: max(1, len(line) // _MOST_POINTS)]
        drawn = " ".join(
            f"{step / max(last, 1) * _CURVE_WIDTH:.1f},{_CURVE_HEIGHT * (1 - min(max(loss, 0) / top, 1)):.1f}"
            for step, loss in places
        )
        curves.append(Curve(name, styles[name].colour, drawn))
    step = _round_step(top / _TICKS)
    ticks = [(number * step, _CURVE_HEIGHT * (1 - number * step / top)) for number in range(int(top / step) + 1)]
    return Curves(curves, last, ticks, values[-1] > top)


def _round_step(value: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is no less than a value above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
