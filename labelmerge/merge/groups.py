"""Which labels of different datasets mean the same, by the cosine of their vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey
from labelmerge.merge.counts import Count
from labelmerge.names import prompt_name

Matrix = npt.NDArray[np.float32]

# Which share of the pairs of one dataset's own labels lies below the threshold; `calibrated_threshold` says why.
_WORDS_QUANTILE, _SENTENCES_QUANTILE = 0.999, 0.9999
# Likewise of the cosines from which on one label may be a part of another: where nothing else says so, and where the
# words do.
_NEAR_QUANTILE, _NEAR_ENOUGH_QUANTILE = 0.99, 0.95
_BETWEEN = 0.05  # the mean of several parts is nearer to the whole than each of them, by at least this much
_ROUNDING = 1e-5  # vectors are float32: equal ones may have a cosine this far below 1
_APART = -2.0  # below every cosine: these two may never be one group
_NEAR_MISSES = 100
_JUST_BELOW = 0.1


@dataclass(frozen=True)
class Member:
    """One label.

    Attributes:
        pixels, boxes: how many pixels and boxes of it the shards hold; None where no shards say.
    """

    dataset: str
    index: int
    name: str
    text: str
    pixels: int | None = None
    boxes: int | None = None

    @property
    def key(self) -> LabelKey:
        return self.dataset, self.index


@dataclass(frozen=True)
class Group:
    """Labels of different datasets that mean the same.

    Attributes:
        name: the commonest `prompt_name` among them.
        members: in ascending order of key.
        lowest: the smallest cosine between any two of them.
        same_text: whether they are one vector, so that training merges them whatever the threshold.
        pixels, boxes: sums over the members; None where no shards say.
    """

    name: str
    members: tuple[Member, ...]
    lowest: float
    same_text: bool
    pixels: int | None = None
    boxes: int | None = None


@dataclass(frozen=True)
class Pair:
    """Two labels, or two groups stood for by a label of each, and their cosine."""

    a: Member
    b: Member
    cosine: float


@dataclass(frozen=True)
class Part:
    """A meaning that another one covers.

    Attributes:
        name: the commonest `prompt_name` among its labels.
        members: its labels, in whichever datasets have it.
        cosine: with the covering meaning; each is the mean of its labels' vectors.
        said: whether the words say so too: "A rider is a person who …", or *utility pole* over *pole*.
        lacking: the datasets that have the covering label but not this one.
    """

    name: str
    members: tuple[Member, ...]
    cosine: float
    said: bool
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class Cover:
    """A label that seems to include what other datasets tell apart, as *person* includes *rider*.

    Attributes:
        name: the commonest `prompt_name` among the covering labels.
        parents: those labels, in the datasets that lack at least one of the parts.
        parts: what they cover: first where the words say so, nearest first.
    """

    name: str
    parents: tuple[Member, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class MergeReport:
    """What `merge_groups` found.

    Attributes:
        version, encoder: of the bank.
        threshold: the cosine from which on two labels mean the same.
        calibrated: whether the threshold comes from the bank (`calibrated_threshold`), not from the caller.
        datasets: how many labels each has.
        columns: how many distinct texts there are: the classes that training sees.
        groups: the labels that mean the same, largest group first.
        alone: the labels that have no counterpart in another dataset.
        near_misses: pairs of different datasets that are not one group: at most 0.1 below the threshold, or above it
            but kept apart by another label of a group; nearest first, at most 100.
        same_name: pairs of one name in different datasets that are not one group, farthest first: two meanings, or a
            description that is wrong.
        other_name: pairs of different names within one group, farthest first: synonyms, or a wrong merge.
        same_dataset: pairs of one dataset's own labels at or above the threshold, nearest first. The dataset tells
            them apart, so they are never merged, but a model will confuse them.
        covers: labels that seem to include labels of other datasets, most parts first.
        counted: the datasets whose pixels and boxes were counted.
    """

    version: str
    encoder: str
    threshold: float
    calibrated: bool
    datasets: Mapping[str, int]
    columns: int
    groups: tuple[Group, ...]
    alone: tuple[Member, ...]
    near_misses: tuple[Pair, ...]
    same_name: tuple[Pair, ...]
    other_name: tuple[Pair, ...]
    same_dataset: tuple[Pair, ...]
    covers: tuple[Cover, ...] = ()
    counted: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cosine_matrix(bank: Bank) -> Matrix:
    """The cosine of every two labels: float32 [N, N], symmetric, rows in the bank's order."""
    return _cosines(bank.vectors)


def _cosines(vectors: Matrix) -> Matrix:
    product = vectors @ vectors.T
    cosines: Matrix = np.clip((product + product.T) / 2, -1, 1)
    return cosines


