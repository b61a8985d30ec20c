"""LMSeg's losses (Zhou et al., ICLR 2023, eq. 2–5), image by image; every decoder layer is matched for itself.

What is not known is neither right nor wrong: pixels without a label take no part in the masks' losses or in the costs
of matching, and a query whose mask lies in them for more than half loses nothing for its class if it has no target.
Words that an image was not annotated for (`closed`) do not compete with its targets, and a query without a target may
be one of them as well as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.device import at_once
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.lmseg.targets import Targets

TERMS = ("class", "mask", "dice", "box")

_ALPHA = 0.25  # of the focal loss (Lin et al., ICCV 2017), whose γ is 2
WEIGHT_UNIT = 10_000
"""Class weights are counted in whole numbers: a query with a target has this many."""


def focal_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss of each logit if its target is 1, and if it is 0 (α = 0.25, γ = 2)."""
    p = logits.sigmoid()
    positive = _ALPHA * (1 - p) ** 2 * F.softplus(-logits)
    negative = (1 - _ALPHA) * p**2 * F.softplus(logits)
    return positive, negative


def focal_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean over the known pixels of each mask: ``[n, P]`` → ``[n]``.

    Args:
        logits, targets: ``[n, P]``.
        known: ``[P]``.
    """
    positive, negative = focal_terms(logits)
    each = torch.where(targets.bool(), positive, negative)
    return (each * known).sum(1) / known.sum().clamp(min=1)


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 − (2 Σxy + 1) / (Σx + Σy + 1) of each mask (Milletari et al., 3DV 2016, as MaskFormer has it).

    Args:
        probabilities, targets: ``[…, P]``, 0 where nothing is known.
    """
    both = (probabilities * targets).sum(-1)
    return 1 - (2 * both + 1) / (probabilities.sum(-1) + targets.sum(-1) + 1)


