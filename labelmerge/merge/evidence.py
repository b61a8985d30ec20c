"""How images correct attachments: a model's predictions on A's pixels in B's words, and the other way round.

If most pixels of *a* are called *b* in B's words, a lies within b. If most of b's are also called *a* in A's words, the
two are the same. Alone this is weak evidence: a label without a counterpart goes to whatever is nearest (Uijlings et
al., "The Missing Link: Finding Label Relations Across Datasets", ECCV 2022, use strong models and still combine both).
So **text proposes, images decide**. Only these pairs are checked: those related by their attachments, those with
similar texts, and those of which one label is unknown. Only attachments by text are changed:

- *a* and *b* were the same, and the pixels of a are b but not b's a: a becomes a concept of its own within b's;
- *a* and *b* were the same or near, and it is the other way round: a stands for b's concepts besides its own or, where
  b was attached by text as well, b becomes a concept within a's;
- *a* and *b* were near, or nothing was known of a, and both are called by the other's name: the less sure label gets
  the other's attachment.

New edges start at new concepts that stand for one label, and end at concepts that existed before, so there can be no
circle. Where images contradict what is curated, or show only that two labels have nothing to do with each other, the
sets stay: confidence falls, and the pair goes on the list to check, with its numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.labels import LabelKey
from labelmerge.merge.attachment import CURATED, UNSURE, Attachment
from labelmerge.merge.clustering import cosines_of, own_cosines
from labelmerge.merge.concepts import Concept, ConceptGraph, sets_of
from labelmerge.merge.lexicon import kept_in, narrowest
from labelmerge.merge.relations import CONTAINS, OVERLAPS, PART_OF, SAME
from labelmerge.names import prompt_name

PIXELS = "pixels"
UNRELATED = "unrelated"

# Shares of a label's pixels: from `_MOST` on it lies within, below `_FEW` it doesn't, below `_NONE` there is nothing.
_MOST, _FEW, _NONE = 0.5, 0.25, 0.05
_ENOUGH = 500  # pixels, or a label says nothing
_OWN = 0.5  # of a label's pixels in its own dataset's words: a label that the model hardly sees says nothing
_NEAR_QUANTILE = 0.99  # of the cosines of labels that one dataset tells apart: nearer texts are proposals
_PAIRS = 2000
_TEXT = 0.8  # how much a sure text weighs against pictures, of which each pair of labels gives at most 1
_FLOOR = 0.6  # pictures alone never make a curated attachment unsure
_FOUND = 0.6  # the confidence of a relation that only pictures found
_LESS, _MORE = 0.5, 0.5  # which share of its confidence, or of its doubt, a label loses at most


@dataclass(frozen=True, eq=False)
class Confusion:
    """What a model calls the pixels of one dataset in the words of another.

    Attributes:
        rows: the R labels of the dataset whose pixels they are.
        columns: the C labels of the dataset whose words they are; the same labels where a dataset is looked at in its
            own words, which says how well the model sees it.
        pixels: int64 ``[R, C]``.
    """

    rows: tuple[LabelKey, ...]
    columns: tuple[LabelKey, ...]
    pixels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Doubt:
    """A pair of labels whose attachments the pictures contradict.

    Attributes:
        a, b: labels of different datasets.
        attached: how they are related by their attachments: ``same``, ``contains``, ``part_of``, ``overlaps`` or
            ``unrelated``.
        seen: how they are related by the pictures.
        a_as_b, b_as_a: the share of a's pixels that the model calls b in b's dataset's words, and the reverse.
        pixels: how many pixels of a and b were looked at.
    """

    a: LabelKey
    b: LabelKey
    attached: str
    seen: str
    a_as_b: float
    b_as_a: float
    pixels: tuple[int, int]

    @property
    def weight(self) -> float:
        """How strongly: 0 to 1."""
        if self.seen == UNRELATED:
            return 1 - max(self.a_as_b, self.b_as_a) / _NONE
        return min(self.a_as_b, self.b_as_a) if self.seen == SAME else abs(self.a_as_b - self.b_as_a)


@dataclass(frozen=True, eq=False)
class _Shares:
    """float ``[N, N]``: the share of each label's pixels that is called each other one; NaN where nobody looked.

    Attributes:
        pixels: of each label, int64 ``[N]``, the most that was looked at.
    """

    share: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]


def with_pixels(
    bank: Bank, graph: ConceptGraph, attachments: Sequence[Attachment], seen: Sequence[Confusion]
) -> tuple[ConceptGraph, list[Attachment], list[Doubt]]:
    """Attachments as the pictures leave them.

    Args:
        bank: N labels.
        graph, attachments: as `labelmerge.merge.attachment.attach` gives them.
        seen: any ordered pairs of datasets; a pair that was looked at one way only says nothing.

    Returns:
        The graph with more concepts; the N attachments, those that the pictures speak of with ``pixels`` in their
        evidence; what they contradict after all, strongest first.
    """
    shares = _shares(bank, seen)
    kinds = _kinds(bank, graph, attachments)
    proposed = _proposed(bank, graph, attachments, kinds, shares)
    change = _Changes(bank, graph, attachments)
    for a, b, how in _decisions(attachments, kinds, proposed, shares):
        change.apply(a, b, how)
    graph, found = change.result()
    return _weighed(bank, graph, found, proposed, shares, change.touched)


def _shares(bank: Bank, seen: Sequence[Confusion]) -> _Shares:
    place = {key: row for row, key in enumerate(bank.keys)}
    share = np.full((len(bank), len(bank)), np.nan)
    total = np.zeros(len(bank), dtype=np.int64)
    blind: set[int] = set()
    for confusion in seen:
        known = [number for number, key in enumerate(confusion.columns) if key in place]
        columns = [place[confusion.columns[number]] for number in known]
        for key, counts in zip(confusion.rows, confusion.pixels, strict=True):
            if key not in place or counts.sum() < _ENOUGH:
                continue
            row = place[key]
            total[row] = max(total[row], counts.sum())
            share[row, columns] = counts[known] / counts.sum()
            if key in confusion.columns and share[row, row] < _OWN:
                blind.add(row)
    for row in blind:
        share[row] = np.nan
    return _Shares(share, total)


def _kinds(bank: Bank, graph: ConceptGraph, attachments: Sequence[Attachment]) -> list[list[str]]:
    """How every two labels are related by their attachments, ``[N][N]``; `UNRELATED` within a dataset."""
    datasets = [dataset for dataset, _ in bank.keys]
    concepts = [attachment.concepts for attachment in attachments]
    but = [attachment.but for attachment in attachments]
    sets = sets_of(concepts, datasets, graph, kept_in(bank), but).astype(np.float32)
    shared, sizes = sets @ sets.T, sets.sum(axis=1)
    owner = np.unique(datasets, return_inverse=True)[1]
    code: npt.NDArray[np.int8] = np.zeros(shared.shape, dtype=np.int8)
    related = (shared > 0) & (owner[:, None] != owner[None])
    inside, around = shared == sizes[:, None], shared == sizes[None]
    code[related] = 4
    code[related & inside] = 3
    code[related & around] = 2
    code[related & inside & around] = 1
    words = (UNRELATED, SAME, CONTAINS, PART_OF, OVERLAPS)
    return [[words[value] for value in row] for row in code]


def _proposed(
    bank: Bank,
    graph: ConceptGraph,
    attachments: Sequence[Attachment],
    kinds: Sequence[Sequence[str]],
    shares: _Shares,
) -> list[tuple[int, int]]:
    """The pairs to look at, a < b: related ones, near ones, and those of labels that nothing is known of."""
    cosines, own = cosines_of(bank.vectors), own_cosines(bank)
    # Of few pairs the quantile says nothing; nearer than any two labels of one dataset is near.
    limit = float(np.quantile(own, _NEAR_QUANTILE) if own.size >= _PAIRS else own.max()) if own.size else 1.0
    unplaced = [
        attachment.confidence < UNSURE and not any(graph[concept].wholes for concept in attachment.concepts)
        for attachment in attachments
    ]
    looked = ~np.isnan(shares.share) & ~np.isnan(shares.share.T)
    owner = np.unique([dataset for dataset, _ in bank.keys], return_inverse=True)[1]
    apart = owner[:, None] != owner[None]
    first, second = np.nonzero(np.triu(looked & apart, 1))
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return [
        (a, b)
        for a, b in pairs
        if kinds[a][b] != UNRELATED
        or cosines[a, b] > limit
        # Pictures must say both ways what a label is that no text places: else it lands on whatever is behind it.
        or ((unplaced[a] or unplaced[b]) and seen_relation(shares.share[a, b], shares.share[b, a]) == SAME)
    ]


def seen_relation(a_as_b: float, b_as_a: float) -> str | None:
    """How two labels are related by the pictures; None where these don't tell."""
    if a_as_b >= _MOST and b_as_a >= _MOST:
        return SAME
    if a_as_b >= _MOST and b_as_a < _FEW:
        return PART_OF
    if b_as_a >= _MOST and a_as_b < _FEW:
        return CONTAINS
    return UNRELATED if max(a_as_b, b_as_a) < _NONE else None


