"""The classes that single images were annotated for: by a table, LVIS's lists, Open Images' labels, in shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.errors import LayoutError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.raw import open_raw
from labelmerge.sharding.shard import shard
from labelmerge.shardset.shardset import ShardSet

from . import tool_formats as tools
from .test_exports import lvis
from .test_open_images_reader import CAT, DOG, PERSON, OpenImages
from .tool_formats import NAMES, Dataset

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

WITH_TABLE = 'annotated = "lists/{split}.csv"\n\n[ids]'
TABLE = """image,note,annotated
images/train/000.jpg,by its path,road; car
001,by its stem,sky
001,and again,road
002.jpg,nothing of the list,
elsewhere.jpg,no image,car
"""


@pytest.fixture
def streets(own: Own) -> Own:
    """Five images, of four of which a table says what they were annotated for."""
    own.pairs(4)
    own.recipe_file.write_text(own.recipe_file.read_text().replace("\n[ids]", WITH_TABLE))
    (own.root / "lists").mkdir()
    (own.root / "lists/train.csv").write_text(TABLE)
    return own


def lists(folder: Path) -> list[Any]:
    opened = ShardSet.open(folder)
    found = [opened.fetch(number).annotated() for number in range(len(opened))]
    assert found == [opened.read(number).annotated for number in range(len(opened))]
    return [None if each is None else sorted(each) for each in found]


def test_a_table_says_what_each_image_was_annotated_for(streets: Own, tmp_path: Path) -> None:
    report = shard(streets.recipe, streets.root, "train", tmp_path / "out")
    folder = tmp_path / "out/my_streets/train"
    assert lists(folder) == [[0, 1], [0, 2], [], [0, 1, 2]]
    assert ShardSet.open(folder).own_lists and verify([folder]).problems == ()
    assert report.notes["images_with_their_own_annotated_classes"] == 4
    assert report.notes["images_in_the_table_of_annotated_classes_that_are_not_here"] == 1
    raw = open_raw(streets.recipe, streets.root, "train")
    assert raw.own_lists and [raw.read(n).annotated for n in range(4)] == [{0, 1}, {0, 2}, frozenset(), {0, 1, 2}]


def test_images_without_a_row_are_as_the_recipe_says_and_concepts_take_the_places_of_classes(
    streets: Own, tmp_path: Path
) -> None:
    streets.recipe_file.write_text('annotated = ["sky"]\n' + streets.recipe_file.read_text())
    shard(streets.recipe, streets.root, "train", tmp_path / "out")
    assert lists(tmp_path / "out/my_streets/train") == [[0, 1], [0, 2], [], [2]]
    table = "dataset,index,name,concepts\nmy_streets,0,road,ground\nmy_streets,1,car,vehicle\nmy_streets,2,sky,ground\n"
    (tmp_path / "t.csv").write_text(table)
    shard(streets.recipe, streets.root, "train", tmp_path / "merged", taxonomy=tmp_path / "t.csv")
    assert lists(tmp_path / "merged/my_streets/train") == [[0, 1], [0], [], [0]]
    assert verify([tmp_path / "merged"]).problems == ()


def test_without_a_table_shards_are_what_they_were(own: Own, tmp_path: Path) -> None:
    own.pairs(2)
    report = shard(own.recipe, own.root, "train", tmp_path / "out")
    folder = tmp_path / "out/my_streets/train"
    assert lists(folder) == [None, None] and not ShardSet.open(folder).own_lists
    assert "annotated" not in ShardSet.open(folder).meta(0) and not any("annotated" in note for note in report.notes)
    assert not open_raw(own.recipe, own.root, "train").own_lists


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,annotated\n0,road;raod\n", r"names 1 class that my_streets doesn't have: 'raod' in row 1"),
        ("image,classes\n0,road\n", "the header lacks annotated"),
        ("image,annotated\n0\n", "row 1 has too few fields"),
        (None, "no table of the classes that images were annotated for: expected lists/train.csv"),
    ],
)
def test_a_table_that_cannot_be(streets: Own, tmp_path: Path, table: str | None, message: str) -> None:
    path = streets.root / "lists/train.csv"
    path.unlink() if table is None else path.write_text(table)
    with pytest.raises(LayoutError, match=message):
        shard(streets.recipe, streets.root, "train", tmp_path / "out")
    assert not (tmp_path / "out/my_streets/train/manifest.json").exists()


def test_damaged_lists_are_found(streets: Own, tmp_path: Path) -> None:
    from labelmerge.inspect.schema import Counts, Expected, check_sample

    shard(streets.recipe, streets.root, "train", tmp_path / "out")
    opened = ShardSet.open(tmp_path / "out/my_streets/train")
    sample = opened.fetch(0)
    for own, wrong in (("[0,7]", True), ("[0,0]", True), ('["0"]', True), ("[1,0]", False)):
        meta = json.loads(sample.members["json"]) | {"annotated": own}
        members = {**sample.members, "json": json.dumps(meta).encode()}
        expected = Expected("my_streets", "train", "mask", ("jpg", "json", "mask.png"), opened.space)
        faults = list(check_sample(sample.key, members, expected, Counts()))
        assert [fault[:18] for fault in faults] == ["json: annotated is"] * wrong, own


@pytest.mark.parametrize("reader", ["coco_instances", "coco_boxes"])
def test_lvis_lists_what_is_absent_and_what_is_not_all_annotated(reader: str, dataset: Dataset) -> None:
    content = lvis(dataset.root)
    kinds = [{each["category_id"] for each in content["annotations"] if each["image_id"] == n} for n in (0, 1)]
    absent = next(n for n in range(1, len(NAMES) + 1) if n not in kinds[0])
    partly = min(kinds[0])
    content["images"][0] |= {"neg_category_ids": [absent], "not_exhaustive_category_ids": [str(partly)]}
    del content["images"][1]["neg_category_ids"]
    tools.text(dataset.root / "lvis_v1_train.json", content)
    kind = "box" if reader == "coco_boxes" else "noisy_mask"
    recipe = tools.Recipe(reader, '[layout]\nimages = "."\nannotations = "lvis_v1_{split}.json"\n')
    found = dataset.listed(recipe, kind)
    first, second = (item.annotated for item in found.items)
    assert first is not None and second is not None
    index_of = {n: found.source.space.indices[n - 1] for n in range(1, len(NAMES) + 1)}
    assert set(first) == {index_of[n] for n in (kinds[0] | {absent}) - {partly}}
    assert set(second) == set(index_of.values()), "of what is not told, the whole list counts"
    for image in content["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image.pop(key, None)
    tools.text(dataset.root / "lvis_v1_train.json", content)
    assert [item.annotated for item in dataset.listed(recipe, kind).items] == [None, None]


def test_open_images_labels_of_whole_images(own: Own) -> None:
    data = OpenImages(own)
    own.image("train_0/0a.jpg")
    own.image("train_0/0b.jpg")
    ones = [[1, 0], [0, 1]]
    data.mask("0a", PERSON, "00000001", ones)
    data.mask("0b", DOG, "00000002", ones)
    assert [item.annotated for item in data.plan().items] == [None, None]
    (own.root / "train-annotations-human-imagelabels-boxable.csv").write_text(
        "ImageID,Source,LabelName,Confidence\n"
        f"0a,verification,{PERSON},1\n0a,crowdsource-verification,{DOG},0\n0a,verification,{CAT},1\n"
        f"0b,machine,{PERSON},0.7\n0b,verification,{DOG},1\n0c,verification,{DOG},1\n"
    )
    space = load_label_space(load_recipe("openimages"))
    dog, person = (space.indices[space.names.index(name)] for name in ("Dog", "Person"))
    assert [item.annotated for item in data.plan().items] == [tuple(sorted((dog, person))), (dog,)]
    (own.root / "train-annotations-bbox.csv").write_text(
        "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf,IsDepiction\n"
        f"0a,{PERSON},0.1,0.2,0.1,0.2,1,0\n0b,{DOG},0.1,0.2,0.1,0.2,0,1\n"
    )
    assert [item.annotated for item in data.plan().items] == [(dog,), (dog,)], "a crowd is not all its persons"


def test_the_table_goes_before_what_the_reader_knows(dataset: Dataset) -> None:
    content = lvis(dataset.root)
    tools.text(dataset.root / "lvis_v1_train.json", content)
    name = "train2017/000000000.jpg"
    (dataset.root / "lists.csv").write_text(f"image,annotated\n{name},{NAMES[0]}\n")
    layout = '[layout]\nimages = "."\nannotations = "lvis_v1_{split}.json"\nannotated = "lists.csv"\n'
    found = dataset.listed(tools.Recipe("coco_instances", layout), "noisy_mask")
    by_path = {item.path: item.annotated for item in found.items}
    assert by_path[name] == (found.source.space.indices[0],)
    assert len(by_path["val2017/000000001.jpg"] or ()) > 1