def projection_loss(logits: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """How far the extents of masks are from boxes: the dice losses of what they cover of each axis, their mean.

    A mask's projection is its largest probability along a row or column (Tian et al., "BoxInst", CVPR 2021, eq. 2–4).

    Args:
        logits: ``[…, h, w]``; each mask is projected once, whatever number of boxes it is compared with.
        boxes: ``[…, 4]``, x0, y0, x1, y1 in pixels; both are broadcast.
        stride: pixels per logit.

    Returns:
        ``[…]``.
    """
    probabilities = logits.sigmoid()
    parts = []
    for axis, low, high in ((-1, 1, 3), (-2, 0, 2)):
        covered = probabilities.amax(axis)
        places = torch.arange(covered.shape[-1], device=logits.device)
        centres = (places + 0.5) * stride
        wanted = (centres >= boxes[..., low, None]) & (centres < boxes[..., high, None])
        # A box between two centres has the nearest one.
        middle = (boxes[..., low, None] + boxes[..., high, None]) / 2
        nearest = places == (centres - middle).abs().argmin(-1, keepdim=True)
        parts.append(dice_loss(covered, (wanted | nearest).to(covered.dtype)))
    return (parts[0] + parts[1]) / 2


def class_units(targets: int, settings: LmsegSettings) -> int:
    """The weights of an image's queries in the classification loss, in units of 1 / WEIGHT_UNIT."""
    matched = min(targets, settings.queries)
    return WEIGHT_UNIT * matched + _nothing_weight(settings) * (settings.queries - matched)


def _nothing_weight(settings: LmsegSettings) -> int:
    return round(WEIGHT_UNIT * settings.nothing_weight)


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of the T decoder layers for one image.

    Attributes:
        classes: float32 ``[T, N, K + 1]``, logits of the K words and of "nothing", −∞ for words that are none.
        masks: float32 ``[T, N, h, w]``, logits.
        stride: pixels per mask logit.
    """

    classes: Tensor
    masks: Tensor
    stride: int


def class_losses(logits: Tensor, wanted: Tensor, closed: Tensor | None = None) -> Tensor:
    """−log of each query's probability of what it should be: cross-entropy where no word is closed.

    Args:
        logits: ``[..., K + 1]``, of K words and of "nothing".
        wanted: int64 ``[...]``, a word, or K for nothing.
        closed: bool ``[K]``: words that compete with no other. Who wants nothing may be one of them, too.

    Returns:
        ``[...]``.
    """
    if closed is None:
        return F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none").view(wanted.shape)
    own = logits.gather(-1, wanted[..., None])[..., 0]
    apart = F.pad(closed, (0, 1))
    others = logits.masked_fill(apart, -torch.inf).logsumexp(-1)  # "nothing" at least
    lost = torch.where(apart[wanted], F.softplus(others - own), others - own)
    either = torch.where(apart | (torch.arange(len(apart), device=apart.device) == len(closed)), logits, -torch.inf)
    return torch.where(wanted == len(closed), logits.logsumexp(-1) - either.logsumexp(-1), lost)


def matching_costs(
    outputs: Outputs, targets: Targets, places: Tensor, settings: LmsegSettings, closed: Tensor | None = None
) -> Tensor:
    """Eq. 5 for every layer, query and target: ``[T, N, n]``. Masks are compared at the logits' own resolution.

    Args:
        places: int64 ``[n]``, the word of each target.
        closed: as `class_losses` has it.
    """
    with torch.no_grad():
        if closed is None:
            costs = -outputs.classes.softmax(-1)[..., places]
        else:
            every = outputs.classes[..., None, :].expand(-1, -1, len(places), -1)
            costs = -(-class_losses(every, places.expand(every.shape[:-1]), closed)).exp()
        if targets.boxes is not None:
            extents = projection_loss(outputs.masks[:, :, None], targets.boxes, outputs.stride)
            return costs + settings.box_weight * extents
        known = _at_centres(targets.known, outputs).flatten().to(outputs.masks.dtype)
        wanted = _at_centres(targets.masks, outputs).flatten(1).to(outputs.masks.dtype) * known
        logits = outputs.masks.flatten(2)
        positive, negative = (each * known for each in focal_terms(logits))
        focal = (positive @ wanted.T + negative @ (known - wanted).T) / known.sum().clamp(min=1)
        probabilities = logits.sigmoid() * known
        both = probabilities @ wanted.T
        dice = 1 - (2 * both + 1) / (probabilities.sum(-1, keepdim=True) + wanted.sum(1) + 1)
        return costs + settings.focal_weight * focal + settings.dice_weight * dice


def _at_centres(masks: Tensor, outputs: Outputs) -> Tensor:
    """The pixel under the centre of each logit: ``[…, H, W]`` → ``[…, h, w]``."""
    rows, columns = (
        (torch.arange(count, device=masks.device) * outputs.stride + outputs.stride // 2).clamp(max=size - 1)
        for count, size in zip(outputs.masks.shape[-2:], masks.shape[-2:], strict=True)
    )
    return masks[..., rows, :][..., columns]


def match(costs: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Queries and their targets with the least cost in all (eq. 4), by the Hungarian method; ``[N, n]``."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.nan_to_num(costs, nan=1e6, posinf=1e6, neginf=-1e6))
    return rows.astype(np.int64), columns.astype(np.int64)


def match_all(costs: Sequence[Tensor]) -> list[Tensor]:
    """`match` for every layer of every image, with a single wait for the GPU.

    Args:
        costs: of each image ``[T, N, n]``.

    Returns:
        For each image int64 ``[3, M]``, on the device of the costs: the layers, queries and targets of its M pairs.
    """
    read = torch.cat([each.flatten() for each in costs]).cpu()
    pairs = []
    for flat, each in zip(torch.split(read, [each.numel() for each in costs]), costs, strict=True):
        found = [match(layer) for layer in flat.view(each.shape).double().numpy()]
        layers = np.repeat(np.arange(len(found)), [len(queries) for queries, _ in found])
        pairs.append(np.stack([layers, *(np.concatenate([pair[side] for pair in found]) for side in (0, 1))]))
    to_device = at_once(torch.from_numpy(np.concatenate(pairs, axis=1)), costs[0].device)
    return list(torch.split(to_device, [each.shape[1] for each in pairs], dim=1))


def sums_of_images(
    outputs: Sequence[Outputs],
    targets: Sequence[Targets],
    places: Sequence[Tensor],
    settings: LmsegSettings,
    closed: Sequence[Tensor | None],
) -> list[Tensor]:
    """The weighted losses of each image, summed over its layers (eq. 3): ``[4]`` as `TERMS`, over the units of each.

    Args:
        places: of each image int64 ``[n]``, the word of each target.
        closed: of each image bool ``[K]``, the words that it was not annotated for; None: none.
    """
    images = list(zip(outputs, targets, places, closed, strict=True))
    pairs = match_all([matching_costs(said, goal, words, settings, shut) for said, goal, words, shut in images])
    return [
        _image_sums(said, goal, words, settings, shut, own)
        for (said, goal, words, shut), own in zip(images, pairs, strict=True)
    ]


def _image_sums(
    outputs: Outputs, targets: Targets, places: Tensor, settings: LmsegSettings, closed: Tensor | None, pairs: Tensor
) -> Tensor:
    layers, queries, words = outputs.classes.shape
    device = outputs.classes.device
    layer, query, target = pairs
    wanted = torch.full((layers, queries), words - 1, device=device)
    wanted[layer, query] = places[target]
    weights = torch.full((layers, queries), float(_nothing_weight(settings)), device=device)
    if targets.boxes is None:
        weights = weights * (1 - _mostly_unknown(outputs, targets).float())
    weights[layer, query] = float(WEIGHT_UNIT)
    classes = (class_losses(outputs.classes, wanted, closed) * weights).flatten().sum()

    masks = outputs.masks[layer, query]  # [M, h, w]
    nothing = classes.new_zeros(())
    if not len(masks):
        return torch.stack([classes, nothing, nothing, nothing])
    if targets.boxes is not None:
        extents = projection_loss(masks, targets.boxes[target], outputs.stride).sum()
        return torch.stack([classes, nothing, nothing, settings.box_weight * extents])
    height, width = targets.known.shape
    size = (masks.shape[1] * outputs.stride, masks.shape[2] * outputs.stride)
    whole = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0, :, :height, :width]
    logits, goal = whole.flatten(1), targets.masks[target].flatten(1)
    known = targets.known.flatten().to(logits.dtype)
    focal = focal_loss(logits, goal, known).sum()
    dice = dice_loss(logits.sigmoid() * known, goal * known).sum()
    return torch.stack([classes, settings.focal_weight * focal, settings.dice_weight * dice, nothing])


def _mostly_unknown(outputs: Outputs, targets: Targets) -> Tensor:
    """bool ``[T, N]``: of which queries more than half of the mask lies where nothing is known."""
    inside = outputs.masks.detach() > 0
    unknown = inside & ~_at_centres(targets.known, outputs)
    return 2 * unknown.flatten(2).sum(2) > inside.flatten(2).sum(2)
