"""The shipped concept graph: which meaning is a kind or a part of which, and what every shipped label may stand for."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from labelmerge.catalog import dataset_names, load_recipe
from labelmerge.descriptions import read_descriptions

FOLDER = load_recipe("cityscapes").descriptions.parent
FILES = sorted(path.stem for path in FOLDER.glob("*.csv") if path.stem not in ("concepts", "homonyms", "words"))
SYNONYMS = {
    ("ade20k_full", "bulletin board, notice board", "notice board"),
    ("ade20k_full", "baseboard, mopboard, skirting board", "skirting board"),
    ("ade20k_full", "table tennis", "tennis table"),
    ("ade20k_full", "tombstones", "headstones"),
    ("ade20k_full", "paper towel", "towel paper"),
    ("ade20k_full", "racket", "racquet"),
    ("pascal_context_459", "extinguisher", "fire extinguisher"),
    ("pascal_context_459", "fan", "electric fan"),
    ("pascal_context_459", "gas hood", "range hood"),
    ("pascal_context_459", "iron", "electric iron"),
}
"""Labels that one dataset has twice, as the notes of their descriptions say."""

Rows = dict[str, dict[str, str]]
Sets = dict[str, dict[str, frozenset[str]]]


def _split(field: str) -> list[str]:
    return field.split(";") if field else []


@pytest.fixture(scope="module")
def graph() -> Rows:
    with (FOLDER / "concepts.csv").open(encoding="utf-8", newline="") as stream:
        return {row["concept"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def below(graph: Rows) -> dict[str, frozenset[str]]:
    """Every concept with all that is within it: the slow, obvious way."""
    children: dict[str, set[str]] = {name: set() for name in graph}
    for name, row in graph.items():
        for parent in _split(row["kind_of"]) + _split(row["part_of"]):
            children[parent].add(name)

    def within(name: str) -> frozenset[str]:
        return frozenset({name}).union(*(within(child) for child in children[name]))

    return {name: within(name) for name in graph}


@pytest.fixture(scope="module")
def sets(graph: Rows, below: dict[str, frozenset[str]]) -> Sets:
    """What each label may stand for: all below it, less what its own dataset attaches more closely."""
    found: Sets = {}
    exhausted = [name for name in reversed(graph) if graph[name]["exhausted_by"]]
    for dataset in FILES:
        rows = read_descriptions(FOLDER / f"{dataset}.csv")
        named = {name for row in rows for name in _split(row.concepts)}
        kept = {
            name: below[name].difference(*(below[other] for other in named & below[name] - {name})) for name in named
        }
        found[dataset] = {
            row.name: frozenset()
            .union(*(kept[name] for name in _split(row.concepts)))
            .difference(*(below[name] for name in _split(row.but)))
            for row in rows
        }
        for name in exhausted:  # inner ones first: parents stand above their children
            inner = set(_split(graph[name]["exhausted_by"]))
            for label, mine in found[dataset].items() if name not in named else ():
                keeps = inner <= mine or (name in mine and bool(inner & mine))
                found[dataset][label] = mine | {name} if keeps else mine - {name}
    return found


def test_the_file_is_a_plain_table(graph: Rows) -> None:
    raw = (FOLDER / "concepts.csv").read_bytes()
    lines = raw.decode("utf-8").splitlines()
    assert lines[0] == "concept,kind_of,part_of,description,exhausted_by"
    assert b"\r" not in raw and raw.endswith(b"\n")
    assert len(graph) == len(lines) - 1, "a concept is there twice, or a field holds a line break"
    for name, row in graph.items():
        assert name == name.strip() and not {";", ","} & set(name)
        assert row["description"].endswith(".") and row["description"][0].isupper(), name


def test_parents_stand_above_their_children(graph: Rows) -> None:
    """So every parent exists and there is no circle."""
    seen: set[str] = set()
    for name, row in graph.items():
        parents = _split(row["kind_of"]) + _split(row["part_of"])
        assert set(parents) <= seen, name
        assert len(parents) == len(set(parents)), name
        assert parents or name == "anything", name
        seen.add(name)


def test_every_label_is_attached_to_known_concepts(graph: Rows) -> None:
    for dataset in FILES:
        for row in read_descriptions(FOLDER / f"{dataset}.csv"):
            concepts = _split(row.concepts)
            assert concepts, (dataset, row.name)
            assert set(concepts) <= graph.keys(), (dataset, row.name)
            assert len(concepts) == len(set(concepts)), (dataset, row.name)


def test_what_a_label_does_not_stand_for_is_otherwise_within_it(below: dict[str, frozenset[str]]) -> None:
    for dataset in FILES:
        for row in read_descriptions(FOLDER / f"{dataset}.csv"):
            inside = frozenset().union(*(below[name] for name in _split(row.concepts)))
            assert set(_split(row.but)) <= inside - set(_split(row.concepts)), (dataset, row.name)


def test_the_kinds_that_exhaust_a_concept_lie_within_it(graph: Rows, below: dict[str, frozenset[str]]) -> None:
    for name, row in graph.items():
        assert set(_split(row["exhausted_by"])) <= below[name] - {name}, name


def test_every_dataset_has_its_concepts() -> None:
    assert {load_recipe(dataset).descriptions.stem for dataset in dataset_names()} <= set(FILES)


def test_every_concept_serves_a_label(below: dict[str, frozenset[str]]) -> None:
    used = {
        name
        for dataset in FILES
        for row in read_descriptions(FOLDER / f"{dataset}.csv")
        for name in _split(row.concepts)
    }
    wholes = frozenset().union(*(below[name] for name in used - {"anything"}))
    idle = [name for name, all_below in below.items() if not all_below & used and name not in wholes]
    assert idle == []


def test_no_label_is_left_without_a_meaning(sets: Sets) -> None:
    assert [(dataset, name) for dataset, labels in sets.items() for name, mine in labels.items() if not mine] == []


def test_labels_of_one_dataset_differ(sets: Sets) -> None:
    """Two with equal sets would be one class."""
    equal = {
        (dataset, first, second)
        for dataset, labels in sets.items()
        for number, first in enumerate(labels)
        for second in list(labels)[number + 1 :]
        if labels[first] == labels[second]
    }
    assert {(dataset, frozenset(pair)) for dataset, *pair in equal} == {
        (dataset, frozenset(pair)) for dataset, *pair in SYNONYMS
    }


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("rider", "person"),
        ("human eye", "person"),
        ("windshield", "vehicle"),
        ("wheel", "vehicle"),
        ("bicycle wheel", "bicycle"),
        ("lane marking", "road"),
        ("window", "building"),
        ("mouse (animal)", "animal"),
        ("mouse (device)", "electronic device"),
        ("tree", "plant"),
        ("grass", "terrain"),
        ("banana", "food"),
        ("free-standing wall", "wall"),
        ("hut", "building"),
        ("poster", "picture"),
        ("bench", "furniture"),
        ("van", "car"),
        ("pickup truck", "truck"),
        ("curb", "sidewalk"),
        ("noodles", "food"),
        ("tennis ball", "sports equipment"),
        ("palm", "vegetation"),
        ("potted plant", "vegetation"),
        ("grass", "plant"),
    ],
)
def test_what_lies_within_what(below: dict[str, frozenset[str]], part: str, whole: str) -> None:
    assert part in below[whole]
    assert whole not in below[part]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("mouse (animal)", "electronic device"),
        ("mouse (device)", "animal"),
        ("crane (machine)", "animal"),
        ("bat (club)", "animal"),
        ("tank (container)", "vehicle"),
        ("car", "bicycle"),
        ("person", "vehicle"),
        ("animal", "food"),
        ("animal", "plant"),
        ("road", "sidewalk"),
        ("terrain", "vegetation"),
        ("chair", "sofa"),
        ("cabinet", "shelf"),
        ("counter (worktop)", "counter (service desk)"),
        ("wall", "building"),
        ("hut", "house"),
        ("dresser", "cabinet"),
        ("bench", "chair"),
        ("group of poles", "pole"),
        ("guard rail", "fence"),
        ("parking area", "road"),
        ("rail track", "road"),
        ("bridge", "building"),
        ("tunnel", "building"),
        ("trailer", "truck"),
        ("caravan", "car"),
        ("drinking glass", "glasses"),
        ("rubble", "thing"),
    ],
)
def test_what_is_apart(below: dict[str, frozenset[str]], a: str, b: str) -> None:
    assert not below[a] & below[b]


def test_a_dataset_sharpens_its_own_labels(sets: Sets) -> None:
    street = sets["cityscapes"]
    assert not street["person"] & street["rider"]
    everyday = sets["coco_panoptic"]["person"]
    assert everyday > street["person"] and everyday > street["rider"]
    assert everyday == sets["voc"]["person"] == sets["ade20k"]["person, individual, someone, somebody, mortal, soul"]
    assert street["rider"] == sets["idd"]["rider"] > sets["mapillary"]["Bicyclist"]


def test_a_cyclist_is_rider_and_bicycle_in_one(sets: Sets) -> None:
    both = sets["camvid"]["Bicyclist"]
    assert both > sets["cityscapes"]["rider"] and both > sets["cityscapes"]["bicycle"]
    assert sets["camvid"]["Pedestrian"] == sets["cityscapes"]["person"]


def test_same_words_with_other_meanings_stay_apart(sets: Sets) -> None:
    assert not sets["coco_panoptic"]["mouse"] & sets["youtube_vis"]["mouse"]
    assert not sets["ade20k"]["counter"] & sets["coco_panoptic"]["counter"]
    assert sets["cityscapes"]["wall"] < sets["ade20k"]["wall"]
    assert sets["cityscapes"]["truck"] > sets["wilddash2"]["pickup"]


def test_other_words_with_the_same_meaning_are_one(sets: Sets) -> None:
    assert sets["cityscapes"]["sidewalk"] == sets["camvid"]["Pavement"] == sets["coco_panoptic"]["pavement-merged"]
    assert sets["cityscapes"]["train"] == sets["mapillary"]["On Rails"]
    assert sets["nyuv2"]["floor mat"] == sets["coco_panoptic"]["rug-merged"]


def test_labels_hold_nothing_that_their_dataset_sets_apart_as_void(sets: Sets) -> None:
    """Cityscapes names these, but evaluates none; ScanNet's are in the list of 40 from which its 20 are taken."""
    void = ("parking", "rail track", "bridge", "tunnel", "polegroup", "guard rail", "caravan", "trailer")
    for street in ("cityscapes", "bdd100k", "kitti", "wilddash"):
        for name, mine in sets[street].items():
            assert not [other for other in void if mine & sets["idd"][other]], (street, name)
    for name, mine in sets["scannet"].items():
        for other in ("shelves", "dresser", "night stand", "mirror", "pillow", "lamp", "box", "books", "bag"):
            assert not mine & sets["nyuv2"][other], (name, other)


