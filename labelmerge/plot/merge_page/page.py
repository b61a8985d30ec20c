"""The merge report as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelmerge.bank.bank import Bank
from labelmerge.colours import Style, dataset_styles
from labelmerge.files import write_text
from labelmerge.labels import LabelKey
from labelmerge.merge.label_lines import LabelLine, label_lines
from labelmerge.merge.report import UNSURE, MergeReport, sum_of_known
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.names import prompt_name
from labelmerge.pages import joined_script, joined_styles, render_page
from labelmerge.plot.merge_page.content import page_data
from labelmerge.progress import Track, no_track, once

_PACKAGE = "labelmerge.plot.merge_page"
_EXAMPLES, _NAMES = 4, 3  # classes that the head of the page names, and names of each
STYLES = ("base.css", "layout.css", "tables.css", "print.css")
"""The style sheets, in the order in which later rules win."""


@dataclass(frozen=True)
class DatasetRow:
    """A dataset: its labels, how many have a counterpart elsewhere, and how many in each dataset of the report."""

    name: str
    style: Style
    labels: int
    merged: int
    shared: Mapping[str, int]
    pixels: int | None
    boxes: int | None

    @property
    def alone(self) -> int:
        return self.labels - self.merged


def write_merge_page(
    report: MergeReport,
    taxonomy: Taxonomy,
    bank: Bank,
    out: Path,
    *,
    crops: Mapping[LabelKey, bytes] | None = None,
    seed: int = 0,
    track: Track = no_track,
) -> None:
    """Write the page, one self-contained file.

    Args:
        report: what `merge_report` says of `taxonomy`.
        taxonomy: the sets of the bank's labels, and what says so.
        bank: the labels.
        out: the file.
        crops: a picture of some labels (`labelmerge.plot.crops.label_crops`).
        seed: of the map.
        track: progress.

    Raises:
        OutputError: the file can't be written.
    """
    lines = label_lines(report, bank)
    page = once(
        lambda: merge_page(report, taxonomy, bank, lines, crops=crops, seed=seed), "placing labels on the map", track
    )
    write_text(out, page)


def merge_page(
    report: MergeReport,
    taxonomy: Taxonomy,
    bank: Bank,
    lines: Sequence[LabelLine],
    *,
    crops: Mapping[LabelKey, bytes] | None = None,
    seed: int = 0,
) -> str:
    """The page.

    Args:
        report: what `merge_report` says of `taxonomy`.
        taxonomy: the sets of the bank's labels, and what says so.
        bank: the labels.
        lines: a line for each label, in the bank's order.
        crops: WebP pictures of some labels.
        seed: of the map.
    """
    data = page_data(report, taxonomy, bank, lines, seed)
    values = {
        "report": report,
        "unsure": UNSURE,
        "counted": data["counted"],
        "evidence": Counter(taxonomy[line.member.key].evidence for line in lines).most_common(),
        "examples": examples(report),
        "lines": lines,
        "classes": len(data["classes"]),
        "datasets": dataset_rows(report, lines),
        "row_of": {line.member.key: row for row, line in enumerate(lines)},
        "number_of": {name: number for number, name in enumerate(report.datasets)},
        "data": data,
        "crops": [_text(crops.get(line.member.key)) for line in lines] if crops else [],
        "style": joined_styles(_PACKAGE, STYLES),
        "script": joined_script(_PACKAGE),
    }
    return render_page(_PACKAGE, "merge.html.j2", values, {"short": short_number})


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
                pixels=sum_of_known(line.member.pixels for line in own),
                boxes=sum_of_known(line.member.boxes for line in own),
            )
        )
    return rows


@dataclass(frozen=True)
class Example:
    """A class whose labels have different names: the names, commonest first, a label, and of how many datasets."""

    names: tuple[str, ...]
    key: LabelKey
    datasets: int


def examples(report: MergeReport) -> list[Example]:
    """Classes that unite different names, those of the most datasets first; at most `_EXAMPLES`.

    A name that is a part of another one (*mouse*, *computer mouse*) shows nothing.
    """
    found = []
    for group in report.groups:
        names: list[str] = []
        for name, _ in Counter(prompt_name(member.name).lower() for member in group.members).most_common():
            if not any(name in other or other in name for other in names):
                names.append(name)
        if len(names) > 1:
            owners = {member.dataset for member in group.members}
            found.append(Example(tuple(names[:_NAMES]), group.members[0].key, len(owners)))
    return sorted(found, key=lambda example: -example.datasets)[:_EXAMPLES]


def _text(picture: bytes | None) -> str | None:
    return None if picture is None else base64.b64encode(picture).decode()


def short_number(value: int) -> str:
    """A count in at most three digits and a unit: ``950``, ``12.3 k``, ``4.56 M``."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value // size:,} {unit}"
    return str(value)
