"""The readers against slow, obvious code on random input, and what they do with bad samples."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.pictures.images import read_indices, resize_nearest
from labelmerge.sharding.shard import shard
from labelmerge.shardset.shardset import ShardSet

from .listing import Listed, listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

SIZE = (12, 16)


def reasons(own: Own) -> dict[str, str]:
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    return {skip["path"]: skip["reason"] for skip in report.skipped}


# --- index PNG --------------------------------------------------------------------------------------------------------


def test_bad_samples_are_recorded_and_the_rest_is_written(own: Own) -> None:
    own.pairs(8)
    masks, images = own.root / "masks/train", own.root / "images/train"
    own.mask("masks/train/000.png", np.full(SIZE, 77, dtype=np.uint8))
    own.mask("masks/train/001.png", size=(5, 5))
    Image.new("RGB", (16, 12)).save(masks / "002.png")
    (masks / "003.png").write_bytes((masks / "003.png").read_bytes()[:40])
    (images / "004.jpg").write_bytes((images / "004.jpg").read_bytes()[:400])
    (masks / "005.png").unlink()
    (images / "006.jpg").unlink()
    (images / "._007.jpg").write_bytes(b"left by an archive program")
    assert reasons(own) == {
        "images/train/000.jpg": "masks/train/000.png: mask values unknown to the recipe: 77 (192 px); name them in "
        "`ignore` of [ids] if they mean no label, or give them classes in my_streets.csv",
        "images/train/001.jpg": "the image is 16x12, but its mask is 5x5",
        "images/train/002.jpg": "masks/train/002.png: is a colour picture (RGB), not an index PNG",
        "images/train/003.jpg": "masks/train/003.png: is not a readable image",
        "images/train/004.jpg": "is not a readable image",
        "images/train/005.jpg": "no annotation: expected masks/train/005.png",
        "masks/train/006.png": "no image for this annotation",
    }


def png(depth: int, rows: list[bytes], width: int) -> bytes:
    """A greyscale PNG of any bit depth: Pillow can read these, but not write them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "row", "values"),
    [
        (1, b"\xa0", [1, 0, 1, 0]),
        (2, b"\x1b", [0, 1, 2, 3]),
        (4, b"\x12\x3f", [1, 2, 3, 15]),
        (8, b"\x00\x01\x80\xff", [0, 1, 128, 255]),
        (16, b"\x00\x01\x01\x00\x00\xff\xff\xff", [1, 256, 255, 65535]),
    ],
)
def test_stored_values_are_read_at_every_bit_depth(depth: int, row: bytes, values: list[int], tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(png(depth, [row], len(values)))
    assert read_indices(tmp_path / "mask.png").tolist() == [values]


def test_palette_indices_are_not_colours(tmp_path: Path) -> None:
    values = np.array([[0, 5, 200]], dtype=np.uint8)
    image = Image.frombytes("P", (3, 1), values.tobytes())
    image.putpalette([7, 7, 7] * 256)
    image.save(tmp_path / "mask.png")
    assert read_indices(tmp_path / "mask.png").tolist() == values.tolist()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ("ignore = [0]\noffset = -1", {0: 255, 1: 0, 3: 2, 4: None}),
        ("ignore = [9]", {0: 0, 2: 2, 3: None, 9: 255}),
        ('other = "ignore"\nmap = {7 = "car", 8 = 2}', {7: 1, 8: 2, 0: 255}),
        ("ignore = [1]\nmap = {7 = 0}", {7: 0, 1: 255, 0: None}),
    ],
)
def test_the_id_rule(own: Own, ids: str, expected: dict[int, int | None]) -> None:
    own.write_recipe(own.recipe_file.read_text().replace("ignore = [255]", ids))
    own.image("images/train/a.jpg")
    for value, index in expected.items():
        own.mask("masks/train/a.png", np.full(SIZE, value, dtype=np.uint8))
        plan = listed(own.recipe, own.root, "train")
        if index is None:
            with pytest.raises(SampleError, match=f"unknown to the recipe: {value} "):
                plan.read(plan.item)
        else:
            mask = plan.read(plan.item).mask
            assert mask is not None and mask.dtype == np.uint8 and set(mask.ravel().tolist()) == {index}


