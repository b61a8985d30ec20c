"""Losses of pairs of pixels: which of two is farther, and how their surfaces lie to each other.

Both are LeReS's (Yin et al., CVPR 2021), which SSIW follows. Pairs lie across edges, where a depth is most often wrong
(Xian et al., "Structure-Guided Ranking Loss for Single Image Depth Prediction", CVPR 2020), or anywhere. They are drawn
by the depths of the view itself: neither the number of processes nor an interruption changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from labelmerge.methods.depth.losses import Targets, aligned

_SIDE = 448  # LeReS's views, in whose pixels it tells distances
_RANKED, _TURNED = (2, 30), (3, 19)  # how far the points of a pair are from their edge
_LEAST = (2, 4)  # in small views, where these would be less than the width of an edge
_SAME = 0.03  # depths that differ by less are equal
_STRONG = 0.1  # of the strongest edge of an image: what counts as one
_SHARP, _FLAT = 0.3, 0.95  # cosines between normals: edges that are bent less, and those that are none
_ARM = 2  # pixels from a normal to the points that it is read off


class Pairs(NamedTuple):
    """Flat places of the pixels that are compared, int64 ``[P]`` each."""

    first: Tensor
    second: Tensor

    def where(self, known: Tensor) -> Pairs:
        """Those of which both are known, bool ``[H·W]``."""
        both = known[self.first] & known[self.second]
        return Pairs(self.first[both], self.second[both])

    def and_(self, others: Pairs) -> Pairs:
        """These, then the others."""
        return Pairs(torch.cat([self.first, others.first]), torch.cat([self.second, others.second]))


def ranking_errors(fitted: Tensor, targets: Targets, depths: Tensor, images: Tensor) -> Tensor:
    """The error of the order of pairs in each image, ``[B]``; 0 where it is not usable.

    With d = fitted[first] − fitted[second]: log(1 + exp(∓d)) where the first is farther or nearer by at least 3 %, d²
    where the two are equal. A mean over pairs, half of them across edges of the image.

    Args:
        fitted: as `aligned` gives it, ``[B, H, W]``.
        depths: ``[B, H, W]``, 0 where they aren't known.
        images: ``[B, 3, H, W]``, of any range.
    """
    return _each(targets, fitted, lambda place: _order(fitted[place], depths[place], images[place]))


def normal_errors(predicted: Tensor, targets: Targets, depths: Tensor, images: Tensor, field_of_view: float) -> Tensor:
    """The error of the angles between the surfaces of pairs in each image, ``[B]``; 0 where it is not usable.

    The difference of the cosines between the normals of two pixels (LeReS, eq. 4), its mean over pairs across bends,
    over pairs across edges where the surface has none, and over pairs anywhere: these are added up. Edges are those of
    the image and of the true normals, away from those of the depths. Depths become points of a pinhole camera whose
    axis is the view's centre. (LeReS also has pairs on planes, where a dataset knows them.)

    Args:
        predicted: ``[B, H, W]``, any scale and shift; it is aligned by least squares.
        depths, images: as in `ranking_errors`.
        field_of_view: of the view's longer side, in degrees.
    """
    size = predicted.shape[1:]
    focal = max(size) / (2 * math.tan(math.radians(field_of_view) / 2))
    unit = depths.flatten(1).amax(1).clamp(min=1).to(predicted.dtype)
    shift, spread = (each / unit for each in (targets.mean, targets.deviation))
    found = aligned(predicted, targets, "least_squares") * spread[:, None, None] + shift[:, None, None]
    own, true = normals(found, focal), normals(depths / unit[:, None, None], focal)
    known = _eroded(targets.known, _ARM)
    return _each(targets, predicted, lambda k: _angles(own[k], true[k], known[k], depths[k], images[k]))


def normals(depths: Tensor, focal: float) -> Tensor:
    """Unit normals ``[B, 3, H, W]`` of a surface ``[B, H, W]``; 0 at its border, where they aren't known.

    Read off the points two pixels left and right, above and below, of the pinhole camera with this focal length in
    pixels.
    """
    height, width = depths.shape[1:]
    y, x = (
        (torch.arange(side, device=depths.device, dtype=depths.dtype) - (side - 1) / 2) / focal
        for side in (height, width)
    )
    points = torch.stack([depths * x, depths * y[:, None], depths], dim=1)
    inner = slice(_ARM, -_ARM)
    across = points[:, :, inner, 2 * _ARM :] - points[:, :, inner, : -2 * _ARM]
    down = points[:, :, 2 * _ARM :, inner] - points[:, :, : -2 * _ARM, inner]
    return F.pad(F.normalize(torch.linalg.cross(across, down, dim=1), dim=1), (_ARM,) * 4)


def edges(maps: Tensor) -> tuple[Tensor, Tensor]:
    """How strong the edge at each pixel is, and the angle that leads across it; ``[H, W]`` each, of maps ``[C, H, W]``.

    Sobel's gradients of all channels: the length of them all, and their common direction (of the structure tensor).
    There is none at the border.
    """
    kernel = maps.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    both = torch.stack([kernel, kernel.T])[:, None]
    gx, gy = F.pad(F.conv2d(maps[:, None], both), (1, 1, 1, 1)).unbind(1)
    xx, yy, xy = gx.square().sum(0), gy.square().sum(0), (gx * gy).sum(0)
    return (xx + yy).sqrt(), torch.atan2(2 * xy, xx - yy) / 2


def across(strength: Tensor, angle: Tensor, distances: tuple[int, int], generator: torch.Generator) -> Pairs:
    """Pairs about edges: of four points on a line across each, two on either side, those that are neighbours.

    As many edges are drawn as there are. Points outside the image are left out.

    Args:
        strength, angle: as `edges` gives them.
        distances: the least and the largest from the edge, in pixels of LeReS's views.
        generator: of the CPU.
    """
    height, width = strength.shape
    places = ((strength >= _STRONG * strength.max()) & (strength > 0)).flatten().nonzero().flatten()
    count = len(places)
    scale = min(height, width) / _SIDE
    low, high = (max(least, round(side * scale)) for least, side in zip(_LEAST, distances, strict=True))
    drawn = torch.randint(max(1, count), (count,), generator=generator).to(places.device)
    away = torch.randint(low, high + 1, (4, count), generator=generator).to(places.device)
    away = away * away.new_tensor([-1, -1, 1, 1])[:, None]
    anchors = places[drawn]
    turned = angle.flatten()[anchors]
    rows = anchors // width + (away * turned.sin()).round().long()
    columns = anchors % width + (away * turned.cos()).round().long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = rows * width + columns
    both = (inside[:-1] & inside[1:]).flatten()
    return Pairs(flat[:-1].flatten()[both], flat[1:].flatten()[both])


def anywhere(known: Tensor, count: int, generator: torch.Generator) -> Pairs:
    """At most `count` pairs of known pixels, bool ``[H·W]``, none of them in two."""
    places = known.nonzero().flatten()
    count = min(count, len(places) // 2)
    drawn = places[torch.randperm(len(places), generator=generator)[: 2 * count].to(places.device)]
    return Pairs(drawn[:count], drawn[count:])


def order_error(fitted: Tensor, depths: Tensor, pairs: Pairs) -> Tensor:
    """The mean of the ranking loss over pairs; fitted and depths ``[H·W]``. 0 where there are no pairs."""
    difference = fitted[pairs.first] - fitted[pairs.second]
    ratio = depths[pairs.first].double() / depths[pairs.second].double()
    sign = (ratio >= 1 + _SAME).to(difference.dtype) - (ratio <= 1 / (1 + _SAME)).to(difference.dtype)
    each = torch.where(sign == 0, difference.square(), F.softplus(-sign * difference))
    return each.sum() / max(1, len(each))


def angle_error(own: Tensor, true: Tensor, pairs: Pairs, chosen: Tensor) -> Tensor:
    """The mean difference of cosines over the `chosen` pairs, bool ``[P]``; normals ``[3, H·W]``. 0 without pairs."""
    first, second = pairs.first[chosen], pairs.second[chosen]
    cosines = ((normal[:, first] * normal[:, second]).sum(0) for normal in (own, true))
    found, wanted = cosines
    return (found - wanted).abs().sum() / max(1, len(first))


def _order(fitted: Tensor, depths: Tensor, image: Tensor) -> Tensor:
    generator, known = _generator(depths), (depths > 0).flatten()
    pairs = across(*edges(image.to(fitted.dtype)), _RANKED, generator).where(known)
    pairs = pairs.and_(anywhere(known, max(1, len(pairs.first)), generator))
    return order_error(fitted.flatten(), depths.flatten(), pairs)


def _angles(own: Tensor, true: Tensor, known: Tensor, depths: Tensor, image: Tensor) -> Tensor:
    generator = _generator(depths)
    steps, _ = edges(depths[None].to(own.dtype))
    steps = steps.where(_eroded(depths[None] > 0, 1)[0], 0)  # the border of what is known is no edge
    away = F.max_pool2d(((steps >= _STRONG * steps.max()) & (steps > 0))[None].float(), 3, 1, 1)[0] == 0
    pairs = Pairs(*(torch.zeros(0, dtype=torch.long, device=own.device),) * 2)
    for maps, where in ((image.to(own.dtype), away), (true, away & _eroded(known[None], 1)[0])):
        strength, angle = edges(maps)
        pairs = pairs.and_(across(strength.where(where, 0), angle, _TURNED, generator))
    flat, own, true = known.flatten(), own.flatten(1), true.flatten(1)
    pairs = pairs.where(flat)
    cosines = (true[:, pairs.first] * true[:, pairs.second]).sum(0)
    bent, straight = cosines < _SHARP, cosines > _FLAT
    others = anywhere(flat, int((bent | straight).sum()), generator)
    total = angle_error(own, true, pairs, bent) + angle_error(own, true, pairs, straight)
    return total + angle_error(own, true, others, torch.ones_like(others.first, dtype=torch.bool))


def _each(targets: Targets, like: Tensor, error: Callable[[int], Tensor]) -> Tensor:
    """The errors of the images that are usable, ``[B]``; 0 for the others."""
    usable = targets.usable.tolist()
    return torch.stack([error(place) if usable[place] else like.new_zeros(()) for place in range(len(usable))])


def _eroded(known: Tensor, by: int) -> Tensor:
    """bool ``[B, H, W]``: where all is known within so many pixels, the border of the image included."""
    unknown = F.pad((~known).float(), (by,) * 4, value=1.0)
    return F.max_pool2d(unknown, 2 * by + 1, 1) == 0


def _generator(depths: Tensor) -> torch.Generator:
    """Of the CPU, seeded by depths ``[H, W]``."""
    return torch.Generator().manual_seed(int(depths.long().sum()))
