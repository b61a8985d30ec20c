"""Columns of a taxonomy, and what competes with each label."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.labels import IGNORE, LabelSpace
from labelmerge.merge.columns import Columns, build_columns
from labelmerge.merge.negatives import negatives
from labelmerge.merge.taxonomy import Entry, Taxonomy

# Street tells riders apart; town doesn't; paths is coarse: its ground may be a road or a sidewalk.
SETS = {
    ("paths", 0): ("road", "sidewalk"),
    ("paths", 1): ("sky",),
    ("street", 0): ("road",),
    ("street", 1): ("person",),
    ("street", 2): ("rider",),
    ("street", 3): ("sidewalk",),
    ("town", 0): ("person", "rider"),
    ("town", 1): ("road",),
}
TEXTS = {
    ("paths", 0): ("ground: x", 10),
    ("paths", 1): ("sky: x", 180),
    ("street", 0): ("road: a", 0),
    ("street", 1): ("person: x", 90),
    ("street", 2): ("rider: x", 110),
    ("street", 3): ("sidewalk: x", 25),
    ("town", 0): ("person: any", 95),
    ("town", 1): ("carriageway: b", 8),
}


def angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    return make_bank({key: (text, angle(degrees)) for key, (text, degrees) in TEXTS.items()})


def spaces(bank: Bank) -> list[LabelSpace]:
    return [
        LabelSpace.of(name, [n for (own, _), n in zip(bank.keys, bank.names, strict=True) if own == name])
        for name in bank.datasets()
    ]


def columns_of(bank: Bank) -> Columns:
    taxonomy = Taxonomy(Entry(key, "", concepts) for key, concepts in SETS.items())
    return build_columns(bank, spaces(bank), None, taxonomy)


def test_concepts_are_columns_and_coarse_labels_have_several(bank: Bank) -> None:
    columns = columns_of(bank)
    assert columns.texts == ("road", "sidewalk", "sky", "person", "rider") and not columns.single
    place = {text: number for number, text in enumerate(columns.texts)}
    for label, own in zip(columns.labels, columns.positive, strict=True):
        assert {columns.texts[n] for n in np.flatnonzero(own)} == set(SETS[label])
        assert columns.tables[label[0]][label[1]] == columns.labels.index(label)  # rows, since some have several
    assert columns.keys[place["road"]] == (("street", 0), ("town", 1))
    mean = np.array(angle(0)) + np.array(angle(8))
    np.testing.assert_allclose(columns.vectors[place["road"]], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(columns.vectors[place["rider"]], bank.rows([("street", 2)])[0])
    assert columns.allowed.tolist() == [
        [True, True, True, False, False],
        [True, True, False, True, True],
        [True, False, False, True, True],
    ]
    assert columns.tables["street"][255] == IGNORE


def test_concepts_that_no_label_in_play_tells_apart_are_one_column(bank: Bank) -> None:
    taxonomy = Taxonomy(Entry(key, "", concepts) for key, concepts in SETS.items())
    some = [space for space in spaces(bank) if space.name == "town"]
    columns = build_columns(bank, some, None, taxonomy)
    assert columns.single and len(columns) == 2 and columns.texts == ("person", "carriageway")
    np.testing.assert_array_equal(columns.vectors[0], bank.rows([("town", 0)])[0])
    assert columns.tables["town"][:3].tolist() == [0, 1, IGNORE]
    by_label = build_columns(bank, some, None, taxonomy, rows=True)
    assert by_label.tables["town"][:3].tolist() == [0, 1, IGNORE] and by_label.hash == columns.hash


def test_labels_that_never_occur_leave_no_column(bank: Bank) -> None:
    taxonomy = Taxonomy(Entry(key, "", concepts) for key, concepts in SETS.items())
    columns = build_columns(bank, spaces(bank), {("street", 0): 5, ("town", 0): 1}, taxonomy)
    assert columns.labels == (("street", 0), ("town", 0)) and columns.texts == ("road", "person")


def test_what_competes(bank: Bank) -> None:
    columns = columns_of(bank)
    whole, own = negatives(columns, "all"), negatives(columns, "own")
    graded, weak = negatives(columns, "graded"), negatives(columns, "graded", strength=0.1)
    assert whole.dtype == own.dtype == graded.dtype == np.float32
    assert (whole == 1).all()
    datasets = ["paths", "street", "town"]
    for row, (dataset, _) in enumerate(columns.labels):
        allowed = columns.allowed[datasets.index(dataset)]
        np.testing.assert_array_equal(own[row], allowed)
        assert (graded[row][allowed] == 1).all() and (weak[row][allowed] == 1).all()
        np.testing.assert_allclose(weak[row][~allowed], 0.1 * graded[row][~allowed], atol=1e-6)
    place = {text: number for number, text in enumerate(columns.texts)}
    carriageway = columns.labels.index(("town", 1))
    assert graded[carriageway, place["sidewalk"]] < graded[carriageway, place["sky"]] == 1  # near, and far


def test_what_is_related_does_not_compete_where_texts_are_columns(bank: Bank) -> None:
    taxonomy = Taxonomy(Entry(key, "", concepts) for key, concepts in SETS.items())
    columns = build_columns(bank, spaces(bank), relations=taxonomy)
    assert columns.single and len(columns) == len(SETS)
    found = negatives(columns, "unrelated", strength=0.5)
    for row, label in enumerate(columns.labels):
        for column, (other,) in enumerate(columns.keys):
            related = bool(set(SETS[label]) & set(SETS[other]))
            expected = 0.0 if related else 1.0 if other[0] == label[0] else 0.5
            assert found[row, column] == expected, (label, other)


def test_a_dataset_of_one_label_has_nothing_to_measure_distance_by(make_bank: Callable[..., Bank]) -> None:
    lonely = make_bank({("a", 0): ("road: x", angle(0)), ("b", 0): ("sky: x", angle(90))})
    columns = build_columns(lonely, spaces(lonely), rows=True)
    assert (negatives(columns, "graded") == 1).all()
