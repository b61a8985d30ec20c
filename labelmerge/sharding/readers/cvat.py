"""CVAT's own XML, "CVAT for images 1.1": one file that lists the images of a task or a project, with their shapes.

Polygons, boxes (turned ones too), ellipses and masks cover pixels; polylines, points, cuboids and skeletons do not, and
are counted as `shapes_without_area`. Shapes of one label and one `group_id` are one object. They are painted by their
`z_order`, equal ones in file order, later ones on top. `[ids]` and `options`: see `shared.things`.

`layout.subset` names the subset whose images are read, where a project has several; `options.name_parts` as for
`coco_boxes`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from labelmerge.errors import LayoutError
from labelmerge.sharding.readers.shared import outlines, things
from labelmerge.sharding.readers.shared.bitmaps import row_runs
from labelmerge.sharding.readers.shared.boxes import check_size
from labelmerge.sharding.readers.shared.classes import SKIPPED, label_values, match_categories
from labelmerge.sharding.readers.shared.listed import Images, name_parts, on_disk, together, unlisted, with_entries
from labelmerge.sharding.readers.shared.tables import Faults, Groups, loading, whole
from labelmerge.sharding.readers.shared.things import Found
from labelmerge.sharding.readers.shared.xml import stream_xml
from labelmerge.sharding.source.layout import find, first_place, places
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=things.TYPES,
    layout=("images", "annotations"),
    layout_optional=("subset",),
    ids=things.IDS,
    options=(*things.OPTIONS, "name_parts"),
    instances=True,
)
label_space = None
image = None
files = None

_NUMBERS = {
    "box": ("xtl", "ytl", "xbr", "ybr", "rotation"),
    "ellipse": ("cx", "cy", "rx", "ry", "rotation"),
    "polygon": ("points",),
    "mask": ("rle", "left", "top", "width", "height"),
}
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images of the XML that are on disk; raises LayoutError or RecipeError."""
    things.check(source)
    folder = first_place(source, "images", "folder of images")
    place = first_place(source, "annotations", "annotations XML")
    path = source.root / place
    subsets = places(source, "subset")
    labels: dict[str, str] = {}
    used: set[str] = set()
    faults = Faults("images")
    without_area = others = 0
    with loading(scratch):
        images, shapes = Images(scratch, folder, name_parts(source)), Groups(scratch, "shapes")
        for number, element in enumerate(stream_xml(path, "annotations", "meta", "image", "track")):
            if element.tag == "track":
                raise LayoutError(
                    "holds the tracks of a video, and no images", where=path, fix="Export as 'CVAT for images 1.1'"
                )
            if element.tag == "meta":
                names = (label.findtext("name") for label in element.iter("label"))
                labels |= {name: name for name in names if name}
                continue
            if subsets and element.get("subset") not in subsets:
                others += 1
                continue
            try:
                images({**element.attrib, "file_name": element.attrib["name"], "id": number})
            except (KeyError, ValueError) as error:
                faults.add("images", number, dict(element.attrib), f"has no {error}")
                continue
            for shape in element:
                without_area += shape.tag in _WITHOUT_AREA
                if shape.tag in _NUMBERS:
                    label = shape.get("label", "")
                    used.add(label)
                    entry = _entry(shape)
                    shapes.add(number, entry, size=300 + sum(len(text or "") for text in entry[4:]))
        shapes.close()
        on_disk(scratch, "files", (match.path for match in find(source.root, f"{folder}/**/*")))
        images.close()
    known = {**{label: label for label in sorted(used)}, **labels}
    meant = label_values(source)
    match_categories(source, {name: name for name in known if meant.get(name) != SKIPPED}, path, used)

    count = 0
    for listed, entries in together(with_entries(scratch, "shapes"), own=-1):
        count += 1
        if listed.problem is not None:
            yield Skip(listed.path, listed.problem)
        else:
            yield Item(listed.path, (place, listed.size, tuple(entries)))
    if not count:
        of = f" of the subset {' or '.join(subsets)}" if subsets else ""
        raise LayoutError(f"lists no image{of}", where=path)
    notes = (
        ("images_not_listed", 0 if others else unlisted(scratch)),
        ("shapes_without_area", without_area),
        *faults.notes().items(),
        *images.notes.items(),
    )
    yield from (Note(what, number) for what, number in notes if number)


def _entry(shape: Element) -> tuple[str | None, ...]:
    """Group, kind, label, z-order, and what says where it is."""
    own = shape.get("group_id", "")
    numbers = tuple(shape.get(key) for key in _NUMBERS[shape.tag])
    return own if own not in ("", "0") else "", shape.tag, shape.get("label", ""), shape.get("z_order", "0"), *numbers


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """One image's shapes as masks or boxes; raises SampleError."""
    place, listed, entries = item.annotation
    check_size(source, item, listed, size)
    found = Found(f"{place}, image {item.path.rpartition('/')[2]}")
    groups: dict[tuple[str, str], list[tuple[float, int, outlines.Outline]]] = {}
    for number, (own, kind, label, z_order, *numbers) in enumerate(entries, 1):
        with found.one(f"shape {number}"):
            level = outlines.number(z_order, "z_order")
            group = (label, f"group {own}" if own else f"shape {number}")
            outline = _outline(kind, numbers)
            groups.setdefault(group, []).append((level, number, outline))
    for (label, own), parts in sorted(groups.items(), key=lambda group: min(part[:2] for part in group[1])):
        shapes = tuple(outline for _, _, outline in parts)
        whole = shapes[0] if len(shapes) == 1 else outlines.Parts(shapes)
        found.add(source, label, whole, own.partition(" ")[2], parts=len(shapes))
    return things.annotation(source, found, size, source.root / place, largest_first=False)


def _outline(kind: str, said: list[str | None]) -> outlines.Outline:
    """What a shape covers. Raises ValueError."""
    if kind == "polygon":
        pairs = [pair.split(",") for pair in (said[0] or "").split(";") if pair.strip()]
        return outlines.Polygon(outlines.points_of(pairs, "points"))
    if kind == "mask":
        left, top, width, height = (whole(text) for text in said[1:])
        return outlines.Bitmap(left, top, row_runs(said[0], (height, width), "rle"))
    first, second, third, fourth = (
        outlines.number(text, key) for text, key in zip(said[:4], _NUMBERS[kind], strict=False)
    )
    degrees = outlines.number(said[4] or 0, "rotation")
    if kind == "ellipse":
        if third <= 0 or fourth <= 0:
            raise ValueError("its rx or ry is not above 0")
        return outlines.Ellipse(first, second, third, fourth, degrees)
    upright = outlines.rectangle((first, second), (third, fourth), "box")
    return outlines.turned(upright.corners, degrees)
