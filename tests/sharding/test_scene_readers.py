"""ADE20K, CamVid, BDD100K, KITTI, VOC, ScanNet and WildDash, in every layout that people have.

ScanNet's full scans, the original CamVid and fast.ai's copy of it are made up from their documentation (the colours and
names are the real ones). Everything else is cut from real files; ../shared/fixtures says which.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.pictures.images import resize_nearest
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.source import Segment

from .layouts import COLOUR_RECIPE, SIZE, classes_of, filled, index, only, pixels, plan, write
from .listing import listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


def full_2016(fixtures: Path, root: Path, name: str, size: tuple[int, int]) -> None:
    """The sample has no images: one of the right size stands in."""
    path = next((fixtures / "ade20k" / "ADE20K_2016_07_26").rglob(f"{name}_seg.png"))
    target = root / path.relative_to(fixtures / "ade20k")
    write(target.parent / f"{name}.jpg", size=size)
    target.symlink_to(path)


@pytest.mark.parametrize(
    ("name", "split", "size", "agreement"),
    [
        ("ADE_train_00000001", "train", (1536, 2048), 0.9992),
        ("ADE_val_00000001", "val", (960, 1280), 1.0),
    ],
)
def test_full_ade20k_folds_into_the_150(
    name: str, split: str, size: tuple[int, int], agreement: float, fixtures: Path, tmp_path: Path
) -> None:
    full_2016(fixtures, tmp_path, name, size)
    variant, annotation = only("ade20k", tmp_path, split, size)
    assert variant == "full" and annotation.mask is not None
    facts = json.loads((fixtures / "expected.json").read_text())
    (fact,) = (fact for path, fact in facts.items() if path.endswith(f"{name}_seg.png"))
    counts = {key.partition(":")[0]: count for key, count in fact["to150"].items()}
    assert {("ignore" if v == 255 else str(v)): count for v, count in pixels(annotation).items()} == counts
    assert len(annotation.segments) <= fact["n_instance_colours"]
    scene = plan("ade20k", fixtures / "ade20k", split)  # SceneParsing lies beside, and goes first
    assert scene.source.variant is None
    small = np.asarray(Image.open(fixtures / "ade20k" / scene.item.annotation))
    there = scene.read(scene.item, small.shape).mask
    assert (resize_nearest(annotation.mask, small.shape) == there).mean() == pytest.approx(agreement, abs=5e-5)


@pytest.mark.parametrize("dataset", ["ade20k", "ade20k_full"])
def test_full_ade20k_of_2021(dataset: str, fixtures: Path, tmp_path: Path) -> None:
    (tmp_path / "ADE20K_2021_17_01").symlink_to(fixtures / "ade20k" / "ADE20K_2021_17_01")
    report = shard(load_recipe(dataset), tmp_path, "train", tmp_path / "out", short_edge=300)
    assert (report.found, report.written) == (1, 1) and verify([tmp_path / "out"]).problems == ()
    _, annotation = only(dataset, tmp_path, size=(1467, 2200))
    facts = json.loads((fixtures / "expected.json").read_text())
    (fact,) = (fact for path, fact in facts.items() if path.endswith("ADE_train_00016964_seg.png"))
    assert annotation.mask is not None and annotation.instances is not None
    if dataset == "ade20k":
        counts = {key.partition(":")[0]: count for key, count in fact["to150"].items() if key != "ignore"}
        assert {str(value): count for value, count in pixels(annotation).items() if value != 255} == counts
        return
    assert annotation.mask.dtype == np.uint16 and len(annotation.segments) == fact["n_instance_colours"]
    for segment in annotation.segments:
        place = annotation.instances == segment.id
        assert set(annotation.mask[place].tolist()) == {segment.class_index}
    of_class: Counter[str] = Counter()
    for segment in annotation.segments:
        of_class[str(segment.category_id)] += int((annotation.instances == segment.id).sum())
    assert of_class == {number: count for number, count in fact["class_index_counts"].items() if number != "0"}


def test_ade20k_tables_are_the_published_ones(class_lists: Path) -> None:
    def rows(name: str) -> list[list[str]]:
        return [line.split("\t") for line in (class_lists / name).read_text(encoding="utf-8").splitlines()[1:]]

    (full,) = load_recipe("ade20k").variants
    assert full.ids is not None
    assert full.ids["map"] == {number: int(index) - 1 for number, index in rows("ade20k_full2016_to_150.tsv")}
    assert load_recipe("ade20k_full").ids["map"] == {row[1]: int(row[0]) for row in rows("ade20k_full_847.tsv")}
    names = [row[2] for row in rows("ade20k_full_847.tsv")]
    assert list(load_label_space(load_recipe("ade20k_full")).names) == names


def frames() -> dict[str, list[str]]:
    """The frames of CamVid by SegNet's splits: its sequences, without their few gaps."""

    def sequence(pattern: str, first: int, last: int, step: int = 30) -> list[str]:
        return [pattern.format(number) for number in range(first, last + 1, step)]

    return {
        "train": [
            *sequence("0001TP_{:06d}", 6690, 8520),
            *sequence("0006R0_f{:05d}", 930, 3930),
            *(name for name in sequence("0016E5_{:05d}", 390, 8640) if not 7930 < int(name[7:]) < 8190),
        ],
        "val": sequence("0016E5_{:05d}", 7959, 8159, 2),
        "test": [*sequence("0001TP_{:06d}", 8550, 10380), *sequence("Seq05VD_f{:05d}", 0, 5100)],
    }


