"""A list of a split names images; it never takes another one than it names."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

NFD = unicodedata.normalize("NFD", "café")
RECIPE = """
name = "my_streets"
annotation_type = "mask"
reader = "index_png"
descriptions = "my_streets.csv"
[layout]
images = "images/*.jpg"
masks = "masks/{stem}.png"
list = "{split}.txt"
[ids]
ignore = [255]
"""


@pytest.mark.parametrize(
    ("names", "lines", "taken", "missing"),
    [
        (["img", "img (1)", "img (2)"], ["img (1)", "img (2)"], ["img (1)", "img (2)"], []),
        (["img", "img (1)"], ["img (1)", "img (3)"], ["img (1)"], ["img (3)"]),
        (["img", "x"], ["img (3)", "x"], ["x"], ["img (3)"]),  # the one named is gone: not the one without its number
        (["img", "x"], ["img copy", "x"], ["x"], ["img copy"]),
        (["a", "b", "c"], ["a  1", "b -1"], ["a", "b"], []),  # VOC's lists of one class
        (["a", "b"], ["a /labels/a.png"], ["a"], []),
        (["img", "x"], ["img 1", "img 0"], None, ["img 0", "img 1"]),  # one image can't be two entries
        ([unicodedata.normalize("NFC", NFD), "x"], [NFD, "x"], [unicodedata.normalize("NFC", NFD), "x"], []),
        (["a", "b"], ["/a", "", "  b  "], ["a", "b"], []),
    ],
)
def test_what_a_list_takes(
    own: Own, tmp_path: Path, names: list[str], lines: list[str], taken: list[str] | None, missing: list[str]
) -> None:
    own.write_recipe(RECIPE)
    for name in names:
        own.image(f"images/{name}.jpg")
        own.mask(f"masks/{name}.png")
    (own.root / "train.txt").write_text("\n".join(lines))
    if taken is None:
        with pytest.raises(Exception, match="no such image"):
            shard(own.recipe, own.root, "train", tmp_path)
        return
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert sorted(skip["path"] for skip in report.skipped) == missing
    assert report.written == len(taken)


def test_entries_with_folders_and_backslashes(
    own: Own, tmp_path: Path, read_samples: Callable[[Path], dict[str, dict[str, Any]]]
) -> None:
    recipe = RECIPE.replace("images/*.jpg", "images/*/*.jpg").replace("{stem}", "{1}/{2}")
    own.write_recipe(recipe.replace("list =", 'list_entry = "{1}/{2}.jpg"\nlist ='))
    for name in ("city/a 1", "city/a"):
        own.image(f"images/{name}.jpg")
        own.mask(f"masks/{name}.png")
    (own.root / "train.txt").write_text("city\\a 1.jpg\r\n")
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert report.written == 1 and report.folder is not None
    (sample,) = read_samples(report.folder).values()
    assert sample["json"]["source"]["path"] == "images/city/a 1.jpg"
