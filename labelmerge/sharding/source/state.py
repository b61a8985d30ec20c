"""Whether the files that a shard was made from are still what they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from labelmerge.files import sha256_file
from labelmerge.sharding.depths import depth_files
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.layout import optional_place
from labelmerge.sharding.source.source import Item, Source

# Files of classes, which decide what the values of every mask mean. What annotation files say is in the items.
_TABLES = ("class_names", "classes", "table", "data")
_LARGEST_READ = 1 << 28  # bytes; larger files hold the images of many shards, and their content is not hashed

State = tuple[str, str]
"""Of the files of a shard: the hash of their sizes and times, and that of their sizes and contents."""


def files_of(source: Source, items: Iterable[Item]) -> Iterator[str]:
    """The paths, under the root, of all files that these items are read from; some more than once."""
    for key in _TABLES:
        if key in source.layout and (place := optional_place(source, key)) is not None:
            yield place
    annotations = READERS[source.reader].files
    for item in items:
        yield item.path.rpartition("#")[0] or item.path if _is_part(source, item) else item.path
        yield from depth_files(source, item.path)
        if annotations is not None:
            yield from annotations(item)


def state_of(source: Source, items: Iterable[Item]) -> State:
    """The state of the files that a shard's items are read from. A file that is gone is a state, too."""
    files = sorted(set(files_of(source, items)))
    return stat_hash(source.root, files), content_hash(source.root, files)


def is_as_before(source: Source, items: Iterable[Item], before: State) -> bool:
    """Whether the files of a shard's items are what they were; contents are read only where sizes or times differ."""
    files = sorted(set(files_of(source, items)))
    return stat_hash(source.root, files) == before[0] or content_hash(source.root, files) == before[1]


def stat_hash(root: Path, files: Iterable[str]) -> str:
    """A hash of names, sizes and times of change."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f"{file}\0{_stat(root / file)}\0"))
    return digest.hexdigest()[:32]


def content_hash(root: Path, files: Iterable[str]) -> str:
    """A hash of names, sizes and contents; of a large file, its time of change stands for its content."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f"{file}\0{_content(root / file)}\0"))
    return digest.hexdigest()[:32]


def _is_part(source: Source, item: Item) -> bool:
    return READERS[source.reader].image is not None and "#" in item.path


def _stat(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return "gone"
    return f"{found.st_size} {found.st_mtime_ns}"


def _content(path: Path) -> str:
    try:
        found = path.stat()
        if found.st_size > _LARGEST_READ or not path.is_file():
            return f"{found.st_size} {found.st_mtime_ns}"
        return _sha256(path, found.st_size, found.st_mtime_ns)
    except (OSError, ValueError):
        return "gone"


@lru_cache(maxsize=64)  # one file may hold the images, or name the classes, of many shards
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256_file(path)
