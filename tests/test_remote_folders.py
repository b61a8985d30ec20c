"""Banks, runs and other folders at URLs: an S3 server with faults, and the cache that keeps what is fetched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelmerge import network
from labelmerge.bank.bank import Bank
from labelmerge.bank.versions import list_versions
from labelmerge.descriptions import read_descriptions
from labelmerge.errors import BankError, CheckpointError, DescriptionsError, LabelmergeError, RemoteError, ShardError
from labelmerge.model.checkpoint import load_checkpoint, save_checkpoint
from labelmerge.push.push import push
from labelmerge.remote import local_file, local_folder, make_room
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.urls import cache_folder, path_or_url

from .loading.toy_shards import Toy, toy_bank
from .s3_server import BUCKET, S3, serving_s3

STREETS = Toy("streets", ("road", "sky", "car"))


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    import s3fs

    with serving_s3() as s3:
        yield s3
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    import s3fs

    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LABELMERGE_CACHE_GB", raising=False)
    monkeypatch.setattr(network, "PAUSES", (0.0,) * 3)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    system = s3fs.S3FileSystem()
    system.mkdir(BUCKET)
    server.faults, server.refused, server.asked = {}, {}, type(server.asked)()
    yield server
    system.rm(BUCKET, recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.txt", "below/two.txt", "below/other.bin"):
        path = tmp_path / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "there"


def names(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_whole_or_in_part_and_only_what_has_changed_again(s3: S3, folder: Path) -> None:
    url = s3.put(folder, "f")
    here = local_folder(Path(url), lambda name: name.endswith(".txt"))
    assert names(here) == {"one.txt": "one.txt", "below/two.txt": "below/two.txt"} and path_or_url(here) == url
    assert local_folder(Path(url)) == here and names(here) == names(folder)
    assert set(s3.asked.values()) == {1}
    s3.write(f"{url}/one.txt", b"ONE.TXT")  # of the same size
    s3.write(f"{url}/below/two.txt", None)
    assert names(local_folder(Path(url))) == {"one.txt": "ONE.TXT", "below/other.bin": "below/other.bin"}
    assert (s3.asked["one.txt"], s3.asked["other.bin"]) == (2, 1)
    assert local_folder(folder) == folder


def test_a_file_comes_anew_unless_its_hash_is_known(s3: S3, folder: Path) -> None:
    import hashlib

    url = s3.put(folder, "f")
    known = hashlib.sha256(b"one.txt").hexdigest()
    for sha256, times in ((None, 1), (None, 2), (known, 2)):
        assert local_file(Path(f"{url}/one.txt"), sha256).read_text() == "one.txt" and s3.asked["one.txt"] == times
    s3.write(f"{url}/one.txt", None)
    assert not local_file(Path(f"{url}/one.txt")).exists()
    assert local_file(folder / "one.txt") == folder / "one.txt"


def test_a_fault_in_a_file_names_its_url_and_line(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/camvid.csv").write_text("index,name,description\n0,Sky\n")
    url = s3.put(tmp_path / "mine", "mine")
    file = local_folder(Path(url)) / "camvid.csv"
    with pytest.raises(DescriptionsError, match=f"^{url}/camvid.csv: line 2: "):
        read_descriptions(file)
    assert str(LabelmergeError("is odd", where=f"{file}:2")) == f"{url}/camvid.csv:2: is odd"


@pytest.mark.parametrize("fault", [500, 503, "cut", "slow"])
def test_a_fault_that_passes_is_no_fault(fault: int | str, s3: S3, folder: Path) -> None:
    url = s3.put(folder, "f")
    s3.faults = {"one.txt": [fault, fault]}
    assert names(local_folder(Path(url))) == names(folder)
    assert s3.asked["one.txt"] == (1 if fault == "slow" else 3)


@pytest.mark.parametrize(
    "fault, what",
    [(500, "can't be reached, 4 tries"), (403, "is refused"), ("cut", "can't be"), ("changed", "can't be")],
)
def test_a_fault_that_stays_is_one_line(fault: int | str, what: str, s3: S3, folder: Path) -> None:
    url = s3.put(folder, "f")
    s3.faults = {"one.txt": [fault] * 9}
    with pytest.raises(RemoteError, match=f"^{url}/one.txt: {what}") as caught:
        local_folder(Path(url))
    assert "\n" not in str(caught.value)
    assert not list(cache_folder().rglob("*.tmp"))


def test_more_than_the_cache_may_hold_is_refused_before_it_is_fetched(
    s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.put(folder, "f")
    monkeypatch.setenv("LABELMERGE_CACHE_GB", "1e-8")
    with pytest.raises(RemoteError, match=f"{url}: has .* GB in 3 files, more than .* LABELMERGE_CACHE_GB"):
        local_folder(Path(url))
    assert not s3.asked


def test_files_of_folders_go_when_unused_for_a_day(s3: S3, folder: Path) -> None:
    here = local_folder(Path(s3.put(folder, "f")))
    make_room(0)
    assert len(names(here)) == 3
    os.utime(here / "one.txt", (time.time() - 90_000, 0))
    make_room(0)
    assert set(names(here)) == {"below/two.txt", "below/other.bin"}


def test_a_name_that_leads_elsewhere_is_passed_over(s3: S3, folder: Path, tmp_path: Path) -> None:
    url, absolute = s3.put(folder, "f"), tmp_path / "evil.txt"
    s3.write(f"{url}/../../../evil", b"x")
    s3.write(f"{url}/{absolute}", b"x")
    s3.write(f"{url}/marker/", b"")
    assert names(local_folder(Path(url))) == names(folder) and not absolute.exists()


def test_a_bank_at_a_url(s3: S3, tmp_path: Path) -> None:
    bank = toy_bank([STREETS])
    bank.save(tmp_path / "bank")
    url = s3.put(tmp_path / "bank", "bank")
    for _ in range(2):
        loaded = Bank.load(Path(url))
        assert loaded.content_hash == bank.content_hash and (loaded.vectors == bank.vectors).all()
    file = f"{loaded.version}.parquet"
    assert s3.asked[file] == 1 and s3.asked["bank.json"] == 2
    assert list_versions(Path(url)) == list_versions(tmp_path / "bank")
    with pytest.raises(BankError, match=f"^{url}: the bank .* has no vector .*--out BANK"):
        loaded.rows([("rooms", 1)])
    with pytest.raises(BankError, match=f"^{url}/below: no bank here"):
        Bank.load(Path(f"{url}/below"))
    path = next((tmp_path / "cache").rglob(file))
    path.unlink()
    s3.write(f"{url}/{file}", b"other bytes")
    with pytest.raises(RemoteError, match=f"^{url}/{file}: its content does not match its sha256 .3 downloads"):
        Bank.load(Path(url))
    s3.write(f"{url}/{file}", None)
    with pytest.raises(BankError, match=f"^{url}/{file}: can't be read .*Restore"):
        Bank.load(Path(url))


def test_a_checkpoint_at_a_url(s3: S3, tmp_path: Path) -> None:
    import torch

    def save(step: int) -> None:
        save_checkpoint(
            tmp_path / "run", step=step, tensors={"w": torch.full((3,), float(step))},
            model={"name": "tiny", "embedding_dim": 3}, state={"x": 1}, config={"method": "ssiw"}, meta={},
            bank_folder_writer=toy_bank([STREETS]).save_copy, taxonomy="dataset\n",
        )  # fmt: skip

    save(2)
    save(10)
    url = s3.put(tmp_path / "run", "run")
    for where, step in ((url, 10), (f"{url}/checkpoints/step-000002", 2)):
        there = load_checkpoint(Path(where))
        assert there.step == step and there.tensors["w"].tolist() == [step] * 3
        assert there.taxonomy_file is not None and there.bank_folder is not None and len(Bank.load(there.bank_folder))
        assert path_or_url(there.folder) == f"{url}/checkpoints/step-{step:06d}"
    load_checkpoint(Path(url))
    assert s3.asked["model.safetensors"] == 2 and not s3.asked["state.pt"]
    with pytest.raises(CheckpointError, match=f"^s3://{BUCKET}/nothing: there is no checkpoint here"):
        load_checkpoint(Path(f"s3://{BUCKET}/nothing"))
    s3.write(f"{url}/checkpoints/step-000010/meta.json", b"{}")
    with pytest.raises(CheckpointError, match=f"^{url}/checkpoints/step-000010/meta.json: its format"):
        load_checkpoint(Path(url))


def test_shards_pushed_to_a_bucket_are_read_there(s3: S3, tmp_path: Path) -> None:
    STREETS.write(tmp_path / "shards")
    url = f"s3://{BUCKET}/deep/shards"
    first, second = "streets-train-000000.tar", "streets-train-000001.tar"
    s3.refused = {second: [500, 500], "manifest.json": [503]}
    assert push(tmp_path / "shards", url).uploaded.sent == 4  # two shards, a manifest, a card
    assert push(tmp_path / "shards", url).uploaded.same == 4
    (there,), (here,) = find_splits([Path(url)]), find_splits([tmp_path / "shards"])
    one, other = ShardSet.open(there), ShardSet.open(here)
    s3.faults = {first: [500, "cut"]}
    assert [one.fetch(n).members for n in range(len(one))] == [other.fetch(n).members for n in range(len(other))]
    assert (s3.asked[first], s3.asked[second]) == (3, 1)
    for path in (tmp_path / "cache/shards").iterdir():
        path.unlink()
    s3.write(f"{url}/streets/train/{first}", None)
    s3.write(f"{url}/streets/train/{second}", b"other")
    with pytest.raises(
        ShardError, match=f"^{url}/streets/train/{first}: the manifest lists this shard, but it is miss"
    ):
        one.fetch(0)
    with pytest.raises(RemoteError, match=f"^{url}/streets/train/{second}: has 5 bytes, but the manifest says"):
        one.fetch(5)


def test_who_may_not_write_and_where_no_bucket_is(s3: S3, tmp_path: Path) -> None:
    import s3fs

    toy_bank([STREETS]).save(tmp_path / "bank")
    s3.refused = {"bank.json": [403] * 9}
    with pytest.raises(RemoteError, match=f"^s3://{BUCKET}/bank/bank.json: is refused .*See to your access"):
        push(tmp_path / "bank", f"s3://{BUCKET}/bank")
    with pytest.raises(BankError, match="no bank here"):  # the index would have been the last
        Bank.load(Path(f"s3://{BUCKET}/bank"))
    with pytest.raises(RemoteError, match="^s3://mistyped/bank/.*: there is no such bucket"):
        push(tmp_path / "bank", "s3://mistyped/bank")
    assert "mistyped" not in s3fs.S3FileSystem().ls("", refresh=True)


def test_a_bucket_that_is_not_there_and_a_server_that_is_not(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    with pytest.raises(LabelmergeError, match="^s3://elsewhere/bank: no bank here"):
        Bank.load(Path("s3://elsewhere/bank"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()  # the last test of this module: making a client takes a second
    with pytest.raises(RemoteError, match="^s3://elsewhere/bank/bank.json: can't be reached, 4 tries .*connect"):
        Bank.load(Path("s3://elsewhere/bank"))
