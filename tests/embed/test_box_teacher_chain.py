"""Boxes embedded by CLIP's image tower when shards are made: training then needs no CLIP."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.encoders import encoders

RECIPE = """name = "things"
annotation_type = "box"
reader = "coco_boxes"
descriptions = "things.csv"

[layout]
images = "images/{split}"
annotations = "{split}.json"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Four images of noise with two boxes each, and their recipe."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data/images/train"
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(4):
        Image.fromarray(random.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
        for k in range(2):
            bbox = [4.0 + 8 * k, 5.5, 30.0, 40.0]
            boxes.append({"id": len(boxes), "image_id": number, "category_id": k, "bbox": bbox, "iscrowd": 0})
    categories = [{"id": 0, "name": "cup"}, {"id": 1, "name": "cat"}]
    annotations = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "data/train.json").write_text(json.dumps(annotations))
    (tmp_path / "things.csv").write_text(
        "index,name,description\n0,cup,A cup is a vessel.\n1,cat,A cat is an animal.\n"
    )
    (tmp_path / "things.toml").write_text(RECIPE)
    return tmp_path / "things.toml"


def test_training_uses_what_the_image_tower_said_at_shard_time(
    recipe: Path, tmp_path: Path, clip_spec: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["shard", recipe, "--root", tmp_path / "data", "--split", "train", "--out", tmp_path / "shards"]
    made = run(*words, "--box-teacher", clip_spec, "--device", "cpu")
    assert made.exit_code == 0, made.output
    tower = encoders.load_image_encoder(clip_spec, "cpu")
    with tarfile.open(tmp_path / "shards/things/train/things-train-000000.tar") as tar:
        for number in range(4):
            member = tar.extractfile(f"things-train-{number:09d}.box_embeddings.npy")
            assert member is not None
            stored = np.load(io.BytesIO(member.read()))
            picture = Image.open(tmp_path / f"data/images/train/{number}.png")
            wanted = tower.encode_images([picture.crop((4, 5, 34, 46)), picture.crop((12, 5, 42, 46))])
            np.testing.assert_allclose(stored, wanted, atol=2e-3)
    assert run("verify", tmp_path / "shards").exit_code == 0
    assert run("embed", recipe, "--out", tmp_path / "bank", "--encoder", clip_spec).exit_code == 0

    def nobody(*_: object) -> None:
        raise AssertionError("training asked for CLIP")

    monkeypatch.setattr(encoders, "load_image_encoder", nobody)
    words = ["train", "--shards", tmp_path / "shards", "--bank", tmp_path / "bank", "--out", tmp_path / "run"]
    trained = run(*words, "--preset", "tiny", "--steps", "2", "--batch-size", "2", "--crop", "32", "--workers", "0")
    assert trained.exit_code == 0, trained.output
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) and line["loss"] > 0 for line in lines)
