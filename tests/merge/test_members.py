"""What descriptions list and leave out, and what labels with such descriptions stand for."""

from __future__ import annotations

import pytest

from labelmerge.merge.attachment import UNSURE, attach
from labelmerge.merge.baselines import merged_bank
from labelmerge.merge.concepts import sets_of
from labelmerge.merge.definitions import definition
from labelmerge.merge.members import listed

from .test_attachment import attached, bank_of


@pytest.mark.parametrize(
    ("text", "things", "whole"),
    [
        ("Flat ground: roads and sidewalks.", ("roads", "sidewalks"), True),
        ("A car, a van, a truck or a bus on the road.", ("car", "van", "truck", "bus"), True),
        ("Street furniture (poles, signs, lights)", ("poles", "signs", "lights"), True),
        ("Grass, sand and water", ("Grass", "sand", "water"), True),
        ("Cars, vans, trucks and the like", ("Cars", "vans", "trucks"), True),
        ("Cars, vans and buses, incl. parked ones.", ("Cars", "vans", "buses"), True),
        ("Any seat, such as chairs or a sofa.", ("chairs", "sofa"), False),
        ("Everything that grows, including trees and grass", ("trees", "grass"), False),
        ("Man-made stuff that isn't a building, i.e. power poles, fences", ("power poles", "fences"), True),
        # no lists
        ("A tall, slender tree.", (), False),
        ("A glass or plastic bottle.", (), False),
        ("A person who walks, stands or sits.", (), False),
        ("Clothes and cloth are woven things to wear.", (), False),
        ("The open sky, with its clouds.", (), False),
    ],
)
def test_what_a_text_lists(text: str, things: tuple[str, ...], whole: bool) -> None:
    found = listed(text)
    assert (found.things, found.whole) == (things, whole)


@pytest.mark.parametrize(
    ("text", "but"),
    [
        ("All vehicles except bicycles", ("bicycles",)),
        ("People, not counting riders", ("riders",)),
        ("Walls, but not fences or railings.", ("fences", "railings")),
        ("Roofed buildings (no barns, no sheds)", ("barns", "sheds")),
        ("A surface to drive on. Stairs are NOT meant.", ("Stairs",)),
        ("Rivers and ponds. Swimming pools are excluded.", ("Swimming pools",)),
        ("Soil without plants; dirt roads go to ways", ("dirt roads",)),
        ("A living creature other than a human, such as a dog.", ("human",)),
        ("A road without markings.", ()),
    ],
)
def test_what_a_text_leaves_out(text: str, but: tuple[str, ...]) -> None:
    assert listed(text).but == but


def test_wide_labels_stand_for_what_their_texts_list() -> None:
    texts = {
        "flat": "Flat ground in a street: roads and sidewalks.",
        "object": "Small things that stand in a street: poles, traffic signs and traffic lights.",
        "nature": "Trees, bushes and other plants.",
        "car": "A car, a van, a truck or a bus on the road.",  # more than its name says
        "glass": "Transparent surfaces (windows, shower doors).",  # not what its name says
        "movers": "All vehicles except bicycles",
        "ways": "Everything one can walk along: gravel roads, footpaths",
        "trip hazard": "Something on the floor that is in the way: bags, gizmos, cartons",
    }
    graph, found = attached(bank_of({("mine", index): row for index, row in enumerate(texts.items())}))
    assert found["mine flat"].concepts == ("road", "sidewalk") and "by its text" in found["mine flat"].note
    assert found["mine object"].concepts == ("pole", "traffic sign", "traffic light")
    assert found["mine nature"].concepts == ("tree", "small plant")
    assert {"car", "truck", "bus"} <= {*found["mine car"].concepts} and "its text adds" in found["mine car"].note
    assert "window" in found["mine glass"].concepts and "drinking glass" not in found["mine glass"].concepts
    assert found["mine movers"].concepts == ("vehicle",) and found["mine movers"].but == ("bicycle",)
    gravel, footpath = found["mine ways"].concepts
    assert gravel in graph.below("road") and gravel != "road" and footpath == "footpath"
    hazard = found["mine trip hazard"]
    assert {*hazard.concepts} == {"bag", "carton"} and hazard.confidence < UNSURE and "gizmos" in hazard.note


def test_what_is_left_out_is_no_part_of_the_label() -> None:
    bank = bank_of({
        ("mine", 0): ("movers", "All vehicles except bicycles"),
        ("other", 0): ("car", ""),
        ("third", 0): ("bicycle", ""),
    })  # fmt: skip
    graph, found = attach(bank)
    datasets = [dataset for dataset, _ in bank.keys]
    movers, car, bicycle = sets_of([own.concepts for own in found], datasets, graph, {}, [own.but for own in found])
    assert (movers & car).sum() == car.sum() > 0 and not (movers & bicycle).any()


def test_the_verb_of_a_clause_defines_nothing() -> None:
    assert definition("Fields where something is grown for harvest").kinds == ("fields",)
    assert definition("Animals kept by a farmer.").kinds == ("animals",)
    assert definition("A tuk-tuk is a vehicle that is driven by one person.").kinds == ("vehicle",)


def test_a_bank_of_classes_has_no_texts_to_compare_with() -> None:
    texts = {("mine", 0): ("qualm", "A spline of the reticulated kind."), ("mine", 1): ("road", "")}
    bank = merged_bank(bank_of(texts), "naive", ["mine"])
    _, found = attached(bank)
    assert found["mine qualm"].confidence < UNSURE and found["mine road"].concepts == ("road",)
