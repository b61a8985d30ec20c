"""A taxonomy for people to read: which labels are one class, what contains what, and what to check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey
from labelmerge.merge.clustering import ROUNDING, Matrix, calibrated_threshold, cosines_of
from labelmerge.merge.counts import Count
from labelmerge.merge.evidence import PIXELS
from labelmerge.merge.phrases import is_rest
from labelmerge.merge.relations import CONTAINS, OVERLAPS, PART_OF, relations
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.names import prompt_name

_NEAR_MISSES = 100
_JUST_BELOW = 0.1
UNSURE = 0.5
"""A label attached with less confidence is one to check."""


@dataclass(frozen=True)
class Member:
    """One label.

    Attributes:
        concepts: what it may stand for.
        pixels, boxes: how many pixels and boxes of it the shards hold; None where no shards say.
    """

    dataset: str
    index: int
    name: str
    text: str
    concepts: tuple[str, ...] = ()
    pixels: int | None = None
    boxes: int | None = None

    @property
    def key(self) -> LabelKey:
        return self.dataset, self.index


@dataclass(frozen=True)
class Group:
    """One class: labels of different datasets that mean the same.

    Attributes:
        name: the concept, where it is one; else the commonest `prompt_name` of the members.
        members: in ascending order of key.
        lowest: the smallest cosine between any two of them.
        pixels, boxes: sums over the members; None where no shards say.
    """

    name: str
    members: tuple[Member, ...]
    lowest: float
    pixels: int | None = None
    boxes: int | None = None


@dataclass(frozen=True)
class Pair:
    """Two labels, their cosine, and how they are related: ``contains``, ``part_of``, ``overlaps`` or ""."""

    a: Member
    b: Member
    cosine: float
    relation: str = ""


@dataclass(frozen=True)
class Part:
    """A meaning that another one contains.

    Attributes:
        name: as a `Group`'s.
        members: its labels.
        cosine: with the meaning that contains it; each is the mean of its labels' vectors.
        evidence: what says so.
        confidence: 0 to 1.
    """

    name: str
    members: tuple[Member, ...]
    cosine: float
    evidence: str
    confidence: float


@dataclass(frozen=True)
class Cover:
    """A meaning that contains what other datasets tell apart, as *person* contains *rider*.

    Attributes:
        name: as a `Group`'s.
        parents: the labels that contain the parts.
        parts: what lies directly within, nearest first.
        rest: its labels' names say that they are what is left over (VOC's *background*): what such a label holds
            follows from what its dataset does not name, and says little.
    """

    name: str
    parents: tuple[Member, ...]
    parts: tuple[Part, ...]
    rest: bool = False


@dataclass(frozen=True)
class Doubt:
    """A label that a person should look at, and why."""

    member: Member
    confidence: float
    note: str


@dataclass(frozen=True)
class MergeReport:
    """What `merge_report` found.

    Attributes:
        version, encoder: of the bank.
        threshold: the cosine from which on two texts are as near as texts that mean the same.
        calibrated: whether the threshold comes from the bank (`calibrated_threshold`), not from the caller.
        datasets: how many labels each has.
        concepts: how many concepts the labels tell apart.
        groups: the classes of labels of several datasets, largest first.
        alone: the labels that have no counterpart in another dataset.
        relations: how many pairs of labels of different datasets are ``same``, ``contains`` or ``part_of`` (counted
            together, as ``contains``), and ``overlaps``.
        doubts: the labels whose attachment is unsure, or contradicted by pictures, least sure first.
        near_misses: unrelated pairs of different datasets, at most 0.1 below the threshold; nearest first, at most 100.
        same_name: pairs of one name in different datasets that are not one class, farthest first.
        other_name: pairs of different names within one class, farthest first: synonyms, or a wrong merge.
        same_dataset: pairs of one dataset's own labels at or above the threshold, nearest first; hard to tell apart.
        covers: meanings that contain others, most parts first; what is left over comes last.
        counted: the datasets whose pixels and boxes were counted.
    """

    version: str
    encoder: str
    threshold: float
    calibrated: bool
    datasets: Mapping[str, int]
    concepts: int
    groups: tuple[Group, ...]
    alone: tuple[Member, ...]
    relations: Mapping[str, int]
    doubts: tuple[Doubt, ...]
    near_misses: tuple[Pair, ...]
    same_name: tuple[Pair, ...]
    other_name: tuple[Pair, ...]
    same_dataset: tuple[Pair, ...]
    covers: tuple[Cover, ...] = ()
    counted: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def merge_report(
    bank: Bank, taxonomy: Taxonomy, counts: Mapping[LabelKey, Count] | None = None, threshold: float | None = None
) -> MergeReport:
    """Describe what a taxonomy says about a bank's labels.

    Time and memory grow with the square of the number of labels: some seconds at 3,000.

    Args:
        bank: the labels.
        taxonomy: the sets of the same labels.
        counts: how many pixels and boxes labels have (`labelmerge.merge.counts.read_counts`).
        threshold: a cosine; None for `calibrated_threshold`.

    Raises:
        UsageError: a threshold that is not a cosine.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}: it must be from -1 to 1")
    limit = calibrated_threshold(bank) if threshold is None else threshold
    counts = counts or {}
    members = [
        Member(*key, name, text, taxonomy[key].concepts, *counts.get(key, Count()))
        for key, name, text in zip(bank.keys, bank.names, bank.texts, strict=True)
    ]
    sets = taxonomy.sets[[taxonomy.rows[key] for key in bank.keys]]
    classes = _classes(sets)
    groups, alone = [], []
    for rows in classes:
        if len({members[row].dataset for row in rows}) < 2:
            alone += rows
            continue
        own = tuple(members[row] for row in rows)
        lowest = float(cosines_of(bank.vectors[rows]).min())
        pixels, boxes = sum_of_known(member.pixels for member in own), sum_of_known(member.boxes for member in own)
        groups.append(Group(_name(own), own, lowest, pixels, boxes))
    groups.sort(key=lambda group: (-len(group.members), group.name))
    found = Counter(relation.kind for relation in relations(taxonomy))
    doubts = [
        Doubt(members[row], entry.confidence, entry.note)
        for row, key in enumerate(bank.keys)
        if (entry := taxonomy[key]).confidence < UNSURE or (entry.note and PIXELS in entry.evidence.split("+"))
    ]
    return MergeReport(
        version=bank.version,
        encoder=bank.encoder,
        threshold=limit,
        calibrated=threshold is None,
        datasets=bank.count_by_dataset(),
        concepts=len(taxonomy.concepts),
        groups=tuple(groups),
        alone=tuple(members[row] for row in sorted(alone)),
        relations={"same": found["same"], "contains": found[CONTAINS] + found[PART_OF], "overlaps": found[OVERLAPS]},
        doubts=tuple(sorted(doubts, key=lambda doubt: doubt.confidence)),
        **_pairs(bank, members, sets, classes, limit - ROUNDING),
        covers=tuple(_covers(bank, members, sets, classes, taxonomy)),
        counted=tuple(sorted({dataset for dataset, _ in counts})),
    )


