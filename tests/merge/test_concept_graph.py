"""Graphs, sets, columns of the softmax and relations, against slow and obvious references on random graphs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelmerge.catalog import Kept, load_recipe
from labelmerge.errors import TaxonomyError
from labelmerge.merge.attachment import CURATED
from labelmerge.merge.concepts import (
    Concept,
    ConceptGraph,
    distinct_concepts,
    read_concepts,
    sets_of,
    split_concepts,
)
from labelmerge.merge.lexicon import lexicon
from labelmerge.merge.merges import by_concepts
from labelmerge.merge.relations import HEADER, Relation, relations, relations_table
from labelmerge.merge.taxonomy import Entry, Taxonomy

from ..embed.conftest import MakeBank

Attached = list[tuple[str, tuple[str, ...]]]


def random_graph(rng: np.random.Generator, size: int) -> list[Concept]:
    """Concepts whose parents come before them, in another order."""
    found = []
    for number in range(size):
        parents = [f"c{p}" for p in rng.choice(number, size=min(number, int(rng.integers(0, 3))), replace=False)]
        cut = int(rng.integers(0, len(parents) + 1))
        found.append(Concept(f"c{number}", tuple(parents[:cut]), tuple(parents[cut:])))
    for number in rng.choice(size, size=size // 3, replace=False).tolist():
        inner = sorted(slow_below(found, f"c{number}") - {f"c{number}"})
        exhausted_by = tuple(inner[:: int(rng.integers(1, 3))])
        found[number] = replace(found[number], exhausted_by=exhausted_by)
    rng.shuffle(found)
    return found


def random_labels(rng: np.random.Generator, size: int) -> Attached:
    """(dataset, concepts) of some labels."""
    return [
        (str(rng.choice(list("abc"))), tuple(f"c{c}" for c in rng.choice(size, size=rng.integers(1, 4), replace=False)))
        for _ in range(12)
    ]


def slow_below(concepts: Sequence[Concept], name: str) -> set[str]:
    children = [concept.name for concept in concepts if name in concept.wholes]
    return {name}.union(*(slow_below(concepts, child) for child in children))


def slow_kinds(concepts: Sequence[Concept], name: str) -> set[str]:
    children = [concept.name for concept in concepts if name in concept.kind_of]
    return {name}.union(*(slow_kinds(concepts, child) for child in children))


def slow_sets(concepts: Sequence[Concept], labels: Attached, kept: Mapping[str, Kept] | None = None) -> list[set[str]]:
    """Per label: what lies below its concepts; minus, under each, what its dataset attaches something nearer to, of
    which only kinds count where parts are kept, and none where everything is."""
    found = []
    for dataset, attached in labels:
        nodes = {node for other, own in labels if other == dataset for node in own}
        mine: set[str] = set()
        for node in attached:
            inside = slow_below(concepts, node)
            how = (kept or {}).get(dataset)
            nearest = {None: inside, "parts": slow_kinds(concepts, node), "everything": set()}[how]
            for nearer in (nodes & nearest) - {node}:
                inside -= slow_below(concepts, nearer)
            mine |= inside
        for concept in sorted(concepts, key=lambda concept: len(slow_below(concepts, concept.name))):
            inner = set(concept.exhausted_by)
            if not inner or any(concept.name in own for other, own in labels if other == dataset):
                continue
            if inner <= mine:
                mine.add(concept.name)
            elif not inner & mine and mine != {concept.name}:
                mine.discard(concept.name)
        found.append(mine)
    return found


@pytest.fixture(params=range(15))
def world(request: pytest.FixtureRequest) -> tuple[list[Concept], Attached]:
    rng = np.random.default_rng(request.param)
    return random_graph(rng, 25), random_labels(rng, 25)


def test_below(world: tuple[list[Concept], Attached]) -> None:
    concepts, _ = world
    graph = ConceptGraph(concepts)
    for concept in concepts:
        assert graph.below(concept.name) == slow_below(concepts, concept.name)
    one, two = concepts[0].name, concepts[1].name
    assert graph.below(one, two) == graph.below(one) | graph.below(two)
    assert graph.below() == frozenset()


def test_sets_are_what_lies_below_less_what_is_named_nearer(world: tuple[list[Concept], Attached]) -> None:
    concepts, labels = world
    graph = ConceptGraph(concepts)
    sets = sets_of([own for _, own in labels], [dataset for dataset, _ in labels], graph)
    names = np.array(graph.names)
    assert [set(names[row].tolist()) for row in sets] == slow_sets(concepts, labels)


def test_parts_are_not_taken_off_their_wholes_where_things_are_outlined(
    world: tuple[list[Concept], Attached],
) -> None:
    concepts, labels = world
    graph = ConceptGraph(concepts)
    for name in graph.names:
        assert set(np.array(graph.names)[graph.kinds[graph.rows([name])[0]]].tolist()) == slow_kinds(concepts, name)
    attached, datasets = [own for _, own in labels], [dataset for dataset, _ in labels]
    kept: dict[str, Kept] = {"a": "parts", "c": "everything"}
    sets = sets_of(attached, datasets, graph, kept)
    names = np.array(graph.names)
    assert [set(names[row].tolist()) for row in sets] == slow_sets(concepts, labels, kept)
    assert (sets >= sets_of(attached, datasets, graph)).all()


def test_a_person_s_box_goes_around_the_face_and_a_rider_is_no_other_person(make_bank: MakeBank) -> None:
    names = ("person", "human face", "rider")
    rows = {(d, number): (name, (1.0, number)) for d in ("boxes", "pixels") for number, name in enumerate(names)}
    bank = make_bank({**rows, ("whole", 0): ("person", (1.0, 0.0)), ("whole", 1): ("rider", (1.0, 2.0))})
    bank = replace(bank, kept={"boxes": "parts"})
    taxonomy = by_concepts(bank)
    boxed, drawn, whole = (set(taxonomy[name, 0].concepts) for name in ("boxes", "pixels", "whole"))
    face = set(taxonomy["boxes", 1].concepts)
    assert boxed == whole == drawn | face and drawn.isdisjoint(face)
    assert boxed.isdisjoint(taxonomy["boxes", 2].concepts), "a thing has one label: riders are no persons here"


def test_open_images_boxes_are_of_several_levels_and_one_within_the_other() -> None:
    known = lexicon()
    labels = {name: concepts for (dataset, _), (name, concepts, _) in known.labels.items() if dataset == "openimages"}
    shown = ("Person", "Human face", "Man", "Bicycle", "Bicycle wheel")
    kinds = {name: load_recipe(name).kept for name in ("openimages", "objects365", "coco_panoptic")}
    assert kinds == {"openimages": "everything", "objects365": "parts", "coco_panoptic": None}
    attached, datasets = [labels[name] for name in shown], ["openimages"] * len(shown)
    person, face, man, bicycle, wheel = sets_of(attached, datasets, known.graph, {"openimages": "everything"})
    assert (person >= face).all() and (person >= man).all() and (bicycle & wheel).any()


def test_where_every_kind_has_a_label_nothing_is_left_of_the_whole() -> None:
    riders = ("bicyclist", "motorcyclist")
    graph = ConceptGraph(
        [
            Concept("person"),
            Concept("rider", ("person",), exhausted_by=riders),
            *(Concept(r, ("rider",)) for r in riders),
        ]
    )

    def found(*attached: tuple[str, ...]) -> list[set[str]]:
        return [set(np.array(graph.names)[row]) for row in sets_of(attached, ["mine"] * len(attached), graph)]

    assert found(("person",), ("bicyclist",), ("motorcyclist",)) == [{"person"}, {"bicyclist"}, {"motorcyclist"}]
    assert found(("person",), ("bicyclist",)) == [{"person", "rider", "motorcyclist"}, {"bicyclist"}]
    assert found(riders) == [{"rider", *riders}]
    assert found(("rider",), *((r,) for r in riders))[0] == {"rider"}, "what is left is its own"
    assert found(("person", "rider"), riders)[1] == {*riders}


def test_a_label_does_not_stand_for_what_its_row_excludes(make_bank: MakeBank) -> None:
    bank = make_bank(
        {
            ("pascal_context", 34): ("food", [1.0, 0]),
            ("coco_panoptic", 46): ("banana", [0, 1.0]),
            ("coco_panoptic", 48): ("sandwich", [0, 1.0]),
        }
    )
    kinds = {(relation.a.name, relation.b.name): relation.kind for relation in relations(by_concepts(bank))}
    assert kinds == {("sandwich", "food"): "part_of"}


def test_distinct_concepts_keep_every_relation(world: tuple[list[Concept], Attached]) -> None:
    concepts, labels = world
    graph = ConceptGraph(concepts)
    sets = sets_of([own for _, own in labels], [dataset for dataset, _ in labels], graph)
    names, fewer = distinct_concepts(sets, graph)
    assert len({column.tobytes() for column in fewer.T}) == len(names) == len(set(names)) == fewer.shape[1]
    for name, column in zip(names, fewer.T, strict=True):
        np.testing.assert_array_equal(column, sets[:, graph.rows([name])[0]])
    occurring = {column.tobytes() for column in sets.T if column.any()}
    assert {np.ascontiguousarray(column).tobytes() for column in fewer.T} == occurring


def slow_relation(a: set[str], b: set[str]) -> str | None:
    if not a & b:
        return None
    return "same" if a == b else "part_of" if a < b else "contains" if a > b else "overlaps"


def taxonomy_of(concepts: list[Concept], labels: Attached) -> tuple[Taxonomy, list[set[str]]]:
    """What the labels may stand for, as a taxonomy whose entries are in the labels' order, and by the reference."""
    ordered = sorted(labels)
    sets = slow_sets(concepts, ordered)
    entries = [
        Entry((dataset, number), f"label {number}", tuple(sorted(own)), CURATED, 0.5 + number / 100)
        for number, ((dataset, _), own) in enumerate(zip(ordered, sets, strict=True))
        if own
    ]
    return Taxonomy(entries), [own for own in sets if own]


