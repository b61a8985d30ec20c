"""The full-resolution cosine loss, computed exactly from low-resolution embeddings (docs/losses.md).

With V = Σ_k w_k v_k the bilinear mixture of a pixel's neighbours, a label's cosine is ``(Σ_k w_k e_j · v_k) / |V|``.
So it is enough to upsample the N logits instead of the C channels, and to know |V|², which needs only inner
products of neighbouring embeddings.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from labelmerge.losses.bilinear import bilinear_matrix_on
from labelmerge.losses.chunked import CrossEntropy, TableCrossEntropy
from labelmerge.losses.table import LabelTable

_log = logging.getLogger(__name__)

Kernel = Literal["auto", "chunked", "fused"]
TableKind = Literal["none", "sets", "soft"]
Present = Literal["none", "allowed", "competing"]


def pixel_cosine_loss(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor | float,
    ignore_index: int = 255,
    *,
    allowed: Tensor | None = None,
    table: LabelTable | None = None,
    competing: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
    kernel: Kernel = "auto",
) -> Tensor:
    """Cross-entropy over cosine similarity / temperature at every pixel of the full-size image (SSIW eq. 1–3, L_HD).

    Equal to upsampling `v` to H×W (bilinear, ``align_corners=False``), normalising it and taking the cross-entropy of
    its cosines with `labels` over `tau`; values and gradients are the same, but no H·W·C and no H·W·N tensor is made.
    Gradients reach `v`, `labels` and `tau`. Everything is computed in float32 (float64 where `v` is float64), also
    under autocast; the fused kernel rounds gradients to bfloat16 where `v` is bfloat16. The same input gives the same
    bits on the same device in every run.

    Args:
        v: pixel embeddings [B, C, h, w] of any length, any float dtype.
        labels: label vectors [N, C] of unit length.
        targets: class of each pixel [B, H, W], integers in 0..N-1 (with `table`: its label, in 0..L-1) or
            `ignore_index`. Any size; it need not be a multiple of h×w.
        tau: the temperature, positive: a number or a tensor with one element.
        ignore_index: the target that means "no label".
        allowed: bool [B, N]; the softmax of an image runs over its own allowed labels only (all by default). A pixel
            whose label is not allowed has an infinite loss; with `table`, one that none of its label's positives is
            allowed for, or not all that `table.target` asks for.
        table: what each label may stand for and what competes with it, on the device of `v` (docs/losses.md). None,
            the default, is the table of N labels with one column each, against which all others compete fully.
        competing: bool [B, N], with `table` and in place of `allowed`: the columns that compete in an image. The others
            are right there for the labels that may stand for them, and for all others neither right nor wrong: classes
            that the image was not annotated for.
        reduction: ``"mean"`` over all labelled pixels of the batch together (0 where there are none), or ``"none"``.
        kernel: ``"chunked"``, in torch, on any device; ``"fused"``, in Triton, on CUDA and not in float64; or
            ``"auto"``, which takes the fused one where it works.

    Returns:
        A scalar, or with ``reduction="none"`` the losses [B, H, W], 0 where there is no label.

    Raises:
        ValueError: shapes that do not fit, an `ignore_index` that is one of the N classes (L labels), a table that is
            on another device, `competing` without a table or with `allowed`, or a kernel that does not exist or
            cannot run here.
    """
    losses = _pixel_losses(v, labels, targets, tau, ignore_index, allowed, table, competing, kernel)
    if reduction == "none":
        return losses
    return losses.sum() / (targets != ignore_index).sum().clamp(min=1)


def trimmed_pixel_cosine_loss(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor | float,
    ignore_index: int = 255,
    *,
    allowed: Tensor | None = None,
    table: LabelTable | None = None,
    competing: Tensor | None = None,
    drop: float = 0.3,
    kernel: Kernel = "auto",
) -> Tensor:
    """The same for noisy masks: each image's largest losses are taken for mistakes of its mask (SSIW eq. 4–5, L_LD).

    Of the n labelled pixels of an image, the ⌊drop · n⌋ with the largest losses do not count.

    Args:
        drop: the share to drop, 0 ≤ drop < 1. The other arguments are those of `pixel_cosine_loss`.

    Returns:
        The mean over all kept pixels of the batch together: a scalar, 0 where no pixel is labelled.

    Raises:
        ValueError: as `pixel_cosine_loss`, or `drop` is out of range.
    """
    if not 0 <= drop < 1:
        raise ValueError(f"drop must be at least 0 and below 1, not {drop}")
    losses = _pixel_losses(v, labels, targets, tau, ignore_index, allowed, table, competing, kernel).flatten(1)
    labelled = (targets != ignore_index).flatten(1)
    dropped = (drop * labelled.sum(dim=1, keepdim=True)).long()
    # Sorted rather than compared with a quantile, so that ties do not change how many are dropped. Unlabelled
    # pixels sort last and are masked out.
    order = losses.detach().masked_fill(~labelled, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(order.shape[1], device=order.device).expand_as(order)
    kept = torch.empty_like(labelled).scatter_(1, order, rank >= dropped) & labelled
    # Not `losses * kept`: a dropped loss may be infinite.
    return losses.masked_fill(~kept, 0).sum() / kept.sum().clamp(min=1)


def _pixel_losses(
    v: Tensor,
    labels: Tensor,
    targets: Tensor,
    tau: Tensor | float,
    ignore_index: int,
    allowed: Tensor | None,
    table: LabelTable | None,
    competing: Tensor | None,
    kernel: Kernel,
) -> Tensor:
    """The losses [B, H, W], 0 where there is no label."""
    if v.ndim != 4 or labels.ndim != 2 or labels.shape[1] != v.shape[1]:
        raise ValueError(f"v {tuple(v.shape)} and labels {tuple(labels.shape)} are not [B, C, h, w] and [N, C]")
    if targets.ndim != 3 or targets.shape[0] != v.shape[0]:
        raise ValueError(f"targets {tuple(targets.shape)} are not [B, H, W] with the B of v {tuple(v.shape)}")
    for name, each in (("allowed", allowed), ("competing", competing)):
        if each is not None and each.shape != (v.shape[0], labels.shape[0]):
            raise ValueError(f"{name} {tuple(each.shape)} is not [B, N] = [{v.shape[0]}, {labels.shape[0]}]")
    if competing is not None and (table is None or allowed is not None):
        raise ValueError("competing needs a table, and takes the place of allowed")
    classes, columns = (labels.shape[0],) * 2 if table is None else table.positive.shape
    if columns != labels.shape[0]:
        raise ValueError(f"the table [{classes}, {columns}] is not [L, N] with N = {labels.shape[0]}")
    if table is not None and table.bias.device != v.device:
        raise ValueError(f"the table is on {table.bias.device}, v on {v.device}: take it there once, by table.to")
    if 0 <= ignore_index < classes:
        kind = "classes" if table is None else "labels"
        raise ValueError(f"ignore_index {ignore_index} is also one of the {classes} {kind}")
    # bfloat16 logits over a temperature of 0.07 would be noise, so the caller's autocast does not reach in here.
    with torch.autocast(v.device.type, enabled=False):
        dtype = torch.float64 if v.dtype == torch.float64 else torch.float32
        if not isinstance(tau, Tensor):
            tau = torch.full((), tau, dtype=dtype, device=v.device)
        labels, tau = labels.to(dtype), tau.to(v.device, dtype).reshape(())
        if allowed is not None:
            # An image without any allowed label has no labelled pixel; all labels keep its softmax finite.
            allowed = allowed | ~allowed.any(dim=1, keepdim=True)
        present = competing if allowed is None else allowed
        limits: Present = "none" if present is None else "allowed" if competing is None else "competing"
        if _takes_fused(kernel, v, targets.numel(), limits, table):
            from labelmerge.losses.fused import fused_pixel_losses

            with torch.cuda.device(v.device) if v.is_cuda else nullcontext():
                return fused_pixel_losses(
                    v, labels, targets, tau, ignore_index, present, table, positives_stay=competing is not None
                )
        v = v.to(dtype)
        height, width = targets.shape[1:]
        low = torch.einsum("nc,bchw->bnhw", labels, v)
        scale = _upsampled_length(v, height, width).reciprocal() / tau
        targets = targets.long()
        labelled = targets != ignore_index
        targets = targets.masked_fill(~labelled, 0)
        losses: Tensor
        if table is None:
            losses = CrossEntropy.apply(low, scale, targets, labelled, allowed)
        else:
            bias, wanted = (each if each is None else each.to(dtype) for each in (table.bias, table.wanted))
            stay = competing is not None
            losses = TableCrossEntropy.apply(low, scale, targets, labelled, present, stay, table, bias, wanted)
        return losses


def _takes_fused(kernel: Kernel, v: Tensor, pixels: int, present: Present, table: LabelTable | None) -> bool:
    """Whether the fused kernel is to be taken; ValueError where it is asked for and cannot be."""
    if kernel not in ("auto", "chunked", "fused"):
        raise ValueError(f"kernel must be auto, chunked or fused, not {kernel}")
    if kernel == "auto":
        # The kernel counts pixels in 32 bits, some of them padding.
        suits = v.is_cuda and v.dtype != torch.float64 and v.numel() > 0 and pixels < 2**29
        kind: TableKind = "none" if table is None else "sets" if table.target is None else "soft"
        return suits and _fused_works(v.device, v.dtype, present, kind)
    if kernel == "fused":
        if v.dtype == torch.float64:
            raise ValueError("the fused kernel computes in float32; float64 needs kernel='chunked'")
        if pixels >= 2**29:
            raise ValueError(f"{pixels} pixels at once are too many for the fused kernel, which takes {2**29 - 1}")
        if find_spec("triton") is None:
            raise ValueError("the fused kernel needs Triton: pip install triton")
        from labelmerge.losses.fused import is_interpreted

        if not (v.is_cuda or is_interpreted()):
            raise ValueError(f"the fused kernel needs a CUDA device, and v is on {v.device}")
    return kernel == "fused"


@lru_cache
def _fused_works(device: torch.device, dtype: torch.dtype, present: Present, kind: TableKind = "none") -> bool:
    """Whether the fused kernel compiles here and agrees with the chunked one on a small example; if not, a warning."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(2, 16, 6, 7, generator=generator).to(device, dtype).requires_grad_()
    labels = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator), dim=1).to(device)
    targets = torch.randint(4, (2, 24, 28), generator=generator).to(device)
    most = (torch.arange(5, device=device) < 4).expand(2, -1)
    allowed, competing = (most if present == name else None for name in ("allowed", "competing"))
    tau = torch.full((), 0.07, device=device, requires_grad=True)
    table = None
    if kind != "none":
        positive = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
        share = positive / positive.sum(1, keepdim=True)
        negative = torch.rand(positive.shape, generator=generator).round(decimals=1)
        table = LabelTable(positive, negative, share if kind == "soft" else None).to(device)
    results = []
    try:
        for kernel in ("chunked", "fused"):
            with torch.enable_grad():
                loss = pixel_cosine_loss(
                    v, labels, targets, tau, allowed=allowed, table=table, competing=competing, kernel=kernel
                )
            results.append((loss.detach(), *torch.autograd.grad(loss, (v, tau))))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may raise
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    else:
        errors = [float((b - a).float().norm() / a.float().norm()) for a, b in zip(*results, strict=True)]
        if max(errors) < (1e-2 if dtype == torch.bfloat16 else 1e-3):
            return True
        reason = f"it is off by {max(errors):.2g} on a small example"
    _log.warning("The fused loss kernel does not work on %s (%s); the chunked one is used, slower", device, reason)
    return False


