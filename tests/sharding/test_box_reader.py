"""Boxes in COCO's JSON, beside a reader that holds everything in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError
from labelmerge.sharding.readers.shared.boxes import clipped
from labelmerge.sharding.readers.shared.listed import LISTED_BEFORE
from labelmerge.sharding.shard import shard

from .listing import Listed, listed
from .tables import CATEGORIES

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


BOXES = """name = "my_streets"
annotation_type = "box"
reader = "coco_boxes"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}"
annotations = "annotations/{split}.json"
"""


def write_boxes(own: Own, data: dict[str, Any] | str | bytes) -> None:
    own.write_recipe(BOXES)
    (own.root / "annotations").mkdir(exist_ok=True)
    text = json.dumps(data) if isinstance(data, dict) else data
    (own.root / "annotations/train.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def image_record(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 16, "height": 12}


IMAGE = image_record(1, "a.jpg")


BOX = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}


def test_boxes_of_ones_own(own: Own) -> None:
    own.image("images/train/a.jpg")
    own.image("images/train/sub/b.png")
    own.image("images/train/extra.jpg")
    write_boxes(
        own,
        {
            "images": [
                image_record(2, "sub/b.png"),
                image_record(1, "a.jpg"),
                image_record(3, "../../../secret.jpg"),
                image_record(4, "/etc/x.jpg"),
            ],
            "annotations": [
                {"image_id": 1, "category_id": 4, "bbox": [1, 2, 3, 4]},
                {"image_id": 2, "category_id": 9, "bbox": [-5, -5, 100, 100], "area": 7.5, "iscrowd": 1},
                {"image_id": 1, "category_id": 3, "bbox": [1, 2, 0, 4]},
                {"image_id": 1, "category_id": 3, "bbox": [16, 2, 9, 4]},
                {"image_id": 77, "category_id": 3, "bbox": [1, 2, 3, 4]},
                {"image_id": 1, "category_id": 77, "bbox": [1, 2, 3, 4]},
            ],
            "categories": CATEGORIES,
        },
    )
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert report.notes == {
        "boxes_of_unknown_categories": 1,
        "boxes_of_unknown_images": 1,
        "crowd_boxes": 1,
        "images_not_listed": 1,
        "reencoded_images": 1,
        "zero_size_boxes": 2,
    }
    assert report.image_format == "png"
    assert [skip["reason"] for skip in report.skipped] == ["the name leads out of its folder"] * 2
    plan = listed(own.recipe, own.root, "train")
    (first, second) = [plan.read(item).boxes for item in plan.items]
    assert [(box.bbox, box.class_index, box.area, box.iscrowd) for box in first] == [((1, 2, 4, 6), 1, 12, False)]
    assert [(box.bbox, box.class_index, box.area, box.iscrowd) for box in second] == [((0, 0, 16, 12), 2, 7.5, True)]


def test_an_image_that_is_listed_twice_counts_once(own: Own) -> None:
    own.image("images/train/a.jpg")
    box = {"category_id": 4, "bbox": [1, 2, 3, 4]}
    write_boxes(
        own,
        {
            "images": [image_record(7, "./a.jpg"), image_record(5, "a.jpg")],
            "annotations": [{"image_id": 7, **box, "area": -1}, {"image_id": 5, **box}],
            "categories": CATEGORIES,
        },
    )
    plan = listed(own.recipe, own.root, "train")
    assert [(skip.path, skip.reason) for skip in plan.skips] == [("images/train/a.jpg", LISTED_BEFORE)]
    assert [box.area for box in plan.read(plan.item).boxes] == [12, 12]  # a JSON may say different things of them


odd_numbers = st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e300, 1e6 + 1, -1e7])


numbers = st.floats(-30, 30) | odd_numbers


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_boxes_agree_with_a_reader_that_holds_everything_in_memory(
    new_own: Callable[[], Own], data: st.DataObject
) -> None:
    names = ["b.jpg", "a.jpg", "sub/a.jpg", "sub/z.png", "gone.jpg", "../out.jpg", "./a.jpg"]
    images: list[dict[str, Any]] = [
        {"id": number, "file_name": data.draw(st.sampled_from(names)), "height": 12, "width": 16}
        for number in data.draw(st.lists(st.integers(0, 9) | st.sampled_from(["x", "y"]), min_size=1, unique=True))
    ]
    annotations: list[dict[str, Any]] = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "image_id": st.sampled_from([image["id"] for image in images] + [77]),
                    "category_id": st.sampled_from([3, 4, 9, 9, 88]),
                    "bbox": st.lists(numbers, min_size=4, max_size=4),
                },
                optional={
                    "id": st.integers(0, 99),
                    "area": numbers | st.none(),
                    "iscrowd": st.sampled_from([0, 1, None]),
                    "isfake": st.integers(0, 1),
                    "isreflected": st.integers(0, 1),
                },
            ),
            min_size=1,
            max_size=12,
        )
    )
    own = new_own()
    for name in ("b.jpg", "a.jpg", "sub/a.jpg", "sub/z.png"):
        own.image(f"images/train/{name}")
    write_boxes(own, {"images": images, "annotations": annotations, "categories": CATEGORIES})
    kinds, known = {3: 0, 4: 1, 9: 2}, {image["id"] for image in images}
    if not any(box["image_id"] in known and box["category_id"] in kinds for box in annotations):
        with pytest.raises(LayoutError, match="none of its annotations"):
            listed(own.recipe, own.root, "train")
        return
    expected: dict[str, tuple[str, list[Any]]] = {}
    listed_once: dict[str, list[Any]] = {}
    again = []
    for image in sorted(images, key=lambda image: image["file_name"]):
        path = "images/train/" + image["file_name"].removeprefix("./")
        if ".." in path or "gone" in path:
            again.append(image["file_name"] if ".." in path else path)
            continue
        if path in listed_once:
            again.append(path)
        listed_once.setdefault(path, []).append(image["id"])
    for path, ids in listed_once.items():
        entries = [box for own_id in ids for box in annotations if box["image_id"] == own_id]
        entries = distinct(entries)
        boxes: list[Any] = []
        if entries and not any(box["category_id"] in kinds for box in entries):
            again.append(path)  # not a sample without boxes
            continue
        for box in entries:
            if box["category_id"] not in kinds:
                continue
            if not all(abs(number) <= 1e6 for number in box["bbox"]):
                continue
            x, y, width, height = box["bbox"]
            corners = (max(x, 0), max(y, 0), min(x + width, 16), min(y + height, 12))
            if corners[0] < corners[2] and corners[1] < corners[3]:
                area, whole = box.get("area"), (corners[2] - corners[0]) * (corners[3] - corners[1])
                flags = (bool(box.get("iscrowd")), bool(box.get("isfake")), bool(box.get("isreflected")))
                given_area = width * height if area is None else area
                boxes.append(
                    (corners, kinds[box["category_id"]], given_area if 0 < given_area < whole else whole, *flags)
                    + (str(box.get("id", "")),)
                )
        expected[path] = (str(ids[0]), boxes)
    plan = make_listed(own, expected)
    if plan is None:
        return
    for item in plan.items:
        found = [
            (b.bbox, b.class_index, b.area, b.iscrowd, b.depiction, b.reflected, b.native_id)
            for b in plan.read(item).boxes
        ]
        assert (item.native_id, found) == expected[item.path]
    assert [item.path for item in plan.items] == sorted(expected)
    assert sorted(skip.path for skip in plan.skips) == sorted(again)


def distinct(boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the boxes of a file's listings, those of the first, and of later ones what is not among them yet."""
    kept: list[dict[str, Any]] = []
    seen: dict[str, set[str]] = {}
    for box in boxes:
        given_area = box["bbox"][2] * box["bbox"][3] if box.get("area") is None else box["area"]
        flags = [bool(box.get(name)) for name in ("iscrowd", "isfake", "isreflected")]
        text = repr([[float(number) for number in box["bbox"]], float(given_area), flags, box["category_id"]])
        earlier = set().union(*(found for image, found in seen.items() if image != repr(box["image_id"])))
        if text not in earlier:
            kept.append(box)
            seen.setdefault(repr(box["image_id"]), set()).add(text)
    return kept


