"""Where what is fetched from URLs is kept, and how paths there and URLs go together."""

from __future__ import annotations

import os
from pathlib import Path

from labelmerge.errors import ConfigError, ShardError
from labelmerge.files import url_of

FOLDER_VARIABLE = "LABELMERGE_CACHE"
SIZE_VARIABLE = "LABELMERGE_CACHE_GB"
DEFAULT_GB = 20.0


def cache_folder() -> Path:
    """``$LABELMERGE_CACHE``, or labelmerge/ in the user's cache folder."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "labelmerge"


def cache_bytes() -> float:
    """How large the cache may become: ``$LABELMERGE_CACHE_GB`` in units of 10⁹ bytes, or 20. Raises ConfigError."""
    given = os.environ.get(SIZE_VARIABLE, "")
    try:
        size = float(given) if given else DEFAULT_GB
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ConfigError(f"{given!r} is not a number above 0", where=SIZE_VARIABLE, fix="Give gigabytes, such as 50")
    return size * 1e9


def remote_url(folder: Path) -> str | None:
    """The URL of a folder that `find_remote` made, or of a file in it; None for any other path."""
    root = cache_folder() / "urls"
    return url_of(folder.relative_to(root)) if folder.is_relative_to(root) else None


def path_or_url(path: Path) -> str:
    """What messages and records call a folder of shards, or a file in it: its URL, where it has one."""
    return url_of(path) or remote_url(path) or str(path)


def local_folder(url: str) -> Path:
    """The folder that stands for a URL here. Raises ShardError where it would lie elsewhere."""
    path = Path(url)
    if ".." in path.parts:
        raise ShardError("has .. in it", where=url)
    return cache_folder() / "urls" / path
