"""Shards, banks and faults at gs://, with gcsfs against Google's storage as a package emulates it on loopback."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from labelmerge import network, remote
from labelmerge.bank.bank import Bank
from labelmerge.errors import RemoteError
from labelmerge.push.push import push
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.urls import cache_folder

from .loading.toy_shards import Toy, toy_bank
from .loopback import served

STREETS = Toy("streets", ("road", "sky", "car"))


@dataclass
class Google:
    """The server. `faults` are those of the next answers with a file's content, by its name; as in `S3`."""

    endpoint: str = ""
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    from gcp_storage_emulator.handlers.buckets import create_bucket
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    monkeypatch.setattr(remote, "_fetched", set())  # the same shards may have been fetched by another test
    state, storage = Google(), Storage(use_memory_fs=True)
    create_bucket("bucket", storage)

    class Handler(RequestHandler):  # type: ignore[misc]  # a package without types
        def do_GET(self) -> None:
            name = unquote(self.path.partition("?")[0]).rpartition("/")[2]
            content = "alt=media" in self.path
            state.asked[name] += content
            fault = faults.pop(0) if content and (faults := state.faults.get(name)) else None
            if isinstance(fault, int):
                self.send_response(fault)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "changed":
                self.wfile: Any = Changed(self.wfile)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    network._google().clear_instance_cache()
    monkeypatch.setattr(network, "PAUSES", (0.0,) * 3)
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # else Google's library asks the network whether this is its machine
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with served(HTTPServer(("127.0.0.1", 0), partial(Handler, storage))) as state.endpoint:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", state.endpoint)
        yield state
    network._google().clear_instance_cache()


class Changed:
    """A stream in which the last byte that is written is another."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def test_what_is_pushed_is_read(google: Google, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    STREETS.write(tmp_path / "shards")
    toy_bank([STREETS]).save(tmp_path / "bank")
    for name in ("shards", "bank"):
        push(tmp_path / name, f"gs://bucket/{name}")
    with caplog.at_level(logging.WARNING):
        (split,) = find_splits([Path("gs://bucket/shards")])
        there, here = ShardSet.open(split), ShardSet.open(tmp_path / "shards/streets/train")
        assert [there.fetch(n).members for n in range(len(here))] == [here.fetch(n).members for n in range(len(here))]
        assert Bank.load(Path("gs://bucket/bank")).version == Bank.load(tmp_path / "bank").version
    assert caplog.messages == []  # Google's libraries say much of credentials that nobody needs here
    assert push(tmp_path / "shards", "gs://bucket/shards").uploaded.sent == 0


def test_faults_are_tried_again_or_one_line(google: Google, tmp_path: Path) -> None:
    STREETS.write(tmp_path / "shards")
    push(tmp_path / "shards", "gs://bucket/shards")
    (split,) = find_splits([Path("gs://bucket/shards")])
    tar = min(path.name for path in (tmp_path / "shards/streets/train").glob("*.tar"))
    google.faults[tar] = ["changed", 503]
    assert ShardSet.open(split).fetch(0).key
    assert google.asked[tar] == 3
    for shard in (cache_folder() / "shards").glob("*.tar"):
        shard.unlink()
    google.faults[tar] = [403]
    with pytest.raises(RemoteError, match=r"is refused \(Forbidden: .*See to your access to it") as refused:
        ShardSet.open(split).fetch(0)
    assert "\n" not in str(refused.value) and google.asked[tar] == 4


def test_a_server_that_is_gone_is_told_without_gcsfs_own_patience(
    google: Google, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match=r"gs://bucket/shards.*can't be reached, 4 tries \(Cannot connect"):
        find_splits([Path("gs://bucket/shards")])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
