"""MATLAB files, one for each image, with a label for every pixel: Pascal Context, and SUN RGB-D as it is published.

`options.key` names the array of labels, [H, W]. Their numbers become classes in one of two ways.

- Without `options.names_key`, a number is a class id, as in an index PNG; see `values`.
- With it, a second variable, a cell array of texts, says what the numbers 1, 2, … of this file mean; 0 is "no label".
  A name is looked up among the classes and in `ids.map` (name → class index or name), case, blanks, hyphens and
  underscores aside. What is still unknown is "no label", and counted in the notes by its name.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.pictures import matlab
from labelmerge.sharding.readers.shared import values
from labelmerge.sharding.readers.shared.classes import ByName, class_index, folded
from labelmerge.sharding.source.layout import pair
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks"),
    layout_optional=("list", "list_entry", "exclude", "number_offset"),
    ids=("ignore", "offset", "map", "other"),
    options=("key", "names_key"),
)
label_space = None
image = None

_SEPARATORS = re.compile(r"[\s_-]+")
_MAX_NAME = 40  # characters of a name that the notes show


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List images with their MATLAB file; raises LayoutError or RecipeError."""
    key, names_key = source.options.get("key"), source.options.get("names_key")
    if not isinstance(key, str) or not key:
        raise RecipeError("options.key must name the array of labels", where=source.recipe.path)
    if names_key is None:
        values.value_table(source)
    elif not isinstance(names_key, str) or not names_key:
        raise RecipeError("options.names_key must name the list of labels", where=source.recipe.path)
    elif pointless := [name for name in ("ignore", "offset", "other") if name in source.ids]:
        raise RecipeError(f"ids.{pointless[0]} and options.names_key can't both be given", where=source.recipe.path)
    else:
        _classes(source)
    return pair(source, "masks")


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation,)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Decode one file; raises SampleError."""
    path = source.root / item.annotation
    labels = values.whole_numbers(matlab.load(path, source.options["key"]), source.options["key"], path)
    if "names_key" not in source.options:
        return Annotation(mask=values.class_mask(labels, source, path))
    names = matlab.texts(matlab.load(path, source.options["names_key"]))
    if (largest := int(labels.max())) > len(names):
        raise SampleError(f"label {largest} has no name: {source.options['names_key']!r} has {len(names)}", where=path)
    classes, ignore = _classes(source), source.space.ignore_index
    indices = [ignore, *(ignore if (index := classes.get(name)) is None else index for name in names)]
    unknown: Counter[str] = Counter()
    for number in np.unique(labels).tolist():
        if number and indices[number] == ignore and names[number - 1] not in classes:
            unknown[f"label {_plain(names[number - 1])[:_MAX_NAME]!r} is not a class"] += 1
    return Annotation(mask=np.array(indices, dtype=source.space.dtype)[labels], notes=unknown)


def _plain(name: str) -> str:
    return _SEPARATORS.sub(" ", folded(name))


@lru_cache(maxsize=1)
def _classes(source: Source) -> ByName:
    """Class index by name, as `_plain` leaves it."""
    classes = ByName(source.space, _plain)
    for name, target in source.ids.get("map", {}).items():
        classes.set(name, class_index(source.space, target, source.recipe.path))
    return classes
