"""The tables of runs side by side."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelmerge.compare.records import Measured, RunRecord

_FEW_CLASSES = 40  # a set with more has its classes in the HTML only, folded
_FIGURES = (
    ("pixel_accuracy", "pixel accuracy"),
    ("mean_accuracy", "mean accuracy"),
    ("frequency_weighted_iou", "frequency-weighted IoU"),
    ("miou_labelled", "mIoU of labelled classes"),
    ("ignored_share", "ignored"),
)
_RELATED = (("ambiguity_aware", "mIoU with relations"),)
_MIXED = (("mixed", "mIoU"), ("mixed_pq", "PQ"))

_SEGMENTS = (
    ("pq_all", "PQ"),
    ("pq_things", "PQ things"),
    ("pq_stuff", "PQ stuff"),
    ("ap", "AP"),
)


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


Row = tuple[RunRecord, Measured | None]


def row_names(rows: Sequence[Row]) -> list[str]:
    """What each row is called: the run, and the file where a run has several."""
    return [f"{run.name}, {m.path.stem}" if m is not None and len(run.results) > 1 else run.name for run, m in rows]


def set_names(rows: Sequence[Row]) -> list[str]:
    """All sets that were measured, sorted."""
    return sorted({name for _, measured in rows if measured is not None for name in measured.sets})


def _labelled_sets(rows: Sequence[Row]) -> list[str]:
    """Those of which labels were measured, and not depths."""
    return [
        name
        for name in set_names(rows)
        if any(m is not None and name in m.sets and "abs_rel" not in m.sets[name].figures for _, m in rows)
    ]


def depth_table(rows: Sequence[Row]) -> Table | None:
    """AbsRel and δ₁ of every set whose depths were measured; None if no set has any."""
    columns, cells = [], []
    for name in set_names(rows):
        own = [m.sets[name].figures if m is not None and name in m.sets else {} for _, m in rows]
        for key, title, best in (("abs_rel", "AbsRel", min), ("delta_1", "δ1", max)):
            if any(key in figures for figures in own):
                columns.append(f"{name}: {title}")
                cells.append(_mark([figures.get(key) for figures in own], _percent, best))
    if not columns:
        return None
    steps = [str(m.checkpoint["step"] if m is not None else run.meta.get("step", "-")) for run, m in rows]
    models = [str(run.settings.get("model") or "?") for run, _ in rows]
    words = zip(row_names(rows), models, steps, strict=True)
    return Table(
        "Depth",
        "After scale and shift, in per cent: AbsRel (less is better), and the share within a factor of 1.25 (δ1). The "
        "best of each column is marked.",
        ["run", "model", "step", *columns],
        [[*map(Cell, word), *row] for word, row in zip(words, zip(*cells, strict=True), strict=True)],
    )


def results_table(rows: Sequence[Row]) -> Table | None:
    """mIoU of every set, and the harmonic mean over the sets that all results have; None where all is of depths."""
    sets = _labelled_sets(rows)
    if not sets and set_names(rows):
        return None
    known = [measured for _, measured in rows if measured is not None]
    common = [name for name in sets if all(name in measured.sets for measured in known)]
    shown = "" if len(common) == len(sets) else f" of {len(common)} common set{'s' * (len(common) != 1)}"
    # What is worth a column beside the model: which method, where it isn't SSIW alone, and SSIW's losses.
    methods = {str(run.settings.get("method", "ssiw")) for run, _ in rows}
    told = [*(["method"] if methods != {"ssiw"} else []), *(["losses"] if "ssiw" in methods else [])]
    columns = ["run", "merge", *told, "model", "step", *sets, *([f"harmonic mean{shown}"] if common else [])]
    numbers: list[list[float | None]] = []
    words = []
    for (run, measured), name in zip(rows, row_names(rows), strict=True):
        step = measured.checkpoint["step"] if measured is not None else run.meta.get("step", "-")
        model = run.settings.get("model") or (measured.checkpoint.get("model") if measured is not None else None)
        own = [show(run.settings[key]) if run.settings.get(key) else "?" for key in told]
        words.append([name, run.merge, *own, str(model or "?"), str(step)])
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


def segments_table(rows: Sequence[Row]) -> Table | None:
    """PQ and AP of every set that has any; None where nothing was measured in segments."""
    columns, numbers = [], []
    for name in set_names(rows):
        own = [m.sets[name].figures if m is not None and name in m.sets else {} for _, m in rows]
        for key, title in _SEGMENTS:
            if any(key in figures for figures in own):
                columns.append(f"{name}: {title}")
                numbers.append([figures.get(key) for figures in own])
    if not columns:
        return None
    by_row = _percents([list(row) for row in zip(*numbers, strict=True)])
    return Table(
        "Things and stuff",
        "PQ (of all classes, of things, of stuff) and AP of masks in per cent; the best of each column is marked.",
        ["run", *columns],
        [[Cell(name), *row] for name, row in zip(row_names(rows), by_row, strict=True)],
    )


def mixed_table(rows: Sequence[Row]) -> Table | None:
    """mIoU and PQ of every set with one list of all sets' labels; None where nothing was measured with one."""
    columns: list[str] = []
    numbers: list[list[float | None]] = []
    for key, title in _MIXED:
        by_set = []
        for name in set_names(rows):
            own = [m.sets[name].figures if m is not None and name in m.sets else {} for _, m in rows]
            if any(key in figures for figures in own):
                columns.append(f"{name}: {title}")
                by_set.append([figures.get(key) for figures in own])
        numbers += by_set
        if len(by_set) > 1:
            columns.append(f"mean {title}")
            known = [[value for value in values if value is not None] for values in zip(*by_set, strict=True)]
            numbers.append([statistics.fmean(some) if len(some) == len(by_set) else None for some in known])
    if not columns:
        return None
    by_row = _percents([list(row) for row in zip(*numbers, strict=True)])
    return Table(
        "One list for all sets",
        "In per cent, each set with one list of all sets' labels; the best of each column is marked.",
        ["run", *columns],
        [[Cell(name), *row] for name, row in zip(row_names(rows), by_row, strict=True)],
    )


