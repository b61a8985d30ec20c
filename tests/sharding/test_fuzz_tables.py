"""Annotation files with something wrong in them: one clear error, or entries and samples; never anything else.

Every example begins with a valid file and changes a few places, in its bytes or in the values that it holds.
"""

from __future__ import annotations

import csv
import json
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import Recipe, load_recipe
from labelmerge.errors import LabelmergeError, SampleError
from labelmerge.labels import LabelSpace

from .listing import listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

SIZE = (12, 16)
DEEP: Any = json.loads("[" * 200 + "]" * 200)
ODD: list[Any] = [
    None, True, -1, 0, 2, 1.5, 10**15, 2**63, 10**30, 1e300, float("nan"), float("inf"), "", "1", "\0", "../x",
    "/etc/passwd", "\ud800", "é" * 200, [], {}, [[]], [None] * 4, {"size": [12, 16], "counts": [192]}, DEEP,
]  # fmt: skip

CATEGORIES = [{"id": 3, "name": "road"}, {"id": 4, "name": "car"}, {"id": 9, "name": "sky"}]
IMAGES = [{"id": n, "file_name": f"{n}.png", "height": 12, "width": 16} for n in (1, 2)]
CODE = {"size": [12, 16], "counts": [20, 30, 142]}
BOX = {"id": 5, "image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0, "isfake": 1}
JSON_FILES: dict[str, Any] = {
    "coco_boxes": {"images": IMAGES, "annotations": [BOX, {**BOX, "image_id": 2}], "categories": CATEGORIES},
    "coco_instances": {
        "categories": CATEGORIES,
        "annotations": [
            {**BOX, "segmentation": [[1, 1, 9, 1, 9, 9]]},
            {**BOX, "segmentation": CODE, "image_id": 2},
            {**BOX, "id": 6, "segmentation": {**CODE, "counts": "d0n0^4"}},
        ],
        "images": IMAGES,
    },
    "panoptic": {
        "images": IMAGES,
        "annotations": [
            {"image_id": n, "file_name": f"{n}.png", "segments_info": [{"id": 7, "category_id": 3, "iscrowd": 0}]}
            for n in (1, 2)
        ],
        "categories": CATEGORIES,
    },
    "video_instances": {
        "videos": [{"id": 1, "file_names": ["1.png", "2.png"], "height": 12, "width": 16}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 4, "segmentations": [CODE, None], "bboxes": [[1, 2, 3, 4], None]},
            {"id": 2, "video_id": 1, "category_id": 3, "segmentations": [None, CODE]},
        ],
        "categories": CATEGORIES,
    },
}

places = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=3)


def changed_value(document: Any, changes: list[tuple[int, int]]) -> Any:
    """The document with some nodes replaced, left out, or doubled."""
    document = deepcopy(document)
    for place, what in changes:
        nodes: list[tuple[Any, Any]] = []
        waiting = [document]
        while waiting:
            node = waiting.pop()
            if isinstance(node, (dict, list)):
                for key in node if isinstance(node, dict) else range(len(node)):
                    nodes.append((node, key))
                    waiting.append(node[key])
        if not nodes:
            return document
        node, key = nodes[place % len(nodes)]
        choice = what % (len(ODD) + 2)
        if choice < len(ODD):
            node[key] = deepcopy(ODD[choice])
        elif choice == len(ODD):
            del node[key]
        elif isinstance(node, list):
            node.append(deepcopy(node[key]))
    return document


