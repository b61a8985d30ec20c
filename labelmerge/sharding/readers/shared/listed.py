"""Images that an annotation file lists, beside those on disk: COCO's `images`, and whatever else is like it."""

from __future__ import annotations

import marshal
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from os.path import splitext
from typing import Any
from urllib.parse import unquote, urlsplit

from labelmerge.errors import RecipeError
from labelmerge.sharding.readers.shared.tables import Record, Rows, entries, reference, whole
from labelmerge.sharding.source.layout import inside
from labelmerge.sharding.source.source import Source

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".avif", ".gif", ".jp2", ".ppm", ".pgm"),
)
"""Of files that are counted as images where nothing lists them; those that are listed may be called anything."""

_SHARED_ID = 2  # in the column `refused`

Lists = tuple[tuple[int | str, ...] | None, tuple[int | str, ...]]

_ABSENT, _NOT_ALL = "neg_category_ids", "not_exhaustive_category_ids"  # LVIS's words

LISTED_BEFORE = "listed before: its objects are with the first listing"


@dataclass(frozen=True)
class Listed:
    """A listed image.

    Attributes:
        rank: its place among them all, sorted by path.
        path: under the root; only the listed name where that leads out of its folder.
        id: in the annotation file.
        size: height and width, as listed; None where the file gives none.
        problem: why it can't be an item, or None.
        lists: what it says of its categories: ids of those known to be absent (None: not told), and of those of which
            not all that is there was annotated.
    """

    rank: int
    path: str
    id: int | str
    size: tuple[int, int] | None
    problem: str | None
    lists: Lists = (None, ())


class Images:
    """A parser for the list `images`, into a table of `scratch`.

    Args:
        scratch: the database.
        folder: under the root, where the images lie.
        parts: of a listed name, only so many last parts count; None: all.
        or_flat: an image that is not there may lie in the folder itself, whatever folders its listed name has.
    """

    def __init__(self, scratch: sqlite3.Connection, folder: str, parts: int | None, *, or_flat: bool = False) -> None:
        self._scratch, self._folder = scratch, folder
        self._parts, self._tries = parts, (parts, 1) if or_flat else (parts,)
        self._rows = Rows(scratch, "listed", ("id", "path", "name", "height", "width", "refused", "lists"))
        self._number = 0
        self.notes = Counter[str]()  # of LVIS: images where not all is annotated, or what is known to be absent
        self.own_lists = False  # whether some image says which categories it was annotated for

    def __call__(self, record: Record) -> None:
        self._number += 1
        # LVIS gives no file names, but where COCO has the picture.
        url = None if record.get("file_name") else record.get("coco_url")
        name = str(record["file_name"] if url is None else urlsplit(str(url)).path.lstrip("/"))
        path = inside(self._folder, name, self._parts)
        for key in (_NOT_ALL, _ABSENT):
            self.notes[f"images_with_{key}"] += bool(record.get(key))
        lists = _lists(record)
        self.own_lists |= lists is not None
        self._rows.add(
            reference(record, "id"),
            stored(name if path is None else path),
            stored(name),
            *_size(record),
            path is None,
            lists,
        )

    def close(self) -> None:
        """Find the images among the table `files`, and put them in order.

        A record that is there twice counts once; where two images have one id, neither can be used.
        """
        self._rows.close()
        again = "DELETE FROM listed WHERE rowid NOT IN (SELECT min(rowid) FROM listed GROUP BY id, name)"
        self.notes["images_listed_twice"] += self._scratch.execute(again).rowcount
        self._find_others()
        shared = "SELECT id FROM listed GROUP BY id HAVING count(*) > 1"
        self._scratch.execute(f"UPDATE listed SET id = NULL, refused = {_SHARED_ID} WHERE id IN ({shared})")
        self._scratch.execute(
            "CREATE TABLE image (rank INTEGER PRIMARY KEY, id, path, height, width, refused, lists)",
        )
        self._scratch.execute(
            "INSERT INTO image (id, path, height, width, refused, lists) "
            "SELECT id, path, height, width, refused, lists "
            "FROM listed ORDER BY path, name, height, width, rowid"
        )
        self._scratch.execute("CREATE UNIQUE INDEX image_id ON image (id)")
        self._scratch.execute("DROP TABLE listed")

    def _find_others(self) -> None:
        """Look under other spellings for the images that are not on disk by the name that the file gives."""
        query = "SELECT rowid, name FROM listed WHERE refused OR path NOT IN (SELECT path FROM files)"
        for row, name in self._scratch.execute(query).fetchall():
            for parts in self._tries:
                paths = {inside(self._folder, spelling, parts) for spelling in spellings(loaded(name))} - {None}
                found = [path for path in map(stored, filter(None, paths)) if self._is_there(path)]
                if len(found) == 1:
                    self._scratch.execute("UPDATE listed SET path = ?, refused = 0 WHERE rowid = ?", (*found, row))
                if found:
                    break

    def _is_there(self, path: bytes) -> bool:
        return self._scratch.execute("SELECT 1 FROM files WHERE path = ?", (path,)).fetchone() is not None


