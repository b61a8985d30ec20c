"""From the numbers that a picture stores to class indices: the `[ids]` of a recipe.

1. a value in `ignore` is "no label";
2. else, with a `map`: what the map says; without: value + `offset` (0), where that is a class;
3. else `other`: ``"error"`` (the sample is skipped) or ``"ignore"``.

Two files of a dataset may come first. `layout.class_names` says what each value is called (Mapillary's config JSON, a
codes.txt): `ignore` and `map` then go by name, a class name means itself, and a file that names anything else belongs
to another dataset. `layout.table` gives another number for each value (ScanNet's labels.combined.tsv), to which the
rule is then applied.
"""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge import catalog
from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.sharding.readers.shared.classes import ByName, class_index, folded
from labelmerge.sharding.source.layout import first_place
from labelmerge.sharding.source.source import Source
from labelmerge.shardset.run_lengths import RunLengths, pixel_counts

LAYOUT_KEYS = ("class_names", "table")
IDS_KEYS = ("ignore", "offset", "map", "other")
OPTIONS_KEYS = ("table_columns",)

_VALUES = 1 << 16
_UNKNOWN = -1
_SHOWN = 5


def class_mask(raw: npt.NDArray[Any], source: Source, where: Path) -> npt.NDArray[Any]:
    """[H, W] stored values as class indices in the label space's dtype.

    Raises:
        SampleError: a value does not fit 16 bits, or is unknown to the recipe.
    """
    if raw.dtype.itemsize > 2:
        for value in (raw.min(), raw.max()):
            if not 0 <= value < _VALUES:
                raise SampleError(f"mask value {value} does not fit 16 bits", where=where)
    runs = RunLengths(raw)
    values = runs.of(raw)
    classes = value_table(source)[values]
    if (unknown := classes == _UNKNOWN).any():
        counts = pixel_counts(values[unknown], runs.lengths[unknown])
        listed = ", ".join(f"{value} ({count} px)" for value, count in list(counts.items())[:_SHOWN])
        raise SampleError(
            f"mask values unknown to the recipe: {listed}; name them in `ignore` of [ids] if they mean no label, or "
            f"give them classes in {source.recipe.descriptions.name}",
            where=where,
        )
    return runs.paint(classes.astype(source.space.dtype))


@lru_cache(maxsize=1)
def value_table(source: Source) -> npt.NDArray[np.int32]:
    """[65536] from stored value to class index, `ignore_index` or -1 for unknown.

    Raises:
        RecipeError: the recipe's `[ids]` make no sense.
        LayoutError: a file of names or numbers is missing, damaged, or another dataset's.
    """
    table = _by_name(source) if "class_names" in source.layout else _by_number(source)
    return _through_table(source, table) if "table" in source.layout else table


def ignores_others(source: Source) -> bool:
    """What `ids.other` says. Raises RecipeError."""
    other = source.ids.get("other", "error")
    if other not in ("error", "ignore"):
        raise RecipeError(f"ids.other is {other!r}: it must be 'error' or 'ignore'", where=source.recipe.path)
    return bool(other == "ignore")


def _empty(source: Source) -> npt.NDArray[np.int32]:
    return np.full(_VALUES, source.space.ignore_index if ignores_others(source) else _UNKNOWN, dtype=np.int32)


def _by_number(source: Source) -> npt.NDArray[np.int32]:
    ids, space, where = source.ids, source.space, source.recipe.path
    table = _empty(source)
    if "map" in ids and "offset" in ids:
        raise RecipeError("ids.map and ids.offset can't both be given", where=where)
    if "map" in ids:
        given: dict[int, str] = {}
        for value, target in ids["map"].items():
            number, index = _value(value, source), class_index(space, target, where)
            if given.setdefault(number, value) != value and table[number] != index:
                raise RecipeError(
                    f"ids.map gives two classes to {number} ({given[number]!r} and {value!r})", where=where
                )
            table[number] = index
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
        raise RecipeError(f"ids: {value!r} is not a mask value (0..{_VALUES - 1})", where=source.recipe.path)
    return number


