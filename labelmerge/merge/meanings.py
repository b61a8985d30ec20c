"""What the words of a bank's labels may mean, in the company of the others of their list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from labelmerge.bank.bank import Bank
from labelmerge.bank.prompt import Prompt
from labelmerge.merge.company import Company
from labelmerge.merge.concepts import WHOLE, Concept, ConceptGraph
from labelmerge.merge.definitions import definition
from labelmerge.merge.everyday import everyday_word
from labelmerge.merge.homonyms import Kinship, further_meanings
from labelmerge.merge.lexicon import Lexicon, Sense, narrowest
from labelmerge.merge.members import Listed, listed
from labelmerge.merge.phrases import ends, plain, readings, singular, synonyms

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
        self._said = {
            row: _description(bank, row) for rows in strangers.values() for row in rows if bank.described[row]
        }
        self._defined = {row: definition(text) for row, text in self._said.items()}
        self._listed = {row: listed(text) for row, text in self._said.items()}

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

    def _members(self, own: Listed, company: Company) -> tuple[tuple[str, ...], list[str]]:
        """The concepts of what a text lists, and what of it is not known.

        Of "tarmac roads" the last word alone is known: it is a new concept within roads.
        """
        found: dict[str, tuple[str, ...]] = {}
        for thing in (*own.things, *own.others):
            one = singular(plain(thing))
            found[thing] = self._meaning(one, company) or self._meaning(thing, company)
            if not found[thing] and thing in own.things and (kinds := self._parents(plain(thing), company)):
                found[thing] = (self.new.setdefault(one, Concept(one, kinds)).name,)
        return self._union(found.values()), [thing for thing in own.things if not found[thing]]

    def _union(self, found: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        """The concepts of several things; where the graph has them all, without those that lie within another."""
        concepts = tuple(dict.fromkeys(concept for own in found for concept in own))
        if any(concept in self.new for concept in concepts):
            return concepts
        return narrowest(concepts, self._known.graph)

    def _is_within(self, concept: str, concepts: Sequence[str]) -> bool:
        """Whether a concept, or what a new one is a kind of, is one of these or lies within one."""
        graph = self._known.graph
        own = (concept,) if concept in graph else self.new[concept].wholes
        return any(one in graph.below(other) for one in own if one in graph for other in concepts if other in graph)

    def left_out(self, row: int, concepts: Sequence[str], graph: ConceptGraph) -> tuple[str, ...]:
        """Of what a label's text says that it leaves out, the concepts that lie within its own, in the whole graph."""
        company = self._company.get(self._bank.keys[row][0])
        if company is None or row not in self._listed:
            return ()
        out = (c for thing in self._listed[row].but for c in self._meaning(thing, company))
        within = set().union(*(graph.below(concept) for concept in concepts)) - {*concepts}
        return tuple(dict.fromkeys(concept for concept in out if concept in within))

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

    def _categories(self, row: int) -> tuple[str, ...]:
        """All concepts that the categories of a label's text may mean; none where it says nothing of use."""
        defined = self._defined.get(row)
        if defined is None:
            return ()
        company = self._company[self._bank.keys[row][0]]
        found: list[str] = []
        name = plain(self._bank.names[row])
        for phrase in (*defined.kinds, *defined.wholes):
            if f" {name} " in f" {plain(phrase)} ":
                continue  # "a door leaf" of *door* is no leaf
            for end in ends(phrase):
                if votes := self._known.lookup([(end, 1.0)], company.affinity):
                    found += [concept for sense, _ in votes for concept in sense.concepts]
                    break
        return tuple(dict.fromkeys(found))

    def _kinds(self, row: int) -> tuple[str, ...]:
        company = self._company[self._bank.keys[row][0]]
        return next(
            (own for p in self._defined[row].kinds if (own := self._parents(p, company, plain(self._bank.names[row])))),
            (),
        )

    def _wholes(self, row: int) -> tuple[str, ...]:
        company = self._company[self._bank.keys[row][0]]
        return next((own for p in self._defined[row].wholes if (own := self._parents(p, company))), ())

    def _with_more(self, row: int, concepts: tuple[str, ...]) -> tuple[str, ...]:
        """A label's concepts, and those of what its text says that it is taken together with."""
        if row not in self._said:
            return concepts
        company = self._company[self._bank.keys[row][0]]
        more = next((own for phrase in self._defined[row].more if (own := self._parents(phrase, company))), ())
        return narrowest([*concepts, *more], self._known.graph) if more else concepts


def _description(bank: Bank, row: int) -> str:
    """What a label's text says beyond its name."""
    empty, probe = Prompt.stored(bank.prompt), "\0"
    first = bank.texts[row].split("\n")[0]
    before, _, after = empty.text(bank.names[row], probe).split("\n")[0].partition(probe)
    return first.removeprefix(before).removesuffix(after).strip() if after else first.removeprefix(before).strip()
