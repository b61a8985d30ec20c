"""The labels that occur → the columns of the softmax. The only place where labels become columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, ShardError
from labelmerge.labels import IGNORE, LabelKey, LabelSpace
from labelmerge.merge.concepts import Booleans
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.names import prompt_name
from labelmerge.text import counted, some

Labels = Literal["seen", "all"]


@dataclass(frozen=True, eq=False)
class ClassColumns:
    """The columns of the K classes of a dataset.

    Attributes:
        indices: of the classes.
        may: bool ``[K, N]``, the columns that each class may stand for, whether it is in play or not.
        alone: bool ``[K, N]``, the column that it stands for alone, if it is in play.
    """

    indices: tuple[int, ...]
    may: Booleans
    alone: Booleans

    def unannotated(self, annotated: Container[int]) -> Booleans:
        """bool ``[N]``: the columns of classes that were not annotated, where these were: a pixel with one of their
        labels may be one of the others all the same."""
        listed = np.array([index in annotated for index in self.indices], dtype=np.bool_)
        rest, taken = np.any(self.may[~listed], axis=0), np.any(self.alone[listed], axis=0)
        found: Booleans = np.asarray(rest & ~taken)
        return found


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
        dataset_of: int64 ``[L]``, whose label each is: a row of `allowed`.
        unannotated: bool ``[D, N]``, the columns of classes that a dataset has, but was not annotated for: a pixel with
            another of its labels may be one of these all the same.
        by_label: whether `tables` give rows of `positive`.
        classes: of the datasets whose images were annotated for different classes.
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
    dataset_of: npt.NDArray[np.int64]
    unannotated: Booleans
    by_label: bool
    classes: Mapping[str, ClassColumns]

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
    datasets: Sequence[str] | None = None,
    annotated: Sequence[Container[str] | None] | None = None,
    own_lists: Container[str] = (),
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
        datasets: the D names in `Columns.tables`, where several datasets have one space; None: the spaces' names.
        annotated: for each dataset the names of the classes that it was annotated for; None: all of them.
        own_lists: the datasets of which each image says so for itself.

    Raises:
        BankError: the bank lacks labels, or calls them otherwise than the spaces do.
        ShardError: no label occurs at all.
    """
    datasets = [space.name for space in spaces] if datasets is None else datasets
    annotated = [None] * len(spaces) if annotated is None else annotated
    for space in spaces:
        bank.refuse_other_names(space)
    owned = [
        (place, key) for place, space in enumerate(spaces) for key in space.keys if counts is None or counts.get(key, 0)
    ]
    if not owned:
        raise ShardError(
            "nothing is labelled in these shards", where=", ".join(datasets), fix="Add shards of images with labels"
        )
    keys = [key for _, key in owned]
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

        def columns_of(key: LabelKey) -> list[int]:
            text = bank.texts[int(bank.positions([key])[0])] if key in bank else None
            return [column[text]] if text in column else []
    else:
        order, column_of = _merged(taxonomy.sets[[taxonomy.rows[key] for key in keys]])
        positive = taxonomy.sets[[taxonomy.rows[key] for key in keys]][:, order]
        own_texts = [bank.texts[place] for place in places]
        vectors = column_vectors(own_texts, label_vectors, positive)
        names = _names([bank.names[place] for place in places], positive)

        def columns_of(key: LabelKey) -> list[int]:
            concepts = np.flatnonzero(taxonomy.sets[taxonomy.rows[key]]) if key in taxonomy else ()
            return sorted({int(column_of[concept]) for concept in concepts} - {-1})

    single = bool((positive.sum(axis=1) == 1).all())
    alone = positive & (positive.sum(axis=1, keepdims=True) == 1)
    dataset_of = np.array([place for place, _ in owned], dtype=np.int64)
    unannotated = np.zeros((len(spaces), positive.shape[1]), dtype=np.bool_)
    classes = {}
    for place, (dataset, space, listed) in enumerate(zip(datasets, spaces, annotated, strict=True)):
        if dataset in own_lists or listed is not None:
            may, single_ones = np.zeros((2, len(space), positive.shape[1]), dtype=np.bool_)
            for number, key in enumerate(space.keys):
                may[number, columns_of(key)] = True
            number_of = {key: number for number, key in enumerate(space.keys)}
            in_play = [row for row, (at, _) in enumerate(owned) if at == place]
            single_ones[[number_of[keys[row]] for row in in_play]] = alone[in_play]
            classes[dataset] = ClassColumns(space.indices, may, single_ones)
        if listed is not None:
            unannotated[place] = classes[dataset].unannotated(space.indices_of(listed))
    classes = {dataset: of_set for dataset, of_set in classes.items() if dataset in own_lists}
    by_label = rows or not single or bool(unannotated.any()) or bool(classes)
    targets = np.arange(len(keys)) if by_label else positive.argmax(axis=1)
    tables, allowed = {}, np.zeros((len(spaces), positive.shape[1]), dtype=np.bool_)
    for place, (name, space) in enumerate(zip(datasets, spaces, strict=True)):
        own = np.flatnonzero(dataset_of == place)
        tables[name] = space.lookup({keys[row][1]: int(targets[row]) for row in own.tolist()}, IGNORE)
        allowed[place] = positive[own].any(axis=0)
    return Columns(
        texts=names,
        vectors=vectors,
        keys=tuple(
            tuple(dict.fromkeys(keys[row] for row in np.flatnonzero(alone[:, column]))) for column in range(len(names))
        ),
        tables=tables,
        allowed=allowed,
        labels=tuple(keys),
        positive=positive,
        label_vectors=label_vectors,
        single=single,
        related=_related(keys, positive, relations),
        dataset_of=dataset_of,
        unannotated=unannotated,
        by_label=by_label,
        classes=classes,
    )