def calibrated_threshold(bank: Bank) -> float:
    """A threshold that fits the bank: the cosine that few pairs of one dataset's own labels exceed.

    A dataset's labels mean different things, or it would not have both. How near they lie shows how near different
    meanings come in this space, which varies much between encoders: unrelated words have a cosine of 0.2 in one, of
    0.7 in another. "Few" is 1 in 1,000 for bare words and 1 in 10,000 for sentences: of the thresholds compared on the
    descriptions that ship (``tests/benchmarks/bench_threshold.py``; docs/bank.md has the numbers), words lose more
    synonyms above the first than they lose wrong merges, while sentences lose next to none up to the second.
    """
    own = _own_cosines(bank)
    quantile = _WORDS_QUANTILE if bank.prompt == WORD_TEMPLATE else _SENTENCES_QUANTILE
    return float(np.quantile(own, quantile)) if own.size else 1.0


def _own_cosines(bank: Bank) -> Matrix:
    """The cosines of all pairs of labels that one dataset tells apart."""
    cosines = _cosines(bank.vectors)
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    text = np.unique(bank.texts, return_inverse=True)[1]
    same = (dataset[:, None] == dataset[None]) & (text[:, None] != text[None])
    same[np.tril_indices(len(bank))] = False
    found: Matrix = cosines[same]
    return found


