"""Index PNGs: one single-channel picture for each image, whose values are class ids.

Cityscapes (labelIds), ADE20K SceneParsing-150, BDD100K, Mapillary Vistas (paletted), SUN RGB-D, CamVid, KITTI, VOC, …
and most people's own data. The recipe's `[ids]` say how a stored value becomes a class index:

1. a value in `ignore` is "no label";
2. else, with a `map`: what the map says; without: value + `offset` (0), where that is a class;
3. else `other`: ``"error"`` (the sample is skipped) or ``"ignore"``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.images import read_indices, resize_nearest
from labelmerge.sharding.layout import pair
from labelmerge.sharding.readers.classes import class_index
from labelmerge.sharding.sample import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks"),
    layout_optional=("list", "list_entry", "exclude", "number_offset"),
    ids=("ignore", "offset", "map", "other"),
    options=("resize_masks",),
)
label_space = None
image = None

_VALUES = 1 << 16
_UNKNOWN = -1
# How far the shapes of image and mask may differ, relatively, where the recipe lets masks be resized.
_SHAPE_TOLERANCE = 0.01


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their mask; raises LayoutError or RecipeError."""
    _table(source)
    return pair(source, "masks")


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Decode one mask; raises SampleError."""
    path = source.root / item.annotation
    raw = read_indices(path)
    if raw.shape != size and source.options.get("resize_masks"):
        (height, width), (mask_height, mask_width) = size, raw.shape
        if abs(height * mask_width / (width * mask_height) - 1) <= _SHAPE_TOLERANCE:
            raw = resize_nearest(raw, size)
    if raw.dtype.itemsize > 2:
        for value in (raw.min(), raw.max()):
            if not 0 <= value < _VALUES:
                raise SampleError(f"mask value {value} is no 16-bit number", where=path)
    indices = _table(source)[raw]
    if indices.min() == _UNKNOWN:
        values, counts = np.unique(raw[indices == _UNKNOWN], return_counts=True)
        listed = ", ".join(f"{value} ({count} px)" for value, count in zip(values[:5], counts[:5], strict=True))
        raise SampleError(f"mask values unknown to the recipe: {listed}", where=path)
    return Annotation(mask=indices.astype(source.space.dtype))


@lru_cache(maxsize=1)
def _table(source: Source) -> npt.NDArray[np.int32]:
    """[65536] from stored value to class index, `ignore_index` or unknown."""
    ids, space, where = source.ids, source.space, source.recipe.path
    other = ids.get("other", "error")
    if other not in ("error", "ignore"):
        raise RecipeError(f"ids.other is {other!r}: it must be 'error' or 'ignore'", where=where)
    table = np.full(_VALUES, space.ignore_index if other == "ignore" else _UNKNOWN, dtype=np.int32)
    if "map" in ids and "offset" in ids:
        raise RecipeError("ids.map and ids.offset exclude each other", where=where)
    if "map" in ids:
        for value, target in ids["map"].items():
            table[_value(value, source)] = class_index(space, target, where)
    else:
        offset = ids.get("offset", 0)
        if type(offset) is not int:
            raise RecipeError(f"ids.offset is {offset!r}: it must be a whole number", where=where)
        for index in space.indices:
            if 0 <= index - offset < _VALUES:
                table[index - offset] = index
    for value in ids.get("ignore", []):
        table[_value(value, source)] = space.ignore_index
    return table


def _value(value: object, source: Source) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if not 0 <= number < _VALUES:
        raise RecipeError(f"ids: {value!r} is no mask value (0..{_VALUES - 1})", where=source.recipe.path)
    return number
