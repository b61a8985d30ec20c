"""The losses of SSIW (Yin et al., IJCV 2024, eq. 1–7), each on the samples whose annotations it is for.

They are given as sums over pixels or boxes, and how many of those there are, for each loss and dataset: a batch that is
spread over processes, or over pieces of one process, then has the same mean as a batch in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from labelmerge.device import at_once
from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.losses import LabelTable, box_embedding_loss, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.merge.choices import Negatives
from labelmerge.merge.columns import ClassColumns, Columns
from labelmerge.merge.negatives import negatives
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import Teacher

TERMS = {"hd": "mask", "ld": "noisy_mask", "wd": "box"}
"""The losses, and the kind of samples that each is for."""

_KINDS = tuple(TERMS.values())


class _More(TypedDict):
    """What the pixel losses are told besides: which columns there are, and which compete."""

    allowed: Tensor | None
    table: LabelTable | None
    competing: Tensor | None


@dataclass(frozen=True, eq=False)
class Labels:
    """The columns of a run as the losses read them, on the device.

    Attributes:
        vectors: float32 ``[N, C]``, of the columns.
        own: bool ``[D, N]``, the columns of each dataset's own labels.
        by_target: float32 ``[T, C]``, the vector of each value of a mask.
        table: what each value of a mask may stand for; None where it is one column, the one of this number.
        classes: of the datasets whose images were annotated for different classes.
    """

    vectors: Tensor
    own: Tensor
    by_target: Tensor
    table: LabelTable | None = None
    classes: Mapping[str, ClassColumns] = field(default_factory=dict)

    @classmethod
    def of(cls, columns: Columns, settings: SsiwSettings, device: torch.device) -> Labels:
        """The columns on a device, and what competes with each label."""
        vectors, own = (torch.from_numpy(each).to(device) for each in (columns.vectors, columns.allowed))
        how = cast(Negatives, settings.negatives)
        if not columns.by_label:
            return cls(vectors, own, vectors)
        weights = torch.from_numpy(negatives(columns, how, strength=settings.foreign_weight))
        table = LabelTable(torch.from_numpy(columns.positive), weights).to(device)
        return cls(vectors, own, torch.from_numpy(columns.label_vectors).to(device), table, columns.classes)

    def competing(self, batch: Batch) -> Tensor | None:
        """bool ``[B, N]``: the columns that compete in each image; None where all do in all that there can be."""
        if not self.classes:
            return None
        columns = np.ones((len(batch), len(self.vectors)), dtype=np.bool_)
        for row, (dataset, listed) in enumerate(zip(batch.datasets, batch.annotated, strict=True)):
            if listed is not None:
                columns[row] = ~self.classes[dataset].unannotated(set(listed.tolist()))
        return at_once(torch.from_numpy(columns), self.vectors.device)


def ssiw_units(batch: Batch, datasets: int, settings: SsiwSettings) -> Tensor:
    """How many pixels or boxes of each dataset the sums of `ssiw_sums` have.

    Args:
        batch: any part of a batch.
        datasets: D.

    Returns:
        int64 ``[T, D]``, T as ``settings.losses``, on the device of the batch.
    """
    labelled, kept = _pixels(batch.masks, settings)  # [B]
    row_of = {TERMS[name]: row for row, name in enumerate(settings.losses)}
    facts = [
        (_KINDS.index(kind), row_of[kind], len(boxes)) if kind in row_of else (len(_KINDS), 0, 0)
        for kind, boxes in zip(batch.annotation_types, batch.boxes, strict=True)
    ]
    kinds, rows, boxes = at_once(torch.tensor(facts), labelled.device).unbind(1)  # [B]
    nothing = torch.zeros_like(labelled)  # for samples that no loss is for
    own = torch.stack([labelled, kept, boxes, nothing]).gather(0, kinds[None]).squeeze(0)  # [B]
    units = labelled.new_zeros(len(settings.losses) * datasets)
    return units.index_add_(0, rows * datasets + batch.dataset_ids, own).view(-1, datasets)


def ssiw_sums(
    batch: Batch,
    embeddings: Tensor,
    labels: Labels,
    tau: Tensor,
    teacher: Teacher,
    settings: SsiwSettings,
) -> Tensor:
    """The weighted losses of a batch, each summed over each dataset's pixels or boxes.

    Args:
        batch: masks and box classes hold what `labels` says, on the device of `embeddings`. The masks are as large as
            what `embeddings` span (`SegmentationModel.over_whole_cells`).
        embeddings: the model's output [B, C, h, w].
        tau: the temperature, a scalar.
        teacher: gives the boxes' vectors.

    Returns:
        float ``[T, D]``; 0 for a dataset that the batch has no pixel or box of.
    """
    sums = {name: labels.vectors.new_zeros(len(labels.own)) for name in settings.losses}
    groups = _groups(batch, settings)
    rows = [rows for _, rows in groups]
    maps, masks, ids = (_take(rows, each) for each in (embeddings, batch.masks, batch.dataset_ids))
    teachers: list[Tensor] = []  # asked when there are boxes
    # The columns of the sample's dataset alone, where the table does not say so.
    whole = settings.negatives != "own" or labels.table is not None
    own_labels = [None] * len(groups) if whole else _take(rows, labels.own[batch.dataset_ids])  # each bool [B', N]
    compete = labels.competing(batch)
    competing = [None] * len(groups) if compete is None else _take(rows, compete)
    for (name, some), v, mask, own_ids, own, open_to in zip(
        groups, maps, masks, ids, own_labels, competing, strict=True
    ):
        more: _More = {"allowed": own, "table": labels.table, "competing": open_to}
        if name == "hd":
            losses = pixel_cosine_loss(v, labels.vectors, mask, tau, IGNORE, reduction="none", **more)  # [B', H, W]
            sums[name] = sums[name].index_add(0, own_ids, settings.hd_weight * losses.flatten(1).sum(1))
        elif name == "ld":
            mean = trimmed_pixel_cosine_loss(v, labels.vectors, mask, tau, IGNORE, drop=settings.drop, **more)
            weighted = settings.ld_weight * mean[None] * _pixels(mask, settings)[1].sum()
            sums[name] = sums[name].index_add(0, own_ids[:1], weighted)
        elif count := sum(len(batch.boxes[i]) for i in some):  # not crowds alone, or views between the boxes
            teachers = teachers or teacher(batch, labels.by_target)
            boxes, wanted = [batch.boxes[i] for i in some], [teachers[i] for i in some]
            mean = box_embedding_loss(v, boxes, wanted, (batch.masks.shape[1], batch.masks.shape[2]))
            sums[name] = sums[name].index_add(0, own_ids[:1], settings.wd_weight * mean[None] * count)
    return torch.stack(list(sums.values()))


def _pixels(masks: Tensor, settings: SsiwSettings) -> tuple[Tensor, Tensor]:
    """How many pixels of each image [B] are labelled, and how many of those L_LD keeps."""
    labelled = (masks != IGNORE).flatten(1).sum(1)
    # It drops a share of each image's own pixels, rounded down, as `trimmed_pixel_cosine_loss` does.
    return labelled, labelled - (settings.drop * labelled).long()


def _groups(batch: Batch, settings: SsiwSettings) -> list[tuple[str, list[int]]]:
    """The rows of the batch for each call of a loss, and that loss's name.

    L_LD and L_WD are means, so each dataset has a call of its own.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    losses = {TERMS[name]: name for name in settings.losses}
    for i, (dataset, annotation_type) in enumerate(zip(batch.datasets, batch.annotation_types, strict=True)):
        if name := losses.get(annotation_type):
            groups.setdefault((name, "" if name == "hd" else dataset), []).append(i)
    return [(name, rows) for (name, _), rows in groups.items()]


def _take(groups: list[list[int]], whole: Tensor) -> list[Tensor]:
    """Each group's rows of a tensor, copied once forward and once backward; the tensor itself where one has them all.

    ``whole[rows]`` would copy the row numbers to a GPU and wait for it, for every group.
    """
    if [len(rows) for rows in groups] == [len(whole)]:
        return [whole]
    one_by_one = torch.split(whole, 1)
    return [torch.cat([one_by_one[i] for i in rows]) for rows in groups]