def concept_vectors(bank: Bank, taxonomy: Taxonomy, concepts: Sequence[int]) -> npt.NDArray[np.float32]:
    """What some concepts mean, as the columns of `build_columns` do: by the labels of theirs that the bank has.

    Args:
        concepts: n places in `Taxonomy.concepts`.

    Returns:
        float32 ``[n, C]``, unit vectors.

    Raises:
        BankError: the bank has no label of a concept.
    """
    rows = [row for row, entry in enumerate(taxonomy.entries) if entry.key in bank]
    places = bank.positions(taxonomy.entries[row].key for row in rows)
    sets, texts = taxonomy.sets[rows], [bank.texts[place] for place in places]
    if unknown := [taxonomy.concepts[concept] for concept in concepts if not sets[:, concept].any()]:
        lacking = sorted({entry.key[0] for entry in taxonomy.entries} - set(bank.datasets()))
        raise BankError(
            f"the bank ({bank.version}) has no label of {counted(len(unknown), 'concept')}: {some(unknown)}",
            where=bank.folder,
            fix=f"Use a model that was trained with a bank of all the datasets: {some(lacking)} "
            + ("is" if len(lacking) == 1 else "are")
            + " not in this one",
        )
    vectors = bank.vectors[places]
    return np.stack([_vector(texts, vectors, sets, concept) for concept in concepts])


def _related(keys: Sequence[LabelKey], positive: Booleans, relations: Taxonomy | None) -> Booleans:
    if relations is None:
        return positive
    sets = relations.sets[[relations.rows[key] for key in keys]].astype(np.float32)
    of_column = positive.T.astype(np.float32) @ sets > 0  # [N, concepts]
    shared: Booleans = positive | (sets @ of_column.T.astype(np.float32) > 0)
    return shared


def _merged(sets: Booleans) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Which concepts are columns, those that the same labels may mean being one, and nobody's being none.

    Args:
        sets: ``[L, concepts]``.

    Returns:
        The N concepts that stand for theirs, and the column of every concept, int64 ``[concepts]``, -1 for none.
    """
    first: dict[bytes, int] = {}
    stands_for = np.full(sets.shape[1], -1, dtype=np.int64)
    for number in np.flatnonzero(sets.any(axis=0)).tolist():
        stands_for[number] = first.setdefault(np.packbits(sets[:, number]).tobytes(), number)
    order = sorted(first.values(), key=lambda number: (int(sets[:, number].argmax()), number))
    place = {number: column for column, number in enumerate(order)}
    return order, np.array([place.get(number, -1) for number in stands_for.tolist()], dtype=np.int64)


def column_vectors(
    texts: Sequence[str], vectors: npt.NDArray[np.float32], positive: Booleans
) -> npt.NDArray[np.float32]:
    """The vectors of concept columns.

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
