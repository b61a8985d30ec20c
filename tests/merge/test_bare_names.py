"""Bare names of users' class lists: everyday words, short forms, and what a word does not mean."""

from __future__ import annotations

from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.merge.attachment import UNSURE, attach
from labelmerge.merge.concepts import Concept
from labelmerge.merge.everyday import everyday
from labelmerge.merge.lexicon import lexicon
from labelmerge.merge.merges import by_concepts
from labelmerge.merge.phrases import word_key
from labelmerge.merge.relations import relations

from .test_attachment import attached, bank_of, named


def test_words_that_are_no_misspellings_are_not_read_as_such() -> None:
    _, found = attached(named("skinner", "sky"))
    assert found["mine skinner"].concepts == ("skinner",)


def test_names_cut_short_are_read_and_say_so() -> None:
    _, found = attached(named("fire ext.", "ped", "sky"))
    own = found["mine fire ext."]
    assert own.concepts == ("fire extinguisher",) and own.confidence < UNSURE and "fire extinguisher" in own.note
    assert 0.5 <= found["mine ped"].confidence < 0.9 and found["mine ped"].note.startswith("read as")


def test_what_is_left_over_says_so_and_what_is_no_label_is_told() -> None:
    names = ("static_obj", "object", "OTHER", "bg", "dont_care", "unlabelled")
    _, found = attached(named(*names, "car"))
    for name in names:
        own = found[f"mine {name}"]
        assert own.concepts == ("anything",), name
        assert ("[ids] ignore" in own.note) == (name in ("dont_care", "unlabelled")), name
    assert all(found[f"mine {name}"].confidence < UNSURE for name in ("static_obj", "object", "OTHER", "dont_care"))


def test_everyday_words_mean_what_there_is_and_nothing_that_ships() -> None:
    known = lexicon()
    for key, word in everyday().items():
        assert all(concept in known.graph for concept in word.but), word
        if word.only_but:
            assert word.but and key in known.senses, word
            continue
        assert bool(word.means) != bool(word.kind_of or word.part_of), word
        assert key == word_key(word.word) and key not in known.senses, f"{word.word} ships"
        new: dict[str, Concept] = {}
        graph_and_new = word.concepts(new)
        assert all(concept in known.graph or concept in new for concept in graph_and_new), word
        assert not any(concept in known.graph for concept in new), word
        known.graph.extended(new.values())  # no circle, no parent that is none


def test_a_cyclist_beside_motorcyclists_is_no_motorcyclist() -> None:
    names = ("sky", "building", "pole", "road", "pavement", "tree", "fence", "car", "pedestrian", "cyclist")
    _, found = attached(named(*names))
    assert set(found["mine cyclist"].concepts) == {"rider", "motorcycle", "bicycle"}, "CamVid's list"
    _, found = attached(named("road", "kerb", "bin", "tree", "fence", "car", "pedestrian", "cyclist", "motorcyclist"))
    assert found["mine cyclist"].concepts == ("bicyclist",)


def test_a_bare_pedestrian_rides_nothing() -> None:
    """Without riders in its list, and beside cyclists alone, a pedestrian is what Cityscapes calls a person."""
    for others in (["road"], ["road", "cyclist", "motorcyclist"], ["road", "human"]):
        bank = bank_of({**{("mine", n): (name, "") for n, name in enumerate(["pedestrians", *others])},
                        **{("cityscapes", n): (row.name, row.description)
                           for n, row in enumerate(load_descriptions(load_recipe("cityscapes")))}})  # fmt: skip
        told = {(each.a.name, each.b.name): each.kind for each in relations(by_concepts(bank))}
        assert told["person", "pedestrians"] == "same" and ("rider", "pedestrians") not in told, others
        if "human" in others:
            assert told["rider", "human"] == told["person", "human"] == "part_of"
    text = "A person near the road, walking or riding a bicycle."
    _, found = attach(bank_of({("mine", 0): ("pedestrians", text)}))
    assert not found[0].but


def test_a_page_about_what_a_thing_is_made_of_does_not_name_the_thing() -> None:
    """COCO's *wall-tile* has the page *Tile*: a bare tile may as well be on a floor."""
    _, found = attached(named("tile", "sky"))
    assert found["mine tile"].concepts == ("tile",) and found["mine tile"].confidence < UNSURE


def test_what_only_a_page_or_a_further_synonym_says_is_less_sure() -> None:
    _, found = attached(named("brickwork", "railing", "rail", "sky"))
    assert found["mine railing"].confidence > 0.8
    for name, concept in (("brickwork", "brick wall"), ("rail", "railing")):
        own = found[f"mine {name}"]
        assert own.concepts == (concept,) and own.confidence <= 0.7 and own.note == f"read as {concept}"
