"""Readers of what annotation tools save: against a slow obvious reference, and against each other."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.catalog import load_recipe
from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.sharding.outcome import ShardReport
from labelmerge.sharding.readers.shared import outlines
from labelmerge.sharding.shard import check
from labelmerge.sharding.source.source import Annotation

from . import tool_formats as tools
from .listing import Listed, listed
from .tool_formats import NAMES, SIZE, Scene

IGNORE = 255


class Dataset:
    """A folder of one format, with its recipe."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "data"
        self.root.mkdir()
        rows = "".join(f"{index},{name}\n" for index, name in enumerate(NAMES))
        (folder / "tools.csv").write_text(f"index,name\n{rows}")

    def recipe(self, made: tools.Recipe, kind: str = "noisy_mask", more: str = "") -> Any:
        head = f'name = "tools"\nannotation_type = "{kind}"\nreader = "{made.reader}"\ndescriptions = "tools.csv"\n'
        (self.folder / "tools.toml").write_text(f"{head}{made.rest}\n{more}\n")
        return load_recipe(self.folder / "tools.toml")

    def listed(self, made: tools.Recipe, kind: str = "noisy_mask", more: str = "", split: str = "train") -> Listed:
        return listed(self.recipe(made, kind, more), self.root, split)

    def read(self, made: tools.Recipe, kind: str = "noisy_mask", more: str = "") -> Annotation:
        found = self.listed(made, kind, more)
        return found.read(found.item, SIZE)

    def check(self, made: tools.Recipe, kind: str = "noisy_mask", more: str = "") -> ShardReport:
        return check(self.recipe(made, kind, more), self.root, "train")

    # One image "a.jpg" of some objects, by format.

    def labelme(self, *shapes: dict[str, Any]) -> tools.Recipe:
        tools.picture(self.root / "train/a.jpg")
        tools.text(self.root / "train/a.json", tools.labelme_json("a.jpg", list(shapes)))
        return tools.Recipe("labelme", '[layout]\nannotations = "{split}/*.json"')

    def supervisely(self, *objects: dict[str, Any]) -> tools.Recipe:
        made = tools.supervisely(self.root, {"a": []})
        tools.text(self.root / "train/ann/a.jpg.json", tools.supervisely_json(list(objects)))
        return made

    def cvat(self, *shapes: str) -> tools.Recipe:
        made = tools.cvat(self.root, {"a": []})
        tools.text(self.root / "annotations.xml", tools.cvat_xml([tools.cvat_image("a.jpg", list(shapes))]))
        return made

    def yolo(self, *lines: str) -> tools.Recipe:
        made = tools.yolo(self.root, {"a": []})
        tools.text(self.root / "train/labels/a.txt", "\n".join(lines))
        return made

    def voc(self, *objects: str, size: tuple[int, int] | None = SIZE) -> tools.Recipe:
        tools.picture(self.root / "JPEGImages/a.jpg")
        tools.text(self.root / "Annotations/a.xml", tools.voc_xml("a.jpg", list(objects), size))
        return tools.Recipe("voc_xml", '[layout]\nimages = "JPEGImages/*.jpg"\nannotations = "Annotations/{stem}.xml"')


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


# --- the same scene in every format -----------------------------------------------------------------------------------


