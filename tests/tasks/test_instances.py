"""Average precision: by hand, the truth itself, crowds, shrunken images, and processes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.instances import InstanceCounts, InstanceTask

# pycocotools is not up to NumPy 2's ways yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SPACE = LabelSpace.of("toy", ("car", "person", "road"))
TASK = InstanceTask(SPACE, (0, 1))


@dataclass
class Truth:
    key: str
    instances: npt.NDArray[Any] | None
    segments: list[dict[str, Any]]
    mask: None = None
    pixel_area: float = 1.0
    annotated: frozenset[int] | None = None


@dataclass
class Found:
    labels: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.int64))
    scores: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    masks: tuple[dict[str, Any], ...] = ()


def truth(key: str = "a", *, crowd: tuple[int, ...] = (), pixel_area: float = 1.0) -> Truth:
    """Two cars and a person side by side above a road, 10 × 10 each."""
    ids = np.repeat(np.repeat([[1, 2, 3], [4, 4, 4]], 10, axis=0), 10, axis=1)
    classes = {1: 0, 2: 0, 3: 1, 4: 2}
    segments = [{"id": i, "class_index": c, "iscrowd": i in crowd} for i, c in classes.items()]
    return Truth(key, ids, segments, pixel_area=pixel_area)


def found(*entries: tuple[int, int, float]) -> Found:
    """Segments by id, label and score."""
    ids = truth().instances
    masks = tuple(coco.encode(np.asfortranarray(ids == number, dtype=np.uint8)) for number, _, _ in entries)
    return Found(np.array([label for _, label, _ in entries]), np.array([score for *_, score in entries]), masks)


def ap(*pairs: tuple[Truth, Found]) -> Any:
    return TASK.figures(TASK.total([TASK.count(*pair) for pair in pairs]))


def test_the_truth_is_perfect() -> None:
    figures = ap((truth(), found((1, 0, 0.9), (2, 0, 0.8), (3, 1, 0.7), (4, 2, 0.9))))
    assert (figures.ap, figures.ap50, figures.ap75, figures.small) == pytest.approx((1, 1, 1, 1))
    assert (
        np.isnan(figures.medium)
        and figures.classes[:2].tolist() == pytest.approx([1, 1])
        and np.isnan(figures.classes[2])
    )
    assert figures.to_json()["large"] is None


def test_by_hand() -> None:
    """Of two cars the surer answer is wrong: precision 1/2 up to recall 1/2, then 0: 51 of 101 points at 1/2."""
    figures = ap((truth(), found((3, 0, 0.9), (1, 0, 0.8))))
    assert figures.classes[0] == pytest.approx(51 / 101 / 2) and figures.classes[1] == 0


def test_crowds_neither_need_be_found_nor_are_mistakes() -> None:
    figures = ap((truth(crowd=(2,)), found((1, 0, 0.9), (2, 0, 0.95), (3, 1, 0.9))))
    assert figures.ap == pytest.approx(1)


def test_what_an_image_was_not_annotated_for_may_be_there() -> None:
    """LVIS's rule, against a search without pycocotools' help: unmatched detections of such classes vanish."""
    rng = np.random.default_rng(0)
    for lists in ({0}, {1}, set(), {0, 1}):
        every, without = [], []
        for n in range(4):
            one = replace(truth(f"k{n}"), annotated=frozenset(lists) if n % 2 else None)
            entries = [(int(rng.integers(1, 4)), int(rng.integers(0, 2)), float(rng.random())) for _ in range(5)]
            best: dict[tuple[int, int], float] = {}
            for number, label, score in entries:
                best[number, label] = max(score, best.get((number, label), 0.0))
            class_of = {1: 0, 2: 0, 3: 1}
            kept = [
                (number, label, score) for number, label, score in entries
                if one.annotated is None or label in lists
                or (class_of[number] == label and best[number, label] == score)
            ]  # fmt: skip
            every.append((one, found(*entries)))
            without.append((replace(one, annotated=None), found(*kept)))
        assert ap(*every).ap == pytest.approx(ap(*without).ap)
    everywhere = InstanceTask(SPACE, (0, 1), np.array([True, False, True]))
    wrong = everywhere.count(truth(), found((1, 0, 0.9), (2, 0, 0.8), (3, 1, 0.6), (1, 1, 0.95)))
    assert everywhere.figures(wrong).ap == pytest.approx(1) and ap((truth(), found((3, 1, 0.6), (1, 1, 0.95)))).ap < 1


def test_sizes_are_those_of_the_original_images() -> None:
    """10 × 10 pixels that were 40 × 40: medium."""
    figures = ap((truth(pixel_area=16.0), found((1, 0, 0.9), (2, 0, 0.8), (3, 1, 0.7))))
    assert figures.medium == pytest.approx(1) and np.isnan(figures.small)


def test_parts_in_any_order_are_the_whole() -> None:
    rng = np.random.default_rng(0)
    counts: list[InstanceCounts] = []
    for n in range(8):
        entries = [(int(rng.integers(1, 4)), int(rng.integers(0, 2)), float(rng.choice([0.3, 0.6]))) for _ in range(4)]
        counts.append(TASK.count(truth(f"k{n}"), found(*entries)))
    whole = TASK.figures(TASK.total(counts))
    parts = TASK.figures(TASK.total([TASK.total(counts[5:]), TASK.nothing(), TASK.total(counts[:5])]))
    assert whole.ap == parts.ap and 0 < whole.ap < 1
    assert TASK.measured(TASK.total(counts)) and not TASK.measured(TASK.nothing())


def test_what_has_no_segments_is_a_bad_sample() -> None:
    with pytest.raises(SampleError, match="no segments"):
        TASK.count(Truth("a", None, []), found())
