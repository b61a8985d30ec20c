"""An S3 server on loopback (moto's) that has faults on demand, and the environment that leads s3fs to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .loopback import served

BUCKET = "bucket"


@dataclass
class S3:
    """The server.

    Attributes:
        endpoint: its address.
        faults: what is wrong with the next answers to a GET, by name of a file: a status, ``cut`` (the connection ends
            early), ``changed`` (a byte is another) or ``slow``.
        refused: statuses of the next answers to a PUT, by name of a file.
        asked: how often each file was fetched.
    """

    endpoint: str = ""
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    refused: dict[str, list[int]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def put(self, folder: Path, name: str) -> str:
        """Upload a folder; returns its URL."""
        import s3fs

        s3fs.S3FileSystem().put(str(folder), f"{BUCKET}/{name}", recursive=True)
        return f"s3://{BUCKET}/{name}"

    def write(self, url: str, data: bytes | None) -> None:
        """Make this the content of a file; None: remove it."""
        import s3fs

        system = s3fs.S3FileSystem()
        if data is None:
            system.rm(url)
        else:
            system.pipe_file(url, data)

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
        }


def _with_faults(s3: S3, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = str(environ["PATH_INFO"]).rpartition("/")[2]
        if environ["REQUEST_METHOD"] == "PUT" and s3.refused.get(name):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{s3.refused[name].pop(0)} Fault", [("Content-Length", "0")])
            return []
        if environ["REQUEST_METHOD"] != "GET" or name in ("", BUCKET):
            return application(environ, start_response)
        s3.asked[name] += 1
        fault = faults.pop(0) if (faults := s3.faults.get(name)) else None
        if isinstance(fault, int):
            start_response(f"{fault} Fault", [("Content-Length", "0")])
            return []
        if fault == "slow":
            time.sleep(0.2)
        body = b"".join(application(environ, start_response))
        if fault == "cut":
            return [body[: len(body) // 2]]  # the server ends the connection before Content-Length
        return [body[:-1] + bytes([body[-1] ^ 1])] if fault == "changed" else [body]

    return answer


@contextmanager
def serving_s3() -> Iterator[S3]:
    """An S3 server with the empty bucket `BUCKET` while the block runs."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):  # type: ignore[misc]  # a package without types
        def log(self, *_: object) -> None:
            pass

    s3 = S3()
    application = _with_faults(s3, DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    with served(server) as s3.endpoint:
        yield s3
