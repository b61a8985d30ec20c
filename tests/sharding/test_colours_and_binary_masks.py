"""Masks that are not the index PNGs of a textbook: colours in a Hugging Face dataset, and 0/255."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest

from labelmerge.errors import SampleError

from .hub_rows import MASK_FEATURES, MASK_LAYOUT, SIZE, encoded, recipe, save
from .listing import listed

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own

COLOURS = {"0 0 0": 255, "128 64 128": 0, "0 0 142": 1, "70 130 180": 2, "64 0 128": 1}
IDS = (
    '[ids]\nignore = ["0 0 0"]\nmap = {"128 64 128" = "road", "0 0 142" = "car", "64 0 128" = 1, "70 130 180" = "sky"}'
)


def colour_rows(count: int) -> tuple[list[dict[str, Any]], list[np.ndarray[Any, Any]]]:
    """Rows with RGB masks, and the class of every pixel, looked up one by one."""
    random, rows, expected = np.random.default_rng(0), [], []
    names = list(COLOURS)
    for number in range(count):
        which = random.integers(0, len(names), SIZE)
        pixels = np.array([[[int(v) for v in names[n].split()] for n in row] for row in which], dtype=np.uint8)
        image = {"bytes": encoded(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8), "JPEG"), "path": f"{number}.jpg"}
        rows.append({"id": number, "photo": image, "seg": pixels})
        expected.append(np.array([[COLOURS[names[n]] for n in row] for row in which]))
    return rows, expected


@pytest.mark.parametrize("form", ["parquet", "folder", "array"])
def test_rgb_masks_of_a_hugging_face_dataset(form: str, tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    rows, expected = colour_rows(5)
    features = MASK_FEATURES
    if form == "array":
        features = datasets.Features({**MASK_FEATURES, "seg": datasets.Array3D((*SIZE, 3), "uint8")})
    else:
        rows = [{**row, "seg": {"bytes": encoded(row["seg"], "PNG"), "path": None}} for row in rows]
    layout = save(rows, features, tmp_path, "folder" if form == "array" else form)
    found = listed(recipe(tmp_path / "recipe", f"{layout}\n{MASK_LAYOUT}", more=IDS), tmp_path, "train")
    for item, mask in zip(found.items, expected, strict=True):
        np.testing.assert_array_equal(found.read(item, SIZE).mask, mask)


def test_an_unknown_colour_is_said(tmp_path: Path) -> None:
    rows, _ = colour_rows(2)
    rows = [{**row, "seg": {"bytes": encoded(row["seg"], "PNG"), "path": None}} for row in rows]
    layout = save(rows, MASK_FEATURES, tmp_path, "parquet")
    ids = IDS.replace("64 0 128", "64 0 129")
    found = listed(recipe(tmp_path / "recipe", f"{layout}\n{MASK_LAYOUT}", more=ids), tmp_path, "train")
    with pytest.raises(SampleError, match=r"unknown to the recipe: 64 0 128 \("):
        found.read(found.items[0], SIZE)


def check(own: Own, run: Run) -> str:
    result = run("shard", own.recipe_file, "--root", own.root, "--split", "train", "--check")
    assert result.exit_code == 0, result.output
    return str(result.output)


def binary(own: Own) -> None:
    for number in range(2):
        own.image(f"images/train/{number}.jpg")
        mask = np.zeros((12, 16), np.uint8)
        mask[:3] = 255
        own.mask(f"masks/train/{number}.png", mask)


def test_foreground_that_is_lost_to_ignore_is_said_loudly(own: Own, run: Run) -> None:
    binary(own)
    own.write_classes(["background", "defect"])
    output = check(own, run)
    assert "classes: 1 of 2 occur; never: defect" in output
    assert "no label: 25.0% of the pixels" in output
    assert "WARNING: only one class occurs" in output and 'map = {"0" = "background"' in output


def test_binary_masks_by_map_lose_nothing(own: Own, run: Run) -> None:
    binary(own)
    own.write_classes(["background", "defect"])
    text = own.recipe_file.read_text()
    own.write_recipe(text.replace("ignore = [255]", 'map = {"0" = "background", "255" = "defect"}'))
    output = check(own, run)
    assert "classes: 2 of 2 occur" in output and "WARNING" not in output and "no label" not in output


def test_images_alone_are_no_reason_to_warn(own: Own, run: Run) -> None:
    own.image("images/train/0.jpg")
    text = 'name = "my_streets"\nannotation_type = "image"\nreader = "images"\ndescriptions = "my_streets.csv"\n'
    own.write_recipe(f'{text}[layout]\nimages = "images/{{split}}/*.jpg"\n')
    assert "WARNING" not in check(own, run) and "never" not in check(own, run)
