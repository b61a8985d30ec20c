"""What the shipped datasets mean by their words: the lexicon that labels which are not ours are looked up in."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from labelmerge.bank.bank import Bank
from labelmerge.catalog import Kept, concepts_file, dataset_names, load_descriptions, load_recipe
from labelmerge.clip_tokens import count_clip_tokens
from labelmerge.labels import LabelKey
from labelmerge.merge.concepts import ConceptGraph, read_concepts, split_concepts
from labelmerge.merge.phrases import describes, near_misses, plain, singular_key, stem_key, synonyms, word_key

GRAPH = ""
"""Stands for the graph of concepts among the datasets that give a word a meaning."""

# How much a meaning counts that a dataset gives a word: as the name of a label, as one of its further synonyms, as the
# title of the encyclopedia's page. Names of concepts were made to be told apart, not to say what people mean by a word.
_AS_NAME, _AS_SYNONYM, _AS_TITLE, _AS_CONCEPT, _AS_SINGULAR = 1.0, 0.3, 0.3, 0.3, 0.5


@dataclass(frozen=True)
class Sense:
    """One meaning that shipped datasets give a word.

    Attributes:
        concepts: what it is attached to.
        weights: how much each dataset that means it counts; `GRAPH` for the graph itself.
        texts: (name, description) of each distinct row that does.
    """

    concepts: tuple[str, ...]
    weights: Mapping[str, float]
    texts: tuple[tuple[str, str], ...]

    @property
    def is_aside(self) -> bool:
        """Whether the word is nobody's first name for it: only further synonyms and page titles use it."""
        return GRAPH not in self.weights and max(self.weights.values(), default=0.0) <= max(_AS_SYNONYM, _AS_TITLE)


