"""Confusion matrices and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Confusion = npt.NDArray[np.int64]


def confusion_matrix(truth: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], classes: int) -> Confusion:
    """Count pixels by (truth, prediction).

    Args:
        truth: class positions 0..classes-1 of any shape; any other value means "no label" and isn't counted.
        prediction: class positions 0..classes-1, same shape.

    Returns:
        int64 ``[classes, classes]``: row = truth, column = prediction. Matrices of several images add up.
    """
    labelled = (truth >= 0) & (truth < classes)
    pairs = truth[labelled].astype(np.int64) * classes + prediction[labelled].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class Metrics:
    """What a confusion matrix says; every figure is 0..1, or NaN where it has no meaning.

    Attributes:
        iou: float64 ``[K]``, true positives / (truth ∪ prediction) of each class; NaN for a class in neither. A class
            that is predicted somewhere but labelled nowhere has 0: its pixels are mistakes.
        accuracy: float64 ``[K]``, true positives / truth; NaN for a class without labelled pixels.
        truth_pixels, predicted_pixels: int64 ``[K]``, among labelled pixels.
        miou: mean of `iou` without the NaNs.
        mean_accuracy: mean of `accuracy` without the NaNs.
        pixel_accuracy: right pixels / labelled pixels.
    """

    iou: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    truth_pixels: npt.NDArray[np.int64]
    predicted_pixels: npt.NDArray[np.int64]
    miou: float
    mean_accuracy: float
    pixel_accuracy: float

    @classmethod
    def of(cls, confusion: Confusion) -> Metrics:
        """Read everything off a confusion matrix (row = truth, column = prediction)."""
        right = np.diag(confusion)
        truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        iou = _ratio(right, truth + predicted - right)
        accuracy = _ratio(right, truth)
        total = int(truth.sum())
        return cls(
            iou=iou,
            accuracy=accuracy,
            truth_pixels=truth,
            predicted_pixels=predicted,
            miou=_mean(iou),
            mean_accuracy=_mean(accuracy),
            pixel_accuracy=int(right.sum()) / total if total else math.nan,
        )


def harmonic_mean(values: Iterable[float]) -> float:
    """n / Σ 1/x, the SSIW summary over test sets; 0 where any value is 0, NaN where there is none."""
    values = list(values)
    if not values:
        return math.nan
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    out = np.full(len(part), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