def make_listed(own: Own, expected: dict[str, Any]) -> Listed | None:
    """The plan; None, as it must be, where no image can be used."""
    if expected:
        return listed(own.recipe, own.root, "train")
    with pytest.raises(LayoutError, match="unusable"):
        listed(own.recipe, own.root, "train")
    return None


def test_absurd_boxes_are_counted_and_never_in_a_shard(own: Own) -> None:
    own.image("images/train/a.jpg")
    bad = [[float("nan"), 1, 2, 3], [1, 1, float("inf"), 3], [-1e300, 1, 1e301, 3], [1, 1, 0, 3], [1, 1, -5, 3]]
    annotations = [{**BOX, "bbox": bbox} for bbox in bad] + [{**BOX, "area": float("nan")}]
    write_boxes(own, {"images": [IMAGE], "annotations": annotations, "categories": CATEGORIES})
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert report.notes == {"absurd_boxes": 3, "zero_size_boxes": 2}
    plan = listed(own.recipe, own.root, "train")
    assert [(box.bbox, box.area) for box in plan.read(plan.item).boxes] == [((1, 2, 4, 6), 12)]


@pytest.mark.parametrize(
    "folder", ["train/patch3", "train", "train/images/v2/patch3", "images/train", "images/train/patch3"]
)
def test_objects365_in_the_folders_that_people_have(own: Own, folder: str) -> None:
    own.image(f"{folder}/objects365_v2_00000003.jpg")
    names = load_label_space(load_recipe("objects365")).names
    record = image_record(1, "images/v2/patch3/objects365_v2_00000003.jpg")
    data = {"images": [record], "annotations": [BOX], "categories": [{"id": 3, "name": names[2]}]}
    (own.root / "zhiyuan_objv2_train.json").write_text(json.dumps(data))
    plan = listed(load_recipe("objects365"), own.root, "train")
    assert plan.item.path == f"{folder}/objects365_v2_00000003.jpg"
    assert [box.class_index for box in plan.read(plan.item).boxes] == [2]


