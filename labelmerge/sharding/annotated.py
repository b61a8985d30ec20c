"""Which classes each single image was annotated for: a table of a user's own, beside any format.

``layout.annotated`` is a CSV with the columns ``image`` and ``annotated``: an image and classes by name, separated by
``;``. Several rows of one image add up, so that a class in each row does as well. An image is named by its path under
the root, its own id in the dataset, or its file's name with or without the ending. What a reader knows of an image
(LVIS, Open Images) counts where the table has no row for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from posixpath import basename, splitext

from labelmerge.catalog import load_label_space
from labelmerge.errors import LayoutError, did_you_mean
from labelmerge.sharding.readers.shared.tables import csv_rows
from labelmerge.sharding.source.layout import first_place
from labelmerge.sharding.source.source import ANNOTATED, Item, Note, Skip, Source
from labelmerge.text import counted, some

_COLUMNS = ("image", "annotated")


def with_lists(source: Source, entries: Iterator[Item | Skip | Note]) -> Iterator[Item | Skip | Note]:
    """What a reader lists, every item with the classes that the recipe's table says it was annotated for.

    Raises:
        LayoutError: the table is not there, is no such CSV, or names a class that there is not.
    """
    if ANNOTATED not in source.layout:
        yield from entries
        return
    listed = _read(source)
    used: set[str] = set()
    for entry in entries:
        if isinstance(entry, Item):
            names = (entry.path, entry.native_id, basename(entry.path), splitext(basename(entry.path))[0])
            name = next((name for name in names if name in listed), None)
            if name is not None:
                used.add(name)
                entry = replace(entry, annotated=listed[name])
            elif entry.annotated is None:
                entry = replace(entry, annotated=source.annotated)
        yield entry
    if unused := len(listed) - len(used):
        yield Note("images_in_the_table_of_annotated_classes_that_are_not_here", unused)


def _read(source: Source) -> dict[str, tuple[int, ...]]:
    """The classes of each image that the table names."""
    path = source.root / first_place(source, ANNOTATED, "table of the classes that images were annotated for")
    every = load_label_space(source.recipe)  # a reader may have narrowed it
    index_of = dict(zip(every.names, every.indices, strict=True))
    found: dict[str, set[int]] = {}
    unknown: dict[str, int] = {}
    for row, (image, cell) in enumerate(csv_rows(path, _COLUMNS), 1):
        own = found.setdefault(image.strip(), set())
        for name in filter(None, map(str.strip, cell.split(";"))):
            if name in index_of:
                own.add(index_of[name])
            else:
                unknown.setdefault(name, row)
    if unknown:
        shown = some(f"{name!r} in row {row}" for name, row in unknown.items())
        raise LayoutError(
            f"names {counted(len(unknown), 'class', 'classes')} that {every.name} doesn't have: {shown}",
            where=path,
            fix=did_you_mean(next(iter(unknown)), every.names),
        )
    return {image: tuple(sorted(index for index in own if index in source.space)) for image, own in found.items()}
