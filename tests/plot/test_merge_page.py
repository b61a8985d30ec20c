"""The page of the merge report: what is in it, and how it works in a real browser."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.merge.counts import Count
from labelmerge.merge.label_lines import label_lines
from labelmerge.merge.merges import by_similarity
from labelmerge.merge.report import MergeReport, merge_report
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.plot.layout import flat_map
from labelmerge.plot.merge_page import content
from labelmerge.plot.merge_page.content import pack_cosines
from labelmerge.plot.merge_page.page import merge_page, short_number, write_merge_page

ROAD = ("road", "A road is for cars.", 0.0)


@pytest.fixture
def bank(angle_bank: Callable[..., Bank]) -> Bank:
    return angle_bank(
        {
            ("a", 0): ROAD,
            ("a", 1): ("curb", "A curb is an edge.", 9.0),
            ("a", 2): ("mouse", "A mouse is an animal.", 180.0),
            ("b", 0): ROAD,
            ("b", 1): ("mouse", "A mouse is a device.", 240.0),
            ("b", 2): ("<script>alert(1)</script>", "It's </script> & <b>.", 90.0),
            ("c", 0): ("street", "A street is for cars.", -5.0),
        }
    )


LIMIT = float(np.cos(np.radians(10)))


@pytest.fixture
def taxonomy(bank: Bank) -> Taxonomy:
    return by_similarity(bank, LIMIT)


@pytest.fixture
def report(bank: Bank, taxonomy: Taxonomy) -> MergeReport:
    counts = {("a", 0): Count(1234567, 0), ("a", 1): Count(12, None)}
    return merge_report(bank, taxonomy, counts, LIMIT)


@pytest.fixture
def page(report: MergeReport, taxonomy: Taxonomy, bank: Bank, tmp_path: Path) -> Path:
    write_merge_page(report, taxonomy, bank, tmp_path / "merge.html")
    return tmp_path / "merge.html"


def data_of(html: str) -> Any:
    """What the page's script draws from."""
    return json.loads(html.split('<script type="application/json" id="data">')[1].split("</script>")[0])


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "poster")
        ]


def test_the_page_asks_for_nothing(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    links = _Links()
    links.feed(html)
    assert links.links and all(link.startswith("#") for link in links.links)
    assert "default-src 'none'" in html  # so a browser would refuse
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(", html)


def test_the_same_bank_gives_the_same_page_and_names_stay_text(
    page: Path, report: MergeReport, taxonomy: Taxonomy, bank: Bank
) -> None:
    html = page.read_bytes()
    assert b"<script>alert" not in html and rb"\u003cscript\u003ealert" in html
    write_merge_page(report, taxonomy, bank, page)
    assert page.read_bytes() == html


def test_cosines_are_packed_row_by_row(bank: Bank) -> None:
    vectors = bank.columns()[1]
    low, packed = pack_cosines(vectors)
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i + 1, len(vectors))]
    for byte, (i, j) in zip(packed, pairs, strict=True):
        assert low + (1 - low) * byte / 255 == pytest.approx(max(low, float(vectors[i] @ vectors[j])), abs=0.005)
    assert pack_cosines(vectors[:1]) == (0.0, b"")


def test_two_thousand_labels_fit_a_page(angle_bank: Callable[..., Bank], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "flat_map", lambda vectors, seed: np.zeros((len(vectors), 2)))
    text = "A thing is something that looks like nothing else in this dataset, of wood or metal, which people " * 2
    flat = angle_bank({(f"d{n % 9}", n): (f"thing {n}", text + str(n), 0) for n in range(2000)})
    vectors = np.random.default_rng(0).normal(size=(2000, 16))
    many = replace(flat, vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    taxonomy = by_similarity(many)
    report = merge_report(many, taxonomy)
    html = merge_page(report, taxonomy, many, label_lines(report, many))
    assert len(html) < 5_000_000 and html.count("<tr") < 20  # the rows are built when they are seen
    assert len(data_of(html)["labels"]) == 2000


def test_the_page_tells_which_labels_cover_others(angle_bank: Callable[..., Bank]) -> None:
    person = ("person", "A person is a human being.", 0.0)
    bank = angle_bank(
        {
            ("coarse", 0): person,
            ("coarse", 1): ("sky", "Blue.", 90.0),
            ("fine", 0): person,
            ("fine", 1): ("rider", "A rider is a person on a bicycle.", 40.0),
            ("fine", 2): ("sea", "Wet.", 95.0),
        }
    )
    sets = {("coarse", 0): ("person", "rider"), ("fine", 0): ("person",), ("fine", 1): ("rider",)}
    notes = {("fine", 1): ("text", 0.4, "may also mean: jockey")}
    taxonomy = Taxonomy(
        Entry(key, name, sets.get(key, (name,)), *notes.get(key, ("curated",)))
        for key, name in zip(bank.keys, bank.names, strict=True)
    )
    report = merge_report(bank, taxonomy)
    data = data_of(merge_page(report, taxonomy, bank, label_lines(report, bank)))
    classes = [[entry[0], [data["concepts"][concept] for concept in entry[1]]] for entry in data["classes"]]
    class_of = [label[5] for label in data["labels"]]
    assert [classes[place] for place in class_of] == [
        ["person", ["person", "rider"]],
        ["sky", ["sky"]],
        ["person", ["person"]],
        ["rider", ["rider"]],
        ["sea", ["sea"]],
    ]
    ((whole, parts, rest),) = data["covers"]
    assert rest == 0
    assert whole == class_of[0] and {part[0] for part in parts} == {class_of[2], class_of[3]}
    evidence = {part[0]: (data["evidence"][part[2]], part[3]) for part in parts}
    assert evidence == {class_of[2]: ("curated", 1.0), class_of[3]: ("curated+text", 0.4)}
    assert data["doubts"] == [3]
    ((a, b, _, relation),) = data["pairs"]["same-name"]
    assert (a, b, relation) == (0, 2, "contains")
    assert (data["labels"][3][8], data["labels"][3][9]) == (0.4, "may also mean: jockey")


def test_labels_of_one_dataset_with_one_set_are_one_class(angle_bank: Callable[..., Bank]) -> None:
    bank = angle_bank({("a", 0): ROAD, ("a", 1): ("lane", "A lane.", 3.0), ("b", 0): ("sky", "Blue.", 90.0)})
    words = ["road", "road", "sky"]
    taxonomy = Taxonomy(Entry(key, name, (word,)) for key, name, word in zip(bank.keys, bank.names, words, strict=True))
    report = merge_report(bank, taxonomy)
    data = data_of(merge_page(report, taxonomy, bank, label_lines(report, bank)))
    assert (data["merged"], len(data["classes"])) == (0, 2)
    assert [label[5] for label in data["labels"]] == [0, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 12])
