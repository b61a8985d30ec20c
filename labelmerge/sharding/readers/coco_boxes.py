"""Boxes in a COCO instances JSON: Objects365 v1 and v2, COCO itself, and people's own data.

Boxes are [x, y, width, height] in pixels; they are clipped to the image, and dropped and counted where nothing is left.
Crowd boxes are flagged. Categories are matched to the label space by name (see `classes.match_categories`).

Option `name_parts`: of the JSON's `file_name`, only the last so many parts are the path under `layout.images`
(Objects365 v2 says "images/v1/patch8/x.jpg" where the disk has "patch8/x.jpg"); all parts by default.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.sharding.layout import find, first_place, inside
from labelmerge.sharding.readers.classes import match_categories
from labelmerge.sharding.readers.tables import json_by_id, json_records
from labelmerge.sharding.sample import Annotation, Box, Item, Keys, Note, Skip, Source, clip

KEYS = Keys(types=("box",), layout=("images", "annotations"), options=("name_parts",))
label_space = None
image = None

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_COLUMNS = 7  # x, y, width, height, area, class index, crowd


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images of the JSON that are on disk; raises LayoutError or RecipeError.

    The 25 million boxes of Objects365 take 1.6 GB, and 2 GB while they are put in order: they are kept as numbers, not
    as objects.
    """
    parts = source.options.get("name_parts")
    if parts is not None and (type(parts) is not int or parts < 1):
        raise RecipeError(f"options.name_parts is {parts!r}: it must be 1 or more", where=source.recipe.path)
    folder = first_place(source, "images", "folder of images")
    path = source.root / first_place(source, "annotations", "annotations JSON")
    classes = match_categories(source, json_by_id(path, "categories", "id", lambda r: str(r["name"])), path)
    listed = json_by_id(path, "images", "id", lambda r: (str(r["file_name"]), int(r["height"]), int(r["width"])))
    row_of = {number: row for row, number in enumerate(sorted(listed, key=listed.__getitem__))}

    rows, values = array("q"), array("d")
    unknown_images = unknown_categories = 0

    def box(record: dict[str, Any]) -> tuple[int | None, int | None, tuple[float, ...]]:
        x, y, width, height = map(float, record["bbox"])
        area = record.get("area")
        numbers = (x, y, width, height, width * height if area is None else float(area))
        crowd = float(bool(record.get("iscrowd", 0)))
        return row_of.get(record["image_id"]), classes.get(record["category_id"]), (*numbers, crowd)

    for row, index, (*numbers, crowd) in json_records(path, "annotations", box):
        if row is None:
            unknown_images += 1
        elif index is None:
            unknown_categories += 1
        else:
            rows.append(row)
            values.extend((*numbers, index, crowd))

    if not rows:
        raise LayoutError("none of its annotations is of an image and a category that it lists", where=path)
    row_of_box, boxes = np.frombuffer(rows, np.int64), np.frombuffer(values).reshape(-1, _COLUMNS)
    order = np.argsort(row_of_box, kind="stable")
    for column in boxes.T:  # one after the other: there never is a second copy of them all
        column[:] = column[order]
    ends = np.bincount(row_of_box, minlength=len(row_of)).cumsum()
    on_disk = {m.path for m in find(source.root, f"{folder}/**/*") if m.path.lower().endswith(_IMAGE_SUFFIXES)}
    found: dict[str, Item | Skip] = {}
    again: list[Skip] = []
    start = 0
    for number, row in row_of.items():
        name, height, width = listed[number]
        end = int(ends[row])
        image = inside(folder, name, parts)
        if image is None:
            found[name] = Skip(name, "the name leads out of its folder")
        elif image in found:
            again.append(Skip(image, "listed before"))
        elif image not in on_disk:
            found[image] = Skip(image, "listed, but there is no such image")
        else:
            found[image] = Item(image, ((height, width), boxes[start:end]))
        start = end
    yield from sorted((*found.values(), *again), key=lambda entry: entry.path)
    counts = (
        ("images_not_listed", len(on_disk - found.keys())),
        ("boxes_of_unknown_images", unknown_images),
        ("boxes_of_unknown_categories", unknown_categories),
    )
    yield from (Note(what, count) for what, count in counts if count)


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Clip one image's boxes; raises SampleError."""
    listed_size, rows = item.annotation
    if listed_size != size:
        raise SampleError(
            f"the JSON says {listed_size[1]}x{listed_size[0]}, but the image is {size[1]}x{size[0]}",
            where=source.root / item.path,
        )
    boxes = [box for row in rows.tolist() if (box := clipped(row, size)) is not None]
    return Annotation(boxes=tuple(boxes), notes={"zero_size_boxes": len(rows) - len(boxes)})


def clipped(row: list[float], size: tuple[int, int]) -> Box | None:
    """A box inside an image of (height, width), or None where nothing is left of it."""
    x, y, width, height, area, index, crowd = row
    corners = clip((x, y, x + width, y + height), size)
    if corners is None:
        return None
    whole = (corners[2] - corners[0]) * (corners[3] - corners[1])
    return Box(corners, int(index), area if 0 < area < whole else whole, iscrowd=bool(crowd))
