"""A Hugging Face `datasets` dataset, on disk or from the hub, by the names of its columns.

On disk, `layout.images` is what `save_to_disk` made (of one split, or of several: `splits` says which), or Parquet or
Arrow files. On the hub, `layout.hub` is the dataset's name, `layout.config` and `layout.revision` which of it; the
package `datasets` downloads it into the root and makes Arrow files of it. From there on both are the same: Parquet is
read by row groups and Arrow mapped into memory, without that package.

- `layout.image_column` ("image"): an Image or binary column. The stored bytes are the sample's; where only a path is
  stored, it must lie under the root.
- masks: `layout.mask_column`, an Image, binary or array column; see `values` for what the numbers mean, or, where
  `[ids]` name colours ("128 64 128"), `colours`.
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
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.hub import ask_hub
from labelmerge.sharding.pictures.arrow import (
    DAMAGED,
    class_names,
    field_of,
    first_line,
    is_boxes,
    is_classes,
    is_mask,
    is_picture,
    open_table,
    type_of,
)
from labelmerge.sharding.pictures.images import Array, indices, packed_colours, read_file
from labelmerge.sharding.readers.shared import colours, values
from labelmerge.sharding.readers.shared.classes import ByName, class_index
from labelmerge.sharding.source.layout import find, inside, places, see
from labelmerge.sharding.source.source import Annotation, Box, Item, Keys, Note, Skip, Source, clip
from labelmerge.text import some

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
_SHOWN = 12


class _Columns(NamedTuple):
    """The columns that a recipe names; "" for those that its annotation type does not use."""

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
        (colours.table if colours.goes_by_colour(source) else values.value_table)(source)
    if _box_format(source) not in _BOX_FORMATS:
        known = " or ".join(map(repr, _BOX_FORMATS))
        raise RecipeError(f"options.box_format must be {known}", where=source.recipe.path)
    files = _local_files(source) if "hub" not in source.layout else _hub_files(source)
    for place in sorted(files):
        path = source.root / place
        try:
            table = open_table(path)
            _check_columns(table.schema, columns, path)
            if columns.classes:
                _classes(source, path)
            for number, name in enumerate(table.image_names(columns.image)):
                # The stored name says what kind of file the bytes are, as a file's own name does.
                suffix = Path(name).suffix.lower()
                row = f"{place}#{number:08d}{suffix if suffix in _JPEG_SUFFIXES else ''}"
                yield Item(row, (place, number), native_id=os.path.basename(name))
        except DAMAGED as error:
            raise LayoutError(f"can't be read ({first_line(error)})", where=path) from error


def image(source: Source, item: Item) -> bytes:
    """The bytes of one row's image, as stored; raises SampleError."""
    row = _row(source, item)
    return _bytes(field_of(row, _columns(source).image), source, item)


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation[0],)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """The mask or the boxes of one row; raises SampleError."""
    row, columns, where = _row(source, item), _columns(source), source.root / item.path
    if columns.mask:
        stored = field_of(row, columns.mask)
        if colours.goes_by_colour(source):
            return Annotation(mask=colours.class_mask(_colours(stored, source, item), source, where))
        return Annotation(mask=values.class_mask(_labels(stored, source, item), source, where))
    return _boxes(field_of(row, columns.boxes), field_of(row, columns.classes), source, item, size)


# --- where the rows are -----------------------------------------------------------------------------------------------


