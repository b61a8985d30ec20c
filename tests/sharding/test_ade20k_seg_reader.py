"""The full ADE20K's colour pictures, made up after its documentation: classes and objects of every pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

RECIPE = """name = "my_streets"
annotation_type = "mask"
reader = "ade20k_seg"
descriptions = "my_streets.csv"
[layout]
images = "images/{split}/*.jpg"
masks = "images/{split}/{stem}_seg.png"
[ids]
map = { "300" = "road", "2" = "car" }
ignore = [0]
"""


def test_classes_and_objects_are_those_of_every_pixels_colour(
    own: Own, tmp_path: Path, read_samples: Callable[[Path], dict[str, Any]]
) -> None:
    own.write_recipe(RECIPE)
    own.image("images/train/a.jpg")
    random = np.random.default_rng(0)
    numbers = random.choice([0, 2, 300], (12, 16))
    objects = random.integers(0, 3, (12, 16))
    picture = np.zeros((12, 16, 3), dtype=np.uint8)
    for y, x in np.ndindex(12, 16):
        # class = R // 10 * 256 + G: the last digit of R means nothing
        picture[y, x] = numbers[y, x] // 256 * 10 + random.integers(0, 10), numbers[y, x] % 256, objects[y, x]
    Image.fromarray(picture).save(own.root / "images/train/a_seg.png")
    assert shard(own.recipe, own.root, "train", tmp_path).written == 1
    (sample,) = read_samples(tmp_path / "my_streets" / "train").values()
    index_of = {0: 255, 2: 1, 300: 0}
    segments = {segment["id"]: segment for segment in sample["json"]["segments"]}
    kinds = set()
    for y, x in np.ndindex(12, 16):
        assert sample["mask.png"][y, x] == index_of[int(numbers[y, x])]
        number = int(sample["instances.png"][y, x])
        if numbers[y, x]:
            assert segments[number]["class_index"] == sample["mask.png"][y, x]
            kinds.add((number, int(numbers[y, x]), int(objects[y, x])))
        else:
            assert number == 0
    assert len(kinds) == len(segments) == len({(number, thing) for _, number, thing in kinds})
    assert verify([tmp_path]).problems == ()
