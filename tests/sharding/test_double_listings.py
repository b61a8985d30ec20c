"""What a JSON lists twice: images, ids, annotations, segments. Nothing is lost without a word, and no file refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.errors import LayoutError

from . import tool_formats as tools
from .listing import Listed
from .tool_formats import NAMES, SIZE, Dataset

READERS = ("coco_boxes", "coco_instances", "panoptic")
CATEGORIES = [{"id": number, "name": name} for number, name in enumerate(NAMES)]


def content(reader: str, *pictures: str) -> dict[str, Any]:
    """An image for each name, with a thing for every one: the left half of it is a car."""
    images, annotations = [], []
    for number, name in enumerate(pictures, 1):
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        half = [0, 0, 20, 0, 20, 30, 0, 30]
        thing = {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, 20, 30], "segmentation": [half]}
        segments = [{"id": 7, "category_id": 1, "iscrowd": 0}]
        panoptic = {"image_id": number, "file_name": f"{Path(name).stem}.png", "segments_info": segments}
        annotations.append(panoptic if reader == "panoptic" else thing)
    return {"categories": CATEGORIES, "images": images, "annotations": annotations}


def read(dataset: Dataset, reader: str, data: dict[str, Any]) -> Listed:
    for name in ("a", "b"):
        tools.picture(dataset.root / f"images/{name}.jpg")
        pixels = np.zeros((*SIZE, 3), dtype=np.uint8)
        pixels[:, :20, 0] = 7
        pixels[:, 20:, 0] = 8
        (dataset.root / "masks").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(dataset.root / f"masks/{name}.png")
    tools.text(dataset.root / "train.json", data)
    masks = 'masks = "masks"\n' if reader == "panoptic" else ""
    kind = {"coco_boxes": "box", "coco_instances": "noisy_mask", "panoptic": "mask"}[reader]
    layout = f'[layout]\nimages = "images"\nannotations = "train.json"\n{masks}'
    return dataset.listed(tools.Recipe(reader, layout), kind)


def things(found: Listed, place: int = 0) -> list[int]:
    """The classes of an item's boxes or segments."""
    annotation = found.read(found.items[place], SIZE)
    return [thing.class_index for thing in annotation.segments or annotation.boxes]


@pytest.mark.parametrize("reader", READERS)
def test_the_same_image_record_twice(reader: str, dataset: Dataset) -> None:
    data = content(reader, "a.jpg", "b.jpg")
    data["images"].insert(1, data["images"][0])
    found = read(dataset, reader, data)
    assert len(found.items) == 2 and found.skips == () and found.notes["images_listed_twice"] == 1
    assert things(found) == [1]


@pytest.mark.parametrize("reader", READERS)
def test_two_images_with_one_id_are_left_out_and_the_rest_is_read(reader: str, dataset: Dataset) -> None:
    data = content(reader, "a.jpg", "b.jpg")
    data["images"].append({**data["images"][0], "file_name": "c.jpg"})
    found = read(dataset, reader, data)
    assert [item.path for item in found.items] == ["images/b.jpg"] and things(found) == [1]
    assert {skip.path: skip.reason.split(",")[0] for skip in found.skips} == {
        "images/a.jpg": "another image has the same id",
        "images/c.jpg": "another image has the same id",
    }
    if reader != "panoptic":
        assert sum(count for what, count in found.notes.items() if what.endswith("of_unknown_images")) == 1


@pytest.mark.parametrize("reader", READERS)
def test_one_file_under_two_ids_has_the_things_of_both(reader: str, dataset: Dataset) -> None:
    data = content(reader, "a.jpg", "a.jpg", "b.jpg")
    second = data["annotations"][1]
    if reader == "panoptic":
        second["segments_info"] = [{"id": 8, "category_id": 2, "iscrowd": 0}]
    else:
        second |= {"category_id": 2, "bbox": [20, 0, 20, 30], "segmentation": [[20, 0, 40, 0, 40, 30, 20, 30]]}
    found = read(dataset, reader, data)
    assert [item.path for item in found.items] == ["images/a.jpg", "images/b.jpg"]
    assert things(found) == [1, 2] and "listed before" in found.skips[0].reason


@pytest.mark.parametrize("reader", READERS)
def test_one_annotation_twice_counts_once(reader: str, dataset: Dataset) -> None:
    data = content(reader, "a.jpg", "b.jpg")
    data["annotations"].append(data["annotations"][0])
    found = read(dataset, reader, data)
    assert things(found) == [1] and things(found, 1) == [1] and not found.skips
    assert sum(count for what, count in found.notes.items() if what.endswith("listed_twice")) == 1


@pytest.mark.parametrize("reader", ["coco_boxes"])
def test_equal_boxes_without_ids_may_be_two_things(reader: str, dataset: Dataset) -> None:
    data = content(reader, "a.jpg")
    del data["annotations"][0]["id"]
    data["annotations"].append(data["annotations"][0])
    assert things(read(dataset, reader, data)) == [1, 1]


def test_a_segment_of_two_classes_is_no_label(dataset: Dataset) -> None:
    data = content("panoptic", "a.jpg")
    data["annotations"][0]["segments_info"] += [
        {"id": 7, "category_id": 2, "iscrowd": 0},
        {"id": 8, "category_id": 0, "iscrowd": 0},
    ]
    found = read(dataset, "panoptic", data)
    annotation = found.read(found.item, SIZE)
    assert (
        annotation.mask is not None and (annotation.mask[:, :20] == 255).all() and (annotation.mask[:, 20:] == 0).all()
    )
    assert [segment.class_index for segment in annotation.segments] == [0]
    assert found.notes["segments_of_two_classes"] == found.notes["segments_listed_twice"] == 1


def test_one_image_with_two_panoptic_pictures_is_left_out(dataset: Dataset) -> None:
    data = content("panoptic", "a.jpg", "b.jpg")
    data["annotations"].append({**data["annotations"][0], "file_name": "other.png"})
    found = read(dataset, "panoptic", data)
    assert [item.path for item in found.items] == ["images/b.jpg"]
    assert found.skips[0].reason == "annotated twice, with different pictures: a.png and other.png"


def test_a_segment_of_an_unknown_category_does_not_refuse_the_file(dataset: Dataset) -> None:
    data = content("panoptic", "a.jpg", "b.jpg")
    data["annotations"][0]["segments_info"] += [{"id": 8, "category_id": 99, "iscrowd": 0}]
    found = read(dataset, "panoptic", data)
    assert things(found) == [1] and found.notes["segments_of_unknown_categories"] == 1


@pytest.mark.parametrize("reader", READERS)
def test_categories_listed_twice(reader: str, dataset: Dataset) -> None:
    data = content(reader, "a.jpg")
    data["categories"] = [*CATEGORIES, CATEGORIES[1]]
    assert things(read(dataset, reader, data)) == [1]
    data["categories"] = [*CATEGORIES, {"id": 1, "name": "road"}]
    with pytest.raises(LayoutError, match="its id 1 is not unique"):
        read(dataset, reader, data)
