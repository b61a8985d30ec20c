"""Datasets of pictures, in every layout that people have: which one it is, is seen by looking.

Made up from the datasets' documentation, for want of an authentic sample: Cityscapes' polygons and coarse annotations,
IDD's label PNGs, Mapillary's instances, SBD, ScanNet's full scans, and the original CamVid and fast.ai's copy of it
(the colours and names are the real ones). Everything else is cut from real files; ../shared/fixtures says which.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, RecipeError, SampleError, UsageError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.pictures.images import resize_nearest
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.source import Annotation, Segment

from .listing import Listed, listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

Array = npt.NDArray[Any]
SIZE = (12, 16)


def write(path: Path, picture: Array | str | dict[str, Any] | None = None, size: tuple[int, int] = SIZE) -> None:
    """Write a picture of these values, a text, a JSON; without content, an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(path)
    elif picture is None:
        Image.new("RGB", (size[1], size[0]), (9, 90, 200)).save(path)
    else:
        path.write_text(picture if isinstance(picture, str) else json.dumps(picture))


def filled(value: int, dtype: type = np.uint8) -> Array:
    return np.full(SIZE, value, dtype)


def index(dataset: str, name: str) -> int:
    return load_label_space(load_recipe(dataset)).names.index(name)


def plan(dataset: str, root: Path, split: str = "train") -> Listed:
    return listed(load_recipe(dataset), root, split)


def only(dataset: str, root: Path, split: str = "train", size: tuple[int, int] = SIZE) -> tuple[str | None, Annotation]:
    """The variant that was seen, and the annotation of the only image."""
    found = plan(dataset, root, split)
    return found.source.variant, found.read(found.item, size)


def pixels(annotation: Annotation) -> dict[int, int]:
    """How many pixels of the mask each value has."""
    assert annotation.mask is not None
    return dict(Counter(annotation.mask.ravel().tolist()))


def classes_of(annotation: Annotation) -> set[int]:
    return set(pixels(annotation))


# --- segments ---------------------------------------------------------------------------------------------------------

INSTANCES = """name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"
instances = "objects/{split}/{stem}.png"
[ids]
ignore = [255]
[options]
instances = "CODING"
things = ["car"]
"""


def meaning(coding: str, value: int) -> tuple[int | None, bool] | None:
    """(class in the coding, no objects told apart), as the datasets' documentation has it."""
    if coding == "class*1000+n":
        return (value // 1000, False) if value >= 1000 else (value, True)
    if coding == "class*256+n":
        return value // 256, value % 256 == 0
    return None if value in (0, 255) else (None, False)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("coding", ["class*1000+n", "class*256+n", "n"])
def test_segments_agree_with_a_look_at_every_pixel(
    new_own: Callable[[], Own], coding: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 255, 256, 257, 512, 1000, 1001, 2003, 65535]), min_size=1))
    places = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=192, max_size=192))
    stored = np.array(values, dtype=np.uint16)[np.array(places).reshape(SIZE)]
    own = new_own()
    own.write_recipe(INSTANCES.replace("CODING", coding))
    own.image("images/train/a.jpg")
    mask = own.mask("masks/train/a.png")
    own.mask("objects/train/a.png", stored)
    found = listed(own.recipe, own.root, "train")
    annotation = found.read(found.item)
    assert annotation.instances is not None
    np.testing.assert_array_equal(annotation.mask, mask)

    expected = np.zeros(SIZE, np.uint16)
    segments: list[Segment] = []
    strays = 0
    for value in sorted(set(stored.ravel().tolist())):
        said = meaning(coding, value)
        counts = Counter(mask[stored == value].tolist())
        label = min(counts, key=lambda label: (-counts[label], label))
        if said is None or label == 255:
            continue
        crowd = said[1] and label == 1
        segments.append(Segment(len(segments) + 1, label, label if said[0] is None else said[0], crowd, str(value)))
        expected[(stored == value) & (mask == label)] = len(segments)
        strays += int(((stored == value) & (mask != label)).sum())
    assert list(annotation.segments) == segments
    np.testing.assert_array_equal(annotation.instances, expected)
    assert annotation.notes == {"instance_pixels_of_another_class": strays}


