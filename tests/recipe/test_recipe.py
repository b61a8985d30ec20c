"""`labelmerge recipe`: what is written for a folder works at once, and gives the masks that lie there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError, OutputError, UsageError
from labelmerge.recipe.proposal import Proposal
from labelmerge.recipe.recipe import find, make, named_after
from labelmerge.sharding.shard import check
from tests.sharding import tool_formats as tools
from tests.sharding.listing import listed

if TYPE_CHECKING:
    from tests.conftest import Run

Array = npt.NDArray[Any]
SIZE = (60, 80)
RANDOM = np.random.default_rng(0)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)


def mask(path: Path, values: list[Any]) -> Array:
    """Squares of some values, or colours; where each value is at least once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = RANDOM.permutation(np.arange(48) % len(values)).reshape(6, 8)
    pixels = np.array(values, dtype=np.uint8)[np.kron(places, np.ones((10, 10), dtype=int))]
    Image.fromarray(pixels).save(path)
    return pixels


def recipe_of(root: Path, out: Path, **settings: Any) -> Proposal:
    """Make the recipe, and see that every split that it says is read without a skipped file."""
    found = make(root, out, **settings)
    for split, tried in found.splits.items():
        report = check(load_recipe(found.recipe), root, split)
        assert report.written == tried.samples > 0 and not report.skipped and not tried.faults
    return found.proposal


# --- masks ------------------------------------------------------------------------------------------------------------


def test_index_masks(tmp_path: Path) -> None:
    root = tmp_path / "My Streets (v2)"
    for split in ("train", "val"):
        for number, ending in enumerate(("jpg", "JPG", "png")):
            photo(root / f"images/{split}/{number}.{ending}")
            mask(root / f"masks/{split}/{number}.png", [0, 1, 3, 255])
    proposal = recipe_of(root, tmp_path / "out")
    assert proposal.layout == {
        "images": ["images/{split}/*.JPG", "images/{split}/*.jpg", "images/{split}/*.png"],
        "masks": "masks/{split}/{stem}.png",
    }
    assert (proposal.ids, proposal.splits) == ({"ignore": [255]}, {"test": ""})
    space = load_label_space(load_recipe(tmp_path / "out/my_streets_v2.toml"))
    assert space.names == ("class 0", "class 1", "class 2", "class 3")


def test_binary_masks(tmp_path: Path) -> None:
    photo(tmp_path / "data/images/a.jpg")
    pixels = mask(tmp_path / "data/masks/a.png", [0, 255])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.ids == {"map": {"0": "background", "255": "foreground"}}
    found = listed(load_recipe(tmp_path / "data.toml"), tmp_path / "data", "train")
    np.testing.assert_array_equal(found.read(found.item, SIZE).mask, pixels == 255)


def test_values_far_apart_are_mapped(tmp_path: Path) -> None:
    photo(tmp_path / "data/img/a.jpg")
    pixels = mask(tmp_path / "data/gt/a.png", [0, 38, 75, 113])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.ids["map"] == {"0": 0, "38": 1, "75": 2, "113": 3}
    found = listed(load_recipe(tmp_path / "data.toml"), tmp_path / "data", "train")
    expected = np.searchsorted([0, 38, 75, 113], pixels)
    np.testing.assert_array_equal(found.read(found.item, SIZE).mask, expected)


NUMBERED = {
    "classes.txt": "# id: name\n0: bg\n5: apple, ripe\n12: sky\n255: unlabelled\n",
    "labels.csv": 'id,name\n12,sky\n5,"apple, ripe"\n0,bg\n',
    "id2label.json": '{"0": "bg", "5": "apple, ripe", "12": "sky", "20": "never seen"}',
}


