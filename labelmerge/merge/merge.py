"""What `merge` writes: a taxonomy to edit, its relations, a table to sort and JSON for programs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labelmerge.bank.bank import Bank
from labelmerge.errors import OutputError
from labelmerge.files import write_bytes, write_json, write_text
from labelmerge.merge.label_lines import LabelLine, label_lines
from labelmerge.merge.relations import relations, relations_table
from labelmerge.merge.report import MergeReport
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.parsing import parse_json
from labelmerge.text import csv_text

TAXONOMY, RELATIONS, TABLE, JSON = "taxonomy.csv", "relations.csv", "merge.csv", "merge.json"
CSV_HEADER = (
    *("group", "name", "labels", "lowest_cosine", "dataset", "index", "label", "concepts", "text"),
    *("nearest_dataset", "nearest_index", "nearest_label", "nearest_cosine", "pixels", "boxes"),
)


def write_merge(report: MergeReport, taxonomy: Taxonomy, bank: Bank, out: Path) -> dict[str, Any]:
    """Write a merge into a folder; the page to read is `labelmerge.plot.merge_page.page.write_merge_page`.

    - ``taxonomy.csv``, for a person to edit (`labelmerge.merge.taxonomy`). One that was edited is never written over;
    - ``relations.csv``, a row for each related pair of labels of different datasets (`labelmerge.merge.relations`);
    - ``merge.csv``, a row for each label (`merge_table`);
    - ``merge.json``, the report and under ``labels`` each label with its class and nearest neighbour.

    Args:
        report: what `merge_report` says of `taxonomy`.
        taxonomy: the sets of the bank's labels.
        bank: the labels.
        out: the folder; made where there is none.

    Returns:
        What ``merge.json`` holds.

    Raises:
        OutputError: the files can't be written, or there is a taxonomy that a person has edited.
    """
    lines = label_lines(report, bank)
    table = taxonomy.table().encode()
    keep_edits(out, table)
    content = {
        **report.to_json(),
        "taxonomy_sha256": hashlib.sha256(table).hexdigest(),
        "labels": [line.to_json() for line in lines],
    }
    write_bytes(out / TAXONOMY, table)
    write_text(out / RELATIONS, relations_table(list(relations(taxonomy))))
    write_json(out / JSON, content)
    write_text(out / TABLE, merge_table(report, lines))
    return content


def keep_edits(out: Path, table: bytes) -> None:
    """Raise OutputError where the folder's taxonomy is neither `table` nor what its report was written with."""
    try:
        there = (out / TAXONOMY).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    try:
        written = parse_json((out / JSON).read_bytes())["taxonomy_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        written = None
    if there != table and hashlib.sha256(there).hexdigest() != written:
        raise OutputError(
            "holds an edited taxonomy, which is never overwritten",
            where=out / TAXONOMY,
            fix=f"See what it means with --taxonomy {out / TAXONOMY} (--edits, where the bank has other datasets, too) "
            "and another --out, or give it another name",
        )


def merge_table(report: MergeReport, lines: Sequence[LabelLine]) -> str:
    """The labels as CSV with the columns `CSV_HEADER`, class by class; labels that are alone come last, as group 0.

    Cells are empty where there is nothing to say: no nearest label, no shards.
    """
    rows: list[Sequence[object]] = [CSV_HEADER]
    for line in sorted(lines, key=lambda line: (line.group == 0, line.group, line.member.key)):
        member, nearest = line.member, line.nearest
        group = report.groups[line.group - 1] if line.group else None
        rows.append(
            (
                line.group,
                *((group.name, len(group.members), f"{group.lowest:.4f}") if group else ("", 1, "")),
                *(member.dataset, member.index, member.name, ";".join(member.concepts), member.text),
                *((nearest.dataset, nearest.index, nearest.name, f"{line.cosine:.4f}") if nearest else ("",) * 4),
                *("" if number is None else number for number in (member.pixels, member.boxes)),
            )
        )
    return csv_text(rows)
