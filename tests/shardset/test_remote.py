"""Shards at a URL: a real server with faults, fsspec's memory, a small cache, several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from labelmerge import network, remote
from labelmerge.errors import ConfigError, LabelmergeError, OutputError, RemoteError, ShardError
from labelmerge.files import write_text
from labelmerge.loading.augment import Augmentation
from labelmerge.loading.datasets import group_by_dataset
from labelmerge.loading.mixture import Mixture
from labelmerge.remote import cache_bytes
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.urls import url_of

from ..loading.test_mixture import batches_of, same
from ..loading.toy_shards import Toy
from .web_server import Web, serving

STREETS = Toy("streets", ("road", "sky", "car"))
FIRST, SECOND = "streets-train-000000.tar", "streets-train-000001.tar"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and no pauses between tries."""
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LABELMERGE_CACHE_GB", raising=False)
    monkeypatch.setattr(network, "PAUSES", (0.0,) * 4)
    monkeypatch.setattr(remote, "_fetched", set())
    return tmp_path / "cache"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    STREETS.write(tmp_path / "there")
    with serving(tmp_path / "there") as web:
        yield web


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    """The same shards, and more, at a memory:// URL."""
    STREETS.write(tmp_path / "there")
    Toy("streets", STREETS.names, split="val").write(tmp_path / "there")
    Toy("rooms", ("wall", "bed")).write(tmp_path / "there/deep/er")
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "there"), "/data", recursive=True)
    yield "memory://data"
    system.rm("/data", recursive=True)


def opened(url: str) -> ShardSet:
    (folder,) = find_splits([Path(url)], "train")
    return ShardSet.open(folder)


def assert_same(shards: ShardSet, local: Path) -> None:
    own = ShardSet.open(local)
    assert len(shards) == len(own) and shards.manifest_sha256 == own.manifest_sha256
    for number in range(len(own)):
        one, other = shards.fetch(number), own.fetch(number)
        assert (one.key, one.members) == (other.key, other.members)


def tars(cache: Path) -> set[str]:
    assert not list(cache.rglob("*.tmp")) and not list(cache.rglob("*.lock"))
    return {path.name for path in (cache / "shards").glob("*")}


def test_paths_and_urls() -> None:
    assert url_of(Path("s3://bucket/a/b")) == "s3://bucket/a/b"
    assert url_of(Path("HTTP://127.0.0.1:80/a/")) == "http://127.0.0.1:80/a"
    assert url_of(Path("file:///data/a")) == "file:///data/a"
    for path in ("shards", "/data/a", "ab:c/d", "a/s3:/x", "C:/data"):
        assert url_of(Path(path)) is None


def test_splits_are_found_below_a_url_and_by_their_own(memory: str, tmp_path: Path) -> None:
    names = ["deep/er/rooms/train", "streets/train", "streets/val"]
    shown = [ShardSet.open(folder).where for folder in find_splits([Path(memory)])]
    assert shown == [f"{memory}/{name}" for name in names]
    assert len(find_splits([Path(memory)], "train")) == 2
    val = Path(f"{memory}/streets/val")
    assert [ShardSet.open(folder).where for folder in find_splits([val], "train")] == [url_of(val)]
    assert_same(opened(f"{memory}/streets"), tmp_path / "there/streets/train")


def test_what_is_not_there_has_a_message_each(memory: str) -> None:
    with pytest.raises(ShardError, match="memory://nothing: no shards here"):
        find_splits([Path("memory://nothing")])
    with pytest.raises(ShardError, match="memory://data: no test shards here, only train, val"):
        find_splits([Path(memory)], "test")
    fsspec.filesystem("memory").rm("/data/streets/val/manifest.json")
    with pytest.raises(ShardError, match="memory://data/streets/val: unfinished"):
        find_splits([Path(memory)])
    with pytest.raises(RemoteError, match="has .. in it"):
        find_splits([Path("memory://data/../../../elsewhere")])
    with pytest.raises(RemoteError, match="nosuch:// is no URL scheme"):
        find_splits([Path("nosuch://data")])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **_: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)
    with pytest.raises(RemoteError, match=r"s3://b/manifest.json: .* needs .*s3fs.*labelmerge-seg\[remote\]'"):
        find_splits([Path("s3://b")])


