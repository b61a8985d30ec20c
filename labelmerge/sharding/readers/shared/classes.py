"""From what a file calls a class to its index in the label space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelmerge import catalog
from labelmerge.errors import LayoutError, RecipeError, did_you_mean
from labelmerge.labels import LabelSpace
from labelmerge.sharding.source.source import Source
from labelmerge.text import some


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
    """A class name as two spellings of it are compared: without case and outer blanks."""
    return name.strip().casefold()


def match_categories(source: Source, categories: Mapping[Any, str], where: Path) -> dict[Any, int]:
    """Class index by category id, for annotation files that carry their own list of categories.

    Categories are matched by name, for their ids have holes and their order in the file means nothing. A file may list
    fewer categories than the label space has, never others, except those that the recipe names: in `ids.map` with
    their class, in `ids.ignore` as "no label", which becomes `ignore_index`.

    Args:
        source: whose label space.
        categories: name by id.
        where: the annotation file.

    Raises:
        LayoutError: the file is of another dataset; names the recipe that fits, if one does.
        RecipeError: `ids.map` names a class that does not exist.
    """
    index_of = _by_folded_name(source.space)
    for name, target in source.ids.get("map", {}).items():
        index_of[folded(name)] = class_index(source.space, target, source.recipe.path)
    for name in source.ids.get("ignore", []):
        index_of[folded(str(name))] = source.space.ignore_index
    unknown = [name for name in categories.values() if folded(name) not in index_of]
    if unknown:
        fitting = _fitting_recipe(source, categories)
        raise LayoutError(
            f"{len(unknown)} of its {len(categories)} categories are not classes of {source.space.name}: "
            f"{some(map(repr, unknown), 3)}",
            where=where,
            fix=f"This is {fitting}: use that name" if fitting else f"Compare with {source.recipe.descriptions.name}",
        )
    return {number: index_of[folded(name)] for number, name in categories.items()}


def _by_folded_name(space: LabelSpace) -> dict[str, int]:
    return dict(zip(map(folded, reversed(space.names)), reversed(space.indices), strict=True))


def _fitting_recipe(source: Source, categories: Mapping[Any, str]) -> str | None:
    """The shipped dataset of the same format whose classes these categories are."""
    names = {folded(name) for name in categories.values()}
    for name in catalog.dataset_names():
        recipe = catalog.load_recipe(name)
        if recipe.reader == source.reader and names <= _by_folded_name(catalog.load_label_space(recipe)).keys():
            return name
    return None
