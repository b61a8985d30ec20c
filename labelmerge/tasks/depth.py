"""Depth up to scale and shift: AbsRel and δ, after each image's prediction is aligned with its truth.

Per image, scale s and shift t are those of the least squares of s · prediction + t - depth over the pixels whose depth
is known, with s ≥ 0: a prediction that takes near for far is no better than one that is the same everywhere. An image's
figures are means over its known pixels, a set's are means over its images (Ranftl et al., TPAMI 2020; LeReS, Yin et
al., CVPR 2021). Neither needs the unit. Benchmarks measure a part of the image (`CROPS`), and depths up to a cap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.labels import IGNORE, LabelSpace
from labelmerge.tasks.task import DeepTruth, Truth

_LEAST = 1e-9  # of an aligned prediction: what lies behind the camera is as near as can be
_DELTA = 1.25
_ROUNDING = 1e-6  # of a pixel: 45 / 480 of 480 rows are 45

Floats = npt.NDArray[np.float64]

CROPS: Mapping[str, tuple[float, float, float, float]] = {
    "nyu-eigen": (45 / 480, 471 / 480, 41 / 640, 601 / 640),
    "kitti-eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "kitti-garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
}
"""The part of an image that counts: top, bottom, left and right edge as shares of its height and width.

NYUv2's is that of Eigen et al. (NeurIPS 2014), rows 45 to 470 and columns 41 to 600 of 480 x 640 pixels; KITTI's are
Eigen et al.'s and, as most take it, that of Garg et al. (ECCV 2016).
"""


@dataclass(frozen=True)
class ImageDepth:
    """What one image came to: its key, how many pixels are known, AbsRel, and the shares δ₁, δ₂, δ₃."""

    key: str
    pixels: int
    abs_rel: float
    deltas: tuple[float, ...]


@dataclass(frozen=True)
class DepthCounts:
    """The images that were measured, in any order; `unknown` more have no pixel whose depth is known."""

    images: tuple[ImageDepth, ...] = ()
    unknown: int = 0


@dataclass(frozen=True)
class DepthFigures:
    """A set's figures, means over its images.

    Attributes:
        abs_rel: mean of |prediction - depth| / depth; smaller is better.
        deltas: shares of pixels whose prediction is within a factor of 1.25, 1.25² and 1.25³ of their depth.
        images, pixels: what was measured.
        unknown: how many more images have no known depth.
    """

    abs_rel: float
    deltas: tuple[float, ...]
    images: int
    pixels: int
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """As in results.json."""
        names = ("delta_1", "delta_2", "delta_3")
        figures = {"abs_rel": self.abs_rel, **dict(zip(names, self.deltas, strict=True))}
        known: Mapping[str, Any] = {name: None if math.isnan(value) else value for name, value in figures.items()}
        return {**known, "pixels": self.pixels, "images_without_depth": self.unknown}


class Depth:
    """Measures depths of images."""

    asks: Literal["depth"] = "depth"

    def __init__(self, space: LabelSpace, crop: str | None = None, most: float = math.inf) -> None:
        """What is measured.

        Args:
            space: of the images' masks, which a method may take as a second input.
            crop: one of `CROPS`; None: the whole image.
            most: the cap, in the unit of the depths: what is farther isn't measured, and no prediction goes beyond it.
        """
        self._crop, self._most = None if crop is None else CROPS[crop], most
        self._positions = space.lookup({index: place for place, index in enumerate(space.indices)}, IGNORE)

    def labels_of(self, truth: Truth) -> npt.NDArray[np.int64] | None:
        """The label of every pixel, its position in the label space, -1 where there is none; None without a mask."""
        return None if truth.mask is None else self._positions[truth.mask].astype(np.int64, copy=False)

    def nothing(self) -> DepthCounts:
        """The counts of no image."""
        return DepthCounts()

    def count(self, truth: DeepTruth, prediction: npt.NDArray[np.float32]) -> DepthCounts:
        """One image. Raises SampleError where it has no depths.

        Args:
            prediction: ``[H, W]``, any scale above 0 and any shift.
        """
        if truth.depth is None:
            raise SampleError("has no depths", where=truth.key)
        known = (truth.depth > 0) & (truth.depth <= self._most)
        if self._crop is not None:
            known &= _inside(known.shape, self._crop)
        if not known.any():
            return DepthCounts((), 1)
        depth = truth.depth[known].astype(np.float64)
        fitted = fit(prediction[known].astype(np.float64), depth).clip(_LEAST, self._most)
        ratio = np.maximum(fitted / depth, depth / fitted)
        deltas = [float((ratio < _DELTA**power).mean()) for power in (1, 2, 3)]
        image = ImageDepth(truth.key, len(depth), float((np.abs(fitted - depth) / depth).mean()), tuple(deltas))
        return DepthCounts((image,))

    def total(self, counts: list[DepthCounts]) -> DepthCounts:
        """All images together."""
        images = tuple(image for each in counts for image in each.images)
        return DepthCounts(images, sum(each.unknown for each in counts))

    def measured(self, counts: DepthCounts) -> bool:
        """Whether any depth was known."""
        return bool(counts.images)

    def figures(self, counts: DepthCounts) -> DepthFigures:
        """The means, the same to the last bit in whatever order images were counted."""
        images = counts.images
        abs_rel = _mean([image.abs_rel for image in images])
        deltas = [_mean([image.deltas[place] for image in images]) for place in range(3)]
        return DepthFigures(abs_rel, tuple(deltas), len(images), sum(image.pixels for image in images), counts.unknown)


def fit(prediction: Floats, depth: Floats) -> Floats:
    """A prediction ``[N]``, scaled by 0 or more and shifted, as near to depths ``[N]`` as squares can tell."""
    centred = prediction - prediction.mean()
    variance = float((centred**2).mean())
    covariance = float((centred * (depth - depth.mean())).mean())
    scale = covariance / variance if covariance > 0 and variance > 0 else 0.0
    fitted: Floats = scale * centred + depth.mean()
    return fitted


def _inside(size: tuple[int, ...], crop: tuple[float, float, float, float]) -> npt.NDArray[np.bool_]:
    """bool ``[H, W]``: where a crop is. Its edges are cut down to whole pixels, as benchmarks do."""
    inside = np.zeros(size, dtype=np.bool_)
    top, bottom, left, right = (
        int(share * side + _ROUNDING) for share, side in zip(crop, np.repeat(size, 2), strict=True)
    )
    inside[top:bottom, left:right] = True
    return inside


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
