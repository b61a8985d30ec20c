"""`labelmerge recipe` of Hugging Face datasets on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from labelmerge.catalog import load_recipe
from labelmerge.recipe.recipe import make
from labelmerge.sharding.shard import check
from tests.sharding.hub_rows import MASK_FEATURES, SIZE, encoded, mask_rows, save
from tests.sharding.listing import listed


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    datasets.disable_progress_bars()


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Rows whose masks are in the column `label`."""
    rows = [{"id": row["id"], "photo": row["photo"], "label": row["seg"]} for row in mask_rows(6)]
    if kind == "colour":
        random = np.random.default_rng(0)
        colours = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)
        for row in rows:
            row["label"] = {"bytes": encoded(colours[random.integers(0, 3, SIZE)], "PNG"), "path": None}
    return rows


@pytest.mark.parametrize("form", ["folder", "folders", "parquet"])
@pytest.mark.parametrize("kind", ["index", "colour"])
def test_masks_in_columns(form: str, kind: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    features = datasets.Features({"id": MASK_FEATURES["id"], "photo": datasets.Image(), "label": datasets.Image()})
    save(rows_of(kind), features, root, form)
    found = make(root, tmp_path / "out")
    assert found.proposal.layout["image_column"] == "photo" and found.proposal.layout["mask_column"] == "label"
    assert list(found.splits) == (["train", "val"] if form == "folders" else ["train"])
    recipe = load_recipe(found.recipe)
    assert check(recipe, root, "train").written == 6
    if kind == "index":
        assert found.proposal.ids == {"ignore": [255]}
    else:
        assert set(found.proposal.ids["map"]) == {"0 0 0", "128 64 128", "0 0 142"}
        plan = listed(recipe, root, "train")
        assert plan.read(plan.items[0], SIZE).mask is not None


def test_boxes_in_columns(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    boxes = datasets.Sequence({"bbox": datasets.Sequence(datasets.Value("float32"), length=4), "category": names})
    features = datasets.Features({"image": datasets.Image(), "objects": boxes})
    rows = [{"image": row["photo"], "objects": {"bbox": [[1, 2, 3, 4]], "category": [1]}} for row in mask_rows(3)]
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(root / "data/train-00000-of-00001.parquet")
    found = make(root, tmp_path)
    assert found.proposal.layout["images"] == "data/{split}-*.parquet"
    assert found.proposal.classes == {0: "cat", 1: "dog"}
    plan = listed(load_recipe(found.recipe), root, "train")
    assert [box.class_index for box in plan.read(plan.items[0], SIZE).boxes] == [1]
