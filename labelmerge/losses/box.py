"""The loss of a dataset that has only boxes: the mean embedding of a box against a teacher's vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.device import at_once


def box_embedding_loss(
    v: Tensor, boxes: Sequence[Tensor], targets: Sequence[Tensor], image_size: tuple[int, int]
) -> Tensor:
    """L1 distance between the unit RoI embedding of each box and its unit teacher vector (SSIW eq. 6–7, L_WD).

    The RoI embedding is the exact mean of the bilinearly interpolated `v` over the box: what RoIAlign approximates by
    sampling points. The distance is the L1 norm, a *sum* over the C channels (so its gradient is of the size of the
    pixel loss's; a mean would be C times smaller); the loss is its mean over all boxes of the batch.
    Computed in float32 (float64 where `v` is float64), also under autocast.

    Args:
        v: pixel embeddings [B, C, h, w] of any length, any float dtype.
        boxes: for each image [P, 4], x0 y0 x1 y1 in pixels of the input image; on the CPU, or they are copied there.
            Parts outside the image are cut off; a box with nothing left does not count.
        targets: for each image [P, C], unit vectors.
        image_size: (height, width) of the input image, which `v` spans.

    Returns:
        A scalar; 0, with gradient 0, where there are no boxes.

    Raises:
        ValueError: shapes that do not fit.
    """
    if not len(boxes) == len(targets) == v.shape[0]:
        raise ValueError(f"{len(boxes)} lists of boxes and {len(targets)} of targets for {v.shape[0]} images")
    for corners, teachers in zip(boxes, targets, strict=True):
        if corners.shape != (len(teachers), 4) or teachers.shape != (len(teachers), v.shape[1]):
            raise ValueError(f"boxes {tuple(corners.shape)} and targets {tuple(teachers.shape)} do not fit")
    counts = [len(corners) for corners in boxes]
    with torch.autocast(v.device.type, enabled=False):
        kind = torch.float64 if v.dtype == torch.float64 else torch.float32
        if not any(counts):
            return v[:0].sum(dtype=kind)
        rows, columns, share = (
            at_once(weights, v.device, kind)
            for weights in _weights(torch.cat(list(boxes)), image_size, (v.shape[2], v.shape[3]))
        )
        means = [
            (image.to(kind) @ across.T * down.T).sum(1).T  # [C, h, P] → [P, C]
            for image, down, across in zip(
                v.unbind(), torch.split(rows, counts), torch.split(columns, counts), strict=True
            )
        ]
        distances = (F.normalize(torch.cat(means), dim=1) - torch.cat(list(targets)).to(v.device, kind)).abs().sum(1)
        return (distances * share).sum()


def _weights(corners: Tensor, image_size: tuple[int, int], cells: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Of all boxes [P, 4]: the weights of rows [P, h] and of columns [P, w] of cells, and of each box in the mean [P].

    All float64 on the CPU, so that nothing waits for a GPU where the boxes are there too.
    """
    x0, y0, x1, y1 = corners.detach().to("cpu", torch.float64).unbind(1)
    height, width = image_size
    x0, x1, y0, y1 = x0.clamp(0, width), x1.clamp(0, width), y0.clamp(0, height), y1.clamp(0, height)
    left = (x1 > x0) & (y1 > y0)
    # A box of which nothing is left becomes the whole image, with weight 0.
    x0, x1, y0, y1 = x0.where(left, 0), x1.where(left, width), y0.where(left, 0), y1.where(left, height)
    rows, columns = _mean_weights(y0, y1, height, cells[0]), _mean_weights(x0, x1, width, cells[1])
    return rows, columns, left.double() / left.sum().clamp(min=1)


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
