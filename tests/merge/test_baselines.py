from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, TaxonomyError, UsageError
from labelmerge.labels import LabelKey
from labelmerge.merge.baselines import merged_bank, name_bank, one_hot_bank, shared_bank, table_bank
from labelmerge.merge.choices import MERGES
from labelmerge.merge.merges import taxonomy_of
from labelmerge.merge.taxonomy import Entry, Taxonomy


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


def taxonomy(bank: Bank, groups: dict[LabelKey, str]) -> Taxonomy:
    names = dict(zip(bank.keys, bank.names, strict=True))
    return Taxonomy(Entry(key, names[key], (group,)) for key, group in groups.items())


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
    table = table_bank(bank, ["a", "b"], taxonomy(bank, groups))
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
    told = table_bank(
        bank, ["a", "b"], taxonomy(bank, {**groups, ("test", 0): "lane", ("test", 1): "air", ("test", 2): "ground"})
    )
    assert vectors_of(told.for_dataset("test")) == {
        ("test", 0): [0, 0, 1],
        ("test", 1): [0, 0, 0],  # no training label is in that group
        ("test", 2): [1, 0, 0],
    }
    assert told.texts[told.keys.index(("test", 2))] == "ground" and told.same_encoder(table)
    with pytest.raises(BankError, match="the taxonomy lacks labels of test"):
        table_bank(bank, ["a", "test"], taxonomy(bank, groups))


def test_texts_that_are_alike_have_vectors_that_are(bank: Bank) -> None:
    groups = {key: name[:1] for key, name in zip(bank.keys, bank.names, strict=True)}
    table = table_bank(bank, ["a", "b"], taxonomy(bank, groups))
    for merged in (one_hot_bank(bank, ["a"]), name_bank(bank, ["a", "b"]), table):
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
    joined = shared_bank(embeddings, ["a", "b"], taxonomy(embeddings, groups))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(joined.vectors[0], [half, half, 0], atol=1e-6)
    np.testing.assert_array_equal(joined.vectors[[0, 0]], joined.vectors[[2, 4]])  # the same text follows
    np.testing.assert_array_equal(joined.vectors[[1, 3, 5]], embeddings.vectors[[1, 3, 5]])
    assert joined.texts[0] == joined.texts[4] == "pavement: For feet.\nsidewalk: Beside a road."
    assert len(joined.for_datasets(["a", "b"]).columns()[0]) == 2
    assert joined.same_encoder(embeddings) and joined.version != embeddings.version
    np.testing.assert_array_equal(joined.probe, embeddings.probe)


def test_labels_of_one_set_share_a_vector_and_others_keep_theirs(embeddings: Bank) -> None:
    sets = {
        **{("a", 0): ("path",), ("a", 1): ("sky",), ("b", 0): ("path", "curb"), ("b", 1): ("sky",)},
        **{("test", 0): ("path",), ("test", 1): ("path", "curb")},
    }
    found = shared_bank(embeddings, ["a", "b"], Taxonomy(Entry(k, "", c) for k, c in sets.items()))
    np.testing.assert_array_equal(found.vectors[:4], embeddings.vectors[:4])  # no class has two texts
    np.testing.assert_array_equal(found.rows([("test", 0)]), embeddings.rows([("a", 0)]))  # it means the same as a's
    np.testing.assert_array_equal(found.rows([("test", 1)]), embeddings.rows([("b", 0)]))


def test_a_person_cannot_part_equal_texts(embeddings: Bank, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "dataset,index,name,concepts\na,0,pavement,footpath\na,1,sky,sky\nb,0,sidewalk,footpath\nb,1,sky,clouds\n"
    )
    message = (
        "tells labels apart whose texts are the same: a 1 is 'sky', b 1 is 'clouds'. Give them one concept, or give"
    )
    with pytest.raises(TaxonomyError, match=message):
        taxonomy_of("concepts", embeddings, tmp_path / "t.csv")


def test_merges_go_by_name(embeddings: Bank, tmp_path: Path) -> None:
    assert merged_bank(embeddings, "text", ["a"]) is embeddings
    assert merged_bank(embeddings, "naive", ["a"]).encoder == "one-hot"
    assert merged_bank(embeddings, "name", ["a"]).encoder == "one-hot by name"
    with pytest.raises(UsageError, match=r"unknown merge 'nane'. Did you mean name"):
        taxonomy_of("nane", embeddings)
    with pytest.raises(UsageError, match="by table needs a table. `labelmerge merge` writes one"):
        taxonomy_of("table", embeddings)
    with pytest.raises(UsageError, match="'name' has no use for a table"):
        taxonomy_of("name", embeddings, tmp_path / "mapping.csv")
    (tmp_path / "mapping.csv").write_text("dataset,index,name,group\na,0,pavement,x\na,1,sky,x\n")
    table = merged_bank(embeddings, "table", ["a"], taxonomy_of("table", embeddings, tmp_path / "mapping.csv"))
    assert table.dim == 1 and table.encoder == "one-hot by table"
    shared = merged_bank(embeddings, "concepts", ["a"], taxonomy_of("concepts", embeddings, tmp_path / "mapping.csv"))
    assert shared.texts[0].count("\n") == 1


@pytest.mark.parametrize("merge", MERGES)
def test_every_merge_gives_every_label_a_class(embeddings: Bank, merge: str, tmp_path: Path) -> None:
    rows = [f"{d},{i},{n},{n}" for (d, i), n in zip(embeddings.keys, embeddings.names, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["dataset,index,name,concepts", *rows, ""]))
    found = taxonomy_of(merge, embeddings, tmp_path / "t.csv" if merge == "table" else None)
    assert [entry.key for entry in found.entries] == list(embeddings.keys)
    assert found.sets.any(axis=1).all() and found.sets.any(axis=0).all()
