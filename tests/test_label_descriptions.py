"""The shipped words: the official classes in their order, and texts that mean what the datasets mean."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from labelmerge.catalog import dataset_names, load_descriptions, load_recipe
from labelmerge.describe.files import HEADER, Description, label_space
from labelmerge.describe.lint import lint
from labelmerge.describe.prompts import clip_tokens, sentence

COUNTS = {
    "ade20k": 150,
    "bdd100k": 19,
    "camvid": 11,
    "cityscapes": 19,
    "coco_panoptic": 133,
    "idd": 35,
    "idd_level3": 26,
    "kitti": 19,
    "mapillary": 65,
    "nyuv2": 40,
    "objects365": 365,
    "objects365_v1": 365,
    "openimages": 601,
    "pascal_context": 59,
    "scannet": 20,
    "sunrgbd": 37,
    "voc": 21,
    "wilddash": 19,
    "youtube_vis": 40,
}
UNCLEAR = {
    "objects365": ["Converter", "Extractor", "Chicken", "Recorder"],
    "objects365_v1": ["converter", "chicken", "horn"],
}
"""Words whose sense the dataset documents nowhere: better no description than a guess."""

MAX_TOKENS = 60
"""What the shipped sentences stay below, so that no encoder cuts them off."""


def rows(dataset: str) -> dict[str, Description]:
    return {row.name: row for row in load_descriptions(load_recipe(dataset))}


def text(dataset: str, name: str) -> str:
    return rows(dataset)[name].description


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Description]]:
    return {dataset: load_descriptions(load_recipe(dataset)) for dataset in COUNTS}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _column(path: Path, name: str) -> list[str]:
    rows = [line.split("\t") for line in _lines(path)]
    return [row[rows[0].index(name)] for row in rows[1:]]


def _official(folder: Path) -> dict[str, list[str]]:
    return {
        "ade20k": _lines(folder / "ade20k_150.txt"),
        "bdd100k": _lines(folder / "bdd100k_19.txt"),
        "camvid": _lines(folder / "camvid_11_segnet_order.txt"),
        "cityscapes": _lines(folder / "cityscapes_19.txt"),
        "coco_panoptic": _column(folder / "coco_panoptic.tsv", "name"),
        "idd": _column(folder / "idd.tsv", "name")[:35],
        "idd_level3": _lines(folder / "idd_level3_26.txt"),
        "kitti": _lines(folder / "kitti_19.txt"),
        "mapillary": _column(folder / "mapillary_vistas_v1.2.tsv", "readable")[:65],
        "nyuv2": _lines(folder / "nyuv2_40.txt"),
        "objects365": _lines(folder / "objects365_v2.txt"),
        "objects365_v1": _lines(folder / "objects365_v1.txt"),
        "openimages": _column(folder / "openimages_boxable_601.tsv", "name"),
        "pascal_context": _lines(folder / "pascal_context_59.txt"),
        "scannet": _column(folder / "scannet_20.tsv", "name"),
        "sunrgbd": _lines(folder / "sunrgbd_37.txt"),
        "voc": _lines(folder / "voc_21.txt"),
        "wilddash": _lines(folder / "wilddash_19.txt"),
        "youtube_vis": _lines(folder / "youtube_vis_2021.txt"),
    }


@pytest.mark.parametrize("dataset", COUNTS)
def test_names_are_the_official_ones_in_their_order(dataset: str, class_lists: Path) -> None:
    assert [row.name for row in load_descriptions(load_recipe(dataset))] == _official(class_lists)[dataset]


@pytest.mark.parametrize("dataset", COUNTS)
def test_every_class_has_its_row(dataset: str) -> None:
    space = label_space(dataset, load_descriptions(load_recipe(dataset)))
    assert space.indices == tuple(range(COUNTS[dataset]))


def test_no_dataset_is_forgotten() -> None:
    assert set(dataset_names()) == set(COUNTS)


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
        assert load_descriptions(load_recipe(dataset))[index].name == name


@pytest.mark.parametrize("dataset", COUNTS)
def test_files_have_the_full_header(dataset: str) -> None:
    with load_recipe(dataset).descriptions.open(encoding="utf-8", newline="") as stream:
        assert tuple(next(csv.reader(stream))) == HEADER


@pytest.mark.parametrize("dataset", COUNTS)
def test_every_class_is_described(dataset: str) -> None:
    problems = lint(load_descriptions(load_recipe(dataset)))
    missing = [problem for problem in problems if problem.kind == "missing"]
    assert [problem for problem in problems if problem not in missing] == []
    assert sorted(problem.name for problem in missing) == sorted(UNCLEAR.get(dataset, []))


def test_sentences_stay_short(everything: dict[str, list[Description]]) -> None:
    longest = max(
        (clip_tokens(sentence(row.name, row.description)), dataset, row.name)
        for dataset, rows in everything.items()
        for row in rows
    )
    assert longest[0] < MAX_TOKENS, longest


def test_descriptions_are_sentences_of_our_own(everything: dict[str, list[Description]]) -> None:
    for dataset, rows in everything.items():
        for row in rows:
            if row.description:
                assert row.source == "curated", (dataset, row.name)
                assert row.description[0].isupper() and row.description.endswith("."), (dataset, row.name)
                assert row.description == " ".join(row.description.split()), (dataset, row.name)
            assert not (row.revision or row.url or row.licence or row.retrieved), (dataset, row.name)


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
    + [("mapillary", "Road"), ("camvid", "Road"), ("ade20k", "road, route")],
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
    [("mapillary", "Rail Track"), ("idd", "rail track"), ("coco_panoptic", "railroad")],
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
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=lambda label: "-".join(label))
def test_different_meaning_different_text(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert text(*one) and text(*other) and text(*one) != text(*other)


def test_the_cityscapes_family_shares_its_words() -> None:
    for dataset in ("bdd100k", "kitti", "wilddash"):
        assert load_descriptions(load_recipe(dataset)) == load_descriptions(load_recipe("cityscapes"))
