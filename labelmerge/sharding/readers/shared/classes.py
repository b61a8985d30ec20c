"""From what a file calls a class to its index in the label space."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from labelmerge import catalog
from labelmerge.errors import LayoutError, RecipeError, did_you_mean
from labelmerge.labels import LabelSpace
from labelmerge.names import composed
from labelmerge.sharding.source.source import Source
from labelmerge.text import counted, some


def class_index(space: LabelSpace, target: object, where: Path) -> int:
    """The index that a recipe means, by index or by name. Raises RecipeError."""
    if isinstance(target, str):
        if target in space.names:
            return space.indices[space.names.index(target)]
        raise RecipeError(
            f"ids: {space.name} has no class {target!r}", where=where, fix=did_you_mean(target, space.names)
        )
    if type(target) is int and target in space:
        return target
    raise RecipeError(f"ids: {space.name} has no class index {target!r}", where=where)


def folded(name: str) -> str:
    """A class name as two spellings of it are compared: without case and outer blanks, accents as parts of letters."""
    return composed(name).strip().casefold()


class ByName:
    """Class indices by name: a name as it is written first, then as `fold` leaves it, if only one class is called so.

    Args:
        space: the classes.
        fold: how two spellings of a name are compared.
    """

    def __init__(self, space: LabelSpace, fold: Callable[[str], str] = folded) -> None:
        self._fold = fold
        self._exact: dict[str, int] = {}
        self._folded: dict[str, set[int]] = {}
        for name, index in zip(reversed(space.names), reversed(space.indices), strict=True):
            self._exact[name] = index
            self._folded.setdefault(fold(name), set()).add(index)

    def set(self, name: str, index: int) -> None:
        """Let a name mean this, whatever it meant; another spelling too, unless a class is called just so."""
        self._exact[name] = index
        self._folded[self._fold(name)] = {index}

    def get(self, name: str) -> int | None:
        """The index that a file's name of a class means; None where there is none, or two classes may be meant."""
        if name in self._exact:
            return self._exact[name]
        found = self._folded.get(self._fold(name), set())
        return next(iter(found)) if len(found) == 1 else None

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


SKIPPED = -1
"""What `label_values` gives for labels that are left out."""


@lru_cache(maxsize=1)
def label_values(source: Source) -> ByName:
    """What each label means, by `[ids]`: a class index, `ignore_index`, or SKIPPED. Raises RecipeError."""
    values = ByName(source.space)
    mapping: dict[str, Any] = source.ids.get("map", {})
    for label, target in mapping.items():
        values.set(label, class_index(source.space, target, source.recipe.path))
    for key, meaning in (("skip", SKIPPED), ("ignore", source.space.ignore_index)):
        for label in source.ids.get(key, []):
            if not isinstance(label, str):
                raise RecipeError(f"ids: {label!r} is not a label", where=source.recipe.path)
            if key == "ignore" or label not in (*source.space.names, *mapping):
                values.set(label, meaning)
    return values


def match_categories(
    source: Source, categories: Mapping[Any, str], where: Path, used: Container[Any]
) -> dict[Any, int]:
    """Class index by category id, for annotation files that carry their own list of categories.

    Categories are matched by name, for their ids have holes and their order in the file means nothing. A file may list
    fewer categories than the label space has, never others, except those that no annotation is of (exporters' root
    categories), and those that the recipe names: in `ids.map` with their class, in `ids.ignore` as "no label", which
    becomes `ignore_index`.

    Args:
        source: whose label space.
        categories: name by id.
        where: the annotation file.
        used: the ids of categories that annotations are of.

    Returns:
        without the categories that are not classes.

    Raises:
        LayoutError: the file is of another dataset; names the recipe that fits, if one does.
        RecipeError: `ids.map` names a class that does not exist.
    """
    index_of = ByName(source.space)
    for name, target in source.ids.get("map", {}).items():
        index_of.set(name, class_index(source.space, target, source.recipe.path))
    for name in source.ids.get("ignore", []):
        index_of.set(str(name), source.space.ignore_index)
    found = {number: index_of.get(name) for number, name in categories.items()}
    unknown = [name for number, name in categories.items() if found[number] is None]
    fitting = _fitting_recipe(source, categories) if unknown else None
    if unknown and fitting is None and len(unknown) < len(categories):
        unknown = [name for number, name in categories.items() if found[number] is None and number in used]
    if unknown:
        alike = [name for name in unknown if sum(folded(name) == folded(other) for other in source.space.names) > 1]
        if alike:
            raise LayoutError(
                f"its category {alike[0]!r} may be several classes of {source.space.name}, whose names differ only by "
                "case or outer blanks",
                where=where,
                fix="ids.map may say which",
            )
        are = "is not a class" if len(unknown) == 1 else "are not classes"
        raise LayoutError(
            f"{len(unknown)} of its {counted(len(categories), 'category', 'categories')} {are} of {source.space.name}: "
            f"{some(map(repr, unknown), 3)}",
            where=where,
            fix=f"This is {fitting}: use that name" if fitting else _how_to_know(source, unknown[0]),
        )
    return {number: index for number, index in found.items() if index is not None}


def _how_to_know(source: Source, category: str) -> str:
    """What a recipe may say about a category that its list of classes lacks."""
    listed, recipe = source.recipe.descriptions.name, source.recipe
    if recipe.argument == recipe.name:  # one that ships is not the user's to change
        return f"Compare with {listed}"
    name = json.dumps(category, ensure_ascii=False)
    return (
        f"Add to {listed} what is missing, or say under [ids] in {recipe.path.name} which class it is, "
        f'map = {{{name} = "CLASS"}}, or that it means no label, ignore = [{name}]'
    )


def _by_folded_name(space: LabelSpace) -> dict[str, int]:
    return dict(zip(map(folded, reversed(space.names)), reversed(space.indices), strict=True))


def _fitting_recipe(source: Source, categories: Mapping[Any, str]) -> str | None:
    """The shipped dataset of the same format whose classes these categories are, or most of them."""
    names = {folded(name) for name in categories.values()}
    for name in catalog.dataset_names():
        recipe = catalog.load_recipe(name)
        if recipe.reader != source.reader:
            continue
        classes = _by_folded_name(catalog.load_label_space(recipe)).keys()
        if names <= classes and 2 * len(names) > len(classes):  # a few everyday names are among those of large sets
            return name
    return None
