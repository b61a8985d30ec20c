"""Pictures decide what texts propose: synthetic counts of a model that sees well, badly, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.labels import LabelKey
from labelmerge.merge.attachment import CURATED, TEXT, Attachment
from labelmerge.merge.concepts import Concept, ConceptGraph, sets_of
from labelmerge.merge.evidence import PIXELS, Confusion, Doubt, seen_relation, unseen, with_pixels
from labelmerge.names import PROMPT_TEMPLATE

GRAPH = ConceptGraph(
    [
        Concept("thing"),
        Concept("person", ("thing",)),
        Concept("car", ("thing",)),
        Concept("truck", ("thing",)),
        Concept("sky"),
    ]
)
Shares = Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]]
"""(dataset, dataset) → label of the first → label of the second → share."""


def bank_of(labels: Mapping[str, Sequence[str]], near: Sequence[tuple[str, str]] = ()) -> Bank:
    """A bank whose labels lie far from each other, but for those that are named as near: ``("a:car", "b:auto")``."""
    keys = [(dataset, index) for dataset in sorted(labels) for index in range(len(labels[dataset]))]
    names = [labels[dataset][index] for dataset, index in keys]
    spelled = [f"{dataset}:{name}" for (dataset, _), name in zip(keys, names, strict=True)]
    vectors = np.eye(len(keys), dtype=np.float32)
    for one, other in near:
        vectors[spelled.index(other)] = vectors[spelled.index(one)]
    return Bank(
        encoder="made",
        identity={"model": "made"},
        prompt=PROMPT_TEMPLATE,
        keys=keys,
        names=names,
        texts=spelled,
        vectors=vectors,
        tokens=[1] * len(keys),
        truncated=[False] * len(keys),
    )


def seen(bank: Bank, shares: Shares, pixels: int = 10_000) -> list[Confusion]:
    found = []
    for (rows, columns), said in shares.items():
        own = [key for key in bank.keys if key[0] == rows]
        other = [key for key in bank.keys if key[0] == columns]
        name = dict(zip(bank.keys, bank.names, strict=True))
        counts = [[round(pixels * said.get(name[a], {}).get(name[b], 0)) for b in other] for a in own]
        found.append(Confusion(tuple(own), tuple(other), np.array(counts, dtype=np.int64)))
    return found


def by_text(*concepts: str, confidence: float = 0.9) -> Attachment:
    return Attachment(concepts, TEXT, confidence)


def curated(*concepts: str) -> Attachment:
    return Attachment(concepts, CURATED, 1.0)


def relation(graph: ConceptGraph, attachments: Sequence[Attachment], bank: Bank, a: LabelKey, b: LabelKey) -> str:
    sets = sets_of([own.concepts for own in attachments], [dataset for dataset, _ in bank.keys], graph)
    one, other = (set(np.flatnonzero(sets[bank.keys.index(key)]).tolist()) for key in (a, b))
    if one == other:
        return "same"
    if not one & other:
        return "unrelated"
    return "part_of" if one < other else "contains" if one > other else "overlaps"


@pytest.mark.parametrize(
    ("there", "back", "relation"),
    [
        (0.9, 0.9, "same"),
        (0.9, 0.1, "part_of"),
        (0.1, 0.9, "contains"),
        (0.01, 0.02, "unrelated"),
        (0.4, 0.4, None),
        (0.9, 0.4, None),
        (0.1, 0.1, None),
    ],
)
def test_shares_tell_a_relation_or_nothing(there: float, back: float, relation: str | None) -> None:
    assert seen_relation(there, back) == relation


def test_a_part_that_text_calls_the_same_gets_a_concept_of_its_own() -> None:
    bank = bank_of({"ours": ["pedestrian", "heaven"], "theirs": ["person", "sky"]})
    attachments = [by_text("person"), by_text("sky"), curated("person"), curated("sky")]
    shares: Shares = {
        ("ours", "theirs"): {"pedestrian": {"person": 0.95, "sky": 0.05}, "heaven": {"sky": 1.0}},
        ("theirs", "ours"): {"person": {"pedestrian": 0.1, "heaven": 0.9}, "sky": {"heaven": 1.0}},
    }
    graph, found, doubts = with_pixels(bank, GRAPH, attachments, seen(bank, shares))
    assert relation(graph, found, bank, ("ours", 0), ("theirs", 0)) == "part_of"
    assert found[0].concepts == ("pedestrian (ours)",) and graph["pedestrian (ours)"].kind_of == ("person",)
    assert found[0].evidence == "text+pixels"
    assert found[1].concepts == ("sky",) and found[1].confidence > 0.9 and found[1].evidence == "text+pixels"
    assert found[2].concepts == ("person",) and found[2].evidence == "curated+pixels"
    assert doubts == []


def test_a_whole_stands_for_what_a_curated_part_stands_for_besides_its_own() -> None:
    bank = bank_of(
        {"ours": ["vehicle", "heaven"], "theirs": ["car", "truck", "sky"]}, [("ours:vehicle", "theirs:truck")]
    )
    attachments = [by_text("car"), by_text("sky"), curated("car"), curated("truck"), curated("sky")]
    shares: Shares = {
        ("ours", "theirs"): {"vehicle": {"car": 0.8, "truck": 0.2}, "heaven": {"sky": 1.0}},
        ("theirs", "ours"): {"car": {"vehicle": 1.0}, "truck": {"vehicle": 1.0}, "sky": {"heaven": 1.0}},
    }
    graph, found, doubts = with_pixels(bank, GRAPH, attachments, seen(bank, shares))
    assert set(found[0].concepts) == {"car", "truck"}
    assert relation(graph, found, bank, ("ours", 0), ("theirs", 1)) == "contains"
    assert relation(graph, found, bank, ("ours", 0), ("theirs", 0)) == "contains"
    assert doubts == []


def test_of_two_strangers_the_part_moves_below_the_whole() -> None:
    bank = bank_of({"a": ["human", "air"], "b": ["human", "air"]})
    attachments = [by_text("person"), by_text("sky"), by_text("person"), by_text("sky")]
    shares: Shares = {
        ("a", "b"): {"human": {"human": 0.2, "air": 0.8}, "air": {"air": 1.0}},
        ("b", "a"): {"human": {"human": 0.95}, "air": {"air": 1.0}},
    }
    graph, found, _ = with_pixels(bank, GRAPH, attachments, seen(bank, shares))
    assert relation(graph, found, bank, ("b", 0), ("a", 0)) == "part_of"
    assert found[0].concepts == ("person",)


def test_an_unknown_label_becomes_what_both_ways_say() -> None:
    graph = GRAPH.extended([Concept("zorb")])
    bank = bank_of({"ours": ["zorb"], "theirs": ["car", "sky"]})
    attachments = [by_text("zorb", confidence=0.4), curated("car"), curated("sky")]
    shares: Shares = {
        ("ours", "theirs"): {"zorb": {"car": 0.9, "sky": 0.1}},
        ("theirs", "ours"): {"car": {"zorb": 0.8}, "sky": {"zorb": 0.0}},
    }
    _, found, doubts = with_pixels(bank, graph, attachments, seen(bank, shares))
    assert found[0].concepts == ("car",) and found[0].evidence == f"{TEXT}+{PIXELS}" and not doubts


def test_what_is_curated_stays_and_is_on_the_list() -> None:
    bank = bank_of({"a": ["person", "sky"], "b": ["person", "sky"]})
    attachments = [curated("person"), curated("sky"), curated("person"), curated("sky")]
    shares: Shares = {
        ("a", "b"): {"person": {"person": 0.01, "sky": 0.99}, "sky": {"sky": 1.0}},
        ("b", "a"): {"person": {"person": 0.02, "sky": 0.98}, "sky": {"sky": 1.0}},
    }
    graph, found, doubts = with_pixels(bank, GRAPH, attachments, seen(bank, shares))
    assert graph.names == GRAPH.names and [own.concepts for own in found] == [own.concepts for own in attachments]
    assert doubts[0] == Doubt(("a", 0), ("b", 0), "same", "unrelated", 0.01, 0.02, (10_000, 10_000))
    assert 0.6 <= found[0].confidence < 1 and "1% of it are person (b), and 2% of that are it" in found[0].note
    assert found[1].confidence == 1 and "pixels" in found[1].evidence


def test_far_texts_and_things_a_model_cannot_see_decide_nothing() -> None:
    bank = bank_of({"ours": ["boat", "heaven"], "theirs": ["car", "sky"]})
    graph = GRAPH.extended([Concept("boat")])
    attachments = [by_text("boat"), by_text("sky"), curated("car"), curated("sky")]
    shares: dict[tuple[str, str], dict[str, dict[str, float]]] = {
        ("ours", "theirs"): {"boat": {"car": 1.0}, "heaven": {"sky": 1.0}},  # without a counterpart it lands on cars
        ("theirs", "ours"): {"car": {"boat": 1.0}, "sky": {"heaven": 1.0}},
    }
    _, found, _ = with_pixels(bank, graph, attachments, seen(bank, shares))
    assert found[0] == attachments[0], "nothing proposed it"
    near = bank_of({"ours": ["boat", "heaven"], "theirs": ["car", "sky"]}, [("ours:boat", "theirs:car")])
    shares["ours", "ours"] = {"boat": {"boat": 0.1, "heaven": 0.9}, "heaven": {"heaven": 1.0}}
    _, found, _ = with_pixels(near, graph, attachments, seen(near, shares))
    assert found[0] == attachments[0], "the model doesn't see boats"
    _, found, _ = with_pixels(near, graph, attachments, seen(near, shares, pixels=100))
    assert found == attachments and unseen(near, seen(near, shares, pixels=100)) == {"ours": 2, "theirs": 2}
    _, found, _ = with_pixels(near, graph, attachments, seen(near, {("ours", "theirs"): shares["ours", "theirs"]}))
    assert found == attachments, "one way only"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_seen_the_graph_has_no_circles_and_every_label_a_concept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = GRAPH
    labels = {dataset: [f"{dataset}{number}" for number in range(5)] for dataset in "abcd"}
    bank = bank_of(labels)
    near = rng.normal(size=(20, 3)).astype(np.float32)
    object.__setattr__(bank, "vectors", near / np.linalg.norm(near, axis=1, keepdims=True))
    attachments = [
        Attachment(
            tuple(rng.choice(graph.names, size=rng.integers(1, 3), replace=False).tolist()),
            str(rng.choice([CURATED, TEXT, TEXT])),
            float(rng.uniform(0.3, 1)),
        )
        for _ in bank.keys
    ]
    confusions = []
    for one in "abcd":
        for other in "abcd":
            pixels = (rng.dirichlet(np.full(5, 0.2), size=5) * 5000).astype(np.int64)
            confusions.append(Confusion(tuple((one, n) for n in range(5)), tuple((other, n) for n in range(5)), pixels))
    more, found, doubts = with_pixels(bank, graph, attachments, confusions)  # raises where there is a circle
    sets = sets_of([own.concepts for own in found], [dataset for dataset, _ in bank.keys], more)
    assert all(concept in more for own in found for concept in own.concepts) and sets.shape == (20, len(more))
    assert all(0 <= own.confidence <= 1 for own in found) and all(0 <= doubt.weight <= 1 for doubt in doubts)
    assert [own.concepts for own in found if own.evidence.startswith(CURATED)] == [
        own.concepts for own in attachments if own.evidence == CURATED
    ]
    again = with_pixels(bank, graph, attachments, confusions)
    assert again[1:] == (found, doubts)
