"""`eval` by concepts, with relations, and with one list for several sets: against loops over pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import TaxonomyError, UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.evaluate.mixed import MixedList
from labelmerge.labels import LabelSpace
from labelmerge.merge.baselines import one_hot_bank, shared_bank
from labelmerge.merge.columns import build_columns
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.methods.inference import LabelVectors, segment
from labelmerge.methods.meaning import reachable
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.restore import load_trained

STREETS = LabelSpace.of("streets", ["person", "rider", "car", "truck"])
FOLK = LabelSpace.of("folk", ["people", "vehicle", "zebra"])
MEANT = {
    ("streets", 0): "person",
    ("streets", 1): "rider",
    ("streets", 2): "car",
    ("streets", 3): "truck",
    ("folk", 0): "person;rider",
    ("folk", 1): "car;truck",
    ("folk", 2): "zebra",
}
SIZES = [(24, 33), (40, 17)]

Image = npt.NDArray[np.uint8]


def taxonomy() -> Taxonomy:
    names = {key: name for space in (STREETS, FOLK) for key, name in zip(space.keys, space.names, strict=True)}
    return Taxonomy(Entry(key, names[key], tuple(cell.split(";"))) for key, cell in MEANT.items())


def images(seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [
        np.kron(rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3)), np.ones((8, 8, 1))).astype(np.uint8)[:h, :w]
        for h, w in SIZES
    ]


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """A run on `streets` by concepts, and shards of both sets whose truth is chance."""
    rows = [
        (space.name, key[1], name, f"About {name}.")
        for space in (STREETS, FOLK)
        for key, name in zip(space.keys, space.names, strict=True)
    ]
    bank = tools.bank(rows)
    bank.save(tmp_path / "bank")
    trained = shared_bank(bank, ["streets"], taxonomy())
    columns = build_columns(trained, [STREETS], None, taxonomy())
    may = tuple(tuple(columns.labels[row] for row in np.flatnonzero(own)) for own in columns.positive.T)
    meta = Vocabulary(tools.dim, ("streets",), columns.texts, may).to_meta()
    del meta["label_dim"]
    tools.run(
        tmp_path / "run",
        trained,
        config={"merge": "concepts", "taxonomy": "t.csv"},
        meta={**meta, "label_dim": tools.dim, "merge": "concepts"},
        taxonomy=taxonomy().table(),
    )
    (tmp_path / "t.csv").write_text(taxonomy().table())
    for number, space in enumerate((STREETS, FOLK)):
        rng = np.random.default_rng(number)
        truths = [rng.choice([*space.indices, 255], image.shape[:2]).astype(np.uint8) for image in images(number)]
        samples = [(tools.png(i), tools.png(t)) for i, t in zip(images(number), truths, strict=True)]
        tools.split(tmp_path / "shards" / space.name / "val", space, samples)
    return tmp_path


def pixels(
    world: Path, space: LabelSpace, vectors: LabelVectors | npt.NDArray[np.float32]
) -> tuple[list[int], list[int]]:
    """Truth and prediction of every labelled pixel, by whichever of these vectors is nearest."""
    number = (STREETS, FOLK).index(space)
    rng = np.random.default_rng(number)
    model = load_trained(world / "run").learner.model
    truth: list[int] = []
    seen: list[int] = []
    for image in images(number):
        mask = rng.choice([*space.indices, 255], image.shape[:2]).astype(np.uint8)
        found = segment(model, image, vectors, tau=1)
        truth += mask[mask != 255].tolist()
        seen += found[mask != 255].tolist()
    return truth, seen


def columns_and_zebra(bank: Bank) -> LabelVectors:
    """The four columns, and zebra's own vector, whose cosines are measured by the largest that these can have."""
    columns, zebra = bank.rows(STREETS.keys), bank.rows([("folk", 2)])
    divisors = np.sqrt(reachable(columns, zebra))
    assert divisors < 0.97
    return LabelVectors(np.zeros((5, 1)), [*columns[:, None], zebra], [*np.ones((4, 1), np.float32), divisors])


