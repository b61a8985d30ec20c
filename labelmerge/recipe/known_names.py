"""Descriptions for classes that are called as those of a shipped dataset, such as COCO's 80 or Cityscapes' 19."""

from __future__ import annotations

from collections.abc import Mapping

from labelmerge.catalog import dataset_names, load_descriptions, load_recipe
from labelmerge.descriptions import Description

_FEWEST = 5  # names that several datasets have alike say little about which one it is


def described(classes: Mapping[int, str]) -> tuple[list[Description], str | None]:
    """Rows for classes, with the descriptions of the shipped dataset that has all of their names.

    Of several, the one with the fewest other classes, then the first by name. Case and outer blanks don't count.

    Args:
        classes: name by index.

    Returns:
        The rows, and which dataset's descriptions they have; None, and rows without descriptions, where no dataset has
        all names, or there are fewer than five.
    """
    wanted = {name.strip().casefold() for name in classes.values()}
    fitting: list[tuple[int, str, dict[str, str]]] = []
    for dataset in dataset_names() if len(wanted) >= _FEWEST else ():
        texts = {row.name.casefold(): row.description for row in load_descriptions(load_recipe(dataset))}
        if wanted <= texts.keys():
            fitting.append((len(texts), dataset, texts))
    if not fitting:
        return [Description(index, name) for index, name in sorted(classes.items())], None
    _, dataset, texts = min(fitting, key=lambda each: each[:2])
    rows = [
        Description(index, name, texts[name.strip().casefold()], source="curated")
        for index, name in sorted(classes.items())
    ]
    return rows, dataset
