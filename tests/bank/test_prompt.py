from __future__ import annotations

import pytest

from labelmerge.bank.prompt import Prompt, split_sentences
from labelmerge.errors import UsageError
from labelmerge.names import PROMPT_TEMPLATE, prompt_name, sentence, word


@pytest.mark.parametrize("description", ["", "Where cars drive.", "With {braces}, 100 %."])
def test_the_default_is_the_papers(description: str) -> None:
    assert Prompt().templates == (PROMPT_TEMPLATE,)
    assert Prompt().text("floor_mat", description) == sentence("floor_mat", description)
    assert Prompt.of(["{name}"]).text("floor_mat", description) == word("floor_mat")


def test_accents_are_parts_of_their_letters() -> None:
    one, two = "Caf\u00e9", "Cafe\u0301"  # as a Mac writes it into names of files
    assert prompt_name(one) == prompt_name(two) == "caf\u00e9"
    assert Prompt().text(one, f"A {one}.") == Prompt().text(two, f"A {two}.") == sentence(two, f"A {two}.")


def test_several_templates_and_sentences_are_lines() -> None:
    prompt = Prompt.of(["{name}", "{name}: {sentence}", "{sentence}"])
    assert prompt.text("Bus", "Long. It has\n seats.").split("\n") == [
        "bus",
        "bus: Long.",
        "bus: It has seats.",
        "Long.",
        "It has seats.",
    ]
    assert prompt.text("Bus", "") == "bus\nbus:"
    assert Prompt.of(["{description}"]).text("Bus", "") == "bus"
    assert Prompt.of(["{name}", "{name} "]).templates == ("{name}",)
    assert Prompt.stored(str(prompt)) == prompt


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a photo", "names nothing of the label"),
        ("", "names nothing"),
        ("{nam}", r"names {nam}, and a label has only {name}, {description}, {sentence}. Write it as in"),
        ("{}", "names {}"),
        ("{name", "can't be read"),
        ("{name:>9}", "has a format"),
        ("{name!r}", "has a format"),
        ("{name.x}", "names {name.x}"),
        ("{name}\n{name}", "more than one line"),
    ],
)
def test_what_is_no_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Prompt.of([template])


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", [""]),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        (
            "About 3.5 m, e.g. A or approx. 5 m. Then Mr. Bean.",
            ["About 3.5 m, e.g. A or approx. 5 m.", "Then Mr. Bean."],
        ),
        ("Made by S. King. \u201cYes.\u201d It is.", ["Made by S. King.", "\u201cYes.\u201d", "It is."]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences
