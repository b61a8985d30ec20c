"""The descriptions CSV: one row per class of a dataset, in its official order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from labelmerge.errors import DescriptionsError
from labelmerge.files import read_text, write_text
from labelmerge.labels import LabelSpace
from labelmerge.text import counted, csv_text, csv_value, delimiter_of

_MAX_PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Description:
    """One row: what a dataset means by one of its words.

    Attributes:
        index: the class's value in a class mask, after the recipe's id rule.
        name: the dataset's official string, never edited.
        description: one or two sentences, or "" where nobody has written one yet.
        wikipedia: exact title of the Wikipedia article to refresh from, or "".
        source: ``curated`` (our own words), ``wikipedia``, or a user's own word for where the text is from.
        revision, url, licence, retrieved: provenance of a fetched text.
        note: why the text says what it says, where that was a decision.
        concepts: the concepts of concepts.csv that the class may stand for, separated by ``;``; or "".
        but: concepts within these that it does not stand for, because its dataset labels them as nothing; or "".
    """

    index: int
    name: str
    description: str = ""
    wikipedia: str = ""
    source: str = ""
    revision: str = ""
    url: str = ""
    licence: str = ""
    retrieved: str = ""
    note: str = ""
    concepts: str = ""
    but: str = ""


HEADER = tuple(field.name for field in fields(Description))
_REQUIRED = ("index", "name")


def read_descriptions(path: Path) -> list[Description]:
    """Read and check a descriptions CSV (`index` and `name` are required columns, the rest may be absent).

    UTF-8, separated by commas or, as some spreadsheets save it, semicolons or tabs.

    Raises:
        DescriptionsError: the file can't be read or is malformed; all its problems are in one message.
    """
    text = read_text(path, DescriptionsError)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    rows: list[Description] = []
    problems: list[str] = []
    try:
        header = reader.fieldnames or []
        if unknown := [name for name in header if name not in HEADER]:
            problems.append(f"unknown columns {', '.join(map(repr, unknown))} (known: {', '.join(HEADER)})")
        if twice := sorted({name for name in header if header.count(name) > 1}):
            problems.append(f"the header has {', '.join(twice)} twice")
        if missing := [name for name in _REQUIRED if name not in header]:
            values = ", the class's value in the masks" if "index" in missing else ""
            problems.append(f"the header lacks {' and '.join(missing)}{values}" if header else "is empty")
        first_line: dict[int, int] = {}
        for row in reader if not problems else ():
            line = reader.line_num
            if None in row or None in row.values():
                have = sum(value is not None for name, value in row.items() if name is not None) + len(
                    row.get(None, ())
                )
                why = " (a text with commas needs quotes)" if None in row else ""
                problems.append(f"line {line}: {counted(have, 'field')}, not the {len(header)} of the header{why}")
                continue
            try:
                index = int(row["index"])
                if index < 0:
                    raise ValueError
            except ValueError:
                problems.append(f"line {line}: index {row['index']!r} is not a whole number of 0 or more")
                continue
            if not row["name"].strip():
                problems.append(f"line {line}: empty name")
            if index in first_line:
                problems.append(f"line {line}: index {index} was already given on line {first_line[index]}")
            first_line.setdefault(index, line)
            rows.append(Description(index, **{key: csv_value(value) for key, value in row.items() if key != "index"}))
    except csv.Error as error:
        problems.append(f"line {reader.reader.line_num}: {error}")
    if not rows and not problems:
        problems.append("no rows")
    if problems:
        shown = "; ".join(problems[:_MAX_PROBLEMS_SHOWN])
        more = len(problems) - _MAX_PROBLEMS_SHOWN
        raise DescriptionsError(shown + (f"; and {more} more problems" if more > 0 else ""), where=path)
    return sorted(rows, key=lambda row: row.index)


def write_descriptions(path: Path, rows: Iterable[Description]) -> None:
    """Write a descriptions CSV atomically, with every column; the last, `but`, where some row has it."""
    rows = list(rows)
    columns = HEADER if any(row.but for row in rows) else HEADER[:-1]
    write_text(path, csv_text([columns, *([asdict(row)[column] for column in columns] for row in rows)]))


def label_space(dataset: str, rows: Iterable[Description]) -> LabelSpace:
    """The label space that a descriptions file defines."""
    rows = list(rows)
    return LabelSpace(dataset, tuple(row.index for row in rows), tuple(row.name for row in rows))
