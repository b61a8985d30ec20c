"""LabelMe: one JSON of shapes for each image, with the image beside it or where its `imagePath` says.

Polygons, rectangles, circles (`[centre, a point of the edge]`), oriented rectangles and masks (a PNG in base64) cover
pixels; points and lines do not, and are counted as `shapes_without_area`. Shapes of one label and one `group_id` are
one object. Objects are painted in file order, later ones on top, as LabelMe's own tools do. `[ids]` and `options`: see
`shared.things`.

`layout.annotations` finds the JSON files; each names its image. Or `layout.images` finds the images, and
`layout.annotations` says which JSON is of each, as for `index_png`.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import Any

from labelmerge.errors import SampleError
from labelmerge.sharding.readers.shared import outlines, things
from labelmerge.sharding.readers.shared.beside import pair_with_named_images
from labelmerge.sharding.readers.shared.bitmaps import base64_bytes, bitmap
from labelmerge.sharding.readers.shared.boxes import check_size
from labelmerge.sharding.readers.shared.things import Found
from labelmerge.sharding.source.layout import find, pair, places
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=things.TYPES,
    layout=("annotations",),
    layout_optional=("images", "list", "list_entry", "stems", "exclude", "number_offset"),
    ids=things.IDS,
    options=things.OPTIONS,
    instances=True,
)
files = things.annotation_file
label_space = None
image = None

_WITHOUT_AREA = ("line", "linestrip", "point", "points")


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their JSON; raises LayoutError or RecipeError."""
    things.check(source)
    if "images" in source.layout:
        return pair(source, "annotations")
    patterns = [base + place for base in source.bases for place in places(source, "annotations")]
    found = {match.path for pattern in patterns for match in find(source.root, pattern)}
    return pair_with_named_images(source, sorted(found), _image_named)


def _image_named(source: Source, place: str) -> str:
    """What one JSON calls its image. Raises SampleError."""
    path = source.root / place
    content = things.read_json(path)
    name = content.get("imagePath") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name or not isinstance(content.get("shapes"), list):
        raise SampleError("is not LabelMe's JSON (it lacks shapes or imagePath)", where=path)
    return name


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """One image's shapes as masks or boxes; raises SampleError."""
    path = source.root / item.annotation
    content = things.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise SampleError("is not LabelMe's JSON (it lacks shapes)", where=path)
    check_size(source, item, things.listed_size(content.get("imageHeight"), content.get("imageWidth")), size)
    found = Found(item.annotation)
    groups: dict[tuple[str, str], list[outlines.Outline]] = {}
    for number, shape in enumerate(content["shapes"], 1):
        with found.one(f"shape {number}"):
            label = shape["label"]
            if not isinstance(label, str):
                raise ValueError("its label is not text")
            if shape.get("shape_type") in _WITHOUT_AREA:
                found.notes["shapes_without_area"] += 1
                continue
            own = shape.get("group_id")
            group = (label, f"group {own}" if own is not None else f"shape {number}")
            outline = _outline(shape)
            groups.setdefault(group, []).append(outline)
    for (label, own), parts in groups.items():
        whole = parts[0] if len(parts) == 1 else outlines.Parts(tuple(parts))
        found.add(source, label, whole, own.partition(" ")[2], parts=len(parts))
    return things.annotation(source, found, size, path, largest_first=False)


def _outline(shape: dict[str, Any]) -> outlines.Outline:
    """What a shape covers. Raises ValueError."""
    kind = shape.get("shape_type") or "polygon"  # which old versions did not say
    if kind in ("rectangle", "circle", "mask"):
        first, second = outlines.points_of(shape["points"], "points", least=2)[:2]
        if kind == "circle":
            radius = math.dist(first, second)
            if not radius:
                raise ValueError("its points have no area")
            return outlines.Ellipse(*first, radius, radius)
        if kind == "mask":
            pixels = bitmap(base64_bytes(shape["mask"], "mask"), "mask")
            return outlines.Bitmap(round(first[0]), round(first[1]), pixels)
        return outlines.rectangle(first, second, "points")
    if kind in ("polygon", "oriented_rectangle"):
        return outlines.Polygon(outlines.points_of(shape["points"], "points"))
    raise ValueError(f"its shape_type is {str(kind)[:20]!r}")
