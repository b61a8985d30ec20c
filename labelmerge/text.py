"""Words and tables for messages and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table: the first `left` columns to the left, the others to the right, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, in the plural where it must be: 1 split, 2 splits, 1,200 boxes (`plural`)."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def some(things: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """The first few of a list, and how many more there are: ``a, b, c and 4 more``."""
    words = [str(thing) for thing in things]
    rest = len(words) - most
    return separator.join(words[:most]) + (f"{';' if separator == '; ' else ''} and {rest:,} more" if rest > 0 else "")
