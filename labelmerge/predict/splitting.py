"""One sample's labels in concepts: what its labels say, and where they leave a choice, what a model says.

A label that stands for one concept becomes it. A label of several is split: the model chooses among these and no
others, so that it can never contradict a person. Boxes become masks in the same way: within a box only its concepts
can be, and where the model sees anything else, nothing is known. What a dataset boxes and has no box is not there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelmerge.device import is_out_of_memory
from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.methods.predictor import Predictor, are_numbers, refuse_no_numbers

UNKNOWN = -1
"""No concept, in arrays of their numbers."""

Concepts = npt.NDArray[np.int32]
Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Model:
    """A predictor that was given some concepts as its labels.

    Attributes:
        predictor: its labels are `concepts`, in this order.
        concepts: their numbers.
    """

    predictor: Predictor
    concepts: Sequence[int]

    def rows(self, among: Sequence[int]) -> tuple[list[int], list[int]]:
        """The rows of the predictor's probabilities that some concepts have.

        Returns:
            The rows, each once; and for each its concept, `UNKNOWN` where several of them can't be told apart.
        """
        place = {int(label): row for row, label in enumerate(self.predictor.positions)}
        number = {concept: label for label, concept in enumerate(self.concepts)}
        found: dict[int, int] = {}
        for concept in among:
            meant = int(self.predictor.predicted_as[number[concept]])
            if meant >= 0:
                found[place[meant]] = UNKNOWN if place[meant] in found else concept
        return list(found), list(found.values())

    def probabilities(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """As `Predictor.probabilities`. Raises SampleError: no memory, or no number for an answer."""
        try:
            for rows, probabilities in self.predictor.probabilities(image):
                refuse_no_numbers(are_numbers(probabilities))
                yield rows, probabilities
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise SampleError(
                "does not fit into the device's memory", fix="Use a smaller --short-edge or --window, or --device cpu"
            ) from error


@dataclass(frozen=True, eq=False)
class Rule:
    """How the labels of one dataset become concepts.

    Attributes:
        space: the concepts.
        old: the dataset's own classes.
        sets: the concepts that each class may stand for, by class index.
        model: None: labels of several concepts become "no label".
        confidence: the least probability, among a label's concepts, of the one that is chosen.
        least_cover: boxes also become segments, those whose mask covers at least this share of the box; None: no
            segments of boxes.
        annotated: the classes that the dataset was annotated for; None: all.
    """

    space: LabelSpace
    old: LabelSpace
    sets: Mapping[int, tuple[int, ...]]
    model: Model | None
    confidence: float
    least_cover: float | None = None
    annotated: frozenset[int] | None = None

    @property
    def several(self) -> list[int]:
        """The classes of several concepts."""
        return [index for index, concepts in self.sets.items() if len(concepts) > 1]

    def concepts_of(self, classes: Iterable[int]) -> list[int]:
        """What any of these classes may stand for."""
        return sorted({concept for index in classes for concept in self.sets[index]})


@dataclass(frozen=True)
class Relabelled:
    """A sample's annotation in concepts.

    Attributes:
        mask: ``[H, W]`` in the dtype of the space, `ignore_index` for no label; None for boxes alone.
        instances: ``[H, W]`` segment ids; None where the sample has none.
        boxes, segments: as in a sample's JSON, those that have a concept.
        counts: pixels, segments and boxes, by what became of them.
    """

    mask: npt.NDArray[Any] | None
    instances: npt.NDArray[np.uint16] | None
    boxes: list[Record]
    segments: list[Record]
    counts: Counter[str] = field(default_factory=Counter)


def relabel_mask(
    rule: Rule,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[Any],
    instances: npt.NDArray[np.uint16] | None,
    segments: Sequence[Record],
    boxes: Sequence[Record],
) -> Relabelled:
    """A sample with a mask. A segment gets one concept, the likeliest on the mean of its pixels.

    Args:
        image: ``[H, W, 3]``, RGB.
        mask: ``[H, W]``, the dataset's own classes.
        instances: ``[H, W]`` segment ids, as `segments` describes them.
        segments, boxes: as in a sample's JSON.

    Raises:
        SampleError: it holds a value that is not a class, or the image is too large for memory.
    """
    _refuse_unknown(rule, np.unique(mask[mask != rule.old.ignore_index]).tolist(), "a pixel of its mask is")
    counts = Counter[str]()
    single = {index: concepts[0] for index, concepts in rule.sets.items() if len(concepts) == 1}
    out = rule.old.lookup(single, UNKNOWN).astype(np.int32)[mask]
    open_ = np.isin(mask, rule.several)
    counts["mapped_pixels"] = int((out != UNKNOWN).sum())
    chosen: dict[int, int] = {}
    if open_.any() and rule.model is not None:
        within = _segment_numbers(mask, instances, segments)
        chosen = _choose(rule, rule.model, image, mask, within, segments, out)
        counts["predicted_pixels"] = int((open_ & (out != UNKNOWN)).sum())
    counts["unsure_pixels"] = int((open_ & (out == UNKNOWN)).sum())
    kept = []
    for segment in segments:
        concept = single.get(segment["class_index"], chosen.get(segment["id"], UNKNOWN))
        if concept != UNKNOWN:
            kept.append({**segment, "class_index": concept})
    counts["dropped_segments"] = len(segments) - len(kept)
    if instances is not None:
        ids = np.zeros(1 << 16, dtype=np.uint16)
        ids[[segment["id"] for segment in kept]] = [segment["id"] for segment in kept]
        instances = ids[instances]
    return _made(rule, out, instances, _classed(rule, boxes, out, counts), kept, counts)


def relabel_boxes(
    rule: Rule,
    image: npt.NDArray[np.uint8],
    boxes: Sequence[Record],
    annotated: frozenset[int] | None = None,
) -> Relabelled:
    """A sample with boxes alone: with a model they become a mask, the smallest box first.

    A pixel in a box takes the likeliest of all concepts where that is one of the box's, and is sure enough among them;
    else it may belong to a larger box. Concepts of classes that were annotated for and have no box (`annotated`, or
    what the rule says of the whole dataset) are left out: they are not in the image. Boxes of depictions make no mask.
    Where segments are asked for, what a box took is one; a box that took too little of itself gives its pixels back to
    "no label".

    Raises:
        SampleError: as `relabel_mask`.
    """
    _refuse_unknown(rule, [box["class_index"] for box in boxes], "a box is")
    counts = Counter[str]()
    out = np.full(image.shape[:2], UNKNOWN, dtype=np.int32)
    if rule.model is None:
        counts["dropped_boxes"] = sum(len(rule.sets[box["class_index"]]) > 1 for box in boxes)
        kept = [
            {**box, "class_index": rule.sets[box["class_index"]][0]}
            for box in boxes
            if len(rule.sets[box["class_index"]]) == 1
        ]
        return Relabelled(None, None, kept, [], counts)
    filled = sorted((box for box in boxes if not box.get("depiction")), key=lambda box: _area(box["bbox"]))
    owner = np.zeros(out.shape, dtype=np.uint16)
    if filled:
        listed = rule.annotated if annotated is None else annotated
        absent = (rule.sets.keys() if listed is None else listed & rule.sets.keys()) - {
            box["class_index"] for box in boxes
        }
        _fill(rule, rule.model, image, filled, absent, out, owner)
    segments: list[Record] = []
    if rule.least_cover is not None:
        segments = _segments(rule.least_cover, filled, out, owner, counts)
    counts["predicted_pixels"] = int((out != UNKNOWN).sum())
    classed = _classed(rule, boxes, out, counts)
    return _made(rule, out, owner if rule.least_cover is not None else None, classed, segments, counts)


def relabel_image(rule: Rule, image: npt.NDArray[np.uint8]) -> Relabelled:
    """A sample without any annotation: every pixel takes the likeliest of all concepts, where that is sure enough.

    Raises:
        SampleError: the image is too large for memory.
    """
    assert rule.model is not None  # `labelmerge.predict.relabel` leaves images out without one
    out = np.full(image.shape[:2], UNKNOWN, dtype=np.int32)
    at, concepts = rule.model.rows(rule.model.concepts)
    for stripe, probabilities in rule.model.probabilities(image):
        most = probabilities[at].max(dim=0)
        chosen = np.array(concepts, dtype=np.int32)[most.indices.cpu().numpy()]
        out[stripe] = np.where(most.values.cpu().numpy() >= rule.confidence, chosen, UNKNOWN)
    counts = Counter(predicted_pixels=int((out != UNKNOWN).sum()), unsure_pixels=int((out == UNKNOWN).sum()))
    return _made(rule, out, None, [], [], counts)


def _choose(
    rule: Rule,
    model: Model,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[Any],
    within: npt.NDArray[np.int64] | None,
    segments: Sequence[Record],
    out: Concepts,
) -> dict[int, int]:
    """Write the concepts of what is left open into `out`.

    Returns:
        The concept of each segment of several, by its id; `UNKNOWN` where that is not sure.
    """
    rows = {index: model.rows(rule.sets[index]) for index in np.intersect1d(mask, rule.several).tolist()}
    sums = {
        number: np.zeros(len(rows[segment["class_index"]][0]))
        for number, segment in enumerate(segments)
        if segment["class_index"] in rows
    }
    for stripe, probabilities in model.probabilities(image):
        for index, (at, concepts) in rows.items():
            where = mask[stripe] == index
            if not at or not where.any():
                continue
            given = probabilities[at][:, torch.from_numpy(where).to(probabilities.device)]
            share = (given / given.sum(dim=0).clamp(min=1e-30)).cpu().numpy()  # [its concepts, its pixels]
            best = share.argmax(axis=0)
            sure = share[best, np.arange(share.shape[1])] >= rule.confidence
            out[stripe][where] = np.where(sure, np.array(concepts, dtype=np.int32)[best], UNKNOWN)
            if within is not None:
                of = within[stripe][where]
                for number in np.unique(of[of >= 0]).tolist():
                    sums[number] += share[:, of == number].sum(axis=1)
    chosen = {}
    for number, total in sums.items():
        segment = segments[number]
        concepts = rows[segment["class_index"]][1]
        sure = total.size and total.sum() > 0 and total.max() >= rule.confidence * total.sum()
        chosen[segment["id"]] = concepts[int(total.argmax())] if sure else UNKNOWN
        assert within is not None
        out[within == number] = chosen[segment["id"]]
    return chosen


def _segment_numbers(
    mask: npt.NDArray[Any], instances: npt.NDArray[np.uint16] | None, segments: Sequence[Record]
) -> npt.NDArray[np.int64] | None:
    """The place in `segments` of the segment that each pixel and its label belong to, -1 for none: ``[H, W]``."""
    if instances is None:
        return None
    number, label = np.full(1 << 16, -1, dtype=np.int64), np.full(1 << 16, -1, dtype=np.int64)
    for place, segment in enumerate(segments):
        number[segment["id"]], label[segment["id"]] = place, segment["class_index"]
    return np.where(label[instances] == mask, number[instances], -1)


def _segments(
    least: float, boxes: Sequence[Record], out: Concepts, owner: npt.NDArray[np.uint16], counts: Counter[str]
) -> list[Record]:
    """What each box took, as segments of one concept each; `out` and `owner` lose what makes none."""
    segments = []
    for number, box in enumerate(boxes, start=1):
        x0, y0, x1, y1 = _pixels(box["bbox"])
        part = slice(y0, y1), slice(x0, x1)
        own = owner[part] == number
        taken = int(own.sum())
        if not taken or taken < least * own.size:
            counts["dropped_masks"] += 1
            out[part][own], owner[part][own] = UNKNOWN, 0
            continue
        concept = int(np.bincount(out[part][own]).argmax())
        other = own & (out[part] != concept)
        owner[part][other] = 0
        segments.append(
            {
                "id": number,
                "class_index": concept,
                "category_id": box["class_index"],
                "iscrowd": bool(box.get("iscrowd") or box.get("group_of")),
                "area": taken - int(other.sum()),
                "native_id": str(box.get("native_id", "")),
            }
        )
    counts["predicted_masks"] = len(segments)
    return segments


def _fill(
    rule: Rule,
    model: Model,
    image: npt.NDArray[np.uint8],
    boxes: Sequence[Record],
    absent: Set[int],
    out: Concepts,
    owner: npt.NDArray[np.uint16],
) -> None:
    """Write the concepts within boxes into `out`, and their places from 1 on into `owner`; the first keeps a pixel.

    Concepts that only `absent` classes may stand for are as good as not asked for.
    """
    rows = {box["class_index"]: model.rows(rule.sets[box["class_index"]]) for box in boxes}
    there = model.rows(rule.concepts_of(rule.sets.keys() - absent))[0]
    gone = torch.tensor(
        [row for row in model.rows(rule.concepts_of(absent))[0] if row not in set(there)], dtype=torch.long
    )
    for stripe, probabilities in model.probabilities(image):
        probabilities = probabilities.index_fill(0, gone.to(probabilities.device), 0.0)
        best, winner = (each.cpu().numpy() for each in probabilities.max(dim=0))
        share, concept = {}, {}
        for index, (at, concepts) in rows.items():
            total = probabilities[at].sum(dim=0).cpu().numpy() if at else np.ones_like(best)
            share[index] = best / np.maximum(total, 1e-30)
            concept[index] = np.full(len(probabilities), UNKNOWN, dtype=np.int32)
            concept[index][at] = concepts
        for number, box in enumerate(boxes, start=1):
            x0, y0, x1, y1 = _pixels(box["bbox"])
            part = slice(max(y0 - stripe.start, 0), max(min(y1, stripe.stop) - stripe.start, 0)), slice(x0, x1)
            index = box["class_index"]
            here = out[stripe][part]
            found = concept[index][winner[part]]
            take = (here == UNKNOWN) & (found != UNKNOWN) & (share[index][part] >= rule.confidence)
            here[take] = found[take]
            owner[stripe][part][take] = number


def _classed(rule: Rule, boxes: Sequence[Record], out: Concepts, counts: Counter[str]) -> list[Record]:
    """The boxes in concepts: of several, the one that most of the box's pixels have; those without any are dropped."""
    kept = []
    for box in boxes:
        concepts = rule.sets[box["class_index"]]
        if len(concepts) > 1:
            x0, y0, x1, y1 = _pixels(box["bbox"])
            inside = out[y0:y1, x0:x1]
            pixels = np.bincount(inside[np.isin(inside, concepts)], minlength=1)
            if not pixels.any():
                counts["dropped_boxes"] += 1
                continue
            concepts = (int(pixels.argmax()),)
            counts["predicted_boxes"] += 1
        kept.append({**box, "class_index": concepts[0]})
    return kept


def _made(
    rule: Rule,
    out: Concepts,
    instances: npt.NDArray[np.uint16] | None,
    boxes: list[Record],
    segments: list[Record],
    counts: Counter[str],
) -> Relabelled:
    mask = np.where(out == UNKNOWN, rule.space.ignore_index, out).astype(rule.space.dtype)
    return Relabelled(mask, instances, boxes, segments, counts)


def _refuse_unknown(rule: Rule, indices: Sequence[int], what: str) -> None:
    if unknown := sorted(set(indices) - rule.sets.keys()):
        raise SampleError(f"{what} {unknown[0]}, which is not a class of {rule.old.name}")


def _pixels(bbox: Sequence[float]) -> tuple[int, int, int, int]:
    """The pixels whose centres lie in a box: first column and row, and one past the last."""
    x0, y0, x1, y1 = (max(0, math.ceil(edge - 0.5)) for edge in bbox)
    return x0, y0, x1, y1


def _area(bbox: Sequence[float]) -> float:
    x0, y0, x1, y1 = bbox
    return (x1 - x0) * (y1 - y0)
