"""The losses of SSIW (Yin et al., IJCV 2024, eq. 1–7), each on the samples whose annotations it is for.

They are given as sums over pixels or boxes, and how many of those there are, for each dataset: a batch that is spread
over processes, or over pieces of one process, then has the same mean as a batch in one piece.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labelmerge.loading.mix import IGNORE, Batch
from labelmerge.losses import box_embedding_loss, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.train.config import TrainConfig
from labelmerge.train.teacher import Teacher

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
    labelled = (batch.masks != IGNORE).flatten(1).sum(1)  # [B]
    # L_LD drops a share of each image's own pixels, rounded down, as `trimmed_pixel_cosine_loss` does.
    kept = labelled - (config.drop * labelled).long()
    boxes = torch.tensor([len(boxes) for boxes in batch.boxes], device=labelled.device)
    kinds = torch.tensor([_KINDS.index(kind) for kind in batch.annotation_types], device=labelled.device)
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
    for name, annotation_type in ssiw_annotation_types(config).items():
        rows = [i for i, kind in enumerate(batch.annotation_types) if kind == annotation_type]
        if name == "hd" and rows:
            own = None if allowed is None else allowed[rows]  # [B', N]
            v, masks = embeddings[rows], batch.masks[rows]  # [B', C, h, w], [B', H, W]
            losses = pixel_cosine_loss(v, labels, masks, tau, IGNORE, allowed=own, reduction="none")  # [B', H, W]
            sums = sums.index_add(0, batch.dataset_ids[rows], config.hd_weight * losses.flatten(1).sum(1))
            continue
        for some in _by_dataset(batch, rows):  # those functions give means, each over one dataset's pixels or boxes
            part, v = batch.only(some), embeddings[some]
            count = ssiw_counts(part, datasets, config).sum()
            if name == "ld":
                own = None if allowed is None else allowed[some]
                mean = trimmed_pixel_cosine_loss(v, labels, part.masks, tau, IGNORE, allowed=own, drop=config.drop)
                sums = sums.index_add(0, part.dataset_ids[:1], config.ld_weight * mean[None] * count)
            elif any(map(len, part.boxes)):  # not crowds alone, or views between the boxes
                height, width = part.images.shape[2:]
                mean = box_embedding_loss(v, part.boxes, teacher(part, labels), (height, width))
                sums = sums.index_add(0, part.dataset_ids[:1], config.wd_weight * mean[None] * count)
    return sums


def _by_dataset(batch: Batch, rows: list[int]) -> list[list[int]]:
    """These rows of a batch, those of one dataset together."""
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(batch.datasets[i], []).append(i)
    return list(groups.values())
