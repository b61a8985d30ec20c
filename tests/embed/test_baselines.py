from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labelmerge.embed.bank import Bank
from labelmerge.embed.baselines import one_hot_bank
from labelmerge.errors import BankError


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
