"""The nearest labels in other datasets: of every label, and of given ones as text and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.colours import dataset_styles
from labelmerge.errors import UsageError, did_you_mean
from labelmerge.labels import LabelKey
from labelmerge.merge.groups import calibrated_threshold, cosine_matrix
from labelmerge.names import prompt_name
from labelmerge.plot.figures import check_format, dataset_legend, marker, save_figure

_ROW_INCHES = 0.24
_PANEL_INCHES = 0.75  # title and margins
_MARKS_SHOWN = 14


@dataclass(frozen=True)
class Label:
    """A label and its official name."""

    dataset: str
    index: int
    name: str


@dataclass(frozen=True)
class Neighbour:
    """Labels of one text, and how near they are.

    Attributes:
        name: their commonest `prompt_name`.
        labels: those of other datasets than the label that was asked for.
        cosine: with it.
    """

    name: str
    labels: tuple[Label, ...]
    cosine: float


@dataclass(frozen=True)
class Neighbourhood:
    """A label, or all labels of a name that share a text, and what is nearest in other datasets.

    Attributes:
        name: the commonest `prompt_name` of `labels`.
        labels: what was asked for.
        neighbours: nearest first.
    """

    name: str
    labels: tuple[Label, ...]
    neighbours: tuple[Neighbour, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def nearest_elsewhere(bank: Bank) -> list[tuple[int | None, float | None]]:
    """For every label, the row of the nearest label of another dataset and their cosine; None where there is none.

    Among equals the first in the bank's order.
    """
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    cosines = np.where(dataset[:, None] == dataset[None], -np.inf, cosine_matrix(bank))
    nearest = cosines.argmax(axis=1)
    best = cosines[np.arange(len(bank)), nearest]
    return [
        (int(row), float(cosine)) if np.isfinite(cosine) else (None, None)
        for row, cosine in zip(nearest, best, strict=True)
    ]


def find_neighbours(bank: Bank, label: str, count: int = 8) -> list[Neighbourhood]:
    """What lies nearest to a label in other datasets.

    Labels that share a text stand together, since one vector is theirs.

    Args:
        bank: the labels.
        label: ``DATASET:NAME`` or ``DATASET:INDEX`` for one label, or a NAME for all labels called so, in any case,
            by their official names or as they read in a sentence.
        count: how many neighbours.

    Returns:
        One neighbourhood for each text that these labels have: *mouse* is two of them.

    Raises:
        UsageError: no such label or dataset; the message suggests the near ones.
    """
    texts, vectors, column = bank.columns()
    rows_of: list[list[int]] = [[] for _ in texts]
    for row, place in enumerate(column):
        rows_of[place].append(row)
    asked: dict[int, list[int]] = {}
    for row in _find(bank, label):
        asked.setdefault(int(column[row]), []).append(row)
    found = []
    for place, rows in asked.items():
        own = {bank.keys[row][0] for row in rows}
        cosines = np.clip(vectors @ vectors[place], -1, 1)
        neighbours: list[Neighbour] = []
        for other in np.argsort(-cosines, kind="stable").tolist():
            there = [
                row for row in rows_of[other] if row not in rows and (len(own) > 1 or bank.keys[row][0] not in own)
            ]
            if there and len(neighbours) < count:
                neighbours.append(Neighbour(_name(bank, there), _labels(bank, there), float(cosines[other])))
        found.append(Neighbourhood(_name(bank, rows), _labels(bank, rows), tuple(neighbours)))
    return found


def _find(bank: Bank, label: str) -> list[int]:
    """The rows that `label` names; raises UsageError where there are none."""
    rows = _called(bank, range(len(bank)), label)
    dataset, colon, name = label.partition(":")
    if rows or not colon:
        if not rows:
            raise _no_label(bank, range(len(bank)), label)
        return rows
    dataset, name = dataset.strip(), name.strip()
    own = [row for row, key in enumerate(bank.keys) if key[0] == dataset]
    if not own:
        raise UsageError(f"{label!r}: no dataset {dataset!r} in the bank", fix=did_you_mean(dataset, bank.datasets()))
    key: LabelKey = (dataset, int(name) if name.isascii() and name.isdigit() else -1)
    rows = [int(bank.positions([key])[0])] if key in bank else _called(bank, own, name)
    if not rows:
        raise _no_label(bank, own, name, f" of {dataset}")
    return rows


def _called(bank: Bank, rows: Sequence[int], name: str) -> list[int]:
    wanted = name.strip().casefold()
    return [row for row in rows if wanted in (bank.names[row].casefold(), prompt_name(bank.names[row]).casefold())]


def _no_label(bank: Bank, rows: Sequence[int], name: str, where: str = "") -> UsageError:
    near = did_you_mean(name, {prompt_name(bank.names[row]) for row in rows})
    if near.startswith("Known"):  # a list of a thousand names helps nobody
        near = "`labelmerge merge` makes a page of all labels"
    return UsageError(f"no label {name!r}{where} in the bank", fix=near)


def _labels(bank: Bank, rows: Sequence[int]) -> tuple[Label, ...]:
    return tuple(Label(*bank.keys[row], bank.names[row]) for row in rows)


def _name(bank: Bank, rows: Sequence[int]) -> str:
    names = [prompt_name(bank.names[row]) for row in rows]
    return max(dict.fromkeys(names), key=names.count)


def neighbours_text(found: Sequence[Neighbourhood]) -> str:
    """The neighbourhoods as text: a line for each neighbour, with its cosine, name and datasets."""
    lines = []
    for neighbourhood in found:
        lines.append(f"{neighbourhood.name} ({_owners(neighbourhood.labels)})")
        wide = max((len(neighbour.name) for neighbour in neighbourhood.neighbours), default=0)
        lines += [
            f"  {neighbour.cosine:6.3f}  {neighbour.name:<{wide}}  {_owners(neighbour.labels)}"
            for neighbour in neighbourhood.neighbours
        ]
        if not neighbourhood.neighbours:
            lines.append("  no other dataset is in the bank")
    return "\n".join(lines)


def _owners(labels: Sequence[Label]) -> str:
    return ", ".join(dict.fromkeys(label.dataset for label in labels))


def plot_neighbours(bank: Bank, found: Sequence[Neighbourhood], out: Path) -> None:
    """Draw neighbourhoods, one below the other: cosines as bars, and which datasets have each neighbour.

    A dashed line is the bank's `calibrated_threshold`, from which on labels mean the same.

    Args:
        bank: whose neighbourhoods they are.
        found: at least one, from `find_neighbours`.
        out: a file ending in .png, .svg or .pdf.

    Raises:
        UsageError: another file format.
        OutputError: the file can't be written.
    """
    check_format(out)
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    styles = dataset_styles(bank.datasets())
    limit = calibrated_threshold(bank)
    drawn = {label.dataset for one in found for neighbour in one.neighbours for label in neighbour.labels}
    low = min(0.0, *(neighbour.cosine for one in found for neighbour in one.neighbours), 0.0)
    heights = [max(len(one.neighbours), 1) * _ROW_INCHES + _PANEL_INCHES for one in found]
    figure = Figure(figsize=(9, sum(heights) + 0.8), layout="constrained", dpi=200)
    rows = figure.subplots(len(found), 2, squeeze=False, height_ratios=heights, width_ratios=[1, 0.62])
    for (bars, marks), one in zip(rows, found, strict=True):
        places = np.arange(len(one.neighbours))
        cosines = [neighbour.cosine for neighbour in one.neighbours]
        bars.barh(places, cosines, height=0.62, color=["#0072b2" if c >= limit else "#9fb8c9" for c in cosines])
        for place, cosine in zip(places, cosines, strict=True):
            bars.text(max(cosine, 0) + 0.01, place, f"{cosine:.2f}", va="center", fontsize=8, path_effects=halo)
        bars.axvline(limit, color="0.3", lw=0.9, ls="--", zorder=0.5)
        bars.set_yticks(places, [neighbour.name for neighbour in one.neighbours], fontsize=9)
        bars.set_ylim(max(len(places), 1) - 0.4, -0.6)
        bars.set_xlim(low, 1.09)
        bars.set_xticks(np.arange(0, 1.01, 0.2))
        bars.tick_params(axis="x", labelsize=8)
        owners = _owners(one.labels)
        bars.set_title(f"{one.name}  ({_shortened(owners)})", fontsize=10, loc="left", fontweight="bold")
        bars.spines[["top", "right"]].set_visible(False)
        marks.set_ylim(bars.get_ylim())
        marks.set_xlim(-0.6, _MARKS_SHOWN + 2)
        marks.axis("off")
        for place, neighbour in zip(places, one.neighbours, strict=True):
            datasets = list(dict.fromkeys(label.dataset for label in neighbour.labels))
            for number, dataset in enumerate(datasets[:_MARKS_SHOWN]):
                style = styles[dataset]
                marks.scatter(number, place, s=46, marker=marker(style), color=style.colour)
            if len(datasets) > _MARKS_SHOWN:
                marks.text(_MARKS_SHOWN, place, f"+{len(datasets) - _MARKS_SHOWN}", va="center", fontsize=8)
    rows[-1][0].set_xlabel(f"cosine (dashed: labels mean the same from {limit:.2f} on)", fontsize=9)
    dataset_legend(figure, {name: style for name, style in styles.items() if name in drawn})
    save_figure(figure, out)


def _shortened(owners: str, most: int = 60) -> str:
    if len(owners) <= most:
        return owners
    kept = owners[:most].rpartition(", ")[0]
    return f"{kept} and {owners.count(', ') - kept.count(', ')} more"
