"""The real samples: every pixel of every class, as counted by other means (expected.json)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard

Samples = Callable[[Path], dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def expected(fixtures: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((fixtures / "expected.json").read_text())
    return facts


def one(read_samples: Samples, folder: Path) -> dict[str, Any]:
    (sample,) = read_samples(folder).values()
    return sample


def counted(mask: Any, ignore: int) -> dict[str, int]:
    values, counts = np.unique(mask, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    return {"ignore" if value == ignore else str(value): count for value, count in pairs}


# Dataset, its root and split among the samples, its only mask there, and the image member.
MASKS = [
    ("ade20k", "ade20k", "val", "annotations/validation/ADE_val_00000001.png", "jpg"),
    ("ade20k", "ade20k/ADEChallengeData2016", "train", "annotations/training/ADE_train_00000001.png", "jpg"),
    ("mapillary", "mapillary_vistas/v1.2_real_crop", "train", "v1.2/labels/__CRyFzoDOXn6unQ6a3DnQ.png", "jpg"),
    ("coco_panoptic", "coco_panoptic", "train", "panoptic_train2017/000000000009.png", "jpg"),
    ("coco_panoptic", "coco_panoptic", "val", "panoptic_val2017/000000000139.png", "jpg"),
    ("bdd100k", "bdd100k/real_labels", "val", "sem_seg/masks/val/7d2f7975-e0c1c5a7.png", "jpg"),
    ("cityscapes", "cityscapes", "train", "aachen_000002_000019_gtFine_labelIds.png", "png"),
    ("cityscapes", "cityscapes", "val", "frankfurt_000000_000294_gtFine_labelIds.png", "png"),
    ("sunrgbd", "sunrgbd/choy_layout", "train", "label37/train/00000001.png", "jpg"),
    ("sunrgbd", "sunrgbd/handa_layout", "train", "sunrgbd_train_test_labels/img-005051.png", "jpg"),
    ("camvid", "camvid/segnet_480x360", "train", "trainannot/0001TP_006690.png", "png"),
    ("camvid", "camvid/segnet_480x360", "val", "valannot/0016E5_07959.png", "png"),
    ("camvid", "camvid/segnet_480x360", "test", "testannot/Seq05VD_f00000.png", "png"),
    ("kitti", "kitti_semantic/derived_from_cityscapes", "train", "semantic/000000_10.png", "png"),
    ("voc", "voc", "train", "SegmentationClass/2007_000063.png", "jpg"),
    ("voc", "voc/VOCdevkit/VOC2012", "train", "SegmentationClass/2007_000063.png", "jpg"),
]


@pytest.mark.parametrize(("dataset", "root", "split", "fact", "image"), MASKS, ids=[f"{m[1]}-{m[2]}" for m in MASKS])
def test_every_pixel_of_every_class(
    dataset: str,
    root: str,
    split: str,
    fact: str,
    image: str,
    fixtures: Path,
    expected: dict[str, Any],
    tmp_path: Path,
    read_samples: Samples,
) -> None:
    report = shard(load_recipe(dataset), fixtures / root, split, tmp_path)
    assert (report.found, report.written, report.skipped) == (1, 1, ())
    space = load_label_space(load_recipe(dataset))
    sample = one(read_samples, tmp_path / dataset / split)
    assert image in sample
    (facts,) = (facts["train"] for path, facts in expected.items() if path.startswith(root) and path.endswith(fact))
    wanted = {key.partition(":")[0]: count for key, count in facts.items()}
    for key in facts:
        index, _, name = key.partition(":")
        assert key == "ignore" or space.name_of(int(index)).casefold().startswith(name.casefold())
    assert counted(sample["mask.png"], space.ignore_index) == wanted
    assert sample["json"]["present"] == sorted(int(key) for key in wanted if key != "ignore")
    assert sample["json"]["label_space"] == space.hash
    manifest = json.loads((tmp_path / dataset / split / "manifest.json").read_text())
    assert manifest["class_pixels"] == {key: count for key, count in wanted.items() if key != "ignore"}
    assert manifest["ignored_pixels"] == wanted.get("ignore", 0)
    assert verify([tmp_path]).problems == ()


@pytest.mark.parametrize("dataset", ["idd", "idd_level3"])
def test_idd_polygons(
    dataset: str, fixtures: Path, expected: dict[str, Any], tmp_path: Path, read_samples: Samples
) -> None:
    report = shard(load_recipe(dataset), fixtures / "idd", "train", tmp_path)
    assert report.notes == {"deleted_or_degenerate_polygons": 30}
    facts = expected["idd/idd20kII/gtFine/train/201/frame0001_gtFine_polygons.json"]
    if dataset == "idd":
        wanted = {"ignore" if key == "35" else key: count for key, count in facts["id_counts"].items()}
    else:
        level3 = facts["level3_counts(PIL polygon fill, file order; +-0.5% tolerance)"]
        wanted = {key.partition(":")[0]: count for key, count in level3.items()}
    have = counted(one(read_samples, tmp_path / dataset / "train")["mask.png"], 255)
    assert have.keys() == wanted.keys()
    assert {key: pytest.approx(count, rel=0.005) for key, count in wanted.items()} == have


def test_coco_segments(fixtures: Path, expected: dict[str, Any], tmp_path: Path, read_samples: Samples) -> None:
    shard(load_recipe("coco_panoptic"), fixtures / "coco_panoptic", "val", tmp_path)
    sample = one(read_samples, tmp_path / "coco_panoptic" / "val")
    facts = expected["coco_panoptic/annotations/panoptic_val2017/000000000139.png"]
    segments = sample["json"]["segments"]
    assert len(segments) == facts["segments"] and [segment["id"] for segment in segments] == list(range(1, 31))
    instances, mask = sample["instances.png"], sample["mask.png"]
    assert instances.dtype == np.uint16
    assert np.count_nonzero(instances == 0) == facts["void_pixels"]
    annotations = json.loads((fixtures / "coco_panoptic/annotations/panoptic_val2017.json").read_text())
    official = annotations["annotations"][0]["segments_info"]
    for segment, info in zip(segments, official, strict=True):
        assert segment["area"] == info["area"] == np.count_nonzero(instances == segment["id"])
        assert segment["category_id"] == info["category_id"] and not segment["iscrowd"]
        assert set(mask[instances == segment["id"]].tolist()) == {segment["class_index"]}


def test_coco_panoptic_pngs_beside_the_annotations_folder(fixtures: Path, tmp_path: Path) -> None:
    root = tmp_path / "coco"
    root.mkdir()
    source = fixtures / "coco_panoptic"
    (root / "val2017").symlink_to(source / "val2017")
    (root / "panoptic_val2017").symlink_to(source / "annotations" / "panoptic_val2017")
    (root / "annotations").mkdir()
    text = (source / "annotations" / "panoptic_val2017.json").read_text()
    (root / "annotations" / "panoptic_val2017.json").write_text(text)
    assert shard(load_recipe("coco_panoptic"), tmp_path, "val", tmp_path / "out").written == 1


def test_objects365_v2(fixtures: Path, tmp_path: Path, read_samples: Samples) -> None:
    report = shard(load_recipe("objects365"), fixtures / "objects365" / "v2", "val", tmp_path)
    assert (report.found, report.written) == (3, 2)
    assert report.skipped[0]["path"] == "val/patch44/objects365_v2_02024631.jpg"
    assert report.notes == {"zero_size_boxes": 1, "crowd_boxes": 1}
    names = load_label_space(load_recipe("objects365")).names
    first, second = sorted(
        (s["json"] for s in read_samples(tmp_path / "objects365" / "val").values()), key=lambda s: s["source"]["path"]
    )
    assert first["source"]["path"] == "val/patch21/objects365_v2_01118660.jpg"
    assert [names[box["class_index"]] for box in first["boxes"]] == ["Table Tennis "]
    boxes = second["boxes"]
    assert [names[box["class_index"]] for box in boxes] == ["Air Conditioner", "Person", "Person", "Bottle", "Bottle"]
    assert [box["class_index"] for box in boxes] == [83, 0, 0, 8, 8]
    x, y, width, height = 491.3955078011, 88.1856689664, 35.65588379410002, 44.442382796800004
    assert boxes[0]["bbox"] == [x, y, x + width, y + height]
    assert boxes[0]["area"] == pytest.approx(1584.6324365356109)
    assert [box["iscrowd"] for box in boxes] == [False, False, True, False, False]
    assert boxes[4]["bbox"] == [700.0, 450.0, 769.0, 512.0]  # was 100 x 100, over the corner
    assert verify([tmp_path]).problems == ()


def test_original_bytes_pass_through(fixtures: Path, tmp_path: Path, read_samples: Samples) -> None:
    shard(load_recipe("voc"), fixtures / "voc", "train", tmp_path)
    original = (fixtures / "voc/VOCdevkit/VOC2012/JPEGImages/2007_000063.jpg").read_bytes()
    sample = one(read_samples, tmp_path / "voc" / "train")
    assert sample["jpg"] == original
    assert sample["json"]["source"] == {
        "path": "VOCdevkit/VOC2012/JPEGImages/2007_000063.jpg",
        "native_id": "",
        "sha256": hashlib.sha256(original).hexdigest(),
    }


def test_mapillary_v2_labels_are_not_taken_for_v1_2(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "mapillary_vistas" / "v1.2_real_crop" / "training"
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "images").symlink_to(source / "images")
    (tmp_path / "training" / "labels").symlink_to(source / "v2.0" / "labels")
    for config in ("config.json", "config_v1.2.json"):  # a wrong one, and one that says nothing of this folder
        (tmp_path / config).symlink_to(fixtures / "mapillary_vistas" / "v1.2_real_crop" / "config_v1.2.json")
        message = "mask values unknown to the recipe: 84" if config == "config.json" else "expected config.json"
        with pytest.raises(LayoutError, match=message):
            shard(load_recipe("mapillary"), tmp_path, "train", tmp_path / "out")
        (tmp_path / config).unlink()


def test_tiny_bdd100k_records_nothing_it_should_not(fixtures: Path, tmp_path: Path) -> None:
    report = shard(load_recipe("bdd100k"), fixtures / "bdd100k" / "tiny_8x8", "val", tmp_path)
    assert (report.written, report.skipped, report.notes) == (3, (), {})


def test_instances_can_be_left_out(fixtures: Path, tmp_path: Path, read_samples: Samples) -> None:
    for name, folder in (("coco_panoptic", "coco_panoptic"), ("cityscapes", "cityscapes")):
        shard(load_recipe(name), fixtures / folder, "val", tmp_path / "with")
        shard(load_recipe(name), fixtures / folder, "val", tmp_path / "without", instances=False)
        rich = one(read_samples, tmp_path / "with" / name / "val")
        plain = one(read_samples, tmp_path / "without" / name / "val")
        assert rich.keys() - plain.keys() == {"instances.png"}
        assert rich["json"]["segments"] and not plain["json"]["segments"]
        np.testing.assert_array_equal(rich["mask.png"], plain["mask.png"])
    assert verify([tmp_path]).problems == ()
