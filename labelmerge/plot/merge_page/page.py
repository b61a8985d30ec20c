"""The merge report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.colours import SHAPES, Style, dataset_styles
from labelmerge.files import write_text
from labelmerge.merge.clustering import seriation
from labelmerge.merge.label_lines import LabelLine, label_lines
from labelmerge.merge.report import Member, MergeReport, Pair
from labelmerge.names import prompt_name, sentence
from labelmerge.pages import joined_script, joined_styles, render_page
from labelmerge.plot.layout import flat_map
from labelmerge.progress import Track, no_track

_PACKAGE = "labelmerge.plot.merge_page"
STYLES = ("base.css", "layout.css", "tables.css", "print.css")
"""The style sheets, in the order in which later rules win."""

# matplotlib's colours for light and dark paper, from far to near: even in lightness, which every eye tells apart.
_RAMPS = {"light": "PuBu", "dark": "magma"}
_RAMP_STEPS = 33
_LEAST_QUANTILE = 0.02  # of the cosines: those below are not told apart
_PALE_QUANTILE = 0.5  # likewise: those below have the palest colour, since half of all pairs have nothing in common


@dataclass(frozen=True)
class PairList:
    """Pairs of labels that a person should look at."""

    id: str
    title: str
    about: str
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class DatasetRow:
    """A dataset: its labels, how many have a counterpart elsewhere, and how many in each dataset of the report."""

    name: str
    style: Style
    labels: int
    merged: int
    shared: Mapping[str, int]
    alone: Sequence[LabelLine]
    pixels: int | None
    boxes: int | None


def write_merge_page(report: MergeReport, bank: Bank, out: Path, *, seed: int = 0, track: Track = no_track) -> None:
    """Write the page, one self-contained file.

    Args:
        report: what `merge_report` found in `bank`.
        bank: the labels.
        out: the file.
        seed: of the map.
        track: progress.

    Raises:
        OutputError: the file can't be written.
    """
    for _ in track([None], "placing labels on the map", 1):
        page = merge_page(report, bank, label_lines(report, bank), seed)
    write_text(out, page)


def merge_page(report: MergeReport, bank: Bank, lines: Sequence[LabelLine], seed: int = 0) -> str:
    """The page.

    Args:
        report: what `merge_report` found in `bank`.
        bank: the labels.
        lines: a line for each label, in the bank's order.
        seed: of the map.
    """
    values = {
        "report": report,
        "lines": lines,
        "row_of": {line.member.key: row for row, line in enumerate(lines)},
        "meanings": [meaning(line.member) for line in lines],
        "datasets": dataset_rows(report, lines),
        "number_of": {name: number for number, name in enumerate(report.datasets)},
        "pair_lists": pair_lists(report),
        "data": page_data(report, bank, lines, seed),
        "style": joined_styles(_PACKAGE, STYLES),
        "script": joined_script(_PACKAGE),
    }
    return render_page(_PACKAGE, "merge.html.j2", values, {"short": short_number})


def page_data(report: MergeReport, bank: Bank, lines: Sequence[LabelLine], seed: int) -> dict[str, Any]:
    """What the page's script draws from, ready for JSON.

    ``cosines`` holds those of every two of the K distinct texts, the upper triangle row by row without the diagonal, as
    bytes in base64: 0 is ``low`` or less, 255 is 1. That is 2.7 MB at 2,000 texts. The colours of the heat map begin at
    the byte ``pale``.
    """
    _, vectors, column = bank.columns()
    low, packed = pack_cosines(vectors)
    pale = min(float(np.quantile(np.frombuffer(packed, np.uint8), _PALE_QUANTILE)), 254.0) if packed else 0.0
    number = {name: place for place, name in enumerate(report.datasets)}
    styles = dataset_styles(list(report.datasets))

    def rows(members: Iterable[Member]) -> list[int]:
        return [int(row) for row in bank.positions(member.key for member in members)]

    return {
        "datasets": [{"name": name, "colour": styles[name].colour, "shape": styles[name].shape} for name in number],
        "shapes": SHAPES,
        "labels": [
            [number[line.member.dataset], line.member.index, line.member.name, int(place), line.group]
            for line, place in zip(lines, column, strict=True)
        ],
        "counts": [[line.member.pixels, line.member.boxes] for line in lines],
        "groups": [group.name for group in report.groups],
        "covers": [[rows(cover.parents), [rows(part.members) for part in cover.parts]] for cover in report.covers],
        "short": [prompt_name(line.member.name) for line in lines],
        "places": [[round(float(x), 4), round(1 - float(y), 4)] for x, y in flat_map(vectors, seed)],
        "order": seriation(bank).tolist(),
        "low": low,
        "pale": pale,
        "cosines": base64.b64encode(packed).decode(),
        "ramps": {theme: _ramp(name) for theme, name in _RAMPS.items()},
    }


def pack_cosines(vectors: npt.NDArray[np.float32]) -> tuple[float, bytes]:
    """The least cosine that is told apart, and the upper triangle of all cosines as bytes (see `page_data`)."""
    upper = np.clip(vectors @ vectors.T, -1, 1)[np.triu_indices(len(vectors), 1)]
    low = min(float(np.quantile(upper, _LEAST_QUANTILE)), 0.99) if upper.size else 0.0
    return low, np.round(np.clip((upper - low) / (1 - low), 0, 1) * 255).astype(np.uint8).tobytes()


def pair_lists(report: MergeReport) -> list[PairList]:
    """The lists of pairs to look at, in the order in which they matter."""
    return [
        PairList(
            "same-name",
            "One name, two meanings",
            "The same name in different datasets, but not one group: the datasets mean different things, or a "
            "description is wrong. Farthest first.",
            report.same_name,
        ),
        PairList(
            "other-name",
            "Two names, one meaning",
            "Different names within one group: synonyms, or a merge that should not be. Farthest first.",
            report.other_name,
        ),
        PairList(
            "near-misses",
            "Nearly",
            "Different names of different datasets just below the threshold, or kept apart by another label of a "
            "group. Nearest first.",
            report.near_misses,
        ),
        PairList(
            "same-dataset",
            "Hard to tell apart",
            "Labels of one dataset as near as labels that mean the same. They are never merged; a model will confuse "
            "them. Nearest first.",
            report.same_dataset,
        ),
    ]


def dataset_rows(report: MergeReport, lines: Sequence[LabelLine]) -> list[DatasetRow]:
    """A row for each dataset, in order of name."""
    owners = [{m.dataset for m in group.members} for group in report.groups]
    styles = dataset_styles(list(report.datasets))
    rows = []
    for name, labels in report.datasets.items():
        own = [line for line in lines if line.member.dataset == name]
        rows.append(
            DatasetRow(
                name=name,
                style=styles[name],
                labels=labels,
                merged=sum(line.group > 0 for line in own),
                shared=Counter(other for line in own if line.group for other in owners[line.group - 1] - {name}),
                alone=[line for line in own if not line.group],
                pixels=_sum(line.member.pixels for line in own),
                boxes=_sum(line.member.boxes for line in own),
            )
        )
    return rows


def meaning(member: Member) -> str:
    """What a label's text says beyond the bare prompt: the description, or nothing."""
    bare = sentence(member.name, "")
    return member.text[len(bare) :].strip() if member.text.startswith(bare) else ""


def short_number(value: int) -> str:
    """A count in at most three digits and a unit: ``950``, ``12.3 k``, ``4.56 M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value // size:,} {unit}"
    return str(value)


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _ramp(name: str) -> list[list[int]]:
    from matplotlib import colormaps

    ramp: npt.NDArray[np.uint8] = colormaps[name](np.linspace(0, 1, _RAMP_STEPS), bytes=True)[:, :3]
    return [[int(c) for c in colour] for colour in ramp]
