"""Shards at a URL: fetched through fsspec when they are first needed, checked, and kept in a cache of bounded size.

A split at a URL has a folder here that holds its manifest alone (`find_remote`); whatever reads manifests reads that.
Its shards are files of the cache named by their SHA-256, so equal shards of different URLs are fetched once.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from labelmerge.errors import LabelmergeError, OutputError, ShardError, printable
from labelmerge.files import locked, output_faults, sha256_file, write_bytes
from labelmerge.shardset.cache import FOLDER_VARIABLE, SIZE_VARIABLE, cache_bytes, cache_folder, local_folder
from labelmerge.shardset.croissant import CROISSANT
from labelmerge.shardset.manifest import MANIFEST

T = TypeVar("T")

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds between tries: in a long run, an outage of a minute is waited for
_FIRST_PAUSES = 3  # of them at the start of a run, when an address may be mistyped
_DOWNLOADS = 3  # of a shard that arrives damaged
_DEPTH = 5  # of links that are followed on a web server
_CONNECT, _SILENCE = 30.0, 120.0  # seconds
_DAY = 86400.0  # after which an unfinished download is no other process's
_INSTALL = "pip install 'labelmerge-seg[remote]'"
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")  # botocore's, which need not be installed
_SCHEMES_OF_WEB = ("http", "https")

_log = logging.getLogger(__name__)
_fetched: set[str] = set()


class _Damaged(Exception):
    """What has arrived is not what the manifest says."""


# --- splits -----------------------------------------------------------------------------------------------------------


def find_remote(url: str) -> tuple[Path, list[Path]]:
    """The splits at or below a URL, their manifests fetched.

    Returns:
        The folder here that stands for `url`, and those of the splits, which lie in it or are it. That of an unfinished
        split (tars without a manifest) has no manifest.

    Raises:
        ShardError: it can't be reached or read, or nothing is there.
    """
    url = url.rstrip("/")
    top = local_folder(url)
    if _fetch_manifest(url):
        return top, [top]
    files = [name for name in _list(url) if not any(part.startswith(".") for part in name.split("/"))]
    manifests = {name.rpartition("/")[0] for name in files if name.rpartition("/")[2] == MANIFEST}
    tars = {name.rpartition("/")[0] for name in files if name.endswith(".tar")}
    if not manifests | tars:
        web = url.partition(":")[0] in _SCHEMES_OF_WEB
        fix = "Give the URL of a split itself, …/DATASET/SPLIT: a web server need not list its folders" if web else None
        raise ShardError("no shards here", where=url, fix=fix or "Give the URL of what `labelmerge shard` wrote")
    for name in sorted(manifests | tars):
        below = f"{url}/{name}" if name else url
        if name not in manifests or not _fetch_manifest(below):
            (local_folder(below) / MANIFEST).unlink(missing_ok=True)
    return top, [top / name for name in sorted(manifests | tars)]


def _fetch_manifest(url: str) -> bool:
    """Bring a split's manifest here, and its Croissant description, where it has one; False where there is none."""
    folder = local_folder(url)
    for name in (MANIFEST, CROISSANT):
        there = f"{url}/{name}"
        try:
            data = _patiently(there, partial(_cat, there), _PAUSES[:_FIRST_PAUSES])
        except FileNotFoundError:
            if name == MANIFEST:
                return False
            (folder / name).unlink(missing_ok=True)
        else:
            with _cache_faults(folder / name):
                write_bytes(folder / name, data)
    return True


def _list(url: str) -> list[str]:
    """The files below a URL, relative to it."""

    def find() -> list[str]:
        system, path = _open_system(url)
        depth = {"maxdepth": _DEPTH} if url.partition(":")[0] in _SCHEMES_OF_WEB else {}
        names = system.find(path, **depth)
        return [name.removeprefix(start) for name in names if name.startswith(start := path.rstrip("/") + "/")]

    try:
        return _patiently(url, find, _PAUSES[:_FIRST_PAUSES])
    except (FileNotFoundError, NotADirectoryError):
        return []


def _cat(url: str) -> bytes:
    system, path = _open_system(url)
    data: bytes = system.cat_file(path)
    return data


# --- shards -----------------------------------------------------------------------------------------------------------


def open_remote(url: str, size: int, sha256: str) -> IO[bytes]:
    """A shard, from the cache or fetched into it, open to be read (unbuffered).

    An open file can be read to its end, also if the cache lets go of it meanwhile.

    Args:
        url: where it is.
        size, sha256: its bytes, and their hash in hexadecimal digits, as the manifest says.

    Raises:
        ShardError: it can't be had, or is not as the manifest says.
        OutputError: the cache can't be written to.
    """
    path = cache_folder() / "shards" / f"{sha256}.tar"
    with _cache_faults(path):
        while True:
            try:
                stream = path.open("rb", buffering=0)
            except FileNotFoundError:
                _fetch(url, size, sha256, path)
                continue
            with suppress(OSError):
                os.utime(path)  # used now: the cache lets go of what was used least recently
            return stream


