"""What the labels of the measured sets mean to each other: within one set, and as one list of several sets' labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from labelmerge.bank.bank import ONE_HOT, WORD_TEMPLATE, Bank
from labelmerge.errors import UsageError
from labelmerge.labels import LabelKey, LabelSpace
from labelmerge.merge.concepts import Booleans
from labelmerge.merge.merges import by_concepts
from labelmerge.merge.taxonomy import Taxonomy, read_taxonomy
from labelmerge.methods.predictor import LabelList
from labelmerge.tasks.ambiguity import Verdicts


def meanings(spaces: Sequence[LabelSpace], bank: Bank, file: Path | None) -> Taxonomy:
    """What the labels of these sets mean: how a measurement judges them, whatever the run was trained with.

    Args:
        spaces: of the sets.
        bank: has their names and texts.
        file: a taxonomy of their labels; None: by concepts (`labelmerge.merge.merges.by_concepts`).

    Raises:
        TaxonomyError: the table can't be used.
        BankError: the bank lacks labels.
    """
    if file is None:
        some = bank.for_datasets(sorted({space.name for space in spaces}))
        if some.encoder.startswith(ONE_HOT):  # its texts and vectors say which class a label is, and not what it means
            some = replace(some, prompt=WORD_TEMPLATE, texts=some.names, version="")
        return by_concepts(some)
    names = {key: name for space in spaces for key, name in zip(space.keys, space.names, strict=True)}
    return read_taxonomy(file, names, others=True)


def sets_of_space(space: LabelSpace, taxonomy: Taxonomy) -> Booleans:
    """bool ``[K, C]``: the concepts of each class; none where the taxonomy does not have it."""
    sets = np.zeros((len(space), len(taxonomy.concepts)), dtype=np.bool_)
    for k, key in enumerate(space.keys):
        if key in taxonomy:
            sets[k] = taxonomy.sets[taxonomy.rows[key]]
    return sets


def own_verdicts(space: LabelSpace, taxonomy: Taxonomy) -> Verdicts | None:
    """What a set's labels are to each other; None where they are not related."""
    sets = sets_of_space(space, taxonomy)
    verdicts = Verdicts.of(sets, sets, np.eye(len(space), dtype=np.bool_))
    return None if verdicts.plain else verdicts


@dataclass(frozen=True, eq=False)
class MixedList:
    """One list of M labels for several sets.

    Attributes:
        names: of the labels, no two alike.
        members: the datasets' labels that each of them is.
        sets: bool ``[M, C]``, its concepts.
    """

    names: tuple[str, ...]
    members: tuple[tuple[LabelKey, ...], ...]
    sets: Booleans

    @classmethod
    def of(cls, spaces: Sequence[LabelSpace], taxonomy: Taxonomy) -> MixedList:
        """All labels of these sets, those with equal concepts once; narrow ones first.

        Where two labels can't be told apart, the first is predicted, and the narrow one says more.

        Raises:
            UsageError: the taxonomy has no label of one of the sets.
        """
        if len(spaces) < 2:
            raise UsageError("one label list from several sets needs labels of two datasets at least")
        for space in spaces:
            if not any(key in taxonomy for key in space.keys):
                raise UsageError(
                    f"the taxonomy has no label of {space.name}", fix="Add its rows, or leave --taxonomy out"
                )
        one: dict[bytes, list[tuple[LabelKey, str]]] = {}
        sets: dict[bytes, Booleans] = {}
        for space in spaces:
            for key, name, own in zip(space.keys, space.names, sets_of_space(space, taxonomy), strict=True):
                same = own.tobytes() if own.any() else repr(key).encode()
                one.setdefault(same, []).append((key, name))
                sets[same] = own
        order = sorted(one, key=lambda same: int(sets[same].sum()))
        count = Counter(one[same][0][1] for same in order)
        names = []
        for same in order:
            (dataset, index), name = one[same][0]
            unique = name if count[name] == 1 else f"{name} ({dataset})"
            names.append(unique if unique not in names else f"{name} ({dataset} {index})")
        members = tuple(tuple(key for key, _ in one[same]) for same in order)
        return cls(tuple(names), members, np.stack([sets[same] for same in order]))

    def __len__(self) -> int:
        return len(self.names)

    def labels(self, bank: Bank) -> LabelList:
        """The list, each label asked for by the distinct vectors of its members' texts."""
        several, texts = [], []
        for own in self.members:
            rows = bank.positions(own)
            first = {bank.texts[row]: row for row in reversed(rows.tolist())}
            several.append(bank.vectors[sorted(first.values())])
            texts.append("\n".join(sorted(first)))
        return LabelList(
            names=self.names,
            texts=tuple(texts),
            keys=tuple(own[0] for own in self.members),
            vectors=np.stack([own[0] for own in several]),
            several=tuple(several),
        )

    def verdicts(self, space: LabelSpace, taxonomy: Taxonomy) -> Verdicts:
        """What predicting each label of the list is worth on a set."""
        place = {key: number for number, own in enumerate(self.members) for key in own}
        same = np.zeros((len(space), len(self)), dtype=np.bool_)
        same[np.arange(len(space)), [place[key] for key in space.keys]] = True
        return Verdicts.of(sets_of_space(space, taxonomy), self.sets, same)
