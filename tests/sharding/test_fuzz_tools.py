"""Annotation files of tools, damaged at random: an annotation, or one clear error; nothing else, and at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.errors import LayoutError, SampleError

from . import tool_formats as tools
from .tool_formats import SIZE, Dataset

ODD: list[Any] = [
    None, -1, 0, 1e308, float("nan"), float("inf"), 2**70, "", "x", "\x00", "car", [], {}, [[]], [1], [[1, 2]], True,
    [{"a": 1}], {"exterior": None},
]  # fmt: skip


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        found += [(value, key), *nodes(inner)]
    return found


def json_of(tool: str) -> tuple[str, dict[str, Any]]:
    bitmap = tools.supervisely_bitmap("car", np.ones((3, 4), bool), (2, 2))
    square = {"exterior": [[0, 0], [9, 0], [9, 9]], "interior": [[[1, 1], [2, 1], [2, 2]]]}
    if tool == "supervisely":
        return "train/ann/a.jpg.json", tools.supervisely_json([bitmap, tools.supervisely_object("road", points=square)])
    shapes = [
        tools.labelme_shape("car", [(0, 0), (9, 0), (9, 9)], group_id=1),
        tools.labelme_shape("road", [(0, 0), (9, 9)], "circle"),
    ]
    return "train/a.json", tools.labelme_json("a.jpg", shapes)


@pytest.mark.parametrize("tool", ["labelme", "supervisely"])
def test_json_with_other_values_in_it(tool: str, dataset: Dataset) -> None:
    made = tools.TOOLS[tool](dataset.root, {"a": tools.scene(0)})
    name, whole = json_of(tool)
    found = dataset.listed(made)
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        damaged = copy.deepcopy(whole)
        places = nodes(damaged)
        for place in random.integers(0, len(places), random.integers(1, 3)):
            container, key = places[place]
            if random.random() < 0.2 and isinstance(container, dict):
                container.pop(key, None)
            elif key in container if isinstance(container, dict) else key < len(container):
                container[key] = ODD[random.integers(0, len(ODD))]
        (dataset.root / name).write_text(json.dumps(damaged))
        try:
            annotation = found.read(found.items[0], SIZE)
            assert annotation.mask is not None and annotation.mask.shape == SIZE
            outcomes.add("read")
        except SampleError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def texts(tool: str, dataset: Dataset) -> tuple[tools.Recipe, Path]:
    if tool == "voc":
        made = dataset.voc(tools.voc_object("car", (1, 1, 10, 5)), tools.voc_object("road", (2, 2, 20, 20), 1))
        return made, dataset.root / "Annotations/a.xml"
    if tool == "cvat":
        mask = '<mask label="car" rle="2, 3, 1, 4" left="4" top="6" width="5" height="2" z_order="2"></mask>'
        box = '<box label="road" xtl="2.0" ytl="3.0" xbr="20.00" ybr="13.00" rotation="30.5" z_order="0"></box>'
        return dataset.cvat(mask, box), dataset.root / "annotations.xml"
    if tool == "yaml":
        return dataset.yolo("1 0.5 0.5 0.5 0.4", "0 0.1 0.1 0.9 0.1 0.9 0.9"), dataset.root / "data.yaml"
    return dataset.yolo("1 0.5 0.5 0.5 0.4", "0 0.1 0.1 0.9 0.1 0.9 0.9"), dataset.root / "train/labels/a.txt"


@pytest.mark.parametrize("tool", ["voc", "cvat", "yaml", "yolo"])
def test_texts_with_other_bytes_in_them(tool: str, dataset: Dataset) -> None:
    made, path = texts(tool, dataset)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    pieces = [
        b"<",
        b">",
        b"&",
        b'"',
        b"-",
        b"9" * 30,
        b"nan",
        b"\xff",
        b"\x00",
        b"{",
        b"[",
        b": ",
        b"\n",
        b"../",
        b"e9",
    ]
    outcomes = set()
    for _ in range(60):
        place, cut = random.integers(0, len(whole)), random.integers(0, 12)
        path.write_bytes(whole[:place] + pieces[random.integers(0, len(pieces))] + whole[place + cut :])
        try:
            found = dataset.listed(made, "box")
            for item in found.items:
                found.read(item, SIZE)
            outcomes.add("read")
        except (SampleError, LayoutError):
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_huge_things_take_neither_memory_nor_time(dataset: Dataset) -> None:
    far = 999_999.0
    made = dataset.labelme(
        tools.labelme_shape("car", [(-far, -far), (far, -far), (far, far), (-far, far)]),
        tools.labelme_shape("road", [(0, 0), (far, far)], "circle"),
        tools.labelme_shape("road", [(-far, -far), (far, far)], "rectangle"),
    )
    found = dataset.read(made)
    assert found.mask is not None and (found.mask == 0).all()
    made = dataset.cvat('<mask label="car" rle="0, 1" left="0" top="0" width="100000000" height="100000000"/>')
    with pytest.raises(SampleError, match="has no area, or too much"):
        dataset.read(made)
