"""Runs side by side: what they were trained with, how it went, and what they can do. HTML and Markdown, one content."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge.colours import dataset_styles
from labelmerge.compare.records import Measured, RunRecord, read_records
from labelmerge.files import write_text
from labelmerge.pages import render_page

HTML, MARKDOWN = "report.html", "report.md"

_FEW_CLASSES = 40  # a set with more has its classes in the HTML only, folded
# What must be the same for figures to be comparable.
_PROTOCOL = ("crop", "window", "window_stride", "short_edge", "scales", "flip", "limit")
_FIGURES = (
    ("pixel_accuracy", "pixel accuracy"),
    ("mean_accuracy", "mean accuracy"),
    ("frequency_weighted_iou", "frequency-weighted IoU"),
    ("miou_labelled", "mIoU of labelled classes"),
    ("ignored_share", "ignored"),
)
_CURVE_WIDTH, _CURVE_HEIGHT = 640.0, 220.0
_MOST_POINTS = 400


@dataclass(frozen=True)
class Cell:
    """What stands in a table; `best` of its column, or of its row where the table compares within rows."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report. `folded`: long, and shown on request only; Markdown goes without."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


@dataclass(frozen=True)
class Curve:
    """One run's loss: the points of an SVG polyline."""

    name: str
    colour: str
    points: str


@dataclass(frozen=True)
class Curves:
    """The loss of every run over its steps."""

    lines: Sequence[Curve]
    last_step: int
    top: float
    width: float = _CURVE_WIDTH
    height: float = _CURVE_HEIGHT


