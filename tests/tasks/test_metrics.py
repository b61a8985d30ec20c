"""Metrics against a slow loop over pixels, ten lines of NumPy, and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelmerge.tasks import semantic as module
from labelmerge.tasks.semantic import Metrics, Mistake, confusion_matrix, harmonic_mean, worst_mistakes

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


def ten_lines(truth: Array, prediction: Array, classes: int) -> dict[str, float]:
    """The obvious NumPy."""
    known = (truth >= 0) & (truth < classes)
    truth, prediction = truth[known], prediction[known]
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (truth, prediction), 1)
    right, labelled, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        iou, accuracy = right / (labelled + predicted - right), right / labelled
    weighted = np.nansum(labelled / labelled.sum() * iou)
    return dict(
        miou=np.nanmean(iou),
        miou_labelled=np.nanmean(iou[labelled > 0]),
        mean_accuracy=np.nanmean(accuracy),
        frequency_weighted_iou=weighted,
        pixel_accuracy=right.sum() / labelled.sum(),
    )


def noise(classes: int, dtype: type[np.integer], seed: int = 0) -> tuple[npt.NDArray[np.integer], Array]:
    """A truth in which the last class and one in five pixels are missing, and a prediction that is often right."""
    rng = np.random.default_rng(seed)
    ignore = np.iinfo(dtype).max
    truth = np.where(rng.random((120, 75)) < 0.2, ignore, rng.integers(0, classes - 1, (120, 75))).astype(dtype)
    guess = rng.integers(0, classes, (120, 75))
    return truth, np.where((rng.random((120, 75)) < 0.6) & (truth != ignore), truth, guess).astype(np.int64)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("classes", [2, 19, 150])
def test_all_figures_are_those_of_numpy(classes: int, dtype: type[np.integer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1000)
    truth, prediction = noise(classes, dtype)
    metrics = Metrics.of(confusion_matrix(truth, prediction, classes))
    for name, value in ten_lines(truth.astype(np.int64), prediction, classes).items():
        assert getattr(metrics, name) == pytest.approx(value, abs=1e-12), name


def test_torchmetrics_agrees() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    import torch

    truth, prediction = noise(19, np.uint8)
    ours = confusion_matrix(truth, prediction, 19)
    tensors = torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64))
    theirs = classification.MulticlassConfusionMatrix(19, ignore_index=255)
    theirs.update(*tensors)
    np.testing.assert_array_equal(ours, theirs.compute().numpy())
    metrics = Metrics.of(ours)
    for average, value in (("macro", metrics.miou), ("weighted", metrics.frequency_weighted_iou)):
        jaccard = classification.MulticlassJaccardIndex(19, ignore_index=255, average=average)
        assert float(jaccard(*tensors)) == pytest.approx(value, abs=1e-6)
    accuracy = classification.MulticlassAccuracy(19, ignore_index=255, average="micro")
    assert float(accuracy(*tensors)) == pytest.approx(metrics.pixel_accuracy, abs=1e-6)


def test_worst_mistakes() -> None:
    confusion = np.array([[90, 6, 4], [6, 0, 0], [0, 0, 0]])
    assert worst_mistakes(confusion, 2) == [Mistake(0, 1, 6, 0.06), Mistake(1, 0, 6, 1.0)]
    assert len(worst_mistakes(confusion, 9)) == 3


def test_wrong_input_is_refused() -> None:
    truth = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"the truth is \(2, 3\), the prediction \(3, 2\)"):
        confusion_matrix(truth, np.zeros((3, 2), np.int64), 4)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="predictions must be 0 to 3"):
            confusion_matrix(truth, np.full((2, 3), wrong), 4)
    assert confusion_matrix(np.zeros(0, np.uint8), np.zeros(0, np.int64), 2).tolist() == [[0, 0], [0, 0]]


def test_absent_classes_do_not_count_but_invented_ones_do() -> None:
    truth = np.array([[0, 0, 255]])
    metrics = Metrics.of(confusion_matrix(truth, np.array([[0, 2, 3]]), CLASSES))
    np.testing.assert_array_equal(metrics.iou, [0.5, np.nan, 0.0, np.nan])
    assert metrics.miou == 0.25 and metrics.miou_labelled == metrics.frequency_weighted_iou == 0.5
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
