"""Every way to merge goes the whole road: train, then eval and predict with what the checkpoint carries."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.model.checkpoint import find_checkpoint, read_meta

from ..loading.toy_shards import Toy, toy_bank
from .conftest import TOYS

QUICK = ("--steps", 2, "--batch-size", 3, "--crop", 32, "--device", "cpu", "--set", "log_every=1")
HELD_OUT = Toy("village", ("car", "lawn"), split="val")
TABLE = """dataset,index,name,group
streets,0,road,ground
streets,1,sky,sky
streets,2,car,thing
parts,0,tree,thing
parts,1,road,ground
things,0,cup,cup
things,1,car,thing
"""


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    toy_bank([*TOYS, HELD_OUT]).save(tmp_path / "bank")
    return tmp_path / "bank"


@pytest.mark.parametrize(
    ("merge", "columns"),
    [
        (("--merge", "naive"), 7),
        (("--merge", "name"), 5),
        (("--merge", "table"), 4),
        (("--taxonomy",), 4),
    ],
    ids=["naive", "name", "table", "overruled"],
)
def test_a_run_is_used_with_its_own_vectors(
    run: Any, shards: Path, bank: Path, tmp_path: Path, merge: tuple[str, ...], columns: int
) -> None:
    table = tmp_path / "table.csv"
    # Cars and trees share a group, so they may not have other groups elsewhere: equal texts stay one vector.
    table.write_text(TABLE)
    options = {"table": ("--merge", "table", "--taxonomy", table), "--taxonomy": ("--taxonomy", table)}
    out = tmp_path / "run"
    args = ("train", "--shards", shards, "--bank", bank, "--out", out, *options.get(merge[-1], merge), *QUICK)
    trained = run(*args)
    assert trained.exit_code == 0, trained.output
    checkpoint = find_checkpoint(out)
    meta, config = read_meta(checkpoint), tomllib.loads((checkpoint / "config.toml").read_text())
    assert len(meta["columns"]) == columns
    assert meta["merge"] == config["merge"] == (merge[1] if len(merge) > 1 else "concepts")
    assert f"labelmerge eval --checkpoint {out} --shards DIR --out" in trained.stdout  # which takes the run's own bank

    again = run(*args)
    assert again.exit_code == 0 and "the run is finished" in again.stderr
    other = run(*(arg for arg in args if arg not in options.get(merge[-1], merge)))
    assert other.exit_code == 1 and "the bank was" in other.stderr

    HELD_OUT.write(tmp_path / "held-out")
    held_out = ("--shards", tmp_path / "held-out", "--out", tmp_path / "results.json", "--device", "cpu")
    measured = run("eval", "--checkpoint", out, "--bank", checkpoint / "bank", *held_out)
    assert measured.exit_code == 0, measured.output
    classes = json.loads((tmp_path / "results.json").read_text())["sets"][0]["classes"]
    assert classes[0]["iou"] is not None
    if "--merge" in merge:
        refused = run("eval", "--checkpoint", out, "--bank", bank, *held_out)
        assert refused.exit_code == 1 and "the checkpoint carries its own" in refused.stderr

    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    labels = ("--labels", "road, car", "--out", tmp_path / "masks", "--device", "cpu")
    predicted = run("predict", tmp_path / "photo.png", "--checkpoint", out, *labels)
    assert predicted.exit_code == 0, predicted.output


def test_a_table_may_move_and_a_changed_one_is_another_run(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    def train(table: str, place: str) -> Any:
        (tmp_path / place).write_text(table)
        options = ("--out", tmp_path / "run", "--merge", "table", "--taxonomy", tmp_path / place)
        return run("train", "--shards", shards, "--bank", bank, *options, *QUICK)

    assert train(TABLE, "a.csv").exit_code == 0
    assert train(TABLE, "b.csv").exit_code == 0
    other = train(TABLE.replace("tree,thing", "tree,tree"), "a.csv")
    assert other.exit_code == 1 and "the bank was" in other.stderr
    wrong = train(TABLE.replace("streets,0,road,ground\n", ""), "a.csv")
    assert wrong.exit_code == 1 and "streets 0 (road) is missing" in wrong.stderr and "Traceback" not in wrong.output
    assert Bank.load(find_checkpoint(tmp_path / "run") / "bank").encoder == "one-hot by table"
