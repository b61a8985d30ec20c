"""The label of every pixel: confusion matrices, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.task import Truth

Confusion = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_UNLABELLED, _UNKNOWN = -1, -2
_CHUNK = 2**16  # pixels counted at once: what is made of them stays in the processor's cache


def confusion_matrix(
    truth: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer], classes: int, predicted: int | None = None
) -> Confusion:
    """Count pixels by (truth, prediction).

    Args:
        truth: class positions 0..classes-1 of any shape; any other value means "no label" and isn't counted.
        prediction: positions 0..predicted-1, same shape.
        classes: of the truth.
        predicted: of the prediction, where it has a list of its own.

    Returns:
        int64 ``[classes, predicted]``: row = truth, column = prediction. Matrices of several images add up.

    Raises:
        ValueError: the shapes differ, or a prediction is not a class.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"the truth is {truth.shape}, the prediction {prediction.shape}")
    columns = classes if predicted is None else predicted
    if prediction.size and not 0 <= int(prediction.min()) <= int(prediction.max()) < columns:
        raise ValueError(f"predictions must be 0 to {columns - 1}")
    bins = (classes + 1) * columns  # the last row takes the pixels without a label
    counts = np.zeros(bins, dtype=np.int64)
    flat_truth, flat_prediction = truth.ravel(), prediction.ravel()
    chunk = max(_CHUNK, 4 * bins)
    for begin in range(0, flat_truth.size, chunk):
        pairs = flat_truth[begin : begin + chunk].astype(np.int64)
        unsigned = pairs.view(np.uint64)  # in which negative values are the largest
        np.minimum(unsigned, np.uint64(classes), out=unsigned)
        pairs *= columns
        pairs += flat_prediction[begin : begin + chunk].astype(np.int64, copy=False)
        counts += np.bincount(pairs, minlength=bins)
    return counts.reshape(classes + 1, columns)[:classes].copy()


def positions_of(space: LabelSpace) -> npt.NDArray[np.int64]:
    """The position of each mask value in a label space: -1 for "no label", -2 where it is not a class."""
    table = space.lookup({index: k for k, index in enumerate(space.indices)}, _UNKNOWN)
    table[space.ignore_index] = _UNLABELLED
    return table


