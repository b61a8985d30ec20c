"""The pixel loss on a GPU: matrix products by cuBLAS, everything at full size by Triton kernels (docs/losses.md)."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from labelmerge.losses import kernels, kernels_backward, kernels_products
from labelmerge.losses.bilinear import bilinear_gaps, bilinear_matrix
from labelmerge.losses.table import LabelTable

# One warp is one program: its 32 lanes lie along a row of gaps, whose logits are neighbours in memory.
_LANES = 32
# What is in registers at once. Backward, eight labels are faster than four on an H200, though a few numbers spill; with
# a table, which needs more registers, no difference showed.
_LABELS_FORWARD, _LABELS_BACKWARD, _LABELS_BACKWARD_TABLE = 4, 8, 4
_PIXELS_FORWARD, _PIXELS_BACKWARD = (2, 4), (4, 4)  # of a gap: rows and columns, at most
_MOST_PIXELS = 4
_ROWS_BACKWARD = 16  # rows of cells per program; one more row of gaps is computed
# The most registers of a thread, so that more warps run at once; None: as many as the compiler takes.
_REGISTERS_FORWARD: int | None = None
_REGISTERS_BACKWARD: int | None = None


def is_interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU (``TRITON_INTERPRET=1``), as the tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def fused_pixel_losses(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor,
    ignore_index: int,
    allowed: Tensor | None,
    table: LabelTable | None = None,
    positives_stay: bool = False,
) -> Tensor:
    """The losses [B, H, W] in float32, 0 where there is no label; NaN where a target is not a class.

    Args:
        v: [B, C, h, w], float32, float16 or bfloat16. Products with bfloat16 are taken as such: exact in the forward
            pass, where `labels` are split into two bfloat16 parts; the gradients are rounded to bfloat16.
        labels: float32 [N, C].
        targets: [B, H, W], integers of any kind.
        tau: float32, a scalar.
        allowed: bool [B, N] with at least one in each row, or None.
        table: on the device of `v`, with L labels, which the targets then are; or None.
        positives_stay: columns that are not allowed do not compete, and are positives all the same; only with a table.
    """
    arguments = (v, labels, targets.contiguous(), tau, ignore_index, allowed, table, positives_stay)
    losses: Tensor = _PixelLosses.apply(*arguments)
    return losses


def _blocks(count: int, size: int) -> int:
    return -(-count // size)


def _tile(v: Tensor) -> tuple[int, int]:
    """Channels and cells of one step, long where `v` is contiguous."""
    return (64, 16) if v.stride(1) == 1 else (8, 128)


def _matmul(a: Tensor, b: Tensor, onto: Tensor | None = None) -> Tensor:
    """a @ b for batches of matrices, or `onto` with it added, in float32 whatever the kind of the factors."""
    # Products of bfloat16 that come out in float32 are newer than the oldest torch that will do.
    if a.dtype == torch.float32 or not a.is_cuda or not hasattr(torch.ops.aten.baddbmm, "dtype_out"):
        return a.float() @ b.float() if onto is None else onto.baddbmm_(a.float(), b.float())
    if onto is None:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.baddbmm(onto, a, b, out_dtype=torch.float32, out=onto)


class _PixelLosses(torch.autograd.Function):
    """The whole way from v to the losses, in one piece: between two of them autograd would widen bfloat16 gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        labels: Tensor,
        targets: Tensor,
        tau: Tensor,
        ignore_index: int,
        allowed: Tensor | None,
        table: LabelTable | None,
        positives_stay: bool,
    ) -> Tensor:
        (batch, channels, h, w), (height, width), count = v.shape, targets.shape[1:], len(labels)
        flat = v.flatten(2)
        if v.dtype == torch.bfloat16:
            # Two bfloat16 numbers hold 16 of a label's 24 bits, and tensor cores multiply them at full speed.
            coarse = labels.bfloat16()
            low = _matmul(coarse.expand(batch, -1, -1), flat)
            low = _matmul((labels - coarse).bfloat16().expand(batch, -1, -1), flat, low)
        else:
            low = _matmul(labels.expand(batch, -1, -1), flat.float())
        products = v.new_empty(batch, 4, h, w, dtype=torch.float32)
        tile = _tile(v)
        kernels_products.products[(_blocks(batch * h * w, tile[1]),)](
            v, products, *v.stride(), batch * h * w, channels, h, w, *tile, enable_fp_fusion=True
        )
        rows, columns = _gaps(h, height, v.device), _gaps(w, width, v.device)
        (pixels_y, parts_y), (pixels_x, parts_x) = map(_Gaps.pieces, (rows, columns), _PIXELS_FORWARD)
        losses = low.new_empty(batch, height, width)
        slots = (h + 1) * rows.slots * batch * (w + 1) * columns.slots
        scale, half, lse, surplus = low.new_empty(4, slots).unbind()
        chosen = torch.empty_like(lse, dtype=torch.int32)
        bias, wanted, positives, counts, fours, classes, stride, most = _of_table(table)
        pulls = None if table is None else torch.empty_like(lse)
        grid = ((h + 1) * parts_y * parts_x, _blocks(batch * (w + 1), _LANES))
        kernels.forward[grid](
            low, products, tau, labels.norm(dim=1).amax(), targets, allowed,
            rows.starts, rows.shares, columns.starts, columns.shares,
            losses, scale, half, lse, surplus, chosen,
            bias, wanted, positives, counts, pulls,
            batch, count, h, w, height, width, ignore_index, classes, stride, most,
            allowed is not None, not positives_stay, table is not None, _LABELS_FORWARD,
            parts_y, parts_x, pixels_y, pixels_x, _LANES,
            num_warps=1, maxnreg=_REGISTERS_FORWARD, enable_fp_fusion=True,
        )  # fmt: skip
        ctx.save_for_backward(
            v, labels, tau, allowed, low, scale, half, lse, surplus, chosen, bias, wanted, fours, pulls
        )
        ctx.size, ctx.stride, ctx.everywhere = (height, width), stride, not positives_stay
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, labels, tau, allowed, low, scale, half, lse, surplus, chosen, bias, wanted, fours, pulls = ctx.saved_tensors
        (batch, _, h, w), (height, width), count = v.shape, ctx.size, len(labels)
        rows, columns = _gaps(h, height, v.device), _gaps(w, width, v.device)
        (pixels_y, parts_y), (pixels_x, parts_x) = map(_Gaps.pieces, (rows, columns), _PIXELS_BACKWARD)
        pieces = (parts_y, parts_x, pixels_y, pixels_x, _LANES)
        along = (rows.starts, rows.shares, columns.starts, columns.shares)
        grid: tuple[int, ...] = ((h + 1) * parts_y * parts_x, _blocks(batch * (w + 1), _LANES))
        grad_square = torch.empty_like(grad)
        strength, other = scale.new_empty(2, len(scale)).unbind()
        least, sums = scale.new_empty(2, *grid).unbind()
        owns = torch.empty(grid[0] * batch * (w + 1), dtype=torch.int64, device=v.device)
        kernels_backward.weigh[grid](
            grad.contiguous(), chosen, *along, scale, half, lse, surplus, fours,
            strength, other, owns, grad_square, least, sums,
            batch, h, w, height, width, *pieces, num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
        kind = torch.bfloat16 if v.dtype == torch.bfloat16 else torch.float32
        grad_low = v.new_empty(batch, count, h * w, dtype=kind)
        labels_at_once = _LABELS_BACKWARD if bias is None else _LABELS_BACKWARD_TABLE
        grid = (
            _blocks(count, labels_at_once),
            _blocks(batch * (w + 1), _LANES - 1),
            _blocks(h, _ROWS_BACKWARD),
        )
        kernels_backward.backward[grid](
            low, chosen, owns, allowed, *along, scale, lse, strength, other, least.amin(), grad_low,
            bias, wanted, pulls,
            batch, count, h, w, ctx.stride,
            allowed is not None, ctx.everywhere, bias is not None, labels_at_once, _ROWS_BACKWARD, *pieces,
            num_warps=1, maxnreg=_REGISTERS_BACKWARD, enable_fp_fusion=True,
        )  # fmt: skip
        # Of d loss / d log(scale), where scale is 1 / (|V| tau).
        grad_tau = -sums.sum() / tau if ctx.needs_input_grad[3] else None
        grad_v = grad_labels = None
        if ctx.needs_input_grad[0]:
            grad_v = _gradient_of_v(v, labels, grad_low, grad_square)
        if ctx.needs_input_grad[1]:
            grad_labels = _matmul(grad_low, v.flatten(2).to(grad_low.dtype).transpose(1, 2)).sum(0)
        return grad_v, grad_labels, None, grad_tau, None, None, None, None


def _of_table(
    table: LabelTable | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, int, int, int]:
    """What the kernels read: bias, wanted, columns, counts, fours; how many labels, how long rows, most positives."""
    if table is None:
        return None, None, None, None, None, 0, 0, 0
    bias, wanted = (each if each is None else each.float() for each in (table.bias, table.wanted))
    return bias, wanted, table.columns, table.counts, table.fours, *table.bias.shape, table.columns.shape[1]


def _gradient_of_v(v: Tensor, labels: Tensor, grad_low: Tensor, grad_square: Tensor) -> Tensor:
    """From those of the inner products with the labels, [B, N, h·w], and of |V|² at every pixel, [B, H, W]."""
    (batch, channels, h, w), (height, width) = v.shape, grad_square.shape[1:]
    kind = labels.to(grad_low.dtype).expand(batch, -1, -1)
    if v.stride(1) == 1:  # channels last, as v
        grad = (grad_low.transpose(1, 2) @ kind).view(batch, h, w, channels).permute(0, 3, 1, 2)
    else:
        grad = (kind.transpose(1, 2) @ grad_low).view(batch, channels, h, w)
    (rows_same, rows_cross), (columns_same, columns_cross) = (
        _square_weights(h, height, v.device),
        _square_weights(w, width, v.device),
    )
    same, cross = rows_same.T @ grad_square, rows_cross.T @ grad_square
    grad_products = torch.stack(
        (same @ columns_same, same @ columns_cross, cross @ columns_same, cross @ columns_cross), 1
    )
    tile, out = _tile(v), torch.empty_like(grad, dtype=v.dtype)
    kernels_products.products_backward[(_blocks(batch * h * w, tile[1]),)](
        v, grad_products, grad, out, *v.stride(), *grad.stride(),
        batch * h * w, channels, h, w, *tile, enable_fp_fusion=True,
    )  # fmt: skip
    return out


class _Gaps:
    """The pixels of the gaps along one axis, on the device.

    Attributes:
        starts: int32 [cells + 2], the first pixel of each gap, and the number of pixels.
        shares: float32 [pixels], the weight of the cell after the pixel.
        slots: room for as many pixels as the largest gap has, in whole pieces.
    """

    def __init__(self, cells: int, size: int, device: torch.device) -> None:
        starts, shares = bilinear_gaps(cells, size)
        largest = int(starts.diff().max())
        self.slots = _blocks(largest, piece := min(_MOST_PIXELS, 1 << (largest - 1).bit_length())) * piece
        self.starts, self.shares = starts.to(device, torch.int32), shares.to(device, torch.float32)

    def pieces(self, limit: int) -> tuple[int, int]:
        """How many of a gap's slots are computed at once, a power of two up to `limit`, and how many times."""
        pixels = min(limit, self.slots)
        return pixels, self.slots // pixels


@lru_cache(maxsize=64)
def _gaps(cells: int, size: int, device: torch.device) -> _Gaps:
    return _Gaps(cells, size, device)


@lru_cache(maxsize=64)
def _square_weights(cells: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[size, cells] each: the weights in |V|² of products within a cell, and of those with the next (the last: 0)."""
    matrix = bilinear_matrix(cells, size)
    cross = F.pad(2 * matrix[:, :-1] * matrix[:, 1:], (0, 1))
    return matrix.square().to(device, torch.float32), cross.to(device, torch.float32)
