"""The merge report as files: a table to sort, a mapping to edit, JSON for programs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labelmerge.bank.bank import Bank
from labelmerge.errors import OutputError
from labelmerge.files import write_bytes, write_json, write_text
from labelmerge.merge.groups import MergeReport
from labelmerge.merge.label_lines import LabelLine, label_lines
from labelmerge.merge.mapping import mapping_table

MAPPING = "mapping.csv"
JSON = "merge.json"
CSV_HEADER = (
    *("group", "name", "labels", "lowest_cosine", "dataset", "index", "label", "text"),
    *("nearest_dataset", "nearest_index", "nearest_label", "nearest_cosine", "pixels", "boxes"),
)


def write_merge_report(report: MergeReport, bank: Bank, out: Path) -> dict[str, Any]:
    """Write the report into a folder; the page to read is `labelmerge.plot.merge_page.page.write_merge_page`.

    - ``merge.csv``, a row for each label (`merge_table`);
    - ``merge.json``, the report and under ``labels`` each label with its group and nearest neighbour;
    - ``mapping.csv``, for a person to edit (`labelmerge.merge.mapping`). One that was edited is never written over.

    Args:
        report: what `merge_groups` found in `bank`.
        bank: the labels.
        out: the folder; made where there is none.

    Returns:
        What ``merge.json`` holds.

    Raises:
        OutputError: the files can't be written, or there is a mapping that a person has edited.
    """
    lines = label_lines(report, bank)
    mapping = mapping_table(report).encode()
    _keep_edits(out, mapping)
    content = {
        **report.to_json(),
        "mapping_sha256": hashlib.sha256(mapping).hexdigest(),
        "labels": [line.to_json() for line in lines],
    }
    write_bytes(out / MAPPING, mapping)
    write_json(out / JSON, content)
    write_text(out / "merge.csv", merge_table(report, lines))
    return content


def _keep_edits(out: Path, mapping: bytes) -> None:
    """Raise OutputError where the folder's mapping is neither `mapping` nor what its report was written with."""
    try:
        there = (out / MAPPING).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return
    try:
        written = json.loads((out / JSON).read_bytes())["mapping_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        written = None
    if there != mapping and hashlib.sha256(there).hexdigest() != written:
        raise OutputError(
            "a mapping that was edited is here, and is not written over",
            where=out / MAPPING,
            fix="Give it another name, or choose another --out",
        )


def merge_table(report: MergeReport, lines: Sequence[LabelLine]) -> str:
    """The labels as CSV with the columns `CSV_HEADER`, group by group; labels that are alone come last, as group 0.

    Cells are empty where there is nothing to say: no nearest label, no shards.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for line in sorted(lines, key=lambda line: (line.group == 0, line.group, line.member.key)):
        member, nearest = line.member, line.nearest
        group = report.groups[line.group - 1] if line.group else None
        writer.writerow(
            (
                line.group,
                *((group.name, len(group.members), f"{group.lowest:.4f}") if group else ("", 1, "")),
                *(member.dataset, member.index, member.name, member.text),
                *((nearest.dataset, nearest.index, nearest.name, f"{line.cosine:.4f}") if nearest else ("",) * 4),
                *("" if number is None else number for number in (member.pixels, member.boxes)),
            )
        )
    return out.getvalue()