@pytest.mark.parametrize("name", NUMBERED)
def test_a_list_with_gaps_says_which_value_is_which(name: str, tmp_path: Path) -> None:
    photo(tmp_path / "data/img/a.jpg")
    pixels = mask(tmp_path / "data/gt/a.png", [0, 5, 12, 255])
    tools.text(tmp_path / f"data/{name}", NUMBERED[name])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    more = {20: "never seen"} if name == "id2label.json" else {}
    assert (proposal.classes, proposal.ids) == ({0: "bg", 5: "apple, ripe", 12: "sky", **more}, {"ignore": [255]})
    found = listed(load_recipe(tmp_path / "data.toml"), tmp_path / "data", "train")
    np.testing.assert_array_equal(found.read(found.item, SIZE).mask, pixels)


def test_a_list_with_gaps_and_no_zero_and_one_that_lacks_a_value(tmp_path: Path) -> None:
    photo(tmp_path / "data/img/a.jpg")
    mask(tmp_path / "data/gt/a.png", [0, 5, 12])
    tools.text(tmp_path / "data/labels.txt", "4 fence\n5 apple\n12 sky\n")
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert (proposal.classes, proposal.ids) == ({4: "fence", 5: "apple", 12: "sky"}, {"ignore": [0, 255]})
    tools.text(tmp_path / "data/labels.txt", "4 fence\n5 apple\n")
    proposal = recipe_of(tmp_path / "data", tmp_path / "other")
    assert proposal.classes[12] == "class 12" and not proposal.named


NAMES = {
    "class_dict.csv": "name,r,g,b\nVoid,0,0,0\nRoad,128,64,128\nCar,0,0,142\n",
    "label_colors.txt": "0 0 0\tVoid\n128 64 128\tRoad\n0 0 142\t\tCar\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nVoid:0,0,0::\nRoad:128,64,128::\nCar:0,0,142::\n",
}


@pytest.mark.parametrize("name", NAMES)
def test_colour_masks_with_names(name: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / f"data/{split}/a.png")
        mask(tmp_path / f"data/{split}_labels/a_L.png", [(0, 0, 0), (128, 64, 128), (0, 0, 142)])
    tools.text(tmp_path / f"data/{name}", NAMES[name])
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.ids == {"ignore": ["0 0 0"], "map": {"128 64 128": "Road", "0 0 142": "Car"}}
    assert proposal.layout["masks"] == "{split}_labels/{stem}_L.png"


def test_colour_masks_without_names(tmp_path: Path) -> None:
    photo(tmp_path / "data/images/a.jpg")
    mask(tmp_path / "data/masks/a.png", [(0, 0, 0), (128, 64, 128)])
    assert set(recipe_of(tmp_path / "data", tmp_path).classes.values()) == {"colour 0 0 0", "colour 128 64 128"}


def test_polygon_json(tmp_path: Path) -> None:
    photo(tmp_path / "data/images/train/a_leftImg8bit.png")
    square = [[0, 0], [9, 0], [9, 9], [0, 9]]
    thing = {"label": "car", "polygon": square}
    content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": [thing]}
    tools.text(tmp_path / "data/gt/train/a_gtFine_polygons.json", content)
    assert recipe_of(tmp_path / "data", tmp_path).reader == "polygons"


# --- what tools save --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_what_tools_save(tool: str, tmp_path: Path) -> None:
    scenes = {f"img {seed}": tools.scene(seed) for seed in range(3)}
    made = tools.TOOLS[tool](tmp_path / "data", scenes)
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert (proposal.reader, proposal.kind) == (made.reader, "noisy_mask")
    assert set(proposal.classes.values()) <= set(tools.NAMES)
    assert proposal.splits == {"val": "", "test": ""}
    # The masks are those of a recipe that a person wrote, by name.
    space = load_label_space(load_recipe(tmp_path / "data.toml"))
    found = listed(load_recipe(tmp_path / "data.toml"), tmp_path / "data", "train")
    for item in found.items:
        painted = found.read(item, tools.SIZE).mask
        assert painted is not None
        for index, name in zip(space.indices, space.names, strict=True):
            sure = np.ones(tools.SIZE, dtype=bool)
            expected = np.zeros(tools.SIZE, dtype=bool)
            for label, points in scenes[Path(item.path).stem]:
                expected[tools.inside(points)] = label == name
                sure &= ~tools.near_edge(points)
            assert ((painted == index) == expected)[sure].all()


