"""What a label's description defines it as: a kind of this, a part of that, together with a third.

Descriptions open with a definition, by the genus and what sets it apart: "A tuk-tuk is a vehicle with three wheels".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# The first word that no longer belongs to the kind.
_STOP = re.compile(
    r"[.,;:()]|$| (?:that|which|who|whose|where|with|without|for|in|on|at|to|from|by|and|or|whether|under|over|above|"
    r"along|behind|beside|between|near|than|other|such|like|as|is|are|usually|often|used|made|worn|seen|held|kept|grown|built|found|known|left|meant|cut|driven|ridden|drawn)"
    r"(?= |$)"
    r"| (?!(?:\w*(?:building|ring|thing|wing|king|painting|clothing|ceiling|railing|bedding|covering|opening|awning|"
    r"parking|crossing|dressing|housing|flooring|fencing|marking|drawing|being|sling|string|bed|shed|seed|weed|sled))\b)"
    r"\w+(?:ed|ing)(?= (?:an?|the|its|his|her|their|by|to|for|in|on|at|from|with|of|over|under|as|into|up|out|around|"
    r"along|off|through|together|and)\b)"
)
_IS = re.compile(
    r"\b(?:is|are|means|denotes) (?:(?:an?|the|any|all|some|one|several|either|every|each|usually) )*", re.I
)
_CLAUSE = re.compile(r"\b(?:that|which|who|whoever|whose|where|when|if)\b", re.I)
_KIND_OF = re.compile(
    r"^(?:(?:\w+ )?(?:kinds?|types?|sorts?|form|pieces?|group|groups|class|set|items?) of )+(?:an? )?"
)
_PART = re.compile(
    r"^(?:[\w'-]+ ){0,2}?(?:parts?|sides?|back|front|top|end|edge|surface|inside|segment) of (?:an? |the )?"
)
_OPENING = re.compile(r"^(?:(?:an?|the|any|all|some|every|each|other|another) )+", re.I)
_TOGETHER = re.compile(r"\btogether with (?:the|its|their|an?|his or her) ")


@dataclass(frozen=True)
class Definition:
    """What the first sentence of a description says.

    Attributes:
        kinds: phrases of what it is a kind of, in the order in which they are said; each begins with more words than
            belong to the kind, maybe: "large road vehicle".
        wholes: likewise of what it is a part of.
        more: what it stands for besides, "together with its rider".
    """

    kinds: tuple[str, ...] = ()
    wholes: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


def definition(description: str) -> Definition:
    """Read a description. The result is empty if it is not English or defines nothing.

    >>> definition("A tuk-tuk is a small vehicle with three wheels.").kinds
    ('small vehicle',)
    >>> definition("A windshield is the front window of a car.").kinds
    ('front window',)
    """
    text = " ".join(description.split())
    first = re.split(r"(?<=[a-z)])[.!?](?= [A-Z]|$)", text)[0]
    if not first:
        return Definition()
    kinds: list[str] = []
    wholes: list[str] = []
    for body in _bodies(first):
        phrase = _OPENING.sub("", body)
        if phrase.startswith(("that ", "which ", "who ")):  # "Another piece of furniture is one that …"
            phrase = _OPENING.sub("", first)
        if match := _PART.match(phrase):
            wholes += _phrases(phrase[match.end() :])
        else:
            kinds += _phrases(_KIND_OF.sub("", phrase))
    more = [phrase for match in _TOGETHER.finditer(first) for phrase in _phrases(first[match.end() :])]
    return Definition(tuple(dict.fromkeys(kinds)), tuple(dict.fromkeys(wholes)), tuple(dict.fromkeys(more)))


def _bodies(sentence: str) -> Iterator[str]:
    """What follows the verb; the whole sentence where it has none, as in "Any motor vehicle with four wheels"."""
    match = _IS.search(sentence)
    if match is None or _CLAUSE.search(sentence[: match.start()]):
        if len(sentence.split()) > 1:
            yield sentence
        return
    yield sentence[match.end() :]


def _phrases(text: str) -> Iterator[str]:
    """The noun phrases that a text begins with, of which the first that is known counts.

    In "large, heavy wild animal" they are those between commas, in "red or green vegetable" those on both sides.
    """
    while text:
        end = _STOP.search(text)
        phrase, of, _ = text[: end.start() if end else None].partition(" of ")
        if phrase.strip():
            yield phrase.strip().lower()
        rest = text[end.start() :] if end else ""
        joint = re.match(r"(?:,? (?:or|and)|,) (?:an? )?(?!with|often|usually|such)", rest)
        if of or joint is None:
            return
        text = rest[joint.end() :]
