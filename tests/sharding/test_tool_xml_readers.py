"""CVAT and Pascal VOC."""

from __future__ import annotations

import numpy as np
import pytest

from labelmerge.errors import LayoutError, RecipeError, SampleError

from . import tool_formats as tools
from .tool_formats import SIZE, Dataset

IGNORE = 255


# --- CVAT -------------------------------------------------------------------------------------------------------------


def test_cvat_shapes(dataset: Dataset) -> None:
    attributes = 'source="manual" occluded="0"'
    made = dataset.cvat(
        f'<mask label="car" {attributes} rle="2, 3, 1, 4" left="4" top="6" width="5" height="2" z_order="2"></mask>',
        f'<box label="road" {attributes} xtl="2.0" ytl="3.0" xbr="20.00" ybr="13.00" z_order="0"></box>',
        f'<box label="road" {attributes} xtl="10" ytl="18" xbr="20" ybr="22" rotation="90.0" z_order="0"></box>',
        f'<ellipse label="traffic light" {attributes} cx="32" cy="10" rx="4" ry="3" z_order="1"></ellipse>',
        f'<polyline label="car" {attributes} points="0,0;9,9" z_order="0"></polyline>',
    )
    found = dataset.read(made)
    expected = np.full(SIZE, IGNORE)
    expected[3:13, 2:20] = 0
    expected[15:25, 13:17] = 0
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected[((rows - 10) / 3) ** 2 + ((columns - 32) / 4) ** 2 <= 1] = 2
    expected[6, 6:9] = 1  # runs: 2 off, 3 on, 1 off, 4 on, along the rows of 5
    expected[7, 5:9] = 1
    assert found.mask is not None and (found.mask == expected).all()
    assert dataset.listed(made).notes == {"shapes_without_area": 1}


def test_cvat_paints_by_z_order(dataset: Dataset) -> None:
    square = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)]
    larger = [(0.0, 0.0), (20.0, 0.0), (20.0, 20.0), (0.0, 20.0)]
    top = dataset.read(dataset.cvat(tools.cvat_polygon("car", square, 3), tools.cvat_polygon("road", larger, 1))).mask
    assert top is not None and top[5, 5] == 1 and top[15, 15] == 0
    hidden = dataset.read(
        dataset.cvat(tools.cvat_polygon("car", square, -1), tools.cvat_polygon("road", larger, 1))
    ).mask
    assert hidden is not None and hidden[5, 5] == 0


def test_cvat_groups_and_subsets(dataset: Dataset) -> None:
    tools.picture(dataset.root / "images/a.jpg")
    tools.picture(dataset.root / "images/b.jpg")
    parts = [[(x, 0.0), (x + 4, 0.0), (x + 4, 4.0), (x, 4.0)] for x in (0.0, 10.0, 20.0)]
    shapes = [
        tools.cvat_polygon("car", points, more=f' group_id="{own}"')
        for points, own in zip(parts, (5, 5, 0), strict=True)
    ]
    images = [
        tools.cvat_image("a.jpg", shapes, 0, more='subset="Train" '),
        tools.cvat_image("b.jpg", shapes, 1, more='subset="Validation" '),
    ]
    tools.text(dataset.root / "annotations.xml", tools.cvat_xml(images))
    made = tools.Recipe(
        "cvat",
        '[layout]\nimages = "images"\nannotations = "annotations.xml"\nsubset = "{split}"\n'
        '[splits]\ntrain = "Train"\nval = "Validation"\n',
    )
    found = dataset.read(made)
    assert [box.bbox for box in found.boxes] == [(0, 0, 14, 4), (20, 0, 24, 4)]
    assert dataset.listed(made, split="val").item.path == "images/b.jpg"
    with pytest.raises(LayoutError, match="no image of the subset test"):
        dataset.listed(made, split="test")


def test_cvat_groups_of_labels_that_are_left_out_leave_an_image_without_things(dataset: Dataset) -> None:
    points = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0)]
    made = dataset.cvat(*(tools.cvat_polygon("dontcare", points, more=' group_id="5"') for _ in range(2)))
    assert dataset.read(made, "box", '[ids]\nskip = ["dontcare"]').boxes == ()


