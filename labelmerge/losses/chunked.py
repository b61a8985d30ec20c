"""The cross-entropies of the pixel losses in plain torch: a few rows of pixels at a time, computed again backward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from labelmerge.losses.bilinear import bilinear_matrix_on, rows_read
from labelmerge.losses.table import NOTHING, LabelTable

# How many of the B·N·H·W logits exist at one time: on a CPU about what its caches hold, elsewhere what keeps it busy.
_CHUNK = {"cpu": 1 << 20}
_CHUNK_ELSEWHERE = 1 << 25

_LOG2E, _LN2 = 1 / math.log(2), math.log(2)
_FLOOR = -1e37  # of log-sum-exps: above NOTHING, so that what does not compete has no gradient where all do not


class CrossEntropy(torch.autograd.Function):
    """Cross-entropy [B, H, W] of the logits ``scale · upsampled(low)``, a few rows at a time; computed again backward.

    low [B, N, h, w], scale [B, H, W], targets int64 [B, H, W] within 0..N-1, labelled bool [B, H, W], allowed bool
    [B, N] or None.
    """

    @staticmethod
    def forward(
        ctx: Any, low: Tensor, scale: Tensor, targets: Tensor, labelled: Tensor, allowed: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(low, scale, targets, labelled, allowed)
        losses = torch.empty_like(scale)
        for here, raw, _, _, _ in _chunks(low, scale):
            logits = _logits(raw, scale[:, here], allowed)
            own = logits.gather(1, targets[:, None, here]).squeeze(1)
            losses[:, here] = logits.logsumexp(1) - own
        return losses.masked_fill_(~labelled, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        low, scale, targets, labelled, allowed = ctx.saved_tensors
        grad = grad.masked_fill(~labelled, 0)
        grad_low, grad_scale = torch.zeros_like(low), torch.empty_like(scale)
        for here, raw, read, rows, columns in _chunks(low, scale):
            scale_here, grad_here, target = scale[:, None, here], grad[:, None, here], targets[:, None, here]
            # d loss / d logits = softmax - one-hot
            out = _logits(raw, scale[:, here], allowed).softmax(1).mul_(grad_here)
            out.scatter_(1, target, out.gather(1, target) - grad_here)
            grad_scale[:, here] = (out * raw).sum(1)
            grad_low[:, :, read] += rows.T @ (out.mul_(scale_here) @ columns)
        return grad_low, grad_scale, None, None, None


class TableCrossEntropy(torch.autograd.Function):
    """The same with a `LabelTable`; targets are labels within 0..L-1. bias [L, N], wanted [L, N] or None: the table's.
    `stay`: columns that are not allowed do not compete, and are positives all the same.

    Logits are to base 2. A pixel has *neg*, the log-sum-exp of what competes with its label, and *pos*, that
    of the label's positives: the loss is log(1 + exp(neg - pos)), which is exactly 0 where nothing competes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        low: Tensor,
        scale: Tensor,
        targets: Tensor,
        labelled: Tensor,
        allowed: Tensor | None,
        stay: bool,
        table: LabelTable,
        bias: Tensor,
        wanted: Tensor | None,
    ) -> Tensor:
        losses, lses, pulls = (torch.empty_like(scale) for _ in range(3))
        for here, raw, _, _, _ in _chunks(low, scale, 4 * table.columns.shape[1]):
            scale_here, target = scale[:, None, here] * _LOG2E, targets[:, here]
            neg = _log_sum_exp2(_negatives(raw, scale_here, target, bias, allowed))
            columns, first, banned = _positives(target, table, None if stay else allowed)
            z = raw.gather(1, columns).mul_(scale_here)
            absent = ~first if banned is None else banned | ~first
            pos = _log_sum_exp2(z.masked_fill(absent, NOTHING))
            lse = torch.logaddexp2(neg, pos)
            if wanted is None:
                loss = torch.logaddexp2(neg - pos, torch.zeros_like(pos))
                lost = pos <= NOTHING / 2  # none of them is allowed
            else:
                share = wanted[target[:, None], columns] * first
                loss = lse - (share * z).sum(1)
                lost = (absent & (share > 0)).any(1)
            losses[:, here] = loss.mul_(_LN2).masked_fill_(lost, torch.inf)
            lses[:, here] = lse.clamp_(min=_FLOOR)
            # So that exp(z - pull) is a positive's share of them, exp(z - pos), times the probability of the others.
            pulls[:, here] = pos - neg + lse
        ctx.save_for_backward(low, scale, targets, labelled, allowed, bias, wanted, lses, pulls)
        ctx.table, ctx.stay = table, stay
        return losses.masked_fill_(~labelled, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        low, scale, targets, labelled, allowed, bias, wanted, lses, pulls = ctx.saved_tensors
        grad = grad.masked_fill(~labelled, 0)
        grad_low, grad_scale = torch.zeros_like(low), torch.empty_like(scale)
        for here, raw, read, rows, across in _chunks(low, scale, 4 * ctx.table.columns.shape[1]):
            scale_here, target = scale[:, None, here] * _LOG2E, targets[:, here]
            out = _negatives(raw, scale_here, target, bias, allowed).sub_(lses[:, None, here]).exp2_()
            columns, _, banned = _positives(target, ctx.table, None if ctx.stay else allowed)
            own = raw.gather(1, columns).mul_(scale_here)
            if wanted is None:
                own = own.sub_(pulls[:, None, here]).exp2_().neg_()
            else:
                own = own.sub_(lses[:, None, here]).exp2_().sub_(wanted[target[:, None], columns])
            if banned is not None:
                own.masked_fill_(banned, 0)
            # Where a column is repeated, the same number is written twice.
            out.scatter_(1, columns, own)
            grad_scale[:, here] = (out * raw).sum(1).mul_(grad[:, here])
            out.mul_(scale[:, None, here] * grad[:, None, here])
            grad_low[:, :, read] += rows.T @ (out @ across)
        return grad_low, grad_scale, None, None, None, None, None, None, None


def _negatives(raw: Tensor, scale: Tensor, target: Tensor, bias: Tensor, allowed: Tensor | None) -> Tensor:
    """What competes with each pixel's label: its logits + log2 of how much, [B, N, rows, W]; -inf for the positives."""
    batch, count, height, width = raw.shape
    # One number for each logit of the chunk, from the few rows of the table that are its labels'.
    every = bias[:, :count].T.expand(batch, -1, -1)
    index = target.reshape(batch, 1, -1).expand(-1, count, -1)
    z = every.gather(2, index).view(batch, count, height, width).addcmul_(raw, scale)
    return z if allowed is None else z.masked_fill_(~allowed[:, :, None, None], NOTHING)


def _positives(target: Tensor, table: LabelTable, allowed: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Columns of each pixel's label [B, K, rows, W]; which are no repetition; which are not allowed (None: all are)."""
    counts = table.counts[target][:, None]
    # Mostly far fewer than the table's K; but a GPU would be waited for.
    most = int(counts.max()) if target.device.type == "cpu" else table.columns.shape[1]
    columns = table.columns[:, :most][target].movedim(-1, 1).contiguous()
    first = torch.arange(most, device=target.device)[:, None, None] < counts
    banned = None if allowed is None else ~allowed.gather(1, columns.flatten(1)).view_as(columns)
    return columns, first, banned


def _log_sum_exp2(z: Tensor) -> Tensor:
    """log2 Σ 2^z along the first axis after the batch's; -inf where all are. `z` is written to."""
    most = z.amax(1).clamp_(min=NOTHING)
    return z.sub_(most[:, None]).exp2_().sum(1).log2_().add_(most)


def _logits(raw: Tensor, scale: Tensor, allowed: Tensor | None) -> Tensor:
    logits = raw * scale[:, None]
    return logits if allowed is None else logits.masked_fill_(~allowed[:, :, None, None], -torch.inf)


def _chunks(low: Tensor, scale: Tensor, more: int = 0) -> Iterator[tuple[slice, Tensor, slice, Tensor, Tensor]]:
    """Some output rows at a time: (which, their upsampled logits, the low rows they read, weights of rows, of columns).

    The upsampled logits [B, N, rows, W] are ``weights_rows @ low[:, :, read] @ weights_columns.T``. The caller makes
    `more` numbers for each pixel besides.
    """
    (batch, count, h, w), (height, width) = low.shape, scale.shape[1:]
    rows = bilinear_matrix_on(h, height, low.device, low.dtype)
    columns = bilinear_matrix_on(w, width, low.device, low.dtype)
    step = max(1, _CHUNK.get(low.device.type, _CHUNK_ELSEWHERE) // (batch * (count + more) * width))
    for first in range(0, height, step):
        here = slice(first, min(first + step, height))
        read = slice(*rows_read(h, here.start, here.stop, height))
        weights = rows[here, read]
        yield here, weights @ low[:, :, read] @ columns.T, read, weights, columns
