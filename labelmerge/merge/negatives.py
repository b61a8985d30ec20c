"""Which columns a label competes with in the softmax, and how strongly.

A pixel of one dataset's *building* may well be what another dataset calls *windowpane*: nobody has said that it is not.
But the label's own dataset has said that it is none of its other labels. So a column that only other datasets have need
not count in full. A class that the dataset was not annotated for is no evidence at all, and does not count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmerge.merge.choices import Negatives
from labelmerge.merge.columns import Columns

# Of the cosines of labels that one dataset tells apart: what is as near as the nearest of them may be the same, and
# what is as far as half of them is as surely something else as they are.
_NEAR, _FAR = 0.999, 0.5


def negatives(columns: Columns, how: Negatives, *, strength: float = 1.0) -> npt.NDArray[np.float32]:
    """How strongly each column competes with each label, from 0 (neither right nor wrong) to 1 (as in a plain softmax).

    Args:
        columns: N columns and L labels.
        how: ``all``: every column in full, as in the paper; ``own``: only the columns of the label's own dataset;
            ``unrelated``: all but those of `Columns.related`; ``graded``: the columns of its own dataset in full, and
            each other one by how far its meaning is from the label's, times `strength`. In every way, the classes that
            the label's dataset was not annotated for (`Columns.unannotated`) do not compete at all.
        strength: the most that a column of other datasets alone may count, in ``graded`` and ``unrelated``.

    Returns:
        float32 ``[L, N]``; what stands where a label is the column's does not matter.
    """
    own = columns.allowed[columns.dataset_of]
    if how == "all":
        weights = np.ones(own.shape, dtype=np.float32)
    elif how == "own":
        weights = own.astype(np.float32)
    elif how == "unrelated":
        weights = np.where(columns.related, 0.0, np.where(own, 1.0, strength)).astype(np.float32)
    else:
        weights = np.where(own, 1.0, strength * _distance(columns)).astype(np.float32)
    weights[columns.unannotated[columns.dataset_of]] = 0
    return weights


def _distance(columns: Columns) -> npt.NDArray[np.float64]:
    """How far each column's meaning is from each label's: 0 as near as the same, 1 as far as things that differ."""
    cosines = (columns.label_vectors @ columns.vectors.T).astype(np.float64)
    dataset = columns.dataset_of
    between = (columns.label_vectors @ columns.label_vectors.T).astype(np.float64)
    apart = between[np.triu(dataset[:, None] == dataset[None], 1)]
    if not apart.size:
        return np.ones(cosines.shape)
    near, far = np.quantile(apart, [_NEAR, _FAR])
    distance: npt.NDArray[np.float64] = np.clip((near - cosines) / max(near - far, 1e-6), 0, 1)
    return distance
