"""The labels in play → the columns of the softmax. The one place where labels become columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError
from labelmerge.labels import IGNORE, LabelKey, LabelSpace
from labelmerge.merge.concepts import Booleans
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.names import prompt_name

Labels = Literal["seen", "all"]


@dataclass(frozen=True, eq=False)
class Columns:
    """The N columns of a run and the L labels that are trained on.

    Attributes:
        texts: what each column means: the text of its labels, or the name of its concept.
        vectors: float32 ``[N, C]``, unit vectors.
        keys: the labels that each column stands for alone.
        tables: for each dataset, what a mask value becomes: int64 ``[ignore_index + 1]``, `IGNORE` for no label. It is
            a column where every label has exactly one (`single`), and else a row of `positive`.
        allowed: bool ``[D, N]``, the columns of each dataset's own labels; datasets in the order of `tables`.
        labels: the L labels in play.
        positive: bool ``[L, N]``, the columns that each label may stand for, at least one.
        label_vectors: float32 ``[L, C]``, each label's own vector.
        single: whether every label stands for one column alone.
        related: bool ``[L, N]``, the columns whose labels share a concept with the label: the same, its parts, its
            wholes, and what overlaps it.
    """

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    keys: tuple[tuple[LabelKey, ...], ...]
    tables: dict[str, npt.NDArray[np.int64]]
    allowed: Booleans
    labels: tuple[LabelKey, ...]
    positive: Booleans
    label_vectors: npt.NDArray[np.float32]
    single: bool
    related: Booleans

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of which labels may stand for which columns, 64 hexadecimal digits."""
        sets = [[*key, np.flatnonzero(own).tolist()] for key, own in zip(self.labels, self.positive, strict=True)]
        return hashlib.sha256(json.dumps(sets).encode()).hexdigest()


def build_columns(
    bank: Bank,
    spaces: Sequence[LabelSpace],
    counts: Mapping[LabelKey, int] | None = None,
    taxonomy: Taxonomy | None = None,
    *,
    relations: Taxonomy | None = None,
    rows: bool = False,
) -> Columns:
    """The columns for these training datasets.

    Without a taxonomy labels of one text are one column (Yin et al.; the baselines' banks have a text for each class).
    With one, each concept that the labels in play tell apart is a column: its vector is the normalised mean of
    the distinct texts of the labels that stand for it alone, or, where there is none, of the labels that may stand for
    it.

    Args:
        bank: must hold a row for every label in play.
        spaces: the label spaces of the D training datasets.
        counts: how much there is of each label in the shards. A label that never occurs is left out, because nothing
            would ever pull towards it. None takes every label.
        taxonomy: the sets of the labels.
        relations: the concepts of the labels, where `taxonomy` doesn't say which columns are related.
        rows: tables give rows of `Columns.positive` also where every label has one column only.

    Raises:
        BankError: the bank lacks labels.
        ShardError: no label occurs at all.
    """
    keys = [key for space in spaces for key in space.keys if counts is None or counts.get(key, 0)]
    if not keys:
        raise ShardError("nothing is labelled in these shards", where=", ".join(space.name for space in spaces))
    places = bank.positions(keys)
    label_vectors: npt.NDArray[np.float32] = bank.vectors[places]
    if taxonomy is None:
        texts = [bank.texts[place] for place in places]
        column = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        positive = np.zeros((len(keys), len(column)), dtype=np.bool_)
        positive[np.arange(len(keys)), [column[text] for text in texts]] = True
        firsts = positive.argmax(axis=0)
        vectors = label_vectors[firsts]
        names = tuple(column)
    else:
        positive = _merged(taxonomy.sets[[taxonomy.rows[key] for key in keys]])
        own_texts = [bank.texts[place] for place in places]
        vectors = column_vectors(own_texts, label_vectors, positive)
        names = _names([bank.names[place] for place in places], positive)
    single = bool((positive.sum(axis=1) == 1).all())
    targets = np.arange(len(keys)) if rows or not single else positive.argmax(axis=1)
    target_of = dict(zip(keys, targets.tolist(), strict=True))
    row_of = {key: row for row, key in enumerate(keys)}
    tables, allowed = {}, np.zeros((len(spaces), positive.shape[1]), dtype=np.bool_)
    for place, space in enumerate(spaces):
        own = [key for key in space.keys if key in row_of]
        tables[space.name] = space.lookup({key[1]: target_of[key] for key in own}, IGNORE)
        allowed[place] = positive[[row_of[key] for key in own]].any(axis=0)
    alone = positive & (positive.sum(axis=1, keepdims=True) == 1)
    return Columns(
        texts=names,
        vectors=vectors,
        keys=tuple(tuple(keys[row] for row in np.flatnonzero(alone[:, column])) for column in range(len(names))),
        tables=tables,
        allowed=allowed,
        labels=tuple(keys),
        positive=positive,
        label_vectors=label_vectors,
        single=single,
        related=_related(keys, positive, relations),
    )