def _by_name(source: Source) -> npt.NDArray[np.int32]:
    ids, space, where = source.ids, source.space, source.recipe.path
    if "offset" in ids:
        raise RecipeError("ids.offset and layout.class_names can't both be given", where=where)
    meanings = ByName(space)
    for name, target in ids.get("map", {}).items():
        meanings.set(name, class_index(space, target, where))
    for name in ids.get("ignore", []):
        if not isinstance(name, str):
            raise RecipeError(f"ids: {name!r} is not a name, which layout.class_names asks for", where=where)
        meanings.set(name, space.ignore_index)
    path = source.root / first_place(source, "class_names", "list of class names")
    table, listed, unknown = _empty(source), _names(path), []
    for value, names in enumerate(listed):
        known = [index for name in names if (index := meanings.get(name)) is not None]
        if known:
            table[value] = known[0]
        elif not ignores_others(source):
            unknown.append(names[0])
    if unknown:
        fitting = _fitting_recipe([names[0] for names in listed])
        raise LayoutError(
            f"lists {len(listed)} classes, {len(unknown)} of which {space.name} does not have: "
            f"{', '.join(map(repr, unknown[:3]))}{', …' if len(unknown) > 3 else ''}",
            where=path,
            fix=f"This is {fitting}: use that name" if fitting else f"Compare with {source.recipe.descriptions.name}",
        )
    return table


def _names(path: Path) -> list[tuple[str, ...]]:
    """What each value is called, from 0 on: one name a line, or the `labels` of a JSON, each by all its names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            labels = json.loads(text)["labels"]
            names = [tuple(str(label[key]) for key in ("readable", "name") if key in label) for label in labels]
        else:
            names = [(line.strip(),) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LayoutError("is not a list of class names", where=path) from error
    if not names or not all(names) or len(names) > _VALUES:
        raise LayoutError("is not a list of class names", where=path)
    return names


def _fitting_recipe(listed: list[str]) -> str | None:
    """The shipped dataset whose classes these are, all of them, perhaps with words for "no label" among them."""
    names = set(map(folded, listed))
    for dataset in catalog.dataset_names():
        recipe = catalog.load_recipe(dataset)
        classes = set(map(folded, catalog.load_label_space(recipe).names))
        if classes <= names <= classes | {folded(str(word)) for word in recipe.ids.get("ignore", [])}:
            return dataset
    return None


def _through_table(source: Source, by_number: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The rule, applied to the numbers that `layout.table` gives for values; 0 need not be listed."""
    columns = source.options.get("table_columns")
    if not (isinstance(columns, list) and len(columns) == 2 and all(isinstance(name, str) for name in columns)):
        raise RecipeError("options.table_columns must name two columns of layout.table", where=source.recipe.path)
    path = source.root / first_place(source, "table", f"table of {columns[0]} and {columns[1]}")
    table = _empty(source)
    table[0] = by_number[0]
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                value, number = (int(row[column]) for column in columns)
                if not (0 <= value < _VALUES and 0 <= number < _VALUES):
                    raise ValueError(f"{value} or {number} does not fit 16 bits")
                table[value] = by_number[number]
    except OSError as error:
        raise LayoutError(f"can't be read ({error.strerror})", where=path) from error
    except KeyError as error:
        raise LayoutError(f"has no column {error}", where=path) from error
    except (ValueError, TypeError, csv.Error) as error:
        raise LayoutError(f"is not a table of numbers ({error})", where=path) from error
    return table


def whole_numbers(labels: object, name: str, where: Path) -> npt.NDArray[np.uint16]:
    """An array of labels as [H, W] uint16; MATLAB may keep whole numbers as floats. Raises SampleError."""
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or not labels.size or labels.dtype.kind not in "uif":
        kind = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise SampleError(f"{name!r} is not a picture of labels, [height, width], but {kind}", where=where)
    if not (labels.min() >= 0 and labels.max() < _VALUES):  # not-a-numbers fail this too
        raise SampleError(f"{name!r} holds labels that do not fit 16 bits", where=where)
    numbers: npt.NDArray[np.uint16] = labels.astype(np.uint16)
    if labels.dtype.kind == "f" and (numbers != labels).any():
        raise SampleError(f"{name!r} holds labels that are not whole numbers", where=where)
    return numbers
