"""Labels and texts by the cosines of their vectors: the threshold that fits a bank, and clusters of one meaning."""

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
    """The cosine of every two unit vectors ``[N, D]``: float32 ``[N, N]``, exactly symmetric."""
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
    from scipy.cluster.hierarchy import fcluster

    if len(similarity) < 2:
        return [[thing] for thing in range(len(similarity))]
    numbers = fcluster(linkage(similarity), t=-limit, criterion="distance")
    found: dict[int, list[int]] = {}
    for thing, number in enumerate(numbers.tolist()):
        found.setdefault(number, []).append(thing)
    return list(found.values())


def linkage(similarity: Matrix) -> npt.NDArray[np.float64]:
    """The complete-linkage tree of K things as scipy has it: float64 [K - 1, 4], heights are ``-similarity``."""
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distance = -similarity.astype(np.float64)
    np.fill_diagonal(distance, 0)
    tree: npt.NDArray[np.float64] = hierarchy.linkage(squareform(distance, checks=False), method="complete")
    return tree


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
    for a, b in linkage(cosines)[:, :2].astype(int) if len(texts) > 1 else ():
        left, right = branches[a], branches[b]
        ways = [(left, right), (left, right[::-1]), (left[::-1], right), (left[::-1], right[::-1])]
        left, right = max(ways, key=lambda way: cosines[way[0][-1], way[1][0]])
        branches.append([*left, *right])
    place = np.empty(len(texts), dtype=np.int64)
    place[branches[-1]] = np.arange(len(texts))
    order: npt.NDArray[np.int64] = np.argsort(place[column], kind="stable")
    return order
