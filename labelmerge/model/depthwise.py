"""Mix-FFN's 3 × 3 convolution of each channel by itself with the GELU after it, in one pass on a GPU."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# A program's part of an image; 8 and 20 divide the maps of usual crops.
_TILE = {"ROWS": 20, "PIXELS": 8, "CHANNELS": 128}

_log = logging.getLogger(__name__)


def suits(x: Tensor) -> bool:
    """Whether `depthwise_gelu` is for it: half precision on a GPU, and not in `torch.compile`, which has its own."""
    if torch.compiler.is_compiling() or x.dtype not in (torch.bfloat16, torch.float16):
        return False
    return x.is_cuda and x.numel() > 0 and _works(x.device, x.dtype)


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU of the convolution (stride 1, zeros around), whose result is not kept: the gradient computes it again.

    Args:
        x: [B, H, W, C], contiguous.
        weight: float32 [C, 1, 3, 3].
        bias: float32 [C].

    Returns:
        [B, H, W, C] in the dtype of `x`; computed in float32.
    """
    out: Tensor = _DepthwiseGelu.apply(x, weight, bias)
    return out


class _DepthwiseGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        from labelmerge.model import depthwise_kernels as kernels

        x, bias = x.contiguous(), bias.float()
        nine = weight.flatten(1).T.float().contiguous()
        ctx.save_for_backward(x, nine, bias)
        ctx.kinds = weight.shape, weight.dtype, bias.dtype
        out = torch.empty_like(x)
        kernels.convolve[_grid(x)](x, nine, bias, out, *x.shape[1:], HAS_GELU=True, **_TILE)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from labelmerge.model import depthwise_kernels as kernels

        x, nine, bias = ctx.saved_tensors
        grad, before, out = grad.contiguous(), torch.empty_like(x), torch.empty_like(x)
        grid = _grid(x)
        sums = x.new_empty(grid[0], 10, x.shape[3], dtype=torch.float32)
        kernels.backward[grid](x, nine, bias, grad, before, sums, *x.shape[1:], **_TILE, num_warps=8)
        kernels.convolve[grid](before, nine.flip(0), bias, out, *x.shape[1:], HAS_GELU=False, **_TILE)
        shape, kind, bias_kind = ctx.kinds
        total = sums.sum(0)
        return out, total[:9].T.reshape(shape).to(kind), total[9].to(bias_kind)


def _grid(x: Tensor) -> tuple[int, int]:
    batch, height, width, channels = x.shape
    rows, pixels, some = (
        -(-size // tile) for size, tile in zip((height, width, channels), _TILE.values(), strict=True)
    )
    return batch * rows * pixels, some


@lru_cache
def _works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels compile here and agree with torch's own on a small example; if not, a warning."""
    if find_spec("triton") is None:
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 7, 96, generator=generator).to(device, dtype)
    weight, bias = (torch.randn(*shape, generator=generator).to(device) for shape in ((96, 1, 3, 3), (96,)))
    found = []
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            for ours in (False, True):
                given = [each.detach().clone().requires_grad_() for each in (x, weight, bias)]
                if ours:
                    out = depthwise_gelu(*given)
                else:
                    image = given[0].float().permute(0, 3, 1, 2)
                    out = F.gelu(F.conv2d(image, given[1], given[2], padding=1, groups=96)).permute(0, 2, 3, 1)
                found.append([out.detach(), *torch.autograd.grad(out.float().square().sum(), given)])
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may raise
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    else:
        errors = [float((b.float() - a.float()).norm() / a.float().norm()) for a, b in zip(*found, strict=True)]
        if max(errors) < 2e-2:
            return True
        reason = f"it is off by {max(errors):.2g} on a small example"
    _log.warning("The depthwise kernel does not work on %s (%s); torch's own is used, slower", device, reason)
    return False