def reference(things: Scene) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The class of every pixel, painted thing by thing, and where a rule of filling may decide."""
    mask, doubtful = np.full(SIZE, IGNORE), np.zeros(SIZE, dtype=bool)
    for label, points in things:
        mask[tools.inside(points)] = NAMES.index(label)
        doubtful |= tools.near_edge(points)
    return mask, doubtful


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_masks_are_those_of_the_reference(tool: str, dataset: Dataset) -> None:
    scenes = {f"img {seed}": tools.scene(seed) for seed in range(6)}
    found = dataset.listed(tools.TOOLS[tool](dataset.root, scenes))
    assert len(found.items) == 6 and not found.skips
    for item in found.items:
        expected, doubtful = reference(scenes[Path(item.path).stem])
        annotation = found.read(item, SIZE)
        assert annotation.mask is not None and annotation.instances is not None
        assert (annotation.mask == expected)[~doubtful].all()
        assert (~doubtful).mean() > 0.3
        assert ((annotation.instances > 0) == (annotation.mask != IGNORE)).all()
        for segment in annotation.segments:
            here = annotation.mask[annotation.instances == segment.id]
            assert (here == segment.class_index).all()


def test_all_formats_give_the_same_masks_and_boxes(tmp_path: Path) -> None:
    scenes = {f"{seed}": tools.scene(seed) for seed in range(4)}
    masks, boxes = {}, {}
    for tool, make in tools.TOOLS.items():
        folder = tmp_path / tool
        folder.mkdir()
        dataset = Dataset(folder)
        made = make(dataset.root, scenes)
        found = dataset.listed(made)
        masks[tool] = np.stack([found.read(item, SIZE).mask for item in found.items])  # type: ignore[misc]
        made.reader = made.reader.replace("coco_instances", "coco_boxes")
        found = dataset.listed(made, "box")
        boxes[tool] = [
            sorted((box.class_index, *np.round(box.bbox, 3).tolist()) for box in found.read(item, SIZE).boxes)
            for item in found.items
        ]
    for tool in tools.TOOLS:
        assert (masks[tool] == masks["coco"]).all(), tool
        assert boxes[tool] == boxes["coco"], tool


# --- outlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_rectangles_and_ellipses_cover_the_pixels_whose_centres_are_inside(seed: int) -> None:
    random = np.random.default_rng(seed)
    x0, x1 = np.sort(random.uniform(-8, SIZE[1] + 8, 2)).tolist()
    y0, y1 = np.sort(random.uniform(-8, SIZE[0] + 8, 2)).tolist()
    ellipse = outlines.Ellipse(x0, y0, *random.uniform(1, 15, 2).tolist(), float(random.uniform(0, 360)))
    box, round_one = outlines.Rectangle((x0, y0, x1, y1)).mask(SIZE), ellipse.mask(SIZE)
    turn = math.radians(ellipse.degrees)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            x, y = column + 0.5, row + 0.5
            assert box[row, column] == (x0 <= x <= x1 and y0 <= y <= y1)
            right, down = x - ellipse.x, y - ellipse.y
            along = right * math.cos(turn) + down * math.sin(turn)
            across = down * math.cos(turn) - right * math.sin(turn)
            value = (along / ellipse.horizontal) ** 2 + (across / ellipse.vertical) ** 2
            assert abs(value - 1) < 1e-9 or round_one[row, column] == (value <= 1)


def test_a_turned_rectangle_is_that_polygon() -> None:
    turned = outlines.turned((10.0, 10.0, 20.0, 14.0), 90)
    assert isinstance(turned, outlines.Polygon)
    assert turned.corners == pytest.approx((13.0, 7.0, 17.0, 17.0))
    assert (turned.mask(SIZE) == outlines.Rectangle((13, 7, 17, 17)).mask(SIZE)).all()


def test_holes_are_not_covered() -> None:
    outer, hole = [(2.0, 2.0), (30.0, 2.0), (30.0, 25.0), (2.0, 25.0)], [(8.0, 8.0), (20.0, 8.0), (14.0, 20.0)]
    mask = outlines.Polygon(tuple(outer), (tuple(hole),)).mask(SIZE)
    expected = tools.inside(outer) & ~tools.inside(hole)
    sure = ~(tools.near_edge(outer) | tools.near_edge(hole))
    assert (mask == expected)[sure].all() and not mask[12, 14]


# --- LabelMe ----------------------------------------------------------------------------------------------------------


def test_labelme_shapes(dataset: Dataset) -> None:
    mask = np.array([[1, 0, 1], [1, 1, 1]], dtype=bool)
    data = base64.b64encode(tools.png(mask)).decode()
    made = dataset.labelme(
        tools.labelme_shape("road", [(30, 20), (5, 10)], "rectangle"),
        tools.labelme_shape("Car ", [(15, 15), (15, 12)], "circle"),
        tools.labelme_shape("traffic light", [(34, 3), (36, 4)], "mask", mask=data),
        tools.labelme_shape("road", [(0, 0), (9, 9)], "line"),
        tools.labelme_shape("unicorn", [(0, 0), (9, 9), (9, 0)]),
    )
    found = dataset.read(made)
    expected = np.full(SIZE, IGNORE)
    expected[10:20, 5:30] = 0
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected[(rows - 15) ** 2 + (columns - 15) ** 2 <= 9] = 1
    expected[3:5, 34:37][mask] = 2
    assert found.mask is not None and (found.mask == expected).all()
    assert [box.bbox for box in found.boxes] == [(5, 10, 30, 20), (12, 12, 18, 18), (34, 3, 37, 5)]
    notes = {what: count for what, count in found.notes.items() if count}
    assert notes == {"shapes_without_area": 1, "things_of_unknown_labels": 1, "label 'unicorn' is no class": 1}


def test_labelme_groups_are_one_object(dataset: Dataset) -> None:
    parts = [[(0, 0), (4, 4)], [(10, 0), (14, 4)], [(20, 0), (24, 4)]]
    ids: list[int | None] = [3, 3, None]
    made = dataset.labelme(
        *(tools.labelme_shape("car", p, "rectangle", group_id=own) for p, own in zip(parts, ids, strict=True))
    )
    found = dataset.read(made)
    assert [box.bbox for box in found.boxes] == [(0, 0, 14, 4), (20, 0, 24, 4)]
    assert found.instances is not None and np.unique(found.instances, return_counts=True)[1][1:].tolist() == [32, 16]


@pytest.mark.parametrize("name", ["..\\images\\b ü.JPG", "../images/b%20%C3%BC.JPG", "../images/b u\u0308.jpg"])
def test_labelme_finds_the_image_it_names(name: str, dataset: Dataset) -> None:
    tools.picture(dataset.root / "images/b ü.JPG")
    shape = tools.labelme_shape("car", [(0, 0), (4, 4)], "rectangle")
    tools.text(dataset.root / "labels/1.json", tools.labelme_json(name, [shape]))
    found = dataset.listed(tools.Recipe("labelme", '[layout]\nannotations = "labels/*.json"'))
    assert found.item.path == "images/b ü.JPG"


def test_labelme_says_what_is_wrong_and_where(dataset: Dataset) -> None:
    good = tools.labelme_shape("car", [(0, 0), (4, 4)], "rectangle")
    broken: Any = [(0, 0), (4, "x"), (1, 1)]
    bad = [tools.labelme_shape("car", broken), tools.labelme_shape("car", [(0, 0)]), {"label": "car"}]
    for name, shapes in (("a", [good, *bad]), ("b", [bad[0], good]), ("c", bad)):
        tools.picture(dataset.root / f"train/{name}.jpg")
        tools.text(dataset.root / f"train/{name}.json", tools.labelme_json(f"{name}.jpg", shapes))
    tools.text(dataset.root / "train/d.json", "{]")
    tools.text(dataset.root / "train/e.json", tools.labelme_json("gone.jpg", [good]))
    tools.picture(dataset.root / "train/f.jpg")
    report = dataset.check(tools.Recipe("labelme", '[layout]\nannotations = "{split}/*.json"'))
    assert report.written == 2
    reasons = {skip["path"]: skip["reason"] for skip in report.skipped}
    assert reasons["train/d.json"].startswith("is not JSON (")
    assert "no such image: 'gone.jpg'" in reasons["train/e.json"]
    assert "none of its 3 objects can be used" in reasons["train/c.jpg"]
    assert report.notes["images_not_listed"] == 1
    assert report.notes["shapes left out: no number in its points (first: train/a.json, shape 2)"] == 2


# --- Supervisely ------------------------------------------------------------------------------------------------------


def test_supervisely_objects(dataset: Dataset) -> None:
    bitmap = np.random.default_rng(0).random((6, 9)) < 0.5
    square = [[2, 2], [20, 2], [20, 20], [2, 20]]
    made = dataset.supervisely(
        tools.supervisely_object(
            "road", points={"exterior": square, "interior": [[[5, 5], [15, 5], [15, 15], [5, 15]]]}
        ),
        tools.supervisely_object("car", "rectangle", points={"exterior": [[30, 20], [25, 10]], "interior": []}),
        tools.supervisely_bitmap("traffic light", bitmap, (33, 26)),
        tools.supervisely_object("car", "line", points={"exterior": [[0, 0], [9, 9]], "interior": []}),
    )
    found = dataset.read(made)
    expected = np.full(SIZE, IGNORE)
    expected[2:20, 2:20] = 0
    expected[5:15, 5:15] = IGNORE
    expected[10:21, 25:31] = 1
    expected[26:30, 33:40][bitmap[:4, :7]] = 2
    assert found.mask is not None and (found.mask == expected).all()
    assert found.notes["objects_without_area"] == 1
    assert dataset.read(made, "box").boxes[1].bbox == (25, 10, 31, 21)


@pytest.mark.parametrize(
    ("data", "why"),
    [("****", "bitmap is"), (base64.b64encode(b"no zlib").decode(), "damaged (zlib)"), (7, "is no text")],
)
def test_a_damaged_bitmap_is_left_out(data: Any, why: str, dataset: Dataset) -> None:
    good = tools.supervisely_bitmap("car", np.ones((2, 2), bool), (0, 0))
    bad = tools.supervisely_object("car", "bitmap", bitmap={"data": data, "origin": [0, 0]})
    found = dataset.read(dataset.supervisely(good, bad))
    assert len(found.segments) == 1
    assert any(why in what and "a.jpg.json, object 2" in what for what in found.notes), found.notes


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
    assert "label 'cow' is no class" in reasons["JPEGImages/c.jpg"]
    assert "no annotation" in reasons["JPEGImages/d.jpg"] and "no image" in reasons["Annotations/e.xml"]
    assert report.notes["objects left out: no number in its xmin (first: Annotations/a.xml, object 2)"] == 1
    assert report.notes["objects left out: it has no bndbox (first: Annotations/a.xml, object 3)"] == 1


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


# --- what they share --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["labelme", "supervisely", "yolo", "cvat"])
def test_background_ignored_and_skipped_labels(tool: str, dataset: Dataset) -> None:
    big, small = [(0.0, 0.0), (40.0, 0.0), (40.0, 20.0), (0.0, 20.0)], [(5.0, 5.0), (9.0, 5.0), (9.0, 9.0), (5.0, 9.0)]
    made = tools.TOOLS[tool](dataset.root, {"a": [("car", big), ("traffic light", small)]})
    found = dataset.read(made, "mask", '[ids]\nignore = ["traffic light"]\n[options]\nbackground = "road"')
    assert found.mask is not None and (found.mask[7, 7], found.mask[2, 2], found.mask[25, 2]) == (IGNORE, 1, 0)
    assert len(found.segments) == 1 and found.instances is not None and found.instances[7, 7] == 0
    found = dataset.read(made, more='[ids]\nmap = {car = "road"}')
    assert found.mask is not None and found.mask[2, 2] == 0 and found.mask[7, 7] == 2


def test_labels_to_skip_leave_what_is_below_and_make_no_fault(dataset: Dataset) -> None:
    shapes = [tools.labelme_shape("ego", [(0, 0), (4, 4)], "rectangle")]
    skip = '[ids]\nskip = ["ego"]'
    assert dataset.read(dataset.labelme(*shapes), "box", skip).boxes == ()
    shapes.insert(0, tools.labelme_shape("car", [(0, 0), (9, 9)], "rectangle"))
    found = dataset.read(dataset.labelme(*shapes), more=skip)
    assert found.mask is not None and found.mask[2, 2] == 1 and not +found.notes  # type: ignore[operator]


@pytest.mark.parametrize("tool", ["labelme", "supervisely", "yolo", "cvat"])
def test_a_file_without_objects_is_an_empty_sample_of_boxes_only(tool: str, dataset: Dataset) -> None:
    made = tools.TOOLS[tool](dataset.root, {"a": []})
    assert dataset.read(made, "box").boxes == ()
    with pytest.raises(SampleError, match="lists no object"):
        dataset.read(made)
    filled = dataset.read(made, "mask", '[options]\nbackground = "road"').mask
    assert filled is not None and (filled == 0).all()


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_shards_are_written(tool: str, dataset: Dataset) -> None:
    made = tools.TOOLS[tool](dataset.root, {"a": tools.scene(0), "b": tools.scene(1)})
    assert dataset.check(made).written == 2
    made.reader = made.reader.replace("coco_instances", "coco_boxes")
    report = dataset.check(made, "box")
    assert report.written == 2 and not report.skipped