def test_the_59_classes_of_pascal_context_hold_nothing_that_its_list_of_459_has_and_they_have_not(sets: Sets) -> None:
    """All but what is rare, or small, as the notes say."""
    called = {"bedcloth": "bedclothes", "clothes": "cloth", "diningtable": "table"}
    rare = {
        *("swan", "duck", "chicken (bird)", "kart", "sidecar", "mattress", "shed", "cabinet door", "cage", "bird cage"),
        *("coop", "group of cages", "egg", "pumpkin", "crab stick", "straw", "hay", "light bulb", "flashlight", "menu"),
        *("group of light bulbs", "speed bump", "stone", "sun", "smoke", "fire truck", "swimming pool", "stick"),
        *("group of sticks", "pool table"),
    }
    for name, mine in sets["pascal_context"].items():
        theirs = sets["pascal_context_459"][called.get(name, name)]
        assert mine - theirs <= rare, name
        assert theirs <= mine or name == "ground", name
    for name, apart in (("food", "fruit"), ("tree", "plant"), ("computer", "laptop"), ("cabinet", "wardrobe")):
        assert not sets["pascal_context"][name] & sets["pascal_context_459"][apart]


def test_who_rides_a_bicycle_or_motorcycle_is_no_pedestrian(sets: Sets) -> None:
    assert not sets["camvid32"]["Pedestrian"] & sets["cityscapes"]["rider"]
    assert sets["camvid32"]["Pedestrian"] < sets["cityscapes"]["person"]
    assert sets["mapillary"]["Other Rider"] and sets["mapillary"]["Other Rider"] < sets["cityscapes"]["rider"]


