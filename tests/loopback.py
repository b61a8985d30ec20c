"""Servers on the loopback interface, started and stopped alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer, ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Waits for no request when it stops, and says nothing of clients that hung up."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


@contextmanager
def served(server: HTTPServer) -> Iterator[str]:
    """Answer requests in a thread while the block runs; gives the server's address."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
