"""Which labels of different datasets mean the same, by the cosine of their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.describe.prompts import prompt_name
from labelmerge.embed.bank import Bank
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey

Matrix = npt.NDArray[np.float32]

_DIFFERENT_QUANTILE = 0.999
_ROUNDING = 1e-5  # vectors are float32: equal ones may have a cosine this far below 1
_APART = -2.0  # below every cosine: these two may never be one group
_NEAR_MISSES = 100
_JUST_BELOW = 0.1


@dataclass(frozen=True)
class Member:
    """One label."""

    dataset: str
    index: int
    name: str
    text: str

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
    """

    name: str
    members: tuple[Member, ...]
    lowest: float
    same_text: bool


@dataclass(frozen=True)
class Pair:
    """Two labels, or two groups stood for by a label of each, and their cosine."""

    a: Member
    b: Member
    cosine: float


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
    """A threshold that fits the bank's encoder: the cosine that 1 in 1000 pairs of one dataset's own labels exceed.

    A dataset's labels mean different things, or it would not have both. How near they lie shows how near different
    meanings come in this space, which varies much between encoders: unrelated words have a cosine of 0.2 in one, of
    0.7 in another.
    """
    cosines = _cosines(bank.vectors)
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    text = np.unique(bank.texts, return_inverse=True)[1]
    same = (dataset[:, None] == dataset[None]) & (text[:, None] != text[None])
    same[np.tril_indices(len(bank))] = False
    return float(np.quantile(cosines[same], _DIFFERENT_QUANTILE)) if same.any() else 1.0


def merge_groups(bank: Bank, threshold: float | None = None) -> MergeReport:
    """Find the groups of labels that mean the same, across datasets.

    Groups grow by complete linkage: two are joined while *every* pair across them is at or above the threshold.
    Single linkage (connected components) would chain: *road* to *path* to *pavement* to *floor*, each step small, the
    ends far apart. Labels of one dataset are never joined, because the dataset tells them apart; equal texts always
    are, because they are one vector.

    Time and memory grow with the square of the number of distinct texts: about a second at 2,000.

    Args:
        bank: the labels.
        threshold: a cosine; None for `calibrated_threshold`.

    Raises:
        UsageError: a threshold that is no cosine.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}: it must be -1 to 1")
    calibrated = threshold is None
    limit = calibrated_threshold(bank) if threshold is None else threshold
    members = [
        Member(dataset, index, name, text)
        for (dataset, index), name, text in zip(bank.keys, bank.names, bank.texts, strict=True)
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
        names = [prompt_name(members[row].name) for row in rows]
        lowest = float(cosines[np.ix_(cluster, cluster)].min()) if len(cluster) > 1 else 1.0
        name = max(dict.fromkeys(names), key=names.count)
        groups.append(Group(name, tuple(members[row] for row in rows), lowest, len(cluster) == 1))
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
    )


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
