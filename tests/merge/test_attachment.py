"""Labels that are not ours find their concepts by name, text, company and head; what is unsure says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.bank.concepts import CONCEPTS, concept_encoder
from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.labels import LabelKey
from labelmerge.merge.attachment import CURATED, TEXT, UNSURE, Attachment, attach
from labelmerge.merge.concepts import ConceptGraph
from labelmerge.merge.definitions import definition
from labelmerge.merge.lexicon import lexicon
from labelmerge.merge.phrases import (
    choices,
    heads,
    near_misses,
    plain,
    singular,
    stem_key,
    synonyms,
    turned,
    without_rest,
    word_key,
)
from labelmerge.names import PROMPT_TEMPLATE, sentence

Rows = Mapping[LabelKey, tuple[str, str]]


def bag_of_words(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit vectors that are alike where texts share words: float32 [n, 256]."""
    found = np.zeros((len(texts), 256), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().replace(".", " ").replace(",", " ").replace(":", " ").split():
            found[row, sum(map(ord, word)) * len(word) % 256] += 1
    unit: npt.NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def bank_of(rows: Rows) -> Bank:
    keys = sorted(rows)
    texts = [sentence(*rows[key]) for key in keys]
    return Bank(
        encoder="made",
        identity={"model": "made"},
        prompt=PROMPT_TEMPLATE,
        keys=keys,
        names=[rows[key][0] for key in keys],
        texts=texts,
        vectors=bag_of_words(texts),
        tokens=[3] * len(keys),
        truncated=[False] * len(keys),
        probe=bag_of_words(["probe"])[0],
    )


def named(*names: str, dataset: str = "mine") -> Bank:
    return bank_of({(dataset, index): (name, "") for index, name in enumerate(names)})


def attached(bank: Bank, **options: object) -> tuple[ConceptGraph, dict[str, Attachment]]:
    graph, found = attach(bank, **options)  # type: ignore[arg-type]
    for attachment in found:
        assert attachment.concepts and all(concept in graph for concept in attachment.concepts)
        assert 0 <= attachment.confidence <= 1
        assert attachment.note or attachment.confidence >= UNSURE, "what is unsure says why"
    return graph, {
        f"{dataset} {name}": own for (dataset, _), name, own in zip(bank.keys, bank.names, found, strict=True)
    }


def never(*asked: object) -> npt.NDArray[np.float32]:
    raise AssertionError("the encoder was asked")


def test_shipped_labels_are_attached_as_their_rows_say() -> None:
    rows = load_descriptions(load_recipe("camvid"))
    bank = bank_of({("camvid", row.index): (row.name, row.description) for row in rows})
    graph, found = attach(bank, never)
    assert graph is lexicon().graph
    assert [";".join(own.concepts) for own in found] == [row.concepts for row in rows]
    assert {(own.evidence, own.confidence) for own in found} == {(CURATED, 1.0)}


@pytest.mark.parametrize(
    ("name", "concepts"),
    [
        ("car", "car"),
        ("Cars", "car"),
        ("the car", "car"),
        ("kerb", "curb"),
        ("aeroplanes", "airplane"),
        ("grey whale", "grey whale"),
        ("TrafficLight", "traffic light"),
        ("traffic_lights", "traffic light"),
        ("traffic-light", "traffic light"),
        ("Streetlight", "street light"),
        ("night stand", "night stand"),
        ("nightstands", "night stand"),
        ("bookshelves", "bookshelf"),
        ("object--vehicle--car", "car"),
        ("wall-brick", "brick wall"),
        ("other animal", "animal"),
        ("animals (misc)", "animal"),
        ("sofa, couch, lounge", "sofa"),
        ("truck or bus", "truck;bus"),
        ("truck/bus", "truck;bus"),
        ("bus & truck", "bus;truck"),
        ("Truck_Bus", "truck;bus"),
        ("person / pedestrian", "person"),
        ("tiled wall", "tiled wall"),
        ("tile wall", "tiled wall"),
        ("rock(s)", "rock"),
        ("lamp posts", "street light"),
        ("sign_stop", "stop sign"),
        ("other_veh", "land vehicle"),
        ("kb", "computer keyboard"),
        ("DriveableArea", "road;parking area"),
        ("two-wheelers", "bicycle;motorcycle"),
        ("VRU", "person"),
        ("Veg_Low", "grass;small plant;bush"),
        ("hedge/bush", "hedge;bush"),
        ("emergency veh", "ambulance;fire truck;police car"),
    ],
)
def test_names_are_read_however_they_are_spelled(name: str, concepts: str) -> None:
    graph, found = attached(named(name, "sky", "road"), encode=None)
    own = found[f"mine {name}"]
    assert ";".join(own.concepts) == concepts or (name == "grey whale" and "whale" in graph[own.concepts[0]].kind_of)


@pytest.mark.parametrize(
    ("name", "how", "whole"),
    [
        ("parked car", "kind_of", "car"),
        ("large vehicle", "kind_of", "vehicle"),
        ("Police Car", "kind_of", "car"),
        ("bunch of parrots", "kind_of", "parrot"),
        ("man with helmet", "kind_of", "man"),
        ("back of a bus", "part_of", "bus"),
        ("car (parked)", "kind_of", "car"),
        ("traffic_light_red", "kind_of", "traffic light"),
        ("car_parked_left", "kind_of", "car"),
        ("bush leaves", "part_of", "bush"),
        ("floor_marking", "part_of", "floor"),
        ("worker", "kind_of", "person"),
        ("workers", "kind_of", "person"),
        ("roof worker", "kind_of", "worker"),
        ("seagulls", "kind_of", "bird"),
    ],
)
def test_compounds_lie_within_what_their_head_names(name: str, how: str, whole: str) -> None:
    graph, found = attached(named(name, "sky"), encode=None)
    (concept,) = found[f"mine {name}"].concepts
    assert getattr(graph[concept], how) == (whole,)
    assert concept in graph.below(whole) and graph.below(concept) == {concept}


def test_known_names_ask_no_encoder() -> None:
    names = sorted({row.name for row in load_descriptions(load_recipe("ade20k"))} | {"person", "Cars", "truck or bus"})
    attached(named(*names), encode=never)


def test_a_words_company_decides_what_it_means() -> None:
    street = named("wall", "road", "sidewalk", "terrain", "traffic sign", "rider", "guard rail", "vegetation")
    room = named("wall", "floor", "ceiling", "sofa", "night stand", "bathtub", "shower curtain", "pillow")
    assert attached(street)[1]["mine wall"].concepts == ("free-standing wall",)
    assert attached(room)[1]["mine wall"].concepts == ("wall",)


def test_a_list_taken_from_a_dataset_means_what_it_means_there() -> None:
    rows = load_descriptions(load_recipe("camvid"))
    _, found = attached(named(*(row.name for row in rows)))
    assert [";".join(own.concepts) for own in found.values()] == [row.concepts for row in rows]
    assert {own.evidence for own in found.values()} == {TEXT}


def test_a_list_somewhat_like_a_datasets_gives_no_name_more_than_it_says() -> None:
    _, found = attached(named("sky", "building", "road", "tree", "car", "pedestrian", "bicyclist", "fence"))
    car = found["mine car"]
    assert car.concepts == ("car",), "CamVid's takes in lorries and buses"
    assert car.confidence < UNSURE and car.note == "in lists like this one the name takes in: truck, bus, train"
    assert found["mine building"].concepts == ("building",) and found["mine bicyclist"].concepts != ("bicycle",)
    _, found = attached(named("automobile", "bus", "pavement", "cyclist"))  # two of these four are CamVid's
    assert found["mine cyclist"].concepts == ("bicyclist",), "CamVid's takes in motorcycles"
    _, found = attached(named("car", "cat", "cup"))
    assert found["mine car"].concepts == ("car",) and found["mine car"].confidence > 0.8 and not found["mine car"].note


def test_what_the_text_says_wins_over_the_names_commonest_sense() -> None:
    bank = bank_of(
        {
            ("mine", 0): ("mouse", "A mouse is a small rodent with a long tail."),
            ("mine", 1): ("crane", "A crane is a tall bird with long legs that lives in wetlands."),
            ("mine", 2): ("seal", "A seal is a vehicle that dives."),
            ("mine", 3): ("keyboard", "A keyboard is a musical instrument with white and black keys."),
        }
    )
    graph, found = attached(bank)
    assert found["mine mouse"].concepts == ("mouse (animal)",)
    for name, kind in (("mine crane", "bird"), ("mine seal", "vehicle"), ("mine keyboard", "musical instrument")):
        (concept,) = found[name].concepts
        assert concept in graph.below(kind), name
    seal = found["mine seal"]
    assert seal.confidence < UNSURE and "against its name" in seal.note


def test_unknown_words_go_by_their_text() -> None:
    bank = bank_of(
        {
            ("mine", 0): ("zorb", "A zorb is a large, heavy road vehicle with three wheels."),
            ("mine", 1): ("blirp", "A blirp is part of a car that nobody needs."),
            ("mine", 2): ("blue zorb", ""),
            ("mine", 3): ("gnarf", ""),
        }
    )
    graph, found = attached(bank)
    assert graph["zorb"].kind_of and graph["zorb"].kind_of[0] in {"vehicle", "land vehicle"}
    assert graph["blirp"].part_of == ("car",)
    assert graph["blue zorb"].kind_of == ("zorb",)
    assert graph["gnarf"].wholes == () and found["mine gnarf"].confidence < UNSURE


def test_a_description_that_ships_is_known_under_any_name() -> None:
    row = next(row for row in load_descriptions(load_recipe("cityscapes")) if row.name == "rider")
    _, found = attached(bank_of({("mine", 0): ("fahrer", row.description)}), encode=never)
    assert found["mine fahrer"].concepts == ("rider",)


def test_texts_that_mean_the_same_are_found_by_their_vectors() -> None:
    row = next(row for row in load_descriptions(load_recipe("objects365")) if row.name == "Binoculars")
    bank = bank_of({("mine", 0): ("fernglas", row.description.replace(" far ", " distant "))})
    # A space in which names say nothing.
    vectors = bag_of_words([text.partition(". ")[2] for text in bank.texts])
    _, found = attached(
        replace(bank, vectors=vectors),
        encode=lambda texts: bag_of_words([text.partition(". ")[2] or text for text in texts]),
    )
    assert found["mine fernglas"].concepts == ("binoculars",)
    assert "cosine" in found["mine fernglas"].note


def test_a_bare_name_that_is_only_near_a_known_one_is_a_guess() -> None:
    bank = named("gubbins", "qwxyz")
    mine = bank.vectors[0]
    _, found = attached(bank, encode=lambda texts: np.stack([mine if "fire hydrant" in t else -mine for t in texts]))
    own = found["mine gubbins"]
    assert own.concepts == ("fire hydrant",) and own.confidence < UNSURE
    assert own.note == "nearest name: fire hydrant, cosine 1.00"


def test_one_unknown_word_of_two_datasets_is_one_meaning_only_if_the_texts_agree() -> None:
    rows = {
        ("a", 0): ("flurb", "A flurb is a small animal with six legs and a long tail."),
        ("b", 0): ("flurb", "A flurb is a tool for cutting the edge of a lawn."),
        ("c", 0): ("flurb", "A flurb is a small animal with six legs and a long tail."),
    }
    graph, found = attached(bank_of(rows))
    assert found["a flurb"].concepts == found["c flurb"].concepts != found["b flurb"].concepts
    assert found["a flurb"].concepts[0] in graph.below("animal")
    assert found["b flurb"].concepts[0] in graph.below("tool")


def test_a_dataset_called_like_a_shipped_one_with_names_of_its_own() -> None:
    bank = bank_of(
        {("cityscapes", 0): ("road", ""), ("cityscapes", 1): ("tuk-tuk taxi", ""), ("cityscapes", 2): ("sky", "")}
    )
    _, found = attached(bank)
    assert found["cityscapes road"].evidence == CURATED
    assert found["cityscapes sky"].evidence == TEXT and found["cityscapes sky"].concepts == ("sky",)


@pytest.mark.parametrize(
    "name", ["汽车", "Fußgängerzone", "дорога", "!!!", "42", ";", "a;b", "-", "other", "void", "of", "and"]
)
def test_names_that_say_nothing_are_unsure(name: str) -> None:
    _, found = attached(named(name, "car"))
    if name != "a;b":
        assert found[f"mine {name}"].confidence < UNSURE
    assert found["mine car"].concepts == ("car",)


def test_misspelled_names_are_read_and_say_so() -> None:
    _, found = attached(named("refrigerater", "sky"))
    own = found["mine refrigerater"]
    assert own.concepts == ("refrigerator",) and own.confidence < UNSURE and "refrigerator" in own.note


def test_thousands_of_unknown_labels() -> None:
    letters = "bcdfghjklmnpqrstvwxz"
    names = [letters[n // 400 % 20] + "q" + letters[n // 20 % 20] + "x" + letters[n % 20] for n in range(3000)]
    start = time.process_time()
    graph, found = attached(named(*names))
    assert time.process_time() - start < 60
    assert len({own.concepts for own in found.values()}) == 3000 and len(graph) >= 3000 + 1000
    assert all(own.confidence < UNSURE for own in found.values())


def test_forms_of_names() -> None:
    assert word_key("grey colour") == word_key("gray color") and word_key("theatre") == word_key("theater")
    assert word_key("hour") == "hour" and word_key("four") == "four" and word_key("tire") == word_key("tyre")
    assert singular("buses") == "bus" and singular("houses") == "house" and singular("glasses") == "glasses"
    assert (
        singular("bookshelves") == "bookshelf" and singular("gloves") == "glove" and singular("specimen") == "specimen"
    )
    assert stem_key("wooden floor") == stem_key("wood floor") and stem_key("floor") == ""
    assert synonyms("sofa, couch; lounge") == ["sofa", "couch", "lounge"] and synonyms("") == [""]
    assert choices("left / right arrow") == ["left", "right arrow"] and choices("sandbox") == ["sandbox"]
    assert turned("wall-other-merged") is None and turned("floor-wood") == "wood floor"
    assert without_rest("other") == "" and without_rest("mother") == "mother"
    assert plain("The  Big_Car") == "big car"
    assert list(heads("non-drivable area")) == [] and ("part", "car") in list(heads("side of the car"))
    assert list(near_misses("short")) == [] and "refrigertor" in set(near_misses("refrigerator"))


@pytest.mark.parametrize(
    ("text", "kinds", "wholes"),
    [
        ("A taxi is a car for hire.", ("car",), ()),
        ("A bear is a large, heavy wild animal with thick fur.", ("large", "heavy wild animal"), ()),
        ("Any four-wheeled motor vehicle with a roof.", ("four-wheeled motor vehicle",), ()),
        ("A chair is a piece of furniture on which one sits.", ("furniture",), ()),
        ("A house is a small building that people live in.", ("small building",), ()),
        ("A blade is part of a fan.", (), ("fan",)),
        ("", (), ()),
        ("Unbekannt", (), ()),
    ],
)
def test_definitions(text: str, kinds: tuple[str, ...], wholes: tuple[str, ...]) -> None:
    found = definition(text)
    assert (found.kinds, found.wholes) == (kinds, wholes)


def test_vectors_of_shipped_texts_are_kept_beside_the_bank(
    tmp_path: Path, clip_spec: str, monkeypatch: pytest.MonkeyPatch, make_dataset: Callable[..., object]
) -> None:
    from labelmerge.embed.embed import embed_labels
    from labelmerge.encoders import encoders

    recipe = make_dataset("streets", {"road": "Where cars drive."})
    embed_labels([recipe], tmp_path / "bank", encoder=clip_spec)  # type: ignore[list-item]
    bank = Bank.load(tmp_path / "bank")
    encode = concept_encoder(bank)
    assert encode is not None
    first = encode(["sky", "sea\nocean", "sky"])
    assert (tmp_path / "bank" / CONCEPTS / "bank.json").is_file()
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)

    monkeypatch.setattr(encoders, "load_encoder", never)
    again = concept_encoder(Bank.load(tmp_path / "bank"))
    assert again is not None
    np.testing.assert_array_equal(again(["sky", "sea\nocean"]), first[:2])
    with pytest.raises(AssertionError, match="the encoder was asked"):
        again(["sand"])
    monkeypatch.undo()

    more = concept_encoder(Bank.load(tmp_path / "bank"))
    assert more is not None and more(["sand", "sky"]).shape == (2, 16)
    assert len(list((tmp_path / "bank" / CONCEPTS).glob("*.parquet"))) == 1, "old versions go"
    (tmp_path / "bank" / CONCEPTS / "bank.json").write_text("damaged")
    anew = concept_encoder(Bank.load(tmp_path / "bank"))
    assert anew is not None
    np.testing.assert_allclose(anew(["sky"]), first[:1], atol=1e-6)
