"""docs/recipes.md names every key, and its examples work."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import Recipe, load_recipe
from labelmerge.errors import LayoutError
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.locate import open_source

DOC = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(csv|toml)\n(.*?)```", DOC, re.DOTALL)


def test_every_key_is_documented() -> None:
    for field in fields(Recipe):
        assert f"`{field.name}`" in DOC or field.name in ("path", "text"), field.name
    for reader in READERS.values():
        for table, keys in (
            ("layout", reader.KEYS.layout + reader.KEYS.layout_optional),
            ("ids", reader.KEYS.ids),
            ("options", reader.KEYS.options),
        ):
            for key in keys:
                assert f"`{table}.{key}`" in DOC, f"{table}.{key}"
    assert all(f"**`{name}`**" in DOC for name in READERS)


@pytest.mark.parametrize("name", ["my_streets", "my_goods"])
def test_the_examples_work_as_they_stand(name: str, tmp_path: Path) -> None:
    texts = [text for _, text in BLOCKS]
    number = next(number for number, text in enumerate(texts) if f'name = "{name}"' in text)
    (tmp_path / f"{name}.csv").write_text(texts[number - 1], encoding="utf-8")
    (tmp_path / f"{name}.toml").write_text(texts[number], encoding="utf-8")
    for folder in ("images/train", "masks/train", "annotations"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "images/train/0001.jpg")
    Image.fromarray(np.full((6, 8), 2, np.uint8)).save(tmp_path / "masks/train/0001.png")
    boxes = {
        "images": [{"id": 1, "file_name": "0001.jpg", "width": 8, "height": 6}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 7, "name": "Cup"}],
    }
    (tmp_path / "annotations/train.json").write_text(json.dumps(boxes))
    report = shard(load_recipe(tmp_path / f"{name}.toml"), tmp_path, "train", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / name / "train" / "manifest.json").read_text())
    assert report.written == 1
    assert (manifest["class_pixels"], manifest["class_boxes"]) == (
        ({"2": 48}, {}) if name == "my_streets" else ({}, {"1": 1})
    )


def test_every_example_is_a_recipe_that_its_reader_understands(tmp_path: Path) -> None:
    examples = [text for kind, text in BLOCKS if kind == "toml" and "reader =" in text]
    assert len(examples) > 10
    for text in examples:
        path = tmp_path / "own.toml"
        path.write_text(text, encoding="utf-8")
        recipe = load_recipe(path)
        recipe.descriptions.write_text("index,name\n0,road\n1,car\n", encoding="utf-8")
        if "layout" in text:
            with pytest.raises(LayoutError):  # not RecipeError: only the files are missing
                open_source(recipe, tmp_path / "nowhere", "train")
