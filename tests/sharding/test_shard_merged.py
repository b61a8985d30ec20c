"""Shards whose classes are the concepts of a taxonomy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import RecipeError, ShardError, TaxonomyError
from labelmerge.inspect.verify import verify
from labelmerge.labels import LabelSpace
from labelmerge.sharding.merged import read_class_map
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.source import Annotation, Box, ClassMap, Segment
from labelmerge.shardset.shardset import ShardSet

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

TABLE = """dataset,index,name,group
other,0,sky,heaven
my_streets,0,road,ground
other,7,floor,ground
my_streets,2,sky,heaven
my_streets,1,car,vehicle
"""
GROUPS = {0: 1, 1: 2, 2: 0}  # of road, car, sky: places among heaven, ground, vehicle


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.csv"
    path.write_text(TABLE)
    return path


def test_masks_have_groups_with_the_same_numbers_everywhere(
    own: Own, table: Path, tmp_path: Path, read_samples: Callable[[Path], dict[str, Any]], run: Callable[..., Any]
) -> None:
    (mask,) = own.pairs(1)
    words = ["shard", own.recipe_file, "--root", own.root, "--split", "train", "--out", tmp_path / "out"]
    assert run(*words, "--taxonomy", table).exit_code == 0
    folder = tmp_path / "out/my_streets/train"
    (sample,) = read_samples(folder).values()
    for y in range(12):
        for x in range(16):
            assert sample["mask.png"][y, x] == GROUPS.get(int(mask[y, x]), 255)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["label_space"]["names"] == ["heaven", "ground", "vehicle"]
    assert manifest["label_space"]["name"] == "mapping" != manifest["dataset"]
    assert manifest["label_space"]["hash"] != load_label_space(own.recipe).hash
    assert manifest["annotated"] == ["heaven", "ground", "vehicle"]
    assert manifest["reproduce"].endswith("--taxonomy mapping.csv") and str(tmp_path) not in json.dumps(manifest)
    assert verify([folder]).problems == ()
    words[-1] = tmp_path / "older"
    assert run(*words, "--mapping", table).exit_code == 0, "the option's name before"
    assert (tmp_path / "older/my_streets/train/manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    table.write_text(TABLE.replace("vehicle", "ground"))
    with pytest.raises(ShardError, match="taxonomy was"):
        shard(own.recipe, own.root, "train", tmp_path / "out", taxonomy=table)


def test_boxes_segments_and_wide_masks() -> None:
    groups = tuple(range(300))
    merge = ClassMap(LabelSpace("my_streets", groups, tuple(map(str, groups))), {0: 299, 1: 0, 2: 5})
    before = Annotation(
        mask=np.array([[0, 1, 2, 255]], np.uint8),
        boxes=(Box((0, 0, 1, 1), 2, 1.0),),
        segments=(Segment(1, 0, 7, False),),
    )
    after = merge.apply(before, LabelSpace.of("my_streets", ["road", "car", "sky"]))
    assert after.mask is not None and after.mask.dtype == np.uint16 and after.mask.tolist() == [[299, 0, 5, 65535]]
    assert after.boxes[0].class_index == 5 and after.segments[0].class_index == 299


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("my_streets,1,car,vehicle\n", ""), "my_streets 1 .car. is missing"),
        (TABLE.replace("my_streets,", "my_roads,"), "has no row for my_streets"),
        (TABLE.replace("1,car", "1,bus"), "line 6: my_streets 1 is 'car', not 'bus'"),
        (TABLE.replace("vehicle", ""), "has no concept"),
        ("a,b\n1,2\n", "has no column"),
    ],
)
def test_a_table_that_does_not_fit(own: Own, table: Path, tmp_path: Path, text: str, message: str) -> None:
    own.pairs(1)
    table.write_text(text)
    with pytest.raises(TaxonomyError, match=message):
        read_class_map(table, load_label_space(own.recipe))
    with pytest.raises(TaxonomyError, match=message):
        shard(own.recipe, own.root, "train", tmp_path / "out", taxonomy=table)
    assert not (tmp_path / "out").exists()


def test_the_whole_table_is_the_space_and_the_manifest_says_what_of_it_is_annotated(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    path = tmp_path / "company.csv"
    path.write_text(TABLE.replace("other,0,sky,heaven", "other,0,moon,moon"))
    own.recipe_file.write_text('annotated = ["sky", "car"]\n' + own.recipe_file.read_text())
    shard(load_recipe(own.recipe_file), own.root, "train", tmp_path / "out", taxonomy=path)
    opened = ShardSet.open(tmp_path / "out/my_streets/train")
    assert opened.space == LabelSpace.of("company", ["moon", "ground", "heaven", "vehicle"])
    assert opened.annotated == frozenset({"heaven", "vehicle"})
    assert verify([opened.folder]).problems == ()


def test_annotated_classes_must_be_classes(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    text = own.recipe_file.read_text()
    own.recipe_file.write_text('annotated = ["raod"]\n' + text)
    with pytest.raises(RecipeError, match="'annotated' lists 'raod', which is not a class of my_streets"):
        shard(load_recipe(own.recipe_file), own.root, "train", tmp_path / "out")
    own.recipe_file.write_text("overlapping = 1\n" + text)
    with pytest.raises(RecipeError, match="'overlapping' must be true or false"):
        load_recipe(own.recipe_file)
    own.recipe_file.write_text("annotated = []\n" + text)
    with pytest.raises(RecipeError, match="'annotated' must be a list of class names"):
        load_recipe(own.recipe_file)