def changed_bytes(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    for place, what in changes:
        at, odd = place % (len(data) + 1), what // 4
        new = [b"", bytes([odd % 256]), b"[" * (odd % 3000), b"\xff\xfe\x00", b'"', b"9" * (odd % 5000)][odd % 6]
        data = {0: data[:at], 1: data[:at] + new + data[at:], 2: data[:at] + new + data[at + 1 :]}.get(
            what % 4, data[:at] + new + data[at + odd % 50 :]
        )
    return data


def check(recipe: Recipe, root: Path, split: str = "train") -> None:
    """List and read everything: LabelmergeErrors are fine, and what comes out must make sense."""
    try:
        found = listed(recipe, root, split)
    except LabelmergeError as error:
        assert "\n" not in str(error)
        return
    space: LabelSpace = found.source.space
    for item in found.items:
        assert (root / item.path).resolve().is_relative_to(root.resolve())
        try:
            annotation = found.read(item, SIZE)
        except SampleError:
            continue
        for box in annotation.boxes:
            x0, y0, x1, y1 = box.bbox
            assert 0 <= x0 < x1 <= 16 and 0 <= y0 < y1 <= 12 and box.class_index in space and 0 < box.area <= 192
        if annotation.mask is not None:
            assert annotation.mask.shape == SIZE and annotation.mask.dtype == space.dtype
            assert set(annotation.mask.ravel().tolist()) <= {*space.indices, space.ignore_index}
        if annotation.instances is not None:
            numbers = set(annotation.instances.ravel().tolist()) - {0}
            assert numbers <= {segment.id for segment in annotation.segments}


def make(own: Own, reader: str) -> Path:
    """Everything but the JSON; where that goes."""
    kind = "box" if reader == "coco_boxes" else "mask"
    masks = '\nmasks = "masks"' if reader == "panoptic" else ""
    own.write_recipe(
        f'name = "my_streets"\nannotation_type = "{kind}"\nreader = "{reader}"\ndescriptions = "my_streets.csv"\n'
        f'[layout]\nimages = "images"\nannotations = "a.json"{masks}\n'
    )
    for number in (1, 2):
        if not (own.root / f"images/{number}.png").exists():
            own.image(f"images/{number}.png")
            (own.root / "masks").mkdir(exist_ok=True)
            Image.new("RGB", (16, 12), (7, 0, 0)).save(own.root / f"masks/{number}.png")
    return own.root / "a.json"


@pytest.mark.parametrize("reader", JSON_FILES)
def test_the_valid_files_are_read(own: Own, reader: str) -> None:
    make(own, reader).write_text(json.dumps(JSON_FILES[reader]))
    found = listed(own.recipe, own.root, "train")
    assert len(found.items) == 2 and not found.skips
    for item in found.items:
        annotation = found.read(item)
        assert annotation.boxes or annotation.segments
        assert not any(annotation.notes.values())


fuzz = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("reader", JSON_FILES)
@fuzz
@given(changes=places)
def test_json_with_odd_values(reader: str, own: Own, changes: list[tuple[int, int]]) -> None:
    make(own, reader).write_text(json.dumps(changed_value(JSON_FILES[reader], changes)))
    check(own.recipe, own.root)


@pytest.mark.parametrize("reader", JSON_FILES)
@fuzz
@given(changes=places)
def test_json_with_odd_bytes(reader: str, own: Own, changes: list[tuple[int, int]]) -> None:
    make(own, reader).write_bytes(changed_bytes(json.dumps(JSON_FILES[reader]).encode(), changes))
    check(own.recipe, own.root)


DOG, PERSON = "/m/0bt9lr", "/m/01g317"
CSV_FILES = {
    "train-annotations-object-segmentation.csv": (
        "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
        f"0a_m0bt9lr_1.png,0a,{DOG},1,0.25,0.75,0.0,0.5,0.8,\n0a_m01g317_2.png,0a,{PERSON},2,0.1,0.2,0.0,0.5,0.8,\n"
    ),
    "train-annotations-bbox.csv": (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        f"0a,xclick,{DOG},1,0.25,0.75,0.0,0.5,-1,-1,1,0,0\n"
    ),
    "class-descriptions-boxable.csv": f"{DOG},Dog\n{PERSON},Person\n",
    "classes-segmentation.txt": f"{DOG}\n{PERSON}\n",
}
FIELDS = ["", "nan", "inf", "-1", "1e300", "../x.png", "\0", "é", '"', "0a", "x" * 500, DOG, "0.5"]


@fuzz
@given(file=st.sampled_from(sorted(CSV_FILES)), changes=places, in_bytes=st.booleans())
@example(file="class-descriptions-boxable.csv", changes=[(10, 131177)], in_bytes=True)  # a quote: a name of two lines
def test_csv_with_odd_fields_and_bytes(own: Own, file: str, changes: list[tuple[int, int]], in_bytes: bool) -> None:
    if not (own.root / "masks/train").exists():
        own.image("train/0a.jpg")
        for name, covered in (("0a_m0bt9lr_1", (0, 8)), ("0a_m01g317_2", (4, 16))):
            (own.root / "masks/train").mkdir(parents=True, exist_ok=True)
            values = np.zeros(SIZE, np.uint8)
            values[:, slice(*covered)] = 1
            Image.fromarray(values).save(own.root / f"masks/train/{name}.png")
    for name, text in CSV_FILES.items():
        (own.root / name).write_text(text)
    if in_bytes:
        (own.root / file).write_bytes(changed_bytes(CSV_FILES[file].encode(), changes))
    else:
        rows = list(csv.reader(StringIO(CSV_FILES[file])))
        for place, what in changes:
            row = rows[place % len(rows)]
            row[place // 7 % len(row)] = FIELDS[what % len(FIELDS)]
        with (own.root / file).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    check(load_recipe("openimages"), own.root)