def _classes(sets: npt.NDArray[np.bool_]) -> list[list[int]]:
    """The rows with equal sets, each ascending, in order of their first."""
    found: dict[bytes, list[int]] = {}
    for row, own in enumerate(np.packbits(sets, axis=1)):
        found.setdefault(own.tobytes(), []).append(row)
    return list(found.values())


def _pairs(
    bank: Bank,
    members: Sequence[Member],
    sets: npt.NDArray[np.bool_],
    classes: Sequence[Sequence[int]],
    limit: float,
) -> dict[str, tuple[Pair, ...]]:
    """The lists of pairs to look at; labels of one text and one class stand in them once."""
    class_of = np.empty(len(bank), dtype=np.int64)
    for number, rows in enumerate(classes):
        class_of[list(rows)] = number
    units: dict[tuple[str, int], list[int]] = {}
    for row, text in enumerate(bank.texts):
        units.setdefault((text, int(class_of[row])), []).append(row)
    rows_of = list(units.values())
    firsts = [rows[0] for rows in rows_of]
    cosines = cosines_of(bank.vectors[firsts])
    own = sets[firsts].astype(np.float32)
    common, sizes = own @ own.T, own.sum(axis=1)
    together = class_of[firsts][:, None] == class_of[firsts][None]
    owner = np.unique([dataset for dataset, _ in bank.keys], return_inverse=True)[1]
    has = np.zeros((len(rows_of), owner.max() + 1), dtype=np.float32)
    for unit, rows in enumerate(rows_of):
        has[unit, owner[rows]] = 1
    shared = has @ has.T > 0  # some dataset has both
    word = np.unique([prompt_name(members[row].name) for row in firsts], return_inverse=True)[1]
    same_name = word[:, None] == word[None]

    def relation(a: int, b: int) -> str:
        if together[a, b] or not common[a, b]:
            return ""
        if common[a, b] == sizes[a]:
            return PART_OF
        return CONTAINS if common[a, b] == sizes[b] else OVERLAPS

    def pairs(chosen: npt.NDArray[np.bool_], sign: int, within: bool = False) -> list[Pair]:
        """A pair of labels for each chosen pair of units, by ascending ``sign * cosine``."""
        first, second = np.nonzero(np.triu(chosen, 1))
        cosine = cosines[first, second]
        found = []
        for i in np.argsort(sign * cosine, kind="stable").tolist():
            two = ((members[a], members[b]) for a in rows_of[first[i]] for b in rows_of[second[i]])
            a, b = next((a, b) for a, b in two if (a.dataset == b.dataset) == within)
            found.append(Pair(a, b, float(cosine[i]), relation(first[i], second[i])))
        return found

    almost = ~together & ~shared & ~same_name & (common == 0) & (cosines >= limit - _JUST_BELOW)
    return {
        "near_misses": tuple(pairs(almost, -1)[:_NEAR_MISSES]),
        "same_name": tuple(pairs(same_name & ~together & ~shared, 1)),
        "other_name": tuple(pairs(together & ~same_name & ~shared, 1)),
        "same_dataset": tuple(pairs(shared & (cosines >= limit), -1, within=True)),
    }