def mean_iou(truth: list[int], seen: list[int], classes: int) -> float:
    ious = []
    for k in range(classes):
        either = sum(t == k or s == k for t, s in zip(truth, seen, strict=True))
        both = sum(t == k and s == k for t, s in zip(truth, seen, strict=True))
        ious += [both / either] if either else []
    return sum(ious) / len(ious)


def test_a_label_scores_as_the_best_of_its_concepts(world: Path) -> None:
    results = evaluate(world / "run", [world / "shards"], world / "bank", world / "r.json")
    folk, streets = results.sets
    bank = Bank.load(world / "bank")
    truth, seen = pixels(world, FOLK, columns_and_zebra(bank))
    assert folk.metrics.miou == pytest.approx(mean_iou(truth, [[0, 0, 1, 1, 2][place] for place in seen], 3))
    truth, seen = pixels(world, STREETS, bank.rows(STREETS.keys))
    assert streets.metrics.miou == pytest.approx(mean_iou(truth, seen, 4))
    data = json.loads((world / "r.json").read_text())
    assert data == results.to_json() and data["protocol"]["by"] == "concepts"
    rows = data["sets"][0]["classes"]
    assert [(row["vectors"], sorted(row["columns"])) for row in rows] == [
        (2, ["person", "rider"]),
        (2, ["car", "truck"]),
        (1, []),
    ]
    assert "ambiguity_aware" not in data["sets"][0] and "mixed" not in data  # nothing is related within a set


