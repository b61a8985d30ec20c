"""Masks of objects through videos: YouTube-VIS's instances.json. Every frame becomes a sample.

`videos`: {id, width, height, file_names: one for each frame}; `annotations`: one object through one video, {video_id,
category_id, segmentations: for each frame a run-length code, polygons, or null where the object isn't seen, bboxes}.
Painting order and what becomes of crowds are in `instance_masks`. A frame without any object is skipped. Categories are
matched to the label space by name (see `classes.match_categories`).

Option `every`: only the first of so many frames of each video; frames are alike.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from labelmerge.errors import RecipeError
from labelmerge.sharding.readers.shared.classes import match_categories
from labelmerge.sharding.readers.shared.instance_masks import items_of, object_id, packed, painted
from labelmerge.sharding.readers.shared.listed import Images, on_disk
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
    options=("every",),
    instances=True,
)
label_space = None
image = None
files = None


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the frames of the JSON that are on disk; raises LayoutError or RecipeError."""
    every = source.options.get("every", 1)
    if type(every) is not int or every < 1:
        raise RecipeError(f"options.every is {every!r}: it must be 1 or more", where=source.recipe.path)
    folder = first_place(source, "images", "folder of videos")
    path = source.root / first_place(source, "annotations", "annotations JSON")
    with loading(scratch):
        categories, frames, objects = NameById(), Images(scratch, folder, None), Groups(scratch, "objects")
        videos: set[int | str] = set()
        count = 0
        faults = Faults("annotations")
        used_categories: set[int | str] = set()

        def add_video(record: Record) -> None:
            video = reference(record, "id")
            if video in videos:
                raise ValueError(f"its id {video!r} is not unique")
            videos.add(video)
            for frame, name in list(enumerate(record["file_names"]))[::every]:
                frames({**record, "id": f"{video}/{frame}", "file_name": name})

        def add_object(record: Record) -> None:
            nonlocal count
            count += 1
            masks = record["segmentations"]
            boxes = record.get("bboxes") or [None] * len(masks)
            if len(boxes) != len(masks):
                raise ValueError(f"it has {len(masks)} segmentations, but {len(boxes)} bboxes")
            own, kind, crowd = (
                object_id(record, count),
                whole(reference(record, "category_id")),
                flag(record.get("iscrowd")),
            )
            used_categories.add(kind)
            for frame, (mask, box) in list(enumerate(zip(masks, boxes, strict=True)))[::every]:
                if mask is not None:
                    data = packed(box, mask)
                    key = f"{reference(record, 'video_id')}/{frame}"
                    objects.add(key, (own, kind, crowd, data), size=300 + len(data))

        read_lists(path, {"categories": categories, "videos": add_video, "annotations": add_object}, faults)
        objects.close()
        on_disk(scratch, "files", (match.path for match in find(source.root, f"{folder}/**/*")))
        frames.close()
        classes = match_categories(source, categories.names, path, used_categories)

    yield from items_of(source, scratch, classes, path, faults, skipped="no object in this frame")


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Paint one frame's objects; raises SampleError."""
    return painted(source, item, size)
