"""One candidate becomes the members of one sample."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.sharding.images import decode, image_member, png_bytes, read_file, resize_nearest, shrunk
from labelmerge.sharding.plan import Options
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.sample import Annotation, Item, Source


@dataclass
class Tally:
    """What is counted over samples, for the manifest."""

    class_pixels: Counter[int] = field(default_factory=Counter)
    class_boxes: Counter[int] = field(default_factory=Counter)
    ignored_pixels: int = 0
    notes: Counter[str] = field(default_factory=Counter)


def member_names(source: Source, options: Options) -> list[str]:
    """The members that every sample of a split has, sorted."""
    names = [options.image_format, "json"]
    if source.recipe.annotation_type != "box":
        names.append("mask.png")
    if READERS[source.reader].KEYS.instances or "instances" in source.layout:
        names.append("instances.png")
    return sorted(names)


def make_sample(source: Source, item: Item, key: str, options: Options, tally: Tally) -> dict[str, bytes]:
    """The members of one sample, by name, sorted.

    Args:
        source: where the item comes from.
        item: the candidate.
        key: the sample's key.
        options: size and image format.
        tally: gets this sample's counts.

    Raises:
        SampleError: image or annotation is unusable, or they don't fit each other.
    """
    path = source.root / item.path
    reader = READERS[source.reader]
    data = read_file(path) if reader.image is None else reader.image(source, item)
    image = decode(data, path)
    original = (image.height, image.width)
    annotation = reader.read(source, item, original)
    for values, what in ((annotation.mask, "mask"), (annotation.instances, "instances mask")):
        if values is not None and values.shape != original:
            height, width = values.shape
            raise SampleError(
                f"the image is {original[1]}x{original[0]}, but its {what} is {width}x{height}", where=path
            )
    size = shrunk(original, options.short_edge)
    pixels, encoded_anew = image_member(data, image, options.image_format, size, options.quality)
    notes = Counter({what: count for what, count in annotation.notes.items() if count})
    if encoded_anew and size == original:
        notes["reencoded_images"] += 1

    members = {options.image_format: pixels}
    present: set[int] = {box.class_index for box in annotation.boxes}
    if annotation.mask is not None:
        mask = resize_nearest(annotation.mask, size)
        members["mask.png"] = png_bytes(mask)
        counts = np.bincount(mask.ravel(), minlength=source.space.ignore_index + 1)
        tally.ignored_pixels += int(counts[source.space.ignore_index])
        counts[source.space.ignore_index] = 0
        present = set(np.flatnonzero(counts).tolist())
        tally.class_pixels.update({index: int(counts[index]) for index in present})
    areas: npt.NDArray[np.int64] | None = None
    if annotation.instances is not None:
        instances = resize_nearest(annotation.instances, size)
        members["instances.png"] = png_bytes(instances)
        areas = np.bincount(instances.ravel(), minlength=len(annotation.segments) + 1)
    tally.class_boxes.update(box.class_index for box in annotation.boxes)
    tally.notes.update(notes)

    meta = {
        "key": key,
        "dataset": source.recipe.name,
        "split": source.split,
        "annotation_type": source.recipe.annotation_type,
        "label_space": source.space.hash,
        "height": size[0],
        "width": size[1],
        "original_height": original[0],
        "original_width": original[1],
        "source": {"path": item.path, "native_id": item.native_id, "sha256": hashlib.sha256(data).hexdigest()},
        # Lists go in as text: readers that take a field's type from the first samples (Hugging Face's datasets) can't
        # see one in an empty list.
        "present": _text(sorted(present)),
        "boxes": _text(_boxes(annotation, original, size)),
        "segments": _text(_segments(annotation, areas)),
    }
    members["json"] = _text(meta).encode()
    return dict(sorted(members.items()))


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _boxes(annotation: Annotation, original: tuple[int, int], size: tuple[int, int]) -> list[dict[str, Any]]:
    vertical, horizontal = size[0] / original[0], size[1] / original[1]
    return [
        {
            "bbox": [
                box.bbox[0] * horizontal,
                box.bbox[1] * vertical,
                box.bbox[2] * horizontal,
                box.bbox[3] * vertical,
            ],
            "class_index": box.class_index,
            "iscrowd": box.iscrowd,
            "group_of": box.group_of,
            "depiction": box.depiction,
            "reflected": box.reflected,
            "area": box.area * horizontal * vertical,
            "native_id": box.native_id,
        }
        for box in annotation.boxes
    ]


def _segments(annotation: Annotation, areas: npt.NDArray[np.int64] | None) -> list[dict[str, Any]]:
    """The segments that still have pixels: the smallest may vanish in a resize."""
    if areas is None:
        return []
    return [
        {
            "id": segment.id,
            "class_index": segment.class_index,
            "category_id": segment.category_id,
            "iscrowd": segment.iscrowd,
            "area": int(areas[segment.id]),
            "native_id": segment.native_id,
        }
        for segment in annotation.segments
        if areas[segment.id]
    ]
