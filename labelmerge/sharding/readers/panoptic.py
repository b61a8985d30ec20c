"""Panoptic PNG + JSON, the COCO way: a colour picture holds segment ids, the JSON says what each segment is.

id = R + 256 G + 65536 B (cocodataset/panopticapi); 0 and ids that the JSON doesn't list for the image are "no label".
Segments are renumbered 1, 2, … in the order of the JSON, so that they fit 16 bits; crowds keep their class and are
flagged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np

from labelmerge.errors import SampleError
from labelmerge.sharding.images import decode, read_file
from labelmerge.sharding.layout import find, first_place, inside
from labelmerge.sharding.readers.classes import match_categories
from labelmerge.sharding.readers.tables import json_by_id
from labelmerge.sharding.sample import Annotation, Item, Keys, Note, Segment, Skip, Source

KEYS = Keys(types=("mask",), layout=("images", "annotations", "masks"), instances=True)
label_space = None
image = None

_IdsOfSegment = tuple[int, int, int, bool]  # id in the PNG, category id, class index, crowd
_MAX_SEGMENTS = np.iinfo(np.uint16).max


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images of the JSON that are on disk with their PNG; raises LayoutError."""
    images = first_place(source, "images", "folder of images")
    masks = first_place(source, "masks", "folder of panoptic PNGs")
    path = source.root / first_place(source, "annotations", "panoptic JSON")
    classes = match_categories(source, json_by_id(path, "categories", "id", lambda r: str(r["name"])), path)

    def segment(record: dict[str, Any]) -> _IdsOfSegment:
        category = record["category_id"]
        if category not in classes:
            raise ValueError(f"the file lists no category {category!r}")
        return int(record["id"]), int(category), classes[category], bool(record.get("iscrowd", 0))

    def segments(record: dict[str, Any]) -> tuple[str, tuple[_IdsOfSegment, ...]]:
        return str(record["file_name"]), tuple(map(segment, record["segments_info"]))

    annotated = json_by_id(path, "annotations", "image_id", segments)
    on_disk = {match.path for match in find(source.root, f"{images}/*")}
    pngs = {match.path for match in find(source.root, f"{masks}/*.png")}
    records = json_by_id(path, "images", "id", lambda r: (str(r["file_name"]), int(r["height"]), int(r["width"])))
    listed: set[str] = set()
    for number, (name, height, width) in sorted(records.items(), key=lambda record: record[1]):
        image = inside(images, name, parts=1)
        if image is None:
            yield Skip(name, "the name leads out of its folder")
            continue
        png, found = annotated.get(number, ("", ()))
        mask = inside(masks, png, parts=1) if png else None
        if image in listed:
            yield Skip(image, "listed before")
        elif image not in on_disk:
            yield Skip(image, "listed, but there is no such image")
        elif mask is None:
            yield Skip(image, "no annotation in the JSON")
        elif mask not in pngs:
            yield Skip(image, f"no annotation: expected {mask}")
        else:
            pngs.discard(mask)
            yield Item(image, (mask, (height, width), found))
        listed.add(image)
    if extra := len(on_disk - listed):
        yield Note("images_not_listed", extra)
    if pngs:
        yield Note("masks_not_listed", len(pngs))


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Decode one panoptic PNG; raises SampleError."""
    png, listed_size, listed = item.annotation
    path = source.root / png
    if listed_size != size:
        raise SampleError(
            f"the JSON says {listed_size[1]}x{listed_size[0]}, but the image is {size[1]}x{size[0]}",
            where=source.root / item.path,
        )
    if len(listed) > _MAX_SEGMENTS:
        raise SampleError(f"the JSON lists {len(listed)} segments, more than {_MAX_SEGMENTS}", where=path)
    picture = decode(read_file(path), path)
    if picture.mode not in ("RGB", "RGBA"):
        raise SampleError(f"is no RGB panoptic PNG (mode {picture.mode})", where=path)
    rgb = np.asarray(picture)[..., :3].astype(np.uint32)
    stored, places = np.unique(rgb[..., 0] + (rgb[..., 1] << 8) + (rgb[..., 2] << 16), return_inverse=True)
    classes = np.full(len(stored), source.space.ignore_index, dtype=source.space.dtype)
    numbers = np.zeros(len(stored), dtype=np.uint16)
    place_of = {int(value): place for place, value in enumerate(stored)}
    segments: list[Segment] = []
    for value, category_id, index, iscrowd in listed:
        place = place_of.get(value)
        if value and place is not None and numbers[place] == 0:
            segments.append(Segment(len(segments) + 1, index, category_id, iscrowd))
            classes[place], numbers[place] = index, len(segments)
    notes = {
        "segments_without_pixels": len(listed) - len(segments),
        "unlisted_segments": int(np.count_nonzero((numbers == 0) & (stored != 0))),
    }
    return Annotation(
        mask=classes[places].reshape(rgb.shape[:2]),
        instances=numbers[places].reshape(rgb.shape[:2]),
        segments=tuple(segments),
        notes=notes,
    )