def test_relations_follow_from_the_sets(world: tuple[list[Concept], Attached]) -> None:
    taxonomy, sets = taxonomy_of(*world)
    found = {(relation.a.key, relation.b.key): relation for relation in relations(taxonomy)}
    expected = {}
    for i, one in enumerate(taxonomy.entries):
        for j, other in enumerate(taxonomy.entries[i + 1 :], start=i + 1):
            kind = slow_relation(sets[i], sets[j])
            if kind and one.key[0] != other.key[0]:
                expected[one.key, other.key] = kind, len(sets[i] & sets[j]) / len(sets[i] | sets[j])
    assert {pair: each.kind for pair, each in found.items()} == {pair: kind for pair, (kind, _) in expected.items()}
    assert [each.iou for each in found.values()] == pytest.approx([expected[pair][1] for pair in found])
    for relation in found.values():
        assert relation.confidence == pytest.approx(relation.a.confidence * relation.b.confidence)


def test_relations_never_contradict_each_other(world: tuple[list[Concept], Attached]) -> None:
    taxonomy, _ = taxonomy_of(*world)
    inside = set()
    for relation in relations(taxonomy):
        if relation.kind in ("contains", "same"):
            inside.add((relation.b.key, relation.a.key))
        if relation.kind in ("part_of", "same"):
            inside.add((relation.a.key, relation.b.key))
    for a, b in inside:
        for c, d in inside:
            if b == c and len({a[0], b[0], d[0]}) == 3:
                assert (a, d) in inside, "what lies within what lies within lies within"