def merge_groups(
    bank: Bank, threshold: float | None = None, counts: Mapping[LabelKey, Count] | None = None
) -> MergeReport:
    """Find the groups of labels that mean the same, across datasets.

    Groups grow by complete linkage: two are joined while *every* pair across them is at or above the threshold.
    Single linkage (connected components) would chain: *road* to *path* to *pavement* to *floor*, each step small, the
    ends far apart. Labels of one dataset are never joined, because the dataset tells them apart; equal texts always
    are, because they are one vector.

    Time and memory grow with the square of the number of distinct texts: about a second at 2,000.

    Args:
        bank: the labels.
        threshold: a cosine; None for `calibrated_threshold`.
        counts: how many pixels and boxes labels have (`labelmerge.merge.counts.read_counts`).

    Raises:
        UsageError: a threshold that is no cosine.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}: it must be -1 to 1")
    calibrated = threshold is None
    limit = calibrated_threshold(bank) if threshold is None else threshold
    counts = counts or {}
    members = [
        Member(*key, name, text, *counts.get(key, Count()))
        for key, name, text in zip(bank.keys, bank.names, bank.texts, strict=True)
    ]
    texts, vectors, column = bank.columns()
    rows_of: list[list[int]] = [[] for _ in texts]
    for row, place in enumerate(column):
        rows_of[place].append(row)
    cosines = _cosines(vectors)
    shared = _share_a_dataset(bank, column, len(texts))
    clusters = _cut(linkage(np.where(shared, np.float32(_APART), cosines)), len(texts), limit - _ROUNDING)
    cluster_of = np.empty(len(texts), dtype=np.int64)
    for number, cluster in enumerate(clusters):
        cluster_of[cluster] = number

    groups, alone = [], []
    for cluster in clusters:
        rows = sorted(row for text in cluster for row in rows_of[text])
        if len({members[row].dataset for row in rows}) < 2:
            alone += rows
            continue
        own = tuple(members[row] for row in rows)
        lowest = float(cosines[np.ix_(cluster, cluster)].min()) if len(cluster) > 1 else 1.0
        pixels, boxes = _sum(member.pixels for member in own), _sum(member.boxes for member in own)
        groups.append(Group(_name(own), own, lowest, len(cluster) == 1, pixels, boxes))
    groups.sort(key=lambda group: (-len(group.members), group.name))

    def pairs(chosen: npt.NDArray[np.bool_], sign: int, within: bool = False) -> list[Pair]:
        """A pair of labels for each chosen pair of texts, by ascending ``sign * cosine``."""
        first, second = np.nonzero(np.triu(chosen, 1))
        cosine = cosines[first, second]
        found = []
        for i in np.argsort(sign * cosine, kind="stable"):
            two = ((members[a], members[b]) for a in rows_of[first[i]] for b in rows_of[second[i]])
            a, b = next((a, b) for a, b in two if (a.dataset == b.dataset) == within)
            found.append(Pair(a, b, float(cosine[i])))
        return found

    together = cluster_of[:, None] == cluster_of[None]
    word = np.unique([prompt_name(members[rows[0]].name) for rows in rows_of], return_inverse=True)[1]
    same_name = word[:, None] == word[None]
    near = cosines >= limit - _ROUNDING
    almost = ~together & ~shared & ~same_name & (cosines >= limit - _JUST_BELOW)
    return MergeReport(
        version=bank.version,
        encoder=bank.encoder,
        threshold=limit,
        calibrated=calibrated,
        datasets=bank.count_by_dataset(),
        columns=len(texts),
        groups=tuple(groups),
        alone=tuple(members[row] for row in sorted(alone)),
        near_misses=tuple(pairs(almost, -1)[:_NEAR_MISSES]),
        same_name=tuple(pairs(same_name & ~together & ~shared, 1)),
        other_name=tuple(pairs(together & ~same_name, 1)),
        same_dataset=tuple(pairs(shared & near, -1, within=True)),
        covers=tuple(_covers(bank, members, [[row for text in c for row in rows_of[text]] for c in clusters])),
        counted=tuple(sorted({dataset for dataset, _ in counts})),
    )


def _name(members: Sequence[Member]) -> str:
    """The commonest `prompt_name`, the first among equals."""
    names = [prompt_name(member.name) for member in members]
    return max(dict.fromkeys(names), key=names.count)


def _sum(numbers: Iterator[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _covers(bank: Bank, members: Sequence[Member], clusters: Sequence[Sequence[int]]) -> list[Cover]:
    """The meanings that cover others, from the rows of each meaning.

    Meaning c is part of what dataset A calls p, where A has p but not c, if

    - c's words name p as its kind, and the two are not far apart; or
    - p is A's nearest to c and to other meanings of a dataset that lacks p, and lies between them: their mean is nearer
      to p than each of them, as a category's name lies between the names of its members.
    """
    own = _own_cosines(bank)
    if not own.size:
        return []
    near, near_enough = (float(np.quantile(own, quantile)) for quantile in (_NEAR_QUANTILE, _NEAR_ENOUGH_QUANTILE))
    labels = [tuple(members[row] for row in sorted(rows)) for rows in clusters]
    centres = np.stack([_unit_mean(bank.vectors[sorted(rows)]) for rows in clusters])
    cosines = _cosines(centres)
    datasets = bank.datasets()
    has = np.array([[any(label.dataset == name for label in own) for own in labels] for name in datasets])
    said = {(whole, part) for whole, part in _said(labels) if cosines[whole, part] >= near_enough}
    lacking: dict[tuple[int, int], set[str]] = {}  # (whole, part) → datasets
    for whole, part in said:
        for lacks in np.flatnonzero(has[:, whole] & ~has[:, part]):
            lacking.setdefault((whole, part), set()).add(datasets[lacks])
    for place, whole, part in _between(centres, cosines, has, near):
        lacking.setdefault((whole, part), set()).add(datasets[place])

    found = []
    for whole in sorted({whole for whole, _ in lacking}):
        parts = [
            Part(_name(labels[c]), labels[c], float(cosines[p, c]), (p, c) in said, tuple(sorted(where)))
            for (p, c), where in lacking.items()
            if p == whole and where
        ]
        coarse = {dataset for part in parts for dataset in part.lacking}
        parts.sort(key=lambda part: (not part.said, -part.cosine, part.name))
        parents = tuple(label for label in labels[whole] if label.dataset in coarse)
        found.append(Cover(_name(labels[whole]), parents, tuple(parts)))
    return sorted(found, key=lambda cover: (-len(cover.parts), cover.name))


def _said(labels: Sequence[Sequence[Member]]) -> Iterator[tuple[int, int]]:
    """The pairs (whole, part) of meanings of which the part's words say that it is a kind of the whole."""
    named: dict[str, list[int]] = {}
    for number, own in enumerate(labels):
        for name in sorted({prompt_name(member.name) for member in own}):
            named.setdefault(name, []).append(number)
    for part, own in enumerate(labels):
        for kind in sorted(_kinds(own)):
            yield from ((whole, part) for whole in named.get(kind, ()) if whole != part)


def _between(
    centres: Matrix, cosines: Matrix, has: npt.NDArray[np.bool_], near: float
) -> Iterator[tuple[int, int, int]]:
    """The triples (dataset, whole, part) of which the whole lies between the part and others of that part's dataset.

    Args:
        centres: float32 [M, D], a unit vector for each meaning.
        cosines: float32 [M, M], theirs.
        has: bool [datasets, M].
        near: the least cosine of a whole and a part.
    """
    for place, mine in enumerate(has):
        here, others = np.flatnonzero(mine), np.flatnonzero(~mine)
        nearest = here[np.argmax(cosines[np.ix_(here, others)], axis=0)]
        is_near = cosines[nearest, others] >= near
        wholes: list[int] = np.unique(nearest[is_near]).tolist()
        for whole in wholes:
            around = others[is_near & (nearest == whole)]
            for other in np.flatnonzero(~has[:, whole]):
                parts: list[int] = around[has[other, around]].tolist()
                if len(parts) < 2:
                    continue
                nearness = float(centres[whole] @ _unit_mean(centres[parts]))
                if nearness >= cosines[whole, parts].max() + _BETWEEN:
                    yield from ((place, whole, part) for part in parts)


