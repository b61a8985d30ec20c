"""Things and stuff: panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), as panopticapi counts it.

A segment of the truth and one of the prediction match where both are of one class and their IoU is above one half;
then no other pair can. Pixels without a label are nobody's: they are left out of the union, and a segment that lies in
them for more than half is no mistake; nor is one that lies in a crowd of its own class. Crowds need not be found.
Nor is a segment of a class that the image was not annotated for a mistake: nobody looked whether it is there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.ambiguity import Verdicts
from labelmerge.tasks.semantic import Booleans, annotated_in, positions_of
from labelmerge.tasks.task import SegmentedTruth

_ONE = 2**40  # an IoU of 1 in sums: whole numbers add up to the same in any order


class Segmented(Protocol):
    """A prediction (`labelmerge.methods.predictor.SegmentMap`)."""

    @property
    def ids(self) -> npt.NDArray[np.integer]:
        """``[H, W]``, 0 for no segment."""

    @property
    def labels(self) -> npt.NDArray[np.integer]:
        """``[N]``, the position in the label space of segments 1 … N."""


@dataclass(frozen=True, eq=False)
class TruthSegments:
    """The segments of one image's annotation.

    Attributes:
        ids: int64 ``[H, W]``, 0 for no label.
        classes: int64 ``[N]``, the position in the label space of segments 1 … N.
        crowd: bool ``[N]``.
    """

    ids: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PanopticCounts:
    """What was found in some images, by class.

    Attributes:
        iou: int64 ``[K]``, sum of the matches' IoU, in units of 2^-40.
        matched, missed, wrong: int64 ``[K]``: true positives, false negatives, false positives.
        ignored: pixels without a label.
    """

    iou: npt.NDArray[np.int64]
    matched: npt.NDArray[np.int64]
    missed: npt.NDArray[np.int64]
    wrong: npt.NDArray[np.int64]
    ignored: int = 0


class Panoptic:
    """Panoptic segmentation on a set with segments (`labelmerge.tasks.task.Task`)."""

    asks: Literal["classes", "segments", "instances"] = "segments"

    def __init__(
        self,
        space: LabelSpace,
        things: Collection[int] | None,
        verdicts: Verdicts | None = None,
        annotated: Booleans | None = None,
    ) -> None:
        """What is measured.

        Args:
            things: class indices; the segments of an image that are of one other class count as one. None: it is not
                known which classes are things, and segments stay as they are.
            verdicts: what predicting each label of a list that is not the set's own is worth here. A segment then
                matches one that its label is right for; one that lies, for more than half, where its label is open, is
                no mistake; and a mistake counts against what its label stands for.
            annotated: as `annotated_in`.
        """
        self._annotated = annotated
        self._space, self._position_of, self._verdicts = space, positions_of(space), verdicts
        self._thing = None if things is None else np.array([index in things for index in space.indices], dtype=np.bool_)
        self._fused: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        if verdicts is not None and self._thing is not None:  # of labels that are stuff here
            here, of_things = verdicts.right.any(axis=0), verdicts.right[self._thing].any(axis=0)
            self._fused = np.logical_and(here, np.logical_not(of_things))

    def nothing(self) -> PanopticCounts:
        """The counts before any image."""
        zeros = np.zeros(len(self._space), dtype=np.int64)
        return PanopticCounts(zeros, zeros, zeros, zeros)

    def count(self, truth: SegmentedTruth, prediction: Segmented) -> PanopticCounts:
        """Match the segments of an image. Raises SampleError where its annotation can't be used."""
        ids, labels = prediction.ids, prediction.labels
        if self._fused.any():
            ids, labels = _fused(ids, labels, self._fused)
        own = truth_segments(truth, self._position_of, self._thing)
        known = annotated_in(self._space, truth, self._annotated)
        undecided = None
        if known is not None:
            undecided = ~known if self._verdicts is None else self._verdicts.undecided(known)
        return panoptic_counts(own, ids, labels, len(self._space), self._verdicts, undecided)

    def total(self, counts: list[PanopticCounts]) -> PanopticCounts:
        """All images together."""
        every = [self.nothing(), *counts]
        return PanopticCounts(
            iou=np.sum([each.iou for each in every], axis=0),
            matched=np.sum([each.matched for each in every], axis=0),
            missed=np.sum([each.missed for each in every], axis=0),
            wrong=np.sum([each.wrong for each in every], axis=0),
            ignored=sum(each.ignored for each in counts),
        )

    def measured(self, counts: PanopticCounts) -> bool:
        """Whether there was a segment to find."""
        return bool((counts.matched + counts.missed).any())

    def figures(self, counts: PanopticCounts) -> PanopticQuality:
        """PQ, SQ and RQ of every class, and their means."""
        return PanopticQuality.of(counts, self._thing)


