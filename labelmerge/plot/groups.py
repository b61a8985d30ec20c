"""Names for groups of labels: the concept that best says what they have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.merge.attachment import attach
from labelmerge.names import prompt_name

_CLEAR = 0.5  # how well a concept must fit to name a group
_MOST = 0.75  # of all texts: a concept under which more of them lie (anything) names no group


def group_names(bank: Bank, groups: Sequence[npt.NDArray[np.int64]]) -> list[str]:
    """A name for each group of a bank's rows, no two the same.

    It is the concept under which most of the group and least of the rest lies (the F1 of the two shares, in distinct
    texts), where one fits and has more than half of the group; else the names of the two texts in the group's middle.
    Of groups that would have one name, the one that fits best has it.

    Args:
        bank: the labels.
        groups: rows, at least one each.
    """
    graph, attachments = attach(bank)
    _, vectors, column = bank.columns()
    first = np.unique(column, return_index=True)[1]  # a row of each text
    under = np.zeros((len(graph), len(first)), dtype=np.bool_)  # whether a text lies under a concept
    for text, row in enumerate(first):
        under[:, text] = graph.within[:, graph.rows(attachments[row].concepts)].all(axis=1)
    size = under.sum(axis=1)
    breadth = graph.within.sum(axis=1)  # of concepts that fit alike, the narrower one says more
    fits = []
    for rows in groups:
        texts = np.unique(column[rows])
        inside = under[:, texts].sum(axis=1)
        f1 = 2 * inside / np.maximum(size + len(texts), 1)
        fitting = (size > 1) & (size <= _MOST * len(first)) & (2 * inside > len(texts))
        fits.append(np.where(fitting, f1 - 1e-6 * breadth, 0.0))
    names: list[str | None] = [None] * len(groups)
    taken: set[str] = set()
    pairs = [
        (-fits[number][place], number, int(place)) for number in range(len(groups)) for place in _best(fits[number])
    ]
    for fit, number, place in sorted(pairs):
        name = graph.names[place].partition(" (")[0]
        if -fit >= _CLEAR and names[number] is None and name not in taken:
            names[number] = name
            taken.add(name)
    return [name or _middle(bank, vectors, column, rows) for name, rows in zip(names, groups, strict=True)]


def _best(fits: npt.NDArray[np.float64], count: int = 5) -> npt.NDArray[np.int64]:
    return np.argsort(-fits, kind="stable")[:count]


def _middle(
    bank: Bank, vectors: npt.NDArray[np.float32], column: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> str:
    """The names of the two texts nearest to the mean of the group's; none that the other is a part of (tool, tools)."""
    texts = np.unique(column[rows])
    near = texts[np.argsort(-(vectors[texts] @ vectors[texts].mean(axis=0)), kind="stable")]
    names: list[str] = []
    for text in near:
        name = prompt_name(bank.names[int(np.flatnonzero(column == text)[0])])
        if len(names) < 2 and not any(name in other or other in name for other in names):
            names.append(name)
    return ", ".join(names)
