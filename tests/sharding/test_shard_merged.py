"""Shards whose classes are the groups of a person's mapping table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from labelmerge.catalog import load_label_space
from labelmerge.errors import ShardError, TaxonomyError
from labelmerge.inspect.verify import verify
from labelmerge.labels import LabelSpace
from labelmerge.sharding.merged import read_class_map
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.source import Annotation, Box, ClassMap, Segment

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
    assert run(*words, "--mapping", table).exit_code == 0
    folder = tmp_path / "out/my_streets/train"
    (sample,) = read_samples(folder).values()
    for y in range(12):
        for x in range(16):
            assert sample["mask.png"][y, x] == GROUPS.get(int(mask[y, x]), 255)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["label_space"]["names"] == ["heaven", "ground", "vehicle"]
    assert manifest["reproduce"].endswith("--mapping mapping.csv") and str(tmp_path) not in json.dumps(manifest)
    assert verify([folder]).problems == ()
    table.write_text(TABLE.replace("vehicle", "ground"))
    with pytest.raises(ShardError, match="mapping was"):
        shard(own.recipe, own.root, "train", tmp_path / "out", mapping=table)


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
        shard(own.recipe, own.root, "train", tmp_path / "out", mapping=table)
    assert not (tmp_path / "out").exists()
