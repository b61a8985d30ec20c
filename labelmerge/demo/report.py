"""The demo's page: one self-contained HTML file, made of plain data. It computes nothing but where ink goes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.demo.results import Mean
from labelmerge.files import write_text
from labelmerge.pages import render_page

Image8 = npt.NDArray[np.uint8]

_CURVE_WIDTH, _CURVE_HEIGHT = 320.0, 150.0


@dataclass(frozen=True)
class Chip:
    """A label with its colour in the pictures beside it. `unseen`: no training dataset has it."""

    name: str
    colour: str
    unseen: bool = False


@dataclass(frozen=True)
class DatasetCard:
    """A dataset: two pictures of it, data URIs, and its labels."""

    name: str
    title: str
    kind: str
    facts: str
    image: str
    annotation: str
    chips: Sequence[Chip]
    held_out: bool = False


@dataclass(frozen=True)
class MethodRow:
    """A line of the table: figures by column key, each 0..1; `featured` is the method that the page is about."""

    key: str
    name: str
    about: str
    figures: Mapping[str, Mean]
    featured: bool = False


@dataclass(frozen=True)
class Matrix:
    """A similarity matrix: its rows' names, and a PNG of one pixel for each cell, as a data URI."""

    title: str
    names: Sequence[str]
    picture: str


@dataclass(frozen=True)
class PairRow:
    """Two labels, what each means, and how similar their words and their sentences are."""

    left: str
    right: str
    relation: str
    words: float
    sentences: float


@dataclass(frozen=True)
class MergedLabel:
    """Labels that became one, or nearly one, vector: (name, the datasets that have it); the least of their cosines."""

    members: Sequence[tuple[str, str]]
    similarity: float


@dataclass(frozen=True)
class Curve:
    """One method's loss over the steps."""

    key: str
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class CurveChart:
    """One loss of several methods."""

    title: str
    about: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class PredictionRow:
    """An image of a held-out set, its truth and what each method makes of it; pictures are data URIs."""

    name: str
    pictures: Sequence[tuple[str, str]]
    chips: Sequence[Chip]


@dataclass(frozen=True)
class UnseenCard:
    """A label that no dataset has, found by its description. `heat`: how similar each pixel is to that sentence."""

    name: str
    description: str
    image: str
    truth: str
    heat: str
    found: str
    scores: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class LabelRow:
    """IoU of one label of a held-out set by each method, as strings, in the order of the table's methods."""

    dataset: str
    name: str
    unseen: bool
    figures: Sequence[str]


@dataclass(frozen=True)
class PhotographCard:
    """A real photograph and what came of it: pictures with captions, and the command that asks for other words."""

    about: str
    pictures: Sequence[tuple[str, str]]
    command: str


@dataclass(frozen=True)
class Page:
    """Everything the page shows; without `methods`, nothing of training."""

    title: str
    lead: str
    hero: Sequence[tuple[str, str]]
    tiles: Sequence[tuple[str, str]]
    datasets: Sequence[DatasetCard]
    matrices: Sequence[Matrix]
    pairs: Sequence[PairRow]
    merged: Sequence[MergedLabel]
    merged_about: str
    kept_apart: Sequence[PairRow]
    commands: Sequence[tuple[str, str]]
    verdict: Sequence[str] = ()
    columns: Sequence[tuple[str, str]] = ()
    methods: Sequence[MethodRow] = ()
    bars: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    unseen: Sequence[UnseenCard] = ()
    predictions: Sequence[PredictionRow] = ()
    charts: Sequence[CurveChart] = ()
    labels: Sequence[LabelRow] = ()
    protocol: Sequence[tuple[str, str]] = ()
    photograph: PhotographCard | None = None


def write_page(path: Path, page: Page) -> None:
    """Write the page: one HTML file that needs no other. Raises OutputError."""
    values = {"page": page, "plot": _plot, "bar_scale": _bar_scale(page)}
    write_text(path, render_page("labelmerge.demo", "demo.html.j2", values))


def data_uri(image: Image8, *, enlarge: int = 1) -> str:
    """A PNG as a data URI; `enlarge` repeats pixels, so that small pictures stay crisp where browsers smooth."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)).save(out, "PNG", optimize=True)
    return png_uri(out.getvalue())


def jpeg_uri(jpeg: bytes) -> str:
    """The bytes of a JPEG file as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def png_uri(png: bytes) -> str:
    """The bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def heat_map(image: Image8, similarity: npt.NDArray[np.floating]) -> Image8:
    """Similarity [H, W], scaled to its own range, as light over the darkened image [H, W, 3]."""
    low, high = np.percentile(similarity, [5, 99.5])
    share = np.clip((similarity - low) / max(high - low, 1e-9), 0, 1)[:, :, None] ** 1.5
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    glow = np.concatenate([np.full_like(share, 255.0), 60 + 170 * share, 40 * (1 - share)], axis=2)
    mixed: Image8 = ((1 - share) * 0.45 * grey + share * glow).astype(np.uint8)
    return mixed


def _bar_scale(page: Page) -> float:
    """The figure that fills a bar: the largest of those drawn, rounded up to the next tenth."""
    values = [
        method.figures[key].value + (method.figures[key].spread or 0.0)
        for method in page.methods
        for key, _ in page.bars
    ]
    return float(np.ceil(max([*values, 0.1]) * 10) / 10)


@dataclass(frozen=True)
class _Plotted:
    lines: Sequence[tuple[str, str, str]]  # key, name, SVG points
    y_ticks: Sequence[tuple[float, str]]
    x_last: str
    width: float = _CURVE_WIDTH
    height: float = _CURVE_HEIGHT


def _plot(chart: CurveChart) -> _Plotted:
    """A chart in SVG coordinates; the vertical axis begins at 0 and ends at the 98th percentile of what is drawn."""
    values = [y for curve in chart.curves for _, y in curve.points]
    steps = [x for curve in chart.curves for x, _ in curve.points]
    top = float(np.percentile(values, 98)) * 1.05 if values else 1.0
    last = max(steps, default=1.0)
    lines = []
    for curve in chart.curves:
        points = " ".join(
            f"{x / last * _CURVE_WIDTH:.1f},{_CURVE_HEIGHT - min(y / top, 1.0) * _CURVE_HEIGHT:.1f}"
            for x, y in curve.points
        )
        lines.append((curve.key, curve.name, points))
    ticks = [(_CURVE_HEIGHT * (1 - share), f"{top * share:.1f}") for share in (0.0, 0.5, 1.0)]
    return _Plotted(lines, ticks, f"{last:.0f}")