def _related(keys: Sequence[LabelKey], positive: Booleans, relations: Taxonomy | None) -> Booleans:
    if relations is None:
        return positive
    sets = relations.sets[[relations.rows[key] for key in keys]].astype(np.float32)
    of_column = positive.T.astype(np.float32) @ sets > 0  # [N, concepts]
    shared: Booleans = positive | (sets @ of_column.T.astype(np.float32) > 0)
    return shared


def _merged(sets: Booleans) -> Booleans:
    """Without the concepts that nobody may mean, and with those that the same labels may mean as one: bool [L, N]."""
    first: dict[bytes, int] = {}
    for number in np.flatnonzero(sets.any(axis=0)).tolist():
        first.setdefault(np.packbits(sets[:, number]).tobytes(), number)
    order = sorted(first.values(), key=lambda number: (int(sets[:, number].argmax()), number))
    merged: Booleans = sets[:, order]
    return merged


def column_vectors(
    texts: Sequence[str], vectors: npt.NDArray[np.float32], positive: Booleans
) -> npt.NDArray[np.float32]:
    """The vectors of columns that are concepts.

    Args:
        texts: of the L labels.
        vectors: float32 ``[L, C]``, of the L labels.
        positive: bool ``[L, N]``, the columns that each label may stand for.

    Returns:
        float32 ``[N, C]``: the normalised mean of the distinct texts of the labels that stand for the column alone, or,
        where there is none, of the labels that may stand for it.
    """
    return np.stack([_vector(texts, vectors, positive, number) for number in range(positive.shape[1])])


def _vector(
    texts: Sequence[str], vectors: npt.NDArray[np.float32], positive: Booleans, column: int
) -> npt.NDArray[np.float32]:
    """A concept's vector: the mean of the distinct texts of its own labels."""
    may = np.flatnonzero(positive[:, column])
    alone = [row for row in may.tolist() if positive[row].sum() == 1]
    firsts = list({texts[row]: row for row in reversed(alone or may.tolist())}.values())
    if len(firsts) == 1:
        own: npt.NDArray[np.float32] = vectors[firsts[0]]
        return own
    mean = vectors[sorted(firsts)].astype(np.float64).mean(axis=0)
    unit: npt.NDArray[np.float32] = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit


def _names(labels: Sequence[str], positive: Booleans) -> tuple[str, ...]:
    """A readable name for each column, no two alike: of its own labels, or of what it is the rest of."""
    found: dict[str, None] = {}
    for column in range(positive.shape[1]):
        may = np.flatnonzero(positive[:, column]).tolist()
        alone = [row for row in may if positive[row].sum() == 1]
        name = _commonest(prompt_name(labels[row]) for row in alone or may)
        name = name if alone else f"other {name}"
        number, free = 2, name
        while free in found:
            number, free = number + 1, f"{name} {number}"
        found[free] = None
    return tuple(found)


def _commonest(words: Iterable[str]) -> str:
    every = list(words)
    return max(dict.fromkeys(every), key=every.count)