def figure_tables(rows: Sequence[Row]) -> list[Table]:
    """The other figures of each set, folded."""
    tables = []
    for name in _labelled_sets(rows):
        within = [
            (label, m.sets[name])
            for label, (_, m) in zip(row_names(rows), rows, strict=True)
            if m is not None and name in m.sets
        ]
        shown = [*_FIGURES, *(each for each in _RELATED if any(each[0] in entry.figures for _, entry in within))]
        figures = [[entry.figures.get(key) for key, _ in shown] for _, entry in within]
        unmarked = [key for key, _ in shown].index("ignored_share")
        tables.append(
            Table(
                f"{name}: other figures",
                "In per cent; ignored: pixels without a label, of all.",
                ["run", "images", *(title for _, title in shown)],
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
        of_two = len(within) == 2
        if of_two:
            cells = [
                [*row, _difference(*values)] for row, values in zip(cells, zip(*by_result, strict=True), strict=True)
            ]
        tables.append(
            Table(
                f"{name}: classes",
                "IoU in per cent; the best of each row is marked."
                + (f" Difference: {within[1][0]} less {within[0][0]}, in points." if of_two else ""),
                ["class", *(label for label, _ in within), *["difference"] * of_two],
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
        **{key: show(value) for key, value in run.settings.items()},
        **{key: show(inputs[key]) for key in ("bank", "bank_version") if key in inputs},
        **({"encoder": show(run.meta["encoder"])} if "encoder" in run.meta else {}),
        **({"columns": str(len(run.meta["columns"]))} if isinstance(run.meta.get("columns"), list) else {}),
        **(
            {f"data of {name}": str(digest)[:12] for name, digest in manifests.items()}
            if isinstance(manifests, dict)
            else {}
        ),
    }


def show(value: Any) -> str:
    """A setting as it stands in a table."""
    if isinstance(value, str):
        return value or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(show, value)) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def is_number(value: Any) -> bool:
    """A finite number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _percents(rows: Sequence[Sequence[float | None]], unmarked: set[int] | None = None) -> list[list[Cell]]:
    """Cells in per cent; the best of each column is marked, but for those `unmarked`."""
    columns = [
        [Cell(_percent(v)) for v in values] if number in (unmarked or ()) else _mark(list(values), _percent)
        for number, values in enumerate(zip(*rows, strict=True))
    ]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in rows]


def _mark(
    values: Sequence[float | None], shown: Callable[[float | None], str], choose: Callable[[list[float]], float] = max
) -> list[Cell]:
    """The largest is the best, or what is chosen, and so are those that look like it; none where all look the same."""
    texts = [shown(value) for value in values]
    known = [value for value in values if value is not None]
    best = shown(choose(known)) if len({shown(value) for value in known}) > 1 else None
    return [Cell(text, value is not None and text == best) for text, value in zip(texts, values, strict=True)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _difference(first: float | None, second: float | None) -> Cell:
    """In percentage points, with its sign."""
    return Cell("-" if first is None or second is None else f"{100 * (second - first):+.1f}")


def _decimals(value: Any) -> str:
    return f"{value:.3g}" if is_number(value) and abs(value) < 1000 else f"{value:,.0f}" if is_number(value) else "-"


def _median(log: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> float | None:
    values = [float(line[key]) for line in log for key in keys if is_number(line.get(key))]
    return statistics.median(values) if values else None


def _harmonic(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return 0.0 if min(known) <= 0 else statistics.harmonic_mean(known)
