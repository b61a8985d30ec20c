"""Three toy datasets, one for each kind of annotation, and a bank for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..loading.toy_shards import Toy, toy_bank

STREETS = Toy("streets", ("road", "sky", "car"))
PARTS = Toy("parts", ("tree", "road"), "noisy_mask", count=5, colours=(3, 0))
THINGS = Toy("things", ("cup", "car"), "box", count=5, colours=(4, 2))
TOYS = (STREETS, PARTS, THINGS)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for toy in TOYS:
        toy.write(tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    toy_bank(TOYS).save(tmp_path / "bank")
    return tmp_path / "bank"


@pytest.fixture(autouse=True)
def small(one_thread: None) -> None:
    """All that is computed here."""
