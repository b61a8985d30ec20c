"""Labels of several concepts split by a model, compared with loops over pixels, segments and boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.methods.predictor import Predictor
from labelmerge.predict.splitting import Model, Rule, relabel_boxes, relabel_mask

SPACE = LabelSpace.of("company", ["car", "bus", "van", "road", "sky", "lorry"])
OLD = LabelSpace.of("streets", ["vehicle", "road", "van", "sky"])
SETS = {0: (0, 1, 5), 1: (3,), 2: (2,), 3: (4,)}
SIZE = (11, 9)
CONFIDENCE = 0.45


class Given(Predictor):
    """Says probabilities that were given, ``[K, H, W]``, in stripes of 4 rows."""

    def __init__(self, values: npt.NDArray[np.float32]) -> None:
        self.values = values
        self.positions = np.arange(len(values))
        self.predicted_as = np.arange(len(values))

    def scores(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        for top in range(0, image.shape[0], 4):
            rows = slice(top, min(top + 4, image.shape[0]))
            yield rows, torch.from_numpy(self.values[:, rows])

    probabilities = scores


@pytest.fixture
def values() -> npt.NDArray[np.float32]:
    found = np.random.default_rng(1).dirichlet(np.full(len(SPACE), 0.5), SIZE).astype(np.float32)
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def rule(values: npt.NDArray[np.float32], **changes: Any) -> Rule:
    return Rule(**{
        "space": SPACE, "old": OLD, "sets": SETS, "confidence": CONFIDENCE,
        "model": Model(Given(values), list(range(len(SPACE)))), **changes,
    })  # fmt: skip


IMAGE = np.zeros((*SIZE, 3), np.uint8)


def test_a_label_of_several_concepts_is_split_within_its_set(values: npt.NDArray[np.float32]) -> None:
    mask = np.random.default_rng(2).choice(np.array([0, 0, 1, 3, 255], np.uint8), SIZE)
    made = relabel_mask(rule(values), IMAGE, mask, None, [], [])
    assert made.mask is not None and made.mask.dtype == np.uint8
    unsure = 0
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            old = int(mask[y, x])
            if old != 0:
                assert made.mask[y, x] == {1: 3, 3: 4, 255: 255}[old]
                continue
            shares = {concept: values[concept, y, x] / sum(values[c, y, x] for c in SETS[0]) for concept in SETS[0]}
            best = max(shares, key=lambda concept: shares[concept])
            assert made.mask[y, x] == (best if shares[best] >= CONFIDENCE else 255)
            unsure += shares[best] < CONFIDENCE
    assert 0 < unsure < (mask == 0).sum()
    assert made.counts["unsure_pixels"] == unsure and made.counts["predicted_pixels"] == (mask == 0).sum() - unsure
    assert made.counts["mapped_pixels"] == np.isin(mask, [1, 3]).sum()


def test_without_a_model_it_is_no_label(values: npt.NDArray[np.float32]) -> None:
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    boxes = [{"bbox": [0, 0, 1, 1], "class_index": 0}, {"bbox": [0, 0, 2, 1], "class_index": 1}]
    made = relabel_mask(rule(values, model=None), IMAGE[:2, :2], mask, None, [], boxes)
    assert made.mask is not None and made.mask.tolist() == [[255, 3], [255, 255]]
    assert [box["class_index"] for box in made.boxes] == [3] and made.counts["dropped_boxes"] == 1


def test_a_segment_is_one_concept(values: npt.NDArray[np.float32]) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[-2:] = 1
    instances = np.zeros(SIZE, np.uint16)
    instances[:5, :4], instances[:5, 4:], instances[5:9], instances[9:] = 3, 700, 8, 9
    values[:, 5:9] = np.array([0.2, 0.2, 0, 0.3, 0.1, 0.2], np.float32)[:, None, None]  # nothing is sure of segment 8
    segments = [{"id": i, "class_index": 1 if i == 9 else 0, "iscrowd": False} for i in (3, 700, 8, 9)]
    made = relabel_mask(rule(values, confidence=0.34), IMAGE, mask, instances, segments, [])
    assert made.mask is not None and made.instances is not None
    expected = {9: 3}
    for place in (3, 700):
        inside = instances == place
        shares = values[list(SETS[0])][:, inside]
        means = (shares / shares.sum(axis=0)).mean(axis=1)
        expected[place] = SETS[0][int(means.argmax())]
        assert means.max() >= 0.34
    assert {segment["id"]: segment["class_index"] for segment in made.segments} == expected
    for place, concept in expected.items():
        assert (made.mask[instances == place] == concept).all() and (made.instances[instances == place] == place).all()
    assert (made.mask[instances == 8] == 255).all() and (made.instances[instances == 8] == 0).all()
    assert made.counts["dropped_segments"] == 1


@pytest.mark.parametrize(
    ("whole", "own", "gone"),
    [(None, None, {2, 4}), (frozenset({0, 1, 2}), None, {2}), (None, frozenset({1, 3}), {4})],
    ids=["all", "the set's list", "the image's list"],
)
def test_boxes_become_masks_smallest_first(
    values: npt.NDArray[np.float32], whole: frozenset[int] | None, own: frozenset[int] | None, gone: set[int]
) -> None:
    """`gone`: concepts of classes that were annotated for and have no box."""
    boxes: list[dict[str, Any]] = [
        {"bbox": [0.0, 0.0, 9.0, 11.0], "class_index": 1},
        {"bbox": [1.6, 2.4, 6.5, 9.0], "class_index": 0},
    ]
    made = relabel_boxes(rule(values, annotated=whole), IMAGE, boxes, own)
    assert made.mask is not None
    seen = 0
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            best = max(set(range(len(SPACE))) - gone, key=lambda concept: values[concept, y, x])
            seen += best != int(values[:, y, x].argmax())
            expected = 255
            for index in (0, 1):  # the smaller first
                (x0, y0, x1, y1), concepts = boxes[1 - index]["bbox"], SETS[index]
                share = values[best, y, x] / values[list(concepts), y, x].sum()
                if x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 and best in concepts and share >= CONFIDENCE:
                    expected = best
                    break
            assert made.mask[y, x] == expected
    assert seen > 5


def test_boxes_of_every_class_become_masks(values: npt.NDArray[np.float32]) -> None:
    boxes: list[dict[str, Any]] = [
        {"bbox": [0.0, 0.0, 9.0, 11.0], "class_index": 1},
        {"bbox": [1.6, 2.4, 6.5, 9.0], "class_index": 0},
        {"bbox": [3.0, 3.0, 8.2, 6.0], "class_index": 2},
        {"bbox": [0.0, 7.0, 9.0, 11.0], "class_index": 3, "depiction": True},
    ]
    made = relabel_boxes(rule(values), IMAGE, boxes)
    assert made.mask is not None
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            best, expected = int(values[:, y, x].argmax()), 255
            for box in sorted(boxes[:3], key=lambda b: (b["bbox"][2] - b["bbox"][0]) * (b["bbox"][3] - b["bbox"][1])):
                x0, y0, x1, y1 = box["bbox"]
                concepts = SETS[box["class_index"]]
                share = values[best, y, x] / values[list(concepts), y, x].sum()
                if x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1 and best in concepts and share >= CONFIDENCE:
                    expected = best
                    break
            assert made.mask[y, x] == expected
    inside = made.mask[2:9, 2:6]
    most = max(SETS[0], key=lambda concept: int((inside == concept).sum()))
    assert [box["class_index"] for box in made.boxes] == [3, most, 2, 4]


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_boxes_become_segments(values: npt.NDArray[np.float32], least: float) -> None:
    boxes: list[dict[str, Any]] = [
        {"bbox": [0.0, 0.0, 9.0, 11.0], "class_index": 1, "native_id": "large"},
        {"bbox": [1.6, 2.4, 6.5, 9.0], "class_index": 0, "native_id": "middle", "iscrowd": True},
        {"bbox": [3.0, 3.0, 8.2, 6.0], "class_index": 2, "native_id": "small"},
    ]
    plain = relabel_boxes(rule(values), IMAGE, boxes)
    made = relabel_boxes(rule(values, least_cover=least), IMAGE, boxes)
    assert made.mask is not None and made.instances is not None and plain.mask is not None and plain.instances is None
    assert {*np.unique(made.instances).tolist()} - {0} == {segment["id"] for segment in made.segments}
    assert made.counts["predicted_masks"] + made.counts["dropped_masks"] == 3
    for segment in made.segments:
        inside = made.instances == segment["id"]
        (box,) = [box for box in boxes if box["native_id"] == segment["native_id"]]
        ys, xs = np.nonzero(inside)
        x0, y0, x1, y1 = box["bbox"]
        assert (xs + 0.5 >= x0).all() and (xs + 0.5 < x1).all() and (ys + 0.5 >= y0).all() and (ys + 0.5 < y1).all()
        assert (made.mask[inside] == segment["class_index"]).all() and segment["class_index"] in SETS[
            box["class_index"]
        ]
        assert segment["area"] == inside.sum() > 0 and segment["iscrowd"] is (box["native_id"] == "middle")
    if least:
        assert 0 < made.counts["dropped_masks"] and (made.mask == 255).sum() > (plain.mask == 255).sum()
    else:
        assert np.array_equal(made.mask, plain.mask) and len(made.segments) >= 2


def test_concepts_that_no_label_tells_apart_are_not_guessed(values: npt.NDArray[np.float32]) -> None:
    predictor = Given(values)
    predictor.predicted_as[1] = 0  # the model can't tell a bus from a car
    predictor.positions = np.array([0, 2, 3, 4, 5])
    predictor.values = values[predictor.positions]
    made = relabel_mask(
        rule(values, model=Model(predictor, list(range(6))), confidence=0),
        IMAGE,
        np.zeros(SIZE, np.uint8),
        None,
        [],
        [],
    )
    assert made.mask is not None
    lorries = values[5] > values[0]
    assert (made.mask[lorries] == 5).all() and (made.mask[~lorries] == 255).all()


def test_what_is_no_class_is_a_bad_sample(values: npt.NDArray[np.float32]) -> None:
    with pytest.raises(SampleError, match="a pixel of its mask is 9, which is not a class of streets"):
        relabel_mask(rule(values), IMAGE, np.full(SIZE, 9, np.uint8), None, [], [])
    with pytest.raises(SampleError, match="a box is 4"):
        relabel_boxes(rule(values), IMAGE, [{"bbox": [0, 0, 1, 1], "class_index": 4}])
