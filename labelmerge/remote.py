"""Files at URLs: fetched through fsspec when they are needed, checked, and kept in a cache of bounded size.

A URL travels as the path that was made of it (`labelmerge.urls.url_of`). What reads a file asks `local_file` for it,
what reads a folder asks `local_folder`; both give paths of this machine back as they are. For a URL they give the file
or folder in the cache that stands for it, which `labelmerge.urls.path_or_url` turns into the URL again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge import network
from labelmerge.errors import ConfigError, OutputError, RemoteError, printable
from labelmerge.files import locked, output_faults, sha256_file
from labelmerge.network import Damaged, first_pauses, is_web, open_system, patiently
from labelmerge.urls import FOLDER_VARIABLE, cache_folder, mirror_root, url_of

SIZE_VARIABLE = "LABELMERGE_CACHE_GB"
DEFAULT_GB = 20.0

_AT_ONCE = 16  # files of a folder
_MANY, _BETWEEN = 100, 60.0  # files that are worth a line, and seconds between the lines of how far it has come
_DEPTH = 6  # of links that are followed on a web server
_DAY = 86400.0  # after which an unfinished download is no other process's, and a folder's file in nobody's use
# What file systems say of a file, of which one at least changes with its content.
_MARKS = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "mtime", "updated", "created")

_SHARD = re.compile(r"\.?[0-9a-f]{64}\.")  # and its lock, and its download

_log = logging.getLogger(__name__)
_fetched: set[str] = set()


@dataclass(frozen=True)
class Entry:
    """A file at a URL.

    Attributes:
        size: bytes; None where the server doesn't say.
        mark: changes with its content, as far as the server tells; 0 where it says nothing.
    """

    size: int | None
    mark: int


# --- reading ----------------------------------------------------------------------------------------------------------


def local_file(path: Path, sha256: str | None = None) -> Path:
    """A file of this machine as it is; of one at a URL, a copy in the cache, which is missing where that one is.

    Args:
        sha256: its hash, where it is known; then a copy that is there already is not fetched again.

    Raises:
        RemoteError: it can't be fetched, or is not as the hash says.
        OutputError: the cache can't be written to.
    """
    url = url_of(path)
    if url is None:
        return path
    here = mirror_of(url)
    try:
        if not _is_there(here, Entry(None, 0), sha256):
            _bring(url, here, Entry(None, 0), sha256, first_pauses())
    except FileNotFoundError:
        with cache_faults(here):
            here.unlink(missing_ok=True)
    return here


def local_folder(
    path: Path,
    wanted: Callable[[str], bool] = lambda name: True,
    hashes: Mapping[str, str] | None = None,
) -> Path:
    """A folder of this machine as it is; of one at a URL, a folder in the cache with those of its files.

    Files are fetched again where the server says that they have changed, or says nothing.

    Args:
        wanted: whether a file is, by its path in the folder.
        hashes: the SHA-256 of files, where it is known.

    Raises:
        RemoteError: it can't be reached, a file can't be fetched, or they are more than the cache may hold.
        OutputError: the cache can't be written to.
    """
    url = url_of(path)
    if url is None:
        return path
    files = {name: entry for name, entry in list_files(url).items() if wanted(name)}
    here, known = mirror_of(url), hashes or {}
    with cache_faults(here):
        for name in _files_below(here) - files.keys():
            if wanted(name):  # gone from there
                (here / name).unlink(missing_ok=True)
    size, limit = sum(entry.size or 0 for entry in files.values()), cache_bytes()
    if size > limit:
        raise RemoteError(
            f"has {size / 1e9:.3g} GB in {len(files)} files, more than the cache may hold ({limit / 1e9:.3g} GB)",
            where=url, fix=f"Set {SIZE_VARIABLE}, or copy it to a folder here",
        )  # fmt: skip
    missing = {name: entry for name, entry in files.items() if not _is_there(here / name, entry, known.get(name))}
    if missing:
        make_room(limit - sum(entry.size or 0 for entry in missing.values()))

        def one(name: str) -> None:
            _bring(f"{url}/{name}", here / name, missing[name], known.get(name), network.PAUSES)

        if len(missing) > _MANY:
            _log.info(
                "%s: fetching %d files, %.3g GB", url, len(missing), sum(e.size or 0 for e in missing.values()) / 1e9
            )
        last = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                for done, _ in enumerate(pool.map(one, missing), 1):
                    if time.monotonic() - last > _BETWEEN:
                        last = time.monotonic()
                        _log.info("%s: fetched %d of %d files", url, done, len(missing))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return here


def list_files(url: str) -> dict[str, Entry]:
    """The files below a URL, by their path in it, sorted; of a web server, those that its pages link to.

    Names that lead out of the folder are left out.

    Raises:
        RemoteError: it can't be reached.
    """

    def find() -> dict[str, Entry]:
        system, path = open_system(url)
        system.invalidate_cache()
        depth = {"maxdepth": _DEPTH} if is_web(url) else {}
        start = path.rstrip("/") + "/"
        found = system.find(path, detail=True, **depth)
        names = {name.removeprefix(start): info for name, info in found.items() if name.startswith(start)}
        return {name: _entry(info) for name, info in sorted(names.items()) if _stays(name)}

    try:
        return patiently(url, find, first_pauses())
    except (FileNotFoundError, NotADirectoryError):
        return {}


def mirror_of(url: str) -> Path:
    """The file or folder in the cache that stands for a URL. Raises RemoteError where it would lie elsewhere."""
    path = Path(url.rstrip("/"))
    if ".." in path.parts:
        raise RemoteError("has .. in it", where=url)
    return mirror_root() / path


def place_here(path: Path) -> Path:
    """A path of this machine as it is; of a URL, the file or folder in the cache that stands for it."""
    url = url_of(path)
    return path if url is None else mirror_of(url)


def _entry(info: Mapping[str, Any]) -> Entry:
    size, marks = info.get("size"), [str(info[key]) for key in _MARKS if info.get(key) is not None]
    mark = int(hashlib.sha256(repr((size, marks)).encode()).hexdigest()[:12], 16) if marks else 0
    return Entry(size if isinstance(size, int) else None, mark)


def _stays(name: str) -> bool:
    """Whether a name that a server gave is one of a file in the folder."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _files_below(folder: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(where, name), folder).replace(os.sep, "/")
        for where, _, names in os.walk(folder)
        for name in names
    }


