"""labelmerge ls: the datasets that labelmerge knows."""

from __future__ import annotations

import json
from typing import Any

import click

from labelmerge.catalog import Recipe, dataset_names, load_label_space, load_recipe
from labelmerge.text import aligned

from . import options

_COLUMNS = ("name", "type", "role", "classes", "reader", "layout")


@click.command()
@click.argument("dataset", metavar="[DATASET|RECIPE.toml]", required=False)
@options.as_json
def command(dataset: str | None, as_json: bool) -> None:
    """Show the known datasets, or one in full: where to get it, how it lies on disk, its classes.

    \b
    Example:
      labelmerge ls cityscapes
    """
    if dataset is not None:
        recipe = load_recipe(dataset)
        options.say(_facts(recipe, full=True), as_json, _page(recipe))
        return
    rows = [_facts(load_recipe(name)) for name in dataset_names()]
    cells = [[*map(str, (row[column] for column in _COLUMNS[:-1])), _layout(row)] for row in rows]
    lines = aligned([_COLUMNS, *cells], left=len(_COLUMNS))
    lines.append(f"{len(rows)} datasets. `labelmerge ls NAME` shows where to get one and its whole layout.")
    options.say(rows, as_json, "\n".join(lines))


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