def truth_segments(
    truth: SegmentedTruth, position_of: npt.NDArray[np.int64], thing: npt.NDArray[np.bool_] | None
) -> TruthSegments:
    """An annotation as segments: those that are listed, and what else the mask labels, one for each class.

    Args:
        position_of: the class of each mask value (`labelmerge.tasks.semantic.positions_of`).
        thing: bool ``[K]``; segments of one class that is none become one segment. What the mask labels as a thing
            outside all segments is a crowd: how many there are is not known.

    Raises:
        SampleError: mask and segments don't fit together.
    """
    if truth.mask is None or truth.instances is None:
        raise SampleError("has no segments", where=truth.key)
    wanted = position_of[truth.mask]
    if (wanted < -1).any():
        raise SampleError("the mask has values that are not classes of the label space", where=truth.key)
    number_of = np.zeros(1 << 16, dtype=np.int64)
    classes: list[int] = []
    crowd: list[bool] = []
    stuff: dict[int, int] = {}
    for segment in truth.segments:
        index = segment["class_index"]
        position = int(position_of[index]) if 0 <= index < len(position_of) else -2
        if position < 0:
            raise SampleError(f"segment {segment['id']} is of no class ({index})", where=truth.key)
        whole, fused = bool(segment["iscrowd"]), thing is not None and not thing[position]
        if fused and not whole and position in stuff:
            number_of[segment["id"]] = stuff[position]
            continue
        classes.append(position)
        crowd.append(whole)
        number_of[segment["id"]] = len(classes)
        if fused and not whole:
            stuff[position] = len(classes)
    ids = number_of[truth.instances]
    rest = (ids == 0) & (wanted >= 0)
    for position in np.flatnonzero(np.bincount(wanted[rest], minlength=0)).tolist():
        if position not in stuff:
            classes.append(position)
            crowd.append(thing is not None and bool(thing[position]))
            stuff[position] = len(classes)
        ids[rest & (wanted == position)] = stuff[position]
    return TruthSegments(ids, np.array(classes, dtype=np.int64), np.array(crowd, dtype=np.bool_))