def _is_there(path: Path, entry: Entry, sha256: str | None) -> bool:
    """Whether a copy need not be fetched again; it is used now."""
    try:
        stat = path.stat()
        if entry.size is not None and stat.st_size != entry.size:
            return False
        if sha256 is None and (not entry.mark or stat.st_mtime_ns != entry.mark):
            return False
        if sha256 is not None and sha256_file(path) != sha256:
            return False
        os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))
    except OSError:
        return False
    return True


def _bring(url: str, path: Path, entry: Entry, sha256: str | None, pauses: Sequence[float]) -> None:
    """Fetch a file. Its time of change here is its mark, so that a changed one is seen (also by `shard`)."""
    fetch(url, path, size=entry.size, sha256=sha256, pauses=pauses)
    with cache_faults(path):
        os.utime(path, ns=(time.time_ns(), entry.mark))


# --- fetching ---------------------------------------------------------------------------------------------------------


def fetch(url: str, path: Path, *, size: int | None, sha256: str | None, pauses: Sequence[float] | None = None) -> None:
    """Fetch a file, checked before it takes its name.

    Raises:
        FileNotFoundError: there is none.
        RemoteError: it can't be fetched, or is not as said.
        OutputError: the cache can't be written to.
    """

    def download() -> None:
        system, there = open_system(url)
        system.get_file(there, str(temporary))
        have = temporary.stat().st_size
        if size is not None and have != size:
            raise Damaged(f"has {have} bytes, but {'the manifest' if sha256 else 'its server'} says {size}")
        if sha256 is not None and sha256_file(temporary) != sha256:
            raise Damaged("its content does not match its sha256")

    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    with cache_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            patiently(url, download, network.PAUSES if pauses is None else pauses)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def fetch_once(url: str, path: Path, size: int, sha256: str) -> None:
    """`fetch` a file of the cache that another process may be fetching too; room is made for it.

    A warning says when it has been here before.
    """
    limit = cache_bytes()
    with cache_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), printable(url), wait=True):
            if path.exists():  # another process was first
                return
            if sha256 in _fetched:
                _log.warning(
                    "%s: fetched again, for the cache of %.3g GB is too small for these shards: set %s",
                    url, limit / 1e9, SIZE_VARIABLE,
                )  # fmt: skip
            make_room(limit - size)
            fetch(url, path, size=size, sha256=sha256)
            _fetched.add(sha256)


# --- the cache --------------------------------------------------------------------------------------------------------


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


@contextmanager
def cache_faults(path: Path) -> Iterator[None]:
    """`output_faults`, of the cache; that something is missing at a URL passes."""
    try:
        with output_faults(path):
            try:
                yield
            except FileNotFoundError as error:
                missing = error
            else:
                return
        raise missing
    except OutputError as error:
        fix = f"See to the cache's folder, or name another one by {FOLDER_VARIABLE}"
        raise OutputError(error.what, where=error.where, fix=fix) from error


def make_room(limit: float) -> None:
    """Remove files of the cache, the least recently used first, until at most `limit` bytes are left.

    Files of folders (of runs and datasets) are read by others than us, so those that were used in the last day stay.
    """
    now, total = time.time(), 0
    files = []
    for path, of_folder in _cached():
        with suppress(OSError):  # another process has removed it
            stat = path.stat()
            total += stat.st_size
            used = stat.st_atime if of_folder else stat.st_mtime
            if path.suffix == ".tar" and not of_folder or now - used > _DAY:
                files.append((used, stat.st_size, path))
    for _, size, path in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _cached() -> Iterator[tuple[Path, bool]]:
    """The files that we have put into the cache, whose folder may hold others too; and whether each is of a folder."""
    with suppress(FileNotFoundError):
        yield from ((path, False) for path in shards_folder().iterdir() if _SHARD.match(path.name))
    for where, _, names in os.walk(mirror_root()):
        yield from ((Path(where, name), True) for name in names)


def shards_folder() -> Path:
    """Where shards are kept, by their hash."""
    return cache_folder() / "shards"
