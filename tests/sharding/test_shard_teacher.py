"""Boxes embedded when the shards are made: the very vectors that training would have made of the same images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.encoders import encoders
from labelmerge.errors import UsageError
from labelmerge.inspect.verify import verify
from labelmerge.sharding import teacher as teachers
from labelmerge.sharding.make import MadeSample
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

SPEC = "open_clip:ViT-B-32/laion2b_s34b_b79k"
BOXES = """name = "my_things"
annotation_type = "box"
reader = "coco_boxes"
descriptions = "my_streets.csv"

[layout]
images = "images/{split}"
annotations = "{split}.json"
"""


class MeanColour:
    """An image tower that anyone can check: the mean colour, as a unit vector."""

    dim = 3
    identity: dict[str, Any] = {}

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_images(self, images: Sequence[Image.Image], *, batch_size: int = 64) -> Any:
        self.batches.append(len(images))
        colours = np.array([np.asarray(image).mean((0, 1)) for image in images], np.float32).reshape(-1, 3)
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> MeanColour:
    tower = MeanColour()
    teachers.load_teacher.cache_clear()
    monkeypatch.setattr(encoders, "load_image_encoder", lambda spec, device: tower)
    return tower


@pytest.fixture
def things(own: Own) -> Own:
    """Six images; the first has no boxes, the others one more each."""
    own.write_recipe(BOXES)
    boxes: list[dict[str, Any]] = []
    for number in range(6):
        own.image(f"images/train/{number}.png", size=(12, 16))
        boxes += [
            {"id": len(boxes) + k, "image_id": number, "category_id": k % 3, "bbox": [k + 0.25, 1.5, 4.5, 6]}
            for k in range(number)
        ]
    images = [{"id": number, "file_name": f"{number}.png", "height": 12, "width": 16} for number in range(6)]
    categories = [{"id": number, "name": name} for number, name in enumerate(["road", "car", "sky"])]
    annotations = {"images": images, "annotations": boxes, "categories": categories}
    (own.root / "train.json").write_text(json.dumps(annotations))
    return own


def test_every_box_gets_the_vector_of_what_is_in_it(
    things: Own, tmp_path: Path, tower: MeanColour, read_samples: Any
) -> None:
    report = shard(things.recipe, things.root, "train", tmp_path, box_teacher=SPEC, samples_per_shard=4)
    assert report.folder is not None
    samples = list(read_samples(report.folder).values())
    for number, sample in enumerate(samples):
        stored = np.load(BytesIO(sample["box_embeddings.npy"]))
        assert stored.dtype == np.float16 and stored.shape == (number, 3)
        pixels = np.asarray(Image.open(things.root / f"images/train/{number}.png")).astype(np.float64)
        for vector, box in zip(stored, sample["json"]["boxes"], strict=True):
            x0, y0, x1, y1 = box["bbox"]
            inside = pixels[int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))].mean((0, 1))
            np.testing.assert_allclose(vector, inside / np.linalg.norm(inside), atol=2e-3)
    assert tower.batches == [0 + 1 + 2 + 3, 4 + 5]  # a shard's boxes together
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert manifest["box_teacher"] == {"encoder": SPEC, "weights_sha256": None}
    assert manifest["members"] == ["box_embeddings.npy", "json", "png"]
    assert verify([tmp_path]).problems == ()


def test_waiting_samples_keep_their_order_and_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "_CUTOUTS", 4)
    tower = MeanColour()
    waiting = teachers.Waiting(tower)
    out: list[MadeSample] = []
    for number in range(9):
        cutouts = [Image.new("RGB", (2, 2), (1 + number, 1, 1))] * (number % 3)
        out += waiting.add(MadeSample(str(number), {}, cutouts))
    out += waiting.rest()
    assert [made.key for made in out] == list("012345678")
    assert [len(np.load(BytesIO(made.members["box_embeddings.npy"]))) for made in out] == [0, 1, 2] * 3
    assert max(tower.batches) <= 5 and waiting.rest() == []


def test_a_teacher_for_masks_or_without_an_image_tower_is_refused(own: Own, things: Own, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no image tower"):
        shard(things.recipe, things.root, "train", tmp_path / "again", box_teacher="offline")
    report = shard(things.recipe, things.root, "train", tmp_path / "again")  # what failed is no obstacle
    assert report.written == 6
    things.write_recipe(BOXES.replace('"box"', '"mask"').replace("coco_boxes", "index_png"))
    with pytest.raises(UsageError, match="a box teacher is for boxes"):
        shard(things.recipe, things.root, "train", tmp_path, box_teacher=SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
