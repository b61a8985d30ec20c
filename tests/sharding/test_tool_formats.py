"""Readers of what annotation tools save: against a slow obvious reference, and against each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.errors import SampleError
from labelmerge.sharding.readers.shared import outlines

from . import tool_formats as tools
from .tool_formats import NAMES, SIZE, Dataset, Scene

IGNORE = 255


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
    ellipse = outlines.Ellipse(x0, y0, *random.uniform((1, 1, 0), (15, 15, 360)).tolist())
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