def _covers(
    bank: Bank,
    members: Sequence[Member],
    sets: npt.NDArray[np.bool_],
    classes: Sequence[Sequence[int]],
    taxonomy: Taxonomy,
) -> list[Cover]:
    """The classes that contain others; of a chain, each link once: a vehicle contains cars, and these taxis."""
    own = sets[[rows[0] for rows in classes]].astype(np.float32)
    common, sizes = own @ own.T, own.sum(axis=1)
    contains = (common == sizes[None]) & (sizes[:, None] > sizes[None])  # [whole, part]
    as_number = contains.astype(np.float32)
    direct = contains & ~(as_number @ as_number > 0)
    centres = np.stack([_unit_mean(bank.vectors[list(rows)]) for rows in classes])
    labels = [tuple(members[row] for row in rows) for rows in classes]
    entries = [[taxonomy[member.key] for member in own] for own in labels]
    found = []
    for whole in np.flatnonzero(direct.any(axis=1)).tolist():
        parents = labels[whole]
        parts = []
        for place in np.flatnonzero(direct[whole]).tolist():
            if {member.dataset for member in labels[place]} == {member.dataset for member in parents} and len(
                {member.dataset for member in parents}
            ) == 1:
                continue  # one dataset's own affair
            words = dict.fromkeys(w for entry in entries[whole] + entries[place] for w in entry.evidence.split("+"))
            sure = max(e.confidence for e in entries[whole]) * max(e.confidence for e in entries[place])
            cosine = float(centres[whole] @ centres[place])
            parts.append(Part(_name(labels[place]), labels[place], cosine, "+".join(words), sure))
        if parts:
            parts.sort(key=lambda part: (-part.cosine, part.name))
            found.append(Cover(_name(parents), parents, tuple(parts), all(is_rest(p.name) for p in parents)))
    return sorted(found, key=lambda cover: (cover.rest, -len(cover.parts), cover.name))


def _name(members: Sequence[Member]) -> str:
    """The concept, where it is one; else the commonest `prompt_name`, the first among equals."""
    concepts = members[0].concepts
    return concepts[0] if len(concepts) == 1 else _commonest(prompt_name(member.name) for member in members)


def _commonest(words: Iterable[str]) -> str:
    return Counter(words).most_common(1)[0][0]


def sum_of_known(numbers: Iterable[int | None]) -> int | None:
    """The sum of the known numbers; None if none is known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _unit_mean(vectors: Matrix) -> Matrix:
    mean = vectors.mean(axis=0)
    unit: Matrix = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit
