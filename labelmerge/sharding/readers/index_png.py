"""Index PNGs: one single-channel picture for each image, whose values are class ids.

Cityscapes (labelIds), ADE20K SceneParsing-150, BDD100K, Mapillary Vistas (paletted), SUN RGB-D, CamVid, KITTI, VOC, …
and most people's own data. `values` says how a stored value becomes a class index.

A second picture may number the objects: `layout.instances`, with `options.instances` for what its values mean:

- ``class*1000+n``: Cityscapes and IDD, where a value below 1000 is a class alone;
- ``class*256+n``: Mapillary, and KITTI, whose n = 0 is a class alone;
- ``n``: VOC, a number within the image; 0 and 255 are not objects.

A region that has a class alone is a segment of "stuff", or a crowd where its class is among `options.things`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache

from labelmerge.errors import RecipeError
from labelmerge.sharding.pictures.images import Array, read_indices, resize_nearest
from labelmerge.sharding.readers.shared import segments, values
from labelmerge.sharding.readers.shared.classes import class_index
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks"),
    layout_optional=("instances", "list", "list_entry", "stems", "exclude", "number_offset", *values.LAYOUT_KEYS),
    ids=values.IDS_KEYS,
    options=("instances", "things", "resize_masks", *values.OPTIONS_KEYS),
)
label_space = None
image = None

_NO_OBJECT = (0, 255)
# How far the shapes of image and mask may differ, relatively, where the recipe lets masks be resized.
_SHAPE_TOLERANCE = 0.01


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their mask, and with the picture of their objects; raises LayoutError or RecipeError."""
    values.value_table(source)
    if "instances" not in source.layout:
        return pair(source, "masks")
    _things(source)
    return _with_instances(source)


def _with_instances(source: Source) -> Iterator[Item | Skip | Note]:
    instances = {entry.path: entry for entry in pair(source, "instances")}
    for entry in pair(source, "masks"):
        if not isinstance(entry, Item):
            yield entry
            continue
        found = instances.get(entry.path)
        if isinstance(found, Item):
            yield Item(entry.path, (entry.annotation, found.annotation))
        else:
            why = "no annotation" if found is None else found.reason
            yield Skip(entry.path, why.replace("no annotation", "no instances", 1))


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation,) if isinstance(item.annotation, str) else item.annotation
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Decode one mask; raises SampleError."""
    if "instances" not in source.layout:
        path = source.root / item.annotation
        return Annotation(mask=values.class_mask(_picture(source, item.annotation, size), source, path))
    masks, numbered = item.annotation
    mask = values.class_mask(_picture(source, masks, size), source, source.root / masks)
    stored = _picture(source, numbered, size)
    meaning = _MEANINGS[source.options["instances"]]
    return segments.annotation(source, mask, stored, meaning, _things(source), source.root / numbered)


def _picture(source: Source, place: str, size: tuple[int, int]) -> Array:
    raw = read_indices(source.root / place)
    if raw.shape != size and source.options.get("resize_masks"):
        (height, width), (mask_height, mask_width) = size, raw.shape
        if abs(height * mask_width / (width * mask_height) - 1) <= _SHAPE_TOLERANCE:
            raw = resize_nearest(raw, size)
    return raw


def _cityscapes(value: int) -> segments.Meaning:
    return (value, True) if value < 1000 else (value // 1000, False)


def _mapillary(value: int) -> segments.Meaning:
    return value // 256, value % 256 == 0


def _voc(value: int) -> segments.Meaning:
    return None if value in _NO_OBJECT else (None, False)


_MEANINGS = {"class*1000+n": _cityscapes, "class*256+n": _mapillary, "n": _voc}


@lru_cache(maxsize=1)
def _things(source: Source) -> frozenset[int]:
    """The indices of the classes in `options.things`; raises RecipeError."""
    where = source.recipe.path
    coding, things = source.options.get("instances"), source.options.get("things", [])
    if not isinstance(coding, str) or coding not in _MEANINGS:
        known = " or ".join(map(repr, _MEANINGS))
        raise RecipeError(f"options.instances is {coding!r}: beside layout.instances, it must be {known}", where=where)
    if not isinstance(things, list):
        raise RecipeError("options.things must be a list of classes", where=where)
    return frozenset(class_index(source.space, thing, where) for thing in things)
