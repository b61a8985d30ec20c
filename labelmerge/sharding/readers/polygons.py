"""Polygon JSON: one file for each image, objects painted in file order. IDD, and JSON in the style of Cityscapes.

The rule is that of the datasets' own tools (AutoNUE/public-code and cityscapesScripts, `json2labelImg`): start from
"unlabelled"; for every object, skip it if it is deleted or has fewer than three points; if its label is unknown and
ends in "group", try without; if it is still unknown, skip it (and count it); else fill its polygon over what was there.

Keys of `[ids]`, all by label: `ignore` (painted as "no label"), `skip` (not painted at all: Cityscapes' "license
plate"), `map` (label → class index or name). Other labels are the class names themselves.
A label as it is written counts first; else its case and outer blanks do not. Unknown ones are counted by their name.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from labelmerge.errors import SampleError
from labelmerge.sharding.pictures.images import read_file
from labelmerge.sharding.readers.shared.classes import SKIPPED, label_values
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "polygons"),
    layout_optional=("list", "list_entry", "stems", "exclude", "number_offset"),
    ids=("ignore", "skip", "map"),
)
label_space = None
image = None

_MAX_NAME = 40  # characters of a label that the notes show
_MIN_POINTS = 3
_FAR = 1_000_000  # pixels from the image's corner
_MAX_BYTES = 1 << 26  # of a file; that of _MAX_VERTICES and all they are called is a tenth of it
_MAX_VERTICES = 100_000  # of a file; real ones have a tenth at most, and painting a scribble of as many takes 15 s


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their polygon file; raises LayoutError or RecipeError."""
    label_values(source)
    return pair(source, "polygons")


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation,)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Paint one image's polygons; raises SampleError."""
    path = source.root / item.annotation
    values = label_values(source)
    canvas = Image.new("I", (size[1], size[0]), source.space.ignore_index)
    draw = ImageDraw.Draw(canvas)
    notes: Counter[str] = Counter()
    number = 0
    try:
        text = read_file(path)
        if len(text) > _MAX_BYTES:
            raise SampleError(f"has more than {_MAX_BYTES} bytes", where=path)
        data = json.loads(text)
        height, width = int(data["imgHeight"]), int(data["imgWidth"])
        if (height, width) != size:
            raise SampleError(
                f"polygons are for {width!r}x{height!r}, but the image is {size[1]}x{size[0]}", where=path
            )
        vertices = 0
        for thing in data["objects"]:
            number += 1
            label, polygon = thing["label"], thing["polygon"]
            vertices += len(polygon)
            if vertices > _MAX_VERTICES:
                raise SampleError(f"has more than {_MAX_VERTICES} vertices", where=path)
            if thing.get("deleted") or len(polygon) < _MIN_POINTS:
                notes["deleted_or_degenerate_polygons"] += 1
                continue
            value = values.get(label)
            if value is None and label.strip().casefold().endswith("group"):
                value = values.get(label.strip()[: -len("group")])
            if value is None:
                notes["polygons_of_unknown_labels"] += 1
                notes[f"label {label.strip()[:_MAX_NAME]!r} is not a class"] += 1
            elif value != SKIPPED:
                draw.polygon(_vertices(polygon), fill=value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        at = f"; object {number}" if number else ""
        raise SampleError(f"is not polygon JSON ({_say(error)}{at})", where=path) from error
    return Annotation(mask=np.asarray(canvas).astype(source.space.dtype), notes=notes)


def _vertices(polygon: list[Any]) -> list[tuple[float, float]]:
    points = [(float(x), float(y)) for x, y in polygon]
    # Not-a-numbers fail this too. Pillow would take them, and overflow.
    if not all(abs(x) <= _FAR and abs(y) <= _FAR for x, y in points):
        raise ValueError(f"a vertex is not within {_FAR} pixels of the image")
    return points


def _say(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, ValueError | OverflowError) else "a field is of another type"
