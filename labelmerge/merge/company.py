"""What a dataset's list of names says about each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labelmerge.merge.lexicon import Lexicon
from labelmerge.merge.phrases import before_hyphen, plain, word_key


@dataclass(frozen=True)
class Company:
    """What a dataset's list of names says about each of them.

    Attributes:
        affinity: how much each shipped dataset counts (`Lexicon.affinity`).
        first: words that several names have before a hyphen: kinds, as in *wall-brick* and *wall-stone*.
        shared: the share of these names, 0..1, that each shipped dataset has.
    """

    affinity: Mapping[str, float]
    first: frozenset[str]
    shared: Mapping[str, float]

    @classmethod
    def of(cls, names: Sequence[str], known: Lexicon) -> Company:
        first = Counter(before_hyphen(name) for name in names)
        first.update(plain(name) for name in names if first[plain(name)])
        words = {word_key(name) for name in names}
        shared = {dataset: len(words & theirs) / max(len(words), 1) for dataset, theirs in known.names.items()}
        return cls(
            known.affinity(names), frozenset(word for word, number in first.items() if number > 1 and word), shared
        )
