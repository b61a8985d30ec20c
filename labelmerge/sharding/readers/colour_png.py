"""Colour pictures as masks: every class is a colour, exactly (the original CamVid).

Keys of `[ids]`, all by colour, written as in CamVid's label_colors.txt, "128 64 128": `map` (colour → class index or
name; several colours may be one class), `ignore` (colours that mean "no label"), and `other`, for any other colour:
``"error"`` (the default: the sample is skipped) or ``"ignore"``. Colours that are nearly right are other colours:
pictures that were resized smoothly or saved as JPEG can't be read back.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.pictures.images import packed_colours
from labelmerge.sharding.readers.shared import values
from labelmerge.sharding.readers.shared.classes import class_index
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source
from labelmerge.shardset.run_lengths import RunLengths, pixel_counts

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks"),
    layout_optional=("list", "list_entry", "stems", "exclude", "number_offset"),
    ids=("ignore", "map", "other"),
)
label_space = None
image = None

_COLOUR = re.compile(r"\s*(\d+)\s+(\d+)\s+(\d+)\s*", re.ASCII)
_SHOWN = 3


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their mask; raises LayoutError or RecipeError."""
    _colours(source)
    return pair(source, "masks")


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation,)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Look up the colour of every pixel; raises SampleError."""
    path = source.root / item.annotation
    stored = packed_colours(path)
    colours, classes = _colours(source)
    runs = RunLengths(stored)
    found = runs.of(stored)
    places = np.minimum(np.searchsorted(colours, found), len(colours) - 1)
    strange = colours[places] != found
    if strange.any() and not values.ignores_others(source):
        unknown, which = np.unique(found[strange], return_inverse=True)
        counts = pixel_counts(which, runs.lengths[strange])
        listed = ", ".join(
            f"{value >> 16} {value >> 8 & 255} {value & 255} ({counts[place]} px)"
            for place, value in enumerate(unknown[:_SHOWN].tolist())
        )
        more = f", … {len(unknown)} in all" if len(unknown) > _SHOWN else ""
        raise SampleError(f"colours unknown to the recipe: {listed}{more}", where=path)
    return Annotation(mask=runs.paint(np.where(strange, source.space.ignore_index, classes[places])))


@lru_cache(maxsize=1)
def _colours(source: Source) -> tuple[npt.NDArray[np.uint32], npt.NDArray[Any]]:
    """The known colours, packed and ascending, and the class index of each. Raises RecipeError."""
    values.ignores_others(source)
    where, space = source.recipe.path, source.space
    targets = source.ids.get("map", {})
    meanings = {_packed(colour, source): class_index(space, target, where) for colour, target in targets.items()}
    meanings |= {_packed(colour, source): space.ignore_index for colour in source.ids.get("ignore", [])}
    if not meanings:
        raise RecipeError("ids.map must name colours", where=where)
    colours = sorted(meanings)
    return np.array(colours, dtype=np.uint32), np.array([meanings[colour] for colour in colours], dtype=space.dtype)


def _packed(colour: object, source: Source) -> int:
    match = _COLOUR.fullmatch(colour) if isinstance(colour, str) else None
    red, green, blue = map(int, match.groups()) if match else (256, 256, 256)
    if max(red, green, blue) > 255:
        raise RecipeError(f'ids: {colour!r} is not a colour such as "128 64 128"', where=source.recipe.path)
    return red << 16 | green << 8 | blue