def test_images_without_instances_or_with_others_are_recorded(own: Own) -> None:
    own.write_recipe(INSTANCES.replace("CODING", "n"))
    own.pairs(3)
    for number in (0, 1):
        own.mask(f"objects/train/00{number}.png", size=(12, 16 - number))
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert {skip["path"]: skip["reason"] for skip in report.skipped} == {
        "images/train/001.jpg": "objects/train/001.png: instances are 15x12, but the mask is 16x12",
        "images/train/002.jpg": "no instances: expected objects/train/002.png",
    }
    assert report.written == 1 and verify([own.folder / "out"]).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CODING", "m", "options.instances is 'm': beside layout.instances, it must be 'class"),
        ('instances = "CODING"', "", "options.instances is None"),
        ('instances = "CODING"', "instances = [1]", r"options.instances is \[1\]"),
        ('["car"]', '"car"', "options.things must be a list"),
        ('["car"]', '["lorry"]', "has no class 'lorry'"),
    ],
)
def test_what_instances_mean_must_be_said(own: Own, old: str, new: str, message: str) -> None:
    own.pairs(1)
    own.mask("objects/train/000.png")
    own.write_recipe(INSTANCES.replace(old, new).replace("CODING", "n"))
    with pytest.raises(RecipeError, match=message):
        listed(own.recipe, own.root, "train")


# --- Cityscapes -------------------------------------------------------------------------------------------------------


def test_cityscapes_instances(fixtures: Path, tmp_path: Path, read_samples: Callable[[Path], dict[str, Any]]) -> None:
    report = shard(load_recipe("cityscapes"), fixtures / "cityscapes", "train", tmp_path)
    assert report.written == 1 and report.notes == {} and verify([tmp_path]).problems == ()
    (sample,) = read_samples(tmp_path / "cityscapes" / "train").values()
    names = load_label_space(load_recipe("cityscapes")).names
    segments = sample["json"]["segments"]
    things = [(names[s["class_index"]], s["iscrowd"]) for s in segments if s["category_id"] >= 24]
    assert Counter(things) == {("person", False): 1, ("car", False): 7, ("bicycle", False): 1, ("car", True): 1}
    stored = np.asarray(
        Image.open(fixtures / "cityscapes/gtFine/train/aachen/aachen_000002_000019_gtFine_instanceIds.png")
    )
    for segment in segments:
        place = stored == int(segment["native_id"])
        assert segment["area"] == place.sum()
        assert set(sample["instances.png"][place].tolist()) == {segment["id"]}
        assert set(sample["mask.png"][place].tolist()) == {segment["class_index"]}
    assert np.array_equal(sample["instances.png"] == 0, sample["mask.png"] == 255)


def cityscapes(root: Path, kinds: dict[str, Any], city: str = "aachen", split: str = "train") -> None:
    stem = f"{split}/{city}/{city}_000000_000019"
    write(root / f"leftImg8bit/{stem}_leftImg8bit.png")
    for kind, content in kinds.items():
        write(root / f"gtFine/{stem}_gtFine_{kind}", content)


def box(label: str, x0: int, y0: int, x1: int, y1: int) -> dict[str, Any]:
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


