"""Colour pictures as masks: every class is a colour, exactly (the original CamVid). `[ids]`: see `shared.colours`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from labelmerge.sharding.pictures.images import packed_colours, read_file
from labelmerge.sharding.readers.shared import colours
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks"),
    layout_optional=("list", "list_entry", "stems", "exclude", "number_offset"),
    ids=colours.IDS,
)
label_space = None
image = None


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their mask; raises LayoutError or RecipeError."""
    colours.table(source)
    return pair(source, "masks")


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation,)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Look up the colour of every pixel; raises SampleError."""
    path = source.root / item.annotation
    return Annotation(mask=colours.class_mask(packed_colours(read_file(path), path), source, path))
