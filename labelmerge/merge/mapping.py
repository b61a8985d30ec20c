"""A mapping table: which labels are one class, as CSV for a person to edit.

`labelmerge merge` writes one from what the machine found; the baselines and `labelmerge train` read it back, so that a
person can overrule the machine line by line: labels whose `group` is the same word are one class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from labelmerge.errors import BankError, did_you_mean
from labelmerge.files import read_text, write_text
from labelmerge.labels import LabelKey
from labelmerge.merge.groups import Member, MergeReport
from labelmerge.names import prompt_name

HEADER = ("dataset", "index", "name", "group", "cosine", "text")
"""What `write_mapping` writes: `cosine` is the lowest within the group. `read_mapping` needs the first four only."""
_NEEDED = HEADER[:4]
_MAX_PROBLEMS = 8


def mapping_table(report: MergeReport) -> str:
    """The groups of a merge as a mapping: a row for each label, those of one group together, labels alone last.

    A group has the name of `labelmerge.merge.groups.Group`, and a label that is alone its own `prompt_name`; a name
    that is taken is told apart by its dataset in brackets.
    """
    used: set[str] = set()

    def free(name: str, datasets: Iterable[str]) -> str:
        """`name`, or the first of its forms that no group has."""
        tries = (name, *(f"{name} ({dataset})" for dataset in datasets))
        found = next((form for form in tries if form not in used), None)
        number = 2
        while found is None:
            found = None if f"{name} {number}" in used else f"{name} {number}"
            number += 1
        used.add(found)
        return found

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)

    def write(members: Iterable[Member], group: str, cosine: str) -> None:
        for member in members:
            writer.writerow((member.dataset, member.index, member.name, group, cosine, member.text))

    for group in report.groups:
        write(group.members, free(group.name, (member.dataset for member in group.members)), f"{group.lowest:.4f}")
    for member in report.alone:
        write([member], free(prompt_name(member.name), [member.dataset]), "")
    return out.getvalue()


def write_mapping(report: MergeReport, path: Path) -> None:
    """Write `mapping_table` to `path`; raises OutputError."""
    write_text(path, mapping_table(report))


def read_mapping(path: Path, names: Mapping[LabelKey, str], others: bool = False) -> dict[LabelKey, str]:
    """Read a mapping table: the group of every label in it.

    UTF-8 CSV, separated by commas or, as some spreadsheets save it, semicolons or tabs; the columns ``dataset``,
    ``index``, ``name`` and ``group`` in any order, others don't matter. A dataset is either in it with every label that
    the bank has of it, or not at all.

    Args:
        path: the file.
        names: the labels that may be named, as a bank has them.
        others: whether there may be labels of other datasets too.

    Raises:
        BankError: it can't be read, or names labels that are not there or called otherwise, names one twice, leaves out
            a group or a label. One message has all of it, with line numbers.
    """
    text = read_text(path, BankError)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    datasets = {dataset for dataset, _ in names}
    groups: dict[LabelKey, str] = {}
    lines: dict[LabelKey, int] = {}
    problems: list[str] = []
    try:
        if missing := [column for column in _NEEDED if column not in (reader.fieldnames or ())]:
            raise BankError(
                f"has no column {' or '.join(map(repr, missing))}",
                where=path,
                fix=f"The first line must be {','.join(_NEEDED)}, as `labelmerge merge` writes it",
            )
        end = reader.line_num
        for row in reader:
            line, end = end + 1, reader.line_num  # a quoted text may go over several lines
            dataset, number, name, group = (" ".join((row[column] or "").split()) for column in _NEEDED)
            if not any((dataset, number, name, group)):
                continue
            key = (dataset, int(number)) if number.isascii() and number.isdigit() else None
            problem = (
                "has more fields than the first line: put quotes around texts with commas"
                if None in row
                else _problem(dataset, number, key, name, group, names, None if others else datasets)
            )
            if problem is None and key in lines:
                problem = f"{dataset} {number} ({name}) is in line {lines[key]} already"
            if problem is not None:
                problems.append(f"line {line}: {problem}")
            if key is not None:
                lines.setdefault(key, line)
                groups.setdefault(key, group)
    except csv.Error as error:
        raise BankError(f"can't be read as CSV ({error})", where=f"{path}:{reader.line_num}") from error
    mapped = {dataset for dataset, _ in groups}
    lacking = [key for key in names if key[0] in mapped and key not in groups]
    problems += [f"{dataset} {index} ({names[dataset, index]}) is missing" for dataset, index in lacking]
    if not groups and not problems:
        problems.append("it has no rows")
    if problems:
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise BankError("; ".join(problems[:_MAX_PROBLEMS]) + more, where=path)
    return groups


def _problem(
    dataset: str,
    number: str,
    key: LabelKey | None,
    name: str,
    group: str,
    names: Mapping[LabelKey, str],
    datasets: set[str] | None,
) -> str | None:
    """What is wrong with a row, if anything is; `datasets` are the only ones there may be, where it says."""
    if key is None:
        return f"the index {number!r} is no whole number"
    if datasets is None and key not in names:
        return None if group else f"{dataset} {number} ({name}) has no group"
    if datasets is not None and dataset not in datasets:
        return f"the bank has no dataset {dataset!r} ({did_you_mean(dataset, datasets).rstrip('.')})"
    if key not in names:
        own = {" ".join(label.split()): index for (whose, index), label in names.items() if whose == dataset}
        where = f": {name!r} is {own[name]}" if name in own else ""
        return f"{dataset} has no label {number}{where}"
    if " ".join(names[key].split()) != name:
        return f"{dataset} {number} is {names[key]!r}, not {name!r}"
    if not group:
        return f"{dataset} {number} ({name}) has no group"
    return None
