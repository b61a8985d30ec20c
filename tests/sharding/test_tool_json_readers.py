"""LabelMe and Supervisely: a JSON for each image."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pytest

from . import tool_formats as tools
from .tool_formats import SIZE, Dataset

IGNORE = 255


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
    assert notes == {"shapes_without_area": 1, "things_of_unknown_labels": 1, "label 'unicorn' is not a class": 1}


def test_labelme_groups_are_one_object(dataset: Dataset) -> None:
    parts = [[(0, 0), (4, 4)], [(10, 0), (14, 4)], [(20, 0), (24, 4)]]
    ids: list[int | None] = [3, 3, None]
    made = dataset.labelme(
        *(tools.labelme_shape("car", p, "rectangle", group_id=own) for p, own in zip(parts, ids, strict=True))
    )
    found = dataset.read(made)
    assert [box.bbox for box in found.boxes] == [(0, 0, 14, 4), (20, 0, 24, 4)]
    assert found.instances is not None and np.unique(found.instances, return_counts=True)[1][1:].tolist() == [32, 16]


def test_labelme_groups_of_labels_that_are_left_out_leave_an_image_without_things(dataset: Dataset) -> None:
    shapes = [tools.labelme_shape("dontcare", [(x, 0), (x + 4, 4)], "rectangle", group_id=1) for x in (0, 10)]
    assert dataset.read(dataset.labelme(*shapes), "box", '[ids]\nskip = ["dontcare"]').boxes == ()


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
    expected[2:21, 2:21] = 0  # with the pixels that its edges go through
    expected[5:16, 5:16] = IGNORE
    expected[10:21, 25:31] = 1
    expected[26:30, 33:40][bitmap[:4, :7]] = 2
    assert found.mask is not None and (found.mask == expected).all()
    assert found.notes["objects_without_area"] == 1
    assert [box.bbox for box in dataset.read(made, "box").boxes[:2]] == [(2, 2, 21, 21), (25, 10, 31, 21)]


def test_supervisely_polygons_of_pixels_hold_their_edges(dataset: Dataset) -> None:
    """As its own tools (OpenCV) fill them: every pixel whose centre is inside, and those between two points."""
    random = np.random.default_rng(0)
    for _ in range(20):
        count = int(random.integers(3, 9))
        angles, radii = np.sort(random.uniform(0, 2 * np.pi, count)), random.uniform(4, 14, count)
        points = np.rint(np.stack([20 + radii * np.cos(angles), 14 + radii * np.sin(angles)], 1)).astype(int).tolist()
        expected = tools.inside([(x + 0.5, y + 0.5) for x, y in points])
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(steps + 1):
                x, y = (math.floor(low + (high - low) * step / steps + 0.5) for low, high in ((x0, x1), (y0, y1)))
                if 0 <= x < SIZE[1] and 0 <= y < SIZE[0]:
                    expected[y, x] = True
        shape = tools.supervisely_object("car", points={"exterior": points, "interior": []})
        found = dataset.read(dataset.supervisely(shape)).mask
        assert found is not None and ((found == 1) == expected).all(), points


def test_supervisely_coordinates_between_pixels_are_taken_as_they_are(dataset: Dataset) -> None:
    corners = [[2.0, 3.0], [9.5, 3.0], [9.5, 8.0], [2.0, 8.0]]
    polygon = tools.supervisely_object("car", points={"exterior": corners, "interior": []})
    rectangle = tools.supervisely_object("road", "rectangle", points={"exterior": [[20, 3], [25.5, 8]], "interior": []})
    boxes = dataset.read(dataset.supervisely(polygon, rectangle), "box").boxes
    assert [box.bbox for box in boxes] == [(2, 3, 9.5, 8), (20, 3, 25.5, 8)]


@pytest.mark.parametrize(
    ("data", "why"),
    [("****", "bitmap is"), (base64.b64encode(b"no zlib").decode(), "damaged (zlib)"), (7, "is not text")],
)
def test_a_damaged_bitmap_is_left_out(data: Any, why: str, dataset: Dataset) -> None:
    good = tools.supervisely_bitmap("car", np.ones((2, 2), bool), (0, 0))
    bad = tools.supervisely_object("car", "bitmap", bitmap={"data": data, "origin": [0, 0]})
    found = dataset.read(dataset.supervisely(good, bad))
    assert len(found.segments) == 1
    assert any(why in what and "a.jpg.json, object 2" in what for what in found.notes), found.notes
