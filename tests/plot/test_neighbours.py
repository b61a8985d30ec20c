"""The figure of the labels that lie nearest in other datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.merge.neighbours import find_neighbours
from labelmerge.plot.neighbours import plot_neighbours


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


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_same_neighbours_give_the_same_figure(bank: Bank, tmp_path: Path, ending: str) -> None:
    found = find_neighbours(bank, "mouse") + find_neighbours(bank, "rat")
    for name in "one", "two":
        plot_neighbours(bank, found, tmp_path / f"{name}{ending}")
    assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()


def test_a_single_dataset_has_no_neighbours_to_draw(bank: Bank, tmp_path: Path) -> None:
    alone = bank.for_dataset("a")
    plot_neighbours(alone, find_neighbours(alone, "mouse"), tmp_path / "alone.png")
    assert (tmp_path / "alone.png").is_file()


def test_the_command(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    where = ("plot", "neighbours", "--bank", tmp_path / "bank", "--label", "mouse")
    plain = run(*where)
    assert plain.exit_code == 0 and "computer" in plain.stdout and "Drew" not in plain.stdout
    drawn = run(*where, "--label", "c:rat", "--count", "2", "--out", tmp_path / "near.png")
    assert drawn.exit_code == 0 and f"Drew it: {tmp_path / 'near.png'}" in drawn.stdout
    with Image.open(tmp_path / "near.png") as image:
        assert image.height > 500
    data = json.loads(run(*where, "--dataset", "b", "--dataset", "c", "--json").stdout)
    assert data[0]["neighbours"][0]["labels"] == [{"dataset": "c", "index": 0, "name": "rat"}]
    for wrong in (("--label", "rod"), ("--dataset", "d"), ("--out", tmp_path / "near.gif")):
        result = run(*where, *wrong)
        assert result.exit_code in (1, 2) and result.stderr.count("\n") == 1, result.output