@pytest.mark.parametrize("dataset", ["camvid", "camvid32"])
@pytest.mark.parametrize("copy", ["original", "fast.ai"])
def test_frames_of_the_original_camvid_belong_to_segnets_splits(dataset: str, copy: str, tmp_path: Path) -> None:
    images, labels, ending = ("701_StillsRaw_full", "LabeledApproved_full", "_L")
    if copy == "fast.ai":
        images, labels, ending = "images", "labels", "_P"
        (tmp_path / "codes.txt").write_text("Void\n")
    for folder in (images, labels):
        (tmp_path / folder).mkdir()
    for name in (name for names in frames().values() for name in names):
        (tmp_path / images / f"{name}.png").touch()
        (tmp_path / labels / f"{name}{ending}.png").touch()
    for split, names in frames().items():
        found = plan(dataset, tmp_path, split)
        assert [Path(item.path).stem for item in found.items] == sorted(names) and found.skips == ()
    assert [len(frames()[split]) for split in ("val", "test")] == [101, 233]


COLOURS = {colour: name for colour, name in load_recipe("camvid32").ids["map"].items()}


FOLD = {
    "Sky": "Sky",
    "Building": "Archway Bridge Building Tunnel Wall",
    "Pole": "Column_Pole TrafficCone",
    "Road": "LaneMkgsDriv LaneMkgsNonDriv Road",
    "Pavement": "ParkingBlock RoadShoulder Sidewalk",
    "Tree": "Tree VegetationMisc",
    "SignSymbol": "Misc_Text SignSymbol TrafficLight",
    "Fence": "Fence",
    "Car": "Car OtherMoving SUVPickupTruck Train Truck_Bus",
    "Pedestrian": "Animal CartLuggagePram Child Pedestrian",
    "Bicyclist": "Bicyclist MotorcycleScooter",
}


CODES = sorted([*COLOURS.values(), "Void"], key=str.casefold)


@pytest.mark.parametrize("copy", ["original", "fast.ai"])
def test_camvids_32_classes_and_their_fold(copy: str, tmp_path: Path) -> None:
    names = [*COLOURS.values(), "Void"]
    if copy == "original":
        colours = [[int(part) for part in colour.split()] for colour in (*COLOURS, "0 0 0")]
        write(tmp_path / "LabeledApproved_full/Seq05VD_f0_L.png", np.array([colours], dtype=np.uint8))
        write(tmp_path / "701_StillsRaw_full/Seq05VD_f0.png", size=(1, 32))
    else:
        write(tmp_path / "codes.txt", "\n".join(CODES) + "\n")
        write(tmp_path / "labels/Seq05VD_f0_P.png", np.array([[CODES.index(name) for name in names]], dtype=np.uint8))
        write(tmp_path / "images/Seq05VD_f0.png", size=(1, 32))
    variant, annotation = only("camvid32", tmp_path, "test", (1, 32))
    assert variant == (None if copy == "original" else "fast.ai")
    assert annotation.mask is not None and annotation.mask.tolist() == [
        [*(index("camvid32", n) for n in names[:-1]), 255]
    ]
    variant, annotation = only("camvid", tmp_path, "test", (1, 32))
    assert variant == copy
    fold = {name: eleven for eleven, words in FOLD.items() for name in words.split()}
    assert annotation.mask is not None
    assert annotation.mask.tolist() == [[*(index("camvid", fold[name]) for name in names[:-1]), 255]]