def test_same_words_with_the_same_meaning_are_one(sets: Sets) -> None:
    assert sets["ade20k"]["house"] == sets["coco_panoptic"]["house"]
    assert sets["scannet"]["otherfurniture"] == sets["nyuv2"]["otherfurniture"]
    assert sets["scannet"]["cabinet"] == sets["nyuv2"]["cabinet"]
    assert sets["sunrgbd"]["cabinet"] == sets["coco_panoptic"]["cabinet-merged"]
    assert sets["wilddash2"]["pole"] == sets["cityscapes"]["pole"] > sets["mapillary"]["Pole"]
    assert sets["ade20k"]["ball"] == sets["coco_panoptic"]["sports ball"]
    assert (
        sets["sunrgbd"]["picture"]
        == sets["scannet"]["picture"]
        > sets["ade20k"]["poster, posting, placard, notice, bill, card"]
    )


def test_leftovers_hold_what_the_dataset_lacks(sets: Sets) -> None:
    assert sets["mapillary"]["Other Vehicle"] > sets["idd"]["autorickshaw"]
    assert sets["voc"]["background"] > sets["ade20k"]["sky"]
    assert not sets["voc"]["background"] & sets["voc"]["person"]


def test_leftovers_of_nyuv2_are_those_of_its_own_table(sets: Sets) -> None:
    """classMapping40 says which of its 894 words each of the 40 classes gathers."""
    whose = {
        "otherstructure": ("stove, kitchen stove", "oven", "dishwasher", "hood, exhaust hood", "light, light source"),
        "otherfurniture": ("wardrobe, closet", "ashcan, trash can", "washer, automatic washer", "radiator"),
        "otherprop": ("stool", "microwave", "monitor", "blanket", "toy"),
    }
    rooms = {name.replace("plaything, ", ""): mine for name, mine in sets["ade20k"].items()}
    for leftover, starts in whose.items():
        for start in starts:
            (mine,) = [own for name, own in rooms.items() if name == start or name.startswith(f"{start},")]
            assert mine <= sets["nyuv2"][leftover], (leftover, start)
            assert not any(mine & own for name, own in sets["nyuv2"].items() if name != leftover), (leftover, start)
    assert not sets["nyuv2"]["bag"] & sets["coco_panoptic"]["backpack"]


def test_a_label_covers_what_its_dataset_has_no_other_class_for(sets: Sets) -> None:
    assert sets["coco_panoptic"]["oven"] > sets["ade20k"]["oven"]
    assert sets["coco_panoptic"]["oven"] & sets["objects365"]["Gas stove"]
    assert sets["scannet"]["counter"] == sets["sunrgbd"]["counter"] > sets["coco_panoptic"]["counter"]
    assert sets["coco_panoptic"]["dirt-merged"] > sets["ade20k"]["dirt track"]


def test_the_table_is_found_beside_the_labels() -> None:
    assert isinstance(FOLDER, Path) and (FOLDER / "concepts.csv").is_file()
