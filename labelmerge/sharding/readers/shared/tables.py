"""Annotation files of any size: JSON and CSV read as streams, into tables on disk. A damaged one is a LayoutError."""

from __future__ import annotations

import csv
import json
import marshal
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from labelmerge.errors import LayoutError

Record = dict[str, Any]

_CHUNK = 1 << 20
_MAX_VALUE = 1 << 25  # characters of one record
_MAX_LINE = 1 << 20  # characters
_PAGE_CACHE = 64 << 10  # KiB
_ROWS_AT_ONCE = 10_000
_BYTES_AT_ONCE = 1 << 26
_SPACE = re.compile(r"[ \t\r\n]*")
_MAX_WHOLE = 2**53  # beyond it, not every whole number is a float
_MAX_ID = 2**63 - 1  # what SQLite holds
_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NO = ("", "0", "0.0", "false", "no", "none", "null", "n", "f")
_SHOWN = 60  # characters of what a file says


def read_lists(path: Path, parsers: Mapping[str, Callable[[Record], None]], faults: Faults | None = None) -> None:
    """Call a parser for every record of some lists of a JSON object, in file order.

    The file is read once, whatever the order of its lists, and never held in memory. (A pass of ijson for each list
    takes 3 times as long.)

    Args:
        path: the file.
        parsers: what to do with a record, by the name of its list. KeyError, TypeError, ValueError, AttributeError and
            OverflowError of a parser mean that the record is malformed.
        faults: takes note of the malformed records of the lists that it knows, which are then left out; None: of none.

    Raises:
        LayoutError: the file is not JSON, lacks one of the lists or has an empty one, or a record of another list is
            malformed.
    """
    counts = dict.fromkeys(parsers, 0)
    at = "its beginning"
    try:
        with path.open(encoding="utf-8-sig") as file:
            stream = _Json(file)
            for key in stream.lists():
                for record in stream.records():
                    if key in counts:
                        counts[key] += 1
                        at = f"{key} {counts[key]}"
                        try:
                            parsers[key](record)
                        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                            missing = isinstance(error, KeyError)
                            if faults is not None and key in faults.lists:
                                faults.add(key, counts[key], record, f"has no {error}" if missing else str(error))
                            else:
                                why = f"has no {error}" if missing else f"is malformed ({error})"
                                raise LayoutError(f"{at} {why}", where=path) from error
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        raise LayoutError(f"is not valid JSON (not UTF-8: {error.reason}; after {at})", where=path) from error
    except RecursionError as error:
        raise LayoutError(f"is nested too deeply (after {at})", where=path) from error
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise LayoutError(f"is not valid JSON ({reason}; after {at})", where=path) from error
    for key, count in counts.items():
        if count == 0:
            raise LayoutError(f"lists no {key}", where=path)


class Faults:
    """The malformed records of a file's lists: how many of each kind, and where the first of it is.

    Args:
        lists: of which lists records may be left out.
    """

    _KINDS = 20  # that are told apart

    def __init__(self, *lists: str) -> None:
        self.lists = lists
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, key: str, number: int, record: Any, why: str) -> None:
        """Take note of the record of this number in a list."""
        kind = f"{key} left out: {why[:_SHOWN]}"
        if kind not in self._counts and len(self._counts) >= self._KINDS:
            kind = f"{key} left out: other faults"
        own = record.get("id") if isinstance(record, dict) else None
        self._first.setdefault(kind, f"the first is number {number}, id {str(own)[:_SHOWN]}")
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def notes(self) -> dict[str, int]:
        """What was left out, and how often; each line names the field, and the first record."""
        return {f"{kind} ({self._first[kind]})": count for kind, count in self._counts.items()}

    def __str__(self) -> str:
        return "; ".join(self.notes())


