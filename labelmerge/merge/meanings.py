"""What the words of a bank's labels may mean, in the company of the others of their list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.merge.company import Company
from labelmerge.merge.concepts import WHOLE, Concept
from labelmerge.merge.everyday import everyday_word
from labelmerge.merge.homonyms import Kinship, further_meanings
from labelmerge.merge.lexicon import Lexicon, Sense
from labelmerge.merge.phrases import ends, plain, readings, synonyms

DEMANDED = 0.8
"""Of all that speaks for a word's meanings: what takes it to be clear, or a label to mean more than its name."""
FIRST, FURTHER = 1.0, 0.3
"""How much a name's first word counts, and each synonym after it."""


class Meanings:
    """Looks words up for the labels of datasets that don't ship.

    Args:
        bank: N labels.
        known: what ships.
        strangers: the rows of each such dataset.

    Attributes:
        new: the concepts made so far for meanings that the graph lacks, by name.
    """

    def __init__(self, bank: Bank, known: Lexicon, strangers: Mapping[str, Sequence[int]]) -> None:
        self._bank, self._known = bank, known
        self._company = {
            dataset: Company.of([bank.names[row] for row in rows], known) for dataset, rows in strangers.items()
        }
        self.new: dict[str, Concept] = {}
        self._rows, self._kin = strangers, dict[str, Kinship]()

    def _votes(self, name: str, company: Company) -> list[tuple[Sense, float]]:
        """What a whole name may mean, likeliest first."""
        words = synonyms(name)
        tries = [[(word, FIRST if place == 0 else FURTHER) for place, word in enumerate(words)]]
        tries += [[(word, FIRST)] for word in readings(name)[1:]]
        return next((votes for phrases in tries if (votes := self._known.lookup(phrases, company.affinity))), [])

    def _meaning(self, phrase: str, company: Company) -> tuple[str, ...]:
        """The likeliest concepts of a whole phrase; none where it is not known."""
        if votes := self._votes(phrase, company):
            return votes[0][0].concepts
        found = (word for reading in readings(phrase) if (word := everyday_word(reading)) and not word.only_but)
        return next((word.concepts(self.new) for word in found), ())

    def _agrees(self, sense: Sense, kinds: Sequence[str]) -> bool:
        """Whether a meaning is of one of these kinds, or one of them is of its."""
        graph = self._known.graph
        return any(c in graph.below(kind) or kind in graph.below(c) for c in sense.concepts for kind in kinds)

    def _parents(self, phrase: str, company: Company, but: str = "", exact: bool = False) -> tuple[str, ...]:
        """The one concept that a phrase, or else the longest known end of it, means; none where none is known."""
        for end in (phrase,) if exact else ends(phrase):
            if end == but:
                continue
            if end in self.new:
                return (end,)
            for sense, _ in self._known.lookup([(end, 1.0)], company.affinity):
                if len(sense.concepts) == 1 and sense.concepts != (WHOLE,):
                    return sense.concepts
            word = everyday_word(end)
            if word is not None and not word.only_but and len(concepts := word.concepts(self.new)) == 1:
                return concepts
        return ()

    def _kinship(self, dataset: str) -> Kinship:
        """The labels of a list that are clear without the others."""
        if dataset not in self._kin:
            graph, clear = self._known.graph, {}
            for row in self._rows[dataset]:
                for phrase in ends(plain(self._bank.names[row])):
                    votes = self._votes(phrase, self._company[dataset])
                    agree = sum(much for sense, much in votes if self._agrees(sense, votes[0][0].concepts))
                    if further_meanings(phrase) or (votes and agree < DEMANDED * sum(much for _, much in votes)):
                        break
                    found = self._meaning(phrase, self._company[dataset])
                    kinds = [c for one in found for c in ((one,) if one in graph else self.new[one].kind_of)]
                    parts = [c for one in found if one not in graph for c in self.new[one].part_of]
                    kinds, parts = ([each for each in own if each in graph] for own in (kinds, parts))
                    if parts or kinds and kinds != [WHOLE]:
                        clear[row] = kinds, parts
                        break
            self._kin[dataset] = Kinship(graph, clear)
        return self._kin[dataset]

    def _siblings(self, one: Sequence[str], other: Sequence[str]) -> bool:
        graph = self._known.graph
        wholes = [{whole for concept in own for whole in graph[concept].wholes} for own in (one, other)]
        return bool(wholes[0] & wholes[1] - {WHOLE})
