from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, UsageError
from labelmerge.merge.baselines import merged_bank, name_bank, one_hot_bank, overruled_bank, table_bank


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    texts = {
        ("a", 0): "road",
        ("a", 1): "sky",
        ("b", 0): "Road",
        ("b", 1): "mouse",
        ("test", 0): "road",
        ("test", 1): "sky",
        ("test", 2): "pavement",
    }
    return make_bank({key: (text, [1.0, 0.0]) for key, text in texts.items()})


def test_every_training_label_is_a_class_of_its_own(bank: Bank) -> None:
    naive = one_hot_bank(bank, ["a", "b"])
    np.testing.assert_array_equal(naive.for_datasets(["a", "b"]).vectors, np.eye(4))
    assert len(naive.for_datasets(["a", "b"]).columns()[0]) == 4


def test_other_labels_are_matched_by_name(bank: Bank) -> None:
    naive = one_hot_bank(bank, ["a", "b"])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(naive.for_dataset("test").vectors, [[half, 0, half, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_other_training_sets_are_another_encoder(bank: Bank, tmp_path: Path) -> None:
    naive = one_hot_bank(bank, ["a", "b"])
    assert naive.same_encoder(one_hot_bank(bank, ["b", "a"]))
    assert not naive.same_encoder(one_hot_bank(bank, ["a"])) and not naive.same_encoder(bank)
    naive.save(tmp_path)
    np.testing.assert_array_equal(Bank.load(tmp_path).vectors, naive.vectors)
    with pytest.raises(BankError, match="no labels of 'c'"):
        one_hot_bank(bank, ["c"])


def vectors_of(bank: Bank) -> dict[tuple[str, int], list[float]]:
    return {key: vector.tolist() for key, vector in zip(bank.keys, bank.vectors, strict=True)}


def test_by_name_equal_names_are_one_class(bank: Bank) -> None:
    named = name_bank(bank, ["a", "b"])
    road, sky, mouse, none = [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]
    assert vectors_of(named) == {
        ("a", 0): road,
        ("a", 1): sky,
        ("b", 0): road,
        ("b", 1): mouse,
        ("test", 0): road,
        ("test", 1): sky,
        ("test", 2): none,
    }
    assert named.columns()[0] == ["road", "sky", "mouse", "pavement (test 2)"]


def test_by_table_groups_are_classes(bank: Bank) -> None:
    groups = {("a", 0): "ground", ("a", 1): "sky", ("b", 0): "lane", ("b", 1): "ground"}
    table = table_bank(bank, ["a", "b"], groups)
    half = pytest.approx(np.sqrt(0.5))
    assert vectors_of(table) == {
        ("a", 0): [1, 0, 0],
        ("a", 1): [0, 1, 0],
        ("b", 0): [0, 0, 1],
        ("b", 1): [1, 0, 0],
        ("test", 0): [half, 0, half],  # a road is ground in a and a lane in b
        ("test", 1): [0, 1, 0],
        ("test", 2): [0, 0, 0],
    }
    told = table_bank(bank, ["a", "b"], {**groups, ("test", 0): "lane", ("test", 1): "air", ("test", 2): "ground"})
    assert vectors_of(told.for_dataset("test")) == {
        ("test", 0): [0, 0, 1],
        ("test", 1): [0, 0, 0],  # no training label is in that group
        ("test", 2): [1, 0, 0],
    }
    assert told.texts[told.keys.index(("test", 2))] == "ground" and told.same_encoder(table)
    with pytest.raises(BankError, match="the mapping lacks labels of test"):
        table_bank(bank, ["a", "test"], groups)


def test_texts_that_are_alike_have_vectors_that_are(bank: Bank) -> None:
    groups = {key: name[:1] for key, name in zip(bank.keys, bank.names, strict=True)}
    for merged in (one_hot_bank(bank, ["a"]), name_bank(bank, ["a", "b"]), table_bank(bank, ["a", "b"], groups)):
        by_text: dict[str, list[float]] = {}
        for text, vector in zip(merged.texts, merged.vectors.tolist(), strict=True):
            assert by_text.setdefault(text, vector) == vector


@pytest.fixture
def embeddings(make_bank: Callable[..., Bank]) -> Bank:
    return make_bank(
        {
            ("a", 0): ("pavement: For feet.", [1.0, 0, 0]),
            ("a", 1): ("sky: Above.", [0, 0, 1.0]),
            ("b", 0): ("sidewalk: Beside a road.", [0, 1.0, 0]),
            ("b", 1): ("sky: Above.", [0, 0, 1.0]),
            ("test", 0): ("sidewalk: Beside a road.", [0, 1.0, 0]),
            ("test", 1): ("car: Four wheels.", [1.0, 1.0, 1.0]),
        }
    )


def test_a_person_joins_labels_whose_texts_differ(embeddings: Bank) -> None:
    groups = {("a", 0): "footpath", ("b", 0): "footpath", ("a", 1): "sky", ("b", 1): "sky"}
    joined = overruled_bank(embeddings, groups)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(joined.vectors[0], [half, half, 0], atol=1e-6)
    np.testing.assert_array_equal(joined.vectors[[0, 0]], joined.vectors[[2, 4]])  # the same text follows
    np.testing.assert_array_equal(joined.vectors[[1, 3, 5]], embeddings.vectors[[1, 3, 5]])
    assert joined.texts[0] == joined.texts[4] == "pavement: For feet.\nsidewalk: Beside a road."
    assert len(joined.for_datasets(["a", "b"]).columns()[0]) == 2
    assert joined.same_encoder(embeddings) and joined.version != embeddings.version
    assert overruled_bank(embeddings, {key: embeddings.texts[row] for row, key in enumerate(embeddings.keys)}).version
    np.testing.assert_array_equal(joined.probe, embeddings.probe)


def test_a_person_cannot_part_equal_texts(embeddings: Bank) -> None:
    groups = {("a", 0): "footpath", ("b", 0): "footpath", ("a", 1): "sky", ("b", 1): "clouds"}
    message = (
        "tells labels apart whose texts are the same: a 1 is 'sky', b 1 is 'clouds'. Put them in one group, or give"
    )
    with pytest.raises(BankError, match=message):
        overruled_bank(embeddings, groups)


def test_merges_go_by_name(embeddings: Bank, tmp_path: Path) -> None:
    assert merged_bank(embeddings, "embedding", ["a"]) is embeddings
    assert merged_bank(embeddings, "naive", ["a"]).encoder == "one-hot"
    assert merged_bank(embeddings, "name", ["a"]).encoder == "one-hot by name"
    with pytest.raises(UsageError, match="no way to merge is called 'nane'. Known: embedding, naive, name, table"):
        merged_bank(embeddings, "nane", ["a"])
    with pytest.raises(UsageError, match="by table needs a mapping. `labelmerge merge` writes one"):
        merged_bank(embeddings, "table", ["a"])
    with pytest.raises(UsageError, match="'name' has no use for a mapping"):
        merged_bank(embeddings, "name", ["a"], tmp_path / "mapping.csv")
    (tmp_path / "mapping.csv").write_text("dataset,index,name,group\na,0,pavement,x\na,1,sky,x\n")
    table = merged_bank(embeddings, "table", ["a"], tmp_path / "mapping.csv")
    assert table.dim == 1 and table.encoder == "one-hot by table"
    assert merged_bank(embeddings, "embedding", ["a"], tmp_path / "mapping.csv").texts[0].count("\n") == 1
