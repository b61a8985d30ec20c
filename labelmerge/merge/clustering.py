"""Cosines between labels and texts: the threshold that fits a bank, and clusters of one meaning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import WORD_TEMPLATE, Bank

Matrix = npt.NDArray[np.float32]

# Which share of the pairs of one dataset's own labels lies below the threshold; `calibrated_threshold` says why.
_WORDS_QUANTILE, _SENTENCES_QUANTILE = 0.999, 0.9999
ROUNDING = 1e-5
"""Vectors are float32: equal ones may have a cosine this far below 1."""
_APART = -2.0  # below every cosine: these two may never be one cluster


def cosines_of(vectors: Matrix) -> Matrix:
    """The cosine of every pair of unit vectors ``[N, D]``: float32 ``[N, N]``, exactly symmetric."""
    product = vectors @ vectors.T
    cosines: Matrix = np.clip((product + product.T) / 2, -1, 1)
    return cosines


def own_cosines(bank: Bank) -> Matrix:
    """The cosines of all pairs of labels that one dataset tells apart: float32, flat."""
    cosines = cosines_of(bank.vectors)
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    text = np.unique(bank.texts, return_inverse=True)[1]
    same = (dataset[:, None] == dataset[None]) & (text[:, None] != text[None])
    same[np.tril_indices(len(bank))] = False
    found: Matrix = cosines[same]
    return found


def calibrated_threshold(bank: Bank) -> float:
    """A threshold that fits the bank: the cosine that few pairs of one dataset's own labels exceed.

    A dataset's labels mean different things, or it would not have both. How near they lie shows how near different
    meanings come in this space, which varies much between encoders: unrelated words have a cosine of 0.2 in one, of
    0.7 in another. "Few" is 1 in 1,000 for bare words and 1 in 10,000 for sentences: of the thresholds compared on the
    descriptions that ship (``tests/benchmarks/bench_threshold.py``; docs/bank.md has the numbers), words lose more
    synonyms above the first than they lose wrong merges, while sentences lose next to none up to the second.
    """
    own = own_cosines(bank)
    quantile = _WORDS_QUANTILE if bank.prompt == WORD_TEMPLATE else _SENTENCES_QUANTILE
    return float(np.quantile(own, quantile)) if own.size else 1.0


def share_a_dataset(bank: Bank, column: npt.NDArray[np.int64], texts: int) -> npt.NDArray[np.bool_]:
    """For every two texts, whether some dataset has both: bool [K, K]."""
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    has = np.zeros((texts, dataset.max() + 1), dtype=np.float32)
    has[column, dataset] = 1
    shared: npt.NDArray[np.bool_] = has @ has.T > 0
    return shared


def clusters_of(similarity: Matrix, limit: float) -> list[list[int]]:
    """Complete-linkage clusters of K things: every two of one cluster are similar by `limit` or more.

    Single linkage (connected components) would chain: *road* to *path* to *pavement* to *floor*, each step small, the
    ends far apart.

    Args:
        similarity: float32 [K, K], symmetric.

    Returns:
        The clusters, each ascending, in order of their first thing.
    """
    found = {thing: [thing] for thing in range(len(similarity))}
    for number, (a, b, height) in enumerate(linkage(similarity), start=len(similarity)):
        if height < limit:
            break
        found[number] = sorted(found.pop(a) + found.pop(b))
    return sorted(found.values())


def blocks_of(
    similarity: Matrix, count: int, tree: Sequence[tuple[int, int, float]] | None = None
) -> npt.NDArray[np.int64]:
    """The block of each of K things, int64 [K], when complete linkage is cut where `count` clusters are left.

    Args:
        similarity: float32 [K, K], symmetric.
        count: of clusters.
        tree: its `linkage`, where that is known.
    """
    block = np.arange(len(similarity))
    members = [[thing] for thing in range(len(similarity))]
    for a, b, _ in (linkage(similarity) if tree is None else tree)[: len(similarity) - count]:
        members.append(members[a] + members[b])
        block[members[-1]] = members[-1][0]
    return block


def linkage(similarity: Matrix) -> list[tuple[int, int, float]]:
    """The complete-linkage tree of K things: two clusters are as similar as their least similar pair.

    Args:
        similarity: float32 [K, K], symmetric.

    Returns:
        K - 1 merges ``(a, b, similarity)``, most similar first; the m-th makes the cluster K + m.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    if len(similarity) < 2:
        return []
    exact = similarity.astype(np.float64)
    highest = float(exact.max())  # scipy wants distances, and none below 0
    np.fill_diagonal(exact, highest)
    tree = hierarchy.linkage(squareform(highest - exact, checks=False), method="complete")
    return [(int(a), int(b), float(np.float32(highest - height))) for a, b, height, _ in tree]


def same_meaning(bank: Bank, limit: float) -> list[list[int]]:
    """The rows of a bank by meaning: labels of different datasets whose texts are equal or similar by `limit` or more.

    Labels of one dataset are never put together, because the dataset tells them apart, unless their texts are equal.
    """
    texts, vectors, column = bank.columns()
    shared = share_a_dataset(bank, column, len(texts))
    apart = np.where(shared, np.float32(_APART), cosines_of(vectors))
    rows_of: list[list[int]] = [[] for _ in texts]
    for row, place in enumerate(column):
        rows_of[place].append(row)
    return [sorted(row for text in own for row in rows_of[text]) for own in clusters_of(apart, limit - ROUNDING)]


def seriation(bank: Bank) -> npt.NDArray[np.int64]:
    """An order of the labels in which similar ones stand together: the leaves of the `linkage` tree, int64 [N].

    At every merge the two branches are laid end to end, flipped so that the most similar ends meet.
    """
    texts, vectors, column = bank.columns()
    cosines = cosines_of(vectors)
    branches: list[Sequence[int]] = [[thing] for thing in range(len(texts))]
    for a, b, _ in linkage(cosines):
        left, right = branches[a], branches[b]
        ways = [(left, right), (left, right[::-1]), (left[::-1], right), (left[::-1], right[::-1])]
        left, right = max(ways, key=lambda way: cosines[way[0][-1], way[1][0]])
        branches.append([*left, *right])
    place = np.empty(len(texts), dtype=np.int64)
    place[branches[-1]] = np.arange(len(texts))
    order: npt.NDArray[np.int64] = np.argsort(place[column], kind="stable")
    return order