def test_the_table_of_relations() -> None:
    one = Entry(("a", 0), "person, human", ("person", "rider"), "text+pixels", 0.8)
    other = Entry(("b", 3), "rider", ("rider",), CURATED, 0.5)
    (relation,) = relations(Taxonomy([one, other]))
    assert relation == Relation(one, "contains", other, 0.5)
    header, row = csv.reader(io.StringIO(relations_table([relation])))
    assert tuple(header) == HEADER
    assert row == ["a", "0", "person, human", "contains", "b", "3", "rider", "text+pixels+curated", "0.40", "0.5000"]
    assert list(relations(Taxonomy([one, Entry(("a", 1), "rider", ("rider",))]))) == [], "one dataset's own affair"


def test_by_concepts_is_attachments_as_sets(make_bank: MakeBank) -> None:
    bank = make_bank(
        {
            ("cityscapes", 11): ("person", [1.0, 0]),
            ("cityscapes", 12): ("rider", [0, 1.0]),
            ("coco_panoptic", 0): ("person", [1.0, 0]),
            ("mine", 0): ("Persons", [1.0, 0]),
            ("mine", 1): ("gnarf", [0.6, 0.8]),
        }
    )
    taxonomy = by_concepts(bank)
    assert [entry.key for entry in taxonomy.entries] == list(bank.keys)
    kinds = {(relation.a.key, relation.b.key): relation.kind for relation in relations(taxonomy)}
    assert kinds == {
        (("cityscapes", 11), ("coco_panoptic", 0)): "part_of",
        (("cityscapes", 11), ("mine", 0)): "part_of",
        (("cityscapes", 12), ("coco_panoptic", 0)): "part_of",
        (("cityscapes", 12), ("mine", 0)): "part_of",
        (("coco_panoptic", 0), ("mine", 0)): "same",
    }
    assert len(taxonomy.concepts) == 3 and taxonomy["mine", 1].confidence < 0.5


