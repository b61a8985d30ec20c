"""COCO's panoptic format, and WildDash 2 in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, SampleError
from labelmerge.sharding.shard import shard

from .listing import Listed, listed
from .tables import CATEGORIES, SIZE

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


def reasons(own: Own) -> dict[str, str]:
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    return {skip["path"]: skip["reason"] for skip in report.skipped}


PANOPTIC = """name = "my_streets"
annotation_type = "mask"
reader = "panoptic"
descriptions = "my_streets.csv"
[layout]
images = "{split}"
annotations = "{split}.json"
masks = ["annotations/{split}", "masks_{split}"]
"""


def panoptic_json(own: Own, name: str, segments: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": f"{name}.jpg", "height": 12, "width": 16}],
        "annotations": [{"image_id": 1, "file_name": f"{name}.png", "segments_info": segments}],
        "categories": CATEGORIES,
        **more,
    }


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_panoptic_agrees_with_a_look_at_every_pixel(new_own: Callable[[], Own], data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(1, 2**24 - 1), min_size=1, max_size=5, unique=True))
    places = data.draw(st.lists(st.integers(0, len(ids)), min_size=192, max_size=192))
    crowd = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    kinds = data.draw(st.lists(st.sampled_from([3, 4, 9]), min_size=len(ids), max_size=len(ids)))
    known = ids[: data.draw(st.integers(0, len(ids)))]
    stored = np.array([*ids, 0])[np.array(places).reshape(SIZE)]
    segments = [{"id": i, "category_id": c, "iscrowd": int(k)} for i, c, k in zip(ids, kinds, crowd, strict=True)]
    own = new_own()
    own.write_recipe(PANOPTIC)
    own.image("train/a.jpg")
    rgb = np.stack([stored & 255, stored >> 8 & 255, stored >> 16], axis=-1).astype(np.uint8)
    (own.root / "masks_train").mkdir()
    Image.fromarray(rgb).save(own.root / "masks_train/a.png")
    (own.root / "train.json").write_text(json.dumps(panoptic_json(own, "a", segments[: len(known)])))
    plan = listed(own.recipe, own.root, "train")
    annotation = plan.read(plan.item)
    assert annotation.mask is not None and annotation.instances is not None
    kind_of = {3: 0, 4: 1, 9: 2}
    number_of: dict[int, int] = {}
    for segment_id in known:
        if segment_id in stored:
            number_of[segment_id] = len(number_of) + 1
    for y in range(12):
        for x in range(16):
            value = int(stored[y, x])
            is_known = value in known
            assert annotation.mask[y, x] == (kind_of[kinds[ids.index(value)]] if is_known else 255)
            assert annotation.instances[y, x] == (number_of[value] if is_known else 0)
    assert [segment.id for segment in annotation.segments] == sorted(number_of.values())
    assert [segment.iscrowd for segment in annotation.segments] == [crowd[ids.index(i)] for i in number_of]
    assert [segment.native_id for segment in annotation.segments] == [str(i) for i in number_of]
    assert plan.item.native_id == "1"


def test_panoptic_images_that_do_not_fit(own: Own) -> None:
    own.write_recipe(PANOPTIC)
    (own.root / "annotations/train").mkdir(parents=True)
    names = ["ok", "no_entry", "no_png", "no_image", "wrong_size", "../escape", "grey"]
    records = panoptic_json(own, "ok", [])
    records["images"] = [
        {"id": number, "file_name": f"{name}.jpg", "height": 12, "width": 99 if name == "wrong_size" else 16}
        for number, name in enumerate(names)
    ]
    records["annotations"] = [
        {"image_id": number, "file_name": f"{name}.png", "segments_info": []}
        for number, name in enumerate(names)
        if name != "no_entry"
    ]
    (own.root / "train.json").write_text(json.dumps(records))
    for name in ("ok", "no_entry", "no_png", "wrong_size", "grey", "extra"):
        own.image(f"train/{name}.jpg")
    own.image("escape.jpg")
    for name in ("ok", "no_image", "wrong_size"):
        Image.new("RGB", (16, 12)).save(own.root / f"annotations/train/{name}.png")
    own.mask("annotations/train/grey.png")
    found = reasons(own)
    assert found.pop("train/grey.jpg") == "annotations/train/grey.png: is not an RGB panoptic PNG (mode L)"
    assert found == {
        "../escape.jpg": "the name leads out of its folder",
        "train/no_entry.jpg": "no annotation in the JSON",
        "train/no_png.jpg": "no annotation: expected annotations/train/no_png.png",
        "train/no_image.jpg": "listed, but there is no such image",
        "train/wrong_size.jpg": "the JSON says 99x12, but the image is 16x12",
    }
    manifest = json.loads((own.folder / "out/my_streets/train/manifest.json").read_text())
    assert manifest["notes"] == {"images_not_listed": 1, "masks_not_listed": 1}


def test_the_value_0_and_more_than_16_bits_of_segments_are_no_segments(own: Own) -> None:
    own.write_recipe(PANOPTIC)
    own.image("train/a.jpg")
    (own.root / "masks_train").mkdir()
    Image.new("RGB", (16, 12)).save(own.root / "masks_train/a.png")

    def plan(segments: list[dict[str, Any]]) -> Listed:
        (own.root / "train.json").write_text(json.dumps(panoptic_json(own, "a", segments)))
        return listed(own.recipe, own.root, "train")

    void = plan([{"id": 0, "category_id": 3}])
    annotation = void.read(void.item)
    assert annotation.segments == () and annotation.mask is not None and set(annotation.mask.ravel()) == {255}
    many = plan([{"id": number, "category_id": 3} for number in range(70000)])
    with pytest.raises(SampleError, match="70000 segments, more than 65535"):
        many.read(many.item)
    with pytest.raises(LayoutError, match="none of its segments is of a category that it lists"):
        plan([{"id": 1, "category_id": 77}])


def test_crowds_stay_and_sizes_must_agree(fixtures: Path, own: Own) -> None:
    own.write_classes(["a", "b"])
    layout = PANOPTIC.replace('"{split}"', '"images/{split}"').replace(
        "annotations/{split}", "annotations/panoptic_{split}"
    )
    own.write_recipe(layout.replace('"{split}.json"', '"annotations/panoptic_{split}.json"'))
    root = fixtures / "coco_panoptic_tiny_synthetic"
    plan = listed(own.recipe, root, "val")
    segments = plan.read(plan.item, (10, 5)).segments
    assert sorted(segment.iscrowd for segment in segments) == [False, True]
    # The published sample's picture is larger than its mask.
    with pytest.raises(LayoutError, match="a.png: is 5x5, but its image is 10x5"):
        shard(own.recipe, root, "train", own.folder / "out")


# What panoptic.json of WildDash 2 lists, as rvc_devkit has it; these files are made up.
@pytest.mark.parametrize("negative", [False, True])
def test_wilddash_2(own: Own, class_lists: Path, negative: bool) -> None:
    rows = [line.split("\t") for line in (class_lists / "wilddash2_39.tsv").read_text().splitlines()[1:]]
    own.image("images/au0001_100000.jpg")
    ids = np.arange(192).reshape(SIZE) // 4 % 40  # every category, and the value 39, which is listed for none
    (own.root / "panoptic").mkdir()
    Image.fromarray(np.stack([ids, ids * 0, ids * 0], axis=-1).astype(np.uint8)).save(
        own.root / "panoptic/au0001_100000.png"
    )
    segments = [{"id": int(row[0]), "category_id": int(row[0]), "iscrowd": 0} for row in rows[1:]]
    data = panoptic_json(own, "au0001_100000", [] if negative else segments)
    data["categories"] = [{"id": int(row[0]), "name": row[1], "isthing": int(row[2])} for row in rows]
    (own.root / "panoptic.json").write_text(json.dumps(data))
    recipe = load_recipe("wilddash2")
    plan = listed(recipe, own.root, "val")
    mask = plan.read(plan.item).mask
    assert mask is not None
    names = dict(zip(load_label_space(recipe).names, load_label_space(recipe).indices, strict=True))
    for value, name in [(int(row[0]), row[1]) for row in rows] + [(39, "nothing")]:
        expected = 255 if negative else names.get(name, 255)
        assert set(mask[ids == value].tolist()) == {expected}, name
    assert shard(recipe, own.root, "val", own.folder / "out").written == 1
