"""One item becomes the members of one sample."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.sharding.depths import KEY, LAYOUT, TOO_FAR, Meaning, depth_map, has_depth, read_depth
from labelmerge.sharding.pictures.images import (
    image_member,
    is_stack,
    load,
    open_image,
    passes_through,
    read_file,
    resize_nearest,
    shrunk,
    to_rgb,
)
from labelmerge.sharding.pictures.orientation import AS_STORED, as_stored, orientation_of, turned
from labelmerge.sharding.plan import Options
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.source import UPRIGHT, Annotation, Item, Source
from labelmerge.shardset.depth_maps import DEPTH, DepthMap
from labelmerge.shardset.manifest import CROWD_BOXES, OWN_LISTS
from labelmerge.shardset.meta import meta_bytes
from labelmerge.shardset.pixels import png_bytes
from labelmerge.shardset.run_lengths import histogram

_SOURCE_DIGITS = 32
_DRAWN = "the masks were drawn on the picture as viewers turn it"


@dataclass
class Sizes:
    """How large the images are: all their pixels together, and the extremes of [height, width], one by one."""

    pixels: int = 0
    least: tuple[int, int] | None = None
    most: tuple[int, int] = (0, 0)

    def add(self, other: Sizes) -> None:
        """Take in the images of `other`."""
        if other.least is not None:
            least = other.least if self.least is None else self.least
            self.least = min(least[0], other.least[0]), min(least[1], other.least[1])
            self.most = max(self.most[0], other.most[0]), max(self.most[1], other.most[1])
            self.pixels += other.pixels

    def to_json(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "min": list(self.least or (0, 0)), "max": list(self.most)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Sizes:
        height, width = data["min"]
        return cls(data["pixels"], (height, width) if data["pixels"] else None, (data["max"][0], data["max"][1]))


@dataclass
class Tally:
    """What is counted over samples, for the manifest."""

    class_pixels: Counter[int] = field(default_factory=Counter)
    class_boxes: Counter[int] = field(default_factory=Counter)
    ignored_pixels: int = 0
    depth_pixels: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    sizes: Sizes = field(default_factory=Sizes)
    sources: list[str] = field(default_factory=list)


@dataclass
class MadeSample:
    """One sample: its key, its members by name, and, where a teacher wants them, its boxes cut out of the image."""

    key: str
    members: dict[str, bytes]
    cutouts: list[Image.Image]


def member_names(source: Source, options: Options) -> list[str]:
    """The members that every sample of a split has, sorted."""
    names = [options.image_format, "json"]
    if source.recipe.annotation_type in ("mask", "noisy_mask"):
        names.append("mask.png")
        if options.instances and (READERS[source.reader].KEYS.instances or "instances" in source.layout):
            names.append("instances.png")
    if has_depth(source):
        names.append(DEPTH)
    if options.box_teacher is not None:
        names.append("box_embeddings.npy")
    return sorted(names)


def make_sample(source: Source, item: Item, key: str, options: Options, tally: Tally) -> MadeSample:
    """Read one item, and make a sample of it.

    Args:
        source: where the item comes from.
        item: which.
        key: the sample's key.
        options: size and image format.
        tally: gets this sample's counts.

    Raises:
        SampleError: image or annotation is unusable, or they don't fit each other.
    """
    path = source.root / item.path
    reader = READERS[source.reader]
    data = read_file(path) if reader.image is None else reader.image(source, item)
    image = open_image(data, path)
    several = is_stack(image, data)
    orientation = orientation_of(data, image)
    upright = bool(source.options.get(UPRIGHT)) and orientation != AS_STORED
    shown = image
    if upright:
        load(image, path)
        shown = turned(image, orientation)
    original = (shown.height, shown.width)
    try:
        annotation = reader.read(source, item, original)
        depth, too_far = _depth(source, item, annotation, path)
        _refuse_sizes(annotation, depth, original, path)
    except SampleError as error:
        if orientation == AS_STORED or upright:
            raise
        hint = f"{error.what} (the picture has orientation tag {orientation}: options.upright = true, if {_DRAWN})"
        raise SampleError(hint, where=error.where) from error
    if source.class_map is not None:
        annotation = source.class_map.apply(annotation, source.space)
    size = shrunk(original, options.short_edge)
    plain = data if orientation == AS_STORED else as_stored(data, image)
    if upright:
        image = shown  # no file's any more, so that it does not pass through
    elif options.box_teacher is not None or not passes_through(image, plain, options.image_format, size):
        load(image, path)
    try:
        pixels, encoded_anew = image_member(plain, image, options.image_format, size, options.quality)
    except SampleError as error:
        raise SampleError(error.what, where=path) from error
    notes = Counter({what: count for what, count in annotation.notes.items() if count})
    if too_far:
        notes[TOO_FAR] += too_far
    if annotation.mask is None and (crowds := sum(box.iscrowd or box.group_of for box in annotation.boxes)):
        notes[CROWD_BOXES] += crowds
    if orientation != AS_STORED:
        notes["images_turned_upright" if upright else "images_with_orientation_tag"] += 1
    if several:
        notes["images_of_several_pages_of_which_the_first_counts"] += 1
    if encoded_anew and size == original:
        notes["reencoded_images"] += 1

    members = {options.image_format: pixels}
    present: set[int] = {box.class_index for box in annotation.boxes}
    if annotation.mask is not None:
        mask = resize_nearest(annotation.mask, size)
        members["mask.png"] = png_bytes(mask)
        counts = histogram(mask)
        tally.ignored_pixels += counts.pop(source.shard_space.ignore_index, 0)
        present = set(counts)
        tally.class_pixels.update(counts)
    areas: dict[int, int] = {}
    if annotation.instances is not None and options.instances:
        instances = resize_nearest(annotation.instances, size)
        members["instances.png"] = png_bytes(instances)
        areas = histogram(instances)
    if depth is not None:
        depth = resize_nearest(depth, size)
        members[DEPTH] = png_bytes(depth)
        tally.depth_pixels += int(np.count_nonzero(depth))
    tally.class_boxes.update(box.class_index for box in annotation.boxes)
    tally.notes.update(notes)

    meta: dict[str, Any] = {
        "key": key,
        "dataset": source.recipe.name,
        "split": source.split,
        "annotation_type": source.recipe.annotation_type,
        "label_space": source.shard_space.hash,
        "height": size[0],
        "width": size[1],
        "original_height": original[0],
        "original_width": original[1],
        "source": {"path": item.path, "native_id": item.native_id, "sha256": hashlib.sha256(data).hexdigest()},
        "present": sorted(present),
        "boxes": _boxes(annotation, original, size),
        "segments": _segments(annotation, areas),
    }
    if item.annotated is not None:
        group_of = source.class_map.group_of if source.class_map is not None else None
        meta["annotated"] = sorted({index if group_of is None else group_of[index] for index in item.annotated})
        tally.notes[OWN_LISTS] += 1
    members["json"] = meta_bytes(meta)
    tally.sizes.add(Sizes(size[0] * size[1], size, size))
    tally.sources.append(meta["source"]["sha256"][:_SOURCE_DIGITS])
    return MadeSample(key, members, [] if options.box_teacher is None else _cut_out(image, annotation))


def _depth(source: Source, item: Item, annotation: Annotation, path: Path) -> tuple[DepthMap | None, int]:
    """An image's depths, and how many were too far to be stored. Raises SampleError."""
    if LAYOUT in source.layout:
        return read_depth(source, item.path)
    if KEY not in source.options:
        return None, 0
    if annotation.depth is None:
        raise SampleError("no depth", where=path)
    return depth_map(annotation.depth, Meaning.of(source), path)


def _refuse_sizes(annotation: Annotation, depth: DepthMap | None, original: tuple[int, int], path: Path) -> None:
    for values, what in (
        (annotation.mask, "mask"),
        (annotation.instances, "instances mask"),
        (depth, "picture of depths"),
    ):
        if values is not None and values.shape != original:
            height, width = values.shape
            raise SampleError(
                f"the image is {original[1]}x{original[0]}, but its {what} is {width}x{height}", where=path
            )


def _cut_out(image: Image.Image, annotation: Annotation) -> list[Image.Image]:
    """The boxes of the image as it was, widened to whole pixels."""
    rgb = to_rgb(image) if annotation.boxes else image
    corners = (box.bbox for box in annotation.boxes)
    return [rgb.crop((math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))) for x0, y0, x1, y1 in corners]


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


def _segments(annotation: Annotation, areas: dict[int, int]) -> list[dict[str, Any]]:
    """The segments that still have pixels: the smallest may vanish in a resize."""
    return [
        {
            "id": segment.id,
            "class_index": segment.class_index,
            "category_id": segment.category_id,
            "iscrowd": segment.iscrowd,
            "area": areas[segment.id],
            "native_id": segment.native_id,
        }
        for segment in annotation.segments
        if segment.id in areas
    ]
