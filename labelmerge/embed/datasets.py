"""Which datasets the words of a command line mean."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from labelmerge.catalog import Recipe, dataset_names, load_mixture, load_recipe, refuse_taken_name
from labelmerge.class_lists import ignored_columns, is_class_list
from labelmerge.errors import UsageError
from labelmerge.text import some

_log = logging.getLogger(__name__)


def find_datasets(names: Sequence[str]) -> list[Recipe]:
    """The recipes that these words mean, each once.

    A word is a dataset's name, the path of a recipe (ending in ``.toml``) or of a class list (``.csv``, ``.txt``), a
    mixture's name, or ``all``.

    Raises:
        UsageError: a word matches none of these; the message suggests similar names. Or a file of the user's own has
            the name of a shipped dataset, and other classes.
        RecipeError: a recipe is malformed.
    """
    found: dict[str, Recipe] = {}
    for name in names:
        for recipe in map(load_recipe, expand(name)):
            if refuse_taken_name(recipe):
                _log.info("%s: is called as the dataset %s that ships, and stands for it", recipe.path, recipe.name)
            if recipe.path == recipe.descriptions and (columns := ignored_columns(recipe.path)):
                _log.warning("%s: no column is called description, and these are not used: %s", name, some(columns))
            found.setdefault(str(recipe.path), recipe)
    return list(found.values())


def expand(name: str) -> list[str]:
    """The names and paths that a word stands for: several where it is a mixture or ``all``."""
    if name == "all":
        return dataset_names()
    if name.endswith(".toml") or is_class_list(name) or name in dataset_names():
        return [name]
    try:
        return load_mixture(name)
    except UsageError:
        return [name]  # `load_recipe` says what is wrong with it
