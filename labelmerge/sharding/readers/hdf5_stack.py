"""One HDF5 file with all images and all labels of a dataset: NYU Depth v2's `nyu_depth_v2_labeled.mat`.

MATLAB 7.3 writes its arrays with the dimensions the other way round: `options.images_key` is [N, 3, W, H] uint8 and
`options.labels_key` [N, W, H] whole numbers; see `values` for what these mean. `options.depths_key`, where given, is
[N, W, H] depths (`labelmerge.sharding.depths`). A few images are read at a time; they go on as PNGs. Images are
numbered from 1, as MATLAB counts. `layout.list` is a MATLAB file (version 5 to 7) whose variable `{split}` holds the
numbers of the split's images.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.sharding.depths import KEY
from labelmerge.sharding.pictures import matlab
from labelmerge.sharding.pictures.images import Array
from labelmerge.sharding.readers.shared import values
from labelmerge.sharding.source.layout import first_place
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source
from labelmerge.shardset.pixels import png_bytes

if TYPE_CHECKING:
    import h5py

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images",),
    layout_optional=("list",),
    ids=("ignore", "offset", "map", "other"),
    options=("images_key", "labels_key", KEY),
)
label_space = None

_MAX_PIXELS = 1 << 27  # of one image: more than any camera makes
_MAX_BLOCK = 64 << 20  # bytes of images that are unpacked at once


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """Number the images of the split; raises LayoutError or RecipeError."""
    values.value_table(source)
    place = first_place(source, "images", "HDF5 file")
    path = source.root / place
    with matlab.open_hdf5(path, LayoutError) as file:
        images = matlab.dataset(file, _key(source, "images_key"), path, LayoutError)
        labels = matlab.dataset(file, _key(source, "labels_key"), path, LayoutError)
        count, shape = images.shape[0] if images.ndim else 0, images.shape[2:]
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
            raise LayoutError(f"its images are {_say(images)}, not uint8 [N, 3, W, H]", where=path)
        if labels.shape != (count, *shape) or labels.dtype.kind not in "uif":
            raise LayoutError(f"its labels are {_say(labels)}, not {[count, *shape]}, as its images are", where=path)
        if KEY in source.options:
            depths = matlab.dataset(file, _key(source, KEY), path, LayoutError)
            if depths.shape != labels.shape or depths.dtype.kind not in "uif":
                raise LayoutError(f"its depths are {_say(depths)}, not {list(labels.shape)}, as its labels", where=path)
        if shape[0] * shape[1] > _MAX_PIXELS:
            raise LayoutError(f"its images are {shape[0]}x{shape[1]}: too large for photographs", where=path)
        together = _together(images)
    for number in _numbers(source, count):
        name = f"{place}#{number:04d}"
        if 1 <= number <= count:
            yield Item(name, (place, number, together), native_id=str(number))
        else:
            yield Skip(name, f"named in the list of images, but the file has {count}")


def image(source: Source, item: Item) -> bytes:
    """One image as a PNG; raises SampleError."""
    pixels = _entry(source, item, "images_key")  # [3, W, H]
    return png_bytes(Image.fromarray(np.ascontiguousarray(pixels.transpose(2, 1, 0))))


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation[0],)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """The labels of one image; raises SampleError."""
    where, labels = source.root / item.path, _entry(source, item, "labels_key")  # [W, H]
    mask = values.whole_numbers(labels.T, _key(source, "labels_key"), where)
    depth = _entry(source, item, KEY).T if KEY in source.options else None
    return Annotation(mask=values.class_mask(mask, source, where), depth=depth)


def _entry(source: Source, item: Item, option: str) -> Array:
    """What one of the arrays holds for one image."""
    place, number, together = item.annotation
    path = source.root / place
    first = (number - 1) // together * together
    try:
        stat = path.stat()
    except OSError as error:
        raise SampleError(f"can't be read ({error.strerror})", where=path) from error
    block = _block(path, (stat.st_mtime_ns, stat.st_size), _key(source, option), first, first + together)
    if number > first + len(block):
        raise SampleError(f"has no image {number}", where=path)
    entry: Array = block[number - 1 - first]
    return entry


@lru_cache(maxsize=3)  # images, their labels and depths
def _block(path: Path, state: tuple[int, int], key: str, first: int, end: int) -> Array:
    with matlab.open_hdf5(path) as file:
        block: Array = matlab.dataset(file, key, path)[first:end]
    return block


def _together(images: h5py.Dataset) -> int:
    """How many images to read at once: a stored piece may span several, and unpacked once it serves them all."""
    one = images.dtype.itemsize * math.prod(images.shape[1:])
    return min(images.chunks[0], max(1, _MAX_BLOCK // max(1, one))) if images.chunks else 1


def _key(source: Source, option: str) -> str:
    key = source.options.get(option, option.removesuffix("_key"))
    if not isinstance(key, str) or not key:
        raise RecipeError(f"options.{option} must name an array of the file", where=source.recipe.path)
    return key


def _numbers(source: Source, count: int) -> list[int]:
    if "list" not in source.layout:
        return list(range(1, count + 1))
    path = source.root / first_place(source, "list", "list of images")
    numbers = matlab.load(path, source.word, fault=LayoutError)
    if not isinstance(numbers, np.ndarray) or not numbers.size:
        raise LayoutError(f"its {source.word!r} is not a list of numbers", where=path)
    try:
        flat = values.whole_numbers(numbers.reshape(1, -1), source.word, path)
    except SampleError as error:
        raise LayoutError(error.what, where=path) from error
    return [int(number) for number in np.unique(flat)]


def _say(found: object) -> str:
    return f"{getattr(found, 'dtype', '?')} {list(getattr(found, 'shape', ()))}"
