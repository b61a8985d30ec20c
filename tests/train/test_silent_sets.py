"""A set of which no loss can come is named before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.loading.datasets import group_by_dataset
from labelmerge.sharding.shard import shard
from labelmerge.shardset.shardset import ShardSet
from labelmerge.train.inputs import teaches_nothing


@pytest.mark.parametrize(
    ("flag", "bbox", "why"),
    [
        (1, [10, 10, 20, 20], "every box is a crowd"),
        ("1", [10, 10, 20, 20], "every box is a crowd"),
        (True, [10, 10, 20, 20], "every box is a crowd"),
        ("0", [10, 10, 20, 20], None),
        ("false", [10, 10, 20, 20], None),
        (0.0, [10, 10, 20, 20], None),
        (0, [100, 100, 5, 5], "it has no boxes"),
    ],
)
def test_sets_that_teach_nothing(flag: object, bbox: list[int], why: str | None, tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("index,name\n0,bottle\n")
    (tmp_path / "set.toml").write_text(
        'name = "goods"\nannotation_type = "box"\nreader = "coco_boxes"\ndescriptions = "set.csv"\n'
        '[layout]\nimages = "images"\nannotations = "{split}.json"\n'
    )
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images/a.jpg")
    record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": bbox, "iscrowd": flag}
    image = {"id": 1, "file_name": "a.jpg", "height": 48, "width": 64}
    data = {"images": [image], "annotations": [record], "categories": [{"id": 1, "name": "bottle"}]}
    (tmp_path / "train.json").write_text(json.dumps(data))
    shard(load_recipe(tmp_path / "set.toml"), tmp_path, "train", tmp_path / "out")
    (source,) = group_by_dataset([ShardSet.open(tmp_path / "out/goods/train")])
    found = teaches_nothing(source)
    assert (found is None) if why is None else (found is not None and why in found)