def test_cvat_says_what_is_wrong_and_where(dataset: Dataset) -> None:
    good = tools.cvat_polygon("car", [(0.0, 0.0), (9.0, 0.0), (9.0, 9.0)])
    bad = [
        good.replace("9.00,0.00", "9.00"),
        '<mask label="car" rle="5, 50" left="0" top="0" width="2" height="2"/>',
        '<box label="car" xtl="a" ytl="0" xbr="1" ybr="1"/>',
    ]
    found = dataset.read(dataset.cvat(good, *bad))
    kinds = {what.partition(" (first: ")[0]: what for what in found.notes}
    assert sorted(kinds) == [
        "shapes left out: its rle does not fit its size",
        "shapes left out: no number in its xtl",
        "shapes left out: no point in its points",
    ]
    assert "annotations.xml, image a.jpg, shape 3" in kinds["shapes left out: its rle does not fit its size"]
    made = dataset.cvat(good.replace("car", "unicorn"))
    with pytest.raises(LayoutError, match="'unicorn'"):
        dataset.listed(made)
    assert dataset.listed(made, more='[ids]\nskip = ["unicorn"]').items
    for text, why in (
        ("<annotations><image", r"is not valid XML \(.*line 1"),
        ("<annotation></annotation>", "is not the XML of <annotations>"),
        (tools.cvat_xml([], more='<track id="0" label="car"></track>'), "tracks of a video"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations></annotations>', "document type"),
    ):
        tools.text(dataset.root / "annotations.xml", text)
        with pytest.raises(LayoutError, match=why):
            dataset.listed(made)


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def test_voc_boxes(dataset: Dataset) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    made = dataset.voc(
        tools.voc_object("car", (1, 1, 10, 5)).replace("<bndbox>", f"{part}<bndbox>"),
        tools.voc_object("Road", (40.5, 7, 55, 35), difficult=1),
    )
    found = dataset.read(made, "box")
    assert [(box.class_index, box.bbox) for box in found.boxes] == [(1, (0, 0, 10, 5)), (0, (39.5, 6, 40, 30))]
    assert found.notes["difficult_objects"] == 1
    assert len(dataset.read(made, "box", '[options]\ndifficult = "leave out"').boxes) == 1
    zero = dataset.read(made, "box", "[options]\nfirst_pixel = 0")
    assert zero.boxes[0].bbox == (1, 1, 10, 5)
    with pytest.raises(RecipeError, match="first_pixel"):
        dataset.listed(made, "box", "[options]\nfirst_pixel = 2")


def test_voc_sizes(dataset: Dataset) -> None:
    box = tools.voc_object("car", (1, 1, 10, 5))
    for size in (None, (0, 0)):
        assert len(dataset.read(dataset.voc(box, size=size), "box").boxes) == 1
    with pytest.raises(SampleError, match="40x30"):
        dataset.read(dataset.voc(box, size=(40, 30)), "box")


def test_voc_says_what_is_wrong_and_where(dataset: Dataset) -> None:
    box = tools.voc_object("car", (1, 1, 10, 5))
    made = dataset.voc(box, box.replace("<xmin>1<", "<xmin>x<"), "<object><name>car</name></object>")
    for name, text in (("b", "<annotation><object>"), ("c", tools.voc_xml("c.jpg", [box.replace("car", "cow")]))):
        tools.picture(dataset.root / f"JPEGImages/{name}.jpg")
        tools.text(dataset.root / f"Annotations/{name}.xml", text)
    tools.picture(dataset.root / "JPEGImages/d.jpg")
    tools.text(dataset.root / "Annotations/e.xml", tools.voc_xml("e.jpg", [box]))
    report = dataset.check(made, "box")
    reasons = {skip["path"]: skip["reason"] for skip in report.skipped}
    assert report.written == 1 and "line 1" in reasons["JPEGImages/b.jpg"]
    assert "label 'cow' is not a class" in reasons["JPEGImages/c.jpg"]
    assert "no annotation" in reasons["JPEGImages/d.jpg"] and "no image" in reasons["Annotations/e.xml"]
    assert report.notes["objects left out: no number in its xmin (first: Annotations/a.xml, object 2)"] == 1
    assert report.notes["objects left out: it has no bndbox (first: Annotations/a.xml, object 3)"] == 1
