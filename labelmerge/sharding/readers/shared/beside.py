"""Annotation files of one image each that lie beside their image, or say where it is."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence

from labelmerge.errors import SampleError
from labelmerge.sharding.readers.shared.listed import IMAGE_SUFFIXES, spellings
from labelmerge.sharding.source.layout import entries
from labelmerge.sharding.source.source import Item, Note, Skip, Source


class Folders:
    """The files under a root, each folder listed once and only when it is asked for."""

    def __init__(self, root: os.PathLike[str]) -> None:
        self._root = os.fspath(root)
        self._names: dict[str, frozenset[str]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """The names in a folder under the root; none where there is no such folder."""
        if folder not in self._names:
            path = os.path.join(self._root, folder)
            found = (entry.name for entry in entries(path)) if os.path.isdir(path) else ()
            self._names[folder] = frozenset(found)
        return self._names[folder]

    def __contains__(self, path: str) -> bool:
        folder, name = posixpath.split(path)
        return name in self.names(folder) and os.path.isfile(os.path.join(self._root, path))

    def images(self, folder: str, stem: str) -> list[str]:
        """The pictures in a folder whose names have this stem, sorted."""
        if folder not in self._stems:
            by_stem: dict[str, list[str]] = {}
            for name in self.names(folder):
                beginning, ending = posixpath.splitext(name)
                if ending.lower() in IMAGE_SUFFIXES:
                    by_stem.setdefault(beginning, []).append(posixpath.join(folder, name))
            self._stems[folder] = by_stem
        return sorted(self._stems[folder].get(stem, ()))

    def count_images(self) -> int:
        """How many pictures there are in all folders that were asked for pictures."""
        return sum(len(paths) for by_stem in self._stems.values() for paths in by_stem.values())


def under(folder: str, name: str) -> str | None:
    """The path under the root of what a file in `folder` calls `name`, which may go up; None where it leads out."""
    path = posixpath.normpath(posixpath.join(folder, name))
    return None if path.startswith(("../", "/")) or path in ("..", ".") or "\0" in path else path


def spelled(name: str) -> Iterator[str]:
    """A name as it is written, then its other spellings (Windows, URLs, Unicode, endings)."""
    yield name
    yield from (spelling for spelling in dict.fromkeys(spellings(name)) if spelling != name)


def find_named(folders: Folders, folder: str, name: str) -> list[str]:
    """The files that an annotation file in `folder` may mean by the name of an image, under the root.

    Where the name says; else, since files are moved, by its last part in the folder itself.
    """
    for names in (spelled(name), map(posixpath.basename, spelled(name))):
        for each in names:
            path = under(folder, each)
            if path is not None and path in folders:
                return [path]
    return []


def pair_with_named_images(
    source: Source, annotations: Sequence[str], name_of: Callable[[Source, str], str]
) -> Iterator[Item | Skip | Note]:
    """Items of annotation files, each with its image: the one of the same stem beside it, or else the one it names.

    Args:
        source: whose root.
        annotations: paths under the root, sorted.
        name_of: reads from an annotation file what it calls its image; raises SampleError.
    """
    folders = Folders(source.root)
    found: dict[str, str] = {}
    skips: list[Skip] = []
    for place in annotations:
        folder, file = posixpath.split(place)
        stem = posixpath.splitext(file)[0]
        paths = folders.images(folder, stem)
        if len(paths) != 1:
            try:
                name = name_of(source, place)
            except SampleError as error:
                skips.append(Skip(place, error.what))
                continue
            paths = find_named(folders, folder, name)
            if not paths:
                skips.append(Skip(place, f"there is no such image: {name!r}, nor a picture {stem!r} beside it"))
                continue
        if paths[0] in found:
            skips.append(Skip(place, f"{found[paths[0]]} is of the same image"))
        else:
            found[paths[0]] = place
    rows: list[Item | Skip] = [Item(path, place) for path, place in found.items()]
    yield from sorted([*rows, *skips], key=lambda row: row.path)
    if spare := folders.count_images() - sum(path in _asked(folders, path) for path in found):
        yield Note("images_not_listed", spare)


def _asked(folders: Folders, path: str) -> list[str]:
    folder, name = posixpath.split(path)
    return folders.images(folder, posixpath.splitext(name)[0])