@dataclass(frozen=True)
class RunsReport:
    """Runs side by side.

    Attributes:
        runs: in the order given.
        notes: what a reader must know before comparing.
        tables: results first.
        curves: None where nothing was logged.
        paths: the files written.
    """

    runs: Sequence[RunRecord]
    notes: Sequence[str]
    tables: Sequence[Table]
    curves: Curves | None
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
        CheckpointError: folders are no runs; all of them are named.
        LabelmergeError: a file that was named is no results.json.
        OutputError: `out` can't be written.
    """
    runs = read_records(paths)
    rows = [(run, measured) for run in runs for measured in run.results or (None,)]
    tables = [results_table(rows), training_table(runs), settings_table(runs)]
    tables += [*figure_tables(rows), *class_tables(rows)]
    report = RunsReport(
        runs=runs,
        notes=incomparable(rows),
        tables=[table for table in tables if table.rows],
        curves=loss_curves(runs),
        paths=(out / HTML, out / MARKDOWN),
    )
    write_text(out / MARKDOWN, markdown(report))
    write_text(out / HTML, html(report))
    return report


Row = tuple[RunRecord, Measured | None]


def row_names(rows: Sequence[Row]) -> list[str]:
    """What each row is called: the run, and the file where a run has several."""
    return [f"{run.name}, {m.path.stem}" if m is not None and len(run.results) > 1 else run.name for run, m in rows]


def set_names(rows: Sequence[Row]) -> list[str]:
    """All sets that were measured, sorted."""
    return sorted({name for _, measured in rows if measured is not None for name in measured.sets})


def results_table(rows: Sequence[Row]) -> Table:
    """mIoU of every set, and the harmonic mean over the sets that all results have."""
    sets = set_names(rows)
    known = [measured for _, measured in rows if measured is not None]
    common = [name for name in sets if all(name in measured.sets for measured in known)]
    shown = "" if len(common) == len(sets) else f" of {len(common)} common set{'s' * (len(common) != 1)}"
    columns = ["run", "merge", "losses", "model", "step", *sets, *([f"harmonic mean{shown}"] if common else [])]
    numbers: list[list[float | None]] = []
    words = []
    for (run, measured), name in zip(rows, row_names(rows), strict=True):
        step = measured.checkpoint["step"] if measured is not None else run.meta.get("step", "-")
        model = run.settings.get("model") or (measured.checkpoint.get("model") if measured is not None else None)
        losses = run.settings.get("losses")
        words.append([name, run.merge, _show(losses) if losses else "?", str(model or "?"), str(step)])
        miou = [measured.sets[s].figures["miou"] if measured and s in measured.sets else None for s in sets]
        if common:
            miou.append(_harmonic([measured.sets[s].figures["miou"] for s in common]) if measured else None)
        numbers.append(miou)
    figures = _percents(numbers)
    return Table(
        "Results",
        "mIoU in per cent, each set by its own labels; the best of each column is marked.",
        columns,
        [[*map(Cell, word), *row] for word, row in zip(words, figures, strict=True)],
    )


def figure_tables(rows: Sequence[Row]) -> list[Table]:
    """The other figures of each set, folded."""
    tables = []
    for name in set_names(rows):
        within = [
            (label, m.sets[name])
            for label, (_, m) in zip(row_names(rows), rows, strict=True)
            if m is not None and name in m.sets
        ]
        figures = [[entry.figures[key] for key, _ in _FIGURES] for _, entry in within]
        unmarked = [key for key, _ in _FIGURES].index("ignored_share")
        tables.append(
            Table(
                f"{name}: other figures",
                "In per cent; ignored: pixels without a label, of all.",
                ["run", "images", *(title for _, title in _FIGURES)],
                [
                    [Cell(label), Cell(f"{entry.images:,}"), *row]
                    for (label, entry), row in zip(within, _percents(figures, {unmarked}), strict=True)
                ],
                folded=True,
            )
        )
    return tables


def class_tables(rows: Sequence[Row]) -> list[Table]:
    """IoU of each class of each set, a column for each result; folded where there are many classes."""
    tables = []
    for name in set_names(rows):
        within = [
            (label, m.sets[name].classes)
            for label, (_, m) in zip(row_names(rows), rows, strict=True)
            if m is not None and name in m.sets
        ]
        classes = list(dict.fromkeys(word for _, ious in within for word in ious))
        by_result = [[ious.get(word) for word in classes] for _, ious in within]
        cells = [_mark(list(values), _percent) for values in zip(*by_result, strict=True)]
        tables.append(
            Table(
                f"{name}: classes",
                "IoU in per cent; the best of each row is marked.",
                ["class", *(label for label, _ in within)],
                [[Cell(word), *row] for word, row in zip(classes, cells, strict=True)],
                folded=len(classes) > _FEW_CLASSES,
            )
        )
    return tables


def training_table(runs: Sequence[RunRecord]) -> Table:
    """How training went: the last logged losses, the median speed."""
    logged = [run for run in runs if run.log]
    parts = list(dict.fromkeys(part for run in logged for part in run.log[-1]["parts"]))
    speeds = [key for key in ("images_per_second", "samples_per_second") if any(key in run.log[-1] for run in logged)]
    waits = [key for key in ("data_wait_share", "data_wait") if any(key in run.log[-1] for run in logged)]
    columns = ["run", "steps", "loss", *(f"L_{part.upper()}" for part in parts), "τ"]
    columns += ["images/s"] * bool(speeds) + ["data wait %"] * bool(waits) + ["skipped"]
    rows = []
    for run in logged:
        last = run.log[-1]
        steps = f"{last['step']:,}"
        if isinstance(planned := run.settings.get("steps"), int) and planned > last["step"]:
            steps += f" of {planned:,}"
        row = [run.name, steps, _decimals(last.get("loss")), *(_decimals(last["parts"].get(part)) for part in parts)]
        row.append(_decimals(last.get("temperature")))
        row += [_decimals(_median(run.log, speeds))] * bool(speeds)
        wait = _median(run.log, waits)
        row += [_percent(wait)] * bool(waits)
        rows.append([*map(Cell, row), Cell(str(last.get("skipped", "-")))])
    return Table(
        "Training",
        "Losses as last logged; those of different merges have different classes and can't be compared. Speed: the "
        "median over the log.",
        columns,
        rows,
    )


def settings_table(runs: Sequence[RunRecord]) -> Table:
    """The settings and inputs that are not the same in all runs, one a row."""
    known = [run for run in runs if run.folder is not None]
    every = [_flat(run) for run in known]
    keys = list(dict.fromkeys(key for settings in every for key in settings))
    differ = [key for key in keys if len({settings.get(key, "-") for settings in every}) > 1]
    return Table(
        "Settings that differ",
        "All others are the same in all runs.",
        ["setting", *(run.name for run in known)],
        [[Cell(key), *(Cell(settings.get(key, "-")) for settings in every)] for key in differ],
    )


def _flat(run: RunRecord) -> dict[str, str]:
    inputs = run.inputs
    manifests = inputs.get("manifests")
    return {
        **{key: _show(value) for key, value in run.settings.items()},
        **{key: _show(inputs[key]) for key in ("bank", "bank_version") if key in inputs},
        **({"encoder": _show(run.meta["encoder"])} if "encoder" in run.meta else {}),
        **({"columns": str(len(run.meta["columns"]))} if isinstance(run.meta.get("columns"), list) else {}),
        **(
            {f"data of {name}": str(digest)[:12] for name, digest in manifests.items()}
            if isinstance(manifests, dict)
            else {}
        ),
    }


def incomparable(rows: Sequence[Row]) -> list[str]:
    """Why figures of one column may not mean the same; nothing where they do."""
    known = [(name, m) for name, (_, m) in zip(row_names(rows), rows, strict=True) if m is not None]
    notes = []
    differ = [key for key in _PROTOCOL if len({_show(measured.protocol.get(key)) for _, measured in known}) > 1]
    if differ:
        ways: dict[str, list[str]] = {}
        for name, measured in known:
            way = ", ".join(f"{key.replace('_', ' ')} {_show(measured.protocol.get(key))}" for key in differ)
            ways.setdefault(way, []).append(name)
        said = [f"{' / '.join(names)}: {way}" for way, names in ways.items()]
        notes.append(f"Not measured alike. {'; '.join(said)}.")
    for name in set_names(rows):
        within = {measured.sets[name].data for _, measured in known if name in measured.sets}
        if len(within) > 1:
            notes.append(f"{name} was read from different shards or folders, so it may not be the same data.")
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


def loss_curves(runs: Sequence[RunRecord]) -> Curves | None:
    """The loss of each run over its steps, cut off above the 98th percentile of all."""
    logged = {run.name: [line for line in run.log if _is_number(line.get("loss"))] for run in runs}
    points = {name: [(line["step"], float(line["loss"])) for line in log] for name, log in logged.items() if log[1:]}
    if not points:
        return None
    last = max(step for line in points.values() for step, _ in line)
    values = sorted(loss for line in points.values() for _, loss in line)
    top = max(values[int(0.98 * (len(values) - 1))] * 1.05, 1e-9)
    styles = dataset_styles([run.name for run in runs])
    curves = []
    for name, line in points.items():
        places = line[:: max(1, len(line) // _MOST_POINTS)]
        drawn = " ".join(
            f"{step / max(last, 1) * _CURVE_WIDTH:.1f},{_CURVE_HEIGHT * (1 - min(max(loss, 0) / top, 1)):.1f}"
            for step, loss in places
        )
        curves.append(Curve(name, styles[name].colour, drawn))
    return Curves(curves, last, top)


def markdown(report: RunsReport) -> str:
    """The report as Markdown; long tables are left out."""
    parts = ["# Runs side by side", *(f"> {note}" for note in report.notes)]
    for table in report.tables:
        if not table.folded:
            lines = [f"## {table.title}", "", table.about, ""]
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
    return text.replace("|", "\\|").replace("\n", " ")


def _show(value: Any) -> str:
    """A setting as it stands in a table."""
    if isinstance(value, str):
        return value or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_show, value)) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _percents(rows: Sequence[Sequence[float | None]], unmarked: set[int] | None = None) -> list[list[Cell]]:
    """Cells in per cent; the best of each column is marked, but for those `unmarked`."""
    columns = [
        [Cell(_percent(v)) for v in values] if number in (unmarked or ()) else _mark(list(values), _percent)
        for number, values in enumerate(zip(*rows, strict=True))
    ]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in rows]


def _mark(values: Sequence[float | None], show: Callable[[float | None], str]) -> list[Cell]:
    """The largest is the best, and so are those that look like it. Where all look the same none is marked."""
    texts = [show(value) for value in values]
    known = [value for value in values if value is not None]
    best = show(max(known)) if len({show(value) for value in known}) > 1 else None
    return [Cell(text, value is not None and text == best) for text, value in zip(texts, values, strict=True)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _decimals(value: Any) -> str:
    return f"{value:.3g}" if _is_number(value) and abs(value) < 1000 else f"{value:,.0f}" if _is_number(value) else "-"


def _median(log: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> float | None:
    values = [float(line[key]) for line in log for key in keys if _is_number(line.get(key))]
    return statistics.median(values) if values else None


def _harmonic(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return 0.0 if min(known) <= 0 else statistics.harmonic_mean(known)