def test_camvids_colours_in_a_sample(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "camvid" / "rgb_tiny_synthetic"
    for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
        (tmp_path / folder).mkdir()
    for name, split in (("0001TP_006690", "train"), ("0016E5_07959", "val"), ("0001TP_008580", "test")):
        (tmp_path / f"701_StillsRaw_full/{name}.png").symlink_to(source / f"{split}/{name}.png")
        (tmp_path / f"LabeledApproved_full/{name}_L.png").symlink_to(source / f"{split}annot/{name}.png")
        _, annotation = only("camvid32", tmp_path, split, (1, 5))
        facts = json.loads((fixtures / "expected.json").read_text())
        rgb = facts[f"camvid/rgb_tiny_synthetic/{split}annot/{name}.png"]["rgb"]
        expected = {index("camvid32", COLOURS[key.strip("()").replace(",", "")]): count for key, count in rgb.items()}
        assert pixels(annotation) == expected


def test_colours_that_the_recipe_does_not_name_are_recorded(tmp_path: Path) -> None:
    values = np.zeros((*SIZE, 3), np.uint8)
    values[0, :3] = (1, 2, 3)
    write(tmp_path / "701_StillsRaw_full/Seq05VD_f0.png")
    write(tmp_path / "LabeledApproved_full/Seq05VD_f0_L.png", values)
    found = plan("camvid", tmp_path, "test")
    with pytest.raises(SampleError, match=r"_L.png: colours unknown to the recipe: 1 2 3 \(3 px\)"):
        found.read(found.item)
    write(tmp_path / "LabeledApproved_full/Seq05VD_f0_L.png", filled(3))
    with pytest.raises(SampleError, match=r"is not a colour picture \(mode L\)"):
        found.read(found.item)


def test_colour_masks_in_segnets_folders_are_refused(fixtures: Path) -> None:
    with pytest.raises(SampleError, match="is a colour picture"):
        only("camvid", fixtures / "camvid" / "rgb_tiny_synthetic", "train", (1, 5))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 254, 255]), min_size=192 * 3, max_size=192 * 3), st.booleans())
