"""The mathematics of MDP (Shi et al., "Multi-dataset Pretraining: A Unified Model for Semantic Segmentation", 2021).

A pixel's embedding is that of its cell of the network's grid, so every sum over pixels is one over cells, weighted by
how many pixels of each class a cell holds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from labelmerge.labels import IGNORE

_CHUNK = 4096  # cells whose similarities to all cells of the other view are in memory at once


def cell_counts(masks: Tensor, classes: int, height: int, width: int) -> Tensor:
    """How many pixels of each class each cell of a grid holds.

    Args:
        masks: int64 ``[B, H, W]``, classes or `IGNORE`.
        height, width: of the grid.

    Returns:
        float32 ``[B, classes, height · width]``.
    """
    samples, tall, wide = masks.shape
    down = torch.arange(tall, device=masks.device) * height // tall
    across = torch.arange(wide, device=masks.device) * width // wide
    cells = down[:, None] * width + across[None]
    sample = torch.arange(samples, device=masks.device)[:, None, None]
    places = (sample * classes + masks.clamp(min=0)) * (height * width) + cells
    out = torch.zeros(samples * classes * height * width, device=masks.device)
    out.index_add_(0, places.flatten(), (masks != IGNORE).float().flatten())  # whole numbers: exact in any order
    return out.view(samples, classes, -1)


def image_means(embeddings: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The first step of eq. 3: the mean embedding of each class in each image.

    Args:
        embeddings: unit vectors ``[B, D, h, w]``.
        counts: ``[B, C, h · w]``, as from `cell_counts`.

    Returns:
        float64 ``[B, C, D]``, 0 where the image has no such class, and bool ``[B, C]``, whether it has.
    """
    pixels = counts.double()
    sums = torch.einsum("bcn,bdn->bcd", pixels, embeddings.flatten(2).double())
    total = pixels.sum(2)
    return sums / total.clamp(min=1)[:, :, None], total > 0


def prototypes_of(sums: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The second step of eq. 3: the mean over the images, at unit length.

    Args:
        sums: ``[T, C, D]``, sums of image means for each batch that is remembered. images: ``[T, C]``, of how many.

    Returns:
        ``[C, D]``, and bool ``[C]``: which classes were seen at all.
    """
    whole = sums.sum(0)
    return torch.nn.functional.normalize(whole, dim=1), images.sum(0) > 0


def neighbours(prototypes: Tensor, known: Tensor, count: int) -> Tensor:
    """T of eq. 8: float ``[C, C]``, 1 for the `count` known prototypes most similar to each, itself left out."""
    similar = prototypes @ prototypes.T
    similar = similar.masked_fill(~known[None], -torch.inf).fill_diagonal_(-torch.inf)
    best = similar.topk(min(count, len(prototypes)), dim=1)
    near = torch.zeros_like(similar).scatter_(1, best.indices, (best.values > -torch.inf).to(similar))
    return near * known[:, None]


def prototype_losses(
    embeddings: Tensor, counts: Tensor, prototypes: Tensor, known: Tensor, tau: float, closed: Tensor | None = None
) -> Tensor:
    """Eq. 4 for every class that a pixel could be counted as: −log P(class), weighted by `counts` and summed.

    Args:
        embeddings: unit vectors ``[D, h, w]`` of one image.
        counts: ``[..., C, h · w]``, how often each class counts in each cell; 0 for classes that are not known.
        prototypes: ``[C, D]``. known: bool ``[C]``: others are no competitors.
        closed: bool ``[C]``, classes that compete with no other, either, but are right where they count.

    Returns:
        ``[...]``, sums over classes and cells.
    """
    scores = (prototypes @ embeddings.flatten(1)) / tau  # [C, n]
    if closed is None:
        log_p = scores.masked_fill(~known[:, None], -torch.inf).log_softmax(0).masked_fill(~known[:, None], 0.0)
        return -(counts * log_p).sum((-2, -1))
    lowest = torch.finfo(scores.dtype).min  # −∞ would make NaN of a gradient where no class competes
    others = scores.masked_fill(~(known & ~closed)[:, None], lowest).logsumexp(0)  # [n]
    whole = torch.where(closed[:, None], torch.logaddexp(others[None], scores), others[None])
    log_p = (scores - whole).masked_fill(~known[:, None], 0.0)
    return -(counts * log_p).sum((-2, -1))


def pixel_losses(embeddings: Tensor, keys: Tensor, counts: Tensor, key_counts: Tensor, tau: float) -> Tensor:
    """Eq. 2, pixel to pixel: for every pixel the mean of −log P over the pixels of its class in the other view.

    P is among all labelled pixels of the other view. With one pixel of the class this is eq. 1. The mean of
    similarities is the similarity to the mean, so only the denominator needs all pairs.

    Args:
        embeddings: unit vectors ``[D, h, w]`` of one view of an image. keys: of its other view.
        counts, key_counts: ``[C, h · w]`` of both, as from `cell_counts`.

    Returns:
        A scalar, the sum over the pixels whose class the other view has, too (`pixels_with_positives`).
    """
    queries, others = embeddings.flatten(1), keys.flatten(1)  # [D, n]
    pixels = key_counts.sum(1)
    means = key_counts @ others.T / pixels.clamp(min=1)[:, None]  # [C, D]
    counted = counts * (pixels > 0)[:, None]
    log_pixels = key_counts.sum(0).clamp(min=1e-30).log()  # cells without a labelled pixel count for nothing

    def whole(some: Tensor) -> Tensor:
        return (some.T @ others / tau + log_pixels).logsumexp(1)

    chunks = torch.split(queries, _CHUNK, dim=1)
    if len(chunks) == 1:
        denominator = whole(queries)
    else:
        denominator = torch.cat([checkpoint(whole, each, use_reentrant=False) for each in chunks])
    return (counted.sum(0) * denominator).sum() - (counted * (means @ queries)).sum() / tau


def pixels_with_positives(masks: Tensor, others: Tensor, classes: int) -> Tensor:
    """How many pixels of each image have their class in its other view, too: int64 ``[B]``, of both views together."""
    first, second = (cell_counts(each, classes, 1, 1)[:, :, 0] for each in (masks, others))
    return (first * (second > 0) + second * (first > 0)).sum(1).long()