def polygons(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": list(objects)}


def test_cityscapes_label_ids_go_before_train_ids_and_polygons(tmp_path: Path) -> None:
    stale = {"labelTrainIds.png": filled(3), "polygons.json": polygons(box("sky", 0, 0, 16, 12))}
    cityscapes(tmp_path, {"labelIds.png": filled(26), "color.png": None, **stale})
    variant, annotation = only("cityscapes", tmp_path)
    assert variant is None and classes_of(annotation) == {index("cityscapes", "car")} and annotation.instances is None
    (tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    variant, annotation = only("cityscapes", tmp_path)
    assert variant == "train ids" and classes_of(annotation) == {3}
    (tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png").unlink()
    variant, annotation = only("cityscapes", tmp_path)
    assert variant == "polygons" and classes_of(annotation) == {index("cityscapes", "sky")}


def test_cityscapes_train_ids_have_two_kinds_of_void(tmp_path: Path) -> None:
    values = np.resize(np.array([*range(20), 255], dtype=np.uint8), SIZE)
    cityscapes(tmp_path, {"labelTrainIds.png": values})
    _, annotation = only("cityscapes", tmp_path)
    np.testing.assert_array_equal(annotation.mask, np.where(values == 19, 255, values))


def test_cityscapes_train_ids_of_a_real_image(fixtures: Path, tmp_path: Path) -> None:
    """The sample's two label files were shrunk one by one: all but a few pixels agree."""
    folder, stem = "val/frankfurt", "frankfurt_000000_000294"
    for kind, name in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
        (tmp_path / kind / folder).mkdir(parents=True)
        (tmp_path / kind / folder / f"{stem}_{name}.png").symlink_to(
            fixtures / "cityscapes" / kind / folder / f"{stem}_{name}.png"
        )
    variant, trained = only("cityscapes", tmp_path, "val", (128, 256))
    other, labelled = only("cityscapes", fixtures / "cityscapes", "val", (128, 256))
    assert (variant, other) == ("train ids", "with instances")
    assert trained.mask is not None and (trained.mask == labelled.mask).mean() > 0.98
    assert len([s for s in labelled.segments if int(s.native_id) >= 1000]) == 7


def test_cityscapes_polygons_paint_what_label_ids_hold(tmp_path: Path) -> None:
    """Vertices lie on pixel centres, so that the border belongs to a polygon: cityscapesScripts' rule."""
    things = [
        box("out of roi", 0, 0, 15, 11),
        box("road", 1, 6, 14, 10),
        box("cargroup", 2, 4, 6, 8),
        box("license plate", 3, 6, 4, 7),
        box("ego vehicle", 1, 9, 14, 10),
        box("polegroup", 8, 1, 9, 8),
        box("pole", 9, 2, 9, 3),
    ]
    ids = filled(3)
    for value, x0, y0, x1, y1 in (
        (7, 1, 6, 14, 10),
        (26, 2, 4, 6, 8),
        (1, 1, 9, 14, 10),
        (18, 8, 1, 9, 8),
        (17, 9, 2, 9, 3),
    ):
        ids[y0 : y1 + 1, x0 : x1 + 1] = value
    cityscapes(tmp_path / "painted", {"polygons.json": polygons(*things)})
    cityscapes(tmp_path / "stored", {"labelIds.png": ids})
    _, painted = only("cityscapes", tmp_path / "painted")
    _, stored = only("cityscapes", tmp_path / "stored")
    np.testing.assert_array_equal(painted.mask, stored.mask)
    assert painted.notes == {}


def test_cityscapes_near_misses(tmp_path: Path) -> None:
    cityscapes(tmp_path, {"color.png": None})
    with pytest.raises(LayoutError, match="unusable .*no annotation: expected gtFine/train/aachen/.*_labelIds.png"):
        plan("cityscapes", tmp_path)
    cityscapes(tmp_path, {"labelIds.png": filled(3)}, split="test")
    with pytest.raises(UsageError, match="no labels for its test split"):
        plan("cityscapes", tmp_path, "test")


def test_cityscapes_coarse_reads_train_extra_with_train(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train_extra", "augsburg"), ("val", "lindau")):
        write(tmp_path / f"leftImg8bit/{split}/{city}/{city}_0_0_leftImg8bit.png")
        write(tmp_path / f"gtCoarse/{split}/{city}/{city}_0_0_gtCoarse_labelIds.png", filled(26))
        write(tmp_path / f"gtCoarse/{split}/{city}/{city}_0_0_gtCoarse_instanceIds.png", filled(26, np.uint16))
    found = plan("cityscapes_coarse", tmp_path)
    assert found.source.variant == "with instances" and found.skips == ()
    assert [item.annotation[0] for item in found.items] == [
        "gtCoarse/train/aachen/aachen_0_0_gtCoarse_labelIds.png",
        "gtCoarse/train_extra/augsburg/augsburg_0_0_gtCoarse_labelIds.png",
    ]
    assert found.read(found.items[1]).segments == (Segment(1, index("cityscapes", "car"), 26, True, "26"),)
    assert [item.path for item in plan("cityscapes_coarse", tmp_path, "val").items] == [
        "leftImg8bit/val/lindau/lindau_0_0_leftImg8bit.png"
    ]
    for path in (tmp_path / "gtCoarse").rglob("*_instanceIds.png"):
        path.unlink()
    found = plan("cityscapes_coarse", tmp_path)
    assert found.source.variant is None and len(found.items) == 2
    coarse, fine = load_recipe("cityscapes_coarse"), load_recipe("cityscapes")
    assert coarse.ids == fine.ids and load_label_space(coarse).names == load_label_space(fine).names


# --- IDD --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "kind", "value", "label"),
    [
        ("idd", "labelids", 7, "animal"),
        ("idd", "labelIds", 7, "animal"),
        ("idd_level3", "labellevel3Ids", 4, "person / animal"),
        ("idd_level3", "labellevel3ids", 4, "person / animal"),
        ("idd_level3", "labelLevel3Ids", 4, "person / animal"),
    ],
)
def test_idd_label_pngs_are_read_where_there_are_no_polygons(
    dataset: str, kind: str, value: int, label: str, tmp_path: Path
) -> None:
    values = filled(value)
    values[0] = 35 if dataset == "idd" else 255
    for part, suffix in (("IDD_Segmentation", "png"), ("idd20kII", "jpg")):
        write(tmp_path / part / f"leftImg8bit/train/0/frame1_leftImg8bit.{suffix}")
        write(tmp_path / part / f"gtFine/train/0/frame1_gtFine_{kind}.png", values)
    found = plan(dataset, tmp_path)
    assert found.source.variant == "label PNGs" and len(found.items) == 2
    for item in found.items:
        assert classes_of(found.read(item)) == {index(dataset, label), 255}
    for part in ("IDD_Segmentation", "idd20kII"):
        write(tmp_path / part / "gtFine/train/0/frame1_gtFine_polygons.json", polygons(box("sky", 0, 0, 16, 12)))
    found = plan(dataset, tmp_path)
    assert found.source.variant is None and len(found.items) == 2
    assert {index(dataset, "sky" if dataset == "idd" else "sky / fallback background")} == classes_of(
        found.read(found.items[0])
    )


def test_a_part_in_another_layout_is_not_left_out_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part, name, content in (
        ("IDD_Segmentation", "polygons.json", polygons(box("sky", 0, 0, 16, 12))),
        ("idd20kII", "labelids.png", filled(3)),
    ):
        write(tmp_path / part / "leftImg8bit/train/0/frame1_leftImg8bit.png")
        write(tmp_path / part / f"gtFine/train/0/frame1_gtFine_{name}", content)
    assert plan("idd", tmp_path).item.path.startswith("IDD_Segmentation/")
    assert caplog.messages == [
        "idd20kII/ is laid out in another way than IDD_Segmentation/: not read; shard it by itself"
    ]


def test_idd_with_other_pngs_says_what_it_wants(tmp_path: Path) -> None:
    write(tmp_path / "leftImg8bit/train/0/frame1_leftImg8bit.png")
    write(tmp_path / "gtFine/train/0/frame1_gtFine_labelcsTrainIds.png", filled(3))
    with pytest.raises(LayoutError, match="no annotation: expected .*_labelids.png or .*_labelIds.png"):
        plan("idd", tmp_path)


# --- Mapillary Vistas -------------------------------------------------------------------------------------------------

V12, V20 = load_label_space(load_recipe("mapillary")).names, load_label_space(load_recipe("mapillary_v2")).names


def config(names: tuple[str, ...]) -> dict[str, Any]:
    labels = [{"readable": name, "name": f"x--{name.lower()}", "evaluate": True} for name in names]
    return {"labels": [*labels, {"readable": "Unlabeled", "name": "void--unlabeled", "evaluate": False}]}


def vistas(root: Path, folder: str, value: int, instances: int | None = None) -> None:
    write(root / "training/images/k.jpg")
    write(root / f"training/{folder}labels/k.png", filled(value))
    if instances is not None:
        write(root / f"training/{folder}instances/k.png", filled(instances, np.uint16))


@pytest.mark.parametrize("instances", [True, False])
@pytest.mark.parametrize(
    ("dataset", "names", "folder", "file"),
    [
        ("mapillary", V12, "v1.2/", "config_v1.2.json"),
        ("mapillary", V12, "", "config.json"),
        ("mapillary_v2", V20, "v2.0/", "config_v2.0.json"),
        ("mapillary_v2", V20, "", "config.json"),
    ],
)
def test_mapillary_is_told_by_its_config(
    dataset: str, names: tuple[str, ...], folder: str, file: str, instances: bool, tmp_path: Path
) -> None:
    car = names.index("Car")
    vistas(tmp_path, folder, car, car * 256 + 3 if instances else None)
    write(tmp_path / file, config(names))
    variant, annotation = only(dataset, tmp_path)
    assert ("with instances" in (variant or "")) == instances
    assert classes_of(annotation) == {car}
    assert annotation.segments == (Segment(1, car, car, False, str(car * 256 + 3)),) * instances
    write(tmp_path / f"training/{folder}labels/k.png", filled(len(names)))
    assert classes_of(only(dataset, tmp_path)[1]) == {255}
    for gone in ("Car Mount", "Ego Vehicle"):
        assert gone in names


@pytest.mark.parametrize(
    ("dataset", "folder", "file", "names", "message"),
    [
        ("mapillary", "", "config.json", V20, "lists 124 classes.*This is mapillary_v2: use that name"),
        ("mapillary", "v1.2/", "config_v1.2.json", V20, "lists 124 classes.*This is mapillary_v2: use that name"),
        ("mapillary_v2", "", "config.json", V12, "lists 66 classes.*This is mapillary: use that name"),
        (
            "mapillary",
            "",
            "config.json",
            ("Bird", "Unicorn"),
            "1 of which mapillary does not have: 'Unicorn'. Compare with mapillary.",
        ),
        ("mapillary", "", "config_v1.2.json", V12, "no list of class names: expected config.json"),
        ("mapillary", "v2.0/", "config_v2.0.json", V20, "no list of class names: expected config_v1.2.json"),
        ("mapillary_v2", "v1.2/", "config_v2.0.json", V20, "no annotation: expected training/v2.0/labels/k.png"),
    ],
)
def test_a_mapillary_folder_of_another_version_is_refused(
    dataset: str, folder: str, file: str, names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    vistas(tmp_path, folder, 3)
    write(tmp_path / file, config(names))
    with pytest.raises(LayoutError, match=message):
        plan(dataset, tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"labels": 3}', '{"labels": [3]}', '{"labels": [{}]}', "\0", "[" * 9999]
)
def test_a_damaged_config_is_one_line(text: str, tmp_path: Path) -> None:
    vistas(tmp_path, "v1.2/", 3)
    write(tmp_path / "config_v1.2.json", text)
    with pytest.raises(LayoutError, match=r"config_v1.2.json: is no list of class names"):
        plan("mapillary", tmp_path)


def test_the_synthetic_mapillary_of_three_labels_is_refused(fixtures: Path) -> None:
    with pytest.raises(LayoutError, match="lists 3 classes, 1 of which mapillary does not have: 'Separator'"):
        plan("mapillary", fixtures / "mapillary_vistas" / "tiny_synthetic")


def test_mapillary_v2_labels_of_a_real_image(fixtures: Path, tmp_path: Path) -> None:
    source = fixtures / "mapillary_vistas" / "v1.2_real_crop" / "training"
    (tmp_path / "training").symlink_to(source)
    write(tmp_path / "config_v2.0.json", config(V20))
    _, annotation = only("mapillary_v2", tmp_path, size=(100, 100))
    named = {V20[value]: count for value, count in pixels(annotation).items()}
    assert named == {"Building": 9157, "Street Light": 731, "Pole": 112}


# --- ADE20K -----------------------------------------------------------------------------------------------------------


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


# --- CamVid -----------------------------------------------------------------------------------------------------------


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


def test_colours_that_nobody_named_are_recorded(tmp_path: Path) -> None:
    values = np.zeros((*SIZE, 3), np.uint8)
    values[0, :3] = (1, 2, 3)
    write(tmp_path / "701_StillsRaw_full/Seq05VD_f0.png")
    write(tmp_path / "LabeledApproved_full/Seq05VD_f0_L.png", values)
    found = plan("camvid", tmp_path, "test")
    with pytest.raises(SampleError, match=r"_L.png: colours unknown to the recipe: 1 2 3 \(3 px\)"):
        found.read(found.item)
    write(tmp_path / "LabeledApproved_full/Seq05VD_f0_L.png", filled(3))
    with pytest.raises(SampleError, match=r"is no colour picture \(mode L\)"):
        found.read(found.item)


def test_colour_masks_in_segnets_folders_are_refused(fixtures: Path) -> None:
    with pytest.raises(SampleError, match="is a colour picture"):
        only("camvid", fixtures / "camvid" / "rgb_tiny_synthetic", "train", (1, 5))


COLOUR_RECIPE = """name = "my_streets"
annotation_type = "mask"
reader = "colour_png"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"
[ids]
ignore = ["0 0 0"]
map = {"255 0 0" = "car", " 0 255  1 " = 2}
"""


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
    for (y, x), index in np.ndenumerate(mask):
        assert index == {"255 0 0": 1, "0 255 1": 2}.get(" ".join(map(str, values[y, x])), 255)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"0 0 0"', '"0 0"', "'0 0' is no colour such as"),
        ('"0 0 0"', "3", "3 is no colour such as"),
        ('"255 0 0"', '"256 0 0"', "'256 0 0' is no colour"),
        ('"car"', '"lorry"', "has no class 'lorry'"),
        ("[ids]", '[ids]\nother = "skip"', "ids.other is 'skip'"),
        ('ignore = ["0 0 0"]\nmap = {"255 0 0" = "car", " 0 255  1 " = 2}', "", "ids.map names no colour"),
        ("[ids]", 'stems = {train = "a*", dev = "b*"}\n[ids]', "layout.stems must be a table of patterns, by split"),
    ],
)
def test_a_recipe_of_colours_must_make_sense(own: Own, old: str, new: str, message: str) -> None:
    own.pairs(1)
    assert old in COLOUR_RECIPE
    own.write_recipe(COLOUR_RECIPE.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        listed(own.recipe, own.root, "train")


# --- BDD100K, KITTI, VOC, ScanNet, WildDash ---------------------------------------------------------------------------


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


def test_kitti_cars_that_nobody_told_apart_are_a_crowd(tmp_path: Path) -> None:
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
        ("id\tnyu40id\n1\tx\n", "is no table of numbers"),
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


# --- names and numbers of one's own -----------------------------------------------------------------------------------

NAMED = """name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "masks/{split}/{stem}.png"
class_names = ["codes.txt", "codes.json"]
[ids]
ignore = ["nothing"]
map = {"Lorry " = "car"}
"""


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("codes.txt", "\ufeffnothing\nlorry\n SKY\nroad\ncar\n\n"),
        (
            "codes.json",
            '{"labels": [{"name": "nothing"}, {"name": "lorry"}, {"name": "a", "readable": "Sky"}, '
            '{"name": "road", "readable": "b"}, {"name": "Car"}]}',
        ),
    ],
)
def test_a_file_may_say_what_values_are_called(file: str, text: str, own: Own) -> None:
    own.write_recipe(NAMED)
    own.image("images/train/a.jpg")
    values = own.mask("masks/train/a.png", np.resize(np.arange(5, dtype=np.uint8), SIZE))
    (own.root / file).write_text(text, encoding="utf-8")
    found = listed(own.recipe, own.root, "train")
    np.testing.assert_array_equal(found.read(found.item).mask, np.array([255, 1, 2, 0, 1])[values])
    own.mask("masks/train/a.png", filled(5))
    with pytest.raises(SampleError, match="unknown to the recipe: 5"):
        found.read(found.item)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (
            "",
            "",
            LayoutError,
            "codes.txt: lists 2 classes, 1 of which my_streets does not have: 'tree'. Compare with my_",
        ),
        ('["nothing"]', "[3]", RecipeError, "3 is no name, as layout.class_names asks for"),
        ("map =", "offset = 1\nmap =", RecipeError, "ids.offset and layout.class_names exclude each other"),
        ('"car"', '"tram"', RecipeError, "has no class 'tram'"),
        ("codes.", "names.", LayoutError, "no list of class names: expected names.txt or names.json"),
        ("class_names", 'table = "codes.txt"\nclass_names', RecipeError, "options.table_columns must name two columns"),
    ],
)
def test_names_of_values_must_make_sense(old: str, new: str, error: type[Exception], message: str, own: Own) -> None:
    own.pairs(1)
    (own.root / "codes.txt").write_text("road\ntree\n" if not old else "road\n")
    own.write_recipe(NAMED.replace(old, new) if old else NAMED)
    with pytest.raises(error, match=message):
        listed(own.recipe, own.root, "train")


# --- hostile files ----------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("which", ["masks", "objects"])
def test_a_decompression_bomb_is_a_recorded_skip(which: str, own: Own) -> None:
    own.write_recipe(INSTANCES.replace("CODING", "n"))
    own.pairs(2)
    for number in range(2):
        own.mask(f"objects/train/00{number}.png")
    (own.root / which / "train/001.png").write_bytes(bomb(60000, 60000))
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert report.written == 1
    assert report.skipped[0]["reason"] == f"{which}/train/001.png: has more pixels than Pillow takes for safe"


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("reader", ["index_png", "instances", "colour_png", "ade20k_seg", "polygons"])
def test_damaged_files_are_sample_errors(new_own: Callable[[], Own], reader: str, data: st.DataObject) -> None:
    """A few bytes of an annotation are altered, and some cut off: it is read, or refused in one line."""
    own = new_own()
    own.image("images/train/a.jpg")
    values = np.resize(np.arange(3, dtype=np.uint8), SIZE)
    if reader == "polygons":
        own.write_recipe(NAMED.replace("index_png", reader).replace("masks =", "polygons ="))
        write(own.root / "masks/train/a.png", polygons(box("road", 0, 0, 9, 9), box("car", 1, 2, 30, 4)))
    else:
        own.write_recipe(INSTANCES.replace("CODING", "class*256+n") if reader == "instances" else COLOUR_RECIPE)
        write(own.root / "masks/train/a.png", values if reader == "instances" else np.stack([values] * 3, axis=-1))
        write(own.root / "objects/train/a.png", values.astype(np.uint16) * 256)
    text = own.recipe_file.read_text()
    if reader in ("index_png", "ade20k_seg"):
        text = text.replace("colour_png", reader).split("[ids]")[0]
    own.write_recipe(text.replace('class_names = ["codes.txt", "codes.json"]\n', ""))
    path = own.root / ("objects" if reader == "instances" else "masks") / "train/a.png"
    content = bytearray(path.read_bytes())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        content[place] = byte
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    found = listed(own.recipe, own.root, "train")
    try:
        annotation = found.read(found.item)
    except SampleError as error:
        assert "\n" not in str(error)
    else:
        assert annotation.mask is not None and annotation.mask.dtype == np.uint8


