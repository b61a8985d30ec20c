"""The loss of a dataset that has only boxes: the mean embedding of a box against a teacher's vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def box_embedding_loss(
    v: Tensor, boxes: Sequence[Tensor], targets: Sequence[Tensor], image_size: tuple[int, int]
) -> Tensor:
    """L1 distance between the unit RoI embedding of each box and its unit teacher vector (SSIW eq. 6–7, L_WD).

    The RoI embedding is the exact mean of the bilinearly interpolated `v` over the box: what RoIAlign approximates by
    sampling points. The distance is the L1 norm, a *sum* over the C channels (its gradient is then of the size of the
    pixel loss's; a mean would be C times smaller); the loss is its mean over all boxes of the batch.
    Computed in float32 (float64 where `v` is float64), also under autocast.

    Args:
        v: pixel embeddings [B, C, h, w] of any length, any float dtype.
        boxes: for each image [P, 4], x0 y0 x1 y1 in pixels of the input image. What lies outside the image is cut off;
            a box of which nothing remains does not count.
        targets: for each image [P, C], unit vectors.
        image_size: (height, width) of the input image, which `v` spans.

    Returns:
        A scalar; 0, with gradient 0, where there are no boxes.

    Raises:
        ValueError: shapes that do not fit.
    """
    if not len(boxes) == len(targets) == v.shape[0]:
        raise ValueError(f"{len(boxes)} lists of boxes and {len(targets)} of targets for {v.shape[0]} images")
    with torch.autocast(v.device.type, enabled=False):
        v = v.to(torch.float64 if v.dtype == torch.float64 else torch.float32)
        total, count = v[:0].sum(), 0
        for image, (corners, teachers) in enumerate(zip(boxes, targets, strict=True)):
            if corners.shape != (len(teachers), 4) or teachers.shape != (len(teachers), v.shape[1]):
                raise ValueError(f"boxes {tuple(corners.shape)} and targets {tuple(teachers.shape)} do not fit")
            (height, width), (h, w) = image_size, v.shape[2:]
            x0, y0, x1, y1 = corners.detach().to("cpu", torch.float64).unbind(1)
            x0, x1 = x0.clamp(0, width), x1.clamp(0, width)
            y0, y1 = y0.clamp(0, height), y1.clamp(0, height)
            keep = (x1 > x0) & (y1 > y0)
            if not keep.any():
                continue
            rows = _mean_weights(y0[keep], y1[keep], height, h).to(v)
            columns = _mean_weights(x0[keep], x1[keep], width, w).to(v)
            embedding = torch.einsum("ph,chw,pw->pc", rows, v[image], columns)
            teachers = teachers[keep.to(teachers.device)].to(v)
            total = total + (F.normalize(embedding, dim=1) - teachers).abs().sum()
            count += len(teachers)
        return total / max(count, 1)


def _mean_weights(start: Tensor, stop: Tensor, size: int, cells: int) -> Tensor:
    """The weight of each cell in the mean over [start, stop] of their linear interpolation along one axis.

    Args:
        start, stop: float64 [P] in pixels, 0 ≤ start < stop ≤ size.
        size: the axis in pixels.
        cells: how many cells span it.

    Returns:
        float64 [P, cells]; each row sums to 1.
    """
    last = cells - 1
    # In cell coordinates, where cell k's centre is at k. Before the first centre and after the last one, the
    # outermost cell counts alone.
    low, high = (start * cells / size - 0.5)[:, None], (stop * cells / size - 0.5)[:, None]
    centres = torch.arange(cells, dtype=torch.float64)
    weights = _hat_integral(high.clamp(0, last) - centres) - _hat_integral(low.clamp(0, last) - centres)
    weights[:, :1] += (-low).clamp(min=0) - (-high).clamp(min=0)
    weights[:, last:] += (high - last).clamp(min=0) - (low - last).clamp(min=0)
    return weights / (high - low)


def _hat_integral(x: Tensor) -> Tensor:
    """The integral of max(0, 1 - |t|) over t from -∞ to x."""
    x = x.clamp(-1, 1)
    return torch.where(x < 0, (1 + x).square() / 2, 1 - (1 - x).square() / 2)