class _Json:
    """A JSON text in small pieces; ValueError where it is none."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False
        self._decode = json.JSONDecoder().raw_decode

    def lists(self) -> Iterator[str]:
        """The keys of the outermost object whose values are lists; the caller takes each one's `records` at once."""
        if self._next() != "{":
            self.value()  # other JSON has no lists by name
            return
        for _ in self._elements("}"):
            key = self.value()
            if not isinstance(key, str) or self._next() != ":":
                raise ValueError("a key or a colon is missing")
            self._at += 1
            if self._next() == "[":
                yield key
            else:
                self.value()
        if self._next():
            raise ValueError("there is more after its end")

    def records(self) -> Iterator[Any]:
        """The values of the list that begins here."""
        for _ in self._elements("]"):
            yield self.value()

    def _elements(self, end: str) -> Iterator[None]:
        self._at += 1
        if self._next() != end:
            yield
            while (mark := self._next()) == ",":
                self._at += 1
                yield
            if mark != end:
                raise ValueError(f"',' or '{end}' is missing" if mark else "it ends too early")
        self._at += 1

    def _next(self) -> str:
        """The next character that is not a space, without taking it; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None  # it matches an empty text too
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def value(self) -> Any:
        if not self._next():
            raise ValueError("it ends too early")
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise
            else:
                # "12", or the 12 of "12e+", may be the beginning of "12e+3"
                if len(self._text) - end > 2 or not self._more():
                    self._at = end
                    return value

    def _more(self) -> bool:
        """Read on: as much again as is waiting, so that a value is tried a few times only; False at the end."""
        if self._ended:
            return False
        waiting = self._text[self._at :]
        if len(waiting) > _MAX_VALUE:
            raise ValueError(f"one of its values has more than {_MAX_VALUE} characters")
        chunk = self._file.read(max(_CHUNK, len(waiting)))
        if chunk:
            self._text, self._at = waiting + chunk, 0
        self._ended = not chunk
        return bool(chunk)


def native_id(record: Record, key: str) -> int | str:
    """The id that a record has under `key`. Raises KeyError, or ValueError where it is neither number nor text."""
    value = record[key]
    if type(value) is int:
        return value if abs(value) <= _MAX_ID else str(value)
    if isinstance(value, str):
        value.encode()  # raises a ValueError where it is half a character
        return value
    if isinstance(value, (int, float)) and abs(value) <= _MAX_WHOLE and value == int(value):
        return int(value)
    raise ValueError(f"its {key} {value!r} is not an id")


def reference(record: Record, key: str) -> int | str:
    """As `native_id`, for ids that records of several lists share: a number in quotes is that number."""
    value = native_id(record, key)
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()) and abs(int(value)) <= _MAX_ID:
        return int(value)
    return value


def flag(value: Any) -> bool:
    """A flag by its value, whatever its type: 0, 0.0, "0", "false", "no", null and the like are no."""
    return value.strip().casefold() not in _NO if isinstance(value, str) else bool(value)


def four_numbers(record: Record, key: str) -> tuple[float, float, float, float]:
    """The box that a record has under `key`. Raises KeyError, or ValueError that says what is there instead."""
    value = record[key]
    try:
        x, y, width, height = map(float, value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"its {key} is {str(value)[:_SHOWN]}, not four numbers") from None
    return x, y, width, height


def whole(value: Any) -> int:
    """A whole number as a file gives it; raises ValueError, TypeError or OverflowError."""
    number = int(value)
    if abs(number) > _MAX_WHOLE:
        raise ValueError(f"{number} is too large")
    return number


class NameById:
    """A parser of the small lists that give every id a name: `categories`."""

    _MAX = 65535  # more classes fit no mask

    def __init__(self) -> None:
        self.names: dict[int | str, str] = {}

    def __call__(self, record: Record) -> None:
        number = reference(record, "id")
        if self.names.get(number) == str(record["name"]):
            return
        if number in self.names:
            raise ValueError(f"its id {number!r} is not unique")
        if len(self.names) == self._MAX:
            raise ValueError(f"there are more than {self._MAX}")
        self.names[number] = str(record["name"])


@contextmanager
def loading(scratch: sqlite3.Connection) -> Iterator[None]:
    """One transaction for all that is written in the block, and a bounded cache from here on."""
    scratch.execute(f"PRAGMA cache_size = -{_PAGE_CACHE}")
    scratch.execute("BEGIN")
    yield
    scratch.execute("COMMIT")


class Rows:
    """A new table, and the rows on their way into it."""

    def __init__(self, scratch: sqlite3.Connection, name: str, columns: Sequence[str]) -> None:
        scratch.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
        self._scratch = scratch
        self._insert = f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})"
        self._rows: list[tuple[Any, ...]] = []

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self.close()

    def close(self) -> None:
        """Write what still waits."""
        self._scratch.executemany(self._insert, self._rows)
        self._rows.clear()


class Groups:
    """Entries on their way into a new table (key, count, entries), those of one key together.

    In most files the entries of an image are neighbours: they become one row, which makes tables of tens of millions of
    entries fast. Where they are not, an image has several rows, in file order.
    """

    def __init__(self, scratch: sqlite3.Connection, name: str) -> None:
        self._rows = Rows(scratch, name, ("key", "count", "entries"))
        self._waiting: dict[int | str, list[Any]] = {}
        self._bytes = 0

    def add(self, key: int | str, entry: Any, size: int = 300) -> None:
        """Add an entry of `size` bytes, about: numbers, texts, bytes and tuples of them."""
        self._waiting.setdefault(key, []).append(entry)
        self._bytes += size
        if self._bytes >= _BYTES_AT_ONCE:
            self.close()

    def close(self) -> None:
        """Write what still waits."""
        for key, entries in self._waiting.items():
            self._rows.add(key, len(entries), marshal.dumps(entries))
        self._rows.close()
        self._waiting.clear()
        self._bytes = 0


def entries(data: bytes) -> list[Any]:
    """What `Groups` has put into one row."""
    found: list[Any] = marshal.loads(data)
    return found


def csv_rows(path: Path, columns: Sequence[str], defaults: Sequence[str] | None = None) -> Iterator[tuple[str, ...]]:
    """The named columns of every row of a CSV file.

    Args:
        path: the file.
        columns: by their names in the header; two or more.
        defaults: the columns of a file without a header line.

    Raises:
        LayoutError: the file is not such a CSV.
    """
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(_lines(stream))
            first = next(reader, [])
            header = first
            rest: Iterable[list[str]] = reader
            if defaults is not None and not set(columns) <= set(first):
                header, rest = list(defaults), chain([first], reader)
            if missing := [name for name in columns if name not in header]:
                raise LayoutError(f"the header lacks {', '.join(missing)}", where=path)
            pick = itemgetter(*(header.index(name) for name in columns))
            for row in rest:
                if row:
                    yield pick(row)
                line += 1
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise LayoutError(f"is not valid CSV ({error}; in row {line})", where=path) from error
    except IndexError as error:
        raise LayoutError(f"row {line} has too few fields", where=path) from error


def _lines(stream: TextIO) -> Iterator[str]:
    """The lines of a file; csv.Error where one would fill memory."""
    while line := stream.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            raise csv.Error(f"a line has more than {_MAX_LINE} characters")
        yield line
