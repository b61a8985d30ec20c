"""A taxonomy: the concepts, and for every label the set of concepts that it may stand for.

``taxonomy.csv`` is a taxonomy as a table for a person to edit: one row for each label, its concepts separated by ``;``.
Labels with equal sets are one class; a label whose set lies within another's is a kind or a part of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from labelmerge.errors import RecipeError, TaxonomyError, did_you_mean
from labelmerge.files import read_text
from labelmerge.labels import LabelKey, LabelNames, LabelSpace
from labelmerge.merge.concepts import Booleans, split_concepts
from labelmerge.text import csv_text, csv_value, delimiter_of, some

HEADER = ("dataset", "index", "name", "concepts", "evidence", "confidence", "note")
"""What `Taxonomy.table` writes. `read_taxonomy` needs the first four, or `group` in place of `concepts`, as the
``mapping.csv`` of older versions has."""

_NEEDED = HEADER[:3]
_COSINE = "lowest_cosine"  # a column of merge.csv
_GROUP = "group"
_MOST_NAMED = 3  # labels of a dataset that are missing
_MAX_PROBLEMS = 8
_NAME_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"
PERSON = "person"
"""The evidence of what a person's table says."""


@dataclass(frozen=True)
class Entry:
    """One label's row.

    Attributes:
        concepts: what the label may stand for, at least one concept.
        evidence: what says so: ``curated``, ``name``, ``text``, ``pixels``, ``person``, joined by ``+``.
        confidence: 0 to 1.
        note: what a person should look at, or "".
    """

    key: LabelKey
    name: str
    concepts: tuple[str, ...]
    evidence: str = PERSON
    confidence: float = 1.0
    note: str = ""


class Taxonomy:
    """The sets of N labels over C concepts.

    Args:
        entries: one for each label; the concepts are numbered in the order in which they are first named, unless
            `concepts` gives another.
        concepts: the order of the concepts; those that no label stands for are left out.

    Attributes:
        entries: in ascending order of key.
        concepts: the C names.
        sets: bool ``[N, C]``.
    """

    def __init__(self, entries: Iterable[Entry], concepts: Sequence[str] = ()) -> None:
        self.entries = tuple(sorted(entries, key=lambda entry: entry.key))
        named = dict.fromkeys(concept for entry in self.entries for concept in entry.concepts)
        known = [concept for concept in dict.fromkeys(concepts) if concept in named]
        self.concepts = (*known, *(concept for concept in named if concept not in set(known)))
        number = {concept: place for place, concept in enumerate(self.concepts)}
        self.sets: Booleans = np.zeros((len(self.entries), len(self.concepts)), dtype=np.bool_)
        for row, entry in enumerate(self.entries):
            self.sets[row, [number[concept] for concept in entry.concepts]] = True

    def __repr__(self) -> str:
        return f"Taxonomy({len(self):,} labels of {', '.join(self.datasets)}: {len(self.concepts):,} concepts)"

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def rows(self) -> dict[LabelKey, int]:
        """The row of each label in `entries` and `sets`."""
        return {entry.key: row for row, entry in enumerate(self.entries)}

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __getitem__(self, key: LabelKey) -> Entry:
        return self.entries[self.rows[key]]

    @cached_property
    def _names(self) -> LabelNames:
        return LabelNames((entry.key, entry.name) for entry in self.entries)

    def row_of(self, key: LabelKey, name: str) -> int | None:
        """The row of a label from another list, matched as in `LabelNames.find`; None if there is no match."""
        found = self._names.find(key, name)
        return None if found is None else self.rows[found]

    @property
    def datasets(self) -> list[str]:
        """The datasets whose labels are here, sorted."""
        return sorted({entry.key[0] for entry in self.entries})

    def space(self, name: str) -> LabelSpace:
        """The concepts as classes, 0 .. C - 1. Raises TaxonomyError where they are too many for a mask."""
        try:
            return LabelSpace.of(name, self.concepts)
        except RecipeError as error:
            raise TaxonomyError(error.what) from error

    def table(self) -> str:
        """The taxonomy as CSV with the columns `HEADER`."""
        rows = (
            (*each.key, each.name, ";".join(each.concepts), each.evidence, f"{each.confidence:.2f}", each.note)
            for each in self.entries
        )
        return csv_text([HEADER, *rows])


def space_name(file: Path) -> str:
    """What the label space of a taxonomy is called by default: its file's name, in lower case letters and digits."""
    return "".join(letter if letter in _NAME_LETTERS else "_" for letter in file.stem.lower()) or "taxonomy"


