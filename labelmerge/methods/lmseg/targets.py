"""What the queries of an image are to learn: its things and stuff, and what nothing is known of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch


@dataclass(frozen=True, eq=False)
class Targets:
    """The n targets of one view.

    Attributes:
        labels: int64 ``[n]``, rows of the run's labels.
        masks: bool ``[n, H, W]``; none where boxes are all that is known.
        boxes: float32 ``[n, 4]``, x0, y0, x1, y1 in pixels of the view; None where there are masks.
        known: bool ``[H, W]``: elsewhere is nothing right or wrong.
    """

    labels: Tensor
    masks: Tensor
    boxes: Tensor | None
    known: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def targets_of(
    batch: Batch, place: int, things: Tensor, *, whole_classes: bool = False, void_is_negative: bool = False
) -> Targets:
    """The targets of one view.

    A segment of its own is each thing, and each label of stuff. Where a dataset has no segments, each label is one
    region. Crowds, and pixels that are labelled as a thing that no segment holds, are not known.

    Args:
        batch: after `Batch.to`.
        place: which of its views.
        things: bool ``[L]``: which labels are things, whose segments stay apart.
        whole_classes: a region for each label, whatever the segments say.
        void_is_negative: what is not known is in no segment.
    """
    mask = batch.masks[place]
    if batch.annotation_types[place] == "box":
        device = mask.device
        return Targets(
            labels=batch.box_classes[place],
            masks=torch.zeros((0, *mask.shape), dtype=torch.bool, device=device),
            boxes=batch.boxes[place].to(device),
            known=torch.ones_like(mask, dtype=torch.bool),
        )
    known = mask != IGNORE
    free, labels, masks = known, [], []
    segments = batch.segments[place] if batch.segments and not whole_classes else None
    if segments is not None and batch.instances is not None:
        ids = batch.instances[place].long()
        number = torch.zeros(1 << 16, dtype=torch.int64, device=mask.device)
        number[segments.ids] = torch.arange(1, len(segments.ids) + 1, device=mask.device)
        numbers = number[ids]  # 0 for no segment
        taught = segments.classes != IGNORE
        apart = taught & ~segments.crowd & things[segments.classes.clamp(min=0)]
        unknown = torch.cat([apart.new_zeros(1), ~taught | segments.crowd])
        each = torch.cat([apart.new_zeros(1), apart])
        known = known & ~unknown[numbers]
        own = apart.nonzero().flatten()
        labels.append(segments.classes[own])
        masks.append((numbers[None] == own[:, None, None] + 1) & known)
        free = known & ~each[numbers]
        outside = free & things[mask.clamp(min=0)]
        known, free = known & ~outside, free & ~outside
    found = torch.unique(mask[free])
    labels.append(found)
    masks.append((mask[None] == found[:, None, None]) & free)
    every, regions = torch.cat(labels), torch.cat(masks)
    there = regions.flatten(1).any(1)
    return Targets(every[there], regions[there], None, torch.ones_like(known) if void_is_negative else known)
