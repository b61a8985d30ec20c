"""YOLO: lines of boxes and polygons, and where data.yaml says that images are."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelmerge.errors import LayoutError, SampleError

from . import tool_formats as tools
from .tool_formats import SIZE, Dataset

IGNORE = 255


# --- YOLO -------------------------------------------------------------------------------------------------------------


def test_yolo_boxes_and_polygons(dataset: Dataset) -> None:
    box, polygon = "1 0.5 0.5 0.5 0.4", tools.yolo_line("road", [(0, 0), (10, 0), (10, 10), (0, 10)]).strip()
    made = dataset.yolo(box, polygon, box)
    found = dataset.read(made, "box")
    assert [box.class_index for box in found.boxes] == [1, 0]
    assert found.boxes[0].bbox == pytest.approx((10, 9, 30, 21)) and found.notes["lines_twice"] == 1
    found = dataset.read(made)
    assert len(found.segments) == 1 and found.notes["boxes_without_mask"] == 1


@pytest.mark.parametrize(
    "data",
    [
        "train: ../train/images\nnames: [road, car, traffic light]",
        "path: ../datasets/data\ntrain: train/images\nnames: {0: road, 1: car, 2: traffic light}",
        "path: /content/data\ntrain: train/images\nnames:\n  0: road\n  1: car\n  2: traffic light",
        "train: C:\\Users\\Ann\\data\\train\\images\nnames: [road, car, traffic light]",
        "train: /home/ann/data/train/images\nnames: [road, car, traffic light]",
        "train: [./train/images/]\nnames: [Road, CAR, traffic light]",
        "train: lists/train.txt\nnames: [road, car, traffic light]",
        "train: [lists/half.txt, lists/windows.txt]\nnames: [road, car, traffic light]",
    ],
)
def test_yolo_paths(data: str, dataset: Dataset) -> None:
    scenes = {"a b": tools.scene(0), "ü": tools.scene(1)}
    made = tools.yolo(dataset.root, scenes)
    tools.text(dataset.root / "lists/train.txt", "../train/images/a b.jpg\n../train/images/u\u0308.jpg\n")
    tools.text(dataset.root / "lists/half.txt", "/home/ann/data/train/images/a b.jpg\n")
    tools.text(dataset.root / "lists/windows.txt", "D:\\data\\train\\images\\ü.jpg\r\n")
    tools.text(dataset.root / "data.yaml", data)
    found = dataset.listed(made)
    assert [item.path for item in found.items] == ["train/images/a b.jpg", "train/images/ü.jpg"]
    assert [item.annotation for item in found.items] == ["train/labels/a b.txt", "train/labels/ü.txt"]


def test_yolo_without_data_yaml(dataset: Dataset) -> None:
    tools.picture(dataset.root / "obj_train_data/a.PNG")
    tools.text(dataset.root / "obj_train_data/a.txt", "1 0.5 0.5 0.5 0.4")
    tools.text(dataset.root / "train.txt", "data/obj_train_data/a.PNG\ndata/obj_train_data/gone.png\n")
    tools.text(dataset.root / "obj.names", "road\ncar\ntraffic light\n")
    names = 'class_names = "obj.names"'
    found = dataset.listed(tools.Recipe("yolo", f'[layout]\nlist = "{{split}}.txt"\n{names}'), "box")
    assert found.item.path == "obj_train_data/a.PNG"
    assert [skip.path for skip in found.skips] == ["data/obj_train_data/gone.png"]
    found = dataset.listed(tools.Recipe("yolo", f'[layout]\nimages = "obj_train_data/*"\n{names}'), "box")
    assert found.read(found.item, SIZE).boxes[0].class_index == 1


def test_yolo_images_without_labels(dataset: Dataset) -> None:
    made = tools.yolo(dataset.root, {"a": tools.scene(0)})
    tools.picture(dataset.root / "train/images/b.jpg")
    found = dataset.listed(made, "box")
    assert len(found.items) == 2 and found.notes == {"images_without_label_file": 1}
    assert found.read(found.items[1], SIZE).boxes == ()
    assert dataset.check(made).written == 1
    (dataset.root / "train/labels/a.txt").unlink()
    with pytest.raises(LayoutError, match="train/images/a.jpg would have train/labels/a.txt"):
        dataset.listed(made, "box")


def test_yolo_says_what_is_wrong_and_where(dataset: Dataset) -> None:
    lines = ["1 0.5 0.5 0.5 0.4", "1 100 200 30 40", "1 0.5 0.5 nan 0.1", "7 0.5 0.5 0.1 0.1", "1 0.1 0.2", "x 0 0 1 1"]
    found = dataset.read(dataset.yolo(*lines), "box")
    assert len(found.boxes) == 1
    assert found.notes["class number 7 has no name"] == 1
    assert found.notes["lines left out: its coordinates are not from 0 to 1 (first: train/labels/a.txt, line 2)"] == 1
    assert (
        found.notes["lines left out: it has 3 fields: neither a box nor a polygon (first: train/labels/a.txt, line 5)"]
        == 1
    )  # noqa: E501
    with pytest.raises(SampleError, match="none of its 1 objects can be used"):
        dataset.read(dataset.yolo("1 9 9 9 9"), "box")


def test_names_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, ("no", "on", "1e3"))
    made = dataset.yolo("0 0.5 0.5 0.5 0.4", "2 0.5 0.5 0.1 0.1")
    for names in ("[no, on, 1e3]", "\n  0: no\n  1: on\n  2: 1e3"):
        tools.text(dataset.root / "data.yaml", f"train: train/images\nnames: {names}\n")
        assert [box.class_index for box in dataset.read(made, "box").boxes] == [0, 2]
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    tools.text(dataset.root / "data.yaml", f"a0: &a0 x\n{bomb}train: train/images\nnames: *a8\n")
    with pytest.raises(LayoutError, match="has no names"):
        dataset.listed(made, "box")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("train: [a", r"not YAML \(.* in line \d"),
        ("- a", "it has no keys"),
        ("train: train/images", "has no names"),
        ("names: [road]\nval: train/images", "no images of its split 'train'"),
        ("names: [road]\ntrain: elsewhere", "'elsewhere': there is nothing under the root"),
        ("names: [cow, dog]\ntrain: train/images", "not classes of tools"),
    ],
)
def test_yolo_data_yaml_that_is_wrong(data: str, why: str, dataset: Dataset) -> None:
    made = tools.yolo(dataset.root, {"a": tools.scene(0)})
    tools.text(dataset.root / "data.yaml", data)
    with pytest.raises(LayoutError, match=why):
        dataset.listed(made)


def test_keypoints_after_a_box_are_no_polygon(dataset: Dataset) -> None:
    made = dataset.yolo("1 0.5 0.5 0.5 0.4 0.1 0.2 0.3 0.4")
    with (dataset.root / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 2]\n")
    assert dataset.read(made, "box").boxes[0].bbox == pytest.approx((10, 9, 30, 21))
