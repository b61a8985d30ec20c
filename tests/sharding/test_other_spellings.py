"""Names that are written in one way on disk and in another where an annotation says them: every reader finds them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from . import tool_formats as tools
from .tool_formats import Dataset

NAME = "straße ü 1"
NFD = unicodedata.normalize("NFD", NAME)
HALF = [(0.0, 0.0), (20.0, 0.0), (20.0, 30.0), (0.0, 30.0)]
URL = "https://host.example/data/stra%C3%9Fe%20%C3%BC%201.jpg?sig=1"


def labelme(dataset: Dataset, name: str) -> tools.Recipe:
    shape = tools.labelme_shape("car", HALF)
    tools.text(dataset.root / "labels/x.json", tools.labelme_json(name, [shape]))
    tools.picture(dataset.root / f"labels/{NAME}.jpg")
    return tools.Recipe("labelme", '[layout]\nannotations = "labels/*.json"')


def cvat(dataset: Dataset, name: str) -> tools.Recipe:
    tools.text(dataset.root / "a.xml", tools.cvat_xml([tools.cvat_image(name, [tools.cvat_polygon("car", HALF)])]))
    tools.picture(dataset.root / f"images/{NAME}.jpg")
    return tools.Recipe("cvat", '[layout]\nimages = "images"\nannotations = "a.xml"')


def coco(dataset: Dataset, name: str) -> tools.Recipe:
    content = tools.coco_json({"a": [("car", HALF)]})
    content["images"][0]["file_name"] = name
    tools.text(dataset.root / "a.json", content)
    tools.picture(dataset.root / f"images/{NAME}.jpg")
    return tools.Recipe("coco_instances", '[layout]\nimages = "images"\nannotations = "a.json"')


def yolo(dataset: Dataset, name: str) -> tools.Recipe:
    tools.yolo(dataset.root, {NAME: [("car", HALF)]})
    tools.text(dataset.root / "train.txt", f"{name}\n")
    tools.text(dataset.root / "data.yaml", f"train: train.txt\nnames: [{', '.join(tools.NAMES)}]\n")
    return tools.Recipe("yolo", '[layout]\ndata = "data.yaml"')


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((make, name) for make in (labelme, cvat, coco) for name in (f"{NFD}.jpg", f"{NAME}.JPG")),
        *((make, f".\\{NAME}.jpg") for make in (labelme, cvat, coco)),
        *(
            (yolo, f"{folder}{name}")
            for folder in ("train/images/", "D:\\x\\train\\images\\")
            for name in (f"{NFD}.JPG",)
        ),
        (labelme, URL),
    ],
)
def test_an_image_that_is_named_in_another_spelling(make: tools.Maker, name: str, dataset: Dataset) -> None:
    found = dataset.listed(make(dataset, name))
    assert Path(found.item.path).name == f"{NAME}.jpg"
    assert len(found.read(found.item, tools.SIZE).segments) == 1


@pytest.mark.parametrize("stem", [NAME, NFD])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("reader", ["voc_xml", "supervisely", "labelme", "index_png"])
def test_an_annotation_whose_name_is_spelled_otherwise(reader: str, upper: bool, stem: str, dataset: Dataset) -> None:
    tools.picture(dataset.root / f"images/{NAME}.jpg")
    ending = {"voc_xml": "xml", "index_png": "png"}.get(reader, "json")
    place = dataset.root / f"labels/{stem}.{ending.upper() if upper else ending}"
    if reader == "voc_xml":
        tools.text(place, tools.voc_xml("x.jpg", [tools.voc_object("car", (1, 1, 10, 5))]))
    elif reader == "index_png":
        place.parent.mkdir()
        tools.index_mask(place)
    else:
        thing = tools.supervisely_object("car", points={"exterior": HALF, "interior": []})
        shapes = tools.labelme_json("x.jpg", [tools.labelme_shape("car", HALF)])
        tools.text(place, tools.supervisely_json([thing]) if reader == "supervisely" else shapes)
    key = "masks" if reader == "index_png" else "annotations"
    made = tools.Recipe(reader, f'[layout]\nimages = "images/*.jpg"\n{key} = "labels/{{stem}}.{ending}"')
    found = dataset.listed(made, "box" if reader == "voc_xml" else "mask")
    assert Path(found.item.annotation).name == place.name and not found.skips
    annotation = found.read(found.item, tools.SIZE)
    assert annotation.boxes or annotation.mask is not None


def test_two_annotations_that_may_be_meant_are_not_guessed(dataset: Dataset) -> None:
    tools.picture(dataset.root / "images/a.jpg")
    for ending in ("XML", "Xml", "xmL"):
        tools.text(dataset.root / f"labels/a.{ending}", tools.voc_xml("a.jpg", []))
    tools.text(dataset.root / f"labels/{NFD}.xml", tools.voc_xml("a.jpg", []))
    tools.text(dataset.root / f"labels/{NAME}.XML", tools.voc_xml("a.jpg", []))
    tools.picture(dataset.root / f"images/{unicodedata.normalize('NFC', NAME)}.jpg")
    made = tools.Recipe("voc_xml", '[layout]\nimages = "images/*.jpg"\nannotations = "labels/{stem}.xml"')
    found = dataset.listed(made, "box")
    assert [item.path for item in found.items] == ["images/a.jpg"]  # .XML, as whole systems write it
    assert any("no annotation: expected labels/straße" in skip.reason for skip in found.skips)


def test_an_annotation_of_another_image_is_not_taken(dataset: Dataset) -> None:
    for name in (NFD, unicodedata.normalize("NFC", NAME)):
        tools.picture(dataset.root / f"images/{name}.jpg")
    tools.text(dataset.root / f"labels/{NFD}.xml", tools.voc_xml("a.jpg", []))
    made = tools.Recipe("voc_xml", '[layout]\nimages = "images/*.jpg"\nannotations = "labels/{stem}.xml"')
    found = dataset.listed(made, "box")
    assert [item.path for item in found.items] == [f"images/{NFD}.jpg"] and len(found.skips) == 1