finite = st.floats(-30, 30)


@given(finite, finite, finite, finite)
def test_a_clipped_box_is_the_part_inside_the_image(x: float, y: float, width: float, height: float) -> None:
    x0, x1, y0, y1 = max(x, 0), min(x + width, 20), max(y, 0), min(y + height, 10)
    inside = (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else "zero_size_boxes"
    assert clipped([x, y, width, height], (10, 20)) == inside


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "is not valid JSON"),
        ('{"categories": [{"id": 1, "name": "car"}', "is not valid JSON"),
        ("[]", "lists no categories"),
        ({"categories": [{"id": 1}]}, "categories 1 has no 'name'"),
        (
            {"categories": CATEGORIES, "images": [{"id": 1}], "annotations": [BOX]},
            r"images left out: has no 'file_name' \(the first is number 1, id 1",
        ),
        (
            {"categories": CATEGORIES, "images": [IMAGE], "annotations": [{**BOX, "bbox": [1, 2]}]},
            r"annotations left out: its bbox is \[1, 2\], not four numbers",
        ),
        ({"categories": CATEGORIES, "images": []}, "lists no images"),
        ({"categories": CATEGORIES, "images": [IMAGE]}, "lists no annotations"),
        ({"categories": CATEGORIES, "images": [{**IMAGE, "id": []}], "annotations": [BOX]}, "images left out: its id"),
        ({"categories": [{"id": 3, "name": "road"}, {"id": 3, "name": "car"}]}, "categories 2 is malformed .its id 3"),
        (
            {
                "categories": CATEGORIES,
                "images": [IMAGE],
                "annotations": [{"image_id": "x1", "category_id": 3, "bbox": [1, 2, 3, 4]}],
            },
            "none of its annotations is of an image and a category that it lists",
        ),
        (
            '{"categories": [{"id": 1, "name": "\xff"}]}'.encode("latin-1"),
            "not UTF-8: invalid start byte; after its be",
        ),
        (
            {"categories": [{"id": 1, "name": "cat"}], "images": [IMAGE], "annotations": [BOX]},
            "1 of its 1 category is not a class of my_streets: 'cat'. Add to my_streets.csv what is missing, or say "
            'under .ids. in my_streets.toml which class it is, map = {"cat" = "CLASS"}, or that it means no label, '
            'ignore = ."cat".$',
        ),
    ],
)
def test_malformed_annotations_are_one_clear_error(own: Own, data: dict[str, Any] | str | bytes, message: str) -> None:
    own.image("images/train/a.jpg")
    write_boxes(own, data)
    with pytest.raises(LayoutError, match=message):
        listed(own.recipe, own.root, "train")


@pytest.mark.parametrize(("used", "right"), [("objects365", "objects365_v1"), ("objects365_v1", "objects365")])
def test_the_other_objects365_is_refused_by_name(own: Own, used: str, right: str) -> None:
    own.image("train/a.jpg")
    names = load_label_space(load_recipe(right)).names
    categories = [{"id": n, "name": name} for n, name in enumerate(names, 1)]
    data = {"categories": categories, "images": [IMAGE], "annotations": [BOX]}
    file = "zhiyuan_objv2_train.json" if used == "objects365" else "objects365_train.json"
    (own.root / file).write_text(json.dumps(data))
    with pytest.raises(LayoutError, match=f"This is {right}: use that name"):
        listed(load_recipe(used), own.root, "train")
