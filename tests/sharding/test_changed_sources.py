"""Files of a dataset that change under the same name never end up mixed with what they were."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from labelmerge.errors import ShardError
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


def test_an_unfinished_run_makes_again_the_shards_of_changed_files_and_no_others(own: Own, tmp_path: Path) -> None:
    own.pairs(8)
    out = tmp_path / "out"
    shard(own.recipe, own.root, "train", out, samples_per_shard=2, part=(1, 2))  # shards 0 and 2
    before = {path.name: path.stat().st_ino for path in out.rglob("*.tar")}
    mask = own.root / "masks/train/004.png"
    then = mask.stat()
    own.mask("masks/train/004.png", np.full((12, 16), 2, dtype=np.uint8))
    os.utime(mask, ns=(then.st_atime_ns, then.st_mtime_ns))  # the size tells, even where times do not
    report = shard(own.recipe, own.root, "train", out, samples_per_shard=2)
    assert report.kept == 1
    after = {path.name: path.stat().st_ino for path in out.rglob("*.tar")}
    assert after["my_streets-train-000000.tar"] == before["my_streets-train-000000.tar"]
    assert after["my_streets-train-000002.tar"] != before["my_streets-train-000002.tar"]
    shard(own.recipe, own.root, "train", tmp_path / "new", samples_per_shard=2)
    assert tars(out) == tars(tmp_path / "new")


@pytest.mark.parametrize("file", ["images/train/003.jpg", "masks/train/003.png"])
def test_a_finished_run_says_that_files_have_changed(own: Own, tmp_path: Path, file: str) -> None:
    own.pairs(6)
    shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    if file.endswith("jpg"):
        own.image(file)
    else:
        own.mask(file)
    with pytest.raises(ShardError, match=r"have changed since its shards were made \(shard 000001; 1 of 3\)"):
        shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)


def test_a_copy_of_the_dataset_is_the_same_dataset(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    shard(own.recipe, own.root, "train", tmp_path / "out", samples_per_shard=2)
    copy = tmp_path / "copy"
    shutil.copytree(own.root, copy, copy_function=shutil.copyfile)  # times are new, contents are not
    assert shard(own.recipe, copy, "train", tmp_path / "out", samples_per_shard=2).kept == 2


def test_a_table_of_classes_counts_as_a_source_of_every_shard(own: Own, tmp_path: Path) -> None:
    own.write_recipe(
        (own.recipe_file.read_text()).replace("[ids]\nignore = [255]", 'class_names = "codes.txt"\n\n[ids]\n')
    )
    names = own.root / "codes.txt"
    names.write_text("road\ncar\nsky\n")
    own.image("images/train/0.jpg")
    own.mask("masks/train/0.png", np.ones((12, 16), dtype=np.uint8))
    shard(own.recipe, own.root, "train", tmp_path)
    names.write_text("road\nsky\ncar\n")
    with pytest.raises(ShardError, match="have changed since"):
        shard(own.recipe, own.root, "train", tmp_path)


def test_the_names_of_a_data_yaml_count_as_a_source_of_every_shard(own: Own, tmp_path: Path) -> None:
    own.write_recipe(
        'name = "my_streets"\nannotation_type = "box"\nreader = "yolo"\ndescriptions = "my_streets.csv"\n'
        '[layout]\ndata = "data.yaml"\n'
    )
    own.image("images/train/0.jpg")
    names, lines = own.root / "data.yaml", own.root / "labels/train/0.txt"
    names.write_text("train: images/train\nnames: [road, car, sky]\n")
    lines.parent.mkdir(parents=True)
    lines.write_text("1 0.5 0.5 0.5 0.5\n")
    shard(own.recipe, own.root, "train", tmp_path)
    names.write_text("train: images/train\nnames: [road, sky, car]\n")
    with pytest.raises(ShardError, match="have changed since"):
        shard(own.recipe, own.root, "train", tmp_path)


def test_damaged_and_missing_states(own: Own, tmp_path: Path) -> None:
    own.pairs(2)
    folder = tmp_path / "my_streets/train"
    shard(own.recipe, own.root, "train", tmp_path)
    states = folder / ".sources.json"
    assert list(json.loads(states.read_text())) == ["000000"]
    states.write_text('{"0": 1}')
    with pytest.raises(ShardError, match="is damaged"):
        shard(own.recipe, own.root, "train", tmp_path)
    states.unlink()  # as in shards of an older version
    assert shard(own.recipe, own.root, "train", tmp_path).kept == 1