def test_more_than_254_classes_make_16_bit_masks(own: Own) -> None:
    own.write_classes([f"class {number}" for number in range(300)])
    own.write_recipe(own.recipe_file.read_text().replace("[255]", "[65535]"))
    own.image("images/train/a.jpg")
    values = own.mask("masks/train/a.png", np.random.default_rng(1).integers(0, 300, SIZE).astype(np.uint16))
    plan = listed(own.recipe, own.root, "train")
    mask = plan.read(plan.item).mask
    assert mask is not None and mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, values)


def test_masks_may_be_resized_where_the_recipe_says_so(own: Own) -> None:
    own.image("images/train/a.jpg", size=(24, 32))
    own.mask("masks/train/a.png")
    own.image("images/train/b.jpg", size=(24, 48))
    own.mask("masks/train/b.png")
    own.write_recipe(own.recipe_file.read_text() + "[options]\nresize_masks = true\n")
    assert reasons(own) == {"images/train/b.jpg": "the image is 48x24, but its mask is 16x12"}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_nearest_takes_the_value_under_the_pixel_centre(height: int, width: int, rows: int, columns: int) -> None:
    values = np.arange(height * width).reshape(height, width)
    resized = resize_nearest(values, (rows, columns))
    for row in range(rows):
        for column in range(columns):
            y, x = int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)
            assert resized[row, column] == values[y, x]


# --- polygons ---------------------------------------------------------------------------------------------------------

POLYGONS = """name = "my_streets"
annotation_type = "mask"
reader = "polygons"
descriptions = "my_streets.csv"
[layout]
images = "{split}/*.jpg"
polygons = "{split}/{stem}.json"
[ids]
ignore = ["void"]
skip = ["plate"]
map = {lorry = "car"}
"""

Corner = tuple[float, float]


def polygon_plan(own: Own, objects: list[dict[str, Any]]) -> Listed:
    own.write_recipe(POLYGONS)
    own.image("train/a.jpg")
    (own.root / "train/a.json").write_text(json.dumps({"imgHeight": 12, "imgWidth": 16, "objects": objects}))
    return listed(own.recipe, own.root, "train")


def rectangle(label: str, x0: int, y0: int, x1: int, y1: int, **more: object) -> dict[str, Any]:
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


def test_polygons_are_painted_by_the_official_rule(own: Own) -> None:
    plan = polygon_plan(
        own,
        [
            rectangle("road", 0, 0, 15, 11, deleted=0),
            rectangle("cargroup", 0, 0, 3, 3),
            rectangle("sky", 2, 2, 5, 5, deleted=1),
            {"label": "sky", "polygon": [[1, 1], [9, 9]]},
            rectangle("void", 8, 0, 9, 1),
            rectangle("plate", 1, 1, 2, 2),
            rectangle("unicorn", 1, 1, 2, 2),
            rectangle("lorry", 12, 8, 40, 40),
        ],
    )
    annotation = plan.read(plan.item)
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[0:4, 0:4] = 1
    expected[0:2, 8:10] = 255
    expected[8:, 12:] = 1
    np.testing.assert_array_equal(annotation.mask, expected)
    assert annotation.notes == {
        "deleted_or_degenerate_polygons": 2,
        "polygons_of_unknown_labels": 1,
        "label 'unicorn' is not a class": 1,
    }


corner = st.tuples(st.floats(-3, 19, width=32), st.floats(-3, 15, width=32))


@settings(max_examples=30, deadline=None)
@given(
    objects=st.lists(st.tuples(st.sampled_from(["road", "car", "sky"]), st.tuples(corner, corner, corner)), max_size=5)
)
@example(objects=[("road", ((0.0, 4.0), (5.0, 12.0), (-1.875, 0.875)))])
def test_triangles_agree_with_point_by_point_painting(
    new_own: Callable[[], Own], objects: list[tuple[str, tuple[Corner, Corner, Corner]]]
) -> None:
    """Every pixel that is not beside an edge has the class of the last triangle around its centre.

    Pillow, which the official scripts paint with, drops what is behind the point in a corner's coordinates (an edge
    moves by up to the square root of 2) and paints every pixel that an edge touches (half a diagonal more).
    """
    plan = polygon_plan(new_own(), [{"label": name, "polygon": list(points)} for name, points in objects])
    mask = plan.read(plan.item).mask
    assert mask is not None
    for y in range(12):
        for x in range(16):
            if all(far_from_edges(x, y, triangle) for _, triangle in objects):
                around = [name for name, triangle in objects if inside_triangle(x, y, triangle)]
                expected = ["road", "car", "sky"].index(around[-1]) if around else 255
                assert mask[y, x] == expected, (x, y)


