"""Runs side by side: what they were trained with, how it went, and what they can do. HTML and Markdown, one content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge.compare.curves import Curves, loss_curves
from labelmerge.compare.examples import SetExamples, side_by_side
from labelmerge.compare.records import RunRecord, read_records
from labelmerge.compare.tables import (
    Row,
    Table,
    class_tables,
    depth_table,
    figure_tables,
    mixed_table,
    results_table,
    row_names,
    segments_table,
    set_names,
    settings_table,
    show,
    training_table,
)
from labelmerge.files import whole_or_nothing, write_text
from labelmerge.pages import render_page
from labelmerge.text import harmless_markdown

HTML, MARKDOWN = "report.html", "report.md"

# What must be the same for figures to be comparable.
_PROTOCOL = (
    *("crop", "window", "window_stride", "short_edge", "scales", "flip", "limit", "relations"),
    *("classes", "depth_crop", "depth_max", "max_long_edge", "short_edges"),
)


@dataclass(frozen=True)
class RunsReport:
    """Runs side by side.

    Attributes:
        runs: in the order given.
        notes: what a reader must know before comparing.
        tables: results first.
        curves: None where nothing was logged.
        examples: of each set that has some; in the HTML only.
        paths: the files written.
    """

    runs: Sequence[RunRecord]
    notes: Sequence[str]
    tables: Sequence[Table]
    curves: Curves | None
    examples: Sequence[SetExamples]
    paths: Sequence[Path]

    def to_json(self) -> dict[str, Any]:
        """The tables, and where they went."""
        tables = [
            {"title": t.title, "columns": list(t.columns), "rows": [[cell.text for cell in row] for row in t.rows]}
            for t in self.tables
        ]
        return {"notes": list(self.notes), "tables": tables, "written": [str(path) for path in self.paths]}


def report_runs(paths: Sequence[Path], out: Path) -> RunsReport:
    """Put runs side by side, in ``report.html`` and ``report.md`` of the folder `out`.

    Args:
        paths: run folders and results.json files (`labelmerge.compare.records.read_records`).

    Raises:
        CheckpointError: some folders are not runs; the message names all of them.
        LabelmergeError: a file is not a results.json.
        OutputError: `out` can't be written.
    """
    runs = read_records(paths)
    rows = [(run, measured) for run in runs for measured in run.results or (None,)]
    found = (results_table(rows), depth_table(rows), segments_table(rows), mixed_table(rows))
    tables = [table for table in found if table is not None]
    tables += [training_table(runs), settings_table(runs)]
    tables += [*figure_tables(rows), *class_tables(rows)]
    report = RunsReport(
        runs=runs,
        notes=incomparable(rows),
        tables=[table for table in tables if table.rows],
        curves=loss_curves(runs),
        examples=_examples(rows),
        paths=(out / HTML, out / MARKDOWN),
    )
    with whole_or_nothing(report.paths):
        write_text(out / MARKDOWN, markdown(report))
        write_text(out / HTML, html(report))
    return report


def _examples(rows: Sequence[Row]) -> list[SetExamples]:
    found = []
    for name in set_names(rows):
        within = [
            (label, m.sets[name])
            for label, (_, m) in zip(row_names(rows), rows, strict=True)
            if m is not None and name in m.sets
        ]
        # Colours depend on the whole list of classes: pictures of other lists have a legend of their own.
        lists = dict.fromkeys(figures.names for _, figures in within)
        for classes in lists:
            shown = [(label, each.data, each.examples) for label, each in within if each.names == classes]
            whose = f" of {', '.join(label for label, *_ in shown)}" if len(lists) > 1 else ""
            found.append(side_by_side(f"{name}: examples{whose}", classes, shown))
        for label, figures in within:
            result = [(label, figures.data, figures.worst)]
            found.append(side_by_side(f"{name}: the worst images of {label}", figures.names, result, worst=True))
    return [one for one in found if one.images]


def incomparable(rows: Sequence[Row]) -> list[str]:
    """Why the figures of a column may not be comparable; empty where they are."""
    known = [(name, m) for name, (_, m) in zip(row_names(rows), rows, strict=True) if m is not None]
    notes = []
    differ = [key for key in _PROTOCOL if len({show(measured.protocol.get(key)) for _, measured in known}) > 1]
    # Which of the two is the default depends on the merge, so runs of several merges differ in it as they should.
    asked = {(run.merge, show(m.protocol.get("by"))) for run, m in rows if m is not None}
    differ += ["by"] * (len(asked) > len({merge for merge, _ in asked}))
    if differ:
        ways: dict[str, list[str]] = {}
        for name, measured in known:
            way = ", ".join(f"{key.replace('_', ' ')} {show(measured.protocol.get(key))}" for key in differ)
            ways.setdefault(way, []).append(name)
        said = [f"{' / '.join(names)}: {way}" for way, names in ways.items()]
        notes.append(f"Not measured in the same way. {'; '.join(said)}.")
    for name in set_names(rows):
        within = {measured.sets[name].data for _, measured in known if name in measured.sets}
        if len(within) > 1:
            notes.append(f"{name} was read from different shards or folders, so it may not be the same data.")
        elif not differ:
            counts: dict[int, list[str]] = {}
            for label, measured in known:
                if name in measured.sets:
                    counts.setdefault(measured.sets[name].images, []).append(label)
            if len(counts) > 1:  # what could not be read was left out
                said = [f"{images:,} images by {', '.join(labels)}" for images, labels in counts.items()]
                notes.append(f"{name} was measured on {'; '.join(said)}.")
    lists: dict[str, list[str]] = {}
    for name, measured in known:
        if measured.protocol.get("mixed"):
            lists.setdefault(", ".join(sorted(measured.sets)), []).append(name)
    if len(lists) > 1:
        said = [f"{', '.join(names)}: {sets}" for sets, names in lists.items()]
        notes.append(f"One list for all sets is of the labels of different sets. {'; '.join(said)}.")
    never: dict[str, list[str]] = {}
    for name, measured in known:
        some = [
            f"{s.unknown} of {len(s.classes)} classes of {where}" for where, s in measured.sets.items() if s.unknown
        ]
        if some:
            never.setdefault(", ".join(some), []).append(name)
    notes += [
        f"{', '.join(names)}: {what} are never predicted, because no label of that name was trained on."
        for what, names in never.items()
    ]
    if without := [run.name for run, measured in rows if measured is None]:
        notes.append(f"No results of {', '.join(without)}: `labelmerge eval --checkpoint RUN --out RUN/results.json`.")
    return notes


def markdown(report: RunsReport) -> str:
    """The report as Markdown; long tables are left out."""
    parts = ["# Runs side by side", *(f"> {harmless_markdown(note)}" for note in report.notes)]
    for table in report.tables:
        if not table.folded:
            lines = [f"## {_escape(table.title)}", "", table.about, ""]
            lines.append(_line([*map(_escape, table.columns)]))
            lines.append("|" + "|".join("---" if n == 0 else "---:" for n in range(len(table.columns))) + "|")
            lines += [_line([f"**{c.text}**" if c.best else _escape(c.text) for c in row]) for row in table.rows]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def html(report: RunsReport) -> str:
    """The report as one page that needs nothing else."""
    return render_page("labelmerge.compare", "runs.html.j2", {"report": report})


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return re.sub(r"([|*`])", r"\\\1", harmless_markdown(text))
