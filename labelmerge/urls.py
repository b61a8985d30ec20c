"""URLs that stand in paths, the folders here that stand for them, and the cache in which these lie."""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDER_VARIABLE = "LABELMERGE_CACHE"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/*)(.*)", re.DOTALL)


def url_of(path: Path) -> str | None:
    """The URL that a path was made of, ``s3:/bucket/streets`` of ``s3://bucket/streets``; None for a path that is one.

    Paths put one slash in place of several.
    """
    found = _URL.fullmatch(str(path))
    if found is None:
        return None
    scheme, _, rest = found.groups()
    return f"{scheme.lower()}://{'/' if scheme.lower() == 'file' else ''}{rest}"


def cache_folder() -> Path:
    """``$LABELMERGE_CACHE``, or labelmerge/ in the user's cache folder."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "labelmerge"


def mirror_root() -> Path:
    """Where the folders lie that stand for URLs."""
    return cache_folder() / "urls"


def remote_url(path: Path) -> str | None:
    """The URL of a folder here that stands for one, or of a file in it; None for any other path."""
    root = mirror_root()
    return url_of(path.relative_to(root)) if path.is_relative_to(root) else None


def path_or_url(path: Path) -> str:
    """What messages and records call a path: its URL, where it has one."""
    return url_of(path) or remote_url(path) or str(path)
