"""AbsRel and δ after alignment: closed forms, and loops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmerge.errors import SampleError
from labelmerge.labels import LabelSpace
from labelmerge.tasks.depth import Depth, fit

Array = np.ndarray[Any, Any]
SPACE = LabelSpace.of("streets", ("road", "sky"))
TASK = Depth(SPACE)


@dataclass
class Truth:
    depth: Array | None
    mask: Array | None = None
    key: str = "k"
    annotated: frozenset[int] | None = None


def drawn(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    depth = rng.integers(0, 5000, (6, 7)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.3] = 0
    depth[0, :2] = 100, 900
    return depth, rng.standard_normal(depth.shape).astype(np.float32)


def figures(depth: Array, predicted: Array) -> Any:
    return TASK.figures(TASK.count(Truth(depth), predicted))


@given(st.integers(0, 10**6), st.floats(0.01, 50), st.floats(-100, 100))
def test_a_scaled_and_shifted_truth_is_right(seed: int, scale: float, shift: float) -> None:
    depth, _ = drawn(seed)
    found = figures(depth, (depth.astype(np.float64) * scale + shift))
    assert found.abs_rel < 1e-6 and found.deltas == (1, 1, 1) and found.pixels == np.count_nonzero(depth)


def test_the_same_everywhere_is_the_mean() -> None:
    depth, _ = drawn(1)
    known = depth[depth > 0].astype(np.float64)
    wanted = np.abs(1 - known.mean() / known).mean()
    for predicted in (np.full(depth.shape, 3.0), -depth.astype(np.float64)):  # near for far is no better
        assert figures(depth, predicted).abs_rel == pytest.approx(wanted)


@given(st.integers(0, 10**6))
def test_figures_are_those_of_loops(seed: int) -> None:
    depth, predicted = drawn(seed)
    places = [place for place in np.ndindex(depth.shape) if depth[place]]
    p, d = np.array([float(predicted[at]) for at in places]), np.array([float(depth[at]) for at in places])
    (scale, shift), *_ = np.linalg.lstsq(np.stack([p, np.ones(len(p))], 1), d, rcond=None)
    if scale <= 0:
        scale, shift = 0.0, d.mean()
    relative, inside = 0.0, [0, 0, 0]
    for prediction, truth in zip(p, d, strict=True):
        value = max(scale * prediction + shift, 1e-9)
        relative += abs(value - truth) / truth
        for power in range(3):
            inside[power] += max(value / truth, truth / value) < 1.25 ** (power + 1)
    found = figures(depth, predicted)
    assert found.abs_rel == pytest.approx(relative / len(d), rel=1e-6)
    assert found.deltas == pytest.approx(tuple(count / len(d) for count in inside))


def test_no_scale_of_0_or_more_fits_better() -> None:
    depth, predicted = drawn(4)
    p, d = predicted[depth > 0].astype(np.float64), depth[depth > 0].astype(np.float64)
    for sign in (1, -1):
        best = ((fit(sign * p, d) - d) ** 2).sum()
        for scale in np.linspace(0, 3000, 31):
            shift = (d - scale * sign * p).mean()
            assert best <= ((scale * sign * p + shift - d) ** 2).sum() + 1e-6


@given(st.permutations(range(6)), st.integers(1, 5))
def test_counts_add_up_in_any_order_to_the_same_bits(order: list[int], cut: int) -> None:
    counts = [TASK.count(Truth(drawn(seed)[0], key=str(seed)), drawn(seed)[1]) for seed in range(5)]
    counts.append(TASK.count(Truth(np.zeros((3, 3), np.uint16)), np.zeros((3, 3), np.float32)))
    whole = TASK.figures(TASK.total(counts))
    mixed = [counts[place] for place in order]
    parts = TASK.total([TASK.total(mixed[:cut]), TASK.nothing(), TASK.total(mixed[cut:])])
    assert TASK.figures(parts) == whole and whole.images == 5 and whole.unknown == 1


def test_nothing_to_measure() -> None:
    unknown = TASK.count(Truth(np.zeros((2, 2), np.uint16)), np.zeros((2, 2), np.float32))
    assert not TASK.measured(unknown) and not TASK.measured(TASK.nothing())
    found = TASK.figures(TASK.nothing())
    assert math.isnan(found.abs_rel) and found.to_json()["abs_rel"] is None
    with pytest.raises(SampleError, match="k: has no depths"):
        TASK.count(Truth(None), np.zeros((2, 2), np.float32))


def test_labels_are_places_in_the_label_space() -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    found = TASK.labels_of(Truth(None, mask))
    assert found is not None and found.tolist() == [[0, 1, -1]]
    assert TASK.labels_of(Truth(None)) is None


@pytest.mark.parametrize(
    ("crop", "size", "rows", "columns"),
    [
        ("nyu-eigen", (480, 640), (45, 471), (41, 601)),
        ("nyu-eigen", (240, 320), (22, 235), (20, 300)),
        ("kitti-garg", (375, 1242), (153, 371), (44, 1197)),
        ("kitti-eigen", (375, 1242), (124, 342), (44, 1197)),
    ],
)
def test_a_crop_leaves_out_what_lies_outside(
    crop: str, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 5000, size).astype(np.uint16)
    predicted = rng.standard_normal(size).astype(np.float32)
    inside = depth[rows[0] : rows[1], columns[0] : columns[1]], predicted[rows[0] : rows[1], columns[0] : columns[1]]
    found = Depth(SPACE, crop).count(Truth(depth), predicted)
    assert found == TASK.count(Truth(inside[0]), inside[1]) and found.images[0].pixels == inside[0].size


def test_a_cap_leaves_out_what_is_farther_and_holds_predictions_back() -> None:
    depth = np.array([[100, 200, 300, 401, 65535, 0]], np.uint16)
    predicted = np.array([[1.0, 4.0, 4.2, 9.0, -20.0, 3.0]], np.float32)
    p, d = predicted[0, :3].astype(np.float64), depth[0, :3].astype(np.float64)
    scale, shift = np.polyfit(p, d, 1)
    fitted = np.minimum(scale * p + shift, 400)
    found = Depth(SPACE, most=400).count(Truth(depth), predicted).images[0]
    assert found.pixels == 3 and found.abs_rel == pytest.approx((np.abs(fitted - d) / d).mean())
    line = Depth(SPACE, most=250).count(Truth(depth), predicted).images[0]  # two points lie on every line
    assert line.pixels == 2 and line.abs_rel == pytest.approx(0)
    far = np.array([[100, 100, 240, 240]], np.uint16), np.array([[0.0, 0.0, 1.0, 3.0]], np.float32)
    fitted = np.minimum(fit(far[1][0].astype(np.float64), far[0][0].astype(np.float64)), 250)  # the last lies beyond
    over = Depth(SPACE, most=250).count(Truth(far[0]), far[1]).images[0]
    assert fitted[-1] == 250 and over.abs_rel == pytest.approx((np.abs(fitted - far[0][0]) / far[0][0]).mean())


def test_nothing_within_the_limits_is_an_image_without_depths() -> None:
    depth = np.full((4, 4), 900, np.uint16)
    found = Depth(SPACE, most=400).count(Truth(depth), np.zeros((4, 4), np.float32))
    assert not found.images and found.unknown == 1
