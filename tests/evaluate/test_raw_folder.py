"""A dataset as it was unpacked is measured as its shards are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, ShardError, UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.model.views import Views
from labelmerge.sharding.raw import RawSplit, open_raw
from labelmerge.sharding.shard import shard

RECIPE = """
name = "streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "streets.csv"
[layout]
images = "images/{split}/*.png"
masks = "masks/{split}/{stem}.png"
[ids]
ignore = [255]
"""
BOXES = RECIPE.replace('"mask"', '"box"').replace("index_png", "coco_boxes").split("[layout]")[0] + (
    '[layout]\nimages = "images/{split}"\nannotations = "annotations/{split}.json"\n'
)
LABELS = [("streets", i, name, f"About {name}.") for i, name in enumerate(["road", "car", "sky"])]


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """bank, run and a dataset of six images: one lacks its mask, one is not an image, one mask has an unknown value."""
    tools.bank(LABELS).save(tmp_path / "bank")
    tools.run(tmp_path / "run", Bank.load(tmp_path / "bank"))
    (tmp_path / "streets.toml").write_text(RECIPE)
    rows = "".join(f"{i},{name},{text}\n" for _, i, name, text in LABELS)
    (tmp_path / "streets.csv").write_text(f"index,name,description\n{rows}")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "val").mkdir(parents=True)
    for number in range(6):
        mask = rng.choice([0, 1, 2, 255], (16, 20)).astype(np.uint8)
        mask[0, 0] = 77 if number == 4 else 0
        image = tools.png(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)) if number != 2 else b"no image"
        (tmp_path / f"data/images/val/{number}.png").write_bytes(image)
        if number != 1:
            (tmp_path / f"data/masks/val/{number}.png").write_bytes(tools.png(mask))
    return tmp_path


def opened(world: Path) -> RawSplit:
    return open_raw(load_recipe(world / "streets.toml"), world / "data")


def test_folder_and_shards_give_the_same(world: Path) -> None:
    recipe = str(world / "streets.toml")
    raw = evaluate(world / "run", [], None, world / "raw.json", datasets=[opened(world)], views=Views(flip=True))
    shard(load_recipe(recipe), world / "data", "val", world / "shards")
    sharded = evaluate(world / "run", [world / "shards"], None, world / "r.json", views=Views(flip=True))
    ours, theirs = raw.to_json()["sets"][0], sharded.to_json()["sets"][0]
    assert (ours["images"], theirs["images"]) == (3, 3)
    assert {skip["key"] for skip in ours["skipped_samples"]} >= {"images/val/1.png"}
    assert ours["skipped"] == 3
    # Examples are chosen by place, and what is skipped has a place in a folder alone.
    differ = {"skipped", "skipped_samples", "source", "examples"}
    assert {key: ours[key] for key in ours.keys() - differ} == {key: theirs[key] for key in theirs.keys() - differ}
    source = ours["source"]
    assert (source["kind"], source["root"], source["recipe"]) == ("dataset", str(world / "data"), recipe)
    assert source["recipe_sha256"] == load_recipe_sha(world)
    # Nothing was written into the dataset.
    assert sorted(path.name for path in (world / "data").iterdir()) == ["images", "masks"]


def test_a_split_that_is_taken_for_want_of_another_is_said(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("images", "masks"):
        (world / "data" / kind / "val").rename(world / "data" / kind / "test")
    with caplog.at_level("INFO", logger="labelmerge"):
        evaluate(
            world / "run",
            [],
            None,
            world / "r.json",
            datasets=[opened(world)],
        )
    assert "streets test is measured, because val can't be: " in caplog.text


def load_recipe_sha(world: Path) -> str:
    """As the manifest of the shards has it."""
    return str(json.loads((world / "shards/streets/val/manifest.json").read_text())["recipe"]["sha256"])


def test_limit_counts_candidates(world: Path) -> None:
    shutil.rmtree(world / "data/masks/val")
    shutil.copytree(world / "data/images/val", world / "data/masks/val")  # colour pictures are not masks
    with pytest.raises(ShardError, match="none of 2 images .*2 can't be used"):
        evaluate(
            world / "run",
            [],
            None,
            world / "r.json",
            datasets=[opened(world)],
            limit=2,
        )


def test_an_authentic_dataset(world: Path, fixtures: Path, tools: Any) -> None:
    """The small Cityscapes sample: the split is found, and the masks are what the reader makes of them."""
    space = load_label_space(load_recipe("cityscapes"))
    labels = [("cityscapes", index, name, "") for index, name in zip(space.indices, space.names, strict=True)]
    tools.bank(labels).save(world / "city")
    results = evaluate(
        world / "run",
        [],
        world / "city",
        world / "r.json",
        datasets=[open_raw(load_recipe("cityscapes"), fixtures / "cityscapes")],
        views=Views(short_edge=32),
    )
    assert results.sets[0].images >= 1 and results.sets[0].confusion.shape == (19, 19)


def test_faults(world: Path, tools: Any) -> None:
    recipe = str(world / "streets.toml")

    def measure(dataset: str, root: Path, split: str | None = None, **more: Any) -> None:
        raw = open_raw(load_recipe(dataset), root, split)
        evaluate(world / "run", [], None, world / "r.json", datasets=[raw], split=split, **more)

    with pytest.raises(UsageError, match="unknown dataset 'citiscapes'. Did you mean cityscapes"):
        measure("citiscapes", world)
    with pytest.raises(LayoutError, match="no such folder"):
        measure(recipe, world / "none")
    with pytest.raises(LayoutError, match="not laid out as streets"):
        measure(recipe, world / "bank")
    with pytest.raises(LayoutError, match="not laid out as streets: expected images at images/train"):
        measure(recipe, world / "data", "train")
    (world / "boxes.toml").write_text(BOXES)
    (world / "data/annotations").mkdir()
    image = {"id": 1, "file_name": "0.png", "height": 16, "width": 20}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
    listed = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "car"}]}
    (world / "data/annotations/val.json").write_text(json.dumps(listed))
    with pytest.raises(ShardError, match="has boxes but no masks"):
        measure(str(world / "boxes.toml"), world / "data")
    with pytest.raises(UsageError, match="nothing to measure on"):
        evaluate(world / "run", [], None, world / "r.json")
    shard(load_recipe(recipe), world / "data", "val", world / "shards")
    with pytest.raises(ShardError, match="streets val is given twice: .* holds it too"):
        evaluate(world / "run", [world / "shards"], None, world / "r.json", datasets=[opened(world)])
    assert not (world / "r.json").exists()


def test_command(world: Path, run: Callable[..., Any]) -> None:
    words = ("eval", "--checkpoint", world / "run", "--dataset", world / "streets.toml", "--out", world / "r.json")
    windows = ("--window", 16, "--window-stride", "1/2", "--scales", "0.5:1.5:0.5")
    result = run(*words, "--root", world / "data", *windows)
    assert result.exit_code == 0, result.output
    assert "Skipped, because unusable: 3 samples. " in result.stdout and "most confused" in result.stdout
    protocol = json.loads((world / "r.json").read_text())["protocol"]
    assert (protocol["window"], protocol["window_stride"], protocol["scales"]) == (16, 0.5, [0.5, 1.0, 1.5])
    assert (world / "r.confusion.streets-val.png").read_bytes().startswith(b"\x89PNG")
    for more, message in (
        ((), "1 of --dataset but 0 of --root"),
        (("--root", world / "data", "--window-stride", "2/3x"), "is not a share such as 2/3"),
        (("--root", world / "data", "--window-stride", "0.5"), "means nothing without a window"),
        (("--root", world / "data", "--window", "16", "--window-stride", "5/0"), "is not a share such as 2/3"),
        (("--root", world / "data", "--scales", "0.5:1:0"), "FIRST:LAST:STEP"),
        (("--root", world / "data", "--scales", "nan:1:0.1"), "FIRST:LAST:STEP"),
        (("--root", world / "data", "--scales", "0.0001"), "scales must be numbers from 0.05 to 16, not 0.0001"),
        (("--root", world / "data", "--scales", "1,0.05", "--short-edge", "64"), "at scale 0.05 is 3.2, in which no"),
        (("--root", world / "data", "--window", "3"), "3 is not in the range x>=16"),
        (("--root", world / "data", "--short-edge", "3"), "3 pixels show a network nothing: 0, or 16 and more"),
    ):
        result = run(*words, *more)
        assert result.exit_code == 2 and message in result.stderr, result.stderr


def test_the_command_in_the_results_gives_the_same_results(world: Path, run: Callable[..., Any]) -> None:
    import shlex

    recipe = world / "streets.toml"
    words = ("--dataset", recipe, "--root", world / "data", "--bank", world / "bank", "--limit", 5, "--split", "val")
    shown = ("--window", 16, "--flip", "--scales", "0.5,1.25", "--short-edge", 24)
    first = run("eval", "--checkpoint", world / "run", *words, *shown, "--out", world / "r.json", "--json")
    again = run(*shlex.split(json.loads(first.stdout)["reproduce"])[1:], "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
