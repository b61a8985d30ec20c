"""Words with several meanings, of which the list's other names tell which is meant: a crane beside geese is a bird.

``label_descriptions/homonyms.csv`` has meanings that no shipped label has (*bank*, *bow*, *deck*); those that ship are
known anyway. `Kinship` says how near a meaning is to the other labels of a list: by the narrowest concept that both lie
within, as in P. Resnik, "Using Information Content to Evaluate Semantic Similarity in a Taxonomy", IJCAI 1995, with the
share of concepts below it for its probability.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from labelmerge.catalog import homonyms_file
from labelmerge.merge.concepts import NEARLY_ALL, Booleans, Concept, ConceptGraph, shipped_rows, split_concepts
from labelmerge.merge.lexicon import Sense
from labelmerge.merge.phrases import choices, singular
from labelmerge.names import prompt_name

HEADER = ["word", "concept", "kind_of", "part_of", "beside"]
# How many labels of a list speak for a meaning, at least, and which share: a long list has some of every kind.
_NEAREST, _SHARE = 5, 0.25
_SELDOM = 0.25  # how much a meaning counts that no shipped label has, against all that do
_LITTLE = 0.1  # what a meaning has in common with any list
_SURE = 0.7  # of all that speaks for a word's meanings
_KEPT = 0.6  # how much at least a word's usual meaning is believed in a list that does not decide


_Own = tuple[str, ...]


@dataclass(frozen=True)
class Meaning:
    """A further meaning of a word: a concept of the graph, or a new one, and concepts that are often `beside` it."""

    concept: Concept
    beside: tuple[str, ...]


@cache
def _homonyms() -> dict[str, tuple[Meaning, ...]]:
    found: dict[str, list[Meaning]] = defaultdict(list)
    for word, name, *concepts in shipped_rows(homonyms_file(), HEADER):
        kind_of, part_of, beside = map(split_concepts, concepts)
        found[word].append(Meaning(Concept(name, kind_of, part_of), beside))
    return {word: tuple(meanings) for word, meanings in found.items()}


def further_meanings(name: str) -> tuple[Meaning, ...]:
    """What else a name may mean, in the singular or plural; abbreviations are words of their own.

    Raises:
        TaxonomyError: the installation is damaged.
    """
    if choices(name) != [name.strip()]:
        return ()
    word = prompt_name(name).casefold()
    return _homonyms().get(word) or _homonyms().get(singular(word), ())


@dataclass(frozen=True)
class Choice:
    """Which of its meanings a name has in its list.

    Attributes:
        concepts: of the meaning.
        new: the concepts among them that the graph lacks.
        share: of all that speaks for the name's meanings, what speaks for this one: 0 to 1.
        note: what else it may mean, where that is not out of the question, or that the list decided; or "".
        known: whether a shipped dataset has this meaning, and would have been believed without the list.
    """

    concepts: tuple[str, ...]
    new: tuple[Concept, ...]
    share: float
    note: str
    known: bool


class Kinship:
    """How near meanings are to the labels of one list.

    Args:
        graph: K concepts.
        labels: of each label that is clear without the others, what it is a kind of, and a part of, by any key.
    """

    def __init__(self, graph: ConceptGraph, labels: Mapping[int, tuple[Sequence[str], Sequence[str]]]) -> None:
        self._graph = graph
        size = graph.within.sum(axis=1)
        # 0 for what everything lies within, 1 for what nothing else does.
        self._says = 1 - np.log(size) / np.log(max(len(graph), 2))
        self._says[[row for row, name in enumerate(graph.names) if name in NEARLY_ALL]] = 0
        self._labels = {
            key: (self._around(graph.kinds, kinds), self._around(graph.within, [*kinds, *parts]))
            for key, (kinds, parts) in labels.items()
        }

    def _around(self, inside: Booleans, concepts: Sequence[str]) -> Booleans:
        return np.asarray(inside[:, self._graph.rows(concepts)].any(axis=1), dtype=np.bool_)

    def of(self, kinds: Sequence[str], label: int, parts: Sequence[str] = (), beside: Sequence[str] = ()) -> float:
        """How near a meaning is to the labels that are nearest to it, in the mean: 0, nothing in common, to 1.

        Parts of a building speak for other parts of it, and for no kind of building. Only parts of a car speak for a
        meaning that is a new part of cars: most lists have the car alone.

        Args:
            kinds: its concepts; of a new one, what it is a kind of.
            label: the key of the label itself.
            parts: what else a new one lies within.
            beside: what a new one is found beside, itself or its parts.
        """
        graph = self._graph
        kind = self._around(graph.kinds, kinds)
        whole = self._around(graph.within, kinds) & ~kind
        part = self._around(graph.parts, parts)
        found = np.isin(graph.names, beside)
        others = (own for key, own in self._labels.items() if key != label)
        near = [
            float((self._says * (kind & of_kind | whole & within | part & within & ~of_kind | found & within)).max())
            for of_kind, within in others
        ]
        nearest = sorted(near, reverse=True)[: max(_NEAREST, int(_SHARE * len(near)))]
        return sum(nearest) / len(nearest) if nearest else 0.0

    def choose(
        self, name: str, label: int, votes: Sequence[tuple[Sense, float]], usual: Concept | None = None
    ) -> Choice | None:
        """Which of its meanings a name has among these labels.

        Args:
            name: as its list spells it.
            label: its key.
            votes: the meanings that ship, and what speaks for each.
            usual: the concept of the one meaning among these votes, where the graph lacks it.

        Returns:
            None where it has one meaning that ships, or several that lie within each other, or where the list says
            nothing and all meanings ship, or none does.
        """
        # No list makes a thing of a word that is nobody's first name for it: an andiron is a *dog* to few.
        votes = [vote for vote in votes if not vote[0].is_aside] or votes
        total = sum(weight for _, weight in votes)
        prior = {sense.concepts: weight / total for sense, weight in votes}
        further = {(meaning.concept.name,): meaning for meaning in further_meanings(name)}
        further = {own: meaning for own, meaning in further.items() if own not in prior}
        prior.update(dict.fromkeys(further, _SELDOM if votes else 1 / max(len(further), 1)))
        if usual is not None and further:
            further[(usual.name,)] = Meaning(usual, ())
        new = {own for own in further if own[0] not in self._graph}
        place = {own: further[own].concept.wholes if own in new else own for own in prior}

        def apart(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
            return not (self._within(place[one], other, other in new) or self._within(place[other], one, one in new))

        if votes and not any(apart(one, other) for one in prior for other in prior if one != other):
            return None
        near = {own: [self.of([concept], label) for concept in own if own not in further] for own in prior}
        for own, meaning in further.items():
            kinds = meaning.concept.kind_of if own in new else own
            near[own] = [self.of(kinds, label, meaning.concept.part_of, meaning.beside)]
        kin = {own: sum(each) / len(each) for own, each in near.items()}  # several things: with all of these
        if not any(kin.values()) and not (further and votes):
            return None
        weight = {own: much * (_LITTLE + kin[own]) ** 2 for own, much in prior.items()}
        best = max(weight, key=weight.__getitem__)
        # Of several things in one, those that have something in common with the list, where that is a meaning, too.
        some = tuple(each for each, much in zip(best, near[best], strict=True) if much > _LITTLE * max(near[best]))
        best = some if some in prior else best
        others, share = self._against(best, weight, apart)
        mostly = votes[0][0].concepts if votes else best
        if best != mostly and best in further and share < _SURE:
            best = mostly  # a list that does not decide leaves a word what it mostly means
            others, share = self._against(best, weight, apart)
            share = max(share, _KEPT)
        note = ""
        if share < _SURE or any(own in further and kin[own] >= kin[best] for own in others):
            note = f"the name may also mean: {'; '.join(', '.join(own) for own in others[:3])}"
        elif votes and best != mostly:
            note = f"read as {', '.join(best)} because of the names beside it"
        return Choice(
            best, (further[best].concept,) if best in new else (), share, note, bool(votes) and best == mostly
        )

    @staticmethod
    def _against(
        best: _Own, weight: Mapping[_Own, float], apart: Callable[[_Own, _Own], bool]
    ) -> tuple[list[_Own], float]:
        """The meanings that a word can't have where it has this one, weightiest first; this one's share."""
        others = sorted((own for own in weight if own != best and apart(best, own)), key=lambda own: -weight[own])
        return others, weight[best] / (weight[best] + sum(weight[own] for own in others))

    def _within(self, inner: Sequence[str], outer: Sequence[str], new: bool) -> bool:
        """Whether some of these concepts lie within some others; within new ones nothing does."""
        return not new and any(concept in self._graph.below(*outer) for concept in inner)