def _fetch(url: str, size: int, sha256: str, path: Path) -> None:
    limit = cache_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), printable(url), wait=True):
        if path.exists():  # another process was first
            return
        if sha256 in _fetched:
            _log.warning(
                "%s: fetched again, for the cache of %.3g GB is too small for these shards: set %s",
                url, limit / 1e9, SIZE_VARIABLE,
            )  # fmt: skip
        _make_room(path.parent, limit - size)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")

        def download() -> None:
            system, there = _open_system(url)
            system.get_file(there, str(temporary))
            if (have := temporary.stat().st_size) != size:
                raise _Damaged(f"has {have} bytes, but the manifest says {size}")
            if sha256_file(temporary) != sha256:
                raise _Damaged("its content does not match the manifest's sha256")

        try:
            _patiently(url, download, _PAUSES)
            os.replace(temporary, path)
        except FileNotFoundError as error:
            raise ShardError("the manifest lists this shard, but it is missing", where=url) from error
        finally:
            temporary.unlink(missing_ok=True)
        _fetched.add(sha256)


@contextmanager
def _cache_faults(path: Path) -> Iterator[None]:
    """`output_faults`, of the cache."""
    try:
        with output_faults(path):
            yield
    except OutputError as error:
        fix = f"See to the cache's folder, or name another one by {FOLDER_VARIABLE}"
        raise OutputError(error.what, where=error.where, fix=fix) from error


def _make_room(folder: Path, limit: float) -> None:
    """Remove shards, the least recently used first, until at most `limit` bytes are left."""
    files = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process has removed it
            stat = path.stat()
            if path.suffix == ".tar" or time.time() - stat.st_mtime > _DAY:
                files.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


# --- the network ------------------------------------------------------------------------------------------------------


def _open_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises ShardError where the package for it is missing."""
    import fsspec

    scheme = url.partition(":")[0]
    options: dict[str, Any] = {}
    try:
        if scheme in _SCHEMES_OF_WEB:
            import aiohttp

            patience = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
            options = {"client_kwargs": {"timeout": patience, "trust_env": True}, "use_listings_cache": False}
        system, path = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        missing = f"the Python package {error.name}" if error.name else str(error).rstrip(".")
        raise ShardError(f"reading {scheme}:// needs a package: {missing}", where=url, fix=_INSTALL) from error
    except ValueError as error:
        raise ShardError(f"{scheme}:// is no kind of address that fsspec knows ({error})", where=url) from error
    return system, path


def _patiently(url: str, action: Callable[[], T], pauses: Sequence[float]) -> T:
    """The result of `action`, tried again with growing pauses while the connection is lost or what arrives is damaged.

    Raises:
        FileNotFoundError, NotADirectoryError: nothing is there.
        OSError: the disk here is full, or can't be written to.
        ShardError: it is refused, or was tried often enough.
    """
    damaged = 0
    for pause in (*pauses, None):
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError, LabelmergeError):
            raise
        except _Damaged as error:
            damaged += 1
            if damaged == _DOWNLOADS or pause is None:
                fix = "Upload it again as it was written, with its manifest.json"
                raise ShardError(f"{error} ({damaged} downloads)", where=url, fix=fix) from error
            fault = str(error)
        except Exception as error:  # each file system has errors of its own
            if isinstance(error, OSError) and (
                error.errno in (errno.ENOSPC, errno.EDQUOT) or str(error.filename).startswith(str(cache_folder()))
            ):
                raise  # of the disk here
            fault = _in_short(error)
            if _is_refusal(error):
                raise ShardError(f"is refused ({fault})", where=url, fix="See to your access to it") from error
            if pause is None:
                fix = "See to the connection, and run again: what was fetched is kept"
                tries = len(pauses) + 1
                raise ShardError(f"can't be fetched, {tries} tries ({fault})", where=url, fix=fix) from error
        _log.info("%s: %s: trying again in %g s", url, fault, pause)
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _is_refusal(error: Exception) -> bool:
    """Whether a server has said that it won't, so that asking again is of no use."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    return isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS


def _in_short(error: Exception) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if isinstance(status, int):
        return f"{status} {message or ''}".rstrip()
    return (str(error).splitlines() or [""])[0] or type(error).__name__
