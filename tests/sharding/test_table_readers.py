"""The readers of annotation files that list everything, JSON and CSV: against slow, obvious code on random input.

Open Images and YouTube-VIS have no authentic sample with masks: their files here are made up, in the official format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.sharding.readers.shared.boxes import clipped
from labelmerge.sharding.shard import shard

from .listing import Listed, listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

SIZE = (12, 16)


def reasons(own: Own) -> dict[str, str]:
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    return {skip["path"]: skip["reason"] for skip in report.skipped}


# --- panoptic ---------------------------------------------------------------------------------------------------------

PANOPTIC = """name = "my_streets"
annotation_type = "mask"
reader = "panoptic"
descriptions = "my_streets.csv"
[layout]
images = "{split}"
annotations = "{split}.json"
masks = ["annotations/{split}", "masks_{split}"]
"""
CATEGORIES = [{"id": 9, "name": " Sky"}, {"id": 3, "name": "road"}, {"id": 4, "name": "car"}]


def panoptic_json(own: Own, name: str, segments: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": f"{name}.jpg", "height": 12, "width": 16}],
        "annotations": [{"image_id": 1, "file_name": f"{name}.png", "segments_info": segments}],
        "categories": CATEGORIES,
        **more,
    }


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_panoptic_agrees_with_a_look_at_every_pixel(new_own: Callable[[], Own], data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(1, 2**24 - 1), min_size=1, max_size=5, unique=True))
    places = data.draw(st.lists(st.integers(0, len(ids)), min_size=192, max_size=192))
    crowd = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    kinds = data.draw(st.lists(st.sampled_from([3, 4, 9]), min_size=len(ids), max_size=len(ids)))
    known = ids[: data.draw(st.integers(0, len(ids)))]
    stored = np.array([*ids, 0])[np.array(places).reshape(SIZE)]
    segments = [{"id": i, "category_id": c, "iscrowd": int(k)} for i, c, k in zip(ids, kinds, crowd, strict=True)]
    own = new_own()
    own.write_recipe(PANOPTIC)
    own.image("train/a.jpg")
    rgb = np.stack([stored & 255, stored >> 8 & 255, stored >> 16], axis=-1).astype(np.uint8)
    (own.root / "masks_train").mkdir()
    Image.fromarray(rgb).save(own.root / "masks_train/a.png")
    (own.root / "train.json").write_text(json.dumps(panoptic_json(own, "a", segments[: len(known)])))
    plan = listed(own.recipe, own.root, "train")
    annotation = plan.read(plan.item)
    assert annotation.mask is not None and annotation.instances is not None
    kind_of = {3: 0, 4: 1, 9: 2}
    number_of: dict[int, int] = {}
    for segment_id in known:
        if segment_id in stored:
            number_of[segment_id] = len(number_of) + 1
    for y in range(12):
        for x in range(16):
            value = int(stored[y, x])
            is_known = value in known
            assert annotation.mask[y, x] == (kind_of[kinds[ids.index(value)]] if is_known else 255)
            assert annotation.instances[y, x] == (number_of[value] if is_known else 0)
    assert [segment.id for segment in annotation.segments] == sorted(number_of.values())
    assert [segment.iscrowd for segment in annotation.segments] == [crowd[ids.index(i)] for i in number_of]
    assert [segment.native_id for segment in annotation.segments] == [str(i) for i in number_of]
    assert plan.item.native_id == "1"


def test_panoptic_candidates_that_do_not_fit(own: Own) -> None:
    own.write_recipe(PANOPTIC)
    (own.root / "annotations/train").mkdir(parents=True)
    names = ["ok", "no_entry", "no_png", "no_image", "wrong_size", "../escape", "grey"]
    records = panoptic_json(own, "ok", [])
    records["images"] = [
        {"id": number, "file_name": f"{name}.jpg", "height": 12, "width": 99 if name == "wrong_size" else 16}
        for number, name in enumerate(names)
    ]
    records["annotations"] = [
        {"image_id": number, "file_name": f"{name}.png", "segments_info": []}
        for number, name in enumerate(names)
        if name != "no_entry"
    ]
    (own.root / "train.json").write_text(json.dumps(records))
    for name in ("ok", "no_entry", "no_png", "wrong_size", "grey", "extra"):
        own.image(f"train/{name}.jpg")
    own.image("escape.jpg")
    for name in ("ok", "no_image", "wrong_size"):
        Image.new("RGB", (16, 12)).save(own.root / f"annotations/train/{name}.png")
    own.mask("annotations/train/grey.png")
    found = reasons(own)
    assert found.pop("train/grey.jpg") == "annotations/train/grey.png: is no RGB panoptic PNG (mode L)"
    assert found == {
        # a name's folders are dropped: all images lie in one folder, so nothing can lead out of it
        "train/escape.jpg": "listed, but there is no such image",
        "train/no_entry.jpg": "no annotation in the JSON",
        "train/no_png.jpg": "no annotation: expected annotations/train/no_png.png",
        "train/no_image.jpg": "listed, but there is no such image",
        "train/wrong_size.jpg": "the JSON says 99x12, but the image is 16x12",
    }
    manifest = json.loads((own.folder / "out/my_streets/train/manifest.json").read_text())
    assert manifest["notes"] == {"images_not_listed": 1, "masks_not_listed": 1}


def test_the_value_0_and_more_than_16_bits_of_segments_are_no_segments(own: Own) -> None:
    own.write_recipe(PANOPTIC)
    own.image("train/a.jpg")
    (own.root / "masks_train").mkdir()
    Image.new("RGB", (16, 12)).save(own.root / "masks_train/a.png")

    def plan(segments: list[dict[str, Any]]) -> Listed:
        (own.root / "train.json").write_text(json.dumps(panoptic_json(own, "a", segments)))
        return listed(own.recipe, own.root, "train")

    void = plan([{"id": 0, "category_id": 3}])
    annotation = void.read(void.item)
    assert annotation.segments == () and annotation.mask is not None and set(annotation.mask.ravel()) == {255}
    many = plan([{"id": number, "category_id": 3} for number in range(70000)])
    with pytest.raises(SampleError, match="70000 segments, more than 65535"):
        many.read(many.item)
    with pytest.raises(LayoutError, match="annotations 1 is malformed .the file lists no category 77"):
        plan([{"id": 1, "category_id": 77}])


def test_crowds_stay_and_sizes_must_agree(fixtures: Path, own: Own) -> None:
    own.write_classes(["a", "b"])
    layout = PANOPTIC.replace('"{split}"', '"images/{split}"').replace(
        "annotations/{split}", "annotations/panoptic_{split}"
    )
    own.write_recipe(layout.replace('"{split}.json"', '"annotations/panoptic_{split}.json"'))
    root = fixtures / "coco_panoptic_tiny_synthetic"
    plan = listed(own.recipe, root, "val")
    segments = plan.read(plan.item, (10, 5)).segments
    assert sorted(segment.iscrowd for segment in segments) == [False, True]
    # The published sample's picture is larger than its mask.
    with pytest.raises(LayoutError, match="a.png: is 5x5, but its image is 10x5"):
        shard(own.recipe, root, "train", own.folder / "out")


# What panoptic.json of WildDash 2 lists, as rvc_devkit has it; these files are made up.
@pytest.mark.parametrize("negative", [False, True])
def test_wilddash_2(own: Own, class_lists: Path, negative: bool) -> None:
    rows = [line.split("\t") for line in (class_lists / "wilddash2_39.tsv").read_text().splitlines()[1:]]
    own.image("images/au0001_100000.jpg")
    ids = np.arange(192).reshape(SIZE) // 4 % 40  # every category, and the value 39, which is listed for none
    (own.root / "panoptic").mkdir()
    Image.fromarray(np.stack([ids, ids * 0, ids * 0], axis=-1).astype(np.uint8)).save(
        own.root / "panoptic/au0001_100000.png"
    )
    segments = [{"id": int(row[0]), "category_id": int(row[0]), "iscrowd": 0} for row in rows[1:]]
    data = panoptic_json(own, "au0001_100000", [] if negative else segments)
    data["categories"] = [{"id": int(row[0]), "name": row[1], "isthing": int(row[2])} for row in rows]
    (own.root / "panoptic.json").write_text(json.dumps(data))
    recipe = load_recipe("wilddash2")
    plan = listed(recipe, own.root, "val")
    mask = plan.read(plan.item).mask
    assert mask is not None
    names = dict(zip(load_label_space(recipe).names, load_label_space(recipe).indices, strict=True))
    for value, name in [(int(row[0]), row[1]) for row in rows] + [(39, "nothing")]:
        expected = 255 if negative else names.get(name, 255)
        assert set(mask[ids == value].tolist()) == {expected}, name
    assert shard(recipe, own.root, "val", own.folder / "out").written == 1


# --- boxes ------------------------------------------------------------------------------------------------------------

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
    assert [(skip.path, skip.reason) for skip in plan.skips] == [("images/train/a.jpg", "listed before")]
    assert [box.area for box in plan.read(plan.item).boxes] == [12]


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
    again = []
    for image in sorted(images, key=lambda image: image["file_name"]):
        path = "images/train/" + image["file_name"].removeprefix("./")
        if ".." in path or path in expected or "gone" in path:
            again.append(image["file_name"] if ".." in path else path)
            continue
        boxes = []
        for box in annotations:
            if box["image_id"] != image["id"] or box["category_id"] not in kinds:
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
        expected[path] = (str(image["id"]), boxes)
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
        ({"categories": CATEGORIES, "images": [{"id": 1}]}, "images 1 has no 'file_name'"),
        (
            {"categories": CATEGORIES, "images": [IMAGE], "annotations": [{**BOX, "bbox": [1, 2]}]},
            "annotations 1 is malformed",
        ),
        ({"categories": CATEGORIES, "images": []}, "lists no images"),
        ({"categories": CATEGORIES, "images": [IMAGE]}, "lists no annotations"),
        (
            {"categories": CATEGORIES, "images": [IMAGE, IMAGE], "annotations": [BOX]},
            "images 2 is malformed .its id 1 is that of another",
        ),
        ({"categories": CATEGORIES, "images": [{**IMAGE, "id": []}]}, "images 1 is malformed"),
        ({"categories": [{"id": 3, "name": "road"}, {"id": 3, "name": "car"}]}, "categories 2 is malformed .its id 3"),
        (
            {
                "categories": CATEGORIES,
                "images": [IMAGE],
                "annotations": [{"image_id": "1", "category_id": 3, "bbox": [1, 2, 3, 4]}],
            },
            "none of its annotations is of an image and a category that it lists",
        ),
        (
            '{"categories": [{"id": 1, "name": "\xff"}]}'.encode("latin-1"),
            "not UTF-8: invalid start byte; after its be",
        ),
        (
            {"categories": [{"id": 1, "name": "cat"}], "images": [IMAGE], "annotations": [BOX]},
            "1 of its 1 categories are no classes of my_streets: 'cat'",
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


# --- one mask for each object (Open Images) ---------------------------------------------------------------------------

DOG, CAT, PERSON = "/m/0bt9lr", "/m/01yrx", "/m/01g317"
HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"


class OpenImages:
    """Made-up pictures in the official layout."""

    def __init__(self, own: Own) -> None:
        self.own, self.root, self.rows = own, own.root, [HEADER]
        (self.root / "classes-segmentation.txt").write_text(f"{DOG}\n{PERSON}\n")
        (self.root / "class-descriptions-boxable.csv").write_text(f"{DOG},Dog\n{CAT},Cat\n{PERSON},Person\n")

    def mask(self, image: str, label: str, box: str, values: Any, written: bool = True) -> None:
        name = f"{image}_{label.strip('/').replace('/', '')}_{box}.png"
        self.rows.append(f"{name},{image},{label},{box},0.25,0.75,0.000000,0.5,0.8,\n")
        if written:
            target = self.root / "masks" / "train" / image[0] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(values, dtype=bool)).save(target)

    def plan(self) -> Listed:
        (self.root / "train-annotations-object-segmentation.csv").write_text("".join(self.rows))
        return listed(load_recipe("openimages"), self.root, "train")


def test_open_images(own: Own) -> None:
    data = OpenImages(own)
    own.image("train_0/0a.jpg")
    own.image("train_f/fb.jpg")
    own.image("train_f/fc.jpg")
    own.image("train_f/unlisted.jpg")
    dog, person = np.zeros((24, 32), bool), np.zeros((12, 16), bool)
    dog[4:20, 8:30] = True  # twice the image's size
    person[4:6, 6:8] = True
    data.mask("0a", PERSON, "00000001", person)
    data.mask("0a", DOG, "00000002", dog)
    data.mask("0a", DOG, "00000003", np.zeros((12, 16), bool))
    data.mask("0a", DOG, "00000004", person, written=False)
    data.mask("0a", CAT, "00000005", person)
    data.mask("fb", DOG, "00000006", person, written=False)
    data.mask("fc", DOG, "00000007", np.zeros((12, 16), bool))
    data.mask("fd", DOG, "00000008", person)
    (own.root / "oidv6-train-annotations-bbox.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        f"0a,xclick,{DOG},1,0.250000012,0.75000002,0.0,0.49999998,-1,-1,1,0,0\n"
        f"0a,xclick,{PERSON},1,0.25,0.75,0.0,0.5,-1,-1,0,0,0\n"
    )
    plan = data.plan()
    space, full = plan.source.space, load_label_space(load_recipe("openimages"))
    assert space.name == "openimages" and set(space.names) == {"Dog", "Person"}
    assert all(full.name_of(index) == space.name_of(index) for index in space.indices)
    assert space.ignore_index == 65535
    of = {name: index for index, name in zip(space.indices, space.names, strict=True)}
    report = shard(load_recipe("openimages"), own.root, "train", own.folder / "out")
    assert {skip["path"]: skip["reason"] for skip in report.skipped} == {
        "train_f/fb.jpg": "none of its 1 masks is on disk",
        "train_f/fc.jpg": "none of its masks covers a pixel (empty masks: 1)",
        "fd": "named in the CSV, but there is no such image",
    }
    assert report.notes == {"empty_masks": 1, "masks_of_other_classes": 1, "missing_masks": 2}
    annotation = plan.read(plan.items[0])
    expected = np.full(SIZE, 65535, np.uint16)
    expected[2:10, 4:15] = of["Dog"]
    expected[4:6, 6:8] = of["Person"]
    np.testing.assert_array_equal(annotation.mask, expected)
    assert [(box.class_index, box.bbox, box.group_of) for box in annotation.boxes] == [
        (of["Person"], (4, 0, 12, 6), False),
        (of["Dog"], (4, 0, 12, 6), True),
    ]


@settings(max_examples=20, deadline=None)
@given(masks=st.lists(st.tuples(st.sampled_from([DOG, PERSON]), st.integers(0, 2**12 - 1)), min_size=1, max_size=5))
def test_small_masks_lie_on_top(new_own: Callable[[], Own], masks: list[tuple[str, int]]) -> None:
    """Every pixel has the class of the smallest mask that covers it, the last by name among equals."""
    grids = [np.array([int(bit) for bit in f"{bits:012b}"], bool).reshape(3, 4) for _, bits in masks]
    if not any(grid.any() for grid in grids):
        return
    data = OpenImages(new_own())
    data.own.image("train/0a.jpg")
    for number, ((label, _), grid) in enumerate(zip(masks, grids, strict=True)):
        data.mask("0a", label, f"{number:08x}", grid)
    plan = data.plan()
    painted = plan.read(plan.item).mask
    assert painted is not None
    names = {DOG: "Dog", PERSON: "Person"}
    for y in range(12):
        for x in range(16):
            around = [
                (grid.sum(), f"0a_{label.replace('/', '')}_{number:08x}", label)
                for number, ((label, _), grid) in enumerate(zip(masks, grids, strict=True))
                if grid[y // 4, x // 4]
            ]
            if not around:
                assert painted[y, x] == 65535
                continue
            smallest = min(size for size, _, _ in around)
            label = max(entry[1:] for entry in around if entry[0] == smallest)[1]
            assert plan.source.space.name_of(int(painted[y, x])) == names[label]


def test_open_images_boxes_are_clipped_and_the_first_of_two_files_is_read(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    for number, corners in enumerate(["-1,0.5,0,2", "-3,-2,0,1"]):
        data.mask("0a", DOG, f"{number:08x}", np.ones((12, 16)))
        data.rows[-1] = data.rows[-1].replace("0.25,0.75,0.000000,0.5", corners)
    (own.root / "masks/train/1").mkdir()
    for name in data.rows[1:]:
        Image.new("1", (16, 12)).save(own.root / "masks/train/1" / name.partition(",")[0])
    plan = data.plan()
    annotation = plan.read(plan.item)
    assert [box.bbox for box in annotation.boxes] == [(0, 0, 8, 12)]
    assert annotation.notes == {"zero_size_boxes": 1}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes-segmentation.txt", "/m/nobody\n", r"1 of 1 classes are, by .*, none of openimages: /m/nobody"),
        ("classes-segmentation.txt", "", "no class of the recipe is listed"),
        ("class-descriptions-boxable.csv", "/m/0bt9lr\n", "row 1 has too few fields"),
        ("train-annotations-object-segmentation.csv", "ImageID\n", "the header lacks MaskPath, LabelName, BoxXMin"),
        ("train-annotations-object-segmentation.csv", HEADER + "a,b\n", "row 1 has too few fields"),
        (
            "train-annotations-object-segmentation.csv",
            HEADER + f"a.png,0a,{DOG},1,x,1,0,1,1,\n",
            "no row is usable: in 1 of them, a number is none",
        ),
        (
            "train-annotations-object-segmentation.csv",
            HEADER + f"a.png,0a,{DOG},1,nan,1,0,1,1,\n",
            "no row is usable: in 1 of them, a number is none",
        ),
    ],
)
def test_malformed_open_images_files_are_one_clear_error(own: Own, file: str, text: str, message: str) -> None:
    OpenImages(own)
    own.image("train/0a.jpg")
    (own.root / "train-annotations-object-segmentation.csv").write_text(HEADER)
    (own.root / file).write_text(text)
    with pytest.raises(LayoutError, match=message):
        listed(load_recipe("openimages"), own.root, "train")


def test_a_malformed_row_of_open_images_is_counted_and_left_out(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    data.mask("0a", DOG, "00000001", np.ones((12, 16), bool))
    data.mask("0a", DOG, "00000002", np.ones((12, 16), bool))
    data.rows[-1] = data.rows[-1].replace("0.25", "nan")
    plan = data.plan()
    assert len(plan.read(plan.item).boxes) == 1 and plan.notes == {"malformed_rows": 1}


def test_open_images_flags_ids_and_thresholds(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    whole, part = np.ones((12, 16), bool), np.zeros((12, 16), bool)
    part[2:5, 3:9] = True
    data.mask("0a", PERSON, "00000001", whole)
    data.mask("0a", DOG, "00000002", part)
    data.mask("0a", DOG, "00000003", whole)
    data.mask("0a", DOG, "00000004", part)
    data.rows[3] = data.rows[3].replace(",0.8,", ",0.69,")
    data.rows[4] = data.rows[4].replace(",0.8,", ",,").replace("0.25,0.75", "0.1,0.9")
    (own.root / "annotations").mkdir()
    (own.root / "annotations/oidv6-train-annotations-bbox.csv").write_text(
        "IsDepiction,ImageID,LabelName,IsGroupOf,YMax,YMin,XMax,XMin\n"
        f"1,0a,{DOG},0,0.5,0,0.75,0.25\n-1,0a,{PERSON},-1,0.5,0,0.75,0.25\n1,0b,{PERSON},1,0.5,0,0.75,0.25\n"
        f"0,0a,{DOG},1,0.5,0,0.9,0.1\n1,0a,{CAT},1,oops,,,\n"
    )
    shipped = load_recipe("openimages")
    own.recipe_file.write_text(shipped.text + "\n[options]\nmin_predicted_iou = 0.7\n")
    (own.folder / "openimages.csv").write_text(shipped.descriptions.read_text())
    data.plan()
    plan = listed(own.recipe, own.root, "train")
    assert plan.item.native_id == "0a" and plan.notes == {"masks_below_min_predicted_iou": 1}
    boxes = plan.read(plan.item).boxes
    name = plan.source.space.name_of
    assert [(name(b.class_index), b.native_id, b.group_of, b.depiction) for b in boxes] == [
        ("Person", "00000001", False, False),
        ("Dog", "00000002", False, True),
        ("Dog", "00000004", True, False),
    ]
    for wrong in ("2", '"0.5"', "true"):
        own.recipe_file.write_text(shipped.text + f"\n[options]\nmin_predicted_iou = {wrong}\n")
        with pytest.raises(RecipeError, match="min_predicted_iou is"):
            listed(own.recipe, own.root, "train")


def test_open_images_masks_that_do_not_fit(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    own.image("secret.png")
    covered = np.ones((12, 16), bool)
    data.mask("0a", DOG, "00000001", covered)
    data.mask("0a", DOG, "00000002", np.ones((32, 24), bool))  # the image has been turned, the mask has not
    data.mask("0a", DOG, "00000003", np.ones((25, 33), bool))
    for name in ("../../../secret.png", "/etc/passwd", "a\\b.png", "sub/0a.png", "..", ""):
        data.rows.append(f"{name},0a,{DOG},00000009,0,1,0,1,0.8,\n")
    data.rows.append(data.rows[1])
    plan = data.plan()
    assert plan.notes == {"mask_paths_refused": 4, "missing_masks": 2}
    annotation = plan.read(plan.item)
    assert annotation.notes == {"masks_of_another_shape": 1}
    assert [box.native_id for box in annotation.boxes] == ["00000001", "00000003"]


def test_masks_of_a_class_and_of_its_parent_are_painted_large_first(own: Own) -> None:
    data = OpenImages(own)
    own.image("train/0a.jpg")
    (own.root / "classes-segmentation.txt").write_text(f"{PERSON}\n/m/03bt1vf\n")
    with (own.root / "class-descriptions-boxable.csv").open("a") as file:
        file.write("/m/03bt1vf,Woman\n")
    outer, inner = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    outer[1:11, 1:15], inner[3:8, 4:9] = True, True
    data.mask("0a", "/m/03bt1vf", "00000001", inner)
    data.mask("0a", PERSON, "00000002", outer)
    plan = data.plan()
    mask = plan.read(plan.item).mask
    assert mask is not None
    of = {name: index for index, name in zip(plan.source.space.indices, plan.source.space.names, strict=True)}
    np.testing.assert_array_equal(mask, np.where(inner, of["Woman"], np.where(outer, of["Person"], 255)))


def test_a_tiny_open_images_set(fixtures: Path, own: Own) -> None:
    """Its classes are not the real ones, so a recipe of its own; the list of classes in use is made up."""
    shipped = load_recipe("openimages")
    own.recipe_file.write_text(shipped.text.replace("openimages.csv", "tiny.csv"))
    (own.folder / "tiny.csv").write_text("index,name\n" + "".join(f"{n},Generic label #{n}\n" for n in range(4)))
    for folder in ("images", "masks", "annotations"):
        (own.root / folder).symlink_to(fixtures / "openimages" / "tiny_v6" / folder)
    (own.root / "classes-segmentation.txt").write_text("/m/0\n/m/1\n")
    plan = listed(own.recipe, own.root, "train")
    with Image.open(own.root / "masks/train/b_m0_01234567.png") as stored:
        covered = np.asarray(stored) != 0
    assert np.count_nonzero(covered) == 4
    annotation = plan.read(plan.item, (2, 8))
    np.testing.assert_array_equal(annotation.mask, np.where(covered, 0, 255))
    assert [box.native_id for box in annotation.boxes] == ["01234567"]
    assert [box.bbox for box in annotation.boxes] == [(0.2 * 8, 0.3 * 2, 8, 0.5 * 2)]


def test_published_rows_of_open_images_are_read(fixtures: Path, own: Own) -> None:
    rows = fixtures / "openimages" / "real_rows" / "annotations"
    (own.root / "annotations").symlink_to(rows)
    (own.root / "classes-segmentation.txt").write_text("/m/04yx4\n/m/09j2d\n")
    own.image("train/677c122b0eaa5d16.jpg")
    name = "677c122b0eaa5d16_m04yx4_9a041d52.png"
    (own.root / "masks/train/6").mkdir(parents=True)
    Image.new("1", (16, 12), 1).save(own.root / "masks/train/6" / name)
    plan = listed(load_recipe("openimages"), own.root, "train")
    assert set(plan.source.space.names) == {"Man", "Clothing"}
    (box,) = plan.read(plan.item).boxes
    assert box.native_id == "9a041d52" and box.bbox == (0.8875 * 16, 0.454167 * 12, 0.960938 * 16, 0.720833 * 12)
    assert [(skip.path, skip.reason) for skip in plan.skips] == [
        ("05529ae018130c68", "named in the CSV, but there is no such image")
    ]
