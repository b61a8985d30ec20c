"""Masks in a COCO instances JSON: COCO itself (`instances_train2017.json`), and people's own data.

Polygons with all their parts, and run-length codes, which can have holes; painting order and what becomes of crowds are
in `instance_masks`. Samples get boxes and an instances mask, too. An object whose mask makes no sense or covers nothing
is left out and counted. Categories are matched to the label space by name (see `classes.match_categories`).

LVIS's images say what is known to be absent in them (`neg_category_ids`) and of what not all is annotated
(`not_exhaustive_category_ids`): each then has the list of the classes that it was annotated for. So has any file whose
images have either.

Option `name_parts`: as for `coco_boxes`. LVIS has no file names, but a `coco_url`; its path is taken: "val2017/x.jpg".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from labelmerge.sharding.readers.shared.classes import match_categories
from labelmerge.sharding.readers.shared.instance_masks import items_of, object_id, packed, painted
from labelmerge.sharding.readers.shared.listed import Images, name_parts, on_disk
from labelmerge.sharding.readers.shared.tables import (
    Faults,
    Groups,
    NameById,
    Record,
    flag,
    loading,
    read_lists,
    reference,
    whole,
)
from labelmerge.sharding.source.layout import find, first_place
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "annotations"),
    ids=("ignore", "map"),
    options=("name_parts",),
    instances=True,
)
label_space = None
image = None
files = None


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images of the JSON that are on disk; raises LayoutError or RecipeError."""
    folder = first_place(source, "images", "folder of images")
    path = source.root / first_place(source, "annotations", "annotations JSON")
    with loading(scratch):
        categories, images, objects = (
            NameById(),
            Images(scratch, folder, name_parts(source)),
            Groups(scratch, "objects"),
        )
        count = 0
        faults = Faults("images", "annotations")
        used_categories: set[int | str] = set()

        def add(record: Record) -> None:
            nonlocal count
            count += 1
            data = packed(record.get("bbox"), record["segmentation"])
            kind = whole(reference(record, "category_id"))
            entry = object_id(record, count), kind, flag(record.get("iscrowd")), data
            used_categories.add(kind)
            objects.add(reference(record, "image_id"), entry, size=300 + len(data))

        read_lists(path, {"categories": categories, "images": images, "annotations": add}, faults)
        objects.close()
        on_disk(scratch, "files", (match.path for match in find(source.root, f"{folder}/**/*")))
        images.close()
        classes = match_categories(source, categories.names, path, used_categories)

    unlabelled = "no annotation in the JSON"
    yield from items_of(source, scratch, classes, path, faults, unlabelled, own_lists=images.own_lists)
    yield from (Note(what, count) for what, count in images.notes.items() if count)


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Paint one image's objects; raises SampleError."""
    return painted(source, item, size)
