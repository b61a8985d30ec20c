"""Parquet and Arrow files as Hugging Face's `datasets` makes them: read row by row, without that package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from labelmerge.errors import LayoutError

DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
"""What reading a damaged file may raise."""

_ROWS_AT_ONCE = 16
_NAMES_AT_ONCE = 1024
_MAX_ROW_GROUP = 1 << 30  # bytes; `datasets` itself makes them a few tens of millions large
_MAX_BATCH = 1 << 28  # bytes
_MAX_NUMBERS = 1 << 28  # of one column in a row group
_MAX_RATIO, _SMALL = 50, 1 << 27  # pictures are packed already: what unfolds so far is none, beyond so many bytes


class _Arrow:
    """An Arrow file, mapped into memory. Raises whatever pyarrow raises about damaged files."""

    def __init__(self, path: Path) -> None:
        mapped = pa.memory_map(str(path))
        try:
            self._table = pa.ipc.open_stream(mapped).read_all()
        except pa.ArrowInvalid:  # of the two kinds of Arrow files, `datasets` writes the other
            self._table = pa.ipc.open_file(mapped).read_all()
        self._table.validate(full=True)
        self.schema = self._table.schema

    def image_names(self, column: str) -> Iterator[str]:
        """What each row's image was called as a file, without touching the images; "" where that isn't known."""
        if _stores_names(self.schema, column):
            for chunk in self._table.column(column).chunks:
                yield from (name.as_py() or "" for name in chunk.field("path"))
        else:
            yield from repeat("", self._table.num_rows)

    def row(self, number: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """One row; IndexError where there is none."""
        return {name: self._table.column(name)[number].as_py() for name in columns}


class _Parquet:
    """A Parquet file, of which one row group at most is in memory: quick to read in ascending order."""

    def __init__(self, path: Path) -> None:
        self._file = pa.parquet.ParquetFile(path, memory_map=True)
        self._chunks = _refuse_bomb(self._file.metadata, path)
        self.schema = self._file.schema_arrow
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._first, self._batch = 0, None

    def image_names(self, column: str) -> Iterator[str]:
        """As those of `_Arrow`."""
        if _stores_names(self.schema, column):
            name = f"{column}.path"
            for batch in self._file.iter_batches(self._at_once(_NAMES_AT_ONCE, name), columns=[name]):
                yield from ((entry or {}).get("path") or "" for entry in batch.column(0).to_pylist())
        else:
            yield from repeat("", self._file.metadata.num_rows)

    def row(self, number: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """As that of `_Arrow`; `columns` are the same in every call."""
        if self._batch is None or number < self._first:
            self._batches = self._file.iter_batches(self._at_once(_ROWS_AT_ONCE, *columns), columns=list(columns))
            self._first, self._batch = 0, next(self._batches, None)
        while self._batch is not None and number >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows
            self._batch = next(self._batches, None)
        if self._batch is None:
            raise IndexError(f"row {number} is not there")
        return {name: self._batch.column(name)[number - self._first].as_py() for name in columns}

    def _at_once(self, rows: int, *columns: str) -> int:
        """How many rows may be unpacked together: a value that the file holds once may be that of every row."""
        largest = sum(
            size
            for name, size in self._chunks.items()
            if any(name == column or name.startswith(f"{column}.") for column in columns)
        )
        return max(1, min(rows, _MAX_BATCH // max(1, largest)))


def _refuse_bomb(metadata: Any, path: Path) -> dict[str, int]:
    """The bytes of each column's largest chunk, by its path in the schema, from what a file says of itself.

    Raises:
        LayoutError: it would fill the memory.
    """
    largest: dict[str, int] = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(place) for place in range(group.num_columns)]
        packed = sum(chunk.total_compressed_size for chunk in chunks)
        size = max(group.total_byte_size, sum(chunk.total_uncompressed_size for chunk in chunks))
        numbers = max((chunk.num_values for chunk in chunks if chunk.physical_type != "BYTE_ARRAY"), default=0)
        if size > _MAX_ROW_GROUP or numbers > _MAX_NUMBERS or size > max(_SMALL, packed * _MAX_RATIO):
            raise LayoutError(
                f"has a row group of {size:,} bytes and {numbers:,} numbers, too much to be read into memory "
                f"(packed, {packed:,} bytes)",
                where=path,
                fix="Write it again with smaller row groups, or with save_to_disk",
            )
        for chunk in chunks:
            largest[chunk.path_in_schema] = max(largest.get(chunk.path_in_schema, 0), chunk.total_uncompressed_size)
    return largest


def _stores_names(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(column).type
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 and _is_text(kind.field("path").type)


def open_table(path: Path) -> _Arrow | _Parquet:
    """The file at `path`, kept open until another one is asked for."""
    stat = path.stat()
    return _opened(path, (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=1)
def _opened(path: Path, state: tuple[int, int]) -> _Arrow | _Parquet:
    return (_Parquet if path.suffix == ".parquet" else _Arrow)(path)


def type_of(schema: pa.Schema, name: str) -> pa.DataType | None:
    """The type of a column, or of a field of one; None where there is none such."""
    column, *inner = name.split(".")
    if schema.get_field_index(column) < 0:
        return None
    kind, lists = schema.field(column).type, 0
    for part in inner:
        while _is_list(kind):
            kind, lists = kind.value_type, lists + 1
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    for _ in range(lists):
        kind = pa.list_(kind)
    return kind


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """A column's value, or that of a field of it; of a list of records, the list of their fields."""
    column, *inner = name.split(".")
    value = row[column]
    for part in inner:
        value = _part(value, part)
    return value


def _part(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return [_part(entry, part) for entry in value]
    return value.get(part) if isinstance(value, dict) else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_picture(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_binary(kind)
    at = kind.get_field_index("bytes")
    return at >= 0 and _is_binary(kind.field(at).type)


def is_mask(kind: pa.DataType) -> bool:
    kind = getattr(kind, "storage_type", kind)  # an array column
    if is_picture(kind):
        return True
    if not (_is_list(kind) and _is_list(kind.value_type)):
        return False
    pixel = kind.value_type.value_type
    return bool(pa.types.is_integer(pixel.value_type if _is_list(pixel) else pixel))  # a number, or a colour


def is_boxes(kind: pa.DataType) -> bool:
    return _is_list(kind) and _is_list(kind.value_type) and _is_number(kind.value_type.value_type)


def is_classes(kind: pa.DataType) -> bool:
    return _is_list(kind) and (bool(pa.types.is_integer(kind.value_type)) or _is_text(kind.value_type))


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names of a ClassLabel column, from what `datasets` notes in the file; None where it notes none."""
    try:
        node = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for part in column.split("."):
            while part not in node and "feature" in node:
                node = node["feature"]
            node = node[part]
        while "names" not in node:
            node = node["feature"]
        names = node["names"] if node.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
