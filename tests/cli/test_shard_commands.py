"""shard, verify and ls as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import dataset_names

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A dataset of one's own with one good image and one without a mask."""
    for name in ("a", "b"):
        target = tmp_path / "data/images/train" / f"{name}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12)).save(target)
    mask = tmp_path / "data/masks/train/a.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(mask)
    (tmp_path / "yard.csv").write_text("index,name\n0,grass\n1,shed\n")
    path = tmp_path / "yard.toml"
    path.write_text(
        'name = "yard"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "yard.csv"\n[layout]\n'
        'images = "images/{split}/*.jpg"\nmasks = "masks/{split}/{stem}.png"\n'
    )
    return path


def test_shard_then_verify(run: Run, recipe: Path, tmp_path: Path) -> None:
    words = ("shard", recipe, "--root", tmp_path / "data", "--split", "train")
    trial = run(*words, "--check")
    assert trial.exit_code == 0, trial.output
    assert "skipped images/train/b.jpg: no annotation: expected masks/train/b.png\n" in trial.stdout
    assert trial.stdout.splitlines()[-1].startswith("Would write 1 of 2 images of yard train (1 shard, ")
    out = tmp_path / "out"
    assert not out.exists()
    result = run(*words, "--out", out, "--workers", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith(
        f"Wrote 1 of 2 images of yard train to {out}/yard/train (1 shard, "
    )
    again = json.loads(run(*words, "--out", out, "--json").stdout)
    assert (again["written"], again["kept"], again["skipped"][0]["path"]) == (1, 1, "images/train/b.jpg")
    assert run("verify", out).stdout == "No fault in 1 sample in 1 shard of 1 split.\n"
    (tar,) = out.rglob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-10])
    damaged = run("verify", out, "--json")
    assert damaged.exit_code == 1 and json.loads(damaged.stdout)["problems"]


def test_skips_of_one_kind_are_summed_up(run: Run, recipe: Path, tmp_path: Path) -> None:
    for number in range(7):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(tmp_path / f"data/images/train/{number}.jpg")
    words = ("shard", recipe, "--root", tmp_path / "data", "--split", "train")
    expected = "skipped images/train/0.jpg: no annotation: expected masks/train/0.png (and 6 more like it)\n"
    trial, done = run(*words, "--check").stdout, run(*words, "--out", tmp_path / "out").stdout
    assert expected in trial and "--json lists them all\n" in trial
    assert expected in done and "manifest.json lists them all\n" in done and done.count("skipped") == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("shard", "cityscape", "--root", ".", "--split", "train", "--out", "o"), 2, "Did you mean cityscapes"),
        (("shard", "nowhere.toml", "--root", ".", "--split", "train", "--out", "o"), 2, "no such recipe"),
        (("shard", "voc", "--root", ".", "--split", "train"), 2, "--out is missing"),
        (("shard", "voc", "--root", "nowhere", "--split", "train", "--out", "o"), 1, "nowhere: no such folder"),
        (("verify", "nowhere"), 2, "there is no folder 'nowhere'"),
        (("ls", "nothing"), 2, "unknown dataset 'nothing'"),
    ],
)
def test_mistakes_are_one_line(run: Run, words: tuple[str, ...], status: int, message: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr.splitlines()[-1]


def test_ls(run: Run, recipe: Path) -> None:
    table = run("ls")
    assert table.exit_code == 0
    names = [line.split()[0] for line in table.stdout.splitlines()[1:-1]]
    assert names == dataset_names() == [row["name"] for row in json.loads(run("ls", "--json").stdout)]
    page = run("ls", "cityscapes").stdout
    assert "Get it   https://www.cityscapes-dataset.com" in page and "   18  bicycle\n" in page
    assert 'Layout   images = "' in run("ls", recipe).stdout and "Layout" not in page
    facts = json.loads(run("ls", recipe, "--json").stdout)
    assert facts["classes"] == 2 and facts["label_space"]["names"] == ["grass", "shed"]
