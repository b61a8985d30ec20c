"""Which concepts a label is attached to: by the curated tables that ship, or else by its words.

A label of a shipped dataset is attached as its row in ``label_descriptions`` says. Any other label is attached, in this
order, by a description that ships; by its name, where the shipped datasets know it and its text does not say otherwise;
by a list of known names (*truck or bus*); by the meaning of its text; by the category that its text or the end of its
name gives ("A tuk-tuk is a vehicle …", *police car*), as a new concept within that one; or, where nothing is known of
it, to a new concept of its own. Whatever is unsure says so: its confidence is below 0.5, and its note says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from labelmerge.bank.bank import Bank
from labelmerge.merge.clustering import same_meaning
from labelmerge.merge.company import Company
from labelmerge.merge.concepts import NEARLY_ALL, WHOLE, Concept, ConceptGraph
from labelmerge.merge.everyday import everyday_word
from labelmerge.merge.homonyms import further_meanings
from labelmerge.merge.lexicon import Lexicon, Sense, is_shipped, lexicon
from labelmerge.merge.meanings import DEMANDED, FIRST, Meanings
from labelmerge.merge.members import Listed
from labelmerge.merge.nearness import Encode, Nearness
from labelmerge.merge.phrases import (
    ALL_OTHERS,
    NO_LABEL,
    choices,
    heads,
    is_shortened,
    joined,
    plain,
    readings,
    shared_head,
    singular_key,
    synonyms,
    without_rest,
    word_key,
)

CURATED, TEXT = "curated", "text"
UNSURE = 0.5
"""What is attached with less confidence is to be checked by a person."""

# How sure an attachment is. These are ranks; tests/benchmarks/bench_attachment.py shows how often each is right.
_BY_DESCRIPTION, _BY_NAME, _BY_MEANING, _BY_SENTENCE, _BY_LIST, _BY_WORD, _BY_HEAD = 0.95, 0.9, 0.8, 0.7, 0.7, 0.7, 0.6
_MISSPELLED, _ALONE, _REST = 0.45, 0.4, 0.3
_CATEGORY = 4  # concepts that are within a category, itself included, at least
_NESTED = 0.5  # how much a meaning within the likeliest one, or around it, speaks against it
_DOUBTFUL = 0.4  # of all that speaks for a word's meanings: what another one needs to be worth a note


@dataclass(frozen=True)
class Attachment:
    """What one label is attached to.

    Attributes:
        concepts: at least one concept of the graph.
        evidence: ``curated`` or ``text``.
        confidence: 0 to 1.
        note: what a person should look at, or "".
        but: concepts that it does not stand for, though they lie within its own.
    """

    concepts: tuple[str, ...]
    evidence: str
    confidence: float
    note: str = ""
    but: tuple[str, ...] = ()


def attach(
    bank: Bank, encode: Encode | None = None, without: Iterable[str] = ()
) -> tuple[ConceptGraph, list[Attachment]]:
    """Find the concepts of every label of a bank.

    Args:
        bank: N labels.
        encode: gives the vectors of texts that the bank lacks; asked only where names and categories do not decide.
            Without it, such labels are compared with those of the bank alone.
        without: shipped datasets that are treated as unknown, for measuring.

    Returns:
        The graph, with a concept added for each meaning that it lacks, and the N attachments in the bank's order.
    """
    known = lexicon(without)
    found: list[Attachment | None] = [None] * len(bank)
    strangers: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(bank.keys):
        if is_shipped(known, key, bank.names[row]):
            _, concepts, but = known.labels[key]
            found[row] = Attachment(concepts, CURATED, 1.0, but=but)
        else:
            strangers[key[0]].append(row)
    if not strangers:
        return known.graph, [attachment for attachment in found if attachment is not None]
    words = _Words(bank, known, Nearness(bank, known, encode), strangers)
    unnamed = []
    for row in (row for rows in strangers.values() for row in rows):
        found[row] = words.by_description(row) or words.by_company(row) or words.by_name(row)
        # The text of a label that has one says more than an everyday word.
        found[row] = found[row] or (None if bank.described[row] else words.by_word(row)) or words.by_list(row)
        if found[row] is None:
            unnamed.append(row)
    # Shorter names first: *tuk-tuk* makes a concept that *blue tuk-tuk* is then a kind of.
    for rows in sorted(_meanings(bank, unnamed, words.near), key=lambda rows: len(bank.names[rows[0]])):
        attachment = words.by_text(rows)
        for row in rows:
            found[row] = attachment
    graph = known.graph.extended(words.new.values())
    return graph, [
        replace(own, but=(*own.but, *words.left_out(row, own.concepts, graph)))
        for row, own in enumerate(found)
        if own is not None
    ]


def _meanings(bank: Bank, rows: Sequence[int], near: Nearness) -> list[list[int]]:
    """These rows by meaning: labels of different datasets whose texts mean the same."""
    if not rows:
        return []
    some = bank.for_keys([bank.keys[row] for row in rows])
    return [[rows[place] for place in own] for own in same_meaning(some, near.limit)]


class _Words(Meanings):
    """Attaches labels by their words.

    Attributes:
        near: compares vectors.
    """

    def __init__(self, bank: Bank, known: Lexicon, near: Nearness, strangers: Mapping[str, Sequence[int]]) -> None:
        super().__init__(bank, known, strangers)
        self.near = near

    def by_description(self, row: int) -> Attachment | None:
        """The attachment of a label with a description that ships."""
        concepts = self._known.texts.get(self._said.get(row, ""))
        return Attachment(concepts, TEXT, _BY_DESCRIPTION) if concepts else None

    def by_company(self, row: int) -> Attachment | None:
        """The attachment of a bare name with several meanings, of which the list's other names tell which it has."""
        name, dataset = self._bank.names[row], self._bank.keys[row][0]
        if row in self._said or len(synonyms(name)) > 1:
            return None  # its text, or its synonyms, say more
        votes, usual = self._votes(name, self._company[dataset]), None
        word = None if votes else everyday_word(name)
        if word is not None:
            if not word.means:
                usual = Concept(word.word, word.kind_of, word.part_of)
                if not all(whole in self._known.graph for whole in usual.wholes):
                    return None
            votes = [(Sense(word.means or (word.word,), {}, ()), FIRST)]
        chosen = self._kinship(dataset).choose(name, row, votes, usual)
        if chosen is None:
            return None
        self.new.update({concept.name: concept for concept in chosen.new})
        most = _BY_NAME if chosen.known and word is None else _BY_WORD
        return Attachment(chosen.concepts, TEXT, round(most * chosen.share, 2), chosen.note)

    def by_name(self, row: int) -> Attachment | None:
        """The attachment of a label whose name is known; None where it isn't, or where its text says otherwise."""
        name, company = self._bank.names[row], self._company[self._bank.keys[row][0]]
        votes = self._votes(name, company)
        if not votes:
            if (members := self._by_members(row)) is not None:
                return members
            if plain(name) in ALL_OTHERS or without_rest(plain(name)) in (ALL_OTHERS | {""}) - {"background"}:
                note = "taken for all that has no label of its own here"
                if plain(name) in NO_LABEL:
                    note += "; if its pixels have no label, let the recipe ignore them ([ids] ignore)"
                return Attachment((WHOLE,), TEXT, _REST, note)
            return None
        every = votes
        if (members := self._named_and_listed(row, votes)) is not None:
            return members
        kinds = self._categories(row)
        if kinds:
            votes = [vote for vote in every if self._agrees(vote[0], kinds)]
            if not votes:
                return self._against(row, every, kinds)
        cosines = (
            self.near.cosines(row, [sense for sense, _ in votes]) if len(votes) > 1 and row in self._said else None
        )
        if cosines is not None:
            best = votes[max(range(len(votes)), key=cosines.__getitem__)][0]
            return Attachment(self._with_more(row, best.concepts), TEXT, _BY_NAME)
        best, much = votes[0]
        wider: tuple[str, ...] = ()
        if (namesake := self._namesake(name, votes, company)) is not None:
            wider, (best, much) = best.concepts, namesake
        rest = [vote for vote in votes if vote[0] is not best]
        against = [(s, w) for s, w in rest if not self._agrees(s, best.concepts)]
        nested = sum(weight for _, weight in rest) - sum(weight for _, weight in against)
        share = much / (much + sum(weight for _, weight in against) + _NESTED * nested)
        confidence = round(_BY_NAME * share, 2)
        others = "; ".join(", ".join(sense.concepts) for sense, _ in against[:3])
        note = f"the name may also mean: {others}" if share < 1 - _DOUBTFUL and others else ""
        if is_shortened(name) or best.is_aside:
            confidence, note = min(confidence, _BY_WORD), note or f"read as {', '.join(best.concepts)}"
        if wider:
            more = ", ".join(concept for concept in wider if concept not in best.concepts)
            note = f"in lists like this one the name takes in: {more}"
        word = None if row in self._said else everyday_word(name)
        return Attachment(self._with_more(row, best.concepts), TEXT, confidence, note, word.but if word else ())

    def _namesake(
        self, name: str, votes: Sequence[tuple[Sense, float]], company: Company
    ) -> tuple[Sense, float] | None:
        """The concept that is called as a label, where only lists like this one say that the label takes in more.

        CamVid's *Car* stands for buses and lorries, too. A list that is somewhat like CamVid's is no proof that its
        *car* does: that is believed only where nearly everything says so, and nearly all of its names are CamVid's.
        """
        wide, much = votes[0]
        copied = max((company.shared.get(dataset, 0.0) for dataset in wide.weights), default=0.0) >= DEMANDED
        if len(wide.concepts) == 1 or (copied and much >= DEMANDED * sum(weight for _, weight in votes)):
            return None
        own = (vote for vote in votes[1:] if len(vote[0].concepts) == 1 and self._agrees(vote[0], wide.concepts))
        return next((v for v in own if word_key(v[0].concepts[0].partition(" (")[0]) == singular_key(name)), None)

    def _against(self, row: int, votes: Sequence[tuple[Sense, float]], kinds: Sequence[str]) -> Attachment | None:
        """The attachment by a name that the text seems to contradict; None where the text says something else."""
        cosines = self.near.cosines(row, [sense for sense, _ in votes])
        if cosines is not None and max(cosines) >= self.near.limit:
            best = votes[max(range(len(votes)), key=cosines.__getitem__)][0]
            return Attachment(best.concepts, TEXT, _BY_MEANING)
        # Definitions name other kinds than the graph does: a curb is an edge, and here a part of the ground.
        realm = set().union(*(self._above(kind) for kind in kinds))
        for sense, _ in votes:
            if any(self._above(concept) & realm for concept in sense.concepts):
                return Attachment(sense.concepts, TEXT, _BY_HEAD, f"its text says {', '.join(kinds[:3])}")
        # Words such as frame, cover or board are in many definitions; a category has things of its own below it.
        if cosines is None and not any(len(self._known.graph.below(kind)) >= _CATEGORY for kind in kinds):
            return Attachment(votes[0][0].concepts, TEXT, _MISSPELLED, f"its text says {', '.join(kinds[:3])}")
        return None

    def _above(self, concept: str) -> set[str]:
        """What a concept lies within, without what nearly everything does."""
        graph = self._known.graph
        wholes = {whole for whole in graph[concept].wholes if whole not in NEARLY_ALL}
        return {concept}.union(*(self._above(whole) for whole in wholes)) - NEARLY_ALL

    def by_word(self, row: int) -> Attachment | None:
        """The attachment of a bare name that is an everyday word (`labelmerge.merge.everyday`)."""
        for phrase in readings(self._bank.names[row]):
            if (word := everyday_word(phrase)) and not word.only_but:
                concepts = word.concepts(self.new)
                note = "" if concepts == (word.word,) else f"read as {', '.join(concepts)}"
                return Attachment(concepts, TEXT, _BY_WORD, note, word.but)
        return None

    def by_list(self, row: int) -> Attachment | None:
        """The attachment of a label whose name lists things: all that are known."""
        name, company = self._bank.names[row], self._company[self._bank.keys[row][0]]
        if self._votes(name, company):
            return None  # known, and its text says otherwise
        parts = choices(name)
        found: list[tuple[str, ...]] = []
        unknown = []
        for part in parts if len(parts) > 1 else ():
            meaning = self._meaning(part, company) or self._meaning(shared_head(parts, part), company)
            if meaning:
                found.append(meaning)
            else:
                unknown.append(part)
        if not found:
            found = self._joined(name, company)
            if not found:
                return None
        concepts = self._union(found)
        if unknown:
            return Attachment(concepts, TEXT, _MISSPELLED, f"not known: {', '.join(unknown)}")
        return Attachment(concepts, TEXT, _BY_LIST, f"read as a list: {', '.join(concepts)}")

    def _named_and_listed(self, row: int, votes: Sequence[tuple[Sense, float]]) -> Attachment | None:
        """The attachment of a known name whose text lists things that the name's usual meaning has not."""
        own, company = self._listed.get(row, Listed()), self._company[self._bank.keys[row][0]]
        # What is wider than the name says nothing new: "a person on a bicycle" of *rider*.
        members = tuple(
            member
            for member in self._members(own, company)[0]
            if member in self._known.graph
            and not any(self._is_within(c, (member,)) for c in votes[0][0].concepts if c != member)
        )
        if not members:
            return None
        covered = [
            sum(self._is_within(member, sense.concepts) for member in members) if len(sense.concepts) == 1 else 0
            for sense, _ in votes
        ]
        best = max(range(len(votes)), key=covered.__getitem__)
        concepts = votes[best][0].concepts
        if covered[best] == len(members):
            return None if covered[0] else Attachment(concepts, TEXT, _BY_MEANING, f"{concepts[0]} by its text")
        if not own.whole:
            return None  # examples may be parts, or what it is made of
        more = tuple(member for member in members if not self._is_within(member, concepts))
        if covered[best]:
            return Attachment((*concepts, *more), TEXT, _BY_SENTENCE, f"its text adds {', '.join(more)}")
        return Attachment(members, TEXT, _BY_SENTENCE, f"read as {', '.join(members)} by its text, not by its name")

    def _by_members(self, row: int) -> Attachment | None:
        """The attachment of a label whose text lists all that it takes in, or says what it is all of."""
        own, company = self._listed.get(row, Listed()), self._company[self._bank.keys[row][0]]
        if own.all_of and (every := self._parents(own.all_of, company, exact=True)):
            return Attachment(every, TEXT, _BY_SENTENCE, f"all of {every[0]} by its text")
        concepts, unknown = self._members(own, company)
        if not own.whole or not concepts or (unknown and len(concepts) <= len(unknown)):
            return None
        if unknown:
            return Attachment(concepts, TEXT, _MISSPELLED, f"not known in its text: {', '.join(unknown)}")
        return Attachment(concepts, TEXT, _BY_LIST, f"read as {', '.join(concepts)} by its text")

    def _joined(self, name: str, company: Company) -> list[tuple[str, ...]]:
        """The concepts of words that are run together, where they are of a kind: ``Truck_Bus``, but not *CarDoor*."""
        words = joined(name)
        ways = [(" ".join(words[:start]), " ".join(words[start:])) for start in range(1, len(words))]
        if len(words) == 1 and (two := self._known.glued(words[0])):
            ways = [two]
        for way in ways:
            both = [self._votes(part, company) for part in way]
            if all(both):
                one, other = (votes[0][0].concepts for votes in both)
                if self._siblings(one, other):
                    return [one, other]
        return []

    def by_text(self, rows: Sequence[int]) -> Attachment:
        """The attachment of labels of one meaning that no name tells, with a new concept where it needs one."""
        bank, row = self._bank, rows[0]
        name = bank.names[row]
        company = self._company[bank.keys[row][0]]
        contradicted = bool(self._votes(name, company))  # known, and its text says otherwise
        said = self._said.get(row, "")
        near = self.near.nearest(row) if row in self._said else None
        if near is not None and near[1] >= self.near.limit:
            return Attachment(near[0].concepts, TEXT, _BY_MEANING, f"nearest text: cosine {near[1]:.2f}")
        members, _ = self._members(self._listed.get(row, Listed()), company)
        if row in self._defined:
            word = None if contradicted else everyday_word(name)
            if word is not None and word.means:
                kinds = self._kinds(row)
                if not kinds or all(self._is_within(concept, kinds) for concept in word.means):
                    return Attachment(word.means, TEXT, _BY_WORD, f"read as {', '.join(word.means)}", word.but)
            for wholes, how in ((self._wholes(row), "part"), (self._kinds(row), "kind")):
                if wholes:
                    note = f"a {how} of {', '.join(wholes)} by its text"
                    if contradicted:
                        return self._make(row, how, wholes, said, _MISSPELLED, note + ", against its name")
                    made = self._make(row, how, wholes, said, _BY_SENTENCE, note)
                    return replace(made, concepts=(*made.concepts, *members))
            if len(members) > 1:
                return Attachment(members, TEXT, _BY_SENTENCE, f"read as {', '.join(members)} by its text")
        if not contradicted:
            if spelled := self._known.shortened(name) or self._known.spelled(name):
                sense = self._known.senses[spelled][0]
                return Attachment(sense.concepts, TEXT, _MISSPELLED, f"read as {', '.join(sense.concepts)}")
            for how, phrase in heads(name, company.first):
                if wholes := self._parents(phrase, company, exact=True):
                    return self._make(row, how, wholes, said, _BY_HEAD, f"a {how} of {', '.join(wholes)} by its name")
        near = near or self.near.nearest(row)
        if near is not None and near[1] >= self.near.limit:
            # Bare names are near each other for their letters, too: *switchgear* and *light switch*.
            note = f"nearest name: {', '.join(near[0].concepts)}, cosine {near[1]:.2f}"
            if may := "; ".join(meaning.concept.name for meaning in further_meanings(name)):
                note += f"; the name may also mean: {may}"
            return Attachment(near[0].concepts, TEXT, _MISSPELLED, note)
        if not contradicted and (concepts := self._known.compounds(plain(name))):
            return Attachment(concepts, TEXT, _MISSPELLED, f"read as short for {', '.join(concepts)}")
        nearest = f"; nearest: {', '.join(near[0].concepts)} ({near[1]:.2f})" if near is not None else ""
        if may := "; ".join(meaning.concept.name for meaning in further_meanings(name)):
            nearest = f" among the names beside it; it may mean: {may}"
        return self._make(row, "kind", (), said, _ALONE, "unknown" + nearest)

    def _make(self, row: int, how: str, wholes: tuple[str, ...], said: str, confidence: float, note: str) -> Attachment:
        """An attachment to a new concept."""
        name = plain(self._bank.names[row]).replace(";", ",") or "label"
        dataset, index = self._bank.keys[row]
        taken = (self._known.graph, self.new)
        free = next(
            word
            for word in (name, f"{name} ({dataset})", f"{name} ({dataset} {index})")
            if not any(word in own for own in taken)
        )
        kinds, parts = ((), wholes) if how == "part" else (wholes, ())
        if self.new.get(name) == Concept(name, kinds, parts):  # another label's text lists it
            return Attachment((name,), TEXT, confidence, note)
        self.new[free] = Concept(free, kinds, parts, said)
        return Attachment((free,), TEXT, confidence, note)
