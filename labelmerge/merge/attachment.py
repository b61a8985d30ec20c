"""Which concepts a label is attached to: by the curated tables that ship, or else by its words.

A label of a shipped dataset is attached as its row in ``label_descriptions`` says. Any other label is attached by its
name, where the shipped datasets know it; by the meaning of its text; by the category that its sentence or the end of
its name gives ("A tuk-tuk is a vehicle …", *police car*), as a new concept within that one; or, where nothing is known
of it, to a new concept of its own. Whatever is unsure says so.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.bank.prompt import Prompt
from labelmerge.catalog import concepts_file, dataset_names, load_descriptions, load_recipe
from labelmerge.labels import LabelKey
from labelmerge.merge.clustering import calibrated_threshold, same_meaning
from labelmerge.merge.concepts import Concept, ConceptGraph, read_concepts, split_concepts
from labelmerge.names import prompt_name

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Texts → unit vectors, float32 [n, D], in the space of a bank."""

CURATED, TEXT = "curated", "text"

# How sure an attachment is. These are ranks, not frequencies: what is below 0.5 is to be checked by a person.
_BY_NAME, _BY_MEANING, _BY_SENTENCE, _BY_HEAD, _ALONE = 0.9, 0.8, 0.7, 0.6, 0.4
_UNSURE = 0.5

# "is a large road vehicle with …": the kind stands between the article and the first word that is no part of it.
_KIND = re.compile(
    r"\b(?:is|are) (?:an?|the|any|one of the)? ?((?:[\w'-]+ ){0,5}?[\w'-]+)"
    r"(?=[.,;:]|$| (?:that|which|who|whose|with|without|of|for|in|on|at|to|from|by|used|made|and|or|whether|under|"
    r"over|above|along|behind|beside|between|near|than|where|\w+(?:ed|ing)) )"
)
_PART = re.compile(r"\b(?:is|are) (?:an?|the|any) (?:[\w'-]+ ){0,2}?parts? of (?:an?|the) ([\w'-]+(?: [\w'-]+)?)")
_SYNONYMS = re.compile(r"[,;/]")


@dataclass(frozen=True)
class Attachment:
    """What one label is attached to.

    Attributes:
        concepts: at least one concept of the graph.
        evidence: ``curated`` or ``text``.
        confidence: 0 to 1.
        note: what a person should look at, or "".
    """

    concepts: tuple[str, ...]
    evidence: str
    confidence: float
    note: str = ""


@dataclass(frozen=True)
class Sense:
    """One meaning that shipped datasets give a word.

    Attributes:
        concepts: what it is attached to.
        datasets: those that mean it.
        texts: (name, description) of each distinct row that does.
    """

    concepts: tuple[str, ...]
    datasets: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Curated:
    """What ships.

    Attributes:
        graph: the concepts.
        labels: name and concepts of each shipped label.
        senses: what each form of a name means: in the dataset's own spelling, and as `_forms` has it.
        names: each dataset's names, in lower case.
    """

    graph: ConceptGraph
    labels: Mapping[LabelKey, tuple[str, tuple[str, ...]]]
    senses: Mapping[str, tuple[Sense, ...]]
    names: Mapping[str, frozenset[str]]


@cache
def curated() -> Curated:
    """The curated tables that ship. Raises TaxonomyError or DescriptionsError where the installation is damaged."""
    graph = read_concepts(concepts_file())
    labels: dict[LabelKey, tuple[str, tuple[str, ...]]] = {}
    found: dict[str, dict[tuple[str, ...], dict[str, list[tuple[str, str]]]]] = defaultdict(lambda: defaultdict(dict))
    names: dict[str, frozenset[str]] = {}
    for dataset in dataset_names():
        rows = load_descriptions(load_recipe(dataset))
        names[dataset] = frozenset(row.name.strip().casefold() for row in rows)
        for row in rows:
            concepts = split_concepts(row.concepts)
            if not concepts:
                continue
            labels[dataset, row.index] = (row.name, concepts)
            for form in {row.name.strip().casefold(), *_forms(row.name)}:
                found[form][concepts].setdefault(dataset, []).append((row.name, row.description))
    for concept in graph.names:
        form = concept.partition(" (")[0]
        if form not in found:
            found[form][(concept,)].setdefault("", []).append((form, graph[concept].description))
    senses = {
        form: tuple(
            Sense(concepts, tuple(by), tuple(dict.fromkeys(text for own in by.values() for text in own)))
            for concepts, by in meanings.items()
        )
        for form, meanings in found.items()
    }
    return Curated(graph, labels, senses, names)


