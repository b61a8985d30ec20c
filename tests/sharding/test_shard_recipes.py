"""Every recipe that ships, and what is wrong with one that doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labelmerge.catalog import dataset_names, load_label_space, load_mixture, load_recipe
from labelmerge.errors import LayoutError, RecipeError, UsageError
from labelmerge.sharding.source.layout import exists, fill, find, mask_wildcards
from labelmerge.sharding.source.locate import open_source

from .listing import listed

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

NINE = ["ade20k", "mapillary", "coco_panoptic", "idd", "bdd100k", "cityscapes", "sunrgbd", "openimages", "objects365"]


@pytest.mark.parametrize("name", dataset_names())
def test_a_shipped_recipe_says_how_to_get_the_dataset_and_fits_its_reader(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name == recipe.argument
    command = f"labelmerge shard {name} " if recipe.reader != "none" else f"labelmerge embed {name} "
    for part in ("Get it   ", "On disk  ROOT/", command, "Images   "):
        assert part in recipe.about.replace("a) ROOT", "ROOT").replace("as for `idd`: ROOT", "ROOT"), part
    assert len(load_label_space(recipe)) > 5
    labelled = next(split for split in ("train", "val") if recipe.splits.get(split, split))
    with pytest.raises(LayoutError, match="can't read" if recipe.reader == "none" else "the folder is empty"):
        open_source(recipe, tmp_path, labelled)


def test_mixtures_are_of_known_training_sets() -> None:
    assert load_mixture("ssiw") == NINE
    assert set(load_mixture("mseg7")) == set(NINE) - {"openimages", "objects365"}
    assert all(load_recipe(name).role == "train" for name in NINE)


def test_every_class_of_a_map_is_reached() -> None:
    for name in ("cityscapes", "kitti", "wilddash", "scannet"):
        recipe = load_recipe(name)
        assert set(recipe.ids["map"].values()) == set(load_label_space(recipe).names)
        values = [*map(int, recipe.ids["map"]), *recipe.ids["ignore"]]
        assert sorted(values) == list(range(34 if name != "scannet" else 41))


def test_a_split_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no labels for its test split. Labelled: train, val"):
        open_source(load_recipe("cityscapes"), tmp_path, "test")


def test_a_missing_root_and_a_wrong_layout_say_what_is_expected(own: Own, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"nowhere: no such folder"):
        open_source(own.recipe, tmp_path / "nowhere", "train")
    own.image("pictures/a.jpg")
    with pytest.raises(LayoutError, match=r"expected images at images/train/\*\.jpg; found pictures/") as caught:
        open_source(own.recipe, own.root, "train")
    assert f"labelmerge ls {own.recipe_file}" in str(caught.value)
    own.image("images/train/a.jpg")
    for within in ("images", "images/train"):
        with pytest.raises(LayoutError, match=f"It lies in a folder above: --root {own.root}$"):
            open_source(own.recipe, own.root / within, "train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('reader = "index_png"', 'reader = "index_pgn"', "unknown reader 'index_pgn'. Did you mean index_png"),
        ('reader = "index_png"', 'reader = "coco_boxes"', "gives box, not mask; unknown key layout.masks"),
        ("masks =", "mask =", "unknown key layout.mask .*; layout.masks is missing"),
        ("{stem}", "{name}", r"unknown placeholder \{name\}"),
        ("[255]", "[-1]", "-1 is not a mask value"),
        ("ignore = [255]", "offset = 0.5", "offset is 0.5: it must be a whole number"),
        ("ignore = [255]", "other = 7", "other is 7: it must be 'error' or 'ignore'"),
        ("ignore = [255]", "map = {1 = 'lane'}", "has no class 'lane'"),
        ("ignore = [255]", "map = {1 = 9}", "has no class index 9"),
        ("ignore = [255]", "map = {1 = 1}\noffset = 1", "can't both be given"),
        ("ignore = [255]", "map = {1 = 1, 01 = 0}", "gives two classes to 1 \\('1' and '01'\\)"),
        ('masks = "masks/{split}/{stem}.png"', "masks = 3", "layout.masks must be a pattern"),
        ("images/{split}/*.jpg", "images/**", r"layout.images: in 'images/\*\*', '\*\*' must be a folder of its own"),
        ("images/{split}/*.jpg", "images/**.jpg", "'\\*\\*' must be a folder of its own"),
        ("images/{split}/*.jpg", "/images/{split}/*.jpg", "must be relative to the root"),
        ("images/{split}/*.jpg", "images/{split}", r"layout.images is a folder.*Write .images/train/\*.jpg."),
        ("ignore = [255]", "ignore = 255", "ids.ignore must be a list"),
        ("ignore = [255]", "map = [1]", "ids.map must be a table"),
        ("[layout]", 'options = {resize_masks = "no"}\n[layout]', "options.resize_masks must be true or false"),
    ],
)
def test_what_a_reader_does_not_understand_is_refused(own: Own, old: str, new: str, message: str) -> None:
    own.pairs(1)
    text = own.recipe_file.read_text()
    assert old in text
    own.write_recipe(text.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        listed(own.recipe, own.root, "train")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("nmae = 1", "unknown key 'nmae'"),
        ("folders = [1]", "'folders' must be a list of names"),
        ("variants = 3", "'variants' must be a list of tables"),
        ("variants = [3]", r"variants\[0\] must be a table"),
        ("variants = [{name = ''}]", r"variants\[0\]: 'detect' is missing; variants\[0\]: 'name' must be a string"),
        ("variants = [{name = 'old', detect = []}]", r"variants\[0\]: 'detect' must be a list of patterns"),
        ("variants = [{name = 'old', detect = [1]}]", r"variants\[0\]: 'detect' must be a list of patterns"),
        ("variants = [{name = 'old', detect = ['a'], ids = 'b'}]", r"variants\[0\]: 'ids' must be a table"),
        ("variants = [{name = 'old', detect = ['a'], splits = {val = 1}}]", r"variants\[0\]: splits.val must be a str"),
        ("splits = {trian = 'a'}", "split 'trian' must be one of train, val, test"),
        ("role = 'both'", "role 'both' must be one of train, eval"),
        ("title =", "can't be read as TOML"),
    ],
)
def test_a_malformed_recipe_is_one_clear_error(own: Own, more: str, message: str) -> None:
    own.write_recipe(f"{more}\n{own.recipe_file.read_text()}")
    with pytest.raises(RecipeError, match=message):
        assert own.recipe


def test_a_recipe_may_begin_with_a_byte_order_mark(own: Own) -> None:
    own.write_recipe("\ufeff" + own.recipe_file.read_text())
    assert own.recipe.name == "my_streets"


def test_find_gives_what_the_wildcards_matched(tmp_path: Path) -> None:
    for path in (
        "left/train/a/a_1_left.png",
        "left/train/b/b_2_left.png",
        "left/train/b/.b_3_left.png",
        "left/x_left.png",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    flat = sorted(find(tmp_path, "left/train/*/*_left.png"), key=lambda match: match.path)
    assert [(match.stem, match.groups) for match in flat] == [("a/a_1", ("a", "a_1")), ("b/b_2", ("b", "b_2"))]
    deep = sorted(find(tmp_path, "left/**/*_left.png"), key=lambda match: match.path)
    assert [match.stem for match in deep] == ["train/a/a_1", "train/b/b_2", "x"]
    assert exists(tmp_path, "left/train") and exists(tmp_path, "left/*/a") and not exists(tmp_path, "left/val")
    assert fill("{split}/{number:06d}{1}", {"split": "val", "number": 7, "1": "x"}) == "val/000007x"
    assert mask_wildcards("gt/{stem}_ids.png", "left/*/*_left.png") == "gt/*/*_ids.png"
    assert mask_wildcards("{1}gt/{2}.png", "**/*.jpg") == "**/gt/*.png"
    assert mask_wildcards("l/{number:08d}.png", "*.jpg") == "l/*.png"


def test_a_link_to_itself_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").touch()
    assert [match.path for match in find(tmp_path, "*.jpg")] == ["b.jpg"]
    assert list(find(tmp_path, "**/*/*.jpg")) == []


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert {match.path for match in find(tmp_path, "**/*.jpg")} == {"a/x.jpg"}


def test_variants_and_archive_folders(own: Own) -> None:
    own.write_recipe(
        own.recipe_file.read_text().replace("[layout]", 'folders = ["part1", "part2"]\n\n[layout]')
        + """
