"""Confusion matrix and IoU beside torchmetrics', on one CPU: seconds per image, in one run.

    python tests/benchmarks/bench_metrics.py [--height H] [--width W] [--classes K] [--repeat N]

Both are given the same mask and prediction, as they come: an 8-bit mask with ignored pixels, int64 class positions. The
mask and the prediction are patches, as real ones are, not noise. torchmetrics is measured as a user has it and with its
checks of values switched off.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from labelmerge.tasks.semantic import Confusion, Metrics, confusion_matrix

IGNORE = 255
PATCH = 16


def patches(height: int, width: int, values: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """[height, width] of square patches, each of one of `values`."""
    rng = np.random.default_rng(seed)
    small = rng.choice(values, (-(-height // PATCH), -(-width // PATCH)))
    return small.repeat(PATCH, axis=0).repeat(PATCH, axis=1)[:height, :width]


def ten_lines(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.int64], classes: int) -> Confusion:
    """The reference: the obvious NumPy."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    known = truth != IGNORE
    np.add.at(matrix, (truth[known].astype(np.int64), prediction[known]), 1)
    return matrix


def median_seconds(once: Callable[[], object], repeat: int) -> float:
    once()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        once()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("height", 1024), ("width", 2048), ("classes", 150), ("repeat", 7), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    size, classes = (options.height, options.width), options.classes
    if classes >= IGNORE:
        parser.error(f"an 8-bit mask holds fewer than {IGNORE} classes")

    truth = patches(*size, np.array([*range(classes), IGNORE]), 0).astype(np.uint8)
    right = np.random.default_rng(1).random(size) < 0.7
    prediction = np.where(right & (truth != IGNORE), truth, patches(*size, np.arange(classes), 2)).astype(np.int64)
    ours = confusion_matrix(truth, prediction, classes)
    assert np.array_equal(ours, ten_lines(truth, prediction, classes))

    truth_tensor, prediction_tensor = torch.from_numpy(truth.astype(np.int64)), torch.from_numpy(prediction)
    rows = [("labelmerge", median_seconds(lambda: confusion_matrix(truth, prediction, classes), options.repeat))]
    for metric in (MulticlassConfusionMatrix, MulticlassJaccardIndex):
        for checks in (True, False):
            theirs = metric(classes, ignore_index=IGNORE, validate_args=checks)

            def update(theirs: torch.nn.Module = theirs) -> None:
                theirs.update(prediction_tensor, truth_tensor)  # type: ignore[operator]

            name = f"torchmetrics {metric.__name__}{'' if checks else ', unchecked'}"
            rows.append((name, median_seconds(update, options.repeat)))
            assert np.array_equal(theirs.confmat.numpy(), ours * (options.repeat + 1))
    jaccard = MulticlassJaccardIndex(classes, ignore_index=IGNORE)
    jaccard.update(prediction_tensor, truth_tensor)
    assert abs(float(jaccard.compute()) - Metrics.of(ours).miou) < 1e-6

    print(f"{options.height}x{options.width}, {classes} classes, {options.threads} threads; the matrices are equal")
    print(f"{'':55}{'seconds':>10}{'ratio':>8}")
    for name, seconds in rows:
        print(f"{name:55}{seconds:10.4f}{seconds / rows[0][1]:8.1f}")


if __name__ == "__main__":
    main()
