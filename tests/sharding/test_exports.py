"""COCO's JSON as others write it: LVIS and Roboflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import tool_formats as tools
from .tool_formats import NAMES, SIZE, Dataset

ROBOFLOW = '[layout]\nimages = "{split}"\nannotations = "{split}/_annotations.coco.json"\n[splits]\nval = "valid"\n'


def lvis(root: Path) -> dict[str, Any]:
    """One image of train2017 and one of val2017, without file names, as in lvis_v1_val.json."""
    content = tools.coco_json({"a": tools.scene(0), "b": tools.scene(1)})
    content["categories"] = [
        {"id": n, "name": name, "synset": f"{name}.n.01", "frequency": "f"} for n, name in enumerate(NAMES, 1)
    ]
    for image, folder in zip(content["images"], ("train2017", "val2017"), strict=True):
        name = f"{folder}/00000000{image['id']}.jpg"
        tools.picture(root / name)
        del image["file_name"]
        image |= {"coco_url": f"http://images.cocodataset.org/{name}", "neg_category_ids": [3]}
    content["images"][0]["not_exhaustive_category_ids"] = [1]
    content["images"][1]["not_exhaustive_category_ids"] = []
    return content


@pytest.mark.parametrize("reader", ["coco_instances", "coco_boxes"])
@pytest.mark.parametrize("folder", [".", "val2017"])
def test_lvis(reader: str, folder: str, dataset: Dataset) -> None:
    tools.text(dataset.root / "lvis_v1_train.json", lvis(dataset.root))
    layout = f'[layout]\nimages = "{folder}"\nannotations = "lvis_v1_{{split}}.json"\n'
    options = "" if folder == "." else "[options]\nname_parts = 1\n"
    kind = "box" if reader == "coco_boxes" else "noisy_mask"
    found = dataset.listed(tools.Recipe(reader, layout + options), kind)
    whole = ["train2017/000000000.jpg", "val2017/000000001.jpg"]
    assert [item.path for item in found.items] == (whole if folder == "." else whole[1:])
    assert found.notes["images_with_not_exhaustive_category_ids"] == 1
    assert found.notes["images_with_neg_category_ids"] == 2
    assert len(found.read(found.items[-1], SIZE).boxes) == 5


@pytest.mark.parametrize("reader", ["coco_instances", "coco_boxes"])
def test_roboflow_coco(reader: str, dataset: Dataset) -> None:
    tools.coco(dataset.root, {"a_jpg.rf.0123456789abcdef": tools.scene(0)})
    (dataset.root / "valid").symlink_to("train")
    tools.text(dataset.root / "README.dataset.txt", "things > 2024\nhttps://universe.roboflow.com")
    kind = "box" if reader == "coco_boxes" else "noisy_mask"
    for split in ("train", "val"):
        found = dataset.listed(tools.Recipe(reader, ROBOFLOW), kind, split=split)
        assert found.item.path == f"{'valid' if split == 'val' else split}/a_jpg.rf.0123456789abcdef.jpg"
        assert found.notes == {} and len(found.read(found.item, SIZE).boxes) == 5
