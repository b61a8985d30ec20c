"""A Hugging Face `datasets` dataset, on disk or from the hub, by the names of its columns.

On disk, `layout.images` is what `save_to_disk` made (of one split, or of several: `splits` says which), or Parquet or
Arrow files. On the hub, `layout.hub` is the dataset's name, `layout.config` and `layout.revision` which of it; the
package `datasets` downloads it into the root and makes Arrow files of it. From there on both are the same: Parquet is
read by row groups and Arrow mapped into memory, without that package.

- `layout.image_column` ("image"): an Image or binary column. The stored bytes are the sample's; where only a path is
  stored, it must lie under the root.
- masks: `layout.mask_column`, an Image, binary or array column; see `values` for what the numbers mean.
- boxes: `layout.boxes_column` and `layout.classes_column`, two lists of one length. ``objects.bbox`` is the field
  `bbox` of the column `objects`. `options.box_format` is ``xywh`` (the default, as in COCO) or ``xyxy``, in pixels.
  Classes that are texts are looked up in `ids.map`, `ids.ignore` and among the classes; so are numbers that the column
  itself names (`ClassLabel`), unless `ids.offset` or a number in `ids.map` says what they mean. All other numbers
  follow the rule of `values`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from labelmerge.errors import LabelmergeError, LayoutError, RecipeError, SampleError
from labelmerge.hub import ask_hub
from labelmerge.sharding.pictures.images import Array, indices, read_file
from labelmerge.sharding.readers.mat import whole_numbers
from labelmerge.sharding.readers.shared import values
from labelmerge.sharding.readers.shared.classes import class_index, folded
from labelmerge.sharding.source.layout import find, inside, places, see
from labelmerge.sharding.source.source import Annotation, Box, Item, Keys, Note, Skip, Source, clip

_WHERE = ("hub", "config", "revision")
_COLUMNS = ("image_column", "mask_column", "boxes_column", "classes_column")
KEYS = Keys(
    types=("mask", "noisy_mask", "box"),
    layout=(),
    layout_optional=("images", *_WHERE, *_COLUMNS),
    ids=("ignore", "offset", "map", "other"),
    options=("box_format",),
)
label_space = None

_SUFFIXES = (".parquet", ".arrow")
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_BOX_FORMATS = ("xywh", "xyxy")
_ROWS_AT_ONCE = 16
_MAX_ROW_GROUP = 2 << 30  # bytes; `datasets` itself makes them a few tens of millions large
_SHOWN = 12

_DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


class _Columns(NamedTuple):
    """The columns that a recipe names; "" for those that its annotation type has not."""

    image: str
    mask: str
    boxes: str
    classes: str

    @property
    def stored(self) -> tuple[str, ...]:
        """The columns of the file: the first part of each name."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self if name))


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the rows of the split; raises LayoutError or RecipeError, LabelmergeError where `datasets` is missing."""
    columns = _columns(source)
    values.ignores_others(source)
    if columns.mask:
        values.value_table(source)
    if _box_format(source) not in _BOX_FORMATS:
        known = " or ".join(map(repr, _BOX_FORMATS))
        raise RecipeError(f"options.box_format must be {known}", where=source.recipe.path)
    files = _local_files(source) if "hub" not in source.layout else _hub_files(source)
    for place in sorted(files):
        path = source.root / place
        try:
            table = _table(path)
            _check_columns(table.schema, columns, path)
            if columns.classes:
                _classes(source, path)
            for number, name in enumerate(table.image_names(columns.image)):
                # The stored name says what kind of file the bytes are, as a file's own name does.
                suffix = Path(name).suffix.lower()
                row = f"{place}#{number:08d}{suffix if suffix in _JPEG_SUFFIXES else ''}"
                yield Item(row, (place, number), native_id=os.path.basename(name))
        except _DAMAGED as error:
            raise LayoutError(f"can't be read ({_first_line(error)})", where=path) from error


def image(source: Source, item: Item) -> bytes:
    """The bytes of one row's image, as stored; raises SampleError."""
    row = _row(source, item)
    return _bytes(_field(row, _columns(source).image), source, item)


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """The mask or the boxes of one row; raises SampleError."""
    row, columns, where = _row(source, item), _columns(source), source.root / item.path
    if columns.mask:
        return Annotation(mask=values.class_mask(_labels(_field(row, columns.mask), source, item), source, where))
    return _boxes(_field(row, columns.boxes), _field(row, columns.classes), source, item, size)


