"""The losses as the paper writes them: slow, large and obvious."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.losses import LabelTable


def pixel_losses(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor | float,
    ignore: int,
    allowed: Tensor | None = None,
    table: LabelTable | None = None,
    competing: Tensor | None = None,
) -> Tensor:
    """[B, H, W]: upsample the embeddings, normalise, cosine, softmax (eq. 1-3)."""
    full = F.interpolate(v, size=targets.shape[1:], mode="bilinear", align_corners=False)
    logits = torch.einsum("nc,bchw->bnhw", labels, F.normalize(full, dim=1)) / tau
    if allowed is not None:
        logits = logits.masked_fill(~allowed[:, :, None, None], -torch.inf)
    if table is not None:
        return table_losses(logits.movedim(1, -1), targets, ignore, table, competing)
    return F.cross_entropy(logits, targets, ignore_index=ignore, reduction="none")


def table_losses(
    logits: Tensor, targets: Tensor, ignore: int, table: LabelTable, competing: Tensor | None = None
) -> Tensor:
    """-log(Σ_P exp s / (Σ_P exp s + Σ_¬P w exp s)) of each pixel, from the logits [B, H, W, N] and whole rows."""
    labelled = targets != ignore
    label = targets.masked_fill(~labelled, 0)
    positive, weight = table.positive[label], table.negative[label]  # [B, H, W, N]
    if competing is not None:
        weight = weight * competing[:, None, None]
    right = logits.masked_fill(~positive, -torch.inf)
    wrong = torch.where(positive | (weight == 0), -torch.inf, logits + weight.log())
    whole = torch.cat([right, wrong], -1).logsumexp(-1)
    if table.target is None:
        losses = whole - right.logsumexp(-1)
    else:
        losses = whole - torch.where(positive, table.target[label] * logits, 0).sum(-1)
    return losses.masked_fill(~labelled, 0)


def pixel_loss(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor | float,
    ignore: int,
    allowed: Tensor | None = None,
    table: LabelTable | None = None,
    competing: Tensor | None = None,
) -> Tensor:
    losses = pixel_losses(v, labels, targets, tau, ignore, allowed, table, competing)[targets != ignore]
    return losses.mean() if losses.numel() else losses.sum()


def trimmed_loss(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor | float,
    ignore: int,
    drop: float = 0.3,
    table: LabelTable | None = None,
    competing: Tensor | None = None,
) -> Tensor:
    """eq. 4-5: per image, without its largest losses."""
    kept = []
    for losses, target in zip(
        pixel_losses(v, labels, targets, tau, ignore, None, table, competing), targets, strict=True
    ):
        valid = losses[target != ignore].sort().values
        kept.append(valid[: len(valid) - math.floor(drop * len(valid))])
    together = torch.cat(kept)
    return together.mean() if together.numel() else together.sum()


def box_loss(
    v: Tensor, boxes: list[Tensor], targets: list[Tensor], image_size: tuple[int, int], samples: int = 150
) -> Tensor:
    """eq. 6-7, the mean over a box taken as that of many points in it (midpoint rule)."""
    height, width = image_size
    middle = (torch.arange(samples, dtype=v.dtype) + 0.5) / samples
    distances = []
    for image, (corners, teachers) in enumerate(zip(boxes, targets, strict=True)):
        for (x0, y0, x1, y1), teacher in zip(corners.tolist(), teachers, strict=True):
            x = (x0 + (x1 - x0) * middle) / width * 2 - 1
            y = (y0 + (y1 - y0) * middle) / height * 2 - 1
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
            points = F.grid_sample(v[image : image + 1], grid, padding_mode="border", align_corners=False)
            embedding = F.normalize(points.mean(dim=(0, 2, 3)), dim=0)
            distances.append((embedding - teacher).abs().sum())
    return torch.stack(distances).mean()


def random_table(labels: int, columns: int, *, soft: bool, seed: int) -> LabelTable:
    """Each label with one to all columns; of the rest, a third competes fully, a third partly, a third not."""
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(labels, columns, dtype=torch.float64, generator=generator)

    positive = uniform() < uniform()[:, :1]
    positive[torch.arange(labels), torch.randint(columns, (labels,), generator=generator)] = True
    kind, negative = uniform(), uniform()
    negative[kind < 1 / 3], negative[kind > 2 / 3] = 0, 1
    shares = uniform() * positive * (uniform() < 0.8) + 1e-3 * positive
    return LabelTable(positive, negative, shares / shares.sum(1, keepdim=True) if soft else None)
