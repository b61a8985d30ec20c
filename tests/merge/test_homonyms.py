"""A word with several meanings has the one that the list's other names suggest; where they don't, a note says so."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from labelmerge.catalog import homonyms_file
from labelmerge.errors import TaxonomyError
from labelmerge.merge import homonyms
from labelmerge.merge.attachment import UNSURE, Attachment
from labelmerge.merge.homonyms import HEADER, Kinship, further_meanings
from labelmerge.merge.lexicon import lexicon

from .test_attachment import attached, named


def read(word: str, *others: str) -> Attachment:
    _, found = attached(named(*others, word))
    return found[f"mine {word}"]


@pytest.mark.parametrize(
    ("word", "others", "concept"),
    [
        ("crane", "heron duck swan gull", "crane (bird)"),
        ("cranes", "heron duck swan gull", "crane (bird)"),
        ("crane", "excavator bulldozer worker scaffold", "crane (machine)"),
        ("drum", "guitar piano violin", "drum"),
        ("drum", "pallet barrel crate box", "drum (container)"),
        ("mouse", "keyboard monitor laptop", "mouse (device)"),
        ("mouse", "rat squirrel rabbit", "mouse (animal)"),
        ("veg", "apple banana carrot onion", "vegetable"),
        ("veg", "road building sky", "vegetation"),
        ("chicken", "dog cat cow horse", "chicken (bird)"),
        ("bug", "mosquito wasp moth spider", "bug (insect)"),
        ("bow", "stern keel rudder", "bow (of a ship)"),
        ("door", "bumper fender windshield headlight", "door (of a vehicle)"),
        ("shoulder", "elbow wrist neck chest", "shoulder (of a body)"),
        ("shoulder", "road lane curb sidewalk", "road shoulder"),
    ],
)
def test_the_other_names_of_a_list_decide(word: str, others: str, concept: str) -> None:
    own = read(word, *others.split())
    assert own.concepts == (concept,) and own.confidence >= UNSURE, own


def test_a_rarer_meaning_says_why_and_is_less_sure_than_a_usual_one() -> None:
    own = read("crane", "heron", "duck", "swan", "gull")
    assert own.confidence <= 0.7 and own.note == "read as crane (bird) because of the names beside it"


def test_where_the_list_decides_nothing_the_note_says_what_else_it_may_mean() -> None:
    own = read("crane", "sky", "zzyzx")
    assert own.concepts == ("crane (machine)",) and "may also mean: crane (bird)" in own.note
    own = read("bow", "zzyzx", "qwxyz")
    assert own.confidence < UNSURE or "may" in own.note


def test_parts_of_a_building_are_no_company_for_a_factory() -> None:
    assert read("plant", "door", "window", "roof", "balcony").concepts != ("plant (factory)",)


def test_a_word_beside_its_synonyms_or_in_a_list_needs_no_company() -> None:
    assert read("crane, hoist", "heron", "duck", "swan", "gull").concepts != ("crane (bird)",)
    assert further_meanings("dish/plate") == () and further_meanings("dishes") == further_meanings("dish") != ()


def test_kinship_counts_the_narrowest_common_concept_and_not_the_label_itself() -> None:
    graph = lexicon().graph
    kinship = Kinship(graph, {0: (("duck",), ()), 1: (("zebra",), ())})
    assert kinship.of(("swan",), 2) > kinship.of(("swan",), 0) > 0
    assert kinship.of(("car",), 2) == 0 and Kinship(graph, {}).of(("car",), 0) == 0


def test_what_ships_is_sound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = lexicon().graph
    with homonyms_file().open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        named = [concept for column in HEADER[2:] for concept in row[column].split(";") if concept]
        assert all(concept in known for concept in named), row
        assert row["concept"] in known or row["kind_of"] or row["part_of"], row
        assert row["concept"] not in known or not (row["kind_of"] or row["part_of"]), row
    assert len({(row["word"], row["concept"]) for row in rows}) == len(rows)
    (tmp_path / "homonyms.csv").write_text("word,concept\n")
    monkeypatch.setattr(homonyms, "homonyms_file", lambda: tmp_path / "homonyms.csv")
    with pytest.raises(TaxonomyError, match="has not the columns"):
        homonyms._homonyms.__wrapped__()


def test_a_word_without_a_usual_meaning_is_unknown_where_the_list_is_too() -> None:
    own = read("bow", "bilge", "gunwale")
    assert own.confidence < UNSURE and "bow (of a ship)" in own.note


def test_only_parts_speak_for_new_parts_of_a_whole() -> None:
    assert read("door", "car", "truck", "bus", "motorcycle").concepts == ("door",)
    assert read("saddle", "bumper", "fender", "headlight").concepts == ("saddle",), "no part of a bicycle"


def test_no_list_gives_a_word_a_meaning_that_is_nobodys_first_name_for_it() -> None:
    assert read("dog", "tractor", "ladder", "crate", "trailer", "fireplace", "poker").concepts == ("dog",), "no andiron"


def test_everyday_words_have_further_meanings_too() -> None:
    assert read("calf", "cow", "bull", "sheep").concepts == ("calf",)
    graph, found = attached(named("calf", "thigh", "knee", "ankle", "toe"))
    assert found["mine calf"].concepts == ("calf (of a leg)",) and "calf (of a leg)" in graph.below("human leg")
