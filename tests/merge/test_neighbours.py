"""What lies nearest to a label in other datasets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import UsageError
from labelmerge.merge.neighbours import Neighbourhood, find_neighbours, nearest_elsewhere, neighbours_text


@pytest.fixture
def bank(angle_bank: Callable[..., Bank]) -> Bank:
    device, animal = ("mouse", "A device.", 0.0), ("Mouse", "An animal.", 60.0)
    return angle_bank(
        {
            ("a", 0): device,
            ("a", 1): ("computer", "It computes.", 10.0),
            ("b", 0): device,
            ("b", 1): ("keyboard", "It has keys.", 20.0),
            ("b", 2): animal,
            ("c", 0): ("rat", "It gnaws.", 65.0),
            ("c", 1): ("sofa, couch", "One sits there.", 170.0),
            ("c", 2): ("ratio: a:b", "A name with colons.", 180.0),
        }
    )


def shown(one: Neighbourhood) -> list[tuple[str, str]]:
    return [(neighbour.name, "".join(label.dataset for label in neighbour.labels)) for neighbour in one.neighbours]


def test_a_name_is_as_many_neighbourhoods_as_it_has_meanings(bank: Bank) -> None:
    device, animal = find_neighbours(bank, " MOUSE", count=3)
    assert [(label.dataset, label.index) for label in device.labels] == [("a", 0), ("b", 0)]
    assert shown(device) == [("computer", "a"), ("keyboard", "b"), ("mouse", "b")]
    assert [neighbour.cosine for neighbour in device.neighbours] == pytest.approx(
        [float(np.cos(np.radians(angle))) for angle in (10, 20, 60)], abs=1e-6
    )
    assert shown(animal)[0] == ("rat", "c")
    assert "b" not in {dataset for _, datasets in shown(animal) for dataset in datasets}  # its own dataset


@pytest.mark.parametrize("label", ["a:mouse", "a:0", "a: 0"])
def test_one_dataset_s_label_finds_its_own_text_elsewhere(bank: Bank, label: str) -> None:
    (one,) = find_neighbours(bank, label)
    assert shown(one) == [
        ("mouse", "b"),
        ("keyboard", "b"),
        ("mouse", "b"),
        ("rat", "c"),
        ("sofa", "c"),
        ("ratio: a:b", "c"),
    ]
    assert one.neighbours[0].cosine == pytest.approx(1)


def test_names_are_found_as_the_dataset_or_a_sentence_writes_them(bank: Bank) -> None:
    for label in "sofa", "sofa, couch", "c:Sofa":
        assert find_neighbours(bank, label)[0].labels[0].index == 1
    assert find_neighbours(bank, "ratio: a:b")[0].labels[0].index == 2
    assert find_neighbours(bank.for_dataset("a"), "mouse")[0].neighbours == ()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("mouze", "no label 'mouze' in the bank. Did you mean mouse"),
        ("a:keyboard", "no label 'keyboard' of a in the bank"),
        ("a:7", "no label '7' of a"),
        ("aa:mouse", "no dataset 'aa' in the bank. Did you mean a"),
        ("", "no label '' in the bank"),
    ],
)
def test_what_is_not_there_is_said(bank: Bank, label: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_neighbours(bank, label)


def test_text_has_a_line_for_each(bank: Bank) -> None:
    lines = neighbours_text(find_neighbours(bank, "mouse", 1)).splitlines()
    assert lines == ["mouse (a, b)", "   0.985  computer  a", "mouse (b)", "   0.996  rat  c"]
    assert "no other dataset" in neighbours_text(find_neighbours(bank.for_dataset("a"), "mouse"))


def test_the_nearest_label_is_of_another_dataset(bank: Bank) -> None:
    vectors = bank.vectors
    for row, (nearest, cosine) in enumerate(nearest_elsewhere(bank)):
        slow = {n: float(vectors[row] @ vectors[n]) for n, key in enumerate(bank.keys) if key[0] != bank.keys[row][0]}
        assert nearest == max(slow, key=lambda n: slow[n]) and cosine == pytest.approx(slow[nearest])
    assert nearest_elsewhere(bank.for_dataset("a")) == [(None, None)] * 2