@dataclass(frozen=True, eq=False)
class Lexicon:
    """What ships.

    Attributes:
        graph: the concepts.
        labels: name and concepts of each shipped label, and what of these it does not stand for.
        senses: what each `word_key` means; keys of plurals are here under their `singular_key`, too.
        stems: likewise of each `stem_key`.
        texts: what labels with this description are attached to, where all that have it agree.
        names: the `word_key` of each dataset's names.
    """

    graph: ConceptGraph
    labels: Mapping[LabelKey, tuple[str, tuple[str, ...], tuple[str, ...]]]
    senses: Mapping[str, tuple[Sense, ...]]
    stems: Mapping[str, tuple[Sense, ...]]
    texts: Mapping[str, tuple[str, ...]]
    names: Mapping[str, frozenset[str]]

    @cached_property
    def distinct_senses(self) -> list[Sense]:
        """Every meaning once."""
        return list({sense.concepts: sense for own in self.senses.values() for sense in own}.values())

    @cached_property
    def _rarity(self) -> Mapping[str, float]:
        """How much it says that a dataset has a name: little where most have it."""
        count = Counter(name for own in self.names.values() for name in own)
        return {name: math.log(1 + len(self.names) / number) for name, number in count.items()}

    @cached_property
    def _misspelled(self) -> Mapping[str, tuple[str, ...]]:
        """For each key with a letter left out the keys that it may be."""
        found: dict[str, list[str]] = defaultdict(list)
        for key in self.senses:
            for form in near_misses(key):
                found[form].append(key)
        return {form: tuple(dict.fromkeys(keys)) for form, keys in found.items()}

    def lookup(self, phrases: Sequence[tuple[str, float]], company: Mapping[str, float]) -> list[tuple[Sense, float]]:
        """The meanings of phrases that stand for one thing, weightiest first; none where none is known.

        Args:
            phrases: synonyms, and how much each counts.
            company: how much each dataset counts (`affinity`).
        """
        votes: dict[tuple[str, ...], float] = defaultdict(float)
        found: dict[tuple[str, ...], Sense] = {}
        for phrase, weight in phrases:
            key = word_key(phrase)
            for form, much in ((key, weight), (singular_key(phrase), weight * _AS_SINGULAR)):
                if form == key and much != weight:
                    continue
                for sense in self.senses.get(form, ()):
                    found.setdefault(sense.concepts, sense)
                    votes[sense.concepts] += much * sum(
                        own * company.get(dataset, _UNLIKE) for dataset, own in sense.weights.items()
                    )
            if not found and (stem := stem_key(phrase)):
                for sense in self.stems.get(stem, ()):
                    found.setdefault(sense.concepts, sense)
                    votes[sense.concepts] += weight * sum(
                        own * company.get(dataset, _UNLIKE) for dataset, own in sense.weights.items()
                    )
        return sorted(((found[concepts], much) for concepts, much in votes.items()), key=lambda pair: -pair[1])

    def spelled(self, phrase: str) -> str | None:
        """The one known word that differs from a long unknown one by a letter; None where there is none, or several."""
        key = word_key(phrase)
        if all(count_clip_tokens(word) == _ONE_WORD for word in phrase.split()):
            return None  # words that are written often are no misspellings: *swimmer* is no skimmer
        keys = {known for form in near_misses(key) for known in self._misspelled.get(form, ()) if _close(key, known)}
        return keys.pop() if len(keys) == 1 else None

    def shortened(self, phrase: str) -> str | None:
        """The one known name whose words begin as these do: *fire ext.* is a fire extinguisher; None where there is
        none, or several meanings."""
        words = plain(phrase).split()
        if len(words) < 2 or any(len(word) < _BEGINNING for word in words):
            return None
        fits = [
            key
            for name, key in self._long_names.get(words[0][:_BEGINNING], ())
            if len(own := name.split()) == len(words) and all(a.startswith(b) for a, b in zip(own, words, strict=True))
        ]
        meanings = {sense.concepts for key in fits for sense in self.senses[key]}
        return fits[0] if len(meanings) == 1 else None

    @cached_property
    def _long_names(self) -> Mapping[str, list[tuple[str, str]]]:
        """Known names of several words and their keys, by how they begin."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in dict.fromkeys(plain(name) for sense in self.distinct_senses for name, _ in sense.texts):
            if " " in name and (key := word_key(name)) in self.senses:
                found[name[:_BEGINNING]].append((name, key))
        return found

    def affinity(self, names: Iterable[str]) -> dict[str, float]:
        """How much each dataset counts for somebody with this list of names: more, the more of them it has.

        A list copied from Cityscapes means the same by its words as Cityscapes. Rare names say more
        than names that every dataset has, and half a list says far less than all of it.
        """
        own = {word_key(name) for name in names}
        rarity = self._rarity
        rarest = math.log(1 + len(self.names))
        whole = sum(rarity.get(name, rarest) for name in own)
        likeness = {}
        for dataset, theirs in self.names.items():
            shared = sum(rarity[name] for name in own & theirs)
            both = whole + sum(rarity[name] for name in theirs - own)
            likeness[dataset] = shared / whole * (1 + shared / both) / 2 if whole else 0.0
        most = max([_LIKE, *likeness.values()])
        return {GRAPH: _UNLIKE, **{dataset: _UNLIKE + (own / most) ** _SHARPNESS for dataset, own in likeness.items()}}

    @cached_property
    def _compounds(self) -> tuple[Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]]:
        """The concepts whose names begin with a word and have more, and those that end with one."""
        begin: dict[str, set[str]] = defaultdict(set)
        end: dict[str, set[str]] = defaultdict(set)
        for concept in self.graph.names:
            words = concept.partition(" (")[0].split()
            if len(words) > 1:
                begin[singular_key(words[0])].add(concept)
                end[singular_key(words[-1])].add(concept)
        return (
            {word: frozenset(concepts) for word, concepts in begin.items()},
            {word: frozenset(concepts) for word, concepts in end.items()},
        )

    def compounds(self, word: str) -> tuple[str, ...]:
        """What a word that is not known alone may be short for: *pickup* of *pickup truck*, *seat* of all seats."""
        key = singular_key(word)
        begin, end = (own.get(key, frozenset()) for own in self._compounds)
        return narrowest(sorted(end), self.graph) or (tuple(begin) if len(begin) == 1 else ())

    def glued(self, word: str) -> tuple[str, str] | None:
        """The two known words of which one is made: *tvmonitor*; None where there are none, or several ways."""
        whole = word.casefold()
        ways = [(whole[:at], whole[at:]) for at in range(2, len(whole) - 1)]
        found = [way for way in ways if {word_key(way[0]), word_key(way[1])} <= self.senses.keys()]
        return found[0] if len(found) == 1 else None


_UNEXPLAINED = frozenset({"pascal_context_459"})
"""Datasets of which nothing but the names says what the labels mean: they are no evidence of what a word means."""
# A dataset counts by its likeness to the fourth power, of the likest one's; to be as little like all says nothing.
_UNLIKE, _LIKE, _SHARPNESS = 0.005, 0.1, 4
_ONE_WORD = 3  # tokens of a text that is one word of CLIP's vocabulary: it, a start and an end
_BEGINNING = 3  # letters of a word at least that stand for it
_ALSO = re.compile(r"also (?:called|known as) (?:an? |the )?(\w+(?: \w+)?),")


def lexicon(without: Iterable[str] = ()) -> Lexicon:
    """The lexicon of the curated tables that ship.

    Args:
        without: datasets whose labels are as unknown as a stranger's, for measuring.

    Raises:
        TaxonomyError, DescriptionsError: the installation is damaged.
    """
    return _lexicon(frozenset(without))


@cache
def _lexicon(without: frozenset[str]) -> Lexicon:
    graph = read_concepts(concepts_file())
    labels: dict[LabelKey, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}
    made = _Senses()
    names: dict[str, frozenset[str]] = {}
    said: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for dataset in dataset_names():
        if dataset in without:
            continue
        rows = [row for row in load_descriptions(load_recipe(dataset)) if split_concepts(row.concepts)]
        labels.update({(dataset, r.index): (r.name, split_concepts(r.concepts), split_concepts(r.but)) for r in rows})
        if dataset in _UNEXPLAINED:
            continue
        names[dataset] = frozenset(word_key(row.name) for row in rows)
        for row in rows:
            concepts = split_concepts(row.concepts)
            if graph.below(concepts[0]).issuperset(concepts):
                concepts = concepts[:1]  # what a label keeps of narrower ones is nothing that its name says
            text = row.name, row.description
            first, *others = synonyms(row.name)
            made.add(first, concepts, dataset, _AS_NAME, text)
            for word in others:
                made.add(word, concepts, dataset, _AS_SYNONYM, text)
            title, words = row.wikipedia.partition(" (")[0], [concept.partition(" (")[0] for concept in concepts]
            if title and not describes(title, words):
                made.add(title, concepts, dataset, _AS_TITLE, text)
            if row.description:
                said[row.description].add(concepts)
    for concept in graph.names:
        word, bracket, _ = concept.partition(" (")
        weight = _AS_CONCEPT / 2 if bracket else _AS_CONCEPT
        made.add(word, (concept,), GRAPH, weight, (word, graph[concept].description))
        for other in _ALSO.findall(graph[concept].description):
            made.add(other, (concept,), GRAPH, _AS_CONCEPT, (word, graph[concept].description))
    texts = {text: concepts for text, (concepts, *more) in ((text, [*own]) for text, own in said.items()) if not more}
    return Lexicon(graph, labels, made.senses(), made.stems(), texts, names)


class _Senses:
    """Collects what words mean."""

    def __init__(self) -> None:
        self._found: dict[str, dict[tuple[str, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        self._stems: dict[str, dict[tuple[str, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        self._texts: dict[tuple[str, ...], dict[tuple[str, str], None]] = defaultdict(dict)

    def add(self, phrase: str, concepts: tuple[str, ...], dataset: str, weight: float, text: tuple[str, str]) -> None:
        self._texts[concepts][text] = None
        key, single = word_key(phrase), singular_key(phrase)
        for form, much in ((key, weight), *(((single, weight * _AS_SINGULAR),) if single != key else ())):
            if form:
                own = self._found[form][concepts]
                own[dataset] = max(own.get(dataset, 0.0), much)
        if stem := stem_key(phrase):
            self._stems[stem][concepts][dataset] = weight

    def senses(self) -> dict[str, tuple[Sense, ...]]:
        return self._made(self._found)

    def stems(self) -> dict[str, tuple[Sense, ...]]:
        return self._made(self._stems)

    def _made(self, found: Mapping[str, Mapping[tuple[str, ...], dict[str, float]]]) -> dict[str, tuple[Sense, ...]]:
        return {
            form: tuple(Sense(concepts, by, tuple(self._texts[concepts])) for concepts, by in meanings.items())
            for form, meanings in found.items()
        }


def _close(one: str, other: str) -> bool:
    """Whether one letter more, less or other, or two letters in turn, makes one of the other."""
    start = next((place for place, two in enumerate(zip(one, other, strict=False)) if two[0] != two[1]), None)
    if start is None:
        return abs(len(one) - len(other)) <= 1
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:] and len(b) > 1)


def is_shipped(known: Lexicon, key: LabelKey, name: str) -> bool:
    """Whether a label is one of those that ship, with a curated row."""
    row = known.labels.get(key)
    return row is not None and row[0] == name


def kept_in(bank: Bank) -> dict[str, Kept]:
    """What wider labels keep (`sets_of`) in the datasets of a bank: in those that ship, and in others."""
    shipped = {name: load_recipe(name).kept for name in {*bank.datasets()} & {*dataset_names()}}
    return {**bank.kept, **{name: kept for name, kept in shipped.items() if kept is not None}}


def narrowest(concepts: Collection[str], graph: ConceptGraph) -> tuple[str, ...]:
    """These concepts without those that lie within another of them."""
    return tuple(c for c in dict.fromkeys(concepts) if not any(c != o and c in graph.below(o) for o in concepts))
