from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError
from labelmerge.merge.counts import Count, read_counts

from ..loading.toy_shards import Toy, write_split


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    return make_bank({("a", 0): ("road", [1.0, 0]), ("a", 1): ("sky", [0, 1.0]), ("b", 0): ("cup", [1.0, 1.0])})


def manifest(folder: Path, dataset: str, names: list[str], kind: str = "mask", **fields: Any) -> Path:
    changes = {"class_pixels": {}, "class_boxes": {}, "members": ["jpg", "json"], **fields}
    toy = Toy(dataset, tuple(names), kind, split=folder.name, changes=changes)
    return write_split(folder, toy, [])


def test_splits_are_added_up(bank: Bank, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = manifest(tmp_path / "a" / "train", "a", ["road", "sky"], class_pixels={"0": 3})
    manifest(tmp_path / "a" / "val", "a", ["road", "sky"], class_pixels={"0": 4, "1": 1}, class_boxes={"1": 2})
    manifest(tmp_path / "b" / "train", "b", ["cup"], class_boxes={"0": 9}, kind="box")
    with caplog.at_level(logging.WARNING, "labelmerge"):
        manifest(tmp_path / "c" / "train", "c", ["what"])
        assert read_counts([tmp_path, train], bank) == {
            ("a", 0): Count(7, 0),
            ("a", 1): Count(1, 2),
            ("b", 0): Count(None, 9),
        }
    assert "the bank has no labels of c" in caplog.text


def test_other_shards_than_the_banks_are_refused(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no shards here"):
        read_counts([tmp_path], bank)
    folder = manifest(tmp_path / "a" / "train", "a", ["road", "heaven"])
    with pytest.raises(ShardError, match="label 1 of a is 'heaven' in these shards, in the bank 'sky'"):
        read_counts([tmp_path], bank)
    for content in ("{", "[]", "{}", '{"format": "labelmerge-shards/2", "label_space": 3}'):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(ShardError, match="manifest.json: "):
            read_counts([tmp_path], bank)
