"""What is wrong with a set of descriptions, short of being unreadable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from labelmerge.describe.files import Description
from labelmerge.describe.prompts import CLIP_TOKENS, clip_tokens, sentence

Kind = Literal["missing", "bare", "long", "duplicate text", "duplicate index", "source"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row.

    Attributes:
        index, name: the row's.
        kind: ``missing``: no description; ``bare``: it says no more than the caption; ``long``: the encoder would cut
            it off; ``duplicate text``: two classes of the dataset with one text would be merged; ``duplicate index``;
            ``source``: not said where the text is from, or under which licence it may be used.
        what: the same in a sentence.
    """

    index: int
    name: str
    kind: Kind
    what: str


def lint(
    rows: Iterable[Description],
    *,
    count_tokens: Callable[[str], int] = clip_tokens,
    max_tokens: int = CLIP_TOKENS,
) -> list[Problem]:
    """The problems of one dataset's descriptions, in the order of its rows.

    Args:
        rows: all rows of one dataset.
        count_tokens: how many tokens the encoder needs for a text, special ones included.
        max_tokens: how many it reads.
    """
    problems: list[Problem] = []
    seen_texts: dict[str, Description] = {}
    seen_indices: dict[int, Description] = {}
    for row in rows:

        def report(kind: Kind, what: str, row: Description = row) -> None:
            problems.append(Problem(row.index, row.name, kind, what))

        if row.index in seen_indices:
            report("duplicate index", f"has the same index as {seen_indices[row.index].name!r}")
        seen_indices.setdefault(row.index, row)

        text = " ".join(row.description.split())
        if not text:
            report("missing", "has no description")
            continue
        if _says_nothing(row.name, text):
            report("bare", "has a description that says no more than the caption")
        tokens = count_tokens(sentence(row.name, text))
        if tokens > max_tokens:
            report("long", f"makes a sentence of {tokens} tokens; the encoder reads {max_tokens}")
        if text in seen_texts:
            report("duplicate text", f"has the same text as {seen_texts[text].name!r}, so the two would be merged")
        seen_texts.setdefault(text, row)

        if not row.source:
            report("source", "does not say where its text is from")
        elif row.source == "wikipedia" and not (row.licence and row.url and row.revision):
            report("source", "has a text from Wikipedia without its licence, url and revision")
        elif row.source != "curated" and not row.licence:
            report("source", f"has a text from {row.source!r} without a licence")
    return problems


def _says_nothing(name: str, text: str) -> bool:
    caption = sentence(name, "")
    bare = {caption, caption.partition(": ")[2], name, sentence(name, name)}
    return text.casefold().rstrip(".") in {" ".join(words.split()).casefold().rstrip(".") for words in bare}
