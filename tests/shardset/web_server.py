"""A web server on loopback that serves a folder and has faults on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

from ..loopback import QuietServer, served


@dataclass
class Web:
    """The server.

    Attributes:
        url: of the folder.
        faults: what is wrong with the next answers, by name of a file: a status, ``truncated`` (the connection ends
            early), ``short`` (the last byte is missing, and the server does not know it) or ``changed``.
        asked: how often each path was asked for.
        listing: whether folders are listed.
    """

    url: str = ""
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    listing: bool = True


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, web: Web, *args: Any, **more: Any) -> None:
        self.web = web
        super().__init__(*args, **more)

    def log_message(self, *_: object) -> None:
        pass

    def list_directory(self, path: Any) -> Any:
        if self.web.listing:
            return super().list_directory(path)
        self.send_error(404)
        return None

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.web.asked[name] += 1
        fault = faults.pop(0) if (faults := self.web.faults.get(name)) else None
        if isinstance(fault, int):
            self.send_error(fault)
        elif fault is None:
            super().do_GET()
        else:
            data = Path(self.translate_path(self.path)).read_bytes()
            sent = data[: len(data) // 2] if fault == "truncated" else data[:-1]
            sent += b"!" if fault == "changed" else b""
            self.send_response(200)
            self.send_header("Content-Length", str(len(data) if fault == "truncated" else len(sent)))
            self.end_headers()
            self.wfile.write(sent)


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve `folder` while the block runs."""
    web = Web()
    with served(QuietServer(("127.0.0.1", 0), partial(_Handler, web, directory=str(folder)))) as web.url:
        yield web
