"""Supervisely: one JSON for each image in `ann/`, its picture in `img/`, and the project's classes in meta.json.

Polygons with holes, rectangles and bitmaps (a PNG, packed by zlib, in base64, and its origin) cover pixels; lines,
points and others do not, and are counted as `objects_without_area`. Objects are painted in file order, later ones on
top, as Supervisely shows them. `[ids]` and `options`: see `shared.things`.

Whole numbers are pixels: what is downloaded names those that a shape's edges go through, and its own tools fill it
with them (developer.supervisely.com, "Coordinate System"). Where a shape has others, it is drawn as in the labelling
tool, in which the first pixel reaches from 0 to 1.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from labelmerge.errors import SampleError
from labelmerge.sharding.readers.shared import outlines, things
from labelmerge.sharding.readers.shared.bitmaps import base64_bytes, bitmap, inflated
from labelmerge.sharding.readers.shared.boxes import check_size
from labelmerge.sharding.readers.shared.things import Found
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=things.TYPES,
    layout=("images", "annotations"),
    layout_optional=("list", "list_entry", "stems", "exclude", "number_offset"),
    ids=things.IDS,
    options=things.OPTIONS,
    instances=True,
)
files = things.annotation_file
label_space = None
image = None

_WITH_AREA = ("polygon", "rectangle", "bitmap")


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their JSON; raises LayoutError or RecipeError."""
    things.check(source)
    return pair(source, "annotations")


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """One image's objects as masks or boxes; raises SampleError."""
    path = source.root / item.annotation
    content = things.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise SampleError("is not Supervisely's JSON (it lacks objects)", where=path)
    listed = content.get("size")
    if isinstance(listed, dict):
        check_size(source, item, things.listed_size(listed.get("height"), listed.get("width")), size)
    found = Found(item.annotation)
    for number, thing in enumerate(content["objects"], 1):
        with found.one(f"object {number}"):
            kind = thing.get("geometryType") or ("bitmap" if thing.get("bitmap") else "polygon")
            if kind in _WITH_AREA:
                found.add(source, thing["classTitle"], _outline(kind, thing), str(thing.get("id", "")))
            else:
                found.listed -= 1
                found.notes["objects_without_area"] += 1
    return things.annotation(source, found, size, path, largest_first=False)


def _outline(kind: str, thing: dict[str, Any]) -> outlines.Outline:
    """What an object covers. Raises ValueError."""
    if kind == "bitmap":
        (x, y), data = thing["bitmap"]["origin"], base64_bytes(thing["bitmap"]["data"], "bitmap")
        left, top = outlines.number(x, "origin"), outlines.number(y, "origin")
        return outlines.Bitmap(int(left), int(top), bitmap(inflated(data, "bitmap"), "bitmap"))
    exterior = thing["points"]["exterior"]
    if kind == "rectangle":
        first, second = outlines.points_of(exterior, "exterior", least=2)[:2]
        if not _are_pixels(first, second):
            return outlines.rectangle(first, second, "exterior")
        x0, y0, x1, y1 = outlines.around((first, second))
        return outlines.Rectangle((x0, y0, x1 + 1, y1 + 1))  # which holds its last pixel, too
    outer = outlines.points_of(exterior, "exterior")
    holes = tuple(outlines.points_of(hole, "interior") for hole in thing["points"].get("interior") or [])
    are_pixels = _are_pixels(*outer, *(point for hole in holes for point in hole))
    return outlines.PixelPolygon(outer, holes) if are_pixels else outlines.Polygon(outer, holes)


def _are_pixels(*points: outlines.Point) -> bool:
    return all(value.is_integer() for point in points for value in point)
