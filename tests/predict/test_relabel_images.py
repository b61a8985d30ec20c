"""`labelmerge relabel` of images that have no labels: a model gives them some, and their depths stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError, UsageError
from labelmerge.inspect.verify import verify
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.views import Views
from labelmerge.predict.relabel import relabel
from labelmerge.sharding.shard import shard
from labelmerge.shardset.manifest import read_manifest
from labelmerge.shardset.shardset import ShardSet

from ..sharding.conftest import Own

RECIPE = """name = "my_streets"
annotation_type = "image"
reader = "images"
descriptions = "my_streets.csv"

[layout]
images = "images/{split}/*.png"
depth = "depth/{split}/{stem}.png"

[options]
depth_unit = "mm"
"""
NAMES = ("road", "car", "sky")
OWN = Views(short_edge=0)


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    own = Own(tmp_path / "own")
    own.write_recipe(RECIPE)
    for number in range(3):
        own.image(f"images/train/{number}.png", (24, 32))
        own.mask(f"depth/train/{number}.png", np.full((24, 32), 100 + number, np.uint16))
    shard(own.recipe, own.root, "train", tmp_path / "shards")
    tools.run(tmp_path / "run", tools.bank([("my_streets", place, name, "") for place, name in enumerate(NAMES)]))
    return tmp_path


def test_every_pixel_takes_the_likeliest_label_that_is_sure_enough(world: Path) -> None:
    report = relabel([world / "shards"], None, world / "new", checkpoint=world / "run", confidence=0.36, views=OWN)
    assert verify([world / "new"]).problems == ()
    assert report.splits[0].annotation_type == ("image", "noisy_mask")
    manifest, space = read_manifest(world / "new/my_streets/train")
    assert (space.name, space.names, manifest["annotated"]) == ("my_streets", NAMES, list(NAMES))
    assert manifest["depth"] == {"unit": "mm", "known_pixels": 3 * 24 * 32}
    assert manifest["relabel"]["rule"] == "a pixel is the model's likeliest label of all"
    trained = load_trained(world / "run")
    bank = Bank.load(world / "run/checkpoints/step-000007/bank")
    predictor = trained.predictor(LabelList.of(space, bank), OWN)
    old, new = (ShardSet.open(world / which / "my_streets/train") for which in ("shards", "new"))
    sure = 0
    for number in range(3):
        before, after = old.read(number, depth=True), new.read(number, depth=True)
        np.testing.assert_array_equal(after.image, before.image)
        np.testing.assert_array_equal(after.depth, np.full((24, 32), 100 + number))
        share = np.concatenate([rows.numpy() for _, rows in predictor.probabilities(before.image)], axis=1)
        wanted = np.where(share.max(0) >= 0.36, predictor.positions[share.argmax(0)], 255)
        np.testing.assert_array_equal(after.mask, wanted)
        sure += int((wanted != 255).sum())
    assert report.splits[0].counts == {"predicted_pixels": sure, "unsure_pixels": 3 * 24 * 32 - sure} and sure


def test_a_taxonomy_gives_images_all_its_concepts(world: Path) -> None:
    (world / "words.csv").write_text(
        "dataset,index,name,concepts\nmy_streets,0,road,way\nmy_streets,1,car,car\nmy_streets,2,sky,sky\n"
    )
    report = relabel([world / "shards"], world / "words.csv", world / "new", checkpoint=world / "run", confidence=0)
    assert verify([world / "new"]).problems == ()
    assert report.space.names == ("way", "car", "sky") and report.splits[0].counts["unsure_pixels"] == 0


def test_without_a_model_images_are_left_out(world: Path, run: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="no taxonomy to relabel by"):
        relabel([world / "shards"], None, world / "new")
    (world / "words.csv").write_text("dataset,index,name,concepts\nmy_streets,0,road,way\n")
    with pytest.raises(ShardError, match="nothing to relabel: my_streets train has images alone"):
        relabel([world / "shards"], world / "words.csv", world / "new")
    words = ["--checkpoint", world / "run", "--out", world / "new", "--device", "cpu"]
    done = run("relabel", world / "shards", *words)
    assert done.exit_code == 0 and "image became noisy_mask" in done.output, done.output