def spellings(name: str) -> Iterator[str]:
    """How else a name may be written: as in Windows or a URL, in the other Unicode form, its ending in other case."""
    plain = name.replace("\\", "/")
    if "://" in plain:
        plain = urlsplit(plain).path.lstrip("/")
    for each in dict.fromkeys((plain, unquote(plain), unquote(unquote(plain)))):
        stem, ending = splitext(each)
        for text in dict.fromkeys((each, stem + ending.lower(), stem + ending.upper())):
            yield from dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))))


def _lists(record: Record) -> bytes | None:
    """A record's two lists of categories, packed; None where it has neither. Raises ValueError."""
    if record.get(_ABSENT) is None and record.get(_NOT_ALL) is None:
        return None
    absent, partly = (
        None if record.get(key) is None else tuple(reference({key: each}, key) for each in record[key])
        for key in (_ABSENT, _NOT_ALL)
    )
    return marshal.dumps((absent, partly or ()))


def _size(record: Record) -> tuple[int | None, int | None]:
    """Height and width; None for both where a record gives none that can be."""
    try:
        height, width = whole(record["height"]), whole(record["width"])
    except (KeyError, ValueError, TypeError, OverflowError):
        return None, None
    return (height, width) if height > 0 and width > 0 else (None, None)


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
    columns = "rank, image.path, id, height, width, refused, lists, files.path"
    query = f"SELECT {columns} FROM image LEFT JOIN files USING (path)"
    for rank, path, number, height, width, refused, lists, there in scratch.execute(f"{query} ORDER BY rank"):
        problem = None
        if refused == _SHARED_ID:
            problem = "another image has the same id, so that its annotations may be of either"
        elif refused:
            name = loaded(path)
            problem = "the name leads out of its folder" if _leads_out(name) else "the name is not the path of a file"
        elif path == before:
            problem = LISTED_BEFORE
        elif there is None:
            problem = "listed, but there is no such image"
        before = path
        size = None if height is None else (height, width)
        yield Listed(rank, loaded(path), number, size, problem, (None, ()) if lists is None else marshal.loads(lists))


def _leads_out(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name)


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


def together(images: Iterable[tuple[Listed, list[Any]]], own: int) -> Iterator[tuple[Listed, list[Any]]]:
    """As `with_entries`; what is of the later listings of a file is of the first, each thing once.

    Args:
        images: of `with_entries`.
        own: the place in an entry of the thing's own id, which two listings of one thing need not share.
    """
    for _, group in groupby(images, key=lambda pair: pair[0].path):
        listings = list(group)
        first = listings[0][0]
        if len(listings) == 1 or first.problem is not None:
            yield from listings
            continue
        entries_of_all = list(listings[0][1])
        known = {_but(entry, own) for entry in entries_of_all}
        for _, more in listings[1:]:
            fresh = [entry for entry in more if _but(entry, own) not in known]
            entries_of_all += fresh
            known |= {_but(entry, own) for entry in fresh}
        size = next((listed.size for listed, _ in listings if listed.size is not None), None)
        yield replace(first, size=size, lists=_together([listed.lists for listed, _ in listings])), entries_of_all
        yield from ((listed, []) for listed, _ in listings[1:])


def _together(lists: Sequence[Lists]) -> Lists:
    """The lists of one image's several listings: absent is what all of them say is, or do not have."""
    absent = [each for each, _ in lists if each is not None]
    partly = dict.fromkeys(category for _, each in lists for category in each)
    return tuple(dict.fromkeys(category for each in absent for category in each)) if absent else None, tuple(partly)


def _but(entry: Sequence[Any], own: int) -> tuple[Any, ...]:
    return tuple(value for place, value in enumerate(entry) if place != own)


def annotated_in(
    source: Source, listed: Listed, categories: Iterable[int | str], classes: Mapping[Any, int]
) -> tuple[int, ...]:
    """The indices of the classes that an image was annotated for, by what its file says of it.

    With a list of what is absent (LVIS): those, and what was annotated in it; else all that the dataset was annotated
    for. In both cases without what was not annotated exhaustively.

    Args:
        categories: of the image's annotations.
        classes: class index by category id.
    """
    absent, partly = listed.lists
    known = (*categories, *absent) if absent is not None else ()
    found = {classes[kind] for kind in known if kind in classes} if absent is not None else set(source.annotated)
    return tuple(sorted(found - {classes[kind] for kind in partly if kind in classes} - {source.space.ignore_index}))


def of_unknown_images(scratch: sqlite3.Connection, table: str) -> int:
    """How many entries of `Groups` are of images that aren't listed."""
    query = f"SELECT coalesce(sum(count), 0) FROM {table} WHERE key NOT IN (SELECT id FROM image WHERE id IS NOT NULL)"
    (count,) = scratch.execute(query).fetchone()
    return int(count)


def unlisted(scratch: sqlite3.Connection) -> int:
    """How many images are on disk and not in the list."""
    query = "SELECT path FROM files WHERE path NOT IN (SELECT path FROM image)"
    return sum(loaded(path).lower().endswith(IMAGE_SUFFIXES) for (path,) in scratch.execute(query))


def name_parts(source: Source) -> int | None:
    """The option of that name: how many last parts of a listed name count; None: all. Raises RecipeError."""
    parts = source.options.get("name_parts")
    if parts is not None and (type(parts) is not int or parts < 1):
        raise RecipeError(f"options.name_parts is {parts!r}: it must be 1 or more", where=source.recipe.path)
    return parts
