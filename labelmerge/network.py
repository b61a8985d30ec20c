"""Talking to what holds files at URLs: fsspec's file systems, and patience with lost connections."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from labelmerge.errors import LabelmergeError, RemoteError
from labelmerge.urls import cache_folder

T = TypeVar("T")

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds between tries: in a long run, an outage of a minute is waited for
_FIRST_PAUSES = 3  # of them at the start of a run, when an address may be mistyped
_DOWNLOADS = 3  # of a file that arrives damaged
_CONNECT, _SILENCE = 30.0, 120.0  # seconds
_INSTALL = "pip install 'labelmerge-seg[remote]'"
# botocore's and Google's, which need not be installed
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
_REFUSED = ("Forbidden: ", "Bad Request: ")  # begins gcsfs' plain OSError and ValueError for 403 and 400
_GOOGLE = ("gs", "gcs")
_PATIENT = ("_request", "_get_file_request", "_get_file_concurrent")  # what gcsfs tries six times, in half a minute
_ACCESS = "See to your access to it"
_WEB = ("http", "https")

_log = logging.getLogger(__name__)


class Damaged(Exception):
    """What has arrived is not what it should be."""


def is_web(url: str) -> bool:
    """Whether it is a web server's, which need not list its folders."""
    return url.partition(":")[0] in _WEB


def is_here(url: str) -> bool:
    """Whether it is a path of this machine, so that nothing is gained by trying again."""
    return url.partition(":")[0] in ("file", "local")


def first_pauses() -> Sequence[float]:
    """Between tries at the start of a run."""
    return PAUSES[:_FIRST_PAUSES]


def open_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises RemoteError where the package for it is missing."""
    import fsspec

    scheme = url.partition(":")[0]
    options: dict[str, Any] = {}
    if scheme in _GOOGLE:  # they print a traceback at every fault, and that no credentials are needed
        for name in ("gcsfs", "google"):
            if not logging.getLogger(name).level:
                logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        if is_web(url):
            import aiohttp

            patience = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
            options = {"client_kwargs": {"timeout": patience, "trust_env": True}, "use_listings_cache": False}
        if scheme in _GOOGLE:
            kind = _google()
            return kind(), kind._strip_protocol(url)
        system, path = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        missing = f"the Python package {error.name}" if error.name else str(error).rstrip(".")
        raise RemoteError(f"{scheme}:// needs a package: {missing}", where=url, fix=_INSTALL) from error
    except ValueError as error:
        raise RemoteError(f"{scheme}:// is no URL scheme that fsspec knows ({error})", where=url) from error
    return system, path


@cache
def _google() -> Any:
    """gcsfs' file system without its own patience.

    One of our calls makes up to a dozen of its requests, one after the other: it would be minutes before it gave up.
    """
    import gcsfs
    from gcsfs.core import GCSFileSystem as Base

    once = {name: getattr(getattr(Base, name, None), "__wrapped__", None) for name in _PATIENT}
    quick = type("Quick", (Base,), {name: method for name, method in once.items() if method is not None})
    # gcsfs' own may be a subclass, whose `super()` is ours then.
    return quick if gcsfs.GCSFileSystem is Base else type("Google", (gcsfs.GCSFileSystem, quick), {})


def patiently(url: str, action: Callable[[], T], pauses: Sequence[float], access: str = _ACCESS) -> T:
    """The result of `action`, tried again with growing pauses while the connection is lost or what arrives is damaged.

    Args:
        access: what to do where a server refuses.

    Raises:
        FileNotFoundError, NotADirectoryError: nothing is there.
        OSError: the disk here is full, or can't be written to.
        RemoteError: it is refused, or was tried often enough.
    """
    damaged = 0
    for pause in (*pauses, None):
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError, LabelmergeError):
            raise
        except Damaged as error:
            damaged += 1
            if damaged == _DOWNLOADS or pause is None:
                fix = "Upload it again as it was written, with what lies beside it"
                raise RemoteError(f"{error} ({damaged} downloads)", where=url, fix=fix) from error
            fault = str(error)
        except Exception as error:  # each file system has errors of its own
            if isinstance(error, OSError) and (
                error.errno in (errno.ENOSPC, errno.EDQUOT) or str(error.filename).startswith(str(cache_folder()))
            ):
                raise  # of the disk here
            if type(error) is RuntimeError and isinstance(error.__cause__, Exception):  # the hub's client wraps so
                error = error.__cause__
            fault = _in_short(error)
            if _is_refusal(error):
                raise RemoteError(f"is refused ({fault})", where=url, fix=access) from error
            if pause is None:
                fix = "See to the connection, and run again: what was done is kept"
                tries = len(pauses) + 1
                raise RemoteError(f"can't be reached, {tries} tries ({fault})", where=url, fix=fix) from error
        _log.info("%s: %s: trying again in %g s", url, fault, pause)
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _is_refusal(error: Exception) -> bool:
    """Whether a server has said that it won't, so that asking again is of no use."""
    if isinstance(status := _status(error), int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    known = isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS
    return known or str(error).startswith(_REFUSED)


def _status(error: Exception) -> Any:
    """Of HTTP, where the error has one: aiohttp's, the hub's and gcsfs' in this order."""
    response = getattr(error, "response", None)
    return getattr(error, "status", None) or getattr(response, "status_code", None) or getattr(error, "code", None)


def _in_short(error: Exception) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    if isinstance(status, int):
        return f"{status} {message or ''}".rstrip()
    return (str(error).splitlines() or [""])[0] or type(error).__name__
