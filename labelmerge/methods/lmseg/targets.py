"""What the queries of an image should learn: its things and stuff, and where nothing is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labelmerge.device import at_once
from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch, Segments


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
    batch: Batch, things: Tensor, *, whole_classes: bool = False, void_is_negative: bool = False
) -> list[Targets]:
    """The targets of every view, with a single wait for the GPU.

    A segment of its own is each thing, and each label of stuff. Where a dataset has no segments, each label is one
    region. Crowds, and pixels that are labelled as a thing that no segment holds, are not known.

    Args:
        batch: after `Batch.to`.
        things: bool ``[L]``: which labels are things, whose segments stay apart.
        whole_classes: a region for each label, whatever the segments say.
        void_is_negative: what is not known is in no segment.
    """
    device = batch.masks.device
    listed = [
        None if whole_classes or batch.instances is None else each for each in batch.segments or [None] * len(batch)
    ]
    # Every region that a view can have is a number: 1 .. S its segments, S + 1 .. S + L the labels.
    first = 1 + max((len(each.ids) for each in listed if each is not None), default=0)
    boxed = [kind == "box" for kind in batch.annotation_types]
    regions, known = [], []
    for place, segments in enumerate(listed):
        numbers, sure = _numbered(batch, place, None if boxed[place] else segments, things, first)
        regions.append(numbers)
        known.append(sure)
    every = torch.stack(regions)  # [B, H, W]
    there = torch.zeros(len(batch), first + len(things), dtype=torch.bool, device=device)
    there = there.scatter_(1, every.flatten(1), True).cpu()
    found = [each[1:].nonzero()[:, 0] + 1 for each in there]
    wanted = torch.split(at_once(torch.cat(found), device), [len(each) for each in found])
    targets = []
    for place, (here, own, segments) in enumerate(zip(found, wanted, listed, strict=True)):
        mask = batch.masks[place]
        if boxed[place]:
            nothing = torch.zeros((0, *mask.shape), dtype=torch.bool, device=device)
            boxes = at_once(batch.boxes[place], device)
            targets.append(Targets(batch.box_classes[place], nothing, boxes, torch.ones_like(mask, dtype=torch.bool)))
            continue
        apart = int((here < first).sum())
        labels = own[apart:] - first
        if segments is not None:
            labels = torch.cat([segments.classes[own[:apart] - 1], labels])
        sure = torch.ones_like(known[place]) if void_is_negative else known[place]
        targets.append(Targets(labels, every[place] == own[:, None, None], None, sure))
    return targets


def _numbered(batch: Batch, place: int, segments: Segments | None, things: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The region of each pixel of a view, 0 for none, and which pixels are known: ``[H, W]`` both."""
    mask = batch.masks[place]
    known = mask != IGNORE
    if batch.annotation_types[place] == "box":
        return torch.zeros_like(mask), known
    labels = mask.clamp(min=0) + first
    if segments is None or batch.instances is None:
        return torch.where(known, labels, 0), known
    number = torch.zeros(1 << 16, dtype=torch.int64, device=mask.device)
    number[segments.ids] = torch.arange(1, len(segments.ids) + 1, device=mask.device)
    numbers = number[batch.instances[place].long()]  # 0 for no segment
    taught = segments.classes != IGNORE
    apart = taught & ~segments.crowd & things[segments.classes.clamp(min=0)]
    unknown = torch.cat([apart.new_zeros(1), ~taught | segments.crowd])
    inside = torch.cat([apart.new_zeros(1), apart])[numbers]
    outside = ~inside & things[mask.clamp(min=0)]
    known = known & ~unknown[numbers] & ~outside
    return torch.where(known, torch.where(inside, numbers, labels), 0), known
