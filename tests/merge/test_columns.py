from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from labelmerge.errors import BankError, ShardError
from labelmerge.labels import IGNORE, LabelKey, LabelSpace
from labelmerge.loading.datasets import DatasetShards, group_by_dataset
from labelmerge.merge.choices import Negatives
from labelmerge.merge.columns import build_columns
from labelmerge.merge.negatives import negatives
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.methods.predictor import LabelList
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
    with pytest.raises(BankError, match="no vector for 1 label: streets 2"):
        build_columns(toy_bank([Toy("streets", ("road", "sky"))]), *spaces(open_sources(tmp_path / "a")))
    Toy("streets", toy.names, changes={"class_pixels": {}}).write(tmp_path / "b")
    with pytest.raises(ShardError, match="nothing is labelled"):
        build_columns(toy_bank([toy]), *spaces(open_sources(tmp_path / "b")))


def test_classes_of_other_names_are_refused(tmp_path: Path) -> None:
    Toy("streets", ("car", "road", "sky")).write(tmp_path)
    bank = toy_bank([Toy("streets", ("road", "sky", "car"))])
    message = "name 3 classes of streets differently: 0 is 'car' in the data, 'road' in the bank; 1 is 'road' in the"
    with pytest.raises(BankError, match=message):
        build_columns(bank, *spaces(open_sources(tmp_path)))
    with pytest.raises(BankError, match=message):
        LabelList.of(LabelSpace.of("streets", ["car", "road", "sky"]), bank)
    LabelList.of(LabelSpace.of("streets", ["road ", "sky", "car"]), bank)


@pytest.mark.parametrize("how", get_args(Negatives))
def test_classes_that_a_dataset_was_not_annotated_for_never_compete(how: Negatives) -> None:
    # Of `streets` only road and sky were annotated: its pixels of road may be cars, or windows of cars.
    entries = [
        Entry(("streets", 0), "road", ("road",)),
        Entry(("streets", 1), "sky", ("sky",)),
        Entry(("streets", 2), "car", ("car", "window")),
        Entry(("things", 0), "car", ("car",)),
        Entry(("things", 1), "window", ("window",)),
        Entry(("things", 2), "cup", ("cup",)),
    ]
    toys = [Toy("streets", ("road", "sky", "car")), Toy("things", ("car", "window", "cup"))]
    counts = {key: 1 for toy in toys for key in toy.space.keys if key != ("streets", 2)}
    arguments = toy_bank(toys), [toy.space for toy in toys], counts, Taxonomy(entries)
    every = negatives(build_columns(*arguments), how)
    columns = build_columns(*arguments, annotated=[{"road", "sky"}, None])
    assert columns.texts == ("road", "sky", "car", "window", "cup") and columns.by_label
    assert columns.tables["streets"][:3].tolist() == [0, 1, IGNORE], "rows of `positive`"
    weights = negatives(columns, how)
    assert (weights[:2, 2:4] == 0).all()
    unsaid = np.ones_like(weights, dtype=bool)
    unsaid[:2, 2:4] = False
    assert (weights[unsaid] == every[unsaid]).all()
    if how == "all":
        assert (every == 1).all()
    # By text: `streets` has no text for windows, and its car is the others' car.
    by_text = build_columns(*arguments[:3], annotated=[{"road", "sky"}, None])
    assert by_text.unannotated.tolist() == [[False, False, True, False, False], [False] * 5]


def test_what_a_listed_class_stands_for_alone_does_compete() -> None:
    # Annotated for cars, but not for vehicles: nothing that isn't called a car is one.
    entries = [Entry(("a", 0), "road", ("road",)), Entry(("a", 1), "car", ("car",))]
    entries += [Entry(("a", 2), "vehicle", ("car", "bus")), Entry(("b", 0), "bus", ("bus",))]
    toys = [Toy("a", ("road", "car", "vehicle")), Toy("b", ("bus",))]
    spaces = [toy.space for toy in toys]
    columns = build_columns(toy_bank(toys), spaces, None, Taxonomy(entries), annotated=[{"road", "car"}, None])
    assert columns.texts == ("road", "car", "bus") and columns.unannotated.tolist() == [
        [False, False, True],
        [False, False, False],
    ]


def test_datasets_of_one_label_space_have_tables_and_columns_of_their_own() -> None:
    merged = LabelSpace.of("company", ["road", "sky", "car"])
    bank = toy_bank([Toy("company", merged.names)])
    columns = build_columns(bank, [merged] * 2, datasets=["a", "b"], annotated=[{"road", "sky"}, {"car", "sky"}])
    assert list(columns.tables) == ["a", "b"] and len(columns) == 3 and len(columns.labels) == 6
    assert columns.keys == ((("company", 0),), (("company", 1),), (("company", 2),))
    assert columns.tables["b"][:3].tolist() == [3, 4, 5] and columns.dataset_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert negatives(columns, "all").tolist() == [[1, 1, 0]] * 3 + [[0, 1, 1]] * 3
