"""The layouts of well-known datasets, for which sets of one's own are often laid out as well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.descriptions import read_descriptions
from labelmerge.errors import LayoutError
from labelmerge.recipe.recipe import find
from tests.conftest import Run
from tests.recipe.test_recipe import coco, mask, photo, recipe_of
from tests.sharding import tool_formats as tools


def test_a_layout_as_of_ade20k(tmp_path: Path, run: Run) -> None:
    for word in ("training", "validation"):
        photo(tmp_path / f"data/images/{word}/ADE_{word}_1.jpg")
        mask(tmp_path / f"data/annotations/{word}/ADE_{word}_1.png", [0, 1, 2, 5])
    names = enumerate(("wall", "building", "sky", "floor", "tree"), 1)
    rows = "".join(f"{number}\t0.1\t20\t2\t1\t{name}\n" for number, name in names)
    tools.text(tmp_path / "data/objectInfo150.txt", f"Idx\tRatio\tTrain\tVal\tStuff\tName\n{rows}")
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.ids == {"ignore": [0, 255], "offset": -1}
    assert proposal.classes == dict(enumerate(("wall", "building", "sky", "floor", "tree")))
    result = run("recipe", tmp_path / "data", "--out", tmp_path, "--overwrite")
    assert result.exit_code == 0 and "It lies on disk as ade20k" in result.output


def test_a_layout_as_of_cityscapes(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train", "bremen"), ("val", "bonn")):
        stem = f"{split}/{city}/{city}_000000_000019"
        photo(tmp_path / f"data/leftImg8bit/{stem}_leftImg8bit.png")
        for kind in ("labelIds", "instanceIds"):
            mask(tmp_path / f"data/gtFine/{stem}_gtFine_{kind}.png", [0, 7, 8, 24])
        mask(tmp_path / f"data/gtFine/{stem}_gtFine_color.png", [(0, 0, 0), (128, 64, 128)])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.layout == {
        "images": ["leftImg8bit/{split}/*/*_leftImg8bit.png"],
        "masks": "gtFine/{split}/{stem}_gtFine_labelIds.png",
    }
    assert len(proposal.classes) == 25


def test_a_layout_as_of_segnets_camvid(tmp_path: Path, run: Run) -> None:
    for split in ("train", "val", "test"):
        photo(tmp_path / f"data/mine/{split}/{split}0.png")
        mask(tmp_path / f"data/mine/{split}annot/{split}0.png", [0, 1, 2, 11])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.layout == {"images": ["mine/{split}/*.png"], "masks": "mine/{split}annot/{stem}.png"}
    assert proposal.splits == {}
    assert proposal.remarks[0] == (
        "Where a value means no label, often the first or the last (0: 25.0% of the pixels, 11: 25.0% of the pixels), "
        "put it into ids.ignore."
    )
    # It is CamVid's own layout where the folder says so; a set of boxes has its images so, too, and is not named.
    said = run("recipe", tmp_path / "data/mine", "--out", tmp_path / "again").output
    assert "It lies on disk as camvid: if it is that" in said


def test_a_folder_that_is_called_like_masks_holds_images_too(tmp_path: Path) -> None:
    """As KITTI's data_semantics: only folders below the shared one say what is what."""
    for kind in ("training", "testing"):
        photo(tmp_path / f"data/data_semantics/{kind}/image_2/0.png")
    mask(tmp_path / "data/data_semantics/training/semantic/0.png", [4, 7, 8, 11])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.layout["images"] == ["data_semantics/{split}/image_2/*.png"]
    assert proposal.layout["masks"] == "data_semantics/{split}/semantic/{stem}.png"


