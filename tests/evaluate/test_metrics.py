"""Metrics against a slow loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelmerge.evaluate.metrics import Metrics, confusion_matrix, harmonic_mean

Array = npt.NDArray[np.int64]
CLASSES = 4


def slow_iou(truth: Array, prediction: Array) -> list[float]:
    pairs = [(int(t), int(p)) for t, p in zip(truth.flat, prediction.flat, strict=True) if t != 255]
    ious = []
    for k in range(CLASSES):
        either = sum(1 for t, p in pairs if t == k or p == k)
        both = sum(1 for t, p in pairs if t == k and p == k)
        ious.append(both / either if either else math.nan)
    return ious


@st.composite
def masks(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    truth = draw(hnp.arrays(np.int64, shape, elements=st.sampled_from([0, 1, 2, 3, 255])))
    return truth, draw(hnp.arrays(np.int64, shape, elements=st.integers(0, CLASSES - 1)))


@given(masks(), masks())
def test_iou_and_accuracy_are_those_of_the_loop(a: tuple[Array, Array], b: tuple[Array, Array]) -> None:
    truth, prediction = (np.concatenate([x.ravel(), y.ravel()]) for x, y in zip(a, b, strict=True))
    metrics = Metrics.of(confusion_matrix(*a, CLASSES) + confusion_matrix(*b, CLASSES))
    expected = slow_iou(truth, prediction)
    np.testing.assert_allclose(metrics.iou, expected)
    known = [value for value in expected if not math.isnan(value)]
    np.testing.assert_allclose(metrics.miou, np.mean(known) if known else math.nan)
    labelled = [(t, p) for t, p in zip(truth, prediction, strict=True) if t != 255]
    right = sum(1 for t, p in labelled if t == p)
    np.testing.assert_allclose(metrics.pixel_accuracy, right / len(labelled) if labelled else math.nan)
    assert metrics.truth_pixels.sum() == metrics.predicted_pixels.sum() == len(labelled)


def test_absent_classes_do_not_count_but_invented_ones_do() -> None:
    truth = np.array([[0, 0, 255]])
    metrics = Metrics.of(confusion_matrix(truth, np.array([[0, 2, 3]]), CLASSES))
    np.testing.assert_array_equal(metrics.iou, [0.5, np.nan, 0.0, np.nan])
    assert metrics.miou == 0.25
    assert metrics.mean_accuracy == metrics.pixel_accuracy == 0.5


def test_unsigned_masks_do_not_overflow() -> None:
    truth = np.full((2, 2), 200, np.uint8)
    assert confusion_matrix(truth, truth, 201)[200, 200] == 4


@pytest.mark.parametrize(
    ("values", "expected"), [([0.5, 0.5], 0.5), ([0.2, 0.6], 0.3), ([0.9, 0.0], 0.0), ([0.7], 0.7)]
)
def test_harmonic_mean(values: list[float], expected: float) -> None:
    assert harmonic_mean(values) == pytest.approx(expected)


def test_harmonic_mean_of_nothing() -> None:
    assert math.isnan(harmonic_mean([]))
