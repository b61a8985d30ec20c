"""Damaged and absurd pictures and polygons: recorded skips, never a crash."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelmerge.errors import SampleError
from labelmerge.sharding.shard import shard

from .layouts import (
    COLOUR_RECIPE,
    INSTANCES,
    NAMED,
    SIZE,
    box,
    cityscapes,
    classes_of,
    index,
    only,
    polygons,
    write,
)
from .listing import listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("which", ["masks", "objects"])
def test_a_decompression_bomb_is_a_recorded_skip(which: str, own: Own) -> None:
    own.write_recipe(INSTANCES.replace("CODING", "n"))
    own.pairs(2)
    for number in range(2):
        own.mask(f"objects/train/00{number}.png")
    (own.root / which / "train/001.png").write_bytes(bomb(60000, 60000))
    report = shard(own.recipe, own.root, "train", own.folder / "out")
    assert report.written == 1
    assert report.skipped[0]["reason"] == f"{which}/train/001.png: has more pixels than Pillow takes for safe"


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("reader", ["index_png", "instances", "colour_png", "ade20k_seg", "polygons"])
def test_damaged_files_are_sample_errors(new_own: Callable[[], Own], reader: str, data: st.DataObject) -> None:
    """A few bytes of an annotation are altered, and some cut off: it is read, or refused in one line."""
    own = new_own()
    own.image("images/train/a.jpg")
    values = np.resize(np.arange(3, dtype=np.uint8), SIZE)
    if reader == "polygons":
        own.write_recipe(NAMED.replace("index_png", reader).replace("masks =", "polygons ="))
        write(own.root / "masks/train/a.png", polygons(box("road", 0, 0, 9, 9), box("car", 1, 2, 30, 4)))
    else:
        own.write_recipe(INSTANCES.replace("CODING", "class*256+n") if reader == "instances" else COLOUR_RECIPE)
        write(own.root / "masks/train/a.png", values if reader == "instances" else np.stack([values] * 3, axis=-1))
        write(own.root / "objects/train/a.png", values.astype(np.uint16) * 256)
    text = own.recipe_file.read_text()
    if reader in ("index_png", "ade20k_seg"):
        text = text.replace("colour_png", reader).split("[ids]")[0]
    own.write_recipe(text.replace('class_names = ["codes.txt", "codes.json"]\n', ""))
    path = own.root / ("objects" if reader == "instances" else "masks") / "train/a.png"
    content = bytearray(path.read_bytes())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    ):
        content[place] = byte
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    found = listed(own.recipe, own.root, "train")
    try:
        annotation = found.read(found.item)
    except SampleError as error:
        assert "\n" not in str(error)
    else:
        assert annotation.mask is not None and annotation.mask.dtype == np.uint8


def test_names_that_are_not_utf8_and_loops_of_links(own: Own) -> None:
    own.pairs(1)
    for folder, suffix in (("images", b"jpg"), ("masks", b"png")):
        path = os.fsencode(own.root / folder / "train")
        with open(path + b"/\xff." + suffix, "wb") as stream:
            stream.write(b"")
        os.symlink(path, path + b"/again." + suffix)
    found = listed(own.recipe, own.root, "train")
    assert found.item.path == "images/train/000.jpg"
    assert [(skip.path, skip.reason) for skip in found.skips] == [
        ("images/train/\\udcff.jpg", "the file's name is not UTF-8")
    ]


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([{"label": "car", "polygon": [[0, 0], [1, 1]] * 60_000}], "has more than 100000 vertices"),
        ([{"label": "car", "polygon": [[0, 0], [1, 1]] * 300}] * 200, "has more than 100000 vertices"),
        ([{"label": "car", "polygon": [[0, 0], [1e308, 1], [5, 5]]}], "a vertex is not within 1000000 pixels"),
        ([{"label": "car", "polygon": [[0, 0], [10**400, 1], [5, 5]]}], "is not polygon JSON"),
        ([{"label": "car", "polygon": "abc"}], "is not polygon JSON .*; object 1"),
    ],
)
def test_absurd_polygons(objects: list[dict[str, Any]], reason: str, tmp_path: Path) -> None:
    cityscapes(tmp_path, {"polygons.json": polygons(*objects)})
    with pytest.raises(SampleError, match=reason):
        only("cityscapes", tmp_path)


def test_polygons_far_outside_paint_what_is_inside(tmp_path: Path) -> None:
    cityscapes(tmp_path, {"polygons.json": polygons(box("car", -900_000, -900_000, 900_000, 900_000))})
    assert classes_of(only("cityscapes", tmp_path)[1]) == {index("cityscapes", "car")}
