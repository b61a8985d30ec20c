"""The classes that a batch's images were not annotated for: neither right nor wrong in any method.

A dataset's recipe, or an image's own list, says which classes were annotated wherever they occur
(docs/recipes.md#what-an-image-was-annotated-for). A pixel with another label may still
belong to a class that was not annotated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from labelmerge.device import at_once
from labelmerge.loading.batch import Batch
from labelmerge.methods.method import TrainingData


class Unannotated:
    """Which of a run's L labels, and which of its N columns, do not compete in each image.

    It is truthy if some dataset, or image, was not annotated for all of its classes.
    """

    def __init__(self, data: TrainingData) -> None:
        columns = data.columns
        self._columns, self._device = columns, data.device
        self._place = {source.dataset: place for place, source in enumerate(data.sources)}
        indices = np.array([index for _, index in columns.labels])
        self._rows = [np.flatnonzero(columns.dataset_of == place) for place in range(len(data.sources))]
        self._indices = [indices[rows] for rows in self._rows]
        self._listed = [
            None if source.own_lists or source.annotated is None else source.space.indices_of(source.annotated)
            for source in data.sources
        ]

    def __bool__(self) -> bool:
        return bool(self._columns.classes) or any(listed is not None for listed in self._listed)

    def labels(self, batch: Batch) -> Tensor | None:
        """bool ``[B, L]``, the labels of an image's own dataset that it was not annotated for, or None."""
        found = np.zeros((len(batch), len(self._columns.labels)), dtype=np.bool_)
        for row, place, listed in self._lists(batch):
            found[row, self._rows[place]] = ~np.isin(self._indices[place], listed)
        return at_once(torch.from_numpy(found), self._device) if found.any() else None

    def columns(self, batch: Batch) -> Tensor | None:
        """bool ``[B, N]``, the columns of classes that an image was not annotated for (`Columns.unannotated`), whoever
        else's label they are, too; None: there are none."""
        found = np.zeros((len(batch), len(self._columns)), dtype=np.bool_)
        for row, place, listed in self._lists(batch):
            classes = self._columns.classes.get(batch.datasets[row])
            found[row] = self._columns.unannotated[place] if classes is None else classes.unannotated(set(listed))
        return at_once(torch.from_numpy(found), self._device) if found.any() else None

    def _lists(self, batch: Batch) -> Iterator[tuple[int, int, list[int]]]:
        """Of each image that has a list, its row, its dataset's place, and the indices of the classes listed."""
        for row, dataset in enumerate(batch.datasets):
            place = self._place[dataset]
            own = batch.annotated[row] if batch.annotated else None
            listed = self._listed[place] if own is None else own
            if listed is not None:
                yield row, place, [int(index) for index in listed]
