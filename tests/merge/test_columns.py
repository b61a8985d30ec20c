from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelmerge.errors import BankError, ShardError
from labelmerge.labels import IGNORE, LabelKey, LabelSpace
from labelmerge.loading.datasets import DatasetShards, group_by_dataset
from labelmerge.merge.columns import build_columns
from labelmerge.shardset.shardset import ShardSet
from labelmerge.train.inputs import label_counts

from ..loading.toy_shards import Toy, toy_bank
from ..train.conftest import TOYS


def open_sources(shards: Path) -> list[DatasetShards]:
    return group_by_dataset([ShardSet.open(folder) for folder in sorted(shards.glob("*/*"))])


def spaces(sources: list[DatasetShards]) -> tuple[list[LabelSpace], dict[LabelKey, int]]:
    return [source.space for source in sources], label_counts(sources)


def test_equal_texts_are_one_column(shards: Path) -> None:
    bank, sources = toy_bank(TOYS), open_sources(shards)
    columns = build_columns(bank, *spaces(sources))
    assert [source.dataset for source in sources] == ["parts", "streets", "things"]
    assert columns.texts == ("tree", "road", "sky", "car", "cup") and len(columns) == 5
    assert dict(zip(columns.texts, columns.keys, strict=True))["road"] == (("parts", 1), ("streets", 0))
    for text, vector, keys in zip(columns.texts, columns.vectors, columns.keys, strict=True):
        for key in keys:
            assert bank.texts[bank.positions([key])[0]] == text and (bank.rows([key])[0] == vector).all()
            assert columns.texts[columns.tables[key[0]][key[1]]] == text
    assert columns.tables["streets"][255] == IGNORE and columns.tables["streets"].shape == (256,)
    assert columns.allowed.tolist() == [
        [True, True, False, False, False],
        [False, True, True, True, False],
        [False, False, False, True, True],
    ]


def test_labels_that_never_occur_are_no_columns_unless_asked_for(tmp_path: Path) -> None:
    toy = Toy("streets", ("road", "sky", "car"), changes={"class_pixels": {"0": 5, "2": 0}, "class_boxes": {}})
    toy.write(tmp_path)
    sources, bank = open_sources(tmp_path), toy_bank([toy])
    seen = build_columns(bank, *spaces(sources))
    assert seen.texts == ("road",) and seen.tables["streets"][:4].tolist() == [0, IGNORE, IGNORE, IGNORE]
    assert np.count_nonzero(seen.tables["streets"] != IGNORE) == 1
    assert build_columns(bank, spaces(sources)[0]).texts == ("road", "sky", "car")


def test_missing_labels_and_nothing_labelled_are_said(tmp_path: Path) -> None:
    toy = Toy("streets", ("road", "sky", "car"))
    toy.write(tmp_path / "a")
    with pytest.raises(BankError, match="no vector for 1 labels: streets 2"):
        build_columns(toy_bank([Toy("streets", ("road", "sky"))]), *spaces(open_sources(tmp_path / "a")))
    Toy("streets", toy.names, changes={"class_pixels": {}}).write(tmp_path / "b")
    with pytest.raises(ShardError, match="nothing is labelled"):
        build_columns(toy_bank([toy]), *spaces(open_sources(tmp_path / "b")))
