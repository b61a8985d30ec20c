"""The shipped words: the official classes in their order, and texts that mean what the datasets mean."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from labelmerge.catalog import dataset_names, load_recipe
from labelmerge.describe.lint import lint
from labelmerge.descriptions import HEADER, Description, label_space, read_descriptions
from labelmerge.names import prompt_name

COUNTS = {
    "ade20k": 150,
    "ade20k_full": 847,
    "bdd100k": 19,
    "camvid": 11,
    "camvid32": 31,
    "cityscapes": 19,
    "coco_panoptic": 133,
    "idd": 35,
    "idd_level3": 26,
    "kitti": 19,
    "mapillary": 65,
    "mapillary_v2": 123,
    "nyuv2": 40,
    "objects365": 365,
    "objects365_v1": 365,
    "openimages": 601,
    "pascal_context": 59,
    "pascal_context_459": 459,
    "scannet": 20,
    "sunrgbd": 37,
    "voc": 21,
    "wilddash": 19,
    "wilddash2": 26,
    "youtube_vis": 40,
    "youtube_vis_2019": 40,
}
FOLDER = load_recipe("cityscapes").descriptions.parent
FILES = sorted(path.stem for path in FOLDER.glob("*.csv") if path.stem not in ("concepts", "homonyms", "words"))
UNCLEAR = {
    "objects365": ["Converter", "Extractor", "Chicken", "Recorder"],
    "objects365_v1": ["converter", "chicken", "horn"],
}
"""Words whose sense the dataset documents nowhere: better no description than a guess."""

WILDDASH2_VOID = {
    *("unlabeled", "rectification border", "out of roi", "static", "dynamic", "ground", "parking", "rail track"),
    *("bridge", "tunnel", "polegroup", "caravan", "trailer"),
}
"""What the benchmark does not evaluate; its authors count polegroup as pole, and the others as unlabelled."""


def shipped(dataset: str) -> list[Description]:
    return read_descriptions(FOLDER / f"{dataset}.csv")


def rows(dataset: str) -> dict[str, Description]:
    return {row.name: row for row in shipped(dataset)}


def text(dataset: str, name: str) -> str:
    return rows(dataset)[name].description


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Description]]:
    return {dataset: shipped(dataset) for dataset in FILES}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _column(path: Path, name: str) -> list[str]:
    rows = [line.split("\t") for line in _lines(path)]
    return [row[rows[0].index(name)] for row in rows[1:]]


def _official(folder: Path) -> dict[str, list[str]]:
    return {
        "ade20k": _lines(folder / "ade20k_150.txt"),
        "ade20k_full": _column(folder / "ade20k_full_847.tsv", "name"),
        "bdd100k": _lines(folder / "bdd100k_19.txt"),
        "camvid": _lines(folder / "camvid_11_segnet_order.txt"),
        "camvid32": [name for name in _lines(folder / "camvid_32.txt") if name != "Void"],
        "cityscapes": _lines(folder / "cityscapes_19.txt"),
        "coco_panoptic": _column(folder / "coco_panoptic.tsv", "name"),
        "idd": _column(folder / "idd.tsv", "name")[:35],
        "idd_level3": _lines(folder / "idd_level3_26.txt"),
        "kitti": _lines(folder / "kitti_19.txt"),
        "mapillary": _column(folder / "mapillary_vistas_v1.2.tsv", "readable")[:65],
        "mapillary_v2": _lines(folder / "mapillary_vistas_v2.0.txt")[:-1],
        "nyuv2": _lines(folder / "nyuv2_40.txt"),
        "objects365": _lines(folder / "objects365_v2.txt"),
        "objects365_v1": _lines(folder / "objects365_v1.txt"),
        "openimages": _column(folder / "openimages_boxable_601.tsv", "name"),
        "pascal_context": _lines(folder / "pascal_context_59.txt"),
        "pascal_context_459": _lines(folder / "pascal_context_459.txt"),
        "scannet": _column(folder / "scannet_20.tsv", "name"),
        "sunrgbd": _lines(folder / "sunrgbd_37.txt"),
        "voc": _lines(folder / "voc_21.txt"),
        "wilddash": _lines(folder / "wilddash_19.txt"),
        "wilddash2": [name for name in _column(folder / "wilddash2_39.tsv", "name") if name not in WILDDASH2_VOID],
        "youtube_vis": _lines(folder / "youtube_vis_2021.txt"),
        "youtube_vis_2019": _lines(folder / "youtube_vis_2019.txt"),
    }


@pytest.mark.parametrize("dataset", COUNTS)
def test_names_are_the_official_ones_in_their_order(dataset: str, class_lists: Path) -> None:
    assert [row.name for row in shipped(dataset)] == _official(class_lists)[dataset]


@pytest.mark.parametrize("dataset", COUNTS)
def test_every_class_has_its_row(dataset: str) -> None:
    space = label_space(dataset, shipped(dataset))
    assert space.indices == tuple(range(COUNTS[dataset]))


def test_no_dataset_is_forgotten() -> None:
    assert {load_recipe(dataset).descriptions.stem for dataset in dataset_names()} <= set(FILES)
    assert set(COUNTS) <= set(FILES)


def test_landmarks_of_the_official_orders() -> None:
    """Known without the official lists at hand."""
    for dataset, index, name in [
        ("ade20k", 1, "building, edifice"),
        ("ade20k", 149, "flag"),
        ("cityscapes", 18, "bicycle"),
        ("coco_panoptic", 79, "toothbrush"),
        ("coco_panoptic", 80, "banner"),
        ("idd", 7, "animal"),
        ("idd", 34, "fallback background"),
        ("mapillary", 64, "Ego Vehicle"),
        ("objects365", 196, "Cigar/Cigarette "),
        ("openimages", 0, "Tortoise"),
        ("openimages", 600, "Helmet"),
        ("scannet", 11, "counter"),
        ("sunrgbd", 36, "bag"),
        ("voc", 0, "background"),
    ]:
        assert shipped(dataset)[index].name == name


@pytest.mark.parametrize("dataset", FILES)
def test_files_have_the_full_header(dataset: str) -> None:
    with (FOLDER / f"{dataset}.csv").open(encoding="utf-8", newline="") as stream:
        assert tuple(next(csv.reader(stream))) in (HEADER, HEADER[:-1]), "`but` is only where it is needed"


@pytest.mark.parametrize("dataset", FILES)
def test_every_class_is_described(dataset: str) -> None:
    """`labelmerge describe --lint` finds nothing but the words whose sense nobody knows, and those say why."""
    problems = lint(shipped(dataset))
    missing = [problem for problem in problems if problem.kind == "missing"]
    assert [problem for problem in problems if problem not in missing] == []
    assert sorted(problem.name for problem in missing) == sorted(UNCLEAR.get(dataset, []))
    assert all(row.note for row in shipped(dataset) if not row.description)


def test_descriptions_are_sentences_of_our_own(everything: dict[str, list[Description]]) -> None:
    for dataset, rows in everything.items():
        for row in rows:
            if row.description:
                assert row.source == "curated", (dataset, row.name)
                assert row.description[0].isupper() and row.description.endswith("."), (dataset, row.name)
                assert row.description == " ".join(row.description.split()), (dataset, row.name)
            assert not (row.revision or row.url or row.licence or row.retrieved), (dataset, row.name)


def test_what_a_shared_word_means_was_decided(everything: dict[str, list[Description]]) -> None:
    """Where datasets mean different things by one word, each of its rows says which."""
    meanings: defaultdict[str, defaultdict[str, list[tuple[str, Description]]]]
    meanings = defaultdict(lambda: defaultdict(list))
    for dataset, rows in everything.items():
        for row in rows:
            if row.description:
                meanings[prompt_name(row.name)][row.description].append((dataset, row))
    shared = {word: texts for word, texts in meanings.items() if len(texts) > 1}
    assert {"counter", "mouse", "wall", "tree", "person", "table", "pot", "bat"} <= shared.keys()
    silent = [
        (dataset, row.name)
        for texts in shared.values()
        for decided in texts.values()
        for dataset, row in decided
        if not row.note
    ]
    assert silent == []


def test_one_article_never_speaks_for_two_meanings(everything: dict[str, list[Description]]) -> None:
    """Else a refresh from Wikipedia would merge what the curated texts keep apart."""
    meanings = defaultdict(set)
    for rows in everything.values():
        for row in rows:
            if row.wikipedia:
                meanings[row.wikipedia].add(row.description)
    assert {title: texts for title, texts in meanings.items() if len(texts) > 1} == {}


SAME = [
    [(dataset, "road") for dataset in ("cityscapes", "bdd100k", "kitti", "wilddash", "idd", "coco_panoptic")]
    + [("mapillary", "Road"), ("camvid", "Road"), ("ade20k", "road, route"), ("mapillary_v2", "Road")]
    + [("camvid32", "Road"), ("wilddash2", "road"), ("ade20k_full", "road, route")],
    [
        ("cityscapes", "sidewalk"),
        ("camvid", "Pavement"),
        ("coco_panoptic", "pavement-merged"),
        ("mapillary", "Sidewalk"),
    ]
    + [("ade20k", "sidewalk, pavement"), ("idd", "sidewalk"), ("pascal_context", "sidewalk")],
    [("cityscapes", "rider"), ("bdd100k", "rider"), ("idd", "rider"), ("idd_level3", "rider")],
    [("cityscapes", "person"), ("mapillary", "Person"), ("idd", "person")],
    [("coco_panoptic", "person"), ("voc", "person"), ("openimages", "Person"), ("objects365", "Person")]
    + [("sunrgbd", "person"), ("ade20k", "person, individual, someone, somebody, mortal, soul")],
    [("cityscapes", "vegetation"), ("mapillary", "Vegetation"), ("idd", "vegetation")],
    [("camvid", "Tree"), ("coco_panoptic", "tree-merged")],
    [("cityscapes", "car"), ("camvid", "Car"), ("coco_panoptic", "car"), ("openimages", "Car"), ("objects365", "Car")]
    + [("mapillary", "Car"), ("ade20k", "car, auto, automobile, machine, motorcar"), ("objects365_v1", "car")],
    [("cityscapes", "train"), ("mapillary", "On Rails"), ("coco_panoptic", "train"), ("idd", "train")],
    [("coco_panoptic", "counter"), ("sunrgbd", "counter"), ("ade20k", "countertop"), ("openimages", "Countertop")],
    [("coco_panoptic", "mouse"), ("objects365", "Mouse"), ("objects365_v1", "mouse"), ("openimages", "Computer mouse")],
    [("openimages", "Mouse"), ("youtube_vis", "mouse")],
    [("coco_panoptic", "couch"), ("sunrgbd", "sofa"), ("ade20k", "sofa, couch, lounge"), ("voc", "sofa")]
    + [("objects365", "Couch"), ("scannet", "sofa")],
    [("coco_panoptic", "cow"), ("openimages", "Cattle"), ("objects365", "Cow"), ("voc", "cow")],
    [("mapillary", "Bird"), ("coco_panoptic", "bird"), ("voc", "bird"), ("openimages", "Bird")],
    [("sunrgbd", "blinds"), ("coco_panoptic", "window-blind"), ("ade20k", "blind, screen")],
    [("sunrgbd", "wall"), ("ade20k", "wall"), ("coco_panoptic", "wall-other-merged")],
    [("cityscapes", "wall"), ("mapillary", "Wall"), ("idd", "wall")],
    [("mapillary", "Rail Track"), ("idd", "rail track"), ("coco_panoptic", "railroad"), ("pascal_context", "track")],
    [("mapillary", "Curb"), ("mapillary_v2", "Curb"), ("idd", "curb"), ("ade20k_full", "curb, curbing, kerb")],
    [("objects365", "Traffic cone"), ("camvid32", "TrafficCone"), ("mapillary_v2", "Traffic Cone")]
    + [("ade20k_full", "traffic cone")],
    [("mapillary", "Billboard"), ("mapillary_v2", "Signage - Advertisement"), ("openimages", "Billboard")],
    [("cityscapes", "traffic sign"), ("camvid32", "SignSymbol"), ("wilddash2", "traffic sign")],
    [("objects365", "Crane"), ("ade20k_full", "crane")],
    [("ade20k", "van"), ("openimages", "Van"), ("objects365", "Van"), ("wilddash2", "van")],
]


@pytest.mark.parametrize("labels", SAME, ids=lambda labels: labels[0][1])
def test_same_meaning_same_text(labels: list[tuple[str, str]]) -> None:
    texts = {text(dataset, name) for dataset, name in labels}
    assert len(texts) == 1 and "" not in texts


DIFFERENT = [
    (("coco_panoptic", "mouse"), ("openimages", "Mouse")),
    (("ade20k", "counter"), ("coco_panoptic", "counter")),
    (("ade20k", "counter"), ("ade20k", "countertop")),
    (("cityscapes", "wall"), ("sunrgbd", "wall")),
    (("cityscapes", "person"), ("coco_panoptic", "person")),
    (("cityscapes", "rider"), ("camvid", "Bicyclist")),
    (("cityscapes", "rider"), ("mapillary", "Bicyclist")),
    (("idd", "animal"), ("mapillary", "Ground Animal")),
    (("openimages", "Tank"), ("ade20k", "tank, storage tank")),
    (("ade20k", "water"), ("coco_panoptic", "water-other")),
    (("coco_panoptic", "table-merged"), ("coco_panoptic", "dining table")),
    (("voc", "tvmonitor"), ("sunrgbd", "tv")),
    (("idd", "person"), ("idd_level3", "person / animal")),
    (("openimages", "Bat"), ("ade20k_full", "bat")),
    (("camvid", "Bicyclist"), ("camvid32", "Bicyclist")),
    (("cityscapes", "train"), ("ade20k_full", "streetcar, tram, tramcar, trolley, trolley car")),
    (("ade20k", "pier, wharf, wharfage, dock"), ("ade20k_full", "pier")),
    (("ade20k", "curtain, drape, drapery, mantle, pall"), ("ade20k", "blind, screen")),
    (("ade20k", "column, pillar"), ("ade20k", "pole")),
    (("ade20k", "earth, ground"), ("ade20k", "land, ground, soil")),
    (("cityscapes", "terrain"), ("pascal_context", "ground")),
    (("ade20k", "path"), ("ade20k", "sidewalk, pavement")),
    (("openimages", "Vehicle"), ("openimages", "Car")),
    (("wilddash2", "car"), ("wilddash2", "van")),
    (("cityscapes", "traffic sign"), ("mapillary_v2", "Traffic Sign (Front)")),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=lambda label: "-".join(label))
def test_different_meaning_different_text(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert text(*one) and text(*other) and text(*one) != text(*other)


def test_the_cityscapes_family_shares_its_words() -> None:
    for dataset in ("bdd100k", "kitti", "wilddash"):
        assert shipped(dataset) == shipped("cityscapes")