def voc(root: Path) -> None:
    for number in range(3):
        photo(root / f"JPEGImages/{number}.jpg")
        box = tools.voc_object("dog", (3, 4, 20, 30))
        tools.text(root / f"Annotations/{number}.xml", tools.voc_xml(f"{number}.jpg", [box], SIZE))
    tools.text(root / "ImageSets/Main/train.txt", "0\n1\n")
    tools.text(root / "ImageSets/Main/val.txt", "2\n")


def yolo(root: Path) -> None:
    for split in ("train", "val"):
        photo(root / f"images/{split}/a.jpg")
        tools.text(root / f"labels/{split}/a.txt", "0 0.5 0.5 0.2 0.2\n")
    tools.text(root / "data.yaml", "path: ../x\ntrain: images/train\nval: images/val\nnames: {0: dog}\n")


def darknet(root: Path) -> None:
    photo(root / "obj_train_data/a.jpg")
    tools.text(root / "obj_train_data/a.txt", "0 0.5 0.5 0.2 0.2\n")
    tools.text(root / "obj.names", "dog\n")


def coco(root: Path) -> None:
    for split in ("train", "val"):
        photo(root / f"{split}2017/a.jpg")
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 18, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
            "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
        }
        tools.text(root / f"annotations/instances_{split}2017.json", content)


def test_masks_as_voc_has_them(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / f"data/JPEGImages/{number}.jpg")
        mask(tmp_path / f"data/SegmentationClass/{number}.png", [0, 1, 2, 255])
    photo(tmp_path / "data/JPEGImages/without.jpg")
    for folder in ("Main", "Segmentation"):
        tools.text(tmp_path / f"data/ImageSets/{folder}/train.txt", "0\n1\n")
        tools.text(tmp_path / f"data/ImageSets/{folder}/val.txt", "2\n")
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert proposal.layout["list"] == "ImageSets/Segmentation/{split}.txt" and proposal.splits == {"test": ""}


@pytest.mark.parametrize("make_folder", [voc, yolo, darknet, coco])
def test_boxes(make_folder: Callable[[Path], None], tmp_path: Path) -> None:
    make_folder(tmp_path / "data")
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert (proposal.kind, proposal.classes) == ("box", {0: "dog"})
    assert ("val" in proposal.splits) == (make_folder is darknet)


def test_panoptic(tmp_path: Path) -> None:
    photo(tmp_path / "data/val2017/a.jpg")
    mask(tmp_path / "data/annotations/panoptic_val2017/a.png", [(0, 0, 0), (7, 0, 0)])
    segment = {"id": 7, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 80, 60], "area": 2400}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}],
        "categories": [{"id": 1, "name": "dog", "supercategory": "animal", "isthing": 1}],
    }
    tools.text(tmp_path / "data/annotations/panoptic_val2017.json", content)
    proposal = recipe_of(tmp_path / "data", tmp_path, reader="panoptic")
    assert proposal.layout["masks"] == "annotations/panoptic_{split}2017"
    assert proposal.splits == {"train": "", "test": ""}


# --- what is said -----------------------------------------------------------------------------------------------------


def test_images_alone(tmp_path: Path) -> None:
    photo(tmp_path / "data/a.JPG")
    proposal = recipe_of(tmp_path / "data", tmp_path)
    assert (proposal.reader, proposal.layout) == ("images", {"images": ["*.JPG"]})
    mask(tmp_path / "data/masks/b.png", [0, 1, 2])
    *_, remark = recipe_of(tmp_path / "data", tmp_path / "again").remarks
    assert remark == "Some look like masks, with no images of their names: masks/*."


