"""The pairs whose relations were judged by hand: real labels, consistent judgements; and the merge agrees with them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.merge.concepts import sets_of
from labelmerge.merge.lexicon import lexicon

FILE = Path(__file__).parent / "benchmarks" / "judged_pairs.csv"
RELATIONS = {"disjoint", "same", "contains", "part_of", "overlaps"}

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    with FILE.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_pairs_are_labels_that_ship_and_come_once(rows: list[Row]) -> None:
    datasets = {row[side] for row in rows for side in ("a", "b")}
    names = {dataset: load_label_space(load_recipe(dataset)) for dataset in datasets}
    for row in rows:
        assert row["a"] != row["b"]
        for side in ("a", "b"):
            assert names[row[side]].name_of(int(row[f"{side}_index"])) == row[f"{side}_name"], row
        assert {row["judged"], row["adjudicated"], row["answer"]} <= RELATIONS
        assert row["reason"] or row["judged"] == row["adjudicated"], row
    pairs = Counter(frozenset([(row["a"], row["a_index"]), (row["b"], row["b_index"])]) for row in rows)
    assert max(pairs.values()) == 1


def test_strata_have_as_many_pairs_as_were_drawn(rows: list[Row]) -> None:
    drawn = Counter((row["sample"], row["stratum"], row["size"], row["taken"]) for row in rows)
    assert all(count == int(taken) <= int(size) for (_, _, size, taken), count in drawn.items())


def test_the_merge_agrees_with_the_judges(rows: list[Row]) -> None:
    """The slow, obvious way: sets of concepts, pair by pair."""
    known = lexicon()
    datasets = {row[side] for row in rows for side in ("a", "b")}
    keys = [key for key in known.labels if key[0] in datasets]
    kept = {dataset: how for dataset in datasets if (how := load_recipe(dataset).kept) is not None}
    found = sets_of([known.labels[key][1] for key in keys], [dataset for dataset, _ in keys], known.graph, kept)
    sets = {key: frozenset(mine.nonzero()[0].tolist()) for key, mine in zip(keys, found, strict=True)}

    def relation(row: Row) -> str:
        a, b = sets[row["a"], int(row["a_index"])], sets[row["b"], int(row["b_index"])]
        if a == b:
            return "same"
        return "contains" if a > b else "part_of" if a < b else "overlaps" if a & b else "disjoint"

    right = [row for row in rows if row["adjudicated"] == relation(row)]
    assert len(right) > 0.94 * len(rows)
    related = [row for row in rows if (row["adjudicated"] == "disjoint") == (relation(row) == "disjoint")]
    assert len(related) > 0.98 * len(rows)