def test_a_graph_is_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "concepts.csv"
    path.write_text(
        'concept,kind_of,part_of,description,exhausted_by\na,,,"An a, or b.",b; c\nb, a ;a,,,\nc,,a;b,,\n',
        encoding="utf-8",
    )
    graph = read_concepts(path)
    assert graph["a"].exhausted_by == ("b", "c") and graph["b"].exhausted_by == ()
    assert graph.names == ("a", "b", "c") and graph["a"].description == "An a, or b."
    assert graph["b"].kind_of == ("a",) and graph["c"].wholes == ("a", "b") and graph.below("b") == {"b", "c"}
    assert split_concepts(" x ;; y  z;x") == ("x", "y z")
    more = graph.extended([Concept("d", ("c", "e")), Concept("e")])
    assert more.names == ("a", "b", "c", "d", "e") and more.below("a") == {"a", "b", "c", "d"} and "d" not in graph


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,,,,\na,,,,\n", "'a' is given twice"),
        ("a,b,,,\nb,a,,,\n", "a circle: 'a' within 'b' within 'a'|a circle: 'b' within 'a' within 'b'"),
        ("a,bb,,,\nb,,,,\n", r"'a' lies within 'bb', which is not a concept \(Did you mean b\?\)"),
        ('"",,,,\n', "'' can't name a concept"),
        ("a;b,,,,\n", "'a;b' can't name a concept"),
        ("a,,,,c\nb,,,,\nc,b,,,\n", "'a' can't be exhausted by 'c', which does not lie within it"),
        ("a,,,,a\n", "'a' can't be exhausted by 'a'"),
        ("a,,\n", "concepts.csv:2: not as many fields"),
        ('"a,,,,\n', "can't be read as CSV"),
    ],
)
def test_what_is_no_graph_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "concepts.csv"
    path.write_text("concept,kind_of,part_of,description,exhausted_by\n" + text, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=message):
        read_concepts(path)
    path.write_text("concept,kind_of\n")
    with pytest.raises(TaxonomyError, match="has no column 'part_of' or 'description' or 'exhausted_by'"):
        read_concepts(path)