_COMPATIBLE = {
    SAME: {SAME},
    # A whole whose other parts are rare looks the same as the part.
    CONTAINS: {CONTAINS, SAME},
    PART_OF: {PART_OF, SAME},
    OVERLAPS: {OVERLAPS, SAME, CONTAINS, PART_OF},
    UNRELATED: {UNRELATED},
}


def _decisions(
    attachments: Sequence[Attachment],
    kinds: Sequence[Sequence[str]],
    proposed: Sequence[tuple[int, int]],
    shares: _Shares,
) -> list[tuple[int, int, str]]:
    """The pairs (a, b) whose relation changes, with what it becomes; the surest first.

    A label meets each meaning in several datasets. What most of these meetings say, by their weight, counts, where it
    weighs more than the text: the surer this is, the more it takes.
    """
    votes: dict[tuple[int, tuple[str, ...]], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    meet: dict[tuple[int, tuple[str, ...]], list[tuple[float, int]]] = defaultdict(list)
    for pair in proposed:
        for a, b in (pair, pair[::-1]):
            if attachments[a].evidence.startswith(CURATED):
                continue
            a_as_b, b_as_a = float(shares.share[a, b]), float(shares.share[b, a])
            how = seen_relation(a_as_b, b_as_a)
            if how in (None, UNRELATED):
                continue
            assert how is not None
            at = (a, attachments[b].concepts)
            weight = min(a_as_b, b_as_a) if how == SAME else abs(a_as_b - b_as_a)
            agrees = how in _COMPATIBLE[kinds[a][b]]
            votes[at][kinds[a][b] if agrees else how] += weight
            if not agrees:
                meet[at].append((weight, b))
    found = []
    for (a, concepts), own in votes.items():
        how = max(own, key=own.__getitem__)
        meetings = [(weight, b) for weight, b in meet[a, concepts] if kinds[a][b] != how]
        before = {kinds[a][b] for _, b in meetings}
        # A whole that is seen as a part of its part is a contradiction to look at, and nothing to act on.
        if not meetings or not before & {SAME, UNRELATED}:
            continue
        weight, b = max(meetings)
        if own[how] > _TEXT * attachments[a].confidence * attachments[b].confidence:
            found.append((weight, a, b, how))
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    return [(a, b, how) for _, a, b, how in found]


class _Changes:
    """Changes attachments so that the relation of two labels becomes another.

    Attributes:
        touched: the rows that were changed.
    """

    def __init__(self, bank: Bank, graph: ConceptGraph, attachments: Sequence[Attachment]) -> None:
        self._bank, self._graph = bank, graph
        self._before = list(attachments)
        self._found = list(attachments)
        self._new: dict[str, Concept] = {}
        self._own: dict[int, str] = {}
        self.touched: set[int] = set()

    def apply(self, a: int, b: int, how: str) -> None:
        """Make a `how` b; nothing where a has become something else already, or where no set can say so."""
        concepts = self._before[b].concepts
        mutual = not self._before[b].evidence.startswith(CURATED)
        if how == SAME:
            # What is less sure follows what is surer, never the other way round.
            surer = self._before[b].confidence > self._before[a].confidence
            if surer and a not in self.touched and b not in self.touched:
                self._set(a, concepts)
        elif how == PART_OF:
            self._put_within(a, concepts, b)
        elif mutual:
            self._put_within(b, self._before[a].concepts, a)
        elif a not in self._own:
            self._set(a, narrowest([*self._found[a].concepts, *concepts], self._graph))

    def _put_within(self, inner: int, concepts: Sequence[str], outer: int) -> None:
        """A concept of its own for a label, within the one that another label stands for."""
        if len(concepts) != 1 or outer in self._own:  # within several at once is within what they share
            return
        if inner in self._own:
            name = self._own[inner]
            self._new[name] = replace(
                self._new[name], kind_of=tuple(dict.fromkeys([*self._new[name].kind_of, *concepts]))
            )
            return
        if inner in self.touched:
            return
        before = self._before[inner].concepts
        within = tuple(dict.fromkeys([*concepts, *(before if len(before) == 1 else ())]))
        key = self._bank.keys[inner]
        word = prompt_name(self._bank.names[inner]).replace(";", ",")
        name = next(
            free
            for free in (f"{word} ({key[0]})", f"{word} ({key[0]} {key[1]})", f"{word} ({key[0]} {key[1]}, {PIXELS})")
            if free not in self._graph and free not in self._new
        )
        self._new[name] = Concept(name, kind_of=within)
        self._own[inner] = name
        self._set(inner, (name,))

    def _set(self, row: int, concepts: tuple[str, ...]) -> None:
        sure = max(self._found[row].confidence, _FOUND)
        self._found[row] = Attachment(concepts, f"{self._before[row].evidence}+{PIXELS}", sure)
        self.touched.add(row)

    def result(self) -> tuple[ConceptGraph, list[Attachment]]:
        return self._graph.extended(self._new.values()), self._found


def _weighed(
    bank: Bank,
    graph: ConceptGraph,
    attachments: Sequence[Attachment],
    proposed: Sequence[tuple[int, int]],
    shares: _Shares,
    touched: set[int],
) -> tuple[ConceptGraph, list[Attachment], list[Doubt]]:
    """Confidences and notes by how the pictures agree with what the attachments have become."""
    kinds = _kinds(bank, graph, attachments)
    agreed: dict[int, float] = defaultdict(float)
    against: dict[int, float] = defaultdict(float)
    worst: dict[int, Doubt] = {}
    doubts = []
    for a, b in proposed:
        a_as_b, b_as_a = float(shares.share[a, b]), float(shares.share[b, a])
        how = seen_relation(a_as_b, b_as_a)
        if how is None or (how == UNRELATED and kinds[a][b] == UNRELATED):
            continue
        doubt = Doubt(
            bank.keys[a], bank.keys[b], kinds[a][b], how, a_as_b, b_as_a,
            (int(shares.pixels[a]), int(shares.pixels[b])),
        )  # fmt: skip
        agrees = how in _COMPATIBLE[kinds[a][b]]
        for row in (a, b):
            (agreed if agrees else against)[row] += doubt.weight
            if not agrees and (row not in worst or doubt.weight > worst[row].weight):
                worst[row] = doubt
        if not agrees:
            doubts.append(doubt)
    found = []
    for row, attachment in enumerate(attachments):
        told = agreed[row] + against[row]
        if not told:
            found.append(attachment)
            continue
        share = against[row] / told
        confidence = attachment.confidence
        confidence += (1 - confidence) * _MORE * max(0.0, 1 - 2 * share) - confidence * _LESS * share
        if attachment.evidence.startswith(CURATED):
            confidence = max(confidence, _FLOOR)
        evidence = attachment.evidence if row in touched else f"{attachment.evidence}+{PIXELS}"
        notes = [attachment.note, _note(worst[row], bank, row) if row in worst else ""]
        note = "; ".join(note for note in notes if note)
        found.append(replace(attachment, evidence=evidence, confidence=round(confidence, 2), note=note))
    return graph, found, sorted(doubts, key=lambda doubt: -doubt.weight)


def _note(doubt: Doubt, bank: Bank, row: int) -> str:
    """The strongest counter-evidence, in words."""
    mine = bank.keys[row] == doubt.a
    other = doubt.b if mine else doubt.a
    there, back = (doubt.a_as_b, doubt.b_as_a) if mine else (doubt.b_as_a, doubt.a_as_b)
    name = bank.names[int(bank.positions([other])[0])]
    return f"by pixels {there:.0%} of it are {name} ({other[0]}), and {back:.0%} of that are it"


def unseen(bank: Bank, seen: Sequence[Confusion]) -> Mapping[str, int]:
    """How many labels of each dataset the pictures say nothing of: too few pixels, or the model can't see them."""
    shares = _shares(bank, seen)
    silent = np.asarray(np.isnan(shares.share).all(axis=1)).tolist()
    found: dict[str, int] = {}
    for quiet, (dataset, _) in zip(silent, bank.keys, strict=True):
        found[dataset] = found.get(dataset, 0) + quiet
    return found