def test_names_that_are_not_utf8_and_loops_of_links(own: Own) -> None:
    own.pairs(1)
    for folder, suffix in (("images", b"jpg"), ("masks", b"png")):
        path = os.fsencode(own.root / folder / "train")
        with open(path + b"/\xff." + suffix, "wb") as stream:
            stream.write(b"")
        os.symlink(path, path + b"/again." + suffix)
    found = listed(own.recipe, own.root, "train")
    assert found.item.path == "images/train/000.jpg"
    assert [(skip.path, skip.reason) for skip in found.skips] == [
        ("images/train/\\udcff.jpg", "the file's name is not UTF-8")
    ]


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([{"label": "car", "polygon": [[0, 0], [1, 1]] * 60_000}], "has more than 100000 vertices"),
        ([{"label": "car", "polygon": [[0, 0], [1, 1]] * 300}] * 200, "has more than 100000 vertices"),
        ([{"label": "car", "polygon": [[0, 0], [1e308, 1], [5, 5]]}], "a vertex is no point within 1000000 pixels"),
        ([{"label": "car", "polygon": [[0, 0], [10**400, 1], [5, 5]]}], "is not polygon JSON"),
        ([{"label": "car", "polygon": "abc"}], "is not polygon JSON"),
    ],
)
def test_absurd_polygons(objects: list[dict[str, Any]], reason: str, tmp_path: Path) -> None:
    cityscapes(tmp_path, {"polygons.json": polygons(*objects)})
    with pytest.raises(SampleError, match=reason):
        only("cityscapes", tmp_path)


def test_polygons_far_outside_paint_what_is_inside(tmp_path: Path) -> None:
    cityscapes(tmp_path, {"polygons.json": polygons(box("car", -900_000, -900_000, 900_000, 900_000))})
    assert classes_of(only("cityscapes", tmp_path)[1]) == {index("cityscapes", "car")}
