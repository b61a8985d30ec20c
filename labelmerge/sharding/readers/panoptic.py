"""Panoptic PNG + JSON, the COCO way: a colour picture holds segment ids, the JSON says what each segment is.

id = R + 256 G + 65536 B (cocodataset/panopticapi); 0 and ids that the JSON doesn't list for the image are "no label".
Segments are renumbered 1, 2, … in the order of the JSON, so that they fit 16 bits; crowds keep their class and are
flagged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from labelmerge.errors import SampleError
from labelmerge.sharding.images import decode, read_file
from labelmerge.sharding.layout import find, first_place, inside
from labelmerge.sharding.readers.classes import match_categories
from labelmerge.sharding.readers.tables import json_records
from labelmerge.sharding.sample import Annotation, Item, Keys, Note, Segment, Skip, Source

KEYS = Keys(types=("mask",), layout=("images", "annotations", "masks"))
label_space = None

_IdsOfSegment = tuple[int, int, int, bool]  # id in the PNG, category id, class index, crowd


def scan(source: Source) -> Iterator[Item | Skip | Note]:
    """List the images of the JSON that are on disk with their PNG; raises LayoutError."""
    images = first_place(source, "images", "folder of images")
    masks = first_place(source, "masks", "folder of panoptic PNGs")
    path = source.root / first_place(source, "annotations", "panoptic JSON")
    categories = dict(json_records(path, "categories", lambda record: (int(record["id"]), str(record["name"]))))
    classes = match_categories(source, categories, path)

    def segments(record: dict[str, Any]) -> tuple[int, str, tuple[_IdsOfSegment, ...]]:
        found = tuple(
            (s["id"], s["category_id"], classes[s["category_id"]], bool(s.get("iscrowd", 0)))
            for s in record["segments_info"]
        )
        return record["image_id"], record["file_name"], found

    annotated = {number: (name, found) for number, name, found in json_records(path, "annotations", segments)}
    on_disk = {match.path for match in find(source.root, f"{images}/*")}
    pngs = {match.path for match in find(source.root, f"{masks}/*.png")}
    records = json_records(path, "images", lambda r: (r["file_name"], r["id"], int(r["height"]), int(r["width"])))
    listed: set[str] = set()
    for name, number, height, width in sorted(records):
        image = inside(images, name, parts=1)
        if image is None:
            yield Skip(name, "the name leads out of its folder")
            continue
        listed.add(image)
        png, found = annotated.get(number, ("", ()))
        mask = inside(masks, png, parts=1) if png else None
        if image not in on_disk:
            yield Skip(image, "listed, but there is no such image")
        elif mask is None:
            yield Skip(image, "no annotation in the JSON")
        elif mask not in pngs:
            yield Skip(image, f"no annotation: expected {mask}")
        else:
            pngs.discard(mask)
            yield Item(image, (mask, (height, width), found))
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
        if place is not None and numbers[place] == 0:
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