def test_a_map_of_any_size_lies_in_the_unit_square(count: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = flat_map(vectors, seed=3)
    assert places.shape == (count, 2) and (places >= -1e-9).all() and (places <= 1 + 1e-9).all()
    np.testing.assert_array_equal(places, flat_map(vectors, seed=3))


def test_a_map_keeps_neighbours_and_survives_equal_and_empty_vectors() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 8)
    vectors = np.repeat(centres, 10, axis=0) + rng.normal(size=(40, 8)) * 0.05
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    places = flat_map(vectors)
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(40) * 9
    assert (gaps.argmin(axis=1) // 10 == np.arange(40) // 10).all()
    assert np.isfinite(flat_map(np.zeros((9, 3), np.float32))).all()
    assert np.isfinite(flat_map(np.ones((9, 1), np.float32))).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (12345, "12.3 k"), (4_560_000, "4.56 M"), (10**13, "10,000 G")],
)
def test_short_numbers(value: int, text: str) -> None:
    assert short_number(value) == text


def test_the_command_counts_what_shards_hold(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    where = ("--bank", tmp_path / "bank", "--out", tmp_path / "merge")
    result = run("merge", *where, "--threshold", "0.985", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "merge" / "merge.json").read_text())
    none = run("merge", *where, "--shards", tmp_path / "bank")
    assert none.exit_code == 1 and none.stderr.count("\n") == 1 and "shards" in none.stderr
    (tmp_path / "file").write_text("")
    blocked = run("merge", "--bank", tmp_path / "bank", "--out", tmp_path / "file")
    assert blocked.exit_code == 2 and "Traceback" not in blocked.output
    (tmp_path / "merge" / "merge.html").unlink()
    (tmp_path / "merge" / "merge.html").mkdir()
    folder = run("merge", *where)
    assert folder.exit_code == 1 and "a folder is where a file must go" in folder.stderr


def test_the_command_reads_real_shards(run: Any, angle_bank: Callable[..., Bank], tmp_path: Path) -> None:
    for folder in "images", "masks":
        (tmp_path / "data" / folder).mkdir(parents=True)
    mask = np.array([[0, 0, 0, 1], [0, 1, 255, 255]], np.uint8)
    Image.fromarray(mask).save(tmp_path / "data" / "masks" / "x.png")
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(tmp_path / "data" / "images" / "x.png")
    (tmp_path / "tiny.csv").write_text("index,name,description\n0,road,A road.\n1,sky,The sky.\n")
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nannotation_type = "mask"\nreader = "index_png"\n'
        'descriptions = "tiny.csv"\nimage_format = "png"\n'
        '[layout]\nimages = "images/*.png"\nmasks = "masks/{stem}.png"\n[ids]\nignore = [255]\n'
    )
    shards = tmp_path / "shards"
    made = run("shard", tmp_path / "tiny.toml", "--root", tmp_path / "data", "--split", "train", "--out", shards)
    assert made.exit_code == 0, made.output
    angle_bank({("tiny", 0): ROAD, ("tiny", 1): ("sky", "", 90.0), ("other", 0): ROAD}).save(tmp_path / "bank")
    result = run("merge", "--bank", tmp_path / "bank", "--shards", shards, "--out", tmp_path / "merge")
    assert result.exit_code == 0, result.output
    with (tmp_path / "merge" / "merge.csv").open(encoding="utf-8", newline="") as stream:
        counts = {(row["dataset"], row["label"]): row["pixels"] for row in csv.DictReader(stream)}
    assert counts == {("tiny", "road"): "4", ("tiny", "sky"): "2", ("other", "road"): ""}
    assert 'data-sort="pixels"' in (tmp_path / "merge" / "merge.html").read_text()
    angle_bank({("tiny", 0): ROAD, ("tiny", 1): ("heaven", "", 90.0)}).save(tmp_path / "other")
    wrong = run("merge", "--bank", tmp_path / "other", "--shards", shards, "--out", tmp_path / "none")
    assert wrong.exit_code == 1 and wrong.stderr.count("\n") == 1 and "'sky'" in wrong.stderr
    assert not (tmp_path / "none").exists()
