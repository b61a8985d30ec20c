"""Pascal VOC's XML, one file of boxes for each image: VOC 2007 to 2012, LabelImg, and what many tools export.

The first pixel of a VOC picture is 1, and a box holds its last pixel too, so that <xmin>1</xmin> <xmax>10</xmax> are
the first ten columns (VOC devkit). `options.first_pixel = 0` is for tools that count from 0 and whose `xmax` is where
the box ends. Parts of an object (<part>, a person's head) are not objects. `options.difficult = "leave out"` leaves out
what is marked as difficult; else they are boxes like others. `[ids]`: see `shared.things`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.readers.shared import things
from labelmerge.sharding.readers.shared.boxes import check_size
from labelmerge.sharding.readers.shared.outlines import Rectangle, number
from labelmerge.sharding.readers.shared.tables import flag
from labelmerge.sharding.readers.shared.things import Found
from labelmerge.sharding.readers.shared.xml import read_xml, text_of
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("box",),
    layout=("images", "annotations"),
    layout_optional=("list", "list_entry", "stems", "exclude", "number_offset"),
    ids=things.IDS,
    options=("first_pixel", "difficult"),
)
files = things.annotation_file
label_space = None
image = None

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_DIFFICULT = ("keep", "leave out")


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their XML; raises LayoutError or RecipeError."""
    things.check(source)
    _first_pixel(source)
    _leaves_out_difficult(source)
    return pair(source, "annotations")


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """One image's boxes; raises SampleError."""
    path = source.root / item.annotation
    root = read_xml(path)
    if root.tag != "annotation":
        raise SampleError(f"is not VOC's XML: its root is <{root.tag[:40]}>, not <annotation>", where=path)
    check_size(source, item, things.listed_size(root.findtext("size/height"), root.findtext("size/width")), size)
    found = Found(item.annotation)
    for place, element in enumerate(root.findall("object"), 1):
        with found.one(f"object {place}"):
            difficult = flag(text_of(element, "difficult"))
            if difficult and _leaves_out_difficult(source):
                found.listed -= 1
            else:
                found.add(source, text_of(element, "name"), _box(element, _first_pixel(source)))
            found.notes["difficult_objects"] += difficult
    return things.annotation(source, found, size, path, largest_first=True)


def _box(element: Element, first: int) -> Rectangle:
    """The box of an object. Raises ValueError."""
    box = element.find("bndbox")
    if box is None:
        raise ValueError("it has no bndbox")
    x0, y0, x1, y1 = (number(text_of(box, edge), edge) for edge in _EDGES)
    if x1 < x0 or y1 < y0:
        raise ValueError("its bndbox ends before it begins")
    return Rectangle((x0 - first, y0 - first, x1, y1))


def _first_pixel(source: Source) -> int:
    first = source.options.get("first_pixel", 1)
    if type(first) is not int or first not in (0, 1):
        raise RecipeError(f"options.first_pixel is {first!r}: it must be 0 or 1", where=source.recipe.path)
    return first


def _leaves_out_difficult(source: Source) -> bool:
    said = source.options.get("difficult", _DIFFICULT[0])
    if said not in _DIFFICULT:
        known = " or ".join(map(repr, _DIFFICULT))
        raise RecipeError(f"options.difficult is {said!r}: it must be {known}", where=source.recipe.path)
    return bool(said == _DIFFICULT[1])