def edges(triangle: tuple[Corner, Corner, Corner]) -> list[tuple[Corner, Corner]]:
    a, b, c = triangle
    return [(a, b), (b, c), (c, a)]


def far_from_edges(x: float, y: float, triangle: tuple[Corner, Corner, Corner]) -> bool:
    for (x0, y0), (x1, y1) in edges(triangle):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = 0.0 if length == 0 else min(1.0, max(0.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length))
        if (x - x0 - along * (x1 - x0)) ** 2 + (y - y0 - along * (y1 - y0)) ** 2 < 2.13**2:
            return False
    return True


def inside_triangle(x: float, y: float, triangle: tuple[Corner, Corner, Corner]) -> bool:
    sides = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for (x0, y0), (x1, y1) in edges(triangle)]
    return all(side > 0 for side in sides) or all(side < 0 for side in sides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not polygon JSON"),
        ("[]", "is not polygon JSON"),
        ('{"imgHeight": 12, "imgWidth": 16}', "'objects' is missing"),
        ('{"imgHeight": 16, "imgWidth": 12, "objects": []}', "polygons are for 12x16, but the image is 16x12"),
        ('{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": "car"}]}', "'polygon' is missing"),
        (
            '{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": "car", "polygon": [[1], [2], [3]]}]}',
            "is not polygon JSON",
        ),
        ('{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": 3, "polygon": [1, 2, 3]}]}', "is not polygon JSON"),
        (
            '{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": [], "polygon": [1, 2, 3]}]}',
            "is not polygon JSON",
        ),
        ('{"imgHeight": "13", "imgWidth": 16, "objects": []}', "polygons are for 16x13, but"),
        (
            '{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": "car", "polygon": [[0, 0], [9, 9], [NaN, 5]]}]}',
            "a vertex is not within",
        ),
        (
            '{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": "car", "polygon": [[0, 0], [9, 9], [1e9, 5]]}]}',
            "a vertex is not within",
        ),
        ("[" * 20000 + "]" * 20000, "is not polygon JSON"),
    ],
)
def test_malformed_polygon_json_is_a_recorded_skip(own: Own, text: str, message: str) -> None:
    polygon_plan(own, [])
    own.image("train/b.jpg")
    (own.root / "train/b.json").write_text(text)
    (path, reason) = next(iter(reasons(own).items()))
    assert path == "train/b.jpg" and reason.startswith("train/b.json: ") and message in reason


# --- images alone -----------------------------------------------------------------------------------------------------


def test_images_alone_become_samples_without_masks(
    own: Own, read_samples: Callable[[Path], dict[str, dict[str, Any]]]
) -> None:
    own.write_recipe(
        'name = "my_streets"\nannotation_type = "image"\nreader = "images"\ndescriptions = "my_streets.csv"\n'
        '[layout]\nimages = "images/{split}/*.jpg"\n'
    )
    data = [own.image(f"images/train/{number}.jpg") for number in range(3)]
    (own.root / "images/train/3.jpg").write_bytes(b"no image")
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert [skip["path"] for skip in report.skipped] == ["images/train/3.jpg"]
    found = read_samples(own.folder / "out/my_streets/train")
    assert [sample["jpg"] for sample in found.values()] == data
    assert all(set(sample) == {"jpg", "json"} and sample["json"]["present"] == [] for sample in found.values())
    opened = ShardSet.open(own.folder / "out/my_streets/train")
    assert (opened.annotation_type, opened.read(0).mask, opened.class_pixels) == ("image", None, {})
    assert verify([own.folder / "out"]).problems == ()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cityscapes", "leftImg8bit/train_extra/augsburg/augsburg_000000_000000_leftImg8bit.png"),
        ("coco_panoptic", "unlabeled2017/000000000008.jpg"),
    ],
)
def test_images_without_labels_of_datasets_that_ship(name: str, path: str, own: Own) -> None:
    own.image(path)
    report = shard(load_recipe(name), own.root, "unlabeled", own.folder / "out")
    opened = ShardSet.open(own.folder / "out" / name / "unlabeled")
    assert (len(report.skipped), len(opened), opened.annotation_type) == (0, 1, "image")
    assert opened.space.names == load_label_space(load_recipe(name)).names
