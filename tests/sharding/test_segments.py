"""Instances masks, and what the values of masks are called: in a dataset of the user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.shard import shard
from labelmerge.sharding.source.source import Segment

from .layouts import INSTANCES, NAMED, SIZE, filled
from .listing import listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


def meaning(coding: str, value: int) -> tuple[int | None, bool] | None:
    """(class in the coding, no objects told apart), as the datasets' documentation has it."""
    if coding == "class*1000+n":
        return (value // 1000, False) if value >= 1000 else (value, True)
    if coding == "class*256+n":
        return value // 256, value % 256 == 0
    return None if value in (0, 255) else (None, False)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("coding", ["class*1000+n", "class*256+n", "n"])
def test_segments_agree_with_a_look_at_every_pixel(
    new_own: Callable[[], Own], coding: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 255, 256, 257, 512, 1000, 1001, 2003, 65535]), min_size=1))
    places = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=192, max_size=192))
    stored = np.array(values, dtype=np.uint16)[np.array(places).reshape(SIZE)]
    own = new_own()
    own.write_recipe(INSTANCES.replace("CODING", coding))
    own.image("images/train/a.jpg")
    mask = own.mask("masks/train/a.png")
    own.mask("objects/train/a.png", stored)
    found = listed(own.recipe, own.root, "train")
    annotation = found.read(found.item)
    assert annotation.instances is not None
    np.testing.assert_array_equal(annotation.mask, mask)

    expected = np.zeros(SIZE, np.uint16)
    segments: list[Segment] = []
    strays = 0
    for value in sorted(set(stored.ravel().tolist())):
        said = meaning(coding, value)
        counts = Counter(mask[stored == value].tolist())
        label = min(counts, key=lambda label: (-counts[label], label))
        if said is None or label == 255:
            continue
        crowd = said[1] and label == 1
        segments.append(Segment(len(segments) + 1, label, label if said[0] is None else said[0], crowd, str(value)))
        expected[(stored == value) & (mask == label)] = len(segments)
        strays += int(((stored == value) & (mask != label)).sum())
    assert list(annotation.segments) == segments
    np.testing.assert_array_equal(annotation.instances, expected)
    assert annotation.notes == {"instance_pixels_of_another_class": strays}


def test_images_without_instances_or_with_others_are_recorded(own: Own) -> None:
    own.write_recipe(INSTANCES.replace("CODING", "n"))
    own.pairs(3)
    for number in (0, 1):
        own.mask(f"objects/train/00{number}.png", size=(12, 16 - number))
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert {skip["path"]: skip["reason"] for skip in report.skipped} == {
        "images/train/001.jpg": "objects/train/001.png: instances are 15x12, but the mask is 16x12",
        "images/train/002.jpg": "no instances: expected objects/train/002.png",
    }
    assert report.written == 1 and verify([own.folder / "out"]).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CODING", "m", "options.instances is 'm': beside layout.instances, it must be 'class"),
        ('instances = "CODING"', "", "options.instances is None"),
        ('instances = "CODING"', "instances = [1]", r"options.instances is \[1\]"),
        ('["car"]', '"car"', "options.things must be a list"),
        ('["car"]', '["lorry"]', "has no class 'lorry'"),
    ],
)
def test_what_instances_mean_must_be_said(own: Own, old: str, new: str, message: str) -> None:
    own.pairs(1)
    own.mask("objects/train/000.png")
    own.write_recipe(INSTANCES.replace(old, new).replace("CODING", "n"))
    with pytest.raises(RecipeError, match=message):
        listed(own.recipe, own.root, "train")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("codes.txt", "\ufeffnothing\nlorry\n SKY\nroad\ncar\n\n"),
        (
            "codes.json",
            '{"labels": [{"name": "nothing"}, {"name": "lorry"}, {"name": "a", "readable": "Sky"}, '
            '{"name": "road", "readable": "b"}, {"name": "Car"}]}',
        ),
    ],
)
def test_a_file_may_say_what_values_are_called(file: str, text: str, own: Own) -> None:
    own.write_recipe(NAMED)
    own.image("images/train/a.jpg")
    values = own.mask("masks/train/a.png", np.resize(np.arange(5, dtype=np.uint8), SIZE))
    (own.root / file).write_text(text, encoding="utf-8")
    found = listed(own.recipe, own.root, "train")
    np.testing.assert_array_equal(found.read(found.item).mask, np.array([255, 1, 2, 0, 1])[values])
    own.mask("masks/train/a.png", filled(5))
    with pytest.raises(SampleError, match="unknown to the recipe: 5"):
        found.read(found.item)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (
            "",
            "",
            LayoutError,
            "codes.txt: lists 2 classes, 1 of which my_streets does not have: 'tree'. Compare with my_",
        ),
        ('["nothing"]', "[3]", RecipeError, "3 is not a name, which layout.class_names asks for"),
        ("map =", "offset = 1\nmap =", RecipeError, "ids.offset and layout.class_names can't both be given"),
        ('"car"', '"tram"', RecipeError, "has no class 'tram'"),
        ("codes.", "names.", LayoutError, "no list of class names: expected names.txt or names.json"),
        ("class_names", 'table = "codes.txt"\nclass_names', RecipeError, "options.table_columns must name two columns"),
    ],
)
def test_names_of_values_must_make_sense(old: str, new: str, error: type[Exception], message: str, own: Own) -> None:
    own.pairs(1)
    (own.root / "codes.txt").write_text("road\ntree\n" if not old else "road\n")
    own.write_recipe(NAMED.replace(old, new) if old else NAMED)
    with pytest.raises(error, match=message):
        listed(own.recipe, own.root, "train")
