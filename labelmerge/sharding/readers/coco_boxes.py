"""Boxes in a COCO instances JSON: Objects365 v1 and v2, COCO itself, and people's own data.

Boxes are [x, y, width, height] in pixels; they are clipped to the image, and dropped and counted where nothing is left
(`zero_size_boxes`) or where they are nowhere near a picture (`absurd_boxes`: not finite, or beyond a million pixels).
Flags of boxes: `iscrowd`, and Objects365's `isfake` and `isreflected`. Categories are matched to the label space by
name (see `classes.match_categories`).

Option `name_parts`: of the JSON's `file_name`, only the last so many parts are the path under `layout.images`
(Objects365 v2 says "images/v1/patch8/x.jpg" where the disk has "patch8/x.jpg"); all parts by default.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from labelmerge.errors import LayoutError
from labelmerge.sharding.readers.shared.boxes import check_size, clipped
from labelmerge.sharding.readers.shared.classes import match_categories
from labelmerge.sharding.readers.shared.listed import (
    Images,
    annotated_in,
    name_parts,
    of_unknown_images,
    on_disk,
    together,
    unlisted,
    with_entries,
)
from labelmerge.sharding.readers.shared.tables import (
    Faults,
    Groups,
    NameById,
    Record,
    flag,
    four_numbers,
    loading,
    native_id,
    read_lists,
    reference,
)
from labelmerge.sharding.source.layout import find, first_place
from labelmerge.sharding.source.source import Annotation, Box, Item, Keys, Note, Skip, Source

KEYS = Keys(types=("box",), layout=("images", "annotations"), ids=("ignore", "map"), options=("name_parts",))
label_space = None
image = None
files = None

_CROWD, _DEPICTION, _REFLECTED = 1, 2, 4
_LOST = (0.0, 0.0, 0.0, 0.0, 0.0, -1, "", "")  # takes the place of a box that can't be read


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images of the JSON that are on disk; raises LayoutError or RecipeError."""
    folder = first_place(source, "images", "folder of images")
    path = source.root / first_place(source, "annotations", "annotations JSON")
    with loading(scratch):
        categories, images, boxes = NameById(), Images(scratch, folder, name_parts(source)), Groups(scratch, "boxes")

        faults = Faults("images", "annotations")
        used_categories: set[int | str] = set()

        def add(record: Record) -> None:
            image = reference(record, "image_id")
            try:
                packed = _packed(record)
            except (KeyError, TypeError, ValueError, OverflowError):
                boxes.add(image, _LOST)  # so that the image is not taken for one without objects
                raise
            used_categories.add(packed[-1])
            boxes.add(image, packed)

        read_lists(path, {"categories": categories, "images": images, "annotations": add}, faults)
        boxes.close()
        on_disk(scratch, "files", (match.path for match in find(source.root, f"{folder}/**/*")))
        images.close()
        classes = match_categories(source, categories.names, path, used_categories)

    used = unknown_categories = ignored = again = 0
    ignore = source.space.ignore_index
    for listed, entries in together(with_entries(scratch, "boxes"), own=-2 % len(_LOST)):
        whole = [entry for entry in entries if entry != _LOST]
        again += len(whole)
        # Two equal boxes without ids may be two things.
        whole = list({entry if entry[-2] else place: entry for place, entry in enumerate(whole)}.values())
        again -= len(whole)
        ignoring = [entry for entry in whole if classes.get(entry[-1]) == ignore]
        known = [entry for entry in whole if classes.get(entry[-1], ignore) != ignore]
        used += len(known) + len(ignoring)
        ignored += len(ignoring)
        unknown_categories += len(whole) - len(known) - len(ignoring)
        if listed.problem is not None:
            yield Skip(listed.path, listed.problem)
        elif len(entries) > len(ignoring) and not known:
            yield Skip(listed.path, "none of its annotations can be used")
        else:
            rows = np.array([(*entry[:6], classes[entry[-1]]) for entry in known]).reshape(-1, 7)
            kinds = {entry[-1] for entry in whole}
            annotated = annotated_in(source, listed, kinds, classes) if images.own_lists else None
            annotation = (listed.size, rows, tuple(entry[-2] for entry in known))
            yield Item(listed.path, annotation, str(listed.id), annotated)
    if not used:
        why = f" ({faults})" if faults.notes() else ""
        raise LayoutError(f"none of its annotations is of an image and a category that it lists{why}", where=path)
    counts = (
        ("images_not_listed", unlisted(scratch)),
        ("boxes_of_unknown_images", of_unknown_images(scratch, "boxes")),
        ("boxes_of_unknown_categories", unknown_categories),
        ("boxes_of_ignored_categories", ignored),
        ("boxes_listed_twice", again),
        *faults.notes().items(),
        *images.notes.items(),
    )
    yield from (Note(what, count) for what, count in counts if count)


def _packed(record: Record) -> tuple[Any, ...]:
    """x, y, width, height, area, flags, the box's own id, category id."""
    x, y, width, height = four_numbers(record, "bbox")
    flags = (
        _CROWD * flag(record.get("iscrowd"))
        | _DEPICTION * flag(record.get("isfake"))
        | _REFLECTED * flag(record.get("isreflected"))
    )
    number = str(native_id(record, "id")) if "id" in record else ""
    try:
        area = float(record["area"])
    except (KeyError, TypeError, ValueError, OverflowError):
        area = width * height
    return x, y, width, height, area, flags, number, reference(record, "category_id")


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Clip one image's boxes; raises SampleError."""
    listed_size, rows, ids = item.annotation
    check_size(source, item, listed_size, size)
    notes: Counter[str] = Counter()
    boxes = []
    for row, number in zip(rows.tolist(), ids, strict=True):
        box = clipped(row[:4], size)
        if isinstance(box, str):
            notes[box] += 1
            continue
        flags, whole = int(row[5]), (box[2] - box[0]) * (box[3] - box[1])
        boxes.append(
            Box(
                box,
                int(row[6]),
                row[4] if 0 < row[4] < whole else whole,
                iscrowd=bool(flags & _CROWD),
                depiction=bool(flags & _DEPICTION),
                reflected=bool(flags & _REFLECTED),
                native_id=number,
            )
        )
    return Annotation(boxes=tuple(boxes), notes=notes)
