"""What a box's embedding should be: the teacher of L_WD."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from labelmerge.bank.bank import Bank
from labelmerge.bank.store import identity_key
from labelmerge.errors import EncoderError, ShardError
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import DatasetShards

Teacher = Callable[[Batch, Tensor], list[Tensor]]
"""(batch, label vectors [N, C]) → for each image its boxes' unit teacher vectors [P, C], on the vectors' device."""

_log = logging.getLogger(__name__)


def choose_teacher(bank: Bank, device: torch.device) -> Teacher:
    """The best teacher for this bank's space.

    A bank of CLIP's text tower gets CLIP's image tower, as in SSIW (eq. 6): each box is cut out and encoded, unless the
    shards hold its embedding already. Any other bank has no image tower: a box's label vector is its teacher, and the
    log says so.

    Raises:
        EncoderError: CLIP's weights are not available, or are not those that made the bank.
    """
    if not bank.encoder.startswith("open_clip:"):
        told: list[bool] = []

        def told_label_teacher(batch: Batch, labels: Tensor) -> list[Tensor]:
            if not told:  # only now, because a run may have no boxes
                _log.info("box teacher: each label's own embedding (the encoder %s has no image tower)", bank.encoder)
                told.append(True)
            return label_teacher(batch, labels)

        return told_label_teacher
    from labelmerge.encoders.encoders import ImageEncoder, load_image_encoder

    loaded: list[ImageEncoder] = []

    def clip_teacher(batch: Batch, labels: Tensor) -> list[Tensor]:
        out = []
        for i, (boxes, stored) in enumerate(zip(batch.boxes, batch.box_embeddings, strict=True)):
            if stored is not None:
                if stored.shape[1] != labels.shape[1]:
                    raise ShardError(
                        f"box embeddings of {stored.shape[1]} dimensions, but the bank has {labels.shape[1]}",
                        where=batch.keys[i],
                        fix="Write the shards with the bank's own encoder",
                    )
                out.append(torch.nn.functional.normalize(stored.to(labels), dim=1))
            elif not len(boxes):
                out.append(labels[:0])
            else:
                if not loaded:  # only now, because shards with embeddings need no tower
                    _log.info("box teacher: the image tower of %s", bank.encoder)
                    loaded.append(load_image_encoder(bank.encoder, str(device)))
                    _same_encoder(loaded[0], bank)
                vectors = loaded[0].encode_images(_cut_out(batch.images[i], boxes))
                out.append(torch.from_numpy(vectors).to(labels))
        return out

    return clip_teacher


def refuse_other_teachers(sources: Iterable[DatasetShards], bank: Bank) -> None:
    """Make sure that the box embeddings in shards were made by the bank's own model, where that is who teaches.

    Raises:
        ShardError: those of a split are of another model.
    """
    for shards in (shard_set for source in sources for shard_set in source.sets):
        teacher = shards.box_teacher
        if teacher is None or not bank.encoder.startswith("open_clip:"):
            continue
        ours = bank.identity.get("weights_sha256") if teacher["weights_sha256"] else bank.encoder
        theirs = teacher["weights_sha256"] or teacher["encoder"]
        if ours != theirs:
            raise ShardError(
                f"its box embeddings were made by {teacher['encoder']} ({theirs}), the bank by {bank.encoder} ({ours})",
                where=shards.where,
                fix="Write the shards with the bank's own encoder, or embed the labels with the shards'",
            )


def label_teacher(batch: Batch, labels: Tensor) -> list[Tensor]:
    """Each box's label vector."""
    return list(torch.split(labels[torch.cat(batch.box_classes)], [len(classes) for classes in batch.box_classes]))


def _same_encoder(encoder: object, bank: Bank) -> None:
    identity = getattr(encoder, "identity", {})
    if identity_key(identity) != identity_key(bank.identity):
        raise EncoderError(
            "the image tower belongs to another model than the one that made the bank",
            where=bank.encoder,
            fix="Use the weights that `embed` used, or embed again",
        )


def _cut_out(image: Tensor, boxes: Tensor) -> list[Image.Image]:
    """The boxes [P, 4] of an image, uint8 [3, H, W], widened to whole pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
    corners = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], dim=1).int().tolist()
    return [picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))) for x0, y0, x1, y1 in corners]
