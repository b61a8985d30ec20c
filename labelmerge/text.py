"""Words and tables for messages and terminals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from labelmerge.errors import printable, quoted


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: the first `left` columns to the left, the others to the right, two spaces between them.

    Control characters in cells are shown by their codes, so that a name ends no line.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def printable_lines(text: str) -> str:
    """Lines with names from files in them, as a terminal may see them: `printable`, but for the line feeds."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def printable_json(value: object) -> str:
    """Indented JSON that a terminal may see: in its texts, control characters and bidi marks are escapes of JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def harmless_markdown(text: str) -> str:
    """A line with names in it for a Markdown page: no HTML, links or pictures come of them, nor control characters."""
    return printable(text).replace("\\", "\\\\").replace("<", "&lt;").replace("[", "\\[")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, in the plural where it must be: 1 split, 2 splits, 1,200 boxes (`plural`)."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def some(things: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """The first few of a list, and how many more there are: ``a, b, c and 4 more``.

    A word with a comma in it stands in quotes, where commas separate: ``"sofa, couch", bed``.
    """
    words = [quoted(str(thing)) if separator == ", " else str(thing) for thing in things]
    rest = len(words) - most
    return separator.join(words[:most]) + (f"{';' if separator == '; ' else ''} and {rest:,} more" if rest > 0 else "")


_PARTICULAR = re.compile(r"\S*\d\S*")
"""What differs between faults of one kind: numbers, and paths with numbers in them."""


def kinds(lines: Iterable[str]) -> list[str]:
    """The first of each kind of line, in their order, with how many more like it there are.

    >>> kinds(["a/0.png: value 7", "a/1.png: value 12", "a/2.png: is not a PNG"])
    ['a/0.png: value 7 (and 1 more like it)', 'a/2.png: is not a PNG']
    """
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(_PARTICULAR.sub("", line), []).append(line)
    return [first + (f" (and {len(others):,} more like it)" if others else "") for first, *others in found.values()]


_FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
"""Where a spreadsheet takes a cell for a formula; after apostrophes, which `csv_cell` adds one to."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_cell(value: object) -> str:
    """A cell of a CSV that people open in a spreadsheet, which must take no name for a formula.

    An apostrophe goes before a text that begins as one; `csv_value` takes it off. Numbers are left as they are.

    >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell("road"), csv_value(csv_cell("'=1+1"))
    ("'=1+1", '-0.5', 'road', "'=1+1")
    """
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def csv_value(cell: str) -> str:
    """The inverse of `csv_cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def delimiter_of(table: str) -> str:
    """What separates the columns of a table, by its first line: commas or, as some spreadsheets save it, others."""
    return max(",;\t", key=table.partition("\n")[0].count)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """A CSV: commas, lines that end in a line feed, and no cell that a spreadsheet takes for a formula."""
    return "".join(",".join(_quoted(csv_cell(value)) for value in row) + "\n" for row in rows)


def _quoted(cell: str) -> str:  # Python's writer leaves carriage returns bare where lines end without
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\r\n') else cell
