"""The losses of SSIW (Yin et al., IJCV 2024, eq. 1–7), each on the samples whose annotations it is for."""

from __future__ import annotations

from torch import Tensor

from labelmerge.loading.mix import IGNORE, Batch
from labelmerge.losses import box_embedding_loss, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.train.config import TrainConfig
from labelmerge.train.teacher import Teacher

_ANNOTATION_TYPES = {"hd": "mask", "ld": "noisy_mask", "wd": "box"}


def ssiw_annotation_types(config: TrainConfig) -> dict[str, str]:
    """For each of ``config.losses``, the annotation type of the samples it is for."""
    return {name: _ANNOTATION_TYPES[name] for name in config.losses}


def ssiw_losses(
    batch: Batch,
    embeddings: Tensor,
    labels: Tensor,
    tau: Tensor,
    allowed: Tensor | None,
    teacher: Teacher,
    config: TrainConfig,
) -> dict[str, Tensor]:
    """The weighted losses of a batch; their sum is what training makes small.

    Args:
        batch: masks and box classes hold columns, on the device of `embeddings`.
        embeddings: the model's output [B, C, h, w].
        labels: the columns' vectors [N, C].
        tau: the temperature, a scalar.
        allowed: bool [B, N], the columns that each sample's softmax runs over; None for all.
        teacher: gives the boxes' vectors.

    Returns:
        For each of ``config.losses`` that this batch has samples for (``wd``: boxes), a scalar.
    """
    losses = {}
    for name, annotation_type in ssiw_annotation_types(config).items():
        rows = [i for i, kind in enumerate(batch.annotation_types) if kind == annotation_type]
        if not rows:
            continue
        v, masks = embeddings[rows], batch.masks[rows]  # [B', C, h, w], [B', H, W]
        own = None if allowed is None else allowed[rows]  # [B', N]
        if name == "hd":
            losses[name] = config.hd_weight * pixel_cosine_loss(v, labels, masks, tau, IGNORE, allowed=own)
        elif name == "ld":
            loss = trimmed_pixel_cosine_loss(v, labels, masks, tau, IGNORE, allowed=own, drop=config.drop)
            losses[name] = config.ld_weight * loss
        else:
            some = batch.only(rows)
            if not any(map(len, some.boxes)):  # crowds alone, or views between the boxes: no loss is not a loss of 0
                continue
            height, width = batch.images.shape[2:]
            loss = box_embedding_loss(v, some.boxes, teacher(some, labels), (height, width))
            losses[name] = config.wd_weight * loss
    return losses
