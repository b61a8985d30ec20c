from __future__ import annotations

import doctest

import pytest

from labelmerge import names as prompts
from labelmerge.names import prompt_name, sentence, word


@pytest.mark.parametrize(
    ("official", "readable"),
    [
        ("building, edifice", "building"),
        ("Cabinet/shelf", "cabinet"),
        ("parking / drivable fallback", "parking"),
        ("Cigar/Cigarette ", "cigar"),
        ("floor_mat", "floor mat"),
        ("door-stuff", "door"),
        ("tree-merged", "tree"),
        ("water-other", "water"),
        ("sky-other-merged", "sky"),
        ("wall-brick", "wall brick"),
        ("non-drivable fallback", "non drivable fallback"),
        ("Crosswalk - Plain", "crosswalk plain"),
        ("Traffic Sign (Back)", "traffic sign back"),
        ("construction--flat--crosswalk-plain", "crosswalk plain"),
        ("SignSymbol", "sign symbol"),
        ("SUVPickupTruck", "suv pickup truck"),
        ("CCTV Camera", "cctv camera"),
        ("Kitchen & dining room table", "kitchen & dining room table"),
        ("  traffic \t light ", "traffic light"),
        ("ein Straßenschild", "ein straßenschild"),
        ("other-merged", "other"),
        ("-other", "other"),
        ("/, tool", "tool"),
        ("/", "/"),
        ("--", "--"),
    ],
)
def test_names_read_as_words(official: str, readable: str) -> None:
    assert prompt_name(official) == readable
    assert word(official) == readable


def test_the_sentence_of_the_paper() -> None:
    assert sentence("Car", "A car is\n a road vehicle. ") == "car: An image of car. A car is a road vehicle."


def test_without_a_description_the_caption_stays() -> None:
    assert sentence("animal, fauna", "") == "animal: An image of animal."


def test_braces_in_a_users_text_are_text() -> None:
    assert sentence("a{b}", "{name}") == "a{b}: An image of a{b}. {name}"


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(prompts).failed == 0
