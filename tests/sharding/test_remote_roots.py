"""Datasets at URLs become the same shards as in a local folder; only what a split needs is fetched, and once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from labelmerge import network
from labelmerge.catalog import load_recipe
from labelmerge.errors import LayoutError, RemoteError, ShardError
from labelmerge.remote import mirror_of
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.fetched import local_root

from .conftest import Own

URL = "memory://raw/streets"


@pytest.fixture
def there(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system that holds the dataset."""
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(network, "PAUSES", (0.0,) * 2)
    own.pairs(3)
    own.pairs(2, "val")
    (own.root / "notes.txt").write_text("of no split")
    (own.root / ".hidden").write_text("of none")
    system = fsspec.filesystem("memory")
    system.put(str(own.root), "/raw/streets", recursive=True)
    yield system
    system.rm("/raw", recursive=True)


def fetched() -> set[str]:
    folder = mirror_of(URL)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".tar", ".json")}


def test_the_shards_are_the_same_and_other_splits_stay_there(there: Any, own: Own, tmp_path: Path) -> None:
    shard(own.recipe, own.root, "train", tmp_path / "local", samples_per_shard=2)
    shard(own.recipe, Path(URL), "train", tmp_path / "remote", samples_per_shard=2)
    local, remote = content(tmp_path / "local"), content(tmp_path / "remote")
    assert remote.pop(".sources.json") != local.pop(".sources.json")  # times, which the other place has not
    assert local == remote and len(local) == 4
    train = {f"{kind}/train/{number:03d}.{end}" for kind, end in (("images", "jpg"), ("masks", "png"))
             for number in range(3)}  # fmt: skip
    assert fetched() == {*train, "notes.txt"}


def test_what_has_changed_there_is_noticed(
    there: Any, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(own.recipe, Path(URL), "train", tmp_path / "out")
    asked: list[str] = []
    real = type(there).get_file

    def get(self: Any, path: str, *args: Any, **more: Any) -> None:
        asked.append(path)
        real(self, path, *args, **more)

    monkeypatch.setattr(type(there), "get_file", get)
    shard(own.recipe, Path(URL), "train", tmp_path / "out")
    assert not asked
    there.pipe_file("/raw/streets/masks/train/001.png", there.cat("/raw/streets/masks/train/000.png"))
    with pytest.raises(ShardError, match="have changed since"):
        shard(own.recipe, Path(URL), "train", tmp_path / "out")
    assert asked == ["/raw/streets/masks/train/001.png"]


def test_what_can_go_wrong(there: Any, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LayoutError, match="^memory://raw/nothing: no such folder"):
        shard(own.recipe, Path("memory://raw/nothing"), "train", tmp_path / "out")
    with pytest.raises(LayoutError, match=f"^{URL}/masks: not laid out as my_streets"):
        shard(own.recipe, Path(f"{URL}/masks"), "train", tmp_path / "out")
    monkeypatch.setenv("LABELMERGE_CACHE_GB", "1e-9")
    with pytest.raises(RemoteError, match=f"^{URL}: has .* GB in 7 files, more than the cache may hold"):
        shard(own.recipe, Path(URL), "train", tmp_path / "out")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from labelmerge.demo.datasets import write_worlds

    return write_worlds(tmp_path_factory.mktemp("worlds"), 2, seed=0)


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "coco_panoptic", "idd", "mapillary", "openimages", "camvid"])
def test_shipped_recipes_find_at_a_url_what_they_find_here(
    name: str, worlds: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelmerge.sharding.source.locate import open_source

    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    root = worlds[name]
    split = "test" if name == "camvid" else "train"
    recipe = load_recipe(name)
    there = local_root(recipe, Path(f"file://{root}"), split)
    assert there != root and open_source(recipe, there, split).variant == open_source(recipe, root, split).variant
    out = {where: shard(recipe, place, split, tmp_path / where) for where, place in (("a", root), ("b", there))}
    assert out["a"].written == out["b"].written == out["a"].found > 0
    assert [path.read_bytes() for path in sorted((tmp_path / "a").rglob("*.tar"))] == [
        path.read_bytes() for path in sorted((tmp_path / "b").rglob("*.tar"))
    ]


def test_the_commands(there: Any, own: Own, run: Callable[..., Any], tmp_path: Path) -> None:
    result = run("shard", own.recipe_file, "--root", URL, "--split", "val", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["written"] == 2
    checked = run("shard", own.recipe_file, "--root", URL, "--check")
    assert checked.exit_code == 0 and "Would write 3 of 3 images" in checked.output, checked.output
