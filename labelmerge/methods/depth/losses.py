"""Losses of a depth that is right up to scale and shift, each a value for every image.

Ranftl et al., "Towards Robust Monocular Depth Estimation" (MiDaS, TPAMI 2020): closed-form alignment (eq. 4–6), trimmed
errors (eq. 8), gradient matching at several scales (eq. 11). LeReS (Yin et al., CVPR 2021), which SSIW follows: depths
in place of disparities, and targets that are normalised by the mean and deviation of all but their extremes, so that
every image counts alike whatever its unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EXTREMES = 0.1  # the share of an image's nearest depths, and of its farthest, that doesn't normalise it
_LEAST = 1e-10  # of a prediction's variance, so that one that is the same everywhere can be divided by it


class Targets(NamedTuple):
    """Depths made ready to compare.

    Attributes:
        values: float ``[B, H, W]``, the normalised depths; 0 where they aren't known.
        known: bool ``[B, H, W]``.
        usable: bool ``[B]``: two pixels at least have different depths. Elsewhere any prediction is as good as another.
        mean, deviation: float ``[B]``, what the depths were normalised by, in their unit.
    """

    values: Tensor
    known: Tensor
    usable: Tensor
    mean: Tensor
    deviation: Tensor


def normalised(depths: Tensor, dtype: torch.dtype = torch.float32) -> Targets:
    """Depths by the mean and standard deviation of those between the lowest and the highest 10 %.

    Where these are all the same, by those of all.

    Args:
        depths: ``[B, H, W]``, 0 where they aren't known.
    """
    flat = depths.flatten(1).double()
    known = flat > 0
    count = known.sum(1, keepdim=True)
    ordered = flat.where(known, torch.inf).sort(dim=1).values
    place = torch.arange(flat.shape[1], device=flat.device)
    cut = (count * _EXTREMES).floor()
    inner = (place >= cut) & (place < count - cut)
    low = ordered.where(inner, torch.inf).amin(1, keepdim=True)
    high = ordered.where(inner, -torch.inf).amax(1, keepdim=True)
    inner = torch.where(high > low, inner, place < count)
    mean = ordered.where(inner, 0).sum(1, keepdim=True) / inner.sum(1, keepdim=True).clamp(min=1)
    squared = (ordered.where(inner, mean) - mean).square().sum(1, keepdim=True)
    deviation = (squared / inner.sum(1, keepdim=True).clamp(min=1)).sqrt()
    usable = (ordered.where(place < count, -torch.inf).amax(1) > ordered[:, 0]) & (count[:, 0] > 1)
    values = ((flat - mean) / deviation.where(usable[:, None], 1)).where(known & usable[:, None], 0)
    shape = depths.shape
    mean, deviation = (each[:, 0].to(dtype) for each in (mean, deviation))
    return Targets(values.to(dtype).view(shape), known.view(shape), usable, mean, deviation)


def aligned(predicted: Tensor, targets: Targets, how: str) -> Tensor:
    """The prediction, scaled and shifted in each image to fit the targets as well as it can.

    ``least_squares``: by the scale and shift of the least squared error over the known pixels; where that scale is not
    above 0, which would teach near to be far, by the one that makes the deviations agree. ``spread``: so that the
    medians and the mean deviations from them agree. ``normalised``: not at all, since the targets' own scale and shift
    are taken off (LeReS's image-level normalised regression).

    Args:
        predicted: float ``[B, H, W]``, any scale and shift.

    Returns:
        ``[B, H, W]``; gradients go through scale and shift, too.
    """
    if how == "normalised":
        return predicted
    pixels, known = predicted.flatten(1), targets.known.flatten(1)
    wanted, count = targets.values.flatten(1), known.sum(1, keepdim=True).clamp(min=1)
    if how == "spread":
        middle, own_middle = _median(pixels, known), _median(wanted, known)
        spread = (pixels - middle).abs().where(known, 0).sum(1, keepdim=True) / count
        own_spread = (wanted - own_middle).abs().where(known, 0).sum(1, keepdim=True) / count
        out: Tensor = (pixels - middle) * (own_spread / (spread + _LEAST**0.5)) + own_middle
        return out.view(predicted.shape)
    mean = pixels.where(known, 0).sum(1, keepdim=True) / count
    own_mean = wanted.where(known, 0).sum(1, keepdim=True) / count
    centred, own = (pixels - mean).where(known, 0), (wanted - own_mean).where(known, 0)
    variance = centred.square().sum(1, keepdim=True) / count + _LEAST
    covariance = (centred * own).sum(1, keepdim=True) / count
    deviation = (own.square().sum(1, keepdim=True) / count).sqrt()
    scale = torch.where(covariance > 0, covariance / variance, deviation / variance.sqrt())
    return ((pixels - mean) * scale + own_mean).view(predicted.shape)


def _median(values: Tensor, known: Tensor) -> Tensor:
    """The lower median of the known values of each row, ``[B, 1]``; 0 where there are none."""
    median = values.where(known, torch.nan).nanmedian(dim=1, keepdim=True).values
    return median.where(known.any(1, keepdim=True), 0)


def depth_errors(fitted: Tensor, targets: Targets, trim: float = 0.0) -> Tensor:
    """The mean absolute error of each image over its known pixels, ``[B]``; 0 where it is not usable.

    Args:
        fitted: as `aligned` gives it.
        trim: the share of the pixels, those with the largest errors, that is left out.
    """
    known = targets.known.flatten(1)
    errors = (fitted - targets.values).abs().flatten(1)
    count = known.sum(1)
    if trim:
        kept = count - (count * trim).floor().long()
        ordered = errors.where(known, torch.inf).sort(dim=1).values
        inside = torch.arange(errors.shape[1], device=errors.device) < kept[:, None]
        return (ordered.where(inside, 0).sum(1) / kept.clamp(min=1)).where(targets.usable, 0)
    return (errors.where(known, 0).sum(1) / count.clamp(min=1)).where(targets.usable, 0)


def gradient_errors(fitted: Tensor, targets: Targets, scales: int) -> Tensor:
    """How much the error's slopes, down and across, differ from 0 in each image, ``[B]``; 0 where it is not usable.

    At every scale pixels are taken 1, 2, 4, … apart. Slopes are between neighbours that are both known; their sum is
    divided by the number of known pixels of that scale, and scales are added up.
    """
    total = fitted.new_zeros(len(fitted))
    for number in range(scales):
        step = 2**number
        known = targets.known[:, ::step, ::step]
        error = (fitted - targets.values)[:, ::step, ::step].where(known, 0)
        sums = total.new_zeros(len(total))
        for dim in (1, 2):
            length = error.shape[dim] - 1
            if length < 1:
                continue
            both = known.narrow(dim, 1, length) & known.narrow(dim, 0, length)
            slopes = (error.narrow(dim, 1, length) - error.narrow(dim, 0, length)).abs()
            sums = sums + slopes.where(both, 0).sum((1, 2))
        total = total + sums / known.sum((1, 2)).clamp(min=1)
    return total.where(targets.usable, 0)
