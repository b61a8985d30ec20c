"""The losses of SSIW (Yin et al., IJCV 2024, eq. 1–7), each on the samples whose annotations it is for.

They are given as sums over pixels or boxes, and how many of those there are, for each dataset: a batch that is spread
over processes, or over pieces of one process, then has the same mean as a batch in one piece.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labelmerge.device import at_once
from labelmerge.labels import IGNORE
from labelmerge.loading.mixture import Batch
from labelmerge.losses import box_embedding_loss, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.methods.ssiw.teacher import Teacher
from labelmerge.train.config import TrainConfig

_ANNOTATION_TYPES = {"hd": "mask", "ld": "noisy_mask", "wd": "box"}
_KINDS = tuple(_ANNOTATION_TYPES.values())


def ssiw_annotation_types(config: TrainConfig) -> dict[str, str]:
    """For each of ``config.losses``, the annotation type of the samples it is for."""
    return {name: _ANNOTATION_TYPES[name] for name in config.losses}


def ssiw_counts(batch: Batch, datasets: int, config: TrainConfig) -> Tensor:
    """How many pixels or boxes of each dataset the sums of `ssiw_sums` have.

    Args:
        batch: any part of a batch.
        datasets: D.

    Returns:
        int64 [D], on the device of the batch.
    """
    labelled, kept = _pixels(batch.masks, config)  # [B]
    facts = [(_KINDS.index(kind), len(boxes)) for kind, boxes in zip(batch.annotation_types, batch.boxes, strict=True)]
    kinds, boxes = at_once(torch.tensor(facts), labelled.device).unbind(1)  # [B]
    own = torch.stack([labelled, kept, boxes]).gather(0, kinds[None]).squeeze(0)  # [B]
    return labelled.new_zeros(datasets).index_add_(0, batch.dataset_ids, own)


def ssiw_sums(
    batch: Batch,
    embeddings: Tensor,
    labels: Tensor,
    tau: Tensor,
    allowed: Tensor | None,
    teacher: Teacher,
    datasets: int,
    config: TrainConfig,
) -> Tensor:
    """The weighted losses of a batch, summed over each dataset's pixels or boxes.

    Args:
        batch: masks and box classes hold columns, on the device of `embeddings`.
        embeddings: the model's output [B, C, h, w].
        labels: the columns' vectors [N, C].
        tau: the temperature, a scalar.
        allowed: bool [B, N], the columns that each sample's softmax runs over; None for all.
        teacher: gives the boxes' vectors.
        datasets: D.

    Returns:
        float [D]; 0 for a dataset that the batch has no pixel or box of.
    """
    sums = labels.new_zeros(datasets)
    groups = _groups(batch, config)
    rows = [rows for _, rows in groups]
    maps, masks, ids = (_take(rows, each) for each in (embeddings, batch.masks, batch.dataset_ids))
    teachers: list[Tensor] = []  # asked when there are boxes
    own_labels = [None] * len(groups) if allowed is None else _take(rows, allowed)
    for (name, some), v, mask, own_ids, own in zip(groups, maps, masks, ids, own_labels, strict=True):
        if name == "hd":
            losses = pixel_cosine_loss(v, labels, mask, tau, IGNORE, allowed=own, reduction="none")  # [B', H, W]
            sums = sums.index_add(0, own_ids, config.hd_weight * losses.flatten(1).sum(1))
        elif name == "ld":
            mean = trimmed_pixel_cosine_loss(v, labels, mask, tau, IGNORE, allowed=own, drop=config.drop)
            sums = sums.index_add(0, own_ids[:1], config.ld_weight * mean[None] * _pixels(mask, config)[1].sum())
        elif count := sum(len(batch.boxes[i]) for i in some):  # not crowds alone, or views between the boxes
            teachers = teachers or teacher(batch, labels)
            boxes, wanted = [batch.boxes[i] for i in some], [teachers[i] for i in some]
            mean = box_embedding_loss(v, boxes, wanted, (batch.images.shape[2], batch.images.shape[3]))
            sums = sums.index_add(0, own_ids[:1], config.wd_weight * mean[None] * count)
    return sums


def _pixels(masks: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """How many pixels of each image [B] are labelled, and how many of those L_LD keeps."""
    labelled = (masks != IGNORE).flatten(1).sum(1)
    # It drops a share of each image's own pixels, rounded down, as `trimmed_pixel_cosine_loss` does.
    return labelled, labelled - (config.drop * labelled).long()


def _groups(batch: Batch, config: TrainConfig) -> list[tuple[str, list[int]]]:
    """The rows of the batch for each call of a loss, and that loss's name.

    L_LD and L_WD are means, so each dataset has a call of its own.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    losses = {annotation_type: name for name, annotation_type in ssiw_annotation_types(config).items()}
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
