"""Finding the splits that are in shards: one rule for every command."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from labelmerge.errors import ShardError, near_path
from labelmerge.remote import mirror_of
from labelmerge.shardset.manifest import MANIFEST, UNFINISHED
from labelmerge.shardset.remote import find_remote
from labelmerge.urls import url_of


def stand_in(folder: Path) -> Path:
    """The folder by which `find_splits` gives one of `folders` that is a split itself."""
    url = url_of(folder)
    return mirror_of(url) if url else folder.resolve()


def find_splits(
    folders: Sequence[Path], split: str | None = None, *, also: str | None = None, unfinished: bool = False
) -> list[Path]:
    """The folders of splits at or below `folders`, sorted, each once.

    A split's folder holds a manifest, or what a run of `labelmerge shard` leaves before it is finished: tar files, or
    `.unfinished`. Links are followed; names that begin with a dot are none of a split's. For a split at a URL, which
    stands in a path as `labelmerge.files.url_of` reads it, there is a folder with its manifest alone, fetched anew.

    Args:
        folders: splits, datasets, or folders of datasets.
        split: which splits to take below a dataset or a folder of datasets; None: all of them. A split that is one of
            `folders` itself is always taken.
        also: a split to take besides, where there is one.
        unfinished: whether to take splits without a manifest too.

    Raises:
        ShardError: a folder does not exist, or has no shards in it, or only those of other splits; or some are
            unfinished, and `unfinished` is false.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if url := url_of(folder):
            folder, here = find_remote(url)
        elif folder.is_dir():
            here = list(_splits(folder, ()))
        else:
            raise ShardError(
                "no such folder", where=folder, fix=near_path(folder) or "`labelmerge shard` writes shards"
            )
        if not here:
            raise ShardError("no shards here", where=folder, fix="Give a folder that `labelmerge shard` wrote")
        wanted = [path for path in here if split is None or path == folder or path.name in (split, also)]
        if not wanted:
            others = ", ".join(sorted({path.name for path in here}))
            raise ShardError(f"no {split} shards here, only {others}", where=folder, fix="--split says which to take")
        for path in wanted:
            if not unfinished and not (path / MANIFEST).is_file():
                raise ShardError(
                    "unfinished: there is no manifest.json",
                    where=path,
                    fix="Run the command that writes it once more; after `shard --part`, `labelmerge verify --finish`",
                )
            found.setdefault(path.resolve(), path)
    return [found[path] for path in sorted(found)]


def _splits(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """The splits at or below `folder`; `above` ends loops of links."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:
            inside = {entry.name: _is_folder(entry) for entry in entries}
    except OSError as error:
        raise ShardError(f"can't be listed ({error.strerror})", where=folder) from error
    if MANIFEST in inside or UNFINISHED in inside or any(name.endswith(".tar") for name in inside):
        yield folder
    for name in sorted(name for name, is_folder in inside.items() if is_folder and not name.startswith(".")):
        yield from _splits(folder / name, (*above, real))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