def test_unknown_and_ambiguous_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find(tmp_path / "gone")
    (tmp_path / "data").mkdir()
    with pytest.raises(LayoutError, match="looked for COCO JSON.*YOLO.*LabelMe.*it holds nothing"):
        find(tmp_path / "data")
    tools.text(tmp_path / "data/notes.json", {"a": 1})
    tools.text(tmp_path / "data/broken.json", "{]")
    tools.text(tmp_path / "data/broken.xml", "<annotation>")
    with pytest.raises(LayoutError, match="it holds broken.json, broken.xml, notes.json"):
        find(tmp_path / "data")
    tools.labelme(tmp_path / "data", {"a": tools.scene(0)})
    voc(tmp_path / "data")
    with pytest.raises(LayoutError, match=r"in 2 ways: labelme: .*; voc_xml: .*--reader NAME"):
        find(tmp_path / "data")
    assert find(tmp_path / "data", reader="voc_xml").reader == "voc_xml"
    with pytest.raises(LayoutError, match="nothing for the reader 'yolo'"):
        find(tmp_path / "data", reader="yolo")


def test_nothing_is_overwritten_without_being_told(tmp_path: Path, run: Run) -> None:
    yolo(tmp_path / "data")
    words = ["recipe", tmp_path / "data", "--out", tmp_path / "out"]
    assert run(*words).exit_code == 0
    edited = tmp_path / "out/data.csv"
    edited.write_text("index,name,description\n0,dog,A dog.\n")
    result = run(*words)
    assert result.exit_code == 1 and "is there already" in result.stderr and "A dog." in edited.read_text()
    with pytest.raises(OutputError, match="--overwrite"):
        make(tmp_path / "data", tmp_path / "out")
    result = run(*words, "--overwrite", "--json")
    assert json.loads(result.output)["reader"] == "yolo" and "A dog." not in edited.read_text()
    assert run(*words, "--name", "Dogs!").exit_code != 0


def test_the_command_that_it_names_works(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    yolo(tmp_path / "data")
    output = run("recipe", "data").output
    command = next(line for line in output.splitlines() if line.startswith("  labelmerge ")).split()[1:]
    assert run(*command).exit_code == 0
    assert (tmp_path / "shards/data/train/manifest.json").is_file()


def test_a_bad_file_is_said_and_does_not_end_it(tmp_path: Path, run: Run) -> None:
    voc(tmp_path / "data")
    tools.text(tmp_path / "data/Annotations/0.xml", "<annotation>")
    result = run("recipe", tmp_path / "data", "--out", tmp_path)
    assert result.exit_code == 0 and "can't be used: JPEGImages/0.jpg" in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("road,sky", "classes.txt: is one line of names with commas between them, and is not used"),
        ("road\tx\nsky\n", "classes.txt: line 1: several columns, with tabs between them, and is not used"),
        ("index,name\n", ""),
        ("name,r,g,b\n", ""),
    ],
)
def test_a_list_that_is_none_is_said_and_does_not_end_it(text: str, said: str, tmp_path: Path, run: Run) -> None:
    photo(tmp_path / "data/images/0.jpg")
    mask(tmp_path / "data/masks/0.png", [0, 1])
    (tmp_path / "data/classes.txt").write_text(text)
    result = run("recipe", tmp_path / "data", "--out", tmp_path)
    assert result.exit_code == 0 and said in result.output and "Nothing says what the classes" in result.output


def test_names() -> None:
    assert named_after(Path("/a/Straßen & Wege-2")) == "stra_en_wege_2"
    assert named_after(Path("/")) == "my_dataset"


def test_texts_in_a_recipe_are_read_back() -> None:
    import tomllib

    odd = {'a "b" = \\ ü\x7f': "x\ty", "plain-1": ["{split}/*", 'c"']}
    proposal = Proposal("what", "yolo", "box", {"data": "data.yaml"}, {0: "a"}, ids={"map": odd})
    assert tomllib.loads(proposal.toml("own"))["ids"]["map"] == odd


def test_masks_of_one_thing_are_taken_for_no_dataset(tmp_path: Path, run: Run) -> None:
    for number in range(3):
        photo(tmp_path / f"data/train/{number}.png")
        mask(tmp_path / f"data/trainannot/{number}.png", [0, 255])
    result = run("recipe", tmp_path / "data", "--out", tmp_path)
    assert result.exit_code == 0 and "lies on disk as" not in result.output, result.output
