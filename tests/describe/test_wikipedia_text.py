"""How the opening of an article becomes a description."""

from __future__ import annotations

import pytest

from labelmerge.describe.wikipedia import clean, opening

from .wiki import words


@pytest.mark.parametrize(
    ("lead", "plain"),
    [
        ("A dog (Canis familiaris (or lupus)) barks.", "A dog barks."),
        ("The train  (UK: /treɪn/ ; US: ) , [1] runs .\n", "The train, runs."),
        ("A car /kɑːr/ is fast and/or slow at 3 km/h or mi/h.", "A car is fast and/or slow at 3 km/h or mi/h."),
        ("First line\nand second (", "First line and second ("),
        ("A thing ( ; ), ; really.", "A thing, really."),
        ("The area x 2 {\\displaystyle x^{2}} is a square.", "The area x 2 is a square."),
        ("A so\u00adfa\ufeff &amp; bed.", "A sofa & bed."),
        ("猫（ねこ）は動物。", "猫は動物。"),
        ("", ""),
    ],
)
def test_brackets_and_pronunciations_go(lead: str, plain: str) -> None:
    assert clean(lead) == plain


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        (1, ""),
        (12, "It is used, e.g. by J. R. Smith, in the U.S. Army."),
        (14, "It is used, e.g. by J. R. Smith, in the U.S. Army. Is it?"),
        (99, "It is used, e.g. by J. R. Smith, in the U.S. Army. Is it? 3.5 km long."),
    ],
)
def test_whole_sentences_only(limit: int, taken: str) -> None:
    text = "It is used, e.g. by J. R. Smith, in the U.S. Army. Is it? 3.5 km long. And an unfinished"
    assert opening(text, lambda part: words(part) <= limit) == taken


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("猫は動物である。小さい。", "猫は動物である。"),
        ("Ein Pkw bzw. Auto fährt z. B. auf Straßen. Örtlich rollt es.", "Ein Pkw bzw. Auto fährt z. B. auf Straßen."),
        ("Дом — это здание. Он стоит.", "Дом — это здание."),
        ("It is ca. 3 m long, i.e. short, etc. and so on. Then.", "It is ca. 3 m long, i.e. short, etc. and so on."),
    ],
)
def test_where_a_sentence_ends(text: str, first: str) -> None:
    assert opening(text, lambda part: len(part) <= len(first)) == first
