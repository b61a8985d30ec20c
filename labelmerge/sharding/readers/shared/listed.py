"""Images that an annotation file lists, beside those on disk: COCO's `images`, and whatever else is like it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from labelmerge.errors import LayoutError, RecipeError
from labelmerge.sharding.readers.shared.tables import Record, Rows, entries, native_id, whole
from labelmerge.sharding.source.layout import inside
from labelmerge.sharding.source.source import Source

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Listed:
    """A listed image.

    Attributes:
        rank: its place among them all, sorted by path.
        path: under the root; only the listed name where that leads out of its folder.
        id: in the annotation file.
        size: height and width, as listed.
        problem: why it can't be an item, or None.
    """

    rank: int
    path: str
    id: int | str
    size: tuple[int, int]
    problem: str | None


class Images:
    """A parser for the list `images`, into a table of `scratch`.

    Args:
        scratch: the database.
        folder: under the root, where the images lie.
        parts: of a listed name, only so many last parts count; None: all.
    """

    def __init__(self, scratch: sqlite3.Connection, folder: str, parts: int | None) -> None:
        self._scratch, self._folder, self._parts = scratch, folder, parts
        self._rows = Rows(scratch, "listed", ("id", "path", "name", "height", "width", "refused"))
        self._number = 0

    def __call__(self, record: Record) -> None:
        self._number += 1
        name = str(record["file_name"])
        path = inside(self._folder, name, self._parts)
        self._rows.add(
            native_id(record, "id"),
            stored(name if path is None else path),
            stored(name),
            whole(record["height"]),
            whole(record["width"]),
            path is None,
        )

    def close(self, where: Path) -> None:
        """Put the images in order. Raises LayoutError where two have one id."""
        self._rows.close()
        self._scratch.execute(
            "CREATE TABLE image (rank INTEGER PRIMARY KEY, id, path, height, width, refused)",
        )
        self._scratch.execute(
            "INSERT INTO image (id, path, height, width, refused) SELECT id, path, height, width, refused "
            "FROM listed ORDER BY path, name, height, width, rowid"
        )
        try:
            self._scratch.execute("CREATE UNIQUE INDEX image_id ON image (id)")
        except sqlite3.IntegrityError:
            query = "SELECT id, max(rowid) AS last FROM listed GROUP BY id HAVING count(*) > 1 ORDER BY last"
            number, row = self._scratch.execute(query).fetchone()
            raise LayoutError(f"images {row} is malformed (its id {number!r} is not unique)", where=where) from None
        self._scratch.execute("DROP TABLE listed")


def stored(path: str) -> bytes:
    """A path as the tables hold it: any text, also what is not valid Unicode, in the order in which Python sorts it."""
    try:
        return path.encode("utf-8", "surrogateescape")  # as a name on disk
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def loaded(path: bytes) -> str:
    """The inverse of `stored`, for paths that can be on disk."""
    return path.decode("utf-8", "surrogateescape")


def on_disk(scratch: sqlite3.Connection, table: str, paths: Iterable[str]) -> None:
    """Make a table of paths, each once."""
    rows = Rows(scratch, f"{table}_found", ("path",))
    for path in paths:
        rows.add(stored(path))
    rows.close()
    scratch.execute(f"CREATE TABLE {table} (path PRIMARY KEY) WITHOUT ROWID")
    scratch.execute(f"INSERT INTO {table} SELECT DISTINCT path FROM {table}_found ORDER BY path")
    scratch.execute(f"DROP TABLE {table}_found")


def listed_images(scratch: sqlite3.Connection) -> Iterator[Listed]:
    """The images of `Images`, sorted by path, checked against the table `files` of those on disk."""
    before = None
    query = "SELECT rank, image.path, id, height, width, refused, files.path FROM image LEFT JOIN files USING (path)"
    for rank, path, number, height, width, refused, there in scratch.execute(f"{query} ORDER BY rank"):
        problem = None
        if refused:
            problem = "the name leads out of its folder"
        elif path == before:
            problem = "listed before"
        elif there is None:
            problem = "listed, but there is no such image"
        before = path
        yield Listed(rank, loaded(path), number, (height, width), problem)


def with_entries(scratch: sqlite3.Connection, table: str) -> Iterator[tuple[Listed, list[Any]]]:
    """As `listed_images`, with what the table of `Groups` holds for each, in file order."""
    # CROSS JOIN: the long table is read from end to end, the short one is asked.
    query = f"SELECT rank, entries FROM {table} CROSS JOIN image ON id = key ORDER BY rank, {table}.rowid"
    groups = groupby(scratch.execute(query), key=itemgetter(0))
    rank, rows = next(groups, (None, iter(())))
    for image in listed_images(scratch):
        found: list[Any] = []
        if rank == image.rank:
            for _, data in rows:
                found += entries(data)
            rank, rows = next(groups, (None, iter(())))
        yield image, found


def of_unknown_images(scratch: sqlite3.Connection, table: str) -> int:
    """How many entries of `Groups` are of images that aren't listed."""
    query = f"SELECT coalesce(sum(count), 0) FROM {table} WHERE key NOT IN (SELECT id FROM image)"
    (count,) = scratch.execute(query).fetchone()
    return int(count)


def unlisted(scratch: sqlite3.Connection) -> int:
    """How many images are on disk and not in the list."""
    query = "SELECT count(*) FROM files WHERE path NOT IN (SELECT path FROM image)"
    (count,) = scratch.execute(query).fetchone()
    return int(count)


def name_parts(source: Source) -> int | None:
    """The option of that name: how many last parts of a listed name count; None: all. Raises RecipeError."""
    parts = source.options.get("name_parts")
    if parts is not None and (type(parts) is not int or parts < 1):
        raise RecipeError(f"options.name_parts is {parts!r}: it must be 1 or more", where=source.recipe.path)
    return parts