def annotated_in(space: LabelSpace, truth: Truth, otherwise: Booleans | None) -> Booleans | None:
    """bool ``[K]``: the classes that an image was annotated for, by its own list or else as `otherwise`; None: all."""
    if truth.annotated is None:
        return otherwise
    return np.array([index in truth.annotated for index in space.indices], dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class SemanticCounts:
    """The pixels of some images.

    Attributes:
        confusion: int64 ``[K, K]``, row = truth, column = prediction, in the order of the label space.
        ignored: how many have no label.
        undecided: int64 ``[K, K]``, those of them whose image was not annotated for what is predicted; None: nobody
            asked.
    """

    confusion: Confusion
    ignored: int
    undecided: Confusion | None = None


class Semantic:
    """Semantic segmentation on a set with masks (`labelmerge.tasks.task.Task`), by the classes of a label space."""

    asks: Literal["classes", "segments", "instances"] = "classes"

    def __init__(self, space: LabelSpace, *, partly: bool = False, annotated: Booleans | None = None) -> None:
        """`partly`: also count where images were not annotated for the prediction; `annotated`: as `annotated_in`."""
        self.space, self._partly, self._annotated = space, partly, annotated
        self._position_of = positions_of(space)

    def nothing(self) -> SemanticCounts:
        """The counts before any image."""
        empty = np.zeros((len(self.space), len(self.space)), dtype=np.int64)
        return SemanticCounts(empty, 0, empty if self._partly else None)

    def positions(self, truth: Truth) -> npt.NDArray[np.int64]:
        """The class of every pixel, ``[H, W]`` positions in the label space, -1 for "no label".

        Raises:
            SampleError: the mask holds values that are not classes.
        """
        assert truth.mask is not None  # sets without masks are left out
        wanted: npt.NDArray[np.int64] = self._position_of[truth.mask]
        if (wanted == _UNKNOWN).any():
            wrong = sorted({int(value) for value in np.unique(truth.mask[wanted == _UNKNOWN])})
            raise SampleError(f"mask values {wrong} are not classes of {self.space.name}", where=truth.key)
        return wanted

    def count(self, truth: Truth, prediction: npt.NDArray[np.int64]) -> SemanticCounts:
        """Count the pixels of an image.

        Args:
            prediction: ``[H, W]`` positions in the label space.

        Raises:
            SampleError: the mask holds values that are not classes.
        """
        wanted = self.positions(truth)
        matrix = confusion_matrix(wanted, prediction, len(self.space))
        undecided = None
        if self._partly:
            known = annotated_in(self.space, truth, self._annotated)
            undecided = matrix * (False if known is None else ~known)
        return SemanticCounts(matrix, wanted.size - int(matrix.sum()), undecided)

    def total(self, counts: list[SemanticCounts]) -> SemanticCounts:
        """All pixels together."""
        parts = [self.nothing(), *counts]
        undecided = [part.undecided for part in parts if part.undecided is not None]
        return SemanticCounts(
            np.sum([part.confusion for part in parts], axis=0),
            sum(part.ignored for part in counts),
            np.sum(undecided, axis=0) if self._partly else None,
        )

    def measured(self, counts: SemanticCounts) -> bool:
        """Whether there was a labelled pixel."""
        return bool(counts.confusion.any())

    def figures(self, counts: SemanticCounts) -> Metrics:
        """The IoU of every class, and their means."""
        return Metrics.of(counts.confusion)


@dataclass(frozen=True)
class Metrics:
    """What a confusion matrix says; every figure is 0..1, or NaN where it has no meaning.

    Attributes:
        iou: float64 ``[K]``, true positives / (truth ∪ prediction) of each class; NaN for a class in neither. A class
            that is predicted somewhere but labelled nowhere has 0: its pixels are mistakes.
        accuracy: float64 ``[K]``, true positives / truth; NaN for a class without labelled pixels.
        truth_pixels, predicted_pixels: int64 ``[K]``, among labelled pixels.
        miou: mean of `iou` without the NaNs.
        miou_labelled: mean of `iou` over the classes with labelled pixels.
        frequency_weighted_iou: mean of `iou`, each class as often as it has labelled pixels.
        mean_accuracy: mean of `accuracy` without the NaNs.
        pixel_accuracy: right pixels / labelled pixels.
    """

    iou: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    truth_pixels: npt.NDArray[np.int64]
    predicted_pixels: npt.NDArray[np.int64]
    miou: float
    miou_labelled: float
    frequency_weighted_iou: float
    mean_accuracy: float
    pixel_accuracy: float

    @classmethod
    def unpredicted(cls, classes: int) -> Metrics:
        """Of a set that nothing could be predicted on: 0 everywhere."""
        nothing = np.zeros(classes)
        pixels = np.zeros(classes, dtype=np.int64)
        return cls(nothing, nothing, pixels, pixels, 0.0, 0.0, 0.0, 0.0, 0.0)

    @classmethod
    def of(cls, confusion: Confusion) -> Metrics:
        """Read everything off a confusion matrix (row = truth, column = prediction)."""
        right = np.diag(confusion)
        truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        iou = _ratio(right, truth + predicted - right)
        accuracy = _ratio(right, truth)
        total = int(truth.sum())
        labelled = truth > 0
        return cls(
            iou=iou,
            accuracy=accuracy,
            truth_pixels=truth,
            predicted_pixels=predicted,
            miou=_mean(iou),
            miou_labelled=_mean(iou[labelled]),
            frequency_weighted_iou=float(iou[labelled] @ (truth[labelled] / total)) if total else math.nan,
            mean_accuracy=_mean(accuracy),
            pixel_accuracy=int(right.sum()) / total if total else math.nan,
        )


@dataclass(frozen=True)
class Mistake:
    """Pixels of one class that are taken for another: positions of both, and how many of `truth`'s pixels they are."""

    truth: int
    prediction: int
    pixels: int
    share: float


def worst_mistakes(confusion: Confusion, most: int) -> Sequence[Mistake]:
    """The `most` largest entries beside the diagonal, largest first; those of 0 pixels left out."""
    truth, prediction = confusion.nonzero()  # of thousands of classes, an image has few
    wrong = truth != prediction
    truth, prediction = truth[wrong], prediction[wrong]
    order = np.argsort(-confusion[truth, prediction], kind="stable")[:most]
    return [
        Mistake(int(t), int(p), int(confusion[t, p]), float(confusion[t, p] / confusion[t].sum()))
        for t, p in zip(truth[order], prediction[order], strict=True)
    ]


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
