"""Bilinear upsampling as two small matrices, one for the rows and one for the columns."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def bilinear_matrix(size_in: int, size_out: int) -> Tensor:
    """The weights of ``F.interpolate(mode="bilinear", align_corners=False)`` along one axis.

    Each row has one or two non-zero entries, side by side, that sum to 1. At the borders the outermost input counts
    alone, as in torch.

    Returns:
        float64 [size_out, size_in], on the CPU; shared, so not to be written to.
    """
    source = (torch.arange(size_out, dtype=torch.float64) + 0.5) * (size_in / size_out) - 0.5
    source = source.clamp(0, size_in - 1)
    lower = source.floor().long()
    upper = (lower + 1).clamp(max=size_in - 1)
    share = (source - lower)[:, None]
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    matrix.scatter_add_(1, lower[:, None], 1 - share)
    matrix.scatter_add_(1, upper[:, None], share)
    return matrix


@lru_cache(maxsize=64)
def bilinear_matrix_on(size_in: int, size_out: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`bilinear_matrix` on a device, copied there once, because every copy would wait for the GPU."""
    with torch.inference_mode(False):  # or no later call could take gradients through it
        return bilinear_matrix(size_in, size_out).to(device, dtype)


def rows_read(size_in: int, first: int, last: int, size_out: int) -> tuple[int, int]:
    """Which input rows ``[lower, upper)`` the output rows ``[first, last)`` are made of."""

    def before(row: int) -> int:
        return min(max(math.floor((row + 0.5) * (size_in / size_out) - 0.5), 0), size_in - 1)

    return before(first), min(before(last - 1) + 2, size_in)


@lru_cache(maxsize=64)
def bilinear_gaps(size_in: int, size_out: int) -> tuple[Tensor, Tensor]:
    """The same weights, by the two inputs that an output lies between: gap k is between inputs k - 1 and k.

    Outputs before the first input's centre lie in gap 0, those from the last one's centre on in gap `size_in`; there,
    the one input that there is has weight 1.

    Returns:
        int64 [size_in + 2], the first output of each gap and, last, `size_out`; float64 [size_out], the weight of the
        input after (the input before has the rest). Both are shared, so not to be written to.
    """
    source = (torch.arange(size_out, dtype=torch.float64) + 0.5) * (size_in / size_out) - 0.5
    gap = source.floor().long() + 1
    share = torch.where(gap == 0, 1.0, torch.where(gap == size_in, 0.0, source - source.floor()))
    return torch.searchsorted(gap, torch.arange(size_in + 2)), share
