from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey
from labelmerge.merge.clustering import calibrated_threshold, cosines_of, linkage, seriation
from labelmerge.merge.counts import Count
from labelmerge.merge.merges import by_similarity
from labelmerge.merge.report import MergeReport, Pair, merge_report

MakeBank = Callable[..., Bank]


def similar(bank: Bank, threshold: float | None = None, counts: dict[LabelKey, Count] | None = None) -> MergeReport:
    return merge_report(bank, by_similarity(bank, threshold), counts, threshold)


def angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


def names(pairs: tuple[Pair, ...]) -> list[tuple[str, str]]:
    return [(f"{pair.a.dataset} {pair.a.name}", f"{pair.b.dataset} {pair.b.name}") for pair in pairs]


@pytest.fixture
def bank(make_bank: MakeBank) -> Bank:
    return make_bank(
        {
            ("a", 0): ("road: x", angle(0)),
            ("a", 1): ("curb: x", angle(9)),
            ("a", 2): ("mouse: the animal", angle(180)),
            ("a", 3): ("sky: x", angle(90)),
            ("b", 0): ("road: x", angle(0)),
            ("b", 1): ("mouse: the device", angle(240)),
            ("b", 2): ("lane: x", angle(20)),
            ("c", 0): ("street: x", angle(-5)),
            ("c", 1): ("heaven: x", angle(105)),
        }
    )


def test_labels_that_mean_the_same_are_grouped_and_clashes_are_told(bank: Bank) -> None:
    report = similar(bank, threshold=float(np.cos(np.radians(10))))
    (group,) = report.groups
    assert [member.key for member in group.members] == [("a", 0), ("b", 0), ("c", 0)] and group.name == "road"
    assert group.lowest == pytest.approx(np.cos(np.radians(5)), abs=1e-6)
    assert [member.name for member in report.alone] == ["curb", "mouse", "sky", "mouse", "lane", "heaven"]
    assert (report.concepts, report.calibrated) == (7, False)
    assert names(report.same_name) == [("a mouse", "b mouse")]
    assert names(report.other_name) == [("a road", "c street")]
    assert names(report.same_dataset) == [("a road", "a curb")]
    # 11, 14, 15 and 25 degrees; road and lane are one dataset's own.
    assert names(report.near_misses) == [
        ("a curb", "b lane"),
        ("a curb", "c street"),
        ("a sky", "c heaven"),
        ("b lane", "c street"),
    ]


def test_groups_do_not_chain(make_bank: MakeBank) -> None:
    steps = make_bank({(name, 0): (f"label {name}: x", angle(8 * n)) for n, name in enumerate("abcdef")})
    report = similar(steps, threshold=float(np.cos(np.radians(10))))
    assert [[member.dataset for member in group.members] for group in report.groups] == [
        ["a", "b"],
        ["c", "d"],
        ["e", "f"],
    ]
    for group in report.groups:
        assert group.lowest >= report.threshold


def test_equal_texts_merge_at_any_threshold(bank: Bank) -> None:
    (group,) = similar(bank, threshold=1.0).groups
    assert [member.key for member in group.members] == [("a", 0), ("b", 0)] and group.lowest == 1


def test_one_datasets_labels_are_never_merged(bank: Bank) -> None:
    for group in similar(bank, threshold=-1.0).groups:
        owners = [member.dataset for member in group.members]
        assert len(set(owners)) == len(owners)


def test_the_threshold_comes_from_labels_that_datasets_tell_apart(bank: Bank, make_bank: MakeBank) -> None:
    cosines = cosines_of(bank.vectors)
    own = [cosines[i, j] for i, j in combinations(range(len(bank)), 2) if bank.keys[i][0] == bank.keys[j][0]]
    assert calibrated_threshold(bank) == pytest.approx(np.quantile(own, 0.9999), abs=1e-6)
    words = replace(bank, prompt=WORD_TEMPLATE, version="")
    assert calibrated_threshold(words) == pytest.approx(np.quantile(own, 0.999), abs=1e-6)
    assert similar(bank).calibrated
    assert calibrated_threshold(make_bank({("a", 0): ("road", angle(0)), ("b", 0): ("sky", angle(9))})) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_linkage_is_complete_linkage(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(30, 4))
    similarity = (vectors @ vectors.T).astype(np.float32)
    clusters = {thing: [thing] for thing in range(30)}
    for number, (a, b, height) in enumerate(linkage(similarity), start=30):
        slow = {
            (i, j): min(similarity[x, y] for x in clusters[i] for y in clusters[j])
            for i, j in combinations(clusters, 2)
        }
        (i, j), best = max(slow.items(), key=lambda item: item[1])
        assert height == best and {a, b} == {i, j}
        clusters[number] = clusters.pop(i) + clusters.pop(j)
    assert len(clusters) == 1


