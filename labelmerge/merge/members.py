"""What a description lists: the things that a label takes in, and those that it leaves out.

Wide labels are often described by what they take in ("Flat ground: roads and sidewalks", "Trees, bushes and other
plants") or leave out ("All vehicles except bicycles"). `labelmerge.merge.definitions` reads what a thing is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labelmerge.merge.phrases import singular

_BUT = re.compile(
    r"[,;(]?\s*\b(?:(?:but |and )?(?:except(?:ing)?(?: for)?|excluding|excl\.|(?:not|without) (?:including|counting)|"
    r"apart from|aside from|other than)|(?:but|and) (?:not|no)|(?:that|which) (?:(?:is|are) not|(?:is|are)n['’]t)|"
    r"(?<=[,;(] )(?:not|no)|(?<=\()(?:not|no)|^(?:not|no))\s+(?:the |an? )?",
    re.I,
)
_NOT_MEANT = re.compile(
    r"\s(?:are|is|do|does|must|should)(?: not|n['’]t)\b|\s(?:are|is) (?:excluded|left out|ignored)\b|"
    r"\s(?:go(?:es)? (?:in)?to|belongs? to|counts? as)\b",
    re.I,
)
_EXAMPLES = re.compile(
    r"[,;(]?\s*\b(?:such as|(?:and )?including|incl\.|for (?:example|instance)|e\.g\.|whether|"
    r"like(?= (?:an? )?\w+[ ,]))[:,]?\s+",
    re.I,
)
_EXACTLY = re.compile(r"\s*(?:[:(]|\b(?:i\.e\.|namely)[:,]?\s|, that is,\s|, so\s)\s*", re.I)
_SENTENCE = re.compile(r"(?<=[a-z)])[.!?]\s+(?=[A-Z])|;\s+")
_BETWEEN = re.compile(r"\s*(?:[,;/&+]|\b(?:and|or|as well as|plus)\b)\s*", re.I)
_BEFORE = re.compile(
    r"^(?:(?:only|single|whole|individual|the|both|either|also|even|any|all|some|every|each|various|most|no|"
    r"(?:kinds|sorts|types) of|things like)\s+)+",
    re.I,
)
_OTHER = re.compile(r"^(?:an)?other\s+", re.I)
_ARTICLE = re.compile(r"^(?:an?|the|its|their|his|her)\s+", re.I)
_END = re.compile(
    r"[.!?)]|(?:^|\s)(?:that|which|who|whose|where|with|without|for|in|on|at|to|from|by|under|over|above|along|behind|"
    r"beside|between|near|than|together|of|is|are|when|if|used|made|worn|seen|held|standing|lying|parked|etc)\b",
    re.I,
)
_VERB = re.compile(r"\s(?:is|are|means|denotes)\s", re.I)
_MORE = re.compile(r"^(?:etc|so on|the like|similar(?: things)?|others?|more|so forth|things|such)?\.?$", re.I)
_QUANTIFIER = re.compile(r"^(?:all|any|every|each)\b", re.I)
_WORDS = re.compile(r"[A-Za-z][\w'’-]*(?: [A-Za-z][\w'’-]*){0,2}")
_ALL_OF = re.compile(rf"(?:(?:all|any|every|each|the) )*(?:(?:kinds?|sorts?|types?) of )?({_WORDS.pattern})", re.I)


@dataclass(frozen=True)
class Listed:
    """What a description lists, as it spells it.

    Attributes:
        things: what the label takes in.
        others: what follows *other* in the list, "trees and other plants"; it may say too little to be known.
        whole: whether these are all, and no examples of something wider.
        but: what the label leaves out.
        all_of: what it is all of, "any seat, such as …", "people, not counting riders"; "" where more is said of it.
    """

    things: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    whole: bool = False
    but: tuple[str, ...] = ()
    all_of: str = ""


def listed(description: str) -> Listed:
    """Read a description. The result is empty if it lists nothing.

    >>> listed("Flat ground in a street: roads and sidewalks.").things
    ('roads', 'sidewalks')
    >>> listed("Motor vehicles, such as cars or a bus, but no trams")
    Listed(things=('cars', 'bus'), others=(), whole=False, but=('trams',), all_of='Motor vehicles')
    >>> listed("A glass or plastic bottle.").things, listed("A person who walks, stands or sits.").things
    ((), ())
    """
    text, *further = _SENTENCE.split(" ".join(description.split()))
    but: list[str] = []
    if match := _BUT.search(text):
        after = text[match.end() :]
        cue = _EXACTLY.search(after) or _EXAMPLES.search(after)
        if left := _things(after[: cue.start()] if cue else after):
            but += [thing for thing, _ in left]
            text = text[: match.start()] + (after[cue.start() :] if cue else "")
    for sentence in further:
        if match := _NOT_MEANT.search(sentence):
            but += [thing for thing, _ in _things(sentence[: match.start()])]
        elif match := _BUT.search(sentence):
            but += [thing for thing, _ in _things(sentence[match.end() :])]
    examples, exactly = _EXAMPLES.search(text), _EXACTLY.search(text)
    cue = examples or exactly
    found = [] if exactly and not examples else _list(text[: cue.start()] if cue else text)
    whole = bool(found) or examples is None
    if cue:
        found += [(thing, other or bool(found)) for thing, other in _things(text[cue.end() :])]
        text = text[: cue.start()]
    return Listed(
        tuple(dict.fromkeys(thing for thing, other in found if not other)),
        tuple(dict.fromkeys(thing for thing, other in found if other)),
        bool(found) and whole,
        tuple(dict.fromkeys(but)),
        match[1] if (match := _ALL_OF.fullmatch(text.strip(" ,.;"))) and _is_all(text, match[1]) else "",
    )


def _list(text: str) -> list[tuple[str, bool]]:
    """What a text is a list of, if it is nothing else: `_things` of two or more."""
    if _VERB.search(text):
        return []  # "clothes and cloth are …" only names what it is about
    found = _things(text)
    after_article = bool(_ARTICLE.match(text))
    if len(found) < 2 or (after_article and any(_is_bare(thing, text) for thing, _ in found)):
        return []
    return found


def _is_all(text: str, thing: str) -> bool:
    """Whether a text that is one noun phrase means all of it: it says so, or is in the plural."""
    return not _BETWEEN.search(thing) and (bool(_QUANTIFIER.match(text)) or singular(thing.lower()) != thing.lower())


def _is_bare(thing: str, text: str) -> bool:
    """Whether a thing has no article, and is not in the plural, either: it may only describe what follows."""
    return singular(thing.lower()) == thing.lower() and not re.search(
        rf"\b(?:an?|the|(?:an)?other) {re.escape(thing)}", text, re.I
    )


def _things(text: str) -> list[tuple[str, bool]]:
    """The noun phrases that a text begins with, and whether they follow *other*; what is after the last is left out."""
    found: list[tuple[str, bool]] = []
    for piece in _BETWEEN.split(text):
        end = _END.search(piece)
        thing = (piece[: end.start()] if end else piece).strip(" '\"")
        if not _MORE.match(thing):
            thing = _BEFORE.sub("", thing)
            bare = _BEFORE.sub("", _OTHER.sub("", thing))
            other = bare != thing
            bare = _ARTICLE.sub("", bare)
            if not _WORDS.fullmatch(bare):
                break
            found.append((bare, other))
        elif end and not found:
            break
        if end:
            break
    return found
