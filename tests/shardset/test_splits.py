from __future__ import annotations

from pathlib import Path

import pytest

from labelmerge.errors import ShardError
from labelmerge.shardset.splits import find_splits

from ..loading.toy_shards import Toy

STREETS = Toy("streets", ("road", "sky", "car"))


def test_splits_are_found_at_any_depth_in_order_and_once(tmp_path: Path) -> None:
    train = STREETS.write(tmp_path)
    val = Toy("streets", STREETS.names, split="val").write(tmp_path)
    other = Toy("rooms", ("wall", "bed")).write(tmp_path)
    deep = Toy("rooms", ("wall", "bed"), split="val").write(tmp_path / "a/b/c")
    assert find_splits([tmp_path], "train") == sorted([train, other])
    assert find_splits([tmp_path]) == sorted([train, val, other, deep])
    assert find_splits([tmp_path / "streets", train, tmp_path], "train") == sorted([train, other])


def test_a_split_that_is_named_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    val = Toy("streets", STREETS.names, split="val").write(tmp_path)
    assert find_splits([val], "train") == [val]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    train = STREETS.write(tmp_path / "disk")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "streets").symlink_to(tmp_path / "disk" / "streets")
    (tmp_path / "disk" / "streets" / "all").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "itself").symlink_to(tmp_path / "disk" / "itself")
    assert [path.resolve() for path in find_splits([tmp_path / "shards"])] == [train]


def test_missing_empty_other_and_unfinished_splits_have_a_message_each(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder = Toy("streets", STREETS.names, split="val").write(tmp_path / "some")
    with pytest.raises(ShardError, match="no such folder"):
        find_splits([tmp_path / "nowhere"])
    with pytest.raises(ShardError, match="no shards here"):
        find_splits([tmp_path / "empty"])
    with pytest.raises(ShardError, match="no train shards here, only val"):
        find_splits([tmp_path / "some"], "train")
    (folder / "manifest.json").unlink()
    for path in (folder, tmp_path / "some"):
        with pytest.raises(ShardError, match="unfinished.*shard --part"):
            find_splits([path], "val")


def test_unfinished_splits_are_found_where_they_are_asked_for(tmp_path: Path) -> None:
    finished = STREETS.write(tmp_path)
    tars = Toy("streets", STREETS.names, split="val").write(tmp_path)
    (tars / "manifest.json").unlink()
    begun = tmp_path / "rooms" / "train"
    (begun / ".unfinished").mkdir(parents=True)
    (tmp_path / "rooms" / ".train-work").mkdir()
    assert find_splits([tmp_path], unfinished=True) == sorted([finished, tars, begun])
