"""Shards, banks and runs on nginx, where it is installed: lists, packed answers, a slow line, one that breaks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labelmerge import network
from labelmerge.bank.bank import Bank
from labelmerge.errors import CheckpointError, RemoteError, ShardError
from labelmerge.model.checkpoint import load_checkpoint, save_checkpoint
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits

from .loading.toy_shards import Toy, toy_bank

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

STREETS = Toy("streets", ("road", "sky", "car"))
CONFIG = """
daemon off;
master_process off;
error_log stderr crit;
pid {here}/nginx.pid;
events {{ }}
http {{
    access_log off;
    {paths}
    gzip on; gzip_min_length 1; gzip_types *;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location / {{ autoindex on; }}
        location /unlisted/ {{ alias {root}/; autoindex off; }}
        location /slow/ {{ alias {root}/; autoindex on; limit_rate 10k; }}
        location ~ ^/broken/.*[.]tar$ {{ return 500; }}
        location /broken/ {{ alias {root}/; autoindex on; }}
        location /closed/ {{ return 403; }}
    }}
}}
"""


class Server:
    """nginx on a port of its own."""

    def __init__(self, here: Path, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        here.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = " ".join(f"{kind}_temp_path {here}/{kind};" for kind in kinds)
        self.config = here / "nginx.conf"
        self.config.write_text(CONFIG.format(here=here, root=root, port=self.port, paths=paths))
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        assert NGINX is not None
        self.process = subprocess.Popen([NGINX, "-p", str(self.config.parent), "-c", str(self.config)])
        for _ in range(200):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("nginx does not answer")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards, a bank and a run."""
    import torch

    root = tmp_path_factory.mktemp("there")
    STREETS.write(root / "shards")
    bank = toy_bank([STREETS])
    bank.save(root / "bank")
    save_checkpoint(
        root / "run", step=3, tensors={"w": torch.ones(3)}, model={"name": "tiny", "embedding_dim": 3}, state={},
        config={}, meta={}, bank_folder_writer=bank.save_copy, taxonomy="dataset\n",
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def server(there: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("nginx") / "here", there)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(network, "PAUSES", (0.05,) * 4)


def samples(where: Path) -> list[Any]:
    (split,) = find_splits([where])
    shards = ShardSet.open(split)
    return [shards.fetch(number).members for number in range(len(shards))]


@pytest.mark.parametrize("place", ["", "/slow"])
def test_what_is_read_there_is_what_lies_here(place: str, server: Server, there: Path) -> None:
    assert samples(Path(f"{server.url}{place}/shards")) == samples(there / "shards")
    assert Bank.load(Path(f"{server.url}{place}/bank")).content_hash == Bank.load(there / "bank").content_hash
    checkpoint = load_checkpoint(Path(f"{server.url}{place}/run"))
    assert checkpoint.step == 3 and checkpoint.bank_folder is not None and len(Bank.load(checkpoint.bank_folder)) == 3


def test_what_a_server_does_not_list_is_named(server: Server, there: Path) -> None:
    assert samples(Path(f"{server.url}/unlisted/shards/streets/train")) == samples(there / "shards")
    with pytest.raises((ShardError, RemoteError), match="unlisted/shards"):
        find_splits([Path(f"{server.url}/unlisted/shards")])
    with pytest.raises((CheckpointError, RemoteError), match="unlisted/run"):
        load_checkpoint(Path(f"{server.url}/unlisted/run"))


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("broken", r"\.tar: can't be reached, 5 tries \(500 Internal Server Error\)"),
        ("closed", r"manifest.json: is refused \(403 Forbidden\)"),
    ],
)
def test_what_the_server_says_is_one_line(place: str, what: str, server: Server) -> None:
    with pytest.raises(RemoteError, match=f"^{server.url}/{place}/shards/streets/train/.*{what}") as caught:
        samples(Path(f"{server.url}/{place}/shards/streets/train"))
    assert "\n" not in str(caught.value)


def test_a_server_that_comes_back_is_waited_for(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path / "here", there)
    monkeypatch.setattr(network, "PAUSES", (0.2,) * 10)
    (split,) = find_splits([Path(f"{server.url}/shards")])
    shards = ShardSet.open(split)
    server.stop()
    back: Callable[[], None] = server.start
    again = threading.Timer(0.5, back)
    again.start()
    try:
        assert shards.read(0).key
    finally:
        again.join()
        server.stop()
    monkeypatch.setattr(network, "PAUSES", (0.0,) * 2)
    with pytest.raises(RemoteError, match="can't be reached, 3 tries .*See to the connection"):
        shards.read(5)
