from __future__ import annotations

import pytest

from labelmerge.text import aligned, counted, some


def test_words_are_aligned_left_and_numbers_right() -> None:
    assert aligned([("name", "n"), ("a", "12"), ("longer", "3")]) == ["name     n", "a       12", "longer   3"]
    assert aligned([("a", "b", "1"), ("aa", "bb", "22")], left=2) == ["a   b    1", "aa  bb  22"]


@pytest.mark.parametrize(
    ("count", "words", "wanted"),
    [
        (0, ("split",), "0 splits"),
        (1, ("split",), "1 split"),
        (1200, ("split",), "1,200 splits"),
        (1, ("box", "boxes"), "1 box"),
        (2, ("category", "categories"), "2 categories"),
    ],
)
def test_a_noun_follows_its_number(count: int, words: tuple[str, ...], wanted: str) -> None:
    assert counted(count, *words) == wanted


def test_a_long_list_is_cut_and_says_how_much_is_left_out() -> None:
    assert some([]) == ""
    assert some("abcde") == "a, b, c, d, e"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
    assert some(range(3), most=1) == "0 and 2 more"
    assert some(["x: y", "z"], most=1, separator="; ") == "x: y; and 1 more"
