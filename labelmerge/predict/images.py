"""Which images are meant: files, folders, patterns and addresses on the web, found before anything is loaded."""

from __future__ import annotations

import glob
import logging
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from labelmerge.errors import LabelmergeError, SampleError, UsageError, near_path
from labelmerge.files import write_bytes
from labelmerge.progress import Track, no_track
from labelmerge.remote import list_files, local_file, local_folder
from labelmerge.text import counted
from labelmerge.urls import path_or_url, url_of

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp")
)
_URL = re.compile(r"https?://", re.IGNORECASE)
_MAX_BYTES = 256 * 1024**2  # of one image from the web
_SECONDS = 30.0
_MOST_SECONDS = 600.0  # for all of an image
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The images that are there, and what is wrong with the others.

    Attributes:
        files: each once, in the order in which they were asked for; those of a folder or pattern by name.
        failed: what was asked for, and the reason why it is not there.
        origins: of files that were fetched: their addresses.
    """

    files: tuple[Path, ...]
    failed: tuple[tuple[str, str], ...]
    origins: dict[Path, str]


def find_images(words: Sequence[str | Path], scratch: Path, track: Track = no_track) -> Found:
    """The images that these words mean.

    A word is a file, a folder (the image files in it, not those below), a pattern (``shots/*.jpg``, ``**`` reaches
    below), an address that begins with http:// or https://, whose image is fetched into `scratch`, or the
    URL of a file or a folder elsewhere (s3://).

    Raises:
        UsageError: none of them is there.
    """
    wanted = _wanted(words)
    files: dict[Path, None] = {}
    failed = list(wanted.failed)
    origins: dict[Path, str] = {}
    for word, here in wanted.here:
        url = url_of(Path(word)) if not here else None
        if url is not None:
            try:
                here = _at_url(Path(word), url)
            except LabelmergeError as error:
                failed.append((word, error.what))
            origins |= {each: path_or_url(each) for each in here}
        files |= dict.fromkeys(here)
    addresses = wanted.addresses
    for number, address in enumerate(track(addresses, "fetching images", len(addresses)) if addresses else ()):
        try:
            path = _fetch(address, scratch / str(number))
        except SampleError as error:
            failed.append((address, error.what))
            continue
        files[path] = None
        origins[path] = address
    _refuse_nothing(files, failed)
    for what, reason in failed:
        _log.warning("skipped %s: %s", what, reason)
    return Found(tuple(files), tuple(failed), origins)


def told_apart(files: Sequence[Path], origins: Mapping[Path, str]) -> dict[Path, str]:
    """What lists of images call each: its name, and where two have the same, its path below the folder of all of these.

    Args:
        origins: of files that were fetched, their addresses, which stand for them where names are not enough.
    """
    named: dict[str, list[Path]] = {}
    for path in files:
        named.setdefault(path.name, []).append(path)
    alike = [path for paths in named.values() if len(paths) > 1 for path in paths]
    here = [os.path.dirname(os.path.abspath(path)) for path in alike if path not in origins]
    above = os.path.commonpath(here) if here else ""

    def long(path: Path) -> str:
        return origins[path] if path in origins else Path(os.path.relpath(path, above)).as_posix()

    return {path: long(path) if len(named[path.name]) > 1 else path.name for path in files}


def refuse_absent(words: Sequence[str | Path]) -> None:
    """As `find_images`, as far as it is known without fetching anything."""
    wanted = _wanted(words)
    _refuse_nothing([*wanted.here, *wanted.addresses], wanted.failed)


@dataclass(frozen=True)
class _Wanted:
    """What words mean, before anything is fetched.

    Attributes:
        here: each word of files, and the files; none of them for a URL of fsspec's.
        addresses: on the web.
        failed: what is not there, and why.
    """

    here: list[tuple[str, list[Path]]]
    addresses: list[str]
    failed: list[tuple[str, str]]


def _wanted(words: Sequence[str | Path]) -> _Wanted:
    wanted = _Wanted([], [], [])
    for word in words:
        text, path = str(word), Path(word)
        own: list[Path] = []
        wrong = ""
        if _URL.match(text):
            wanted.addresses.append(text)
            continue
        if path.is_dir():
            own = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
            wrong = "" if own else _no_images(path)
        elif url_of(path):
            wanted.here.append((text, []))
            continue
        elif path.exists():
            own = [path]
        elif glob.has_magic(text):
            own = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if Path(name).is_file()]
            wrong = "no file matches this pattern"
        else:
            wrong = "no such file"
        if own:
            wanted.here.append((text, own))
        else:
            wanted.failed.append((text, wrong))
    return wanted


def _no_images(folder: Path) -> str:
    """What is said of a folder without images: where they are, if they lie below."""
    below = next((entry for entry in sorted(folder.rglob("*")) if entry.suffix.lower() in SUFFIXES), None)
    return (
        f"no images in this folder, but below: '{folder}/**/*{below.suffix}'" if below else "no images in this folder"
    )


def _refuse_nothing(found: Collection[object], failed: Sequence[tuple[str, str]]) -> None:
    if not found:
        first, reason = failed[0]
        more = f", and {counted(len(failed) - 1, 'other')} likewise" if len(failed) > 1 else ""
        near = near_path(Path(first), folder=False)
        raise UsageError(f"{reason}{more}", where=first, fix=near or "Give image files, folders, patterns or addresses")


def _at_url(path: Path, url: str) -> list[Path]:
    """The images at a URL of fsspec's: a file, or those in a folder. Raises LabelmergeError."""
    if path.suffix.lower() in SUFFIXES:
        here = local_file(path)
        if not here.is_file():
            raise SampleError("no such file", where=url)
        return [here]
    names = [name for name in list_files(url) if "/" not in name and Path(name).suffix.lower() in SUFFIXES]
    if not names:
        raise SampleError("no images in this folder", where=url)
    folder = local_folder(path, lambda name: name in names)
    return [folder / name for name in names]


def _fetch(address: str, folder: Path) -> Path:
    """An image from the web, as a file of the name that its address ends in. Raises SampleError."""
    import httpx

    name = _NOT_IN_NAMES.sub("_", unquote(urlsplit(address).path.rpartition("/")[2])).strip(".")[-100:] or "image"
    data = bytearray()
    ends = time.monotonic() + _MOST_SECONDS
    plain = {"Accept-Encoding": "identity"}  # images are packed already
    try:
        with httpx.stream("GET", address, follow_redirects=True, timeout=_SECONDS, headers=plain) as answer:
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > _MAX_BYTES:
                    raise SampleError(f"is larger than {_MAX_BYTES // 1024**2} MiB", where=address)
                if time.monotonic() > ends:
                    raise SampleError(f"did not arrive in {_MOST_SECONDS:.0f} s", where=address)
    except httpx.HTTPStatusError as error:
        raise SampleError(f"the server answers {error.response.status_code}", where=address) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SampleError(f"can't be fetched ({error or type(error).__name__})", where=address) from error
    path = folder / name
    write_bytes(path, bytes(data))
    return path