def is_shipped(key: LabelKey, name: str) -> bool:
    """Whether a label is one of those that ship, with a curated row."""
    known = curated().labels.get(key)
    return known is not None and known[0] == name


def attach(bank: Bank, encode: Encode | None = None) -> tuple[ConceptGraph, list[Attachment]]:
    """The concepts of every label of a bank.

    Args:
        bank: N labels.
        encode: gives the vectors of texts that the bank lacks. Without it, labels that ship with neither name nor
            category known are compared with those of the bank alone.

    Returns:
        The graph, with a concept added for each meaning that it lacks, and the N attachments in the bank's order.
    """
    known = curated()
    found: list[Attachment | None] = [None] * len(bank)
    ours = [row for row, key in enumerate(bank.keys) if is_shipped(key, bank.names[row])]
    for row in ours:
        found[row] = Attachment(known.labels[bank.keys[row]][1], CURATED, 1.0)
    others = [row for row in range(len(bank)) if found[row] is None]
    if not others:
        return known.graph, [attachment for attachment in found if attachment is not None]
    space = _Space(bank, encode)
    affinity = _affinities(bank, others)
    unnamed = []
    for row in others:
        found[row] = _by_name(bank, row, affinity[bank.keys[row][0]], space)
        if found[row] is None:
            unnamed.append(row)
    graph = known.graph
    for rows in _meanings(bank, unnamed):
        attachment, new = _by_text(bank, rows, graph, space)
        if new is not None:
            graph = graph.extended([new])
        for row in rows:
            found[row] = attachment
    return graph, [attachment for attachment in found if attachment is not None]


