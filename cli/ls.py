"""labelmerge ls: the datasets that labelmerge knows."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import click

from labelmerge.catalog import ANNOTATION_TYPES, ROLES, Recipe, dataset_names, load_label_space, load_recipe
from labelmerge.errors import UsageError, did_you_mean
from labelmerge.names import prompt_name
from labelmerge.text import aligned

from . import options

_COLUMNS = ("name", "type", "role", "classes", "reader", "layout")


@click.command()
@click.argument("datasets", metavar="[DATASET|RECIPE.toml|PATTERN]…", nargs=-1, shell_complete=options.complete.dataset)
@click.option("--type", "kind", type=click.Choice(ANNOTATION_TYPES), help="Only datasets of this annotation type.")
@click.option("--role", type=click.Choice(ROLES), help="Only datasets to train on, or to evaluate on.")
@click.option("--label", metavar="NAME", help="Only datasets that have a class of this name.")
@options.as_json
def command(datasets: tuple[str, ...], kind: str | None, role: str | None, label: str | None, as_json: bool) -> None:
    """List the known datasets, or show some in full: where to get one, its files on disk, its classes.

    A PATTERN such as "coco*" stands for the datasets whose names it matches, and shows them as a table.

    \b
    Example:
      labelmerge ls cityscapes camvid
      labelmerge ls --type box
      labelmerge ls --role eval --label rider
    """
    patterns = [word for word in datasets if set(word) & set("*?[")]
    if datasets and not patterns and kind is None and role is None and label is None:
        recipes = [load_recipe(name) for name in datasets]
        facts = [_facts(recipe, full=True) for recipe in recipes]
        text = "\n\n".join(map(_page, recipes))
        options.say(facts[0] if len(facts) == 1 else facts, as_json, text)
        return
    shipped = dataset_names()
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shipped):
            raise UsageError(f"no dataset matches {pattern!r}", fix=f"Known: {', '.join(shipped)}")
    names = [name for name in shipped if any(fnmatchcase(name, pattern) for pattern in patterns)]
    names += [word for word in datasets if word not in patterns]
    recipes = [load_recipe(name) for name in (dict.fromkeys(names) if datasets else shipped)]
    if label is not None and not any(_has(recipe, label) for recipe in recipes):
        classes = {name for recipe in recipes for name in load_label_space(recipe).names}
        near = did_you_mean(label, classes)
        raise UsageError(f"no dataset has a class {label!r}", fix=None if near.startswith("Known") else near)
    rows = [
        _facts(recipe)
        for recipe in recipes
        if kind in (None, recipe.annotation_type) and role in (None, recipe.role) and _has(recipe, label)
    ]
    cells = [[*map(str, (row[column] for column in _COLUMNS[:-1])), _layout(row)] for row in rows]
    lines = aligned([_COLUMNS, *cells], left=len(_COLUMNS)) if rows else []
    count = options.counted(len(rows), "dataset")
    more = "`labelmerge ls NAME` shows where to get one and its whole layout."
    lines.append(f"{count}. {more}" if rows else "No dataset is of this kind.")
    options.say(rows, as_json, "\n".join(lines))


def _has(recipe: Recipe, label: str | None) -> bool:
    return label is None or prompt_name(label) in map(prompt_name, load_label_space(recipe).names)


def _facts(recipe: Recipe, full: bool = False) -> dict[str, Any]:
    space = load_label_space(recipe)
    facts: dict[str, Any] = {
        "name": recipe.name,
        "title": recipe.title,
        "type": recipe.annotation_type,
        "role": recipe.role,
        "classes": len(space),
        "reader": recipe.reader,
        "folders": list(recipe.folders),
        "layout": dict(recipe.layout),
        "homepage": recipe.homepage,
        "licence": recipe.licence,
    }
    return facts | {"about": recipe.about, "label_space": space.to_json()} if full else facts


def _layout(row: dict[str, Any]) -> str:
    """The first pattern for images and the first for their annotations."""
    keys = ("images", "masks", "polygons", "annotations")
    values = [row["layout"][key] for key in keys if key in row["layout"]]
    return ", ".join(value if isinstance(value, str) else value[0] for value in values[:2]) or "labels only"


def _page(recipe: Recipe) -> str:
    space = load_label_space(recipe)
    classes = "\n".join(f"{index:5}  {name}" for index, name in zip(space.indices, space.names, strict=True))
    facts = [
        ("Type", recipe.annotation_type),
        ("Role", recipe.role),
        ("Reader", recipe.reader),
        ("Licence", recipe.licence),
        ("Homepage", recipe.homepage),
        ("Recipe", str(recipe.path)),
    ]
    if not recipe.about:  # which would show the trees on disk; without it, the patterns themselves
        for layout in (recipe.layout, *(variant.layout or {} for variant in recipe.variants)):
            facts += [("Layout", f"{key} = {json.dumps(value, ensure_ascii=False)}") for key, value in layout.items()]
    lines = [f"{name:9}{value}" for name, value in facts if value]
    return "\n".join([recipe.about or recipe.title or recipe.name, "", *lines, "", f"{len(space)} classes:", classes])
