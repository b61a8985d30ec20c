"""Samples of a step that are mixed with each other, wherever they are: the same draws and results in any company."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from labelmerge.processes import Ranks


def of_all_processes(ranks: Ranks, *tensors: Tensor) -> list[Tensor]:
    """Tensors whose rows are the samples of a batch, with the rows of all processes, in the order of their ranks.

    All processes must have equally many rows, as batches of one size of view do.
    """
    if ranks.world == 1:
        return list(tensors)
    out = []
    for own in tensors:
        parts = [torch.empty_like(own) for _ in range(ranks.world)]
        distributed.all_gather(parts, own.contiguous())
        out.append(torch.cat(parts))
    return out


def facts_of_all_processes(ranks: Ranks, device: torch.device, *facts: Tensor) -> list[Tensor]:
    """The same for small tensors on the CPU, which stay there; one process alone waits for no GPU."""
    if ranks.world == 1:
        return list(facts)
    return [each.cpu() for each in of_all_processes(ranks, *(fact.to(device) for fact in facts))]


def partners(draws: Tensor, places: Sequence[int], all_places: Sequence[int], may: Tensor) -> list[int]:
    """The partner that each sample is mixed with.

    Args:
        draws: ``[whole, whole]`` on the CPU, random numbers within 0 to 1, equal in all processes.
        places: of these samples in the step.
        all_places: of all samples that there are.
        may: bool ``[samples, all]`` on the CPU, who may be whose partner.

    Returns:
        For each sample the row among all, or -1 where nobody may.
    """
    wanted = draws[list(places)][:, list(all_places)].masked_fill(~may, -1.0)
    best, rows = wanted.max(dim=1)
    return [row if score >= 0 else -1 for score, row in zip(best.tolist(), rows.tolist(), strict=True)]


def rectangle(draws: Sequence[float], height: int, width: int, low: float, high: float) -> tuple[slice, slice]:
    """Rows and columns of a rectangle that covers a share of an image within `low` to `high` (CutMix).

    Args:
        draws: four random numbers within 0 to 1: size, shape, place down, place across.
    """
    area = (low + draws[0] * (high - low)) * height * width
    ratio = 2.0 ** (2 * draws[1] - 1)  # height to width: 1/2 to 2
    tall = max(1, min(height, round((area * ratio) ** 0.5)))
    wide = max(1, min(width, round(area / tall)))
    top, left = round(draws[2] * (height - tall)), round(draws[3] * (width - wide))
    return slice(top, top + tall), slice(left, left + wide)