def test_pictures_of_parts_are_no_images(tmp_path: Path, run: Run) -> None:
    """As in the full ADE20K, whose objects and parts lie beside the images in colours; it is said to be that."""
    for number in range(3):
        stem = tmp_path / f"data/images/ADE/training/urban/ADE_train_{number}"
        photo(stem.with_name(f"{stem.name}.jpg"))
        for ending in ("_seg", "_parts_1"):
            mask(stem.with_name(f"{stem.name}{ending}.png"), [(0, 0, 0), (10, 20, 30), (120, 20, 30)])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.layout["images"] == ["images/ADE/{split}/urban/*.jpg"]
    assert "ade20k_full: if it is that" in run("recipe", tmp_path / "data", "--out", tmp_path / "again").output


def test_masks_of_turned_pictures(tmp_path: Path) -> None:
    """A telephone's photographs are stored lying and shown upright; these masks were drawn on what is shown."""
    for number in range(3):
        photo(tmp_path / f"data/images/{number}.jpg")
        exif = Image.Exif()
        exif[0x112] = 6
        with Image.open(tmp_path / f"data/images/{number}.jpg") as picture:
            picture.save(tmp_path / f"data/images/{number}.jpg", exif=exif)
        upright = np.rot90(mask(tmp_path / f"data/masks/{number}.png", [0, 1, 2]))
        Image.fromarray(np.ascontiguousarray(upright)).save(tmp_path / f"data/masks/{number}.png")
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.options == {"upright": True} and "EXIF" in proposal.remarks[-1]


@pytest.mark.parametrize(
    ("names", "of"),
    [
        (["Person", "bicycle", "car", "motorcycle", "stop sign"], "coco_panoptic"),
        (["road", "sidewalk", "terrain", "rider", "bicycle"], "bdd100k"),  # the first of those with 19
        (["road", "sidewalk", "terrain", "rider"], None),
        (["road", "sidewalk", "terrain", "rider", "hovercraft"], None),
    ],
)
def test_known_names_are_described(names: list[str], of: str | None, tmp_path: Path, run: Run) -> None:
    photo(tmp_path / "data/images/0.jpg")
    mask(tmp_path / "data/masks/0.png", list(range(len(names))))
    tools.text(tmp_path / "data/classes.txt", "\n".join(names))
    output = run("recipe", tmp_path / "data", "--out", tmp_path).output
    rows = read_descriptions(tmp_path / "data.csv")
    assert [row.name for row in rows] == names
    assert (f"The descriptions are those of {of}, which has all of these names" in output) == (of is not None)
    assert ("complete the descriptions there" in output) == (of is None)
    shipped = {row.name.casefold(): row.description for row in load_descriptions(load_recipe(of or "voc"))}
    assert [row.description for row in rows] == [shipped[name.casefold()] if of else "" for name in names]
    assert {row.source for row in rows} == {"curated" if of else ""}


def test_key_points_are_left_out_and_of_other_files_one_is_chosen(tmp_path: Path, run: Run) -> None:
    """COCO's archive has people's key points beside the instances, and some add a file of stuff."""
    root = tmp_path / "data"
    coco(root)
    for split in ("train", "val"):
        content = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
        person = {"id": 18, "name": "person", "supercategory": "person", "keypoints": ["nose"]}
        tools.text(root / f"annotations/person_keypoints_{split}2017.json", content | {"categories": [person]})
    proposal = recipe_of(root, tmp_path)
    assert proposal.classes == {0: "dog"}
    assert proposal.remarks == [
        "annotations/person_keypoints_{split}2017.json is not read: it has the key points of some of the objects."
    ]
    # There is no coco_panoptic without panoptic PNGs, and no objects365 without its JSON.
    assert "It lies on disk" not in run("recipe", root, "--out", tmp_path / "again").output
    (root / "annotations/instances_train2017.json").rename(root / "annotations/stuff_train2017.json")
    with pytest.raises(LayoutError, match=r"stuff_\{split\}2017.*Say which: --annotations with part of its path"):
        find(root)
    result = run("recipe", root, "--annotations", "stuff", "--out", tmp_path / "stuff")
    assert result.exit_code == 0 and "val" not in result.output.split("annotations: ")[1].split("classes")[0]
    with pytest.raises(LayoutError, match="no annotations here have 'thing' in their path; found annotations/"):
        find(root, annotations="thing")
