"""What a run's columns are, and which of them a label stands for in evaluation and prediction.

A run that merges by a taxonomy has a column for each concept that its training labels tell apart. A label of any
dataset may stand for several of them (*person* of a dataset without riders: *person* and *rider*), and its score is the
largest over their vectors.

Training draws pixels to the columns, so a label that no column stands for is at a disadvantage: however well its own
vector describes what is seen, a column fits better. Its cosine is therefore divided by the root of the largest that
the run can give it (`reachable`). That a seen class has such an advantage over an unseen one, and that it has to be
taken off, is the finding of Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning" (ECCV
2016); they subtract a constant that is found on held-out classes, where this needs none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey, LabelSpace
from labelmerge.merge.columns import column_vectors
from labelmerge.merge.concepts import Booleans
from labelmerge.merge.merges import by_concepts
from labelmerge.merge.taxonomy import Taxonomy, read_taxonomy
from labelmerge.methods.method import Learner, Vocabulary
from labelmerge.methods.predictor import LabelList
from labelmerge.model.checkpoint import Checkpoint

By = Literal["concepts", "text"]
"""What labels are asked for by."""

_WITH_TAXONOMY = ("concepts", "similar", "table")
"""The merges whose columns are concepts."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RunColumns:
    """The N columns of a run whose columns are concepts, and its L training labels.

    Attributes:
        names: of the columns.
        labels: the training labels.
        positive: bool ``[L, N]``, the columns that each of them may stand for.
        bank: what the run was trained with.
        taxonomy: what the labels of that bank mean; None where the checkpoint doesn't say (it is older).
        curated: whether the run went by the concepts of `by_concepts`, so that those of other labels can be added.
    """

    names: tuple[str, ...]
    labels: tuple[LabelKey, ...]
    positive: Booleans
    bank: Bank
    taxonomy: Taxonomy | None
    curated: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint, vocabulary: Vocabulary) -> RunColumns | None:
        """Those of a checkpoint; None where its columns are texts, or it doesn't say what they stand for.

        Raises:
            BankError, TaxonomyError: what the checkpoint carries is damaged.
        """
        merge = checkpoint.config.get("merge", checkpoint.meta.get("merge"))
        if merge not in _WITH_TAXONOMY or checkpoint.bank_folder is None or not vocabulary.labels:
            return None
        bank = Bank.load(checkpoint.bank_folder)
        place = {dataset: number for number, dataset in enumerate(vocabulary.datasets)}
        labels = sorted(
            {key for own in vocabulary.labels for key in own}, key=lambda key: (place.get(key[0], len(place)), key)
        )
        row = {key: number for number, key in enumerate(labels)}
        positive = np.zeros((len(labels), len(vocabulary.labels)), dtype=np.bool_)
        for column, own in enumerate(vocabulary.labels):
            positive[[row[key] for key in own], column] = True
        taxonomy = None
        if checkpoint.taxonomy_file is not None:
            names = dict(zip(bank.keys, bank.names, strict=True))
            taxonomy = read_taxonomy(checkpoint.taxonomy_file, names, others=True)
        curated = merge == "concepts" and not checkpoint.config.get("taxonomy")
        return cls(vocabulary.texts, tuple(labels), positive, bank, taxonomy, curated)

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """float32 ``[N, C]``, as in training."""
        rows = self.bank.positions(self.labels)
        return column_vectors([self.bank.texts[row] for row in rows], self.bank.vectors[rows], self.positive)

    def divisors(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 ``[n]``: what the cosines with vectors ``[n, C]`` that are no columns are divided by.

        The score is then the geometric mean of the cosine and of its share of what can be reached. The cosine alone
        hardly ever chooses such a label; the share alone chooses it too often, and of many such labels always one.
        """
        return np.sqrt(reachable(self.vectors, vectors))

    @property
    def taught(self) -> npt.NDArray[np.bool_]:
        """bool ``[N]``: whether some training label stands for the column alone; else its vector is of wider labels."""
        found: npt.NDArray[np.bool_] = self.positive[self.positive.sum(axis=1) == 1].any(axis=0)
        return found

    def taxonomy_with(self, keys: Sequence[LabelKey], bank: Bank) -> Taxonomy | None:
        """A taxonomy of the training labels and of these, as far as there is one.

        Args:
            keys: labels of `bank`.
            bank: names and texts of the labels.
        """
        names = [bank.names[row] for row in bank.positions(keys)]
        told = self.taxonomy
        if told is not None and all(
            key in told and told[key].name == name for key, name in zip(keys, names, strict=True)
        ):
            return told
        if not self.curated:
            return told
        # What a label means depends on its dataset's whole list.
        datasets = {key[0] for key in keys}
        trained = sorted({key[0] for key in self.labels} - datasets)
        have = bank.datasets()
        if all(dataset in have for dataset in trained):
            return by_concepts(bank.for_datasets([*trained, *sorted(datasets)]))
        joint = _joined(self.bank.for_datasets(trained), bank.for_datasets(sorted(datasets)))
        return by_concepts(joint)

    def ask(self, labels: LabelList, members: Sequence[Sequence[LabelKey]], bank: Bank) -> LabelList:
        """The same labels, each with the vectors of the columns that it stands for, or else its own, whose cosines are
        divided as `divisors` says (docs/prediction.md).

        Args:
            labels: M labels with their own vectors.
            members: for each of them the datasets' labels that it is; () for one that is no dataset's.
            bank: names and texts of these.
        """
        keys = sorted({key for own in members for key in own})
        own_vectors = labels.several if labels.several is not None else tuple(labels.vectors[:, None])
        taxonomy = self.taxonomy_with(keys, bank) if keys else None
        if taxonomy is None:
            return replace(labels, several=own_vectors, divisors=tuple(self.divisors(own) for own in own_vectors))
        sets = np.zeros((len(members), len(taxonomy.concepts)), dtype=np.bool_)
        for place, own in enumerate(members):
            called = ((key, bank.names[row]) for key, row in zip(own, bank.positions(own), strict=True))
            rows = [row for key, name in called if (row := taxonomy.row_of(key, name)) is not None]
            sets[place] = taxonomy.sets[rows].any(axis=0)
        column_of = self._column_of(taxonomy)
        if lost := len(self.names) - len(set(column_of[column_of >= 0].tolist())):
            _log.warning(
                "%d of the run's %d columns are no concept of the labels asked for here: labels that would have stood "
                "for them are asked for by their texts",
                lost, len(self.names),
            )  # fmt: skip
        columns, alone = share_columns(sets, column_of, self.taught)
        several, divisors = [], []
        for place, own_vector in enumerate(own_vectors):
            known = self.vectors[columns[place]]
            texts = own_vector if alone[place] else own_vector[:0]
            several.append(np.concatenate([known, texts]))
            divisors.append(np.concatenate([np.ones(len(known), np.float32), self.divisors(texts)]))
        named = tuple(tuple(self.names[n] for n in np.flatnonzero(row)) for row in columns)
        return replace(labels, several=tuple(several), divisors=tuple(divisors), columns=named)

    def _column_of(self, taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
        """int64 ``[concepts]``: the column that exactly the same training labels may mean, or -1.

        Where some training labels are not in the taxonomy, columns that only they distinguish belong to no concept.
        """
        names = [self.bank.names[row] for row in self.bank.positions(self.labels)]
        places = [taxonomy.row_of(key, name) for key, name in zip(self.labels, names, strict=True)]
        known = [row for row, place in enumerate(places) if place is not None]
        told = taxonomy.sets[[place for place in places if place is not None]]
        column: dict[bytes, int] = {}
        for n in range(self.positive.shape[1]):
            own = self.positive[known, n].tobytes()
            column[own] = -1 if own in column else n
        return np.array(
            [column.get(told[:, c].tobytes(), -1) if told[:, c].any() else -1 for c in range(told.shape[1])],
            dtype=np.int64,
        )


def labels_of(space: LabelSpace, bank: Bank, columns: RunColumns | None) -> LabelList:
    """All classes of a label space, as a run is asked for them: by its columns, or by their texts where it has none.

    Raises:
        BankError: the bank lacks some of them.
    """
    labels = LabelList.of(space, bank)
    return labels if columns is None else columns.ask(labels, [(key,) for key in space.keys], bank)


def reachable(columns: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest cosine that any mixture of columns (a sum with weights of at least 0) has with each vector.

    The mixture is the vector's projection on the cone of the columns, found by non-negative least squares (Lawson and
    Hanson, 1974), and the cosine its length over the vector's.

    Args:
        columns: ``[N, C]``.
        vectors: ``[n, C]``.

    Returns:
        float32 ``[n]`` within (0, 1]; 1 for a vector that no column has a positive cosine with.
    """
    found = np.ones(len(vectors), dtype=np.float32)
    if not len(vectors):
        return found  # scipy.optimize, too, takes its time
    from scipy.optimize import nnls

    basis = columns.astype(np.float64).T
    for place, vector in enumerate(vectors.astype(np.float64)):
        weights, _ = nnls(basis, vector)
        if (nearest := float(np.linalg.norm(basis @ weights))) > 0:
            found[place] = min(1.0, nearest / float(np.linalg.norm(vector)))
    return found


def share_columns(
    sets: Booleans, column_of: npt.NDArray[np.int64], taught: npt.NDArray[np.bool_]
) -> tuple[Booleans, npt.NDArray[np.bool_]]:
    """Which columns each label of a list is asked for by, and which labels by vectors of their own.

    A column that lies within labels of the list belongs to the narrowest of them: what *rider* and *person* both hold
    is *rider*. A column that no label holds whole belongs to the one that holds a part of it. Labels have their own
    vectors in place of two kinds of columns: those that several labels would get by these rules, because they do not
    tell them apart, and those that are left over from wider labels, because they have those labels' vector. A label
    that holds no part of any column also has its own vector.

    Args:
        sets: bool ``[M, C]``, the concepts that each label of the list may stand for.
        column_of: int64 ``[C]``, each concept's column, or -1.
        taught: bool ``[N]``, whether some training label stands for the column alone.

    Returns:
        bool ``[M, N]``, and bool ``[M]``.
    """
    of = np.zeros((len(column_of), len(taught)), dtype=np.float32)
    known = np.flatnonzero(column_of >= 0)
    of[known, column_of[known]] = 1
    held = sets.astype(np.float32) @ of  # [M, N]: how many of a column's concepts
    part, whole = held > 0, (held > 0) & (held == of.sum(axis=0))
    sizes = sets.sum(axis=1)
    shared = sets.astype(np.float32) @ sets.T.astype(np.float32)
    within = (shared == sizes[:, None]) & (sizes[:, None] < sizes[None]) & (sizes[:, None] > 0)  # [inner, outer]
    narrower = within.T.astype(np.float32) @ whole.astype(np.float32) > 0  # [M, N]: a narrower one holds it whole
    claims = np.where(whole.any(axis=0), whole & ~narrower, part)
    good = taught & (claims.sum(axis=0) <= 1)
    alone = (claims & ~good).any(axis=1) | ~part.any(axis=1)
    return claims & good, alone


def run_columns(checkpoint: Checkpoint, learner: Learner, by: By | None = None) -> RunColumns | None:
    """By what labels are asked for: the run's columns, or None for the labels' own texts.

    Args:
        by: ``concepts``, ``text``, or None for concepts where the run has them and its method knows columns.

    Raises:
        UsageError: concepts were asked for, and the run's columns are none.
    """
    found = RunColumns.of(checkpoint, learner.vocabulary) if by != "text" and not learner.by_text else None
    if by == "concepts" and found is None:
        raise UsageError(
            "this run's method asks for labels by their texts" if learner.by_text else "its columns are no concepts",
            where=checkpoint.folder,
            fix="Use --by text" if learner.by_text else "Use --by text, or train with --merge concepts",
        )
    return found


def _joined(first: Bank, second: Bank) -> Bank:
    """The rows of two banks of one encoder, which share no label, for their names and texts."""
    rows = sorted(
        (key, bank, row) for bank, source in enumerate((first, second)) for row, key in enumerate(source.keys)
    )
    sources = (first, second)
    return replace(
        second,
        keys=[key for key, _, _ in rows],
        names=[sources[bank].names[row] for _, bank, row in rows],
        texts=[sources[bank].texts[row] for _, bank, row in rows],
        vectors=np.stack([sources[bank].vectors[row] for _, bank, row in rows]),
        tokens=[sources[bank].tokens[row] for _, bank, row in rows],
        truncated=[sources[bank].truncated[row] for _, bank, row in rows],
        parts=None,
        kept={**first.kept, **second.kept},
        version="",
        folder=None,
    )