def test_a_label_that_a_set_was_not_annotated_for_is_no_mistake(world: Path) -> None:
    path = world / "shards/streets/val/manifest.json"
    manifest = json.loads(path.read_text())
    text = 'name = "streets"\nannotated = ["person", "car"]\n'
    manifest["recipe"] |= {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    before = evaluate(world / "run", [world / "shards"], world / "bank", world / "before.json", mixed=True)
    path.write_text(json.dumps(manifest))
    results = evaluate(world / "run", [world / "shards"], world / "bank", world / "r.json", mixed=True)
    folk, streets = results.sets
    assert folk.to_json()["mixed"] == before.sets[0].to_json()["mixed"] and folk.ambiguity is None
    assert streets.metrics.miou == before.sets[1].metrics.miou, "the plain figure stays as it is"
    truth, seen = pixels(world, STREETS, Bank.load(world / "bank").rows(STREETS.keys))
    wrong = [(t, s) for t, s in zip(truth, seen, strict=True) if t != s and s in (0, 2)]
    either = [truth.count(k) + sum(s == k for _, s in wrong) for k in range(4)]
    right = [sum(t == k == s for t, s in zip(truth, seen, strict=True)) for k in range(4)]
    aware = streets.to_json()["ambiguity_aware"]
    assert aware["miou"] == pytest.approx(np.mean([r / e for r, e in zip(right, either, strict=True)]))
    assert aware["wrong"] == len(wrong) / len(truth) and aware["open"] > 0
    mixed, earlier = streets.to_json()["mixed"], before.sets[1].to_json()["mixed"]
    assert mixed["right"] == earlier["right"] and mixed["open"] > earlier["open"] and mixed["wrong"] < earlier["wrong"]
    assert "with relations %" in results.table()


def test_by_text_each_label_has_its_own_vector(world: Path) -> None:
    results = evaluate(world / "run", [world / "shards/folk"], world / "bank", world / "r.json", by="text")
    truth, seen = pixels(world, FOLK, Bank.load(world / "bank").rows(FOLK.keys))
    assert results.sets[0].metrics.miou == pytest.approx(mean_iou(truth, seen, 3))
    assert results.protocol["by"] == "text" and "columns" not in results.to_json()["sets"][0]["classes"][0]
    assert "--by text" in results.reproduce


def test_one_list_for_both_sets(world: Path) -> None:
    results = evaluate(
        world / "run", [world / "shards"], world / "bank", world / "r.json", mixed=True, taxonomy=world / "t.csv"
    )
    listed = MixedList.of([FOLK, STREETS], taxonomy())
    content = results.to_json()["mixed"]
    assert [row["name"] for row in content["labels"]] == list(listed.names)
    # What narrower labels of the list stand for altogether is theirs.
    assert {row["name"]: row["vectors"] for row in content["labels"]} == {
        **dict.fromkeys(["person", "rider", "car", "truck", "zebra"], 1),
        **dict.fromkeys(["people", "vehicle"], 0),
    }
    bank = Bank.load(world / "bank")
    every = columns_and_zebra(bank)
    meant = ["person", "rider", "car", "truck", "zebra"]
    expected = []
    for space, result in zip((FOLK, STREETS), results.sets, strict=True):
        truth, seen = pixels(world, space, every)
        sets = [set(MEANT[key].split(";")) for key in space.keys]
        ious = []
        for k, own in enumerate(sets):
            right = sum(t == k and meant[s] in own for t, s in zip(truth, seen, strict=True))
            either = sum(t == k or meant[s] in own for t, s in zip(truth, seen, strict=True))
            ious += [right / either] if either else []
        expected.append(sum(ious) / len(ious))
        assert result.mixed is not None and result.mixed.miou == pytest.approx(expected[-1])
        assert result.to_json()["mixed"]["open"] == 0
    assert content["miou"] == pytest.approx(sum(expected) / 2)
    # Its own labels are measured beside it as ever.
    alone = evaluate(world / "run", [world / "shards"], world / "bank", world / "alone.json")
    assert [r.metrics.miou for r in alone.sets] == [r.metrics.miou for r in results.sets]
    assert results.harmonic_mean == alone.harmonic_mean
    assert "mixed %" in results.table() and "mixed %" not in alone.table()
    from labelmerge.compare.records import read_results

    figures = {name: entry.figures for name, entry in read_results(world / "r.json").sets.items()}
    assert [figures[result.name].get("mixed") for result in results.sets] == pytest.approx(expected)


def test_one_list_by_text_has_each_label_once(world: Path) -> None:
    results = evaluate(
        world / "run", [world / "shards"], world / "bank", world / "r.json",
        mixed=True, taxonomy=world / "t.csv", by="text",
    )  # fmt: skip
    bank = Bank.load(world / "bank")
    listed = MixedList.of([FOLK, STREETS], taxonomy())
    firsts = [own[0] for own in listed.members]
    assert all(len(own) == 1 for own in listed.members)  # no label of one set is one of the other's
    for space, result in zip((FOLK, STREETS), results.sets, strict=True):
        truth, seen = pixels(world, space, bank.rows(firsts))
        right = open_ = 0
        for t, s in zip(truth, seen, strict=True):
            own, found = set(MEANT[space.keys[t]].split(";")), set(MEANT[firsts[s]].split(";"))
            right += found <= own
            open_ += bool(found & own) and not found <= own
        assert result.mixed is not None
        assert (result.mixed.right, result.mixed.open) == (right / len(truth), open_ / len(truth))


def test_related_labels_of_one_set(world: Path) -> None:
    rows = [(key, "person;rider" if key == ("streets", 0) else cell) for key, cell in MEANT.items()]
    names = {key: name for space in (STREETS, FOLK) for key, name in zip(space.keys, space.names, strict=True)}
    nested = Taxonomy(Entry(key, names[key], tuple(cell.split(";"))) for key, cell in rows)
    (world / "nested.csv").write_text(nested.table())
    args = (world / "run", [world / "shards/streets"], world / "bank")
    results = evaluate(*args, world / "r.json", taxonomy=world / "nested.csv")
    truth, seen = pixels(world, STREETS, Bank.load(world / "bank").rows(STREETS.keys))
    # A rider that is called a person is missed, and nobody's mistake; a person that is called a rider is right.
    pairs = list(zip(truth, seen, strict=True))
    ious = []
    for k in range(4):
        right = sum(t == k and (s == k or (k == 0 and s == 1)) for t, s in pairs)
        whole = sum(t == k for t, _ in pairs) + sum(
            s == k and t != k and (t, s) not in ((0, 1), (1, 0)) for t, s in pairs
        )
        ious.append(right / whole)
    figures = results.sets[0].ambiguity
    assert figures is not None and figures.miou == pytest.approx(np.mean(ious))
    assert results.sets[0].metrics.miou == pytest.approx(mean_iou(truth, seen, 4))
    entry = results.to_json()["sets"][0]
    assert entry["ambiguity_aware"]["miou"] == figures.miou
    assert entry["classes"][0]["ambiguity_aware_iou"] == pytest.approx(ious[0])
    assert "with relations %" in results.table()


def test_a_set_without_any_vector_scores_0_and_the_others_are_measured(world: Path, tools: Any) -> None:
    bank = Bank.load(world / "bank")
    naive = one_hot_bank(bank, ["streets"])
    tools.run(world / "naive", naive, dim=4)
    results = evaluate(world / "naive", [world / "shards"], None, world / "r.json")
    folk, streets = results.sets
    assert folk.metrics.miou == 0 and folk.images == 0 and "no label has a vector" in folk.why_zero
    assert streets.metrics.miou > 0 and streets.why_zero == "" and results.harmonic_mean == 0
    data = json.loads((world / "r.json").read_text())
    assert data["sets"][0]["why_zero"] == folk.why_zero and data["sets"][0]["miou"] == 0
    assert "folk-val: no label has a vector" in results.table()
    from labelmerge.compare.records import read_results

    assert read_results(world / "r.json").sets["folk-val"].figures["miou"] == 0
    both = evaluate(
        world / "naive", [world / "shards"], None, world / "m.json", mixed=True, taxonomy=world / "t.csv"
    ).sets
    assert both[0].metrics.miou == 0 and both[0].mixed is not None and both[0].mixed.right > 0


def test_a_run_whose_columns_are_texts_has_no_concepts(world: Path, tools: Any) -> None:
    bank = Bank.load(world / "bank")
    tools.run(world / "plain", bank, config={"merge": "text"})
    args = (world / "plain", [world / "shards/folk"], None)
    with pytest.raises(UsageError, match="no concepts. Use --by text, or train with --merge concepts"):
        evaluate(*args, world / "r.json", by="concepts")
    assert evaluate(*args, world / "r.json").protocol["by"] == "text"
    with pytest.raises(UsageError, match="labels of two datasets at least"):
        evaluate(*args, world / "r.json", mixed=True)
    (world / "other.csv").write_text(
        replace_rows(taxonomy(), lambda entry: entry.key[0] == "streets").table(), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="the taxonomy has no label of folk"):
        evaluate(world / "plain", [world / "shards"], None, world / "r.json", mixed=True, taxonomy=world / "other.csv")
    (world / "bad.csv").write_text("dataset,index,name\n")
    with pytest.raises(TaxonomyError, match="has no column 'concepts'"):
        evaluate(*args, world / "r.json", taxonomy=world / "bad.csv")


def replace_rows(given: Taxonomy, kept: Callable[[Entry], bool]) -> Taxonomy:
    return Taxonomy(replace(entry) for entry in given.entries if kept(entry))


def test_command(world: Path, run: Callable[..., Any]) -> None:
    words = (
        "eval",
        "--checkpoint",
        world / "run",
        "--bank",
        world / "bank",
        "--device",
        "cpu",
        "--out",
        world / "r.json",
    )
    sets = ("--shards", world / "shards/folk", world / "shards/streets")
    first = run(*words, *sets, "--mixed", "--taxonomy", world / "t.csv", "--json")
    assert first.exit_code == 0, first.stderr
    import shlex

    again = run(*shlex.split(json.loads(first.stdout)["reproduce"])[1:], "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    result = run(*words, *sets, "--by", "words")
    assert result.exit_code == 2 and "'concepts', 'text'" in result.stderr