class _InnerProducts(torch.autograd.Function):
    """Inner products of v [B, C, h, w] over its channels: of each embedding with itself [B, h, w], with the one to its
    right [B, h, w - 1], with the one below [B, h - 1, w], and the mean of both diagonals [B, h - 1, w - 1].

    On a CPU a piece of an image at a time, which its caches hold, and in the layout of v. The bits are those of whole
    maps: sums are over the same numbers in the same order, and backward adds what autograd would, in its order.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(v)
        batch, channels, height, width = v.shape
        itself, right = v.new_empty(batch, height, width), v.new_empty(batch, height, width - 1)
        down, diagonal = v.new_empty(batch, height - 1, width), v.new_empty(batch, height - 1, width - 1)
        some, most = _piece(v)
        # Where channels are apart, torch adds them up in an order that depends on how many places there are.
        step = max(1, most // (channels * width)) if v.stride(1) == 1 else height
        for first in range(0, batch, some):
            images = slice(first, first + some)
            for start in range(0, height, step):
                rows, stop = slice(start, start + step), min(start + step, height - 1)
                before, here = slice(start, stop), v[images, :, rows]
                itself[images, rows] = (here * here).sum(1)
                right[images, rows] = (here[..., :-1] * here[..., 1:]).sum(1)
                if start < stop:
                    above, below = v[images, :, before], v[images, :, start + 1 : stop + 1]
                    down[images, before] = (above * below).sum(1)
                    both = above[..., :-1] * below[..., 1:] + above[..., 1:] * below[..., :-1]
                    diagonal[images, before] = both.sum(1) / 2
        return itself, right, down, diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, itself: Tensor, right: Tensor, down: Tensor, diagonal: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        batch, channels, height, width = v.shape
        # The gradient of the product of place k with place k + step, at k; 0 where that is not the neighbour.
        ahead = itself.new_zeros(4, batch, height, width)
        ahead[0, :, :-1, 1:] = ahead[1, :, :-1, :-1] = diagonal / 2
        ahead[2, :, :-1], ahead[3, :, :, :-1] = down, right
        steps = (width - 1, width + 1, width, 1)
        places = height * width
        layout = torch.channels_last if v.stride(1) == 1 else torch.contiguous_format
        whole = v.contiguous(memory_format=layout).flatten(2)
        grad = torch.zeros_like(whole)
        some, most = _piece(v)
        few = max(1, most // channels)
        for first in range(0, batch, some):
            images = slice(first, first + some)
            own, into, of_self = whole[images], grad[images], itself[images].reshape(-1, 1, places)
            for start in range(0, places, few):
                stop = min(start + few, places)
                for step, of in zip(steps, ahead[:, images].reshape(4, -1, 1, places), strict=True):
                    low, high = max(start, step), min(stop, places - step)
                    if low < stop:
                        into[..., low:stop] += of[..., low - step : stop - step] * own[..., low - step : stop - step]
                    if start < high:
                        into[..., start:high] += of[..., start:high] * own[..., start + step : high + step]
                twice = of_self[..., start:stop] * own[..., start:stop]
                into[..., start:stop] += twice
                into[..., start:stop] += twice
        return grad.view_as(v)


def _piece(v: Tensor) -> tuple[int, int]:
    """How many images are computed at once, and how many numbers of one: all of them but on a CPU."""
    return (1, 1 << 17) if v.device.type == "cpu" else (len(v), v.numel())


def _upsampled_length(v: Tensor, height: int, width: int) -> Tensor:
    """|V| at every pixel of the upsampled [B, C, height, width], as [B, height, width], without making V.

    |V|² is a quadratic form in the four neighbours: ten inner products per low-resolution cell, which are four maps of
    inner products (with itself, right, down, and the mean of both diagonals), each upsampled by its own weights.
    """
    rows = bilinear_matrix_on(v.shape[2], height, v.device, v.dtype)
    columns = bilinear_matrix_on(v.shape[3], width, v.device, v.dtype)
    itself, right, down, diagonal = _InnerProducts.apply(v)
    rows_same, rows_cross = rows.square(), 2 * rows[:, :-1] * rows[:, 1:]
    columns_same, columns_cross = columns.square().T, (2 * columns[:, :-1] * columns[:, 1:]).T
    square = rows_same @ (itself @ columns_same + right @ columns_cross)
    square = square + rows_cross @ (down @ columns_same + diagonal @ columns_cross)
    # Where neighbours cancel, |V|² is a difference of large numbers: below the rounding error of its summands it means
    # nothing (it may be negative), and the direction of V is as arbitrary in the literal computation.
    with torch.no_grad():
        floor = 16 * torch.finfo(v.dtype).eps * (rows @ itself @ columns.T) + 1e-24
    return torch.where(square > floor, square, floor).sqrt()
