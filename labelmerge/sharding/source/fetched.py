"""Datasets at URLs: the files of a split, brought into the cache."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labelmerge.catalog import SPLITS, Recipe
from labelmerge.remote import local_folder
from labelmerge.sharding.source.layout import fill, strings
from labelmerge.urls import url_of

_OPEN = re.compile(r"[*{]")


def local_root(recipe: Recipe, root: Path, split: str) -> Path:
    """A dataset's folder as it is; of one at a URL, a folder in the cache that has what a split may need of it.

    What lies where the recipe looks for other splits alone is left out.

    Raises:
        RemoteError: it can't be reached, or is more than the cache may hold.
        OutputError: the cache can't be written to.
    """
    if url_of(root) is None:
        return root
    own = _places(recipe, split)
    others = {place for other in SPLITS if other != split for place in _places(recipe, other)} - own - {""}

    def is_wanted(name: str) -> bool:
        if any(part.startswith(".") for part in name.split("/")):
            return False
        below = [name, *(name.removeprefix(base) for base in bases if name.startswith(base))]
        return any(_begins(path, own) for path in below) or not any(_begins(path, others) for path in below)

    bases = [f"{folder.strip('/')}/" for folder in recipe.folders]
    return local_folder(root, is_wanted)


def _begins(path: str, places: Iterable[str]) -> bool:
    return any(path.startswith(place) for place in places)


def _places(recipe: Recipe, split: str) -> set[str]:
    """How the paths begin at which the recipe and its variants look for a split."""
    found: set[str] = set()
    variants = [
        (recipe.layout if each.layout is None else each.layout, recipe.splits if each.splits is None else each.splits,
         (*each.detect, *each.unless))
        for each in recipe.variants
    ]  # fmt: skip
    for layout, splits, patterns in ((recipe.layout, recipe.splits, ()), *variants):
        word = splits.get(split, split)
        for pattern in (*patterns, *_patterns(layout)):
            if word or "{split}" not in pattern:
                found.add(_OPEN.split(fill(pattern, {"split": word}).removeprefix("./"))[0])
    return found


def _patterns(layout: Mapping[str, Any]) -> Iterable[str]:
    for key, value in layout.items():
        if not isinstance(value, dict):
            yield from strings(layout, key)
