"""Weights cast to half precision in one launch, in place of autocast's one for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Weights = tuple[Tensor, Tensor | None]  # weight and bias


class CastLinear(nn.Linear):
    """A linear layer that `cast_together` may give a cast of its weights."""

    cast: Weights | None = None

    def forward(self, input: Tensor) -> Tensor:
        """As for any linear layer."""
        weight, bias = self.cast or (self.weight, self.bias)
        return F.linear(input, weight, bias)


class CastConv2d(nn.Conv2d):
    """A convolution that `cast_together` may give a cast of its weights."""

    cast: Weights | None = None

    def forward(self, input: Tensor) -> Tensor:
        """As for any convolution."""
        weight, bias = self.cast or (self.weight, self.bias)
        out: Tensor = self._conv_forward(input, weight, bias)
        return out


Part = CastLinear | CastConv2d


def parts_of(module: nn.Module) -> list[Part]:
    """Its linear layers and convolutions, which become such parts; those of each channel by itself stay what they are.

    (Their weights are few, and the kernel of Mix-FFN reads them in float32.)
    """
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = CastLinear
        elif type(part) is nn.Conv2d and part.groups == 1:
            part.__class__ = CastConv2d
    return [part for part in module.modules() if isinstance(part, CastLinear | CastConv2d)]


@contextmanager
def cast_together(parts: Sequence[Part], device: torch.device) -> Iterator[None]:
    """While this is open under autocast on the device, the parts compute with a cast of their weights.

    The numbers are autocast's own to the last bit, and so are the gradients. An autocast casts each weight and bias by
    itself, and each gradient back: 2 · 618 launches in a step of SegFormer-B5, where 2 · 52 will do.
    """
    kind = device.type
    if not parts or not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        yield
        return
    weights = [tensor for part in parts for tensor in (part.weight, part.bias) if tensor is not None]
    cast: Iterator[Tensor] = iter(_Cast.apply(torch.get_autocast_dtype(kind), *weights))
    try:
        for part in parts:
            part.cast = (next(cast), None if part.bias is None else next(cast))
        yield
    finally:
        for part in parts:
            part.cast = None


class _Cast(torch.autograd.Function):
    """Tensors in another dtype."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return _copies(tensors, [dtype] * len(tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_copies(grads, ctx.dtypes)


def _copies(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
    out = tuple(torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True))
    torch._foreach_copy_(out, list(tensors))
    return out
