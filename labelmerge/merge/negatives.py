"""Which columns a label competes with in the softmax, and how strongly.

A pixel of one dataset's *building* may well be what another dataset calls *windowpane*: nobody has said that it is not.
The label's own dataset has said that it is none of its other labels. The burden of proof lies on the negative, so a
column of other datasets alone need not count in full.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from labelmerge.merge.columns import Columns

Negatives = Literal["all", "own", "unrelated", "graded"]
NEGATIVES: tuple[str, ...] = get_args(Negatives)

# Of the cosines of labels that one dataset tells apart: what is as near as the nearest of them may be the same, and
# what is as far as half of them is as surely something else as they are.
_NEAR, _FAR = 0.999, 0.5


def negatives(
    columns: Columns, how: Negatives, *, strength: float = 1.0, related: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """How strongly each column competes with each label, from 0 (neither right nor wrong) to 1 (as in a plain softmax).

    Args:
        columns: N columns and L labels.
        how: ``all``: every column in full, as in the paper; ``own``: the columns of the label's own dataset alone;
            ``unrelated``: all but those in `related`; ``graded``: the columns of its own dataset in full, and each
            other by how far its meaning is from the label's, times `strength`.
        strength: the most that a column of other datasets alone may count, in ``graded`` and ``unrelated``.
        related: bool ``[L, N]``, the columns that may be the label's, a part or a whole of it; for ``unrelated``.

    Returns:
        float32 ``[L, N]``; what stands where a label is the column's does not matter.
    """
    place = {name: number for number, name in enumerate(columns.tables)}
    own = columns.allowed[[place[dataset] for dataset, _ in columns.labels]]
    if how == "all":
        return np.ones(own.shape, dtype=np.float32)
    if how == "own":
        return own.astype(np.float32)
    if how == "unrelated":
        foreign = np.ones(own.shape) if related is None else ~related
    else:
        foreign = _distance(columns)
    return np.where(own, 1.0, strength * foreign).astype(np.float32)


def _distance(columns: Columns) -> npt.NDArray[np.float64]:
    """How far each column's meaning is from each label's: 0 as near as the same, 1 as far as things that differ."""
    cosines = (columns.label_vectors @ columns.vectors.T).astype(np.float64)
    dataset = np.unique([name for name, _ in columns.labels], return_inverse=True)[1]
    between = (columns.label_vectors @ columns.label_vectors.T).astype(np.float64)
    apart = between[np.triu(dataset[:, None] == dataset[None], 1)]
    if not apart.size:
        return np.ones(cosines.shape)
    near, far = np.quantile(apart, [_NEAR, _FAR])
    distance: npt.NDArray[np.float64] = np.clip((near - cosines) / max(near - far, 1e-6), 0, 1)
    return distance
