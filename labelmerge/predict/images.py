"""Which images are meant: files, folders, patterns and addresses on the web, found before anything is loaded."""

from __future__ import annotations

import glob
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from labelmerge.errors import LabelmergeError, SampleError, UsageError
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
    files: dict[Path, None] = {}
    failed: list[tuple[str, str]] = []
    addresses: list[str] = []
    origins: dict[Path, str] = {}
    for word in words:
        text, path = str(word), Path(word)
        if _URL.match(text):
            addresses.append(text)
        elif path.is_dir():
            own = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
            if not own:
                failed.append((text, "no images in this folder"))
            files |= dict.fromkeys(own)
        elif url := url_of(path):
            try:
                found = _at_url(path, url)
            except LabelmergeError as error:
                failed.append((text, error.what))
                continue
            files |= dict.fromkeys(found)
            origins |= {each: path_or_url(each) for each in found}
        elif path.exists():
            files[path] = None
        elif glob.has_magic(text):
            matched = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if Path(name).is_file()]
            if not matched:
                failed.append((text, "no file matches this pattern"))
            files |= dict.fromkeys(matched)
        else:
            failed.append((text, "no such file"))
    for number, address in enumerate(track(addresses, "fetching images", len(addresses)) if addresses else ()):
        try:
            path = _fetch(address, scratch / str(number))
        except SampleError as error:
            failed.append((address, error.what))
            continue
        files[path] = None
        origins[path] = address
    if not files:
        first, reason = failed[0]
        more = f", and {counted(len(failed) - 1, 'other')} likewise" if len(failed) > 1 else ""
        raise UsageError(f"{reason}{more}", where=first, fix="Give image files, folders, patterns or addresses")
    for what, reason in failed:
        _log.warning("skipped %s: %s", what, reason)
    return Found(tuple(files), tuple(failed), origins)


def refuse_absent(words: Sequence[str | Path]) -> None:
    """As `find_images`, where none of the words is anything that could be there; nothing is fetched or loaded."""
    if not any(
        _URL.match(str(word)) or url_of(Path(word)) or Path(word).exists() or glob.glob(str(word)) for word in words
    ):
        find_images(words, Path())


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
