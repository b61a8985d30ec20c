"""An exponential moving average of the weights: what is evaluated, while training goes on with the weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copy_of(module: M) -> M:
    """The average at its start: a copy that takes no gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """``average ← d · average + (1 - d) · weights``, after step `step` (from 0).

    d is `decay`, and lower in the first steps, ``(1 + step) / (10 + step)``, so that the random weights of the start
    are soon forgotten. Buffers (the statistics of batch norm), which are averages already, are copied.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), share)
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}  # one launch on a GPU for each, not per buffer
    for ours, theirs in zip(average.buffers(), module.buffers(), strict=True):
        averages, copied = by_dtype.setdefault(ours.dtype, ([], []))
        averages.append(ours)
        copied.append(theirs)
    for averages, copied in by_dtype.values():
        torch._foreach_copy_(averages, copied)