# --- where the rows are -----------------------------------------------------------------------------------------------


def _local_files(source: Source) -> list[str]:
    """The Parquet and Arrow files, paths under the root. Raises LayoutError or RecipeError."""
    if "images" not in source.layout:
        raise RecipeError("layout.images or layout.hub must say where the dataset is", where=source.recipe.path)
    if strange := [key for key in _WHERE if key in source.layout]:
        raise RecipeError(f"layout.{strange[0]} and layout.images exclude each other", where=source.recipe.path)
    found: dict[str, None] = {}
    for base in source.bases:
        for pattern in places(source, "images"):
            if os.path.isdir(source.root / base / pattern):
                found |= dict.fromkeys(_saved(source, (base + pattern).rstrip("/")))
            else:
                found |= dict.fromkeys(match.path for match in find(source.root, base + pattern))
    if strange := [place for place in found if not place.endswith(_SUFFIXES)]:
        raise LayoutError(
            "is neither a Parquet nor an Arrow file, nor a folder that save_to_disk made",
            where=source.root / strange[0],
            fix=see(source.recipe),
        )
    return list(found)


def _saved(source: Source, folder: str) -> list[str]:
    """The Arrow files in a folder that `save_to_disk` made."""
    path = source.root / folder
    try:
        if (path / "dataset_dict.json").is_file():
            splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            if source.word not in splits:
                raise LayoutError(
                    f"has no split {source.word!r}, only {', '.join(map(str, splits))}",
                    where=path,
                    fix="The recipe's [splits] may give its name",
                )
            folder = f"{folder}/{source.word}"
        if not (source.root / folder / "state.json").is_file():
            raise LayoutError(
                "is no folder that save_to_disk made", where=path, fix='For Parquet files, add "/*.parquet"'
            )
        state = json.loads((source.root / folder / "state.json").read_text(encoding="utf-8"))
        files = [inside(folder, entry["filename"], parts=1) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LayoutError(f"is no folder that save_to_disk made ({_first_line(error)})", where=path) from error
    return [file for file in files if file is not None]


def _hub_files(source: Source) -> list[str]:
    """The Arrow files that `datasets` makes under the root of a dataset on the hub. Raises LabelmergeError."""
    name, config, revision = (source.layout.get(key) for key in _WHERE)
    if "images" in source.layout:
        raise RecipeError("layout.hub and layout.images exclude each other", where=source.recipe.path)
    if not all(value is None or isinstance(value, str) for value in (name, config, revision)):
        raise RecipeError("layout.hub, config and revision must be names", where=source.recipe.path)
    try:
        import datasets
    except ImportError as error:
        raise LabelmergeError(
            "a dataset from the hub needs the package datasets", where=name, fix="pip install 'labelmerge[hub]'"
        ) from error
    try:
        if not (source.root / str(name).replace("/", "___")).is_dir():  # else it may do without the hub
            ask_hub()
    except Exception as error:  # its client's own, or the transport's
        raise LayoutError(
            f"the hub can't be reached ({_first_line(error)})",
            where=name,
            fix="Without a connection, fetch the dataset's Parquet files elsewhere, and name them as layout.images",
        ) from error
    try:
        found = datasets.load_dataset(
            name, config, split=source.word, revision=revision, cache_dir=os.path.abspath(source.root)
        )
        root = os.path.realpath(source.root)
        files = [os.path.relpath(os.path.realpath(entry["filename"]), root) for entry in found.cache_files]
    except Exception as error:  # whatever the hub, the network and the dataset's own files can do wrong
        raise LayoutError(f"can't be had from the hub ({_first_line(error)})", where=name) from error
    return [file.replace(os.sep, "/") for file in files]


# --- rows -------------------------------------------------------------------------------------------------------------


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
        metadata = self._file.metadata
        largest = max((metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)), default=0)
        if largest > _MAX_ROW_GROUP:
            raise LayoutError(
                f"has a row group of {largest >> 30} GiB, which is read into memory whole",
                where=path,
                fix="Write it anew with smaller row groups, or with save_to_disk",
            )
        self.schema = self._file.schema_arrow
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._first, self._batch = 0, None

    def image_names(self, column: str) -> Iterator[str]:
        """As those of `_Arrow`."""
        if _stores_names(self.schema, column):
            for batch in self._file.iter_batches(columns=[f"{column}.path"]):
                yield from ((entry or {}).get("path") or "" for entry in batch.column(0).to_pylist())
        else:
            yield from repeat("", self._file.metadata.num_rows)

    def row(self, number: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """As that of `_Arrow`; `columns` are the same in every call."""
        if self._batch is None or number < self._first:
            self._batches = self._file.iter_batches(_ROWS_AT_ONCE, columns=list(columns))
            self._first, self._batch = 0, next(self._batches, None)
        while self._batch is not None and number >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows
            self._batch = next(self._batches, None)
        if self._batch is None:
            raise IndexError(f"row {number} is not there")
        return {name: self._batch.column(name)[number - self._first].as_py() for name in columns}


def _stores_names(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(column).type
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 and _is_text(kind.field("path").type)


def _table(path: Path) -> _Arrow | _Parquet:
    """The file at `path`, kept open until another one is asked for."""
    stat = path.stat()
    return _opened(path, (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=1)
def _opened(path: Path, state: tuple[int, int]) -> _Arrow | _Parquet:
    return (_Parquet if path.suffix == ".parquet" else _Arrow)(path)


def _row(source: Source, item: Item) -> dict[str, Any]:
    place, number = item.annotation
    try:
        return _table(source.root / place).row(number, _columns(source).stored)
    except (*_DAMAGED, IndexError) as error:
        raise SampleError(f"can't be read ({_first_line(error)})", where=source.root / item.path) from error


# --- columns ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _columns(source: Source) -> _Columns:
    boxed = source.recipe.annotation_type == "box"
    needed = ("boxes_column", "classes_column") if boxed else ("mask_column",)
    layout, where = source.layout, source.recipe.path
    for key in _COLUMNS:
        if key in layout and not isinstance(layout[key], str):
            raise RecipeError(f"layout.{key} must be the name of a column", where=where)
        if key in layout and key not in ("image_column", *needed):
            raise RecipeError(f"layout.{key} is not for {source.recipe.annotation_type}", where=where)
        if key in needed and key not in layout:
            raise RecipeError(f"layout.{key} is missing", where=where)
    return _Columns(layout.get("image_column", "image"), *(layout.get(key, "") for key in _COLUMNS[1:]))


def _check_columns(schema: pa.Schema, columns: _Columns, path: Path) -> None:
    """Raise LayoutError where a column is missing or of a type that can't be what the recipe says."""
    fits = {"image": _is_picture, "mask": _is_mask, "boxes": _is_boxes, "classes": _is_classes}
    for role, name in columns._asdict().items():
        if not name:
            continue
        kind = _type(schema, name)
        if kind is None or not fits[role](kind):
            problem = f"no column {name!r}" if kind is None else f"a column {name!r} that holds no {role}, but {kind}"
            have = [f"{field.name} ({_short(field.type)})" for field in schema][:_SHOWN]
            raise LayoutError(f"has {problem}; its columns are {', '.join(have) or 'none'}", where=path)


def _type(schema: pa.Schema, name: str) -> pa.DataType | None:
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


def _field(row: Mapping[str, Any], name: str) -> Any:
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


def _is_picture(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_binary(kind)
    at = kind.get_field_index("bytes")
    return at >= 0 and _is_binary(kind.field(at).type)


def _is_mask(kind: pa.DataType) -> bool:
    kind = getattr(kind, "storage_type", kind)  # an array column
    return _is_picture(kind) or (
        _is_list(kind) and _is_list(kind.value_type) and bool(pa.types.is_integer(kind.value_type.value_type))
    )


def _is_boxes(kind: pa.DataType) -> bool:
    return _is_list(kind) and _is_list(kind.value_type) and _is_number(kind.value_type.value_type)


def _is_classes(kind: pa.DataType) -> bool:
    return _is_list(kind) and (bool(pa.types.is_integer(kind.value_type)) or _is_text(kind.value_type))


# --- values -----------------------------------------------------------------------------------------------------------


def _bytes(value: Any, source: Source, item: Item) -> bytes:
    """What an Image or binary column holds; a path is followed inside the root only. Raises SampleError."""
    where = source.root / item.path
    path = None
    if isinstance(value, dict):
        value, path = value.get("bytes"), value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(path, str) or "\0" in path:
        raise SampleError("holds no image", where=where)
    root = os.path.abspath(source.root)
    target = os.path.normpath(os.path.join(root, path))
    if os.path.commonpath([root, target]) != root:
        raise SampleError(f"its image is stored elsewhere, outside the root: {path}", where=where)
    return read_file(Path(target))


def _labels(value: Any, source: Source, item: Item) -> Array:
    """[H, W] stored values of a mask column."""
    where = source.root / item.path
    if not isinstance(value, (list, np.ndarray)):
        return indices(_bytes(value, source, item), where)
    try:
        return whole_numbers(np.array(value), _columns(source).mask, where)
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(f"its mask is no picture of labels ({_first_line(error)})", where=where) from error


def _boxes(boxes: Any, classes: Any, source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    where = source.root / item.path
    boxes, classes = boxes or [], classes or []
    if len(boxes) != len(classes):
        raise SampleError(f"has {len(boxes)} boxes, but {len(classes)} classes", where=where)
    numbers = _classes(source, source.root / item.annotation[0])
    kept: list[Box] = []
    notes: Counter[str] = Counter()
    for box, name in zip(boxes, classes, strict=True):
        index = numbers.get(folded(name) if isinstance(name, str) else name)
        if index is None and not values.ignores_others(source):
            raise SampleError(f"its class {name!r} is unknown to the recipe", where=where)
        if index is None or index == source.space.ignore_index:
            notes["boxes_without_class"] += 1
            continue
        corners = _corners(box, source, where)
        inner = clip(corners, size)
        if inner is None:
            notes["zero_size_boxes"] += 1
        else:
            kept.append(Box(inner, index, (inner[2] - inner[0]) * (inner[3] - inner[1])))
    return Annotation(boxes=tuple(kept), notes=notes)


def _corners(box: Any, source: Source, where: Path) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(edge, (int, float)) for edge in box):
        raise SampleError(f"its box {box!r} is not four numbers", where=where)
    x, y, third, fourth = map(float, box)
    return (x, y, third, fourth) if _box_format(source) == "xyxy" else (x, y, x + third, y + fourth)


def _box_format(source: Source) -> object:
    return source.options.get("box_format", _BOX_FORMATS[0])


@lru_cache(maxsize=1)
def _classes(source: Source, path: Path) -> dict[int | str, int]:
    """Class index, or `ignore_index`, by what the column of classes of a file may hold. Raises LayoutError."""
    ids, space, where = source.ids, source.space, source.recipe.path
    schema, column = _table(path).schema, _columns(source).classes
    kind = _type(schema, column)
    numbered = kind is not None and pa.types.is_integer(kind.value_type)
    names = _class_names(schema, column) if numbered else None
    if numbered and (names is None or "offset" in ids or any(name.isdecimal() for name in ids.get("map", {}))):
        table = values.value_table(source)
        return {int(value): int(table[value]) for value in np.flatnonzero(table >= 0)}
    by_name: dict[int | str, int] = dict(zip(map(folded, space.names), space.indices, strict=True))
    by_name |= {folded(name): class_index(space, target, where) for name, target in ids.get("map", {}).items()}
    by_name |= {folded(str(name)): space.ignore_index for name in ids.get("ignore", [])}
    if names is None:
        return by_name
    found: dict[int | str, int] = {n: by_name[folded(name)] for n, name in enumerate(names) if folded(name) in by_name}
    found |= {number: space.ignore_index for number in ids.get("ignore", []) if isinstance(number, int)}
    unknown = [name for number, name in enumerate(names) if number not in found]
    if unknown and not values.ignores_others(source):
        raise LayoutError(
            f"{len(unknown)} of the {len(names)} classes that its column {column!r} names are none of "
            f"{space.name}'s: {', '.join(map(repr, unknown[:3]))}{', …' if len(unknown) > 3 else ''}",
            where=path,
            fix="ids.map, ids.ignore or ids.other may say what they are",
        )
    return found


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
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


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 30 else f"{text[:29]}…"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