class _Space:
    """The shipped sentences in a bank's space: which lies nearest to a label."""

    def __init__(self, bank: Bank, encode: Encode | None) -> None:
        self._bank, self._encode = bank, encode
        self._prompt = Prompt.stored(bank.prompt)
        self._rows = {text: row for row, text in reversed(list(enumerate(bank.texts)))} if bank.probe.size else {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._limit: float | None = None
        self._all: tuple[list[Sense], npt.NDArray[np.float32]] | None = None

    @property
    def limit(self) -> float:
        """The cosine from which on two texts mean the same."""
        if self._limit is None:
            self._limit = calibrated_threshold(self._bank)
        return self._limit

    def cosines(self, row: int, senses: Sequence[Sense]) -> list[float] | None:
        """The largest cosine of a label with each sense's texts; None where some have no vector."""
        texts = [[self._prompt.text(*text) for text in sense.texts] for sense in senses]
        if not self._make([text for own in texts for text in own]):
            return None
        vector = self._bank.vectors[row]
        return [max(float(vector @ self._vectors[text]) for text in own) for own in texts]

    def nearest(self, row: int) -> tuple[Sense, float] | None:
        """The sense that lies nearest to a label, and its cosine; None where no sense has a vector."""
        if self._all is None:
            known = curated()
            senses = list({id(sense): sense for own in known.senses.values() for sense in own}.values())
            texts = {self._prompt.text(*text): sense for sense in senses for text in sense.texts}
            if not self._make(list(texts)):
                texts = {text: sense for text, sense in texts.items() if text in self._rows}
                self._make(list(texts))
            vectors = [self._vectors[text] for text in texts]
            matrix = np.stack(vectors) if vectors else np.zeros((0, self._bank.dim), np.float32)
            self._all = list(texts.values()), matrix
        senses, vectors_of = self._all
        if not senses:
            return None
        cosines = vectors_of @ self._bank.vectors[row]
        best = int(np.argmax(cosines))
        return senses[best], float(cosines[best])

    def _make(self, texts: Sequence[str]) -> bool:
        """Find the vectors of texts; whether all could be had."""
        wanted = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for text in wanted:
            if text in self._rows:
                self._vectors[text] = self._bank.vectors[self._rows[text]]
        wanted = [text for text in wanted if text not in self._vectors]
        if wanted and self._encode is not None:
            self._vectors.update(zip(wanted, self._encode(wanted), strict=True))
            wanted = []
        return not wanted


def _affinities(bank: Bank, rows: Sequence[int]) -> dict[str, dict[str, float]]:
    """How much each dataset's list of names is like that of each shipped one: the share of its names found there.

    A list that was taken over from Cityscapes means by its words what Cityscapes means by them.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        names[bank.keys[row][0]].add(bank.names[row].strip().casefold())
    return {
        dataset: {shipped: len(own & theirs) / len(own) for shipped, theirs in curated().names.items()}
        for dataset, own in names.items()
    }


def _by_name(bank: Bank, row: int, affinity: Mapping[str, float], space: _Space) -> Attachment | None:
    """The attachment of a label whose name the shipped datasets know."""
    known = curated()
    name = bank.names[row]
    senses = next((known.senses[form] for form in _lookups(name) if form in known.senses), None)
    if senses is None:
        return None
    described = bank.described[row]
    kinds = _kinds_of(bank.names[row], bank.texts[row], known.graph) if described else ()
    if kinds:
        fitting = [sense for sense in senses if _agrees(sense, kinds, known.graph)]
        if not fitting and all(len(sense.texts) and sense.datasets != ("",) for sense in senses):
            return None  # the word is known, but not with this meaning: its text decides
        senses = tuple(fitting) or senses
    if len(senses) == 1:
        return Attachment(senses[0].concepts, TEXT, _BY_NAME)
    weights = [sum(0.1 + affinity.get(dataset, 0) ** 2 for dataset in sense.datasets) for sense in senses]
    cosines = space.cosines(row, senses) if described else None
    best = int(np.argmax(weights if cosines is None else cosines))
    share = weights[best] / sum(weights) if cosines is None else 1.0
    others = "; ".join(", ".join(sense.concepts) for place, sense in enumerate(senses) if place != best)
    confidence = round(_BY_NAME * share, 2)
    note = f"the name may also mean: {others}" if confidence < _UNSURE else ""
    return Attachment(senses[best].concepts, TEXT, confidence, note)


def _agrees(sense: Sense, kinds: Sequence[str], graph: ConceptGraph) -> bool:
    """Whether a sense is of one of these kinds, or one of them is of its."""
    return any(
        concept in graph.below(kind) or kind in graph.below(concept) for concept in sense.concepts for kind in kinds
    )


def _meanings(bank: Bank, rows: Sequence[int]) -> list[list[int]]:
    """These rows by meaning: labels of different datasets whose texts mean the same."""
    if not rows:
        return []
    some = bank.for_keys([bank.keys[row] for row in rows])
    return [[rows[place] for place in own] for own in same_meaning(some, calibrated_threshold(bank))]


def _by_text(bank: Bank, rows: Sequence[int], graph: ConceptGraph, space: _Space) -> tuple[Attachment, Concept | None]:
    """The attachment of labels of one meaning whose name is not known, and the concept that it needs, if any."""
    row = rows[0]
    name = prompt_name(bank.names[row])
    near = space.nearest(row)
    if near is not None and near[1] >= space.limit:
        return Attachment(near[0].concepts, TEXT, _BY_MEANING, f"nearest text: cosine {near[1]:.2f}"), None
    new = name if name not in graph else _free(f"{name} ({bank.keys[row][0]})", graph)
    known = next((bank.texts[row].partition(": ")[2] or bank.texts[row] for row in rows), "")
    if bank.described[row]:
        if wholes := _wholes_of(bank.texts[row], graph):
            concept = Concept(new, part_of=wholes, description=known)
            return Attachment((new,), TEXT, _BY_SENTENCE, f"part of {', '.join(wholes)} by its text"), concept
        if kinds := _kinds_of(bank.names[row], bank.texts[row], graph):
            concept = Concept(new, kind_of=kinds, description=known)
            return Attachment((new,), TEXT, _BY_SENTENCE, f"a kind of {', '.join(kinds)} by its text"), concept
    if kinds := _head(name, graph):
        concept = Concept(new, kind_of=kinds, description=known)
        return Attachment((new,), TEXT, _BY_HEAD, f"a kind of {', '.join(kinds)} by its name"), concept
    said = f"; nearest: {', '.join(near[0].concepts)} ({near[1]:.2f})" if near is not None else ""
    return Attachment((new,), TEXT, _ALONE, f"unknown{said}"), Concept(new, description=known)


def _free(name: str, graph: ConceptGraph) -> str:
    number = 2
    while name in graph:
        name, number = f"{name.partition(')')[0].rstrip(' 0123456789')} {number})", number + 1
    return name


def _kinds_of(name: str, text: str, graph: ConceptGraph) -> tuple[str, ...]:
    """The concepts that a sentence says something is a kind of: "A tuk-tuk is a vehicle …" → vehicle."""
    match = _KIND.search(text)
    return _concept_of(match.group(1).lower(), graph, but=prompt_name(name)) if match else ()


def _wholes_of(text: str, graph: ConceptGraph) -> tuple[str, ...]:
    """The concepts that a sentence says something is a part of."""
    match = _PART.search(text)
    return _concept_of(match.group(1).lower(), graph) if match else ()


def _head(name: str, graph: ConceptGraph) -> tuple[str, ...]:
    """The concepts that the end of a compound names: *police car* → car."""
    _, _, rest = name.partition(" ")
    return _concept_of(rest, graph) if rest else ()


def _concept_of(phrase: str, graph: ConceptGraph, but: str = "") -> tuple[str, ...]:
    """The concepts that the longest known end of a phrase means in most datasets; none where no end is known."""
    words = phrase.split()
    for start in range(len(words)):
        for form in _lookups(" ".join(words[start:])):
            if form == but:
                continue
            if form in graph:
                return (form,)
            senses = curated().senses.get(form, ())
            if len(senses) == 1:
                return senses[0].concepts
            if senses:
                counts = Counter({sense.concepts: len(sense.datasets) for sense in senses})
                return counts.most_common(1)[0][0]
    return ()


def _lookups(name: str) -> list[str]:
    """The forms to look a name up by, the most exact first."""
    return list(dict.fromkeys([name.strip().casefold(), *_forms(name)]))


def _forms(name: str) -> list[str]:
    """A name as it reads in a sentence, its other synonyms likewise, and each of them in the singular."""
    words = [prompt_name(name), *(prompt_name(part) for part in _SYNONYMS.split(name) if part.strip())]
    return list(dict.fromkeys(form for word in words for form in (word, _singular(word))))


def _singular(name: str) -> str:
    """A guess at the singular of a name's last word.

    >>> [_singular(word) for word in ("street lights", "buses", "bushes", "grass", "berries")]
    ['street light', 'bus', 'bush', 'grass', 'berry']
    """
    head, space, last = name.rpartition(" ")
    if len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is")):
        if last.endswith("ies"):
            last = last[:-3] + "y"
        elif last.endswith(("ses", "xes", "ches", "shes")):
            last = last[:-2]
        else:
            last = last[:-1]
    return head + space + last


def with_evidence(attachment: Attachment, word: str, confidence: float) -> Attachment:
    """The same attachment, with one more thing that speaks for it."""
    return replace(attachment, evidence=f"{attachment.evidence}+{word}", confidence=confidence)
