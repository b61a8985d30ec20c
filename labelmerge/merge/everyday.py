"""Words of users' class lists that no shipped dataset has: *worker*, *drivable area*, *two-wheeler*, *seagull*.

``label_descriptions/words.csv`` says of each what it means: concepts of the graph, or one of its own within others.
They are asked only for what names neither shipped labels nor concepts, and for what a word does *not* mean (a bare
*pedestrian* rides nothing); what ships means the same with or without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from labelmerge.catalog import words_file
from labelmerge.merge.concepts import Concept, shipped_rows, split_concepts
from labelmerge.merge.phrases import singular_key, word_key

HEADER = ["word", "means", "kind_of", "part_of", "but"]


@dataclass(frozen=True)
class Word:
    """A word, and either the concepts that it `means`, or what it is a kind and a part of; and which it does not mean.

    A word that only has what it does not mean is known otherwise.
    """

    word: str
    means: tuple[str, ...]
    kind_of: tuple[str, ...]
    part_of: tuple[str, ...]
    but: tuple[str, ...]

    @property
    def only_but(self) -> bool:
        """Whether it is known otherwise."""
        return not (self.means or self.kind_of or self.part_of)

    def concepts(self, new: dict[str, Concept]) -> tuple[str, ...]:
        """What it stands for; concepts that the graph lacks are added to `new`."""
        every = everyday()
        for other in (*self.means, *self.kind_of, *self.part_of):
            if (below := every.get(word_key(other))) and below.word == other:
                below.concepts(new)
        if self.means:
            return self.means
        new.setdefault(self.word, Concept(self.word, self.kind_of, self.part_of))
        return (self.word,)


@cache
def everyday() -> dict[str, Word]:
    """The words by their `word_key`.

    Raises:
        TaxonomyError: the installation is damaged.
    """
    rows = shipped_rows(words_file(), HEADER)
    return {word_key(word): Word(word, *map(split_concepts, rest)) for word, *rest in rows}


def everyday_word(phrase: str) -> Word | None:
    """The entry for a phrase, in the singular or plural."""
    words = everyday()
    return words.get(word_key(phrase)) or words.get(singular_key(phrase))
