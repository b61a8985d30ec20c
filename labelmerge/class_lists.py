"""Class lists as people have them: one name a line, or a table with a column of names. No recipe, no images."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from labelmerge.descriptions import HEADER, Description, read_descriptions
from labelmerge.errors import DescriptionsError, UsageError
from labelmerge.files import read_text
from labelmerge.text import counted, csv_value, delimiter_of, some

SUFFIXES = (".csv", ".tsv", ".txt")
_NAMES = ("name", "class", "class_name", "label", "label_name", "category", "category_name")
_DESCRIPTIONS = ("description", "definition", "meaning")
_NUMBERED = re.compile(r"(\d{1,6})(?:\s*[:;.,=)]\s*|\s+)(\S.*)")
_QUOTED = re.compile(r"([\"'])(.*)\1")
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


def is_class_list(path: str) -> bool:
    """Whether a word of the command line is the path of a class list, by its ending."""
    return path.lower().endswith(SUFFIXES)


def list_name(path: Path) -> str:
    """What the dataset of a class list is called: the file's stem in lower case letters, digits and ``_``.

    Raises:
        UsageError: nothing is left of it.
    """
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode().lower()
    name = _NOT_PLAIN.sub("_", plain).strip("_")[:60]
    if not name:
        raise UsageError("the file's name has no letter from a to z", where=path, fix="Give it one: it names the list")
    return name


def read_class_list(path: Path) -> list[Description]:
    """The classes of a list, numbered from 0 in the file's order.

    ``.txt``: one name a line. Blank lines and those that begin with ``#`` don't count, nor a heading *name* or *class*,
    nor quotes around a name, nor a number before it, where every line has one.

    ``.csv`` and ``.tsv``: a header with a column `name` (or `class`, `label`, `category`), maybe one `description`, and
    any others, which are ignored (`ignored_columns`); with the columns `index` and `name` it is a descriptions file
    (`labelmerge.descriptions.read_descriptions`). So is ``.txt`` with such a header of several columns.

    Raises:
        DescriptionsError: the file can't be read, has no such column, or has a name twice; all in one message.
    """
    text = read_text(path, DescriptionsError)
    if not text.strip():
        raise DescriptionsError("is empty", where=path, fix="Write the names of the classes into it")
    columns, delimiter = _header(text)
    if _is_plain(path, columns):
        found = [(line, name, "") for line, _, name in plain_names(text, path)]
    else:
        if {"index", "name"} <= set(columns) <= set(HEADER):
            return read_descriptions(path)
        found = list(_table(path, text, columns, delimiter))
    rows: list[Description] = []
    first: dict[str, int] = {}
    twice = []
    for line, name, description in found:
        if not name:
            continue
        if name in first:
            twice.append(f"line {line}: {name!r} is on line {first[name]} already")
        first.setdefault(name, line)
        rows.append(Description(len(rows), name, description))
    if twice:
        raise DescriptionsError(some(twice, separator="; "), where=path, fix="Each class once")
    if not rows:
        raise DescriptionsError("no names", where=path, fix="Write the names of the classes into it")
    return rows


def plain_names(text: str, path: Path | None = None) -> list[tuple[int, int | None, str]]:
    """The names of a ``.txt`` file: its line, the number before it where every line has one in ascending order, name.

    Raises:
        DescriptionsError: it is one line of several names; `path` is what the message names.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(lines) > 1 and lines[0][1].lower() in _NAMES:
        lines = lines[1:]
    if len(lines) == 1 and not _QUOTED.fullmatch(lines[0][1]):
        for mark, what in ((",", "commas"), (";", "semicolons"), ("\t", "tabs")):
            if mark in lines[0][1]:
                fault = f"is one line of names with {what} between them"
                raise DescriptionsError(fault, where=path, fix=f"Write one name a line, quotes around one with {what}")
    numbered = [_NUMBERED.fullmatch(line) for _, line in lines]
    numbers = [int(match[1]) for match in numbered if match]
    if len(lines) > 1 and len(numbers) == len(lines) and numbers == sorted(set(numbers)):
        lines = [(number, match[2]) for (number, _), match in zip(lines, numbered, strict=True) if match]
    else:
        numbers = []
    if tabs := [line for line, name in lines if "\t" in name]:
        fix = "Write one name a line, or name the columns in the first line"
        raise DescriptionsError(f"line {tabs[0]}: several columns, with tabs between them", where=path, fix=fix)
    names = [(line, match[2] if (match := _QUOTED.fullmatch(name)) else name) for line, name in lines]
    return [(line, numbers[place] if numbers else None, name) for place, (line, name) in enumerate(names)]


def ignored_columns(path: Path) -> list[str]:
    """The columns that are ignored, of a list that has no descriptions: one of them may be meant as that."""
    columns, _ = _header(read_text(path, DescriptionsError))
    if _is_plain(path, columns) or not set(columns) & set(_NAMES):
        return []
    if {"index", "name"} <= set(columns) <= set(HEADER) or set(columns) & set(_DESCRIPTIONS):
        return []
    return [column for column in columns if column and column not in (*_NAMES, "index", "id")]


def _is_plain(path: Path, columns: list[str]) -> bool:
    """Whether a list has one name a line, and is no table: by its ending, unless its first line names columns."""
    return path.suffix.lower() == ".txt" and not (len(columns) > 1 and set(columns) & set(_NAMES))


def _header(text: str) -> tuple[list[str], str]:
    """The columns of a table, and what separates them."""
    header, delimiter = text.partition("\n")[0], delimiter_of(text)
    return [column.strip().lower() for column in next(csv.reader([header], delimiter=delimiter), [])], delimiter


def _table(path: Path, text: str, columns: list[str], delimiter: str) -> Iterable[tuple[int, str, str]]:
    names = next((columns.index(name) for name in _NAMES if name in columns), None)
    if names is None:
        raise DescriptionsError(
            f"no column is called {', '.join(_NAMES[:-1])} or {_NAMES[-1]} (the first line has {some(columns)})",
            where=path,
            fix="Name the columns in the first line; a list of one name a line ends in .txt",
        )
    described = next((columns.index(name) for name in _DESCRIPTIONS if name in columns), None)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        next(reader)
        for row in reader:
            if row and len(row) <= names:
                have = f"{counted(len(row), 'field')}, not the {len(columns)} of the header"
                raise DescriptionsError(f"line {reader.line_num}: {have}", where=path)
            if row:
                description = row[described] if described is not None and described < len(row) else ""
                yield reader.line_num, csv_value(row[names]).strip(), csv_value(description).strip()
    except csv.Error as error:
        raise DescriptionsError(f"line {reader.line_num}: {error}", where=path) from error
