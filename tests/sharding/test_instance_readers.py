"""Objects with a mask each: COCO instances and YouTube-VIS, against pycocotools and pixel by pixel.

YouTube-VIS has no public sample: its files here are made up, as its documentation and the code that reads it have them.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.readers.shared.instance_masks import decoded
from labelmerge.sharding.shard import shard

from .listing import Listed, listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

SIZE = (12, 16)
Array = npt.NDArray[Any]

RECIPE = """name = "my_streets"
annotation_type = "noisy_mask"
reader = "coco_instances"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}"
annotations = "annotations/{split}.json"
"""
CATEGORIES = [{"id": 9, "name": " Sky"}, {"id": 3, "name": "road"}, {"id": 4, "name": "car"}]
KIND = {3: 0, 4: 1, 9: 2}


def counts(mask: Array) -> list[int]:
    """The runs of a mask, found one pixel after the other."""
    runs, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def code(mask: Array, compressed: bool) -> dict[str, Any]:
    if not compressed:
        return {"size": list(mask.shape), "counts": counts(mask)}
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def plan(own: Own, annotations: list[dict[str, Any]], **more: Any) -> Listed:
    own.write_recipe(RECIPE)
    if not (own.root / "images/train/a.jpg").exists():
        own.image("images/train/a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "height": 12, "width": 16}
    (own.root / "annotations").mkdir(exist_ok=True)
    data = {"images": [image], "annotations": annotations, "categories": CATEGORIES, **more}
    (own.root / "annotations/train.json").write_text(json.dumps(data))
    return listed(own.recipe, own.root, "train")


masks = st.lists(st.booleans(), min_size=192, max_size=192).map(lambda bits: np.array(bits).reshape(SIZE))
blocks = st.tuples(st.integers(0, 11), st.integers(0, 15), st.integers(1, 12), st.integers(1, 16))


def block(top: int, left: int, height: int, width: int) -> Array:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@settings(max_examples=100, deadline=None)
@given(mask=masks | blocks.map(lambda b: block(*b)))
def test_run_length_codes_are_read_as_pycocotools_reads_them(mask: Array) -> None:
    for compressed in (False, True):
        np.testing.assert_array_equal(decoded(code(mask, compressed), SIZE), mask)


def test_long_runs_and_long_codes() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[7:2990, 3:1990] = True
    mask[100:200, 50:60] = False  # a hole
    for compressed in (False, True):
        np.testing.assert_array_equal(decoded(code(mask, compressed), mask.shape), mask)


coordinate = st.floats(-4, 20).map(lambda value: round(value, 2))
polygons = st.lists(st.lists(coordinate, min_size=6, max_size=12).map(lambda p: p[: len(p) // 2 * 2]), max_size=3)


@settings(max_examples=100, deadline=None)
@given(parts=polygons)
def test_polygons_are_filled_as_pycocotools_fills_them_part_by_part(parts: list[list[float]]) -> None:
    expected = np.zeros(SIZE, bool)
    for part in parts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools on numpy 2
            expected |= coco.decode(coco.frPyObjects([part], *SIZE))[..., 0] != 0
    np.testing.assert_array_equal(decoded(parts, SIZE), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        7,
        "text",
        {},
        {"size": [12, 16]},
        {"size": [16, 12], "counts": [192]},
        {"size": [12], "counts": [192]},
        {"size": "ab", "counts": [192]},
        {"size": [12, 16], "counts": [191]},
        {"size": [12, 16], "counts": [200, -8]},
        {"size": [12, 16], "counts": [2**62, 2**62, 2**63, 192]},
        {"size": [12, 16], "counts": [10**30]},
        {"size": [12, 16], "counts": [[192]]},
        {"size": [12, 16], "counts": ""},
        {"size": [12, 16], "counts": "o"},
        {"size": [12, 16], "counts": "ooooooooooooooooo0"},
        {"size": [12, 16], "counts": "\u00e9"},
        {"size": [12, 16], "counts": "  "},
        [[1, 2, 3, 4, 5, 6, 7]],
        [1, 2, 3, 4, 5, 6],
        [[1, 1, 9, 1, float("nan"), 9]],
        [[1, 1, 9, 1, 1e7, 9]],
        [[0, 0, 1e6, 1e6] * 50],
        [["a", "b", "c", "d", "e", "f"]],
        [[None] * 6],
        [{"a": 1}],
    ],
)
def test_a_mask_that_makes_no_sense_is_left_out_and_counted(own: Own, segmentation: Any) -> None:
    good = {"id": 1, "image_id": 1, "category_id": 4, "segmentation": code(block(2, 2, 3, 3), True)}
    found = plan(own, [good, {**good, "id": 2, "segmentation": segmentation}])
    annotation = found.read(found.item)
    assert annotation.notes == {"malformed_masks (first: images/train/a.jpg, id 2)": 1}
    assert [segment.native_id for segment in annotation.segments] == ["1"]


@settings(max_examples=40, deadline=None)
@given(
    things=st.lists(
        st.tuples(blocks, blocks, st.sampled_from([3, 4, 9]), st.booleans(), st.integers(0, 2)), min_size=1, max_size=6
    ),
    numbers=st.permutations(range(6)),
)
def test_small_objects_lie_on_top(new_own: Callable[[], Own], things: list[Any], numbers: list[int]) -> None:
    """Every pixel is of the smallest object that covers it; of the last by id among equals."""
    annotations, areas = [], {}
    grids = {}
    for number, (first, second, kind, crowd, way) in zip(numbers, things, strict=False):
        grid = block(*first) & ~block(*second)  # often with a hole or in parts
        if not grid.any():
            continue
        grids[number], areas[number] = (grid, kind, crowd), int(grid.sum())
        segmentation: Any = code(grid, way == 1)
        annotations.append(
            {"id": number, "image_id": 1, "category_id": kind, "iscrowd": int(crowd), "segmentation": segmentation}
        )
    if not annotations:
        return
    found = plan(new_own(), annotations)
    annotation = found.read(found.item)
    assert annotation.mask is not None and annotation.instances is not None
    own_id = {segment.id: int(segment.native_id) for segment in annotation.segments} | {0: None}
    for y in range(12):
        for x in range(16):
            around = sorted((areas[number], -number) for number, (grid, _, _) in grids.items() if grid[y, x])
            top = -around[0][1] if around else None
            assert own_id[int(annotation.instances[y, x])] == top
            assert annotation.mask[y, x] == (255 if top is None else KIND[grids[top][1]])
    assert sorted(grids) == [int(segment.native_id) for segment in annotation.segments]
    for segment, box in zip(annotation.segments, annotation.boxes, strict=True):
        grid, kind, crowd = grids[int(segment.native_id)]
        rows, columns = np.nonzero(grid)
        assert box.bbox == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (box.area, box.iscrowd, box.native_id) == (grid.sum(), crowd, segment.native_id)
        assert (segment.category_id, segment.class_index, segment.iscrowd) == (kind, KIND[kind], crowd)


def test_coco_instances_become_shards(own: Own) -> None:
    for name in ("a.jpg", "empty.jpg", "extra.jpg", "wrong.jpg", "nothing.jpg"):
        own.image(f"images/train/{name}")
    names = ["a", "empty", "gone", "../../x", "wrong", "nothing"]
    images = [
        {"id": number, "file_name": f"{name}.jpg", "height": 12, "width": 99 if name == "wrong" else 16}
        for number, name in enumerate(names, 1)
    ]
    square, triangle = [[1, 1, 9, 1, 9, 9, 1, 9], [12, 1, 15, 1, 15, 4], [3, 3]], [[2, 2, 6, 2, 6, 6]]
    annotations = [
        {"id": 70, "image_id": 1, "category_id": 3, "segmentation": square, "bbox": [1, 1, 14, 8], "iscrowd": 0},
        {"id": 71, "image_id": 1, "category_id": 4, "segmentation": triangle, "bbox": [float("nan"), 2, 4, 4]},
        {"id": 72, "image_id": 1, "category_id": 9, "segmentation": code(block(9, 0, 3, 16), False), "iscrowd": 1},
        {"id": 73, "image_id": 1, "category_id": 4, "segmentation": []},
        {"id": 74, "image_id": 1, "category_id": 77, "segmentation": square},
        {"id": 75, "image_id": 77, "category_id": 4, "segmentation": square},
        {"id": 76, "image_id": 5, "category_id": 4, "segmentation": square},
        {"id": 77, "image_id": 6, "category_id": 4, "segmentation": [[50, 50, 60, 50, 60, 60]]},
    ]
    found = plan(own, annotations, images=images)
    (item, *_) = found.items
    assert item.native_id == "1"
    annotation = found.read(item)
    # The second box makes no sense: it is the one around the pixels instead.
    assert annotation.boxes[0].bbox == (1, 1, 15, 9) and annotation.boxes[1].bbox == (3, 2, 6, 5)
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert {skip["path"]: skip["reason"] for skip in report.skipped} == {
        "../../x.jpg": "the name leads out of its folder",
        "images/train/empty.jpg": "no annotation in the JSON",
        "images/train/gone.jpg": "listed, but there is no such image",
        "images/train/nothing.jpg": "none of its objects covers a pixel (empty masks: 1)",
        "images/train/wrong.jpg": "the JSON says 99x12, but the image is 16x12",
    }
    assert report.notes == {
        "empty_masks": 1,
        "images_not_listed": 1,
        "objects_of_unknown_categories": 1,
        "objects_of_unknown_images": 1,
    }
    assert verify([own.folder / "out"]).problems == ()


def test_the_documented_recipe_reads_coco(own: Own) -> None:
    doc = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    (recipe,) = [text for text in re.findall(r"```toml\n(.*?)```", doc, re.DOTALL) if 'name = "coco_things"' in text]
    (own.folder / "coco_things.toml").write_text(recipe)
    lines = load_recipe("coco_panoptic").descriptions.read_text(encoding="utf-8").splitlines()
    (own.folder / "coco_things.csv").write_text("\n".join(lines[:81]), encoding="utf-8")
    own.image("val2017/000000000139.jpg")
    thing = {"id": 1, "image_id": 139, "category_id": 90, "iscrowd": 0, "segmentation": [[0, 0, 16, 0, 16, 12, 0, 12]]}
    image = {"id": 139, "file_name": "000000000139.jpg", "height": 12, "width": 16}
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    (own.root / "annotations").mkdir()
    data = {"info": {}, "licenses": [{}], "images": [image], "annotations": [thing], "categories": categories}
    (own.root / "annotations/instances_val2017.json").write_text(json.dumps(data))
    found = listed(load_recipe(own.folder / "coco_things.toml"), own.root, "val")
    mask = found.read(found.item).mask
    assert mask is not None and set(mask.ravel().tolist()) == {79}


def test_annotations_without_any_object_that_fits(own: Own) -> None:
    with pytest.raises(LayoutError, match="none of its annotations is of an image and a category that it lists"):
        plan(own, [{"image_id": 2, "category_id": 4, "segmentation": []}])
    with pytest.raises(LayoutError, match="annotations left out: has no 'segmentation'"):
        plan(own, [{"image_id": 1, "category_id": 4}])
    many = [{"id": n, "image_id": 1, "category_id": 4, "segmentation": []} for n in range(70_000)]
    found = plan(own, many)
    with pytest.raises(SampleError, match="70000 objects, more than 65535"):
        found.read(found.item)


# --- videos -----------------------------------------------------------------------------------------------------------


def youtube_vis(own: Own, year: int) -> tuple[dict[str, Any], dict[tuple[int, int], list[tuple[Array, int, int]]]]:
    """Two made-up videos; the JSON, and by video and frame the masks, their category and their object."""
    dataset = "youtube_vis" if year == 2021 else "youtube_vis_2019"
    names = load_label_space(load_recipe(dataset)).names
    random = np.random.default_rng(year)
    videos, annotations = [], []
    truth: dict[tuple[int, int], list[tuple[Array, int, int]]] = {}
    for video, name in enumerate(("0a1b", "f00d"), 1):
        files = [f"{name}/{5 * frame:05d}.jpg" for frame in range(4)]
        for file in files:
            own.image(f"train/JPEGImages/{file}")
        videos.append({"id": video, "width": 16, "height": 12, "length": 4, "file_names": files})
        for thing in range(3):
            number, kind = 10 * video + thing, int(random.integers(1, 41))
            codes: list[Any] = []
            for frame in range(4):
                if frame == 2 and video == 2 or random.random() < 0.3:
                    codes.append(None)
                    continue
                grid = block(*random.integers(0, 9, 2).tolist(), *random.integers(1, 7, 2).tolist())
                codes.append(code(grid, compressed=bool(random.integers(2))))
                truth.setdefault((video, frame), []).append((grid, kind, number))
            boxes = [None if entry is None else [0, 0, 1, 1] for entry in codes]
            annotations.append(
                {
                    "id": number,
                    "video_id": video,
                    "category_id": kind,
                    "iscrowd": 0,
                    "segmentations": codes,
                    "bboxes": boxes,
                    "areas": [entry and 1 for entry in codes],
                }
            )
    categories = [{"id": number, "name": name, "supercategory": "object"} for number, name in enumerate(names, 1)]
    return {"videos": videos, "annotations": annotations, "categories": categories}, truth


@pytest.mark.parametrize("year", [2019, 2021])
def test_youtube_vis(own: Own, year: int) -> None:
    data, truth = youtube_vis(own, year)
    dataset, other = ("youtube_vis", "youtube_vis_2019") if year == 2021 else ("youtube_vis_2019", "youtube_vis")
    (own.root / "train/instances.json").write_text(json.dumps(data))
    recipe = load_recipe(dataset)
    assert recipe.role == "eval"
    found = listed(recipe, own.root, "train")
    frames = {f"train/JPEGImages/{data['videos'][v - 1]['file_names'][f]}": (v, f) for v, f in truth}
    assert [item.path for item in found.items] == sorted(frames)
    assert {skip.reason for skip in found.skips} == {"no object in this frame"}
    assert len(found.skips) + len(found.items) == 8
    for item in found.items:
        video, frame = frames[item.path]
        assert item.native_id == f"{video}/{frame}"
        annotation = found.read(item)
        assert annotation.mask is not None
        for y in range(12):
            for x in range(16):
                around = [(m.sum(), -own_id, kind) for m, kind, own_id in truth[video, frame] if m[y, x]]
                assert annotation.mask[y, x] == (min(around)[2] - 1 if around else 255)
        assert [int(segment.native_id) for segment in annotation.segments] == [n for _, _, n in truth[video, frame]]
    assert shard(recipe, own.root, "train", own.folder / "out").written == len(truth)
    assert verify([own.folder / "out"]).problems == ()
    with pytest.raises(LayoutError, match=f"This is {dataset}: use that name"):
        listed(load_recipe(other), own.root, "train")


def test_every_nth_frame(own: Own) -> None:
    data, truth = youtube_vis(own, 2021)
    (own.root / "train/instances.json").write_text(json.dumps(data))
    shipped = load_recipe("youtube_vis")

    def frames(every: object) -> list[str]:
        own.recipe_file.write_text(shipped.text + f"\n[options]\nevery = {every}\n")
        (own.folder / "youtube_vis.csv").write_text(shipped.descriptions.read_text())
        found = listed(own.recipe, own.root, "train")
        return sorted([item.path[-9:] for item in found.items] + [skip.path[-9:] for skip in found.skips])

    assert frames(3) == ["00000.jpg", "00000.jpg", "00015.jpg", "00015.jpg"]
    assert len(frames(1)) == 8
    for wrong in (0, '"2"', "true"):
        with pytest.raises(RecipeError, match="options.every is"):
            frames(wrong)


def test_malformed_videos(own: Own) -> None:
    data, _ = youtube_vis(own, 2021)
    path = own.root / "train/instances.json"
    recipe = load_recipe("youtube_vis")

    def refused(message: str, **changed: Any) -> None:
        path.write_text(json.dumps({**data, **changed}))
        with pytest.raises(LayoutError, match=message):
            listed(recipe, own.root, "train")

    video, thing = data["videos"][0], data["annotations"][0]
    refused("videos 2 is malformed .its id 1 is not unique", videos=[video, video])
    refused("videos 1 has no 'file_names'", videos=[{"id": 1}])
    refused("annotations left out: it has 4 segmentations, but 1 bboxes", annotations=[{**thing, "bboxes": [1]}])
    refused("none of its annotations", annotations=[{**thing, "video_id": 9}])
    path.write_text(
        json.dumps({**data, "annotations": [thing, {**thing, "segmentations": [None] * 9 + [{}], "bboxes": None}]})
    )
    assert listed(recipe, own.root, "train").notes["objects_of_unknown_images"] == 1
    Image.new("RGB", (5, 5)).save(own.root / "train/JPEGImages/0a1b/00000.jpg")
    reasons = [skip["reason"] for skip in shard(recipe, own.root, "train", own.folder / "out").skipped]
    assert "the JSON says 16x12, but the image is 5x5" in reasons or "no object in this frame" in reasons
