"""Cityscapes, IDD and Mapillary Vistas, in every layout that people have: which one it is, is seen by looking.

Made up from the datasets' documentation where there is no authentic sample; ../shared/fixtures says what is cut from
real files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, UsageError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.source import Segment

from .layouts import SIZE, box, cityscapes, classes_of, filled, index, only, pixels, plan, polygons, write

if TYPE_CHECKING:
    pass


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
    with pytest.raises(LayoutError, match=r"config_v1.2.json: is not a list of class names"):
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
