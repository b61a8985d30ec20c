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
        LayoutError: the file is not JSON, it has no such list or an empty one, or a record lacks something that
            `parse` asks for.
    """
    number = 1  # of the record at hand
    try:
        with path.open("rb") as stream:
            for record in ijson.items(stream, f"{key}.item", use_float=True):
                yield parse(record)
                number += 1
        if number == 1:
            raise LayoutError(f"lists no {key}", where=path)
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise LayoutError(f"is not valid JSON ({_reason(error)}; after {number - 1} {key})", where=path) from error
    except KeyError as error:
        raise LayoutError(f"{key} {number} has no {error}", where=path) from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise LayoutError(f"{key} {number} is malformed ({error})", where=path) from error


def _reason(error: Exception) -> str:
    # ijson's parser gives its message as bytes, with a picture of the place below the first line.
    message = error.args[0] if error.args and isinstance(error.args[0], bytes) else str(error).encode()
    lines = message.decode(errors="replace").splitlines()
    return lines[0] if lines else "it ends too early"


def json_by_id(path: Path, key: str, name: str, parse: Callable[[dict[str, Any]], T]) -> dict[Any, T]:
    """As `json_records`, by the id that each record has under `name`; in file order.

    Raises:
        LayoutError: as `json_records`; also where two records have one id.
    """
    found: dict[Any, T] = {}

    def add(record: dict[str, Any]) -> None:
        if record[name] in found:
            raise ValueError(f"its {name} {record[name]!r} is that of another one, too")
        found[record[name]] = parse(record)

    for _ in json_records(path, key, add):
        pass
    return found


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