def test_colours_agree_with_a_look_at_every_pixel(new_own: Callable[[], Own], parts: list[int], paletted: bool) -> None:
    own = new_own()
    own.write_recipe(COLOUR_RECIPE.replace("[ids]", '[ids]\nother = "ignore"'))
    own.image("images/train/a.jpg")
    values = np.array(parts, dtype=np.uint8).reshape(*SIZE, 3)
    picture = Image.fromarray(values)
    (own.root / "masks/train").mkdir(parents=True)
    if paletted:
        picture.quantize(256).save(own.root / "masks/train/a.png", transparency=bytes(range(64)))
        values = np.asarray(Image.open(own.root / "masks/train/a.png").convert("RGBA"))[..., :3]
    else:
        picture.save(own.root / "masks/train/a.png")
    found = listed(own.recipe, own.root, "train")
    mask = found.read(found.item).mask
    assert mask is not None
    for (y, x), found_index in np.ndenumerate(mask):
        assert found_index == {"255 0 0": 1, "0 255 1": 2}.get(" ".join(map(str, values[y, x])), 255)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"0 0 0"', '"0 0"', "'0 0' is not a colour such as"),
        ('"0 0 0"', "3", "3 is not a colour such as"),
        ('"255 0 0"', '"256 0 0"', "'256 0 0' is not a colour"),
        ('"car"', '"lorry"', "has no class 'lorry'"),
        ('"255 0 0"', '"0 255 1"', "gives two classes to the colour ' 0 255  1 '"),
        ("[ids]", '[ids]\nother = "skip"', "ids.other is 'skip'"),
        ('ignore = ["0 0 0"]\nmap = {"255 0 0" = "car", " 0 255  1 " = 2}', "", "ids.map must name colours"),
        ("[ids]", 'stems = {train = "a*", dev = "b*"}\n[ids]', "layout.stems must be a table of patterns, by split"),
    ],
)
def test_a_recipe_of_colours_must_make_sense(own: Own, old: str, new: str, message: str) -> None:
    own.pairs(1)
    assert old in COLOUR_RECIPE
    own.write_recipe(COLOUR_RECIPE.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        listed(own.recipe, own.root, "train")


def test_bdd100k_legacy_and_orphans(tmp_path: Path) -> None:
    for name in ("a-1", "b-2"):
        write(tmp_path / f"bdd100k/seg/images/train/{name}.jpg")
    for name in ("a-1", "c-3"):
        write(tmp_path / f"bdd100k/seg/labels/train/{name}_train_id.png", filled(3))
        write(tmp_path / f"bdd100k/seg/color_labels/train/{name}_train_color.png")
    found = plan("bdd100k", tmp_path)
    assert found.source.variant == "bdd100k_seg.zip"
    assert found.item.annotation == "bdd100k/seg/labels/train/a-1_train_id.png"
    assert {(skip.path.rpartition("/")[2], skip.reason) for skip in found.skips} == {
        ("b-2.jpg", "no annotation: expected bdd100k/seg/labels/train/b-2_train_id.png"),
        ("c-3_train_id.png", "no image for this annotation"),
    }


def test_bdd100k_colormaps_are_never_masks(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "bdd100k" / "tiny_8x8"
    (tmp_path / "images").symlink_to(source / "images")
    (tmp_path / "labels/sem_seg").mkdir(parents=True)
    (tmp_path / "labels/sem_seg/colormaps").symlink_to(source / "labels/sem_seg/colormaps")
    with pytest.raises(
        LayoutError, match="3 files found, all unusable .*no annotation: expected labels/sem_seg/masks/"
    ):
        plan("bdd100k", tmp_path)
    (tmp_path / "labels/sem_seg/masks").symlink_to(source / "labels/sem_seg/colormaps")
    report = plan("bdd100k", tmp_path, "val")
    with pytest.raises(SampleError, match="mask values unknown to the recipe: 35"):  # the sample's are grey
        report.read(report.items[0], (8, 8))


def test_kitti_instances(fixtures: Path) -> None:
    variant, annotation = only("kitti", fixtures / "kitti_semantic/derived_from_cityscapes", size=(375, 1242))
    assert variant == "with instances" and annotation.mask is not None and annotation.instances is not None
    cars = [s for s in annotation.segments if s.class_index == index("kitti", "car")]
    assert len(cars) == 7 and {int(s.native_id) // 256 for s in cars} == {26} and not any(s.iscrowd for s in cars)
    assert np.array_equal(annotation.instances == 0, annotation.mask == 255)


def test_kitti_cars_that_are_not_told_apart_are_a_crowd(tmp_path: Path) -> None:
    write(tmp_path / "training/image_2/000000_10.png")
    write(tmp_path / "training/semantic/000000_10.png", filled(26))
    assert only("kitti", tmp_path)[0] is None
    stored = filled(26 * 256, np.uint16)
    stored[0] += 2
    write(tmp_path / "training/instance/000000_10.png", stored)
    assert only("kitti", tmp_path)[1].segments == (
        Segment(1, index("kitti", "car"), 26, True, str(26 * 256)),
        Segment(2, index("kitti", "car"), 26, False, str(26 * 256 + 2)),
    )


def test_voc_objects(fixtures: Path) -> None:
    variant, annotation = only("voc", fixtures / "voc", size=(375, 500))
    assert variant == "with instances" and annotation.instances is not None
    dog, chair = index("voc", "dog"), index("voc", "chair")
    assert [(s.class_index, s.native_id) for s in annotation.segments] == [(dog, "1"), (chair, "2")]
    assert [int((annotation.instances == number).sum()) for number in (1, 2)] == [27632, 78930]


@pytest.mark.parametrize("entry", ["{}", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png"])
@pytest.mark.parametrize(
    "file", ["Segmentation/train_aug.txt", "Segmentation/trainaug.txt", "SegmentationAug/train_aug.txt"]
)
def test_vocs_train_split_grows_with_sbd(entry: str, file: str, tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit/VOC2012"
    for name in ("own", "sbd", "val"):
        write(root / f"JPEGImages/{name}.jpg")
        write(root / f"SegmentationClassAug/{name}.png", filled(3))
    for name in ("own", "val"):
        write(root / f"SegmentationClass/{name}.png", filled(5))
        write(root / f"SegmentationObject/{name}.png", filled(1))
    write(root / "ImageSets/Segmentation/val.txt", "val\n")
    write(root / "ImageSets/Segmentation/train.txt", "own\n")
    found = plan("voc", tmp_path)
    assert found.source.variant == "with instances" and [item.path[-7:] for item in found.items] == ["own.jpg"]
    write(root / f"ImageSets/{file}", "".join(entry.format(name, name) + "\n" for name in ("own", "sbd")))
    found = plan("voc", tmp_path)
    assert found.source.variant == "SBD" and found.skips == ()
    assert [classes_of(found.read(item)) for item in found.items] == [{5}, {3}]
    found = plan("voc", tmp_path, "val")
    assert found.source.variant == "with instances" and classes_of(found.read(found.item)) == {5}


def test_lists_lead_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    write(tmp_path / "secret.jpg")
    for folder in ("JPEGImages", "SegmentationClass"):
        write(root / folder / ("a.jpg" if folder == "JPEGImages" else "a.png"), filled(3))
    strange = ["../../secret", "/etc/passwd", "a\0b", "..", "*", "{stem}", "a/../a"]
    write(root / "ImageSets/Segmentation/train.txt", "\n".join(["a", *strange]))
    found = plan("voc", root)
    assert found.item.path == "JPEGImages/a.jpg"
    assert {skip.path for skip in found.skips} == {name.lstrip("/") for name in strange}
    (root / "ImageSets/Segmentation/train.txt").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(LayoutError, match="can't be read as a list"):
        plan("voc", root)


def test_scannets_full_scans_are_read_through_the_table(tmp_path: Path) -> None:
    stored = filled(1163, np.uint16)
    stored[0, :4] = [0, 22, 1163, 3]
    write(tmp_path / "scans/scene0000_00/color/0.jpg", size=(24, 32))
    write(tmp_path / "scans/scene0000_00/label-filt/0.png", stored)
    write(tmp_path / "scannetv2_val.txt", "scene0000_00\n")
    with pytest.raises(LayoutError, match="no table of id and nyu40id: expected scannetv2-labels.combined.tsv"):
        plan("scannet", tmp_path, "val")
    table = "id\traw_category\tcategory\tcount\tnyu40id\n3\tcabinet\tcabinet\t9\t3\n22\tceiling\tceiling\t9\t22\n"
    write(tmp_path / "scannetv2-labels.combined.tsv", table)
    found = plan("scannet", tmp_path, "val")
    with pytest.raises(SampleError, match="mask values unknown to the recipe: 1163"):
        found.read(found.item, (24, 32))
    write(tmp_path / "scannetv2-labels.combined.tsv", table + "1163\tobject\tobject\t9\t40\n")
    variant, annotation = only("scannet", tmp_path, "val", (24, 32))
    assert variant == "full scans" and annotation.mask is not None
    assert annotation.mask[0, ::2].tolist()[:4] == [255, 255, 255, index("scannet", "cabinet")]
    assert set(annotation.mask[2:].ravel().tolist()) == {255}
    for text, message in (
        ("id\tb\n1\t2\n", "has no column 'nyu40id'"),
        ("id\tnyu40id\n1\tx\n", "is not a table of numbers"),
    ):
        write(tmp_path / "scannetv2-labels.combined.tsv", text)
        with pytest.raises(LayoutError, match=message):
            plan("scannet", tmp_path, "val")


def test_scannets_raw_ids_are_not_taken_for_nyu40s(tmp_path: Path) -> None:
    write(tmp_path / "scannet_frames_25k/scene0000_00/color/000000.jpg")
    write(tmp_path / "scannet_frames_25k/scene0000_00/label/000000.png", filled(1163, np.uint16))
    write(tmp_path / "scannetv2_val.txt", "scene0000_00\n")
    found = plan("scannet", tmp_path, "val")
    with pytest.raises(SampleError, match="mask values unknown to the recipe: 1163"):
        found.read(found.item)


def test_wilddash_1(tmp_path: Path) -> None:
    """Made up: no authentic sample is public."""
    write(tmp_path / "wd_val_01/cn0000_100000.png")
    write(tmp_path / "wd_val_01/cn0000_100000_labelIds.png", filled(26))
    write(tmp_path / "wd_val_01/cn0000_100000_instanceIds.png", filled(26, np.uint16))
    found = plan("wilddash", tmp_path, "val")
    assert found.skips == () and classes_of(found.read(found.item)) == {index("wilddash", "car")}
