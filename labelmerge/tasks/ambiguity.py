"""Semantic segmentation where labels may mean the same, lie within each other, or overlap. docs/evaluation.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.semantic import Booleans, Confusion, annotated_in, confusion_matrix, positions_of
from labelmerge.tasks.task import Truth


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What predicting each of M labels is worth where each of K labels is the truth.

    Attributes:
        right: bool ``[K, M]``, the prediction is the same as the truth, or lies within it.
        open: bool ``[K, M]``, it holds or overlaps the truth: it may be true, but it does not say what was asked.
        stands_for: bool ``[K, M]``, the narrowest of the K labels that the prediction is or lies within.
    """

    right: Booleans
    open: Booleans
    stands_for: Booleans

    @classmethod
    def of(cls, truth: Booleans, predicted: Booleans, same: Booleans) -> Verdicts:
        """From the sets of concepts.

        Args:
            truth: bool ``[K, C]``, the concepts that each label of the truth may stand for; none where nothing is
                known.
            predicted: bool ``[M, C]``, those of the labels that are predicted.
            same: bool ``[K, M]``, which of them are one label by any means.
        """
        inner, outer = predicted.astype(np.float32), truth.astype(np.float32)
        shared = outer @ inner.T  # [K, M]
        within = (shared == inner.sum(axis=1)) & (shared > 0)
        right = within | same
        between = outer @ outer.T  # [K, K]
        sizes = outer.sum(axis=1)
        narrower = (between == sizes) & (sizes < sizes[:, None]) & (sizes > 0)  # [outer, inner]
        covered = narrower.astype(np.float32) @ right.astype(np.float32) > 0
        return cls(right, (shared > 0) & ~right, right & (~covered | same))

    @classmethod
    def unrelated(cls, classes: int) -> Verdicts:
        """Of labels that are not related: each is right for itself alone."""
        eye = np.eye(classes, dtype=np.bool_)
        return cls(eye, np.zeros_like(eye), eye)

    def undecided(self, annotated: Booleans) -> Booleans:
        """bool ``[M]``: the predictions that stand for labels of which none was annotated, so that they may be true.

        Args:
            annotated: bool ``[K]``.
        """
        return np.asarray(self.stands_for.any(axis=0) & ~self.stands_for[annotated].any(axis=0))

    @property
    def plain(self) -> bool:
        """Whether no label is related to any other: each prediction is right for one label at most."""
        return not self.open.any() and bool((self.right.sum(axis=0) <= 1).all())


@dataclass(frozen=True)
class AmbiguityAware:
    """Figures that know relations; 0..1, or NaN where they have no meaning.

    Of the labelled pixels those are *right* whose prediction is the truth or lies within it; *open* those whose
    prediction holds or overlaps it, or stands for labels that their image was not annotated for; the rest *wrong*. An
    open pixel is not found, but counts against no other label; a wrong one counts against the labels that its
    prediction stands for (`Verdicts.stands_for`).

    Attributes:
        iou: float64 ``[K]``, right / (truth + wrong pixels that count against the label); NaN where that is nothing.
        miou: mean of `iou` without the NaNs.
        right, open, wrong: shares of the labelled pixels.
    """

    iou: npt.NDArray[np.float64]
    miou: float
    right: float
    open: float
    wrong: float

    @classmethod
    def of(cls, counts: Confusion, verdicts: Verdicts, undecided: Confusion | None = None) -> AmbiguityAware:
        """Read off ``[K, M]`` pixels by (truth, prediction).

        Args:
            undecided: those of them whose image was not annotated for what is predicted; None: none.
        """
        right = np.where(verdicts.right, counts, 0)
        unsure = np.where(verdicts.open, counts, 0)
        if undecided is not None:
            unsure = np.where(verdicts.right | verdicts.open, unsure, undecided)
        wrong = counts - right - unsure
        whole = counts.sum(axis=1) + verdicts.stands_for.astype(np.int64) @ wrong.sum(axis=0)
        iou = np.full(len(counts), np.nan)
        np.divide(right.sum(axis=1), whole, out=iou, where=whole > 0)
        known, total = iou[~np.isnan(iou)], int(counts.sum())
        right_share, open_share, wrong_share = (
            int(each.sum()) / total if total else math.nan for each in (right, unsure, wrong)
        )
        return cls(iou, float(known.mean()) if len(known) else math.nan, right_share, open_share, wrong_share)

    def to_json(self) -> dict[str, Any]:
        """The shares and the mean, as in results.json."""
        figures = {"miou": self.miou, "right": self.right, "open": self.open, "wrong": self.wrong}
        return {name: None if math.isnan(value) else value for name, value in figures.items()}


class Mixed:
    """Semantic segmentation of a set with a list of M labels that are not its own (`labelmerge.tasks.task.Task`)."""

    asks: Literal["classes", "segments", "instances"] = "classes"

    def __init__(self, space: LabelSpace, verdicts: Verdicts, annotated: Booleans | None = None) -> None:
        """`verdicts`: what predicting each label of the list is worth on this set; `annotated`: as `annotated_in`."""
        self._space, self._verdicts, self._position_of = space, verdicts, positions_of(space)
        self._annotated = annotated

    def nothing(self) -> Confusion:
        """int64 ``[2, K, M]``, the counts before any image: of all pixels, and of those that nothing can be said of."""
        return np.zeros((2, *self._verdicts.right.shape), dtype=np.int64)

    def count(self, truth: Truth, prediction: npt.NDArray[np.int64]) -> Confusion:
        """Count the pixels of an image by (truth, prediction), and those whose prediction it was not annotated for.

        Args:
            prediction: ``[H, W]`` positions in the list.

        Raises:
            SampleError: the mask holds values that are not classes.
        """
        assert truth.mask is not None  # sets without masks are left out
        wanted = self._position_of[truth.mask]
        if (wanted < -1).any():
            raise SampleError(f"the mask has values that are not classes of {self._space.name}", where=truth.key)
        matrix = confusion_matrix(wanted, prediction, *self._verdicts.right.shape)
        known = annotated_in(self._space, truth, self._annotated)
        return np.stack([matrix, np.zeros_like(matrix) if known is None else matrix * self._verdicts.undecided(known)])

    def total(self, counts: list[Confusion]) -> Confusion:
        """All pixels together."""
        whole: Confusion = np.sum([self.nothing(), *counts], axis=0)
        return whole

    def measured(self, counts: Confusion) -> bool:
        """Whether there was a labelled pixel."""
        return bool(counts.any())

    def figures(self, counts: Confusion) -> AmbiguityAware:
        """The IoU of every class of the set, and how many pixels are right, open and wrong."""
        return AmbiguityAware.of(counts[0], self._verdicts, counts[1])