@pytest.mark.parametrize("name, refused", [("NoCredentialsError", True), ("PermissionError", True), ("Other", False)])
def test_who_may_not_read_is_told_at_once(name: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, asked = PermissionError if name == "PermissionError" else type(name, (Exception,), {}), []

    def refuse(url: str) -> tuple[Any, str]:
        asked.append(url)
        raise fault("no key")

    monkeypatch.setattr(remote, "open_system", refuse)
    what = r"is refused \(no key\)\. See to your access" if refused else r"can't be reached, 4 tries \(no key\)"
    with pytest.raises(RemoteError, match=f"s3://b/manifest.json: {what}"):
        find_splits([Path("s3://b")])
    assert len(asked) == (1 if refused else 4)


def test_shards_come_one_by_one_when_they_are_needed(web: Web, cache: Path, tmp_path: Path) -> None:
    shards = opened(web.url)
    assert (web.asked[FIRST], web.asked[SECOND]) == (0, 0)
    shards.read(0)
    shards.read(1)
    assert (web.asked[FIRST], web.asked[SECOND]) == (1, 0)
    assert_same(shards, tmp_path / "there/streets/train")
    assert_same(opened(web.url), tmp_path / "there/streets/train")
    assert (web.asked[FIRST], web.asked[SECOND]) == (1, 1)
    manifest = json.loads((tmp_path / "there/streets/train/manifest.json").read_text())
    assert tars(cache) == {f"{shard['sha256']}.tar" for shard in manifest["shards"]}


@pytest.mark.parametrize("left", [0, 512])
def test_a_cached_shard_of_another_length_is_fetched_again(left: int, web: Web, cache: Path, tmp_path: Path) -> None:
    assert_same(opened(f"{web.url}/streets/train"), tmp_path / "there/streets/train")
    for name in tars(cache):
        os.truncate(cache / "shards" / name, left)
    assert_same(opened(f"{web.url}/streets/train"), tmp_path / "there/streets/train")


def test_a_server_without_lists_takes_the_split_itself(web: Web, tmp_path: Path) -> None:
    web.listing = False
    assert_same(opened(f"{web.url}/streets/train/"), tmp_path / "there/streets/train")
    with pytest.raises(ShardError, match="no shards here.*/DATASET/SPLIT"):
        find_splits([Path(web.url)])


@pytest.mark.parametrize("fault", [500, 503, 429, "truncated", "short", "changed"])
def test_a_fault_that_passes_is_no_fault(fault: int | str, web: Web, cache: Path, tmp_path: Path) -> None:
    web.faults = {FIRST: [fault, fault], "manifest.json": [fault] if fault in (500, "truncated") else []}
    assert_same(opened(f"{web.url}/streets/train"), tmp_path / "there/streets/train")
    assert web.asked[FIRST] == 3 and len(tars(cache)) == 2


@pytest.mark.parametrize(
    "fault, tries, what",
    [
        (404, 1, "the manifest lists this shard, but it is missing"),
        (403, 1, r"is refused \(403 Forbidden\). See to your access"),
        (500, 5, r"can't be reached, 5 tries \(500 Internal Server Error\)\. See to the connection"),
        ("truncated", 5, "can't be reached, 5 tries .*See to the connection"),
        ("short", 3, r"has \d+ bytes, but the manifest says \d+ \(3 downloads\). Upload it again"),
        (
            "changed",
            3,
            r"its content does not match its sha256 \(3 downloads\). Upload it again",
        ),
    ],
)
def test_a_fault_that_stays_is_one_line(fault: int | str, tries: int, what: str, web: Web, cache: Path) -> None:
    shards = opened(web.url)
    web.faults = {FIRST: [fault] * 9}
    with pytest.raises(LabelmergeError, match=f"^{web.url}/streets/train/{FIRST}: {what}") as fault_:
        shards.read(0)
    assert "\n" not in str(fault_.value) and web.asked[FIRST] == tries and not tars(cache)
    assert shards.read(5).key.endswith("5")


def test_nobody_there() -> None:
    with pytest.raises(RemoteError, match=r"http://127.0.0.1:9/manifest.json: can't be reached, 4 tries \(.*connect"):
        find_splits([Path("http://127.0.0.1:9")])


def test_the_cache_lets_go_of_what_was_used_least_recently(
    memory: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    streets, rooms = opened(f"{memory}/streets"), opened(f"{memory}/deep")
    sizes = [shard.nbytes for shard in (*streets._shards, *rooms._shards)]
    monkeypatch.setenv("LABELMERGE_CACHE_GB", str((sum(sizes) - 1) / 1e9))
    for number in (0, 4):
        streets.read(number)
        time.sleep(0.02)
    with streets._shards[0].open() as stream:  # in use, and used after the second
        time.sleep(0.02)
        rooms.read(0)
        rooms.read(4)
        assert tars(cache) == {f"{s.sha256}.tar" for s in (streets._shards[0], *rooms._shards)}
        for path in (cache / "shards").glob("*.tar"):
            path.unlink()
        assert stream.read() == (tmp_path / "there/streets/train" / FIRST).read_bytes()
    assert "too small" not in caplog.text
    assert_same(streets, tmp_path / "there/streets/train")
    assert "LABELMERGE_CACHE_GB" in caplog.text
    monkeypatch.setenv("LABELMERGE_CACHE_GB", "1e-9")  # smaller than a shard: one at a time
    (cache / "shards" / f"{streets._shards[0].sha256}.tar").unlink()
    assert streets.read(0).key and len(tars(cache)) == 1


def test_what_a_dead_process_left_goes_when_there_is_no_room(memory: str, cache: Path, tmp_path: Path) -> None:
    shards = opened(f"{memory}/streets")
    shards.read(0)
    old, new = (cache / f"shards/.{letter * 64}.tar.1.tmp" for letter in "ab")
    others = [cache / "shards/mine.tar", cache / "shards/streets/train/mine.tar", cache / "mine/thesis.tex"]
    for path in (old, new, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0" * 100)
    for path in (old, *others):
        os.utime(path, (0, 0))
    remote.make_room(0)
    left = {path for path in cache.rglob("*") if path.is_file() and not path.is_relative_to(cache / "urls")}
    assert left == {new, *others}  # the folder that the user named may hold other files


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_size_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_CACHE_GB", text)
    with pytest.raises(ConfigError, match=f"LABELMERGE_CACHE_GB: '{text}' is not a number above 0"):
        cache_bytes()


def _read_all(folder: Path, numbers: list[int]) -> list[str]:
    shards = ShardSet.open(folder)
    return [shards.read(number).key for number in numbers]


def test_processes_that_race_fetch_a_shard_once(web: Web, cache: Path) -> None:
    (folder,) = find_splits([Path(web.url)])
    with multiprocessing.get_context("fork").Pool(3) as pool:  # as loaders have it: fsspec is in use already
        keys = pool.starmap(_read_all, [(folder, [0, 5, 1]), (folder, [0, 5, 1]), (folder, [5, 0, 1])])
    assert keys[0] == keys[1] and len(keys[2]) == 3
    assert (web.asked[FIRST], web.asked[SECOND]) == (1, 1) and len(tars(cache)) == 2


def test_a_cache_that_cannot_be_written_is_an_output_error(memory: str, cache: Path) -> None:
    shards = opened(f"{memory}/streets")
    (cache / "shards").write_text("in the way")
    with pytest.raises(OutputError, match="a file is where a folder must go. See to the cache.*LABELMERGE_CACHE"):
        shards.read(0)


def test_nothing_is_written_to_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="s3://bucket/x.txt: only local folders can be written to"):
        write_text(Path("s3://bucket/x.txt"), "x")
    assert not list(tmp_path.glob("s3*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_equal_bit_by_bit(workers: int, web: Web, tmp_path: Path) -> None:
    Toy("things", ("cup", "cat", "car"), "box", count=7).write(tmp_path / "there")
    mixtures = [
        Mixture(group_by_dataset(list(map(ShardSet.open, find_splits([folder])))), 6, 0, Augmentation(crop=24))
        for folder in (tmp_path / "there", Path(web.url))
    ]
    local, remote_ = (batches_of(mixed, 3, 9, workers=workers) for mixed in mixtures)
    assert len(local) == 6 and all(map(same, local, remote_))
    assert web.asked[FIRST] == 1
