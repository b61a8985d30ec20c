"""The full ADE20K's `_seg.png`: class and object of every pixel in one colour picture, the same in 2016 and 2021.

class = R // 10 * 256 + G, 0 = none; pixels of one object have one B (CSAILVision/ADE20K, `utils_ade20k.py`). `values`
says how a class number becomes a class index. Parts are in other files (`_parts_1.png`, …), and are not read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np

from labelmerge.sharding.pictures.images import packed_colours, read_file
from labelmerge.sharding.readers.shared import segments, values
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks"),
    layout_optional=("list", "list_entry", "stems", "exclude", "number_offset"),
    ids=values.IDS_KEYS,
    instances=True,
)
label_space = None
image = None


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their `_seg.png`; raises LayoutError or RecipeError."""
    values.value_table(source)
    return pair(source, "masks")


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation,)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Decode one picture; raises SampleError."""
    path = source.root / item.annotation
    stored = packed_colours(read_file(path), path)
    number = (stored >> 16) // 10 << 8 | stored >> 8 & 255
    mask = values.class_mask(number.astype(np.uint16), source, path)
    return segments.annotation(source, mask, number << 8 | stored & 255, _meaning, (), path)


def _meaning(value: int) -> segments.Meaning:
    return value >> 8, False
