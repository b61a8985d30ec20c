"""Large JSON and CSV annotation files, read as streams; a damaged one is a LayoutError."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import ijson

from labelmerge.errors import LayoutError

T = TypeVar("T")


def json_records(path: Path, key: str, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """`parse` of every record in the list `key` of a JSON object, without loading the file.

    Raises:
        LayoutError: the file is not JSON, or a record lacks something that `parse` asks for.
    """
    number = 1  # of the record at hand
    try:
        with path.open("rb") as stream:
            for record in ijson.items(stream, f"{key}.item", use_float=True):
                yield parse(record)
                number += 1
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise LayoutError(f"is not valid JSON ({reason}; in {key} {number})", where=path) from error
    except KeyError as error:
        raise LayoutError(f"{key} {number} has no {error}", where=path) from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise LayoutError(f"{key} {number} is malformed ({error})", where=path) from error


def csv_rows(path: Path, columns: Sequence[str], defaults: Sequence[str] | None = None) -> Iterator[tuple[str, ...]]:
    """The named columns of every row of a CSV file.

    Args:
        path: the file.
        columns: by their names in the header.
        defaults: the columns of a file without a header line.

    Raises:
        LayoutError: the file is no such CSV.
    """
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            first = next(reader, [])
            header = first
            rest: Iterable[list[str]] = reader
            if defaults is not None and not set(columns) <= set(first):
                header, rest = list(defaults), chain([first], reader)
            if missing := [name for name in columns if name not in header]:
                raise LayoutError(f"the header lacks {', '.join(missing)}", where=path)
            places = [header.index(name) for name in columns]
            for row in rest:
                if row:
                    yield tuple(row[place] for place in places)
                line += 1
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise LayoutError(f"is not valid CSV ({error}; in row {line})", where=path) from error
    except IndexError as error:
        raise LayoutError(f"row {line} has too few fields", where=path) from error