def test_similar_labels_stand_together(bank: Bank) -> None:
    order = seriation(bank)
    assert sorted(order.tolist()) == list(range(len(bank)))
    place = {bank.keys[row]: position for position, row in enumerate(order)}
    assert abs(place["a", 0] - place["b", 0]) == 1
    assert abs(place["a", 3] - place["c", 1]) == 1


def test_two_thousand_labels_are_each_told_once(make_bank: MakeBank) -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 8))
    many = make_bank({(f"d{n % 9}", n): (f"thing {n}: x", vector.tolist()) for n, vector in enumerate(vectors)})
    report = similar(many)
    assert sum(len(group.members) for group in report.groups) + len(report.alone) == 2000
    assert sorted(seriation(many).tolist()) == list(range(2000))


def test_pixels_and_boxes_are_added_up(bank: Bank) -> None:
    counts = {("a", 0): Count(5, 2), ("b", 0): Count(7), ("a", 1): Count(0)}
    report = similar(bank, float(np.cos(np.radians(10))), counts)
    (group,) = report.groups
    assert (group.pixels, group.boxes) == (12, 2) and report.counted == ("a", "b")
    assert [(member.pixels, member.boxes) for member in group.members] == [(5, 2), (7, None), (None, None)]
    assert report.alone[0].pixels == 0
    plain = similar(bank)
    assert plain.groups[0].pixels is None and plain.counted == ()


@pytest.mark.parametrize("threshold", [float("nan"), 1.1])
def test_a_threshold_is_a_cosine(bank: Bank, threshold: float) -> None:
    with pytest.raises(UsageError, match="it must be from -1 to 1"):
        similar(bank, threshold)


def test_a_single_label_is_alone(make_bank: MakeBank) -> None:
    one = make_bank({("a", 0): ("road", [1.0, 0])})
    assert [member.name for member in similar(one).alone] == ["road"] and seriation(one).tolist() == [0]


def test_the_command(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    result = run(
        "merge", "--bank", tmp_path / "bank", "--out", tmp_path / "merge", "--merge", "similar", "--threshold", "0.985"
    )
    assert result.exit_code == 0, result.output
    assert (
        "9 labels, 7 concepts: 3 labels in 1 class of several datasets, 6 alone" in result.stdout
        and "merge.html" in result.stdout
    )
    report = json.loads((tmp_path / "merge" / "merge.json").read_text())
    member = {
        "dataset": "a",
        "index": 0,
        "name": "road",
        "text": "road: x",
        "concepts": ["road"],
        "pixels": None,
        "boxes": None,
    }
    assert report["groups"][0]["members"][0] == member
    table = (tmp_path / "merge" / "merge.csv").read_text().splitlines()
    assert len(table) == 10 and table[1].startswith("1,road,3,0.9962,a,0,road,road,road: x")
    page = (tmp_path / "merge" / "merge.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "heaven" in page
    assert "http:" not in page and "https:" not in page  # nothing to fetch
    none = run("merge", "--bank", tmp_path / "nothing", "--out", tmp_path / "merge")
    assert none.exit_code == 1 and "no bank here" in none.stderr


def test_the_page_shows_names_as_they_are(make_bank: MakeBank, tmp_path: Path, run: Any) -> None:
    make_bank({("a", 0): ("<script>alert(1)</script>", [1.0, 0])}).save(tmp_path)
    assert run("merge", "--merge", "text", "--bank", tmp_path, "--out", tmp_path / "out").exit_code == 0
    html = (tmp_path / "out" / "merge.html").read_text()
    assert "<script>alert" not in html and "alert(1)" in html