def _local_files(source: Source) -> list[str]:
    """The Parquet and Arrow files, paths under the root. Raises LayoutError or RecipeError."""
    if "images" not in source.layout:
        raise RecipeError("layout.images or layout.hub must say where the dataset is", where=source.recipe.path)
    if strange := [key for key in _WHERE if key in source.layout]:
        raise RecipeError(f"layout.{strange[0]} and layout.images can't both be given", where=source.recipe.path)
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
                "is not a folder that save_to_disk made", where=path, fix='For Parquet files, add "/*.parquet"'
            )
        state = json.loads((source.root / folder / "state.json").read_text(encoding="utf-8"))
        files = [inside(folder, entry["filename"], parts=1) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LayoutError(f"is not a folder that save_to_disk made ({first_line(error)})", where=path) from error
    return [file for file in files if file is not None]


def _hub_files(source: Source) -> list[str]:
    """The Arrow files that `datasets` makes under the root of a dataset on the hub. Raises LabelmergeError."""
    name, config, revision = (source.layout.get(key) for key in _WHERE)
    if "images" in source.layout:
        raise RecipeError("layout.hub and layout.images can't both be given", where=source.recipe.path)
    if not all(value is None or isinstance(value, str) for value in (name, config, revision)):
        raise RecipeError("layout.hub, config and revision must be names", where=source.recipe.path)
    import datasets

    try:
        if not (source.root / str(name).replace("/", "___")).is_dir():  # else it may do without the hub
            ask_hub()
    except Exception as error:  # its client's own, or the transport's
        raise LayoutError(
            f"the hub can't be reached ({first_line(error)})",
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
        raise LayoutError(f"can't be loaded from the hub ({first_line(error)})", where=name) from error
    return [file.replace(os.sep, "/") for file in files]


def _row(source: Source, item: Item) -> dict[str, Any]:
    place, number = item.annotation
    try:
        return open_table(source.root / place).row(number, _columns(source).stored)
    except (*DAMAGED, IndexError) as error:
        raise SampleError(f"can't be read ({first_line(error)})", where=source.root / item.path) from error


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
            raise RecipeError(f"layout.{key} does not go with {source.recipe.annotation_type} annotations", where=where)
        if key in needed and key not in layout:
            raise RecipeError(f"layout.{key} is missing", where=where)
    return _Columns(layout.get("image_column", "image"), *(layout.get(key, "") for key in _COLUMNS[1:]))


def _check_columns(schema: pa.Schema, columns: _Columns, path: Path) -> None:
    """Raise LayoutError where a column is missing or of a type that can't be what the recipe says."""
    fits = {"image": is_picture, "mask": is_mask, "boxes": is_boxes, "classes": is_classes}
    for role, name in columns._asdict().items():
        if not name:
            continue
        kind = type_of(schema, name)
        if kind is None or not fits[role](kind):
            problem = f"no column {name!r}" if kind is None else f"a column {name!r} that holds no {role}, but {kind}"
            have = [f"{field.name} ({_short(field.type)})" for field in schema][:_SHOWN]
            raise LayoutError(f"has {problem}; its columns are {', '.join(have) or 'none'}", where=path)


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
        return values.whole_numbers(np.array(value), _columns(source).mask, where)
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(f"its mask is not a picture of labels ({first_line(error)})", where=where) from error


def _colours(value: Any, source: Source, item: Item) -> npt.NDArray[np.uint32]:
    """[H, W] packed colours of a mask column: pictures, or arrays [height, width, 3]."""
    where = source.root / item.path
    if not isinstance(value, (list, np.ndarray)):
        return packed_colours(_bytes(value, source, item), where)
    try:
        channels = np.array(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(f"its mask is not a picture of colours ({first_line(error)})", where=where) from error
    if channels.ndim != 3 or channels.shape[2] < 3 or channels.dtype.kind not in "ui" or not channels.size:
        raise SampleError(f"its mask is not a picture of colours, but {list(channels.shape)}", where=where)
    red, green, blue = (channels[:, :, place].astype(np.uint32) for place in range(3))
    packed: npt.NDArray[np.uint32] = red << np.uint32(16) | green << np.uint32(8) | blue
    return packed


def _boxes(boxes: Any, classes: Any, source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    where = source.root / item.path
    boxes, classes = boxes or [], classes or []
    if len(boxes) != len(classes):
        raise SampleError(f"has {len(boxes)} boxes, but {len(classes)} classes", where=where)
    numbers = _classes(source, source.root / item.annotation[0])
    kept: list[Box] = []
    notes: Counter[str] = Counter()
    for box, name in zip(boxes, classes, strict=True):
        index = _class_of(numbers, name)
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


def _class_of(classes: ByName | dict[int, int], said: Any) -> int | None:
    if isinstance(classes, ByName):
        return classes.get(said) if isinstance(said, str) else None
    return None if isinstance(said, str) else classes.get(said)


def _corners(box: Any, source: Source, where: Path) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(edge, (int, float)) for edge in box):
        raise SampleError(f"its box {box!r} is not four numbers", where=where)
    x, y, third, fourth = map(float, box)
    return (x, y, third, fourth) if _box_format(source) == "xyxy" else (x, y, x + third, y + fourth)


def _box_format(source: Source) -> object:
    return source.options.get("box_format", _BOX_FORMATS[0])


@lru_cache(maxsize=1)
def _classes(source: Source, path: Path) -> ByName | dict[int, int]:
    """Class index, or `ignore_index`, by what the column of classes of a file may hold. Raises LayoutError."""
    ids, space, where = source.ids, source.space, source.recipe.path
    schema, column = open_table(path).schema, _columns(source).classes
    kind = type_of(schema, column)
    numbered = kind is not None and pa.types.is_integer(kind.value_type)
    names = class_names(schema, column) if numbered else None
    if numbered and (names is None or "offset" in ids or any(name.isdecimal() for name in ids.get("map", {}))):
        table = values.value_table(source)
        return {int(value): int(table[value]) for value in np.flatnonzero(table >= 0)}
    by_name = ByName(space)
    for name, target in ids.get("map", {}).items():
        by_name.set(name, class_index(space, target, where))
    for name in ids.get("ignore", []):
        by_name.set(str(name), space.ignore_index)
    if names is None:
        return by_name
    found = {n: index for n, name in enumerate(names) if (index := by_name.get(name)) is not None}
    found |= {number: space.ignore_index for number in ids.get("ignore", []) if isinstance(number, int)}
    unknown = [name for number, name in enumerate(names) if number not in found]
    if unknown and not values.ignores_others(source):
        raise LayoutError(
            f"{len(unknown)} of the {len(names)} classes that its column {column!r} names are none of "
            f"{space.name}'s: {some(map(repr, unknown), 3)}",
            where=path,
            fix="ids.map, ids.ignore or ids.other may say what they are",
        )
    return found


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 30 else f"{text[:29]}…"