def _fused(
    ids: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], fused: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Segments of which those of one label that is `fused` (bool ``[M]``) are one."""
    same = np.where(fused[labels], labels, len(fused) + np.arange(len(labels)))
    _, first, number = np.unique(same, return_index=True, return_inverse=True)
    return np.append(0, number + 1)[ids], labels[first]


def panoptic_counts(
    truth: TruthSegments,
    ids: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    classes: int,
    verdicts: Verdicts | None = None,
    undecided: Booleans | None = None,
) -> PanopticCounts:
    """Match the segments of one image.

    Args:
        ids: ``[H, W]``, the predicted segments, 0 for none.
        labels: ``[N]``, the class of predicted segments 1 … N.
        classes: K.
        verdicts: of the labels that are predicted, where they are not the K classes (`Panoptic`).
        undecided: bool, of those labels or else the K classes: whose segments are no mistakes where they match none.

    Raises:
        ValueError: the shapes differ, or there is a segment without a label.
    """
    if ids.shape != truth.ids.shape:
        raise ValueError(f"the truth is {truth.ids.shape}, the prediction {ids.shape}")
    n, m = len(truth.classes), len(labels)
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= m:
        raise ValueError(f"predicted segments must be 0 to {m}")
    packed = np.bincount((truth.ids * (m + 1) + ids.astype(np.int64)).ravel(), minlength=1)
    pairs = np.flatnonzero(packed)
    pixels = packed[pairs]
    t, p = pairs // (m + 1), pairs % (m + 1)  # 0 means no segment
    truth_area, area = (np.bincount(each, weights=pixels, minlength=size + 1) for each, size in ((t, n), (p, m)))
    of_truth = np.append(-1, truth.classes)
    of_prediction = np.append(-1, labels).astype(np.int64)
    crowd = np.append(False, truth.crowd)
    in_void = np.zeros(m + 1)
    in_void[p[t == 0]] = pixels[t == 0]

    real = (t > 0) & (p > 0)
    if verdicts is None:
        same, open_ = real & (of_truth[t] == of_prediction[p]), np.zeros(len(t), dtype=np.bool_)
    else:
        same, open_ = (real & table[of_truth[t], of_prediction[p]] for table in (verdicts.right, verdicts.open))
    union = truth_area[t] + area[p] - pixels - in_void[p]
    iou = np.divide(pixels, union, out=np.zeros(len(pixels)), where=same & (union > 0))
    match = same & ~crowd[t] & (iou > 0.5)
    matched = np.bincount(of_truth[t[match]], minlength=classes)
    sums = np.zeros(classes, dtype=np.int64)
    np.add.at(sums, of_truth[t[match]], np.rint(iou[match] * _ONE).astype(np.int64))

    present = truth_area[1:] > 0
    found = np.zeros(n + 1, dtype=np.bool_)
    found[t[match]] = True
    missed = np.bincount(truth.classes[present & ~truth.crowd & ~found[1:]], minlength=classes)

    excused = in_void.copy()
    # Of several crowds of one class panopticapi knows the last alone; here each counts.
    no_mistake = open_ | (same & crowd[t])
    excused += np.bincount(p[no_mistake], weights=pixels[no_mistake], minlength=m + 1)
    used = np.zeros(m + 1, dtype=np.bool_)
    used[p[match]] = True
    bad = (area > 0) & ~used & (excused <= 0.5 * area)
    bad[0] = False
    if undecided is not None:
        bad[1:] &= ~undecided[labels]
    wrong = np.bincount(of_prediction[bad], minlength=classes if verdicts is None else verdicts.right.shape[1])
    if verdicts is not None:
        wrong = verdicts.stands_for.astype(np.int64) @ wrong
    return PanopticCounts(sums, matched, missed, wrong, int(truth_area[0]))


@dataclass(frozen=True)
class Means:
    """Means over some classes; 0..1, or NaN where there is none. `classes`: how many."""

    pq: float
    sq: float
    rq: float
    classes: int

    def to_json(self) -> dict[str, Any]:
        """As in results.json."""
        figures = {"pq": self.pq, "sq": self.sq, "rq": self.rq}
        return {**{k: None if math.isnan(v) else v for k, v in figures.items()}, "classes": self.classes}


@dataclass(frozen=True)
class PanopticQuality:
    """PQ = SQ · RQ: how well matched segments fit, and how many match.

    Attributes:
        pq, sq, rq: float64 ``[K]``; NaN for a class that occurs neither in the truth nor among predictions.
        counts: what they were read off.
        groups: the means over ``all`` classes, and over ``things`` and ``stuff`` where these are known.
    """

    pq: npt.NDArray[np.float64]
    sq: npt.NDArray[np.float64]
    rq: npt.NDArray[np.float64]
    counts: PanopticCounts
    groups: Mapping[str, Means]

    @classmethod
    def of(cls, counts: PanopticCounts, thing: npt.NDArray[np.bool_] | None) -> PanopticQuality:
        """Read everything off the counts. `thing`: bool ``[K]``, or None where it isn't known."""
        denominator = counts.matched + 0.5 * counts.wrong + 0.5 * counts.missed
        known = denominator > 0
        iou = counts.iou / _ONE
        pq, rq = (
            np.divide(part, denominator, out=np.full(len(iou), np.nan), where=known) for part in (iou, counts.matched)
        )
        sq = np.divide(iou, counts.matched, out=np.where(known, 0.0, np.nan), where=counts.matched > 0)
        sets = {"all": known}
        if thing is not None:
            sets |= {"things": known & thing, "stuff": known & ~thing}
        groups = {
            name: Means(_mean(pq[some]), _mean(sq[some]), _mean(rq[some]), int(some.sum()))
            for name, some in sets.items()
        }
        return cls(pq, sq, rq, counts, groups)

    def to_json(self) -> dict[str, Any]:
        """The means, as in results.json."""
        return {name: means.to_json() for name, means in self.groups.items()}

    def class_json(self, position: int) -> dict[str, Any]:
        """One class, as in results.json."""
        figures = {name: float(getattr(self, name)[position]) for name in ("pq", "sq", "rq")}
        counts = {name: int(getattr(self.counts, name)[position]) for name in ("matched", "missed", "wrong")}
        return {**{name: None if math.isnan(value) else value for name, value in figures.items()}, **counts}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan
