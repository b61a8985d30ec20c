"""The labels in play → the columns of the softmax: one for each distinct text, that is, for each merged label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError
from labelmerge.labels import LabelKey
from labelmerge.loading.mixture import IGNORE, Source

Labels = Literal["seen", "all"]


@dataclass(frozen=True, eq=False)
class Columns:
    """The N merged labels of a run.

    Attributes:
        texts: what each column means.
        vectors: float32 ``[N, C]``, unit vectors.
        keys: the labels that each column stands for.
        tables: for each dataset, the column of a mask value: int64 ``[ignore_index + 1]``, `IGNORE` for no label.
        allowed: bool ``[D, N]``, the columns of each dataset's own labels; datasets in the order of `tables`.
    """

    texts: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    keys: tuple[tuple[LabelKey, ...], ...]
    tables: dict[str, npt.NDArray[np.int64]]
    allowed: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)


def build_columns(bank: Bank, sources: Sequence[Source], labels: Labels = "seen") -> Columns:
    """The columns for these training datasets.

    Args:
        bank: must hold a row for every label in play.
        sources: the training datasets.
        labels: ``seen`` takes the labels that occur in the shards (their manifests' counts), so that a label which
            nothing teaches is not only ever pushed away from; ``all`` takes every label of the datasets.

    Raises:
        BankError: the bank lacks labels.
        ShardError: no label occurs at all.
    """
    in_play = {source.dataset: _indices(source, labels) for source in sources}
    keys = [(dataset, index) for dataset, indices in in_play.items() for index in indices]
    if not keys:
        raise ShardError("nothing is labelled in these shards", where=", ".join(in_play))
    rows = bank.positions(keys)
    column_of: dict[str, int] = {}
    members: list[list[LabelKey]] = []
    first_rows: list[int] = []
    for key, row in zip(keys, rows.tolist(), strict=True):
        text = bank.texts[row]
        if text not in column_of:
            column_of[text] = len(members)
            members.append([])
            first_rows.append(row)
        members[column_of[text]].append(key)
    column_of_key = {key: column for column, own in enumerate(members) for key in own}
    tables = {
        source.dataset: source.space.lookup(
            {index: column_of_key[source.dataset, index] for index in in_play[source.dataset]}, IGNORE
        )
        for source in sources
    }
    allowed = np.zeros((len(sources), len(members)), dtype=np.bool_)
    for place, table in enumerate(tables.values()):
        allowed[place, table[table != IGNORE]] = True
    return Columns(
        texts=tuple(column_of),
        vectors=bank.vectors[first_rows],
        keys=tuple(map(tuple, members)),
        tables=tables,
        allowed=allowed,
    )


def _indices(source: Source, labels: Labels) -> list[int]:
    if labels == "all":
        return list(source.space.indices)
    counts = [count for shard_set in source.sets for count in (shard_set.class_pixels, shard_set.class_boxes)]
    return [index for index in source.space.indices if any(count.get(index, 0) for count in counts)]
