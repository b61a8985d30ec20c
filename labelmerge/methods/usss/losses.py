"""The losses of USSS (Kalluri et al., ICCV 2019), summed over pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from labelmerge.labels import IGNORE


def supervised_sums(logits: Tensor, targets: Tensor, closed: Tensor | None = None) -> Tensor:
    """Cross-entropy of one dataset's decoder at every labelled pixel (eq. 1).

    Args:
        logits: ``[B, K, h, w]``, upsampled here (bilinear) to the size of the masks.
        targets: int64 ``[B, H, W]``, the dataset's own classes, `IGNORE` for none.
        closed: bool ``[B, K]``, the classes that do not compete in an image, but are right where it has them.

    Returns:
        A scalar, the sum over the labelled pixels.
    """
    upsampled = interpolate(logits.float(), targets.shape[1:], mode="bilinear", align_corners=False)
    if closed is not None:
        classes = torch.arange(closed.shape[1], device=targets.device)[None, :, None, None]
        upsampled = upsampled.masked_fill(closed[:, :, None, None] & (targets[:, None] != classes), -torch.inf)
    return cross_entropy(upsampled, targets, ignore_index=IGNORE, reduction="sum")


def entropy_sums(
    projected: Tensor,
    embeddings: Tensor,
    upsample: Callable[[Tensor], Tensor],
    balance: float = 0.0,
    inside: Tensor | None = None,
) -> Tensor:
    """The entropy of a pixel's similarities to one dataset's label embeddings (eq. 2–4), over all pixels.

    Args:
        projected: E(F(x)), ``[B, d, h, w]``, not normalised. Similarities are linear in it, so they are upsampled in
            its place.
        embeddings: ``[K, d]``, of unit length.
        upsample: maps of that grid → maps of the images' pixels.
        balance: how much of the entropy of each image's mean distribution is taken off, which all pixels at one label
            would make 0, too (information maximisation: Krause et al., NeurIPS 2010; not in the paper).
        inside: bool ``[B, H, W]``, the pixels that count; all where it is None.

    Returns:
        A scalar, the sum over the pixels; the entropy of one is within 0 to ln K.
    """
    similar = torch.einsum("bdhw,kd->bkhw", projected.float(), embeddings)
    log_p = upsample(similar).log_softmax(1)
    p = log_p.exp()
    if inside is not None:
        p = p * inside[:, None]
    total = -(p * log_p).sum()
    if balance:
        all_pixels = p.new_full((len(p), 1), p.shape[2] * p.shape[3])
        pixels = all_pixels if inside is None else inside.flatten(1).sum(1, keepdim=True)  # [B, 1]
        mean = p.sum((2, 3)) / pixels  # [B, K]
        total = total + balance * (pixels * torch.xlogy(mean, mean)).sum()
    return total
