"""Paths on the command line: what is read may be at a URL, what is written may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from labelmerge.errors import near_path
from labelmerge.files import PUSH
from labelmerge.urls import path_or_url, url_of


def _file(path: Path) -> Path:
    from labelmerge.remote import local_file

    return local_file(path)


def _folder(path: Path) -> Path:
    from labelmerge.remote import local_folder

    return local_folder(path)


class _Path(click.Path):
    """click's, in plainer words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, (str, os.PathLike)):  # from labelmerge.toml
            self.fail(f"{value!r} is not a path", param, ctx)
        path = os.fspath(value)
        if not self.file_okay and os.path.isfile(path):
            self.fail(f"{path!r} is a file, and must be a folder", param, ctx)
        if not self.dir_okay and os.path.isdir(path):
            self.fail(f"{path!r} is a folder, and must be a file", param, ctx)
        if self.exists and not os.path.exists(path):
            near = near_path(Path(path), folder=not self.file_okay)
            what = f"there is no {'file' if self.file_okay else 'folder'} {path!r}"
            self.fail(f"{what}. {near}" if near else what, param, ctx)
        return super().convert(value, param, ctx)


class LocalPath(_Path):
    """Where something is written: a URL is refused, which would become a folder named ``s3:``.

    Args:
        why: what is said about a URL.
    """

    def __init__(self, why: str = f"only local folders can be written to. {PUSH}", **kinds: Any) -> None:
        super().__init__(path_type=Path, **kinds)
        self.why = why

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if is_url(value):
            self.fail(f"{value}: {self.why}", param, ctx)
        return super().convert(value, param, ctx)


class InputPath(_Path):
    """What is read: a path of this machine, or a URL.

    Args:
        here: what makes a path of this machine of a URL's, and of others as they are; None: the library does, which
            reads what `labelmerge.urls.url_of` knows.
    """

    def __init__(self, here: Callable[[Path], Path] | None = None, **kinds: Any) -> None:
        super().__init__(path_type=Path, **kinds)
        self.here = here

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if is_url(value):
            if self.here is None:
                return Path(value)
            value = self.here(Path(value))
            if self.exists and not value.exists():
                self.fail(f"{path_or_url(value)}: there is nothing at this URL", param, ctx)
        return super().convert(value, param, ctx)


def is_url(value: Any) -> bool:
    """Whether an argument is a URL: ``s3://bucket/streets``."""
    return url_of(Path(value)) is not None if "://" in str(value) else False


def refuse_missing(shards: Sequence[Path] = (), bank: Path | None = None, checkpoint: Path | None = None) -> None:
    """Say what is not there before torch is loaded, which takes seconds; what is at URLs is seen when it is read."""
    from labelmerge.bank.store import read_index
    from labelmerge.model.checkpoint import find_checkpoint
    from labelmerge.shardset.splits import find_splits

    if bank is not None and url_of(bank) is None:
        read_index(bank)
    if checkpoint is not None and url_of(checkpoint) is None:
        find_checkpoint(checkpoint)
    find_splits([folder for folder in shards if url_of(folder) is None], unfinished=True)


folder = LocalPath(file_okay=False)
own_folder = LocalPath(why="only a folder of this machine can be taken here. Copy it first", file_okay=False)
new_file = LocalPath(dir_okay=False)
input_folder = InputPath(file_okay=False)
existing_folder = InputPath(file_okay=False, exists=True)
existing_file = InputPath(here=_file, dir_okay=False, exists=True)
folder_of_files = InputPath(here=_folder, file_okay=False, exists=True)
