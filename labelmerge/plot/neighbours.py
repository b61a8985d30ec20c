"""The nearest labels in other datasets."""

from __future__ import annotations

import numpy as np

from labelmerge.embed.bank import Bank
from labelmerge.embed.similarity import cosine_matrix


def nearest_elsewhere(bank: Bank) -> list[tuple[int | None, float | None]]:
    """For every label, the row of the nearest label of another dataset and their cosine; None where there is none.

    Among equals the first in the bank's order.
    """
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    cosines = np.where(dataset[:, None] == dataset[None], -np.inf, cosine_matrix(bank))
    nearest = cosines.argmax(axis=1)
    best = cosines[np.arange(len(bank)), nearest]
    return [
        (int(row), float(cosine)) if np.isfinite(cosine) else (None, None)
        for row, cosine in zip(nearest, best, strict=True)
    ]