[[variants]]
name = "old"
detect = ["pictures"]
[variants.layout]
images = "pictures/{split}/*.jpg"
masks = "labels/{split}/img{number:04d}.png"
[variants.layout.number_offset]
train = 100
"""
    )
    for part in ("part1", "part2"):
        own.image(f"{part}/images/train/1.jpg")
        own.mask(f"{part}/masks/train/1.png")
    plan = listed(own.recipe, own.root, "train")
    assert plan.source.bases == ("part1/", "part2/") and plan.source.variant is None
    assert [item.annotation for item in plan.items] == [
        "part1/masks/train/1.png",
        "part2/masks/train/1.png",
    ]
    assert len(listed(own.recipe, own.root / "part2", "train").items) == 1
    own.image("pictures/train/7.jpg")
    own.mask("labels/train/img0107.png")
    plan = listed(own.recipe, own.root, "train")
    assert plan.source.variant == "old"
    assert [item.annotation for item in plan.items] == ["labels/train/img0107.png"]


def test_a_list_chooses_images(own: Own) -> None:
    own.write_recipe(own.recipe_file.read_text().replace("[ids]", 'list = "{split}.txt"\n[ids]'))
    own.pairs(4)
    (own.root / "train.txt").write_text("001 1\n003\n\n009\n")
    plan = listed(own.recipe, own.root, "train")
    assert [item.path for item in plan.items] == ["images/train/001.jpg", "images/train/003.jpg"]
    assert [(skip.path, skip.reason) for skip in plan.skips] == [
        ("009", "named in train.txt, but there is no such image")
    ]
    (own.root / "train.txt").unlink()
    with pytest.raises(LayoutError, match="no list of images: expected train.txt"):
        listed(own.recipe, own.root, "train")