# "is a large road vehicle with …": the kind stands between the article and the first word that is no part of it.
_KIND = re.compile(
    r"\b(?:is|are) (?:an?|the|any|one of the)? ?((?:[\w'-]+ ){0,5}?[\w'-]+)"
    r"(?=[.,;:]|$| (?:that|which|who|whose|with|without|of|for|in|on|at|to|from|by|used|made|and|or|whether|under|"
    r"over|above|along|behind|beside|between|near|than|where|\w+(?:ed|ing)) )"
)


def _kinds(members: Sequence[Member]) -> set[str]:
    """What the words say these labels are kinds of: the ends of "is a …" phrases, and of names of several words."""
    phrases = [prompt_name(member.name) for member in members]
    own = set(phrases)
    for member in members:
        if match := _KIND.search(member.text):
            phrases.append(match.group(1).lower())
    ends = {" ".join(words[start:]) for words in map(str.split, phrases) for start in range(len(words))}
    return ends - own


def _unit_mean(vectors: Matrix) -> Matrix:
    mean = vectors.mean(axis=0)
    unit: Matrix = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return unit


def _share_a_dataset(bank: Bank, column: npt.NDArray[np.int64], texts: int) -> npt.NDArray[np.bool_]:
    """For every two texts, whether some dataset has both: bool [K, K]."""
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    has = np.zeros((texts, dataset.max() + 1), dtype=np.float32)
    has[column, dataset] = 1
    shared: npt.NDArray[np.bool_] = has @ has.T > 0
    return shared


def linkage(similarity: Matrix) -> list[tuple[int, int, float]]:
    """Complete-linkage clustering of K things by the nearest-neighbour chain algorithm, in O(K²) time and memory.

    Two clusters are as similar as their least similar pair. (F. Murtagh, "A survey of recent advances in hierarchical
    clustering algorithms", The Computer Journal 26(4), 1983.)

    Args:
        similarity: float [K, K], symmetric.

    Returns:
        K - 1 merges ``(a, b, similarity)``, most similar first: the clusters that hold things a and b become one.
    """
    count = len(similarity)
    rows = similarity.astype(np.float32)
    np.fill_diagonal(rows, -np.inf)
    active = np.ones(count, dtype=bool)
    chain: list[int] = []
    merges: list[tuple[int, int, float]] = []
    while len(merges) < count - 1:
        if not chain:
            chain.append(int(np.argmax(active)))
        a = chain[-1]
        b = int(np.argmax(rows[a]))
        # Among equals the chain's previous element wins: the chain then always ends.
        if len(chain) > 1 and rows[a, chain[-2]] >= rows[a, b]:
            b = chain[-2]
            del chain[-2:]
            merges.append((a, b, float(rows[a, b])))
            keep, gone = min(a, b), max(a, b)
            joint = np.minimum(rows[keep], rows[gone])
            joint[[keep, gone]] = -np.inf
            rows[keep], rows[:, keep] = joint, joint
            rows[gone], rows[:, gone] = -np.inf, -np.inf
            active[gone] = False
        else:
            chain.append(b)
    return sorted(merges, key=lambda merge: -merge[2])


def _cut(merges: Sequence[tuple[int, int, float]], count: int, limit: float) -> list[list[int]]:
    """The clusters that merges at or above `limit` make, each ascending, in order of their first thing."""
    cluster = {thing: [thing] for thing in range(count)}
    for a, b, similarity in merges:
        if similarity >= limit:
            joint = sorted(cluster[a] + cluster[b])
            for thing in joint:
                cluster[thing] = joint
    return [things for thing, things in cluster.items() if things[0] == thing]


def seriation(bank: Bank) -> npt.NDArray[np.int64]:
    """An order of the labels in which similar ones stand together: the leaves of the `linkage` tree, int64 [N].

    At every merge the two branches are laid end to end, flipped so that the most similar ends meet.
    """
    texts, vectors, column = bank.columns()
    cosines = _cosines(vectors)
    branch = {thing: [thing] for thing in range(len(texts))}
    for a, b, _ in linkage(cosines):
        left, right = branch[a], branch[b]
        ways = [(left, right), (left, right[::-1]), (left[::-1], right), (left[::-1], right[::-1])]
        left, right = max(ways, key=lambda way: cosines[way[0][-1], way[1][0]])
        joint = left + right
        for thing in joint:
            branch[thing] = joint
    place = np.empty(len(texts), dtype=np.int64)
    place[branch[0]] = np.arange(len(texts))
    order: npt.NDArray[np.int64] = np.argsort(place[column], kind="stable")
    return order
