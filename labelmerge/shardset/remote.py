"""Shards at a URL: fetched when they are first needed, checked, and kept in the cache.

A split at a URL has a folder here that holds its manifest alone (`find_remote`); whatever reads manifests reads that.
Its shards are files of the cache named by their SHA-256, so equal shards of different URLs are fetched once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from labelmerge.errors import ShardError
from labelmerge.network import is_web
from labelmerge.remote import cache_faults, fetch_once, list_files, local_file, mirror_of, shards_folder
from labelmerge.shardset.croissant import CROISSANT
from labelmerge.shardset.manifest import MANIFEST


def find_remote(url: str) -> tuple[Path, list[Path]]:
    """The splits at or below a URL, their manifests fetched.

    Returns:
        The folder here that stands for `url`, and those of the splits, which lie in it or are it. That of an unfinished
        split (tars without a manifest) has no manifest.

    Raises:
        ShardError: nothing is there.
        RemoteError: it can't be reached or read.
    """
    url = url.rstrip("/")
    top = mirror_of(url)
    if _fetch_manifest(url):
        return top, [top]
    files = [name for name in list_files(url) if not any(part.startswith(".") for part in name.split("/"))]
    manifests = {name.rpartition("/")[0] for name in files if name.rpartition("/")[2] == MANIFEST}
    tars = {name.rpartition("/")[0] for name in files if name.endswith(".tar")}
    if not manifests | tars:
        fix = "Give the URL of a split itself, …/DATASET/SPLIT: a web server need not list its folders"
        fix = fix if is_web(url) else "Give the URL of what `labelmerge shard` wrote"
        raise ShardError("no shards here", where=url, fix=fix)
    for name in sorted(manifests | tars):
        below = f"{url}/{name}" if name else url
        if name in manifests:
            _fetch_manifest(below)
        else:
            (mirror_of(below) / MANIFEST).unlink(missing_ok=True)
    return top, [top / name for name in sorted(manifests | tars)]


def _fetch_manifest(url: str) -> bool:
    """Bring a split's manifest here, and its Croissant description, where it has one; False where there is none."""
    for name in (MANIFEST, CROISSANT):
        if not local_file(Path(f"{url}/{name}")).is_file() and name == MANIFEST:
            return False
    return True


def open_remote(url: str, size: int, sha256: str) -> IO[bytes]:
    """A shard, from the cache or fetched into it, open to be read (unbuffered).

    An open file can be read to its end, also if the cache lets go of it meanwhile.

    Args:
        url: where it is.
        size, sha256: its bytes, and their hash in hexadecimal digits, as the manifest says.

    Raises:
        ShardError: it is not there.
        RemoteError: it can't be fetched, or is not as the manifest says.
        OutputError: the cache can't be written to.
    """
    path = shards_folder() / f"{sha256}.tar"
    with cache_faults(path):
        while True:
            try:
                stream = path.open("rb", buffering=0)
            except FileNotFoundError:
                try:
                    fetch_once(url, path, size, sha256)
                except FileNotFoundError as error:
                    raise ShardError("the manifest lists this shard, but it is missing", where=url) from error
                continue
            if os.fstat(stream.fileno()).st_size != size:  # as a machine that lost its power may leave it
                stream.close()
                path.unlink(missing_ok=True)
                continue
            with suppress(OSError):
                os.utime(path)  # used now: the cache lets go of what was used least recently
            return stream