def read_taxonomy(path: Path, names: Mapping[LabelKey, str], *, others: bool = False) -> Taxonomy:
    """Read a taxonomy that `labelmerge merge` wrote and a person may have edited.

    UTF-8 CSV, separated by commas or, as some spreadsheets save it, semicolons or tabs; the columns ``dataset``,
    ``index``, ``name`` and ``concepts`` in any order, others may be left out. A ``mapping.csv`` of older versions, with
    ``group`` in place of ``concepts``, is read too. A dataset has a row for each of its labels, or none.

    Args:
        path: the file.
        names: the labels that may be named, as a bank or shards have them.
        others: whether there may be labels of other datasets, too.

    Raises:
        TaxonomyError: it can't be read, or contradicts `names` or itself; all problems in one message, by line.
    """
    text = read_text(path, TaxonomyError)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    entries: dict[LabelKey, Entry] = {}
    lines: dict[LabelKey, int] = {}
    spelled: dict[str, tuple[str, int]] = {}
    problems: list[str] = []
    datasets = {dataset for dataset, _ in names}
    try:
        fields = reader.fieldnames or ()
        if _COSINE in fields:
            raise TaxonomyError("is the table of classes, to be read", where=path, fix="Give taxonomy.csv, beside it")
        column = "concepts" if "concepts" in fields or _GROUP not in fields else _GROUP
        if missing := [name for name in (*_NEEDED, column) if name not in fields]:
            raise TaxonomyError(
                f"has no column {' or '.join(map(repr, missing))}",
                where=path,
                fix=f"The first line must begin with {','.join((*_NEEDED, column))}, as `labelmerge merge` writes it",
            )
        end = reader.line_num
        for row in reader:
            line, end = end + 1, reader.line_num  # a quoted text may go over several lines
            dataset, number, name, cell = (
                " ".join(csv_value(row[field] or "").split()) for field in (*_NEEDED, column)
            )
            if not any((dataset, number, name, cell)):
                continue
            key = (dataset, int(number)) if number.isascii() and number.isdigit() else None
            concepts = split_concepts(cell) if column == "concepts" else split_concepts(cell.replace(";", ","))
            problem = (
                "has more fields than the first line: put quotes around texts with commas"
                if None in row
                else _problem(dataset, number, key, name, concepts, names, None if others else datasets)
            )
            if problem is None and key in lines:
                problem = f"{dataset} {number} ({name}) is in line {lines[key]} already"
            for concept in concepts:
                before, at = spelled.setdefault(concept.casefold(), (concept, line))
                if problem is None and before != concept:
                    problem = f"{concept!r} is spelled {before!r} in line {at}"
            if problem is not None:
                problems.append(f"line {line}: {problem}")
            if key is not None:
                lines.setdefault(key, line)
                entry = _entry(row, key, name, concepts)
                if entry is None:
                    problems.append(f"line {line}: the confidence {row['confidence']!r} is not a number from 0 to 1")
                else:
                    entries.setdefault(key, entry)
    except csv.Error as error:
        raise TaxonomyError(f"can't be read as CSV ({error})", where=f"{path}:{reader.line_num}") from error
    mapped = {dataset for dataset, _ in lines}
    for dataset in sorted(mapped & datasets):
        absent = [f"{key[1]} ({name})" for key, name in names.items() if key[0] == dataset and key not in lines]
        if len(absent) > _MOST_NAMED:
            problems.append(f"{len(absent):,} labels of {dataset} are missing: {some(absent, _MOST_NAMED)}")
        else:
            problems += [f"{dataset} {label} is missing" for label in absent]
    if not lines and not problems:
        problems.append("it has no rows")
    if problems:
        raise TaxonomyError(some(problems, _MAX_PROBLEMS, "; "), where=path)
    named = dict.fromkeys(concept for entry in entries.values() for concept in entry.concepts)
    return Taxonomy(entries.values(), tuple(named))


def _entry(row: Mapping[str, str], key: LabelKey, name: str, concepts: tuple[str, ...]) -> Entry | None:
    """The row of a well-formed table; None where its confidence is not a number."""
    try:
        confidence = float(row.get("confidence") or 1)
    except ValueError:
        return None
    if not 0 <= confidence <= 1:
        return None
    return Entry(key, name, concepts, row.get("evidence") or PERSON, confidence, csv_value(row.get("note") or ""))


def _problem(
    dataset: str,
    number: str,
    key: LabelKey | None,
    name: str,
    concepts: tuple[str, ...],
    names: Mapping[LabelKey, str],
    datasets: set[str] | None,
) -> str | None:
    """What is wrong with a row, if anything is; `datasets` are the only ones there may be, where it says."""
    if key is None:
        return f"the index {number!r} is not a whole number"
    if datasets is not None and dataset not in datasets:
        return f"there is no dataset {dataset!r} here ({did_you_mean(dataset, datasets).rstrip('.')})"
    if key in names or datasets is not None:
        if key not in names:
            own = {" ".join(label.split()): index for (whose, index), label in names.items() if whose == dataset}
            where = f": {name!r} is {own[name]}" if name in own else ""
            return f"{dataset} has no label {number}{where}"
        if " ".join(names[key].split()) != name:
            return f"{dataset} {number} is {names[key]!r}, not {name!r}"
    if not concepts:
        return f"{dataset} {number} ({name}) has no concept"
    return None
