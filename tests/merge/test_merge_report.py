"""The files of the merge report."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import OutputError
from labelmerge.merge.counts import Count
from labelmerge.merge.merge import CSV_HEADER, write_merge
from labelmerge.merge.merges import by_similarity
from labelmerge.merge.report import MergeReport, merge_report
from labelmerge.merge.taxonomy import Entry, Taxonomy

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
    return merge_report(bank, taxonomy, {("a", 0): Count(1234567, 0), ("a", 1): Count(12, None)}, LIMIT)


@pytest.fixture
def written(report: MergeReport, taxonomy: Taxonomy, bank: Bank, tmp_path: Path) -> Path:
    """The folder of a report."""
    write_merge(report, taxonomy, bank, tmp_path / "merge")
    return tmp_path / "merge"


def test_every_label_is_in_the_table_with_group_nearest_label_and_counts(written: Path) -> None:
    with (written / "merge.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == CSV_HEADER
    assert [(row["dataset"], row["index"], row["group"], row["name"], row["labels"]) for row in rows] == [
        *((dataset, "0", "1", "road", "3") for dataset in "abc"),
        *(("a", "1", "0", "", "1"), ("a", "2", "0", "", "1"), ("b", "1", "0", "", "1"), ("b", "2", "0", "", "1")),
    ]
    assert rows[0]["lowest_cosine"] == "0.9962" and rows[3]["lowest_cosine"] == ""
    nearest = [(row["nearest_dataset"], row["nearest_index"], row["nearest_label"]) for row in rows]
    assert nearest[0] == ("b", "0", "road") and nearest[4] == ("b", "1", "mouse")
    assert (rows[0]["nearest_cosine"], rows[4]["nearest_cosine"]) == ("1.0000", "0.5000")
    assert [(row["pixels"], row["boxes"]) for row in rows[:4]] == [("1234567", "0"), ("", ""), ("", ""), ("12", "")]


def test_the_json_has_the_same(written: Path) -> None:
    data = json.loads((written / "merge.json").read_text())
    assert len(data["labels"]) == 7 and data["groups"][0]["name"] == "road"
    label = data["labels"][4]
    assert (label["dataset"], label["index"], label["group"]) == ("b", 1, 0)
    assert label["nearest"] == {"dataset": "a", "index": 2, "name": "mouse", "cosine": pytest.approx(0.5)}


def test_what_is_left_over_stands_apart(angle_bank: Callable[..., Bank]) -> None:
    names = {"voc": ("background", "cat"), "b": ("road", "sky", "vehicle"), "c": ("car", "bus")}
    bank = angle_bank({(d, i): (n, "", 40.0 * i) for d, own in names.items() for i, n in enumerate(own)})
    sets = {"background": ("road", "sky", "car", "bus"), "vehicle": ("car", "bus")}
    rows = zip(bank.keys, bank.names, strict=True)
    covers = merge_report(bank, Taxonomy(Entry(key, n, sets.get(n, (n,))) for key, n in rows)).covers
    assert [(cover.name, cover.rest, len(cover.parts)) for cover in covers] == [
        ("vehicle", False, 2),
        ("background", True, 3),
    ]


def test_an_edited_taxonomy_is_never_written_over(
    report: MergeReport, taxonomy: Taxonomy, bank: Bank, written: Path
) -> None:
    table = written / "taxonomy.csv"
    other = by_similarity(bank, 1.0)
    write_merge(merge_report(bank, other), other, bank, written)  # nobody edited it: another threshold, another table
    table.write_text(table.read_text().replace("curb", "kerb"))
    with pytest.raises(OutputError, match="holds an edited taxonomy"):
        write_merge(report, taxonomy, bank, written)
    assert "kerb" in table.read_text()


def test_a_table_may_leave_datasets_out(run: Any, bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank")
    rows = [f"{d},{i},{n},{n}" for (d, i), n in zip(bank.keys, bank.names, strict=True) if d == "a"]
    (tmp_path / "a.csv").write_text("\n".join(["dataset,index,name,concepts", *rows, ""]))
    out = tmp_path / "merge"
    result = run("merge", "--bank", tmp_path / "bank", "--taxonomy", tmp_path / "a.csv", "--out", out)
    assert result.exit_code == 0, result.output
    assert {label["dataset"] for label in json.loads((out / "merge.json").read_text())["labels"]} == {"a"}
