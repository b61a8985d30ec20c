"""Things one by one: average precision of masks, by COCO's own code (pycocotools).

A detection of a class that its image was not annotated for is no mistake where it matches nothing, as LVIS has it
(Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.semantic import Booleans, annotated_in, positions_of
from labelmerge.tasks.task import SegmentedTruth

RunLengths = dict[str, Any]
"""A mask as COCO's run lengths: ``size`` [H, W], ``counts`` bytes."""

_AREAS = ("all", "small", "medium", "large")


class Found(Protocol):
    """A prediction (`labelmerge.methods.predictor.Instances`)."""

    @property
    def labels(self) -> npt.NDArray[np.integer]:
        """``[N]``, positions in the label space."""

    @property
    def scores(self) -> npt.NDArray[np.floating]:
        """``[N]``."""

    @property
    def masks(self) -> Sequence[RunLengths]:
        """N masks, which may overlap."""


@dataclass(frozen=True)
class InstanceCounts:
    """What is in some images, and what was found: COCO's annotations, by the key of their image.

    What was found is `undecided` where its image was not annotated for its class.
    """

    images: tuple[str, ...]
    truth: tuple[dict[str, Any], ...]
    found: tuple[dict[str, Any], ...]


class InstanceTask:
    """Instance segmentation on a set with segments (`labelmerge.tasks.task.Task`)."""

    asks: Literal["classes", "segments", "instances"] = "instances"

    def __init__(self, space: LabelSpace, things: Collection[int] | None, annotated: Booleans | None = None) -> None:
        """`things`: class indices; None: all. `annotated`: as `annotated_in`."""
        self._space, self._position_of, self._annotated = space, positions_of(space), annotated
        self._things = [k for k, index in enumerate(space.indices) if things is None or index in things]

    def nothing(self) -> InstanceCounts:
        """The counts before any image."""
        return InstanceCounts((), (), ())

    def count(self, truth: SegmentedTruth, prediction: Found) -> InstanceCounts:
        """Both sides of one image. Raises SampleError where its annotation can't be used."""
        from pycocotools import mask as coco

        if truth.instances is None:
            raise SampleError("has no segments", where=truth.key)
        wanted = []
        numbers = np.asfortranarray(truth.instances)  # run lengths go down columns
        for segment in truth.segments:
            index = segment["class_index"]
            position = int(self._position_of[index]) if 0 <= index < len(self._position_of) else -2
            if position < 0:
                raise SampleError(f"segment {segment['id']} is of no class ({index})", where=truth.key)
            if position in self._things and (region := numbers == segment["id"]).any():
                runs = coco.encode(region.view(np.uint8))
                area = float(coco.area(runs)) * truth.pixel_area
                wanted.append(
                    {
                        "image_id": truth.key,
                        "category_id": position,
                        "segmentation": runs,
                        "area": area,
                        "bbox": coco.toBbox(runs).tolist(),
                        "iscrowd": int(segment["iscrowd"]),
                    }
                )
        known = annotated_in(self._space, truth, self._annotated)
        found = [
            {
                "image_id": truth.key,
                "category_id": int(label),
                "undecided": known is not None and not known[label],
                "segmentation": runs,
                "score": float(score),
                "pixel_area": truth.pixel_area,
            }
            for label, score, runs in zip(prediction.labels, prediction.scores, prediction.masks, strict=True)
            if label in self._things
        ]
        return InstanceCounts((truth.key,), tuple(wanted), tuple(found))

    def total(self, counts: list[InstanceCounts]) -> InstanceCounts:
        """All images together."""
        return InstanceCounts(
            tuple(key for each in counts for key in each.images),
            tuple(record for each in counts for record in each.truth),
            tuple(record for each in counts for record in each.found),
        )

    def measured(self, counts: InstanceCounts) -> bool:
        """Whether there was a thing to find."""
        return any(not record["iscrowd"] for record in counts.truth)

    def figures(self, counts: InstanceCounts) -> AveragePrecision:
        """AP over IoUs of 0.50 to 0.95, of all things and of each class."""
        return average_precision(counts, len(self._space), self._things)


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures; 0..1, or NaN where there was nothing to find.

    Attributes:
        ap: mean over the IoUs 0.50, 0.55, … 0.95 and over the classes; at most 100 instances of an image count.
        ap50, ap75: at these IoUs alone.
        small, medium, large: of things up to 32², up to 96², and from there on pixels of the original images.
        classes: float64 ``[K]``.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    classes: npt.NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Without the classes, as in results.json."""
        figures = {name: getattr(self, name) for name in ("ap", "ap50", "ap75", "small", "medium", "large")}
        return {name: None if math.isnan(value) else value for name, value in figures.items()}


def average_precision(counts: InstanceCounts, classes: int, things: Sequence[int]) -> AveragePrecision:
    """What pycocotools says of both sides."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    keys = sorted(counts.images)
    number = {key: place for place, key in enumerate(keys, start=1)}
    # Equal scores are ordered by their place in the list: in whatever order processes counted, it is by image.
    order = sorted(range(len(counts.found)), key=lambda place: number[counts.found[place]["image_id"]])
    # pycocotools asks for the size, and needs it for polygons alone.
    images = [{"id": place, "height": 0, "width": 0} for place in number.values()]
    base = {"images": images, "categories": [{"id": k} for k in things]}
    truth, found = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {**base, "annotations": _numbered(counts.truth, range(len(counts.truth)), number)}
        found.dataset = {**base, "annotations": _numbered(counts.found, order, number)}
        for record in found.dataset["annotations"]:
            _measure(record)
        truth.createIndex()
        found.createIndex()
        judge = COCOeval(truth, found, "segm")
        judge.evaluate()
        undecided = {
            (each["image_id"], each["category_id"]) for each in found.dataset["annotations"] if each["undecided"]
        }
        for each in judge.evalImgs:
            if each is not None and (each["image_id"], each["category_id"]) in undecided:
                each["dtIgnore"] |= each["dtMatches"] == 0
        judge.accumulate()
    precision = judge.eval["precision"]  # [IoUs, recalls, classes, areas, most detections]
    ious = np.round(judge.params.iouThrs, 2).tolist()
    by_class = np.full(classes, np.nan)
    for place, k in enumerate(judge.params.catIds):
        by_class[k] = _mean(precision[:, :, place, 0, -1])
    whole = {name: _mean(precision[:, :, :, place, -1]) for place, name in enumerate(_AREAS)}
    return AveragePrecision(
        ap=whole["all"],
        ap50=_mean(precision[ious.index(0.5), :, :, 0, -1]),
        ap75=_mean(precision[ious.index(0.75), :, :, 0, -1]),
        small=whole["small"],
        medium=whole["medium"],
        large=whole["large"],
        classes=by_class,
    )


def _numbered(records: Sequence[dict[str, Any]], order: Sequence[int], number: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {**records[place], "id": own, "image_id": number[records[place]["image_id"]]}
        for own, place in enumerate(order, start=1)
    ]


def _measure(record: dict[str, Any]) -> None:
    """What `COCO.loadRes` adds to a detection, its area in pixels of the original image."""
    from pycocotools import mask as coco

    record["area"] = float(coco.area(record["segmentation"])) * record["pixel_area"]
    record["bbox"], record["iscrowd"] = coco.toBbox(record["segmentation"]).tolist(), 0


def _mean(precision: npt.NDArray[np.float64]) -> float:
    known = precision[precision > -1]  # -1: nothing to find
    return float(known.mean()) if known.size else math.nan
