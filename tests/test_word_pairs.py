"""The pairs that docs/words.md measures with: real labels, consistent answers; and its metrics against slow ones."""

from __future__ import annotations

import csv
import runpy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.catalog import load_label_space, load_recipe
from labelmerge.labels import LabelKey
from labelmerge.names import prompt_name

BENCHMARKS = Path(__file__).parent / "benchmarks"
HEADER = "dataset_a,index_a,name_a,dataset_b,index_b,name_b,relation,kind,reason"
KINDS = {
    "same": {"equal name", "other name"},
    "different": {"equal name", "near", "unrelated"},
    "contains": {"equal name", "other name"},
}

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    with (BENCHMARKS / "word_pairs.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return {
            **runpy.run_path(str(BENCHMARKS / "word_scores.py")),
            **runpy.run_path(str(BENCHMARKS / "bench_words.py")),
        }


def ends(row: Row) -> tuple[LabelKey, LabelKey]:
    return (row["dataset_a"], int(row["index_a"])), (row["dataset_b"], int(row["index_b"]))


def test_the_file_is_clean() -> None:
    content = (BENCHMARKS / "word_pairs.csv").read_bytes()
    assert content.decode("ascii").startswith(HEADER + "\n") and content.endswith(b"\n") and b"\r" not in content


def test_every_label_is_a_real_one(rows: list[Row]) -> None:
    datasets = {dataset for row in rows for dataset, _ in ends(row)}
    spaces = {dataset: load_label_space(load_recipe(dataset)) for dataset in datasets}
    for row in rows:
        for key, name in zip(ends(row), (row["name_a"], row["name_b"]), strict=True):
            assert spaces[key[0]].name_of(key[1]) == name, row


def test_every_pair_crosses_datasets_and_comes_once(rows: list[Row]) -> None:
    assert all(a[0] != b[0] for a, b in map(ends, rows))
    assert max(Counter(frozenset(ends(row)) for row in rows).values()) == 1


def test_every_pair_has_a_known_kind_and_a_reason(rows: list[Row]) -> None:
    for row in rows:
        equal = prompt_name(row["name_a"]) == prompt_name(row["name_b"])
        assert row["kind"] in KINDS[row["relation"]] and (row["kind"] == "equal name") == equal, row
        assert row["reason"].strip() == row["reason"] != "", row


def test_there_are_enough_of_each(rows: list[Row]) -> None:
    assert len(rows) >= 400
    counts = Counter((row["relation"], row["kind"]) for row in rows)
    assert all(counts[relation, kind] >= 15 for relation, kinds in KINDS.items() for kind in kinds), counts


def classes(rows: list[Row]) -> dict[LabelKey, LabelKey]:
    """The class of every label, named by one of its labels: what follows from "same" being transitive."""
    root = {key: key for row in rows for key in ends(row)}

    def find(key: LabelKey) -> LabelKey:
        while root[key] != key:
            key = root[key]
        return key

    for row in rows:
        if row["relation"] == "same":
            a, b = map(find, ends(row))
            root[a] = b
    return {key: find(key) for key in root}


def test_a_dataset_never_has_one_meaning_twice(rows: list[Row]) -> None:
    taken: dict[tuple[LabelKey, str], LabelKey] = {}
    for key, meaning in classes(rows).items():
        assert taken.setdefault((meaning, key[0]), key) == key, (taken[meaning, key[0]], key)


def test_the_answers_do_not_contradict_each_other(rows: list[Row]) -> None:
    """With a = b, and b contains c, a contains c: no such conclusion may be denied, and nothing contains itself."""
    meaning = classes(rows)
    below: dict[LabelKey, set[LabelKey]] = {}
    for row in rows:
        a, b = (meaning[key] for key in ends(row))
        if row["relation"] == "contains":
            below.setdefault(a, set()).add(b)
        elif row["relation"] == "different":
            assert a != b, row

    def inside(whole: LabelKey) -> set[LabelKey]:
        found: set[LabelKey] = set()
        todo = [whole]
        while todo:
            new = below.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return found

    for whole in below:
        assert whole not in inside(whole), whole
    for row in rows:
        if row["relation"] == "different":
            a, b = (meaning[key] for key in ends(row))
            assert a not in inside(b) and b not in inside(a), row


# --- the metrics, against references that go through every threshold and every label ---


def slow_average_precision(scores: Sequence[float], positive: Sequence[bool]) -> float:
    total = 0.0
    for score, is_positive in zip(scores, positive, strict=True):
        if is_positive:
            kept = [answer for other, answer in zip(scores, positive, strict=True) if other >= score]
            total += sum(kept) / len(kept)
    return total / sum(positive)


def slow_f1(chosen: Sequence[bool], positive: Sequence[bool]) -> float:
    both = sum(a and b for a, b in zip(chosen, positive, strict=True))
    if both == 0:
        return 0.0
    precision, recall = both / sum(chosen), both / sum(positive)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(20))
def test_metrics_agree_with_slow_ones(bench: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, size=30) / 8  # many ties
    positive = rng.random(30) < 0.4
    positive[0] = True
    weights = rng.integers(0, 4, size=30).astype(float)
    weights[0] = 1
    many = np.repeat(np.arange(30), weights.astype(int))  # a weight of 3 is the same as the pair coming three times
    often, answers = scores[many].tolist(), positive[many].tolist()

    assert bench["average_precision"](scores, positive, weights) == pytest.approx(
        slow_average_precision(often, answers)
    )
    assert bench["f1"](scores >= 0.5, positive, weights) == pytest.approx(slow_f1([s >= 0.5 for s in often], answers))
    value, threshold = bench["best_f1"](scores, positive, weights)
    every = {limit: slow_f1([s >= limit for s in often], answers) for limit in scores}
    assert value == pytest.approx(max(every.values())) == pytest.approx(every[threshold])


def test_a_perfect_order_has_an_average_precision_of_one(bench: dict[str, Any]) -> None:
    scores, positive = np.array([0.9, 0.2, 0.8]), np.array([True, False, True])
    assert bench["average_precision"](scores, positive, np.ones(3)) == 1
    assert bench["best_f1"](scores, positive, np.ones(3)) == (1, 0.8)


def test_one_score_for_all_is_worth_the_share_of_positives(bench: dict[str, Any]) -> None:
    positive = np.array([True, False, False, False])
    assert bench["average_precision"](np.full(4, 0.5), positive, np.ones(4)) == 0.25


def test_the_nearest_label_of_the_other_dataset_counts(bench: dict[str, Any]) -> None:
    labels = {("a", 0): [1, 0], ("b", 0): [1, 0], ("b", 1): [0.6, 0.8], ("b", 2): [0.6, 0.8], ("c", 0): [0, 1]}
    vectors = {key: np.array(vector, np.float32) for key, vector in labels.items()}
    nearest = bench["nearest_is_same"]
    assert nearest(vectors["a", 0], vectors, "b", {("b", 0)}) == 1
    assert nearest(vectors["a", 0], vectors, "b", {("b", 1)}) == 0
    assert nearest(vectors["c", 0], vectors, "b", {("b", 1)}) == 0.5  # two are equally near
    assert nearest(vectors["c", 0], vectors, "a", {("a", 0)}) == 1  # the only one there


def test_queries_go_both_ways_and_know_every_partner(bench: dict[str, Any]) -> None:
    pair = bench["Pair"]
    pairs = [
        pair(("a", 0), "x", ("b", 0), "x", "same", "equal name"),
        pair(("b", 1), "y", ("a", 0), "x", "same", "other name"),
        pair(("a", 1), "z", ("b", 2), "w", "different", "near"),
    ]
    assert bench["queries"](pairs) == {
        (("a", 0), "b"): ({("b", 0), ("b", 1)}, 0),
        (("b", 0), "a"): ({("a", 0)}, 0),
        (("b", 1), "a"): ({("a", 0)}, 1),
    }


def test_the_whole_of_it_on_a_toy_encoder(bench: dict[str, Any]) -> None:
    """An encoder that hears only which words a text has: the report is made, and words find their equals."""
    pairs = bench["read_pairs"]()
    results = bench["measure_all"](BagOfWords(), pairs, None)
    assert [measured.merge is None for measured in results] == [False] * 4 + [True, False]
    equal = np.array([pair.kind == "equal name" for pair in pairs])
    assert np.all(results[0].cosines[equal] == 1) and np.all(results[0].identical == equal)
    report = bench["report"](results, pairs, 2)
    found = results[-1].found
    assert len(found) == len(pairs) and {"same", "contains", "unrelated"} <= set(found)
    assert all((one == "same") == (iou == 1) for one, iou in zip(found, results[-1].cosines, strict=True))
    assert report.count("\n| word |") == 3 and "nan" not in report


class BagOfWords:
    """Each word is a direction of its own, of the first 64 directions."""

    spec = "bag of words"
    dim = 64
    max_tokens = 1000
    identity = {"model": "", "weights_sha256": "", "activation": "", "tokenizer": ""}

    def encode(self, texts: Sequence[str]) -> Any:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for each in text.lower().split():
                vectors[row, sum(each.encode()) % self.dim] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def count_tokens(self, texts: Sequence[str]) -> tuple[list[int], list[bool]]:
        return [len(text.split()) for text in texts], [False] * len(texts)
