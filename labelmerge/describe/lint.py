"""What is wrong with a set of descriptions, short of being unreadable."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from labelmerge.clip_tokens import count_clip_tokens
from labelmerge.descriptions import Description
from labelmerge.names import MAX_TOKENS, prompt_name, sentence

Kind = Literal["missing", "bare", "long", "no category", "duplicate text", "near text", "duplicate index", "source"]

NEARLY = 0.85
"""How much of two texts may be the same, from 0 to 1, before they count as nearly the same."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row.

    Attributes:
        index, name: the row's.
        kind: ``missing``: no description; ``bare``: it says no more than the caption; ``long``: the encoder would cut
            it off; ``no category``: it does not open with what kind of thing it describes; ``duplicate text``: two
            classes of the dataset with one text would be merged; ``near text``: two nearly would; ``duplicate index``;
            ``source``: a text that isn't one's own, without its source or the licence under which it may be used.
        what: the same in a sentence.
    """

    index: int
    name: str
    kind: Kind
    what: str


def lint(
    rows: Iterable[Description],
    *,
    count_tokens: Callable[[str], int] = count_clip_tokens,
    max_tokens: int = MAX_TOKENS,
) -> list[Problem]:
    """The problems of one dataset's descriptions, in the order of its rows.

    Args:
        rows: all rows of one dataset.
        count_tokens: how many tokens the encoder needs for a text, special ones included.
        max_tokens: how many a sentence may have, the prompt's caption included.
    """
    problems: list[Problem] = []
    seen_texts: dict[str, Description] = {}
    seen_words: list[tuple[_Words, Description]] = []
    seen_indices: dict[int, Description] = {}
    for row in rows:

        def report(kind: Kind, what: str, row: Description = row) -> None:
            problems.append(Problem(row.index, row.name, kind, what))

        if row.index in seen_indices:
            report("duplicate index", f"has the same index as {seen_indices[row.index].name!r}")
        seen_indices.setdefault(row.index, row)

        text = " ".join(row.description.split())
        if not text:
            report("missing", "has no description" + (f": {row.note}" if row.note else ""))
            continue
        if _says_nothing(row.name, text):
            report("bare", "has a description that says no more than the caption")
        elif row.source != "wikipedia" and not _says_what_kind(text):  # an article's opening is a definition
            report("no category", "has a description that does not open with what kind of thing it is")
        tokens = count_tokens(sentence(row.name, text))
        if tokens > max_tokens:
            report("long", f"makes a sentence of {tokens} tokens; {max_tokens} are allowed")
        if text in seen_texts:
            report("duplicate text", f"has the same text as {seen_texts[text].name!r}, so the two would be merged")
        else:
            words = _Words.of(text)
            if other := next((earlier for seen, earlier in seen_words if words.is_nearly(seen)), None):
                report("near text", f"has nearly the same text as {other.name!r}: say what sets them apart")
            seen_texts[text] = row
            seen_words.append((words, row))

        if not row.source:  # one's own words, unless the other columns say that somebody else's were fetched
            if row.url or row.revision or row.retrieved or row.licence:
                report("source", "has a text from elsewhere and does not name it in the column source")
        elif row.source == "wikipedia" and not (row.licence and row.url and row.revision):
            report("source", "has a text from Wikipedia without its licence, url and revision")
        elif row.source != "curated" and not row.licence:
            report("source", f"has a text from {row.source!r} without a licence in the column licence")
    return problems


_WORD = re.compile(r"\w+")
_FILLER = frozenset("a an the this is of image photo photograph picture some in and or".split())


def _says_nothing(name: str, text: str) -> bool:
    """Whether a text is made of the name and of words for "picture of" alone."""
    named = set(_WORD.findall(f"{name} {prompt_name(name)}".casefold()))
    return not set(_WORD.findall(text.casefold())) - _FILLER - named


_IS = re.compile(
    r"\S\s+(?:is|are|was|were|means|refers to|ist|sind|est|sont|es|son|è|sono|é|são|zijn|är|er|jest)\s+(?P<what>.+)",
    re.IGNORECASE,
)
"""What joins a thing to its category, in the languages that people are most likely to write descriptions in."""
_NEXT = re.compile(r"\s(?:is|was)\s+(\w+)", re.IGNORECASE)
_DETERMINERS = frozenset("a an the one two any some several another anything something what part".split())


_MASS = re.compile(
    r"\s(?:is|was)\s+(\w+)\s+(\w+)(?=\s*[,.;:(]|\s+(?:that|which|for|with|of|from|used|made|worn)\b|$)", re.I
)
"""A kind that takes no article, in two words: "is sports gear, …", "is body armour that …"."""
_NO_NOUNS = frozenset(
    "very too so quite rather often usually always mostly never not more most less and or but as to in on at by than "
    "like big large small tall long short high low wide narrow old new hot cold round flat red green blue white black "
    "grey gray brown yellow orange dark bright light heavy".split()
)


def _is_of_a_mass(text: str) -> bool:
    """Whether a text says "is sports gear", rather than "is very big" or "is often seen"."""
    found = _MASS.search(text)
    words = [word.casefold() for word in found.groups()] if found else []
    return bool(words) and not any(word in _NO_NOUNS or word.endswith(("ly", "ed", "ing")) for word in words)


def _says_what_kind(text: str) -> bool:
    """Whether a text opens as "X is a kind of thing" or "A kind of thing", not as "X is big" or "Found on roads"."""
    first = re.split(r"(?<=\w{4}[.!?])\s", text, maxsplit=1)[0]  # no word of three letters: it may be an abbreviation
    next_words = _NEXT.findall(first)
    if next_words and re.match(r"an?\s", first, re.IGNORECASE):
        return any(word.casefold() in _DETERMINERS for word in next_words) or _is_of_a_mass(first)
    if not first.isascii() and not re.search("[A-Za-z]{2}", first):
        return True  # a script whose grammar this does not know
    joined = _IS.search(first)
    if joined is None and re.match(r"(?:an?|the|any|one)\s", first, re.IGNORECASE):
        return len(_WORD.findall(first)) >= 3  # as dictionaries do: "A tall plant with a trunk of wood."
    return joined is not None and len(_WORD.findall(joined["what"])) >= 2


@dataclass(frozen=True)
class _Words:
    """A text as words, ready to be compared."""

    words: tuple[str, ...]
    distinct: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Words:
        words = tuple(text.casefold().split())
        return cls(words, frozenset(words))

    def is_nearly(self, other: _Words) -> bool:
        needed = NEARLY * (len(self.words) + len(other.words)) / 2
        repeated = len(self.words) - len(self.distinct)
        if len(self.distinct & other.distinct) + repeated < needed:  # so many words can't be shared, in any order
            return False
        return SequenceMatcher(None, self.words, other.words, autojunk=False).ratio() >= NEARLY
