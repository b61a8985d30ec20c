"""Pictures of confusion matrices: looked at by eye once; here their size, colours and that names are drawn."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.evaluate.confusion import draw_confusion


def picture(count: int, confusion: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.uint8]:
    matrix = np.diag(np.full(count, 10)) if confusion is None else confusion
    return np.asarray(
        Image.open(io.BytesIO(draw_confusion(matrix, [f"class {k}" for k in range(count)], "t"))).convert("RGB")
    )


@pytest.mark.parametrize(("count", "least"), [(1, 150), (3, 200), (19, 800), (150, 2400)])
def test_every_class_has_room(count: int, least: int) -> None:
    height, width = picture(count).shape[:2]
    assert least < min(height, width) and max(height, width) < 2 * least + 500


def test_rows_are_normalised_and_classes_without_truth_are_grey() -> None:
    """One pixel of a class looks as a million do; the third class is labelled nowhere."""
    colours = picture(3, np.array([[1_000_000, 0, 0], [0, 1, 0], [0, 0, 0]]))
    dark = (colours[:, :, 2].astype(int) - colours[:, :, 0] > 80).sum()
    once = picture(3, np.array([[7, 0, 0], [0, 7, 0], [0, 0, 0]]))
    assert dark == (once[:, :, 2].astype(int) - once[:, :, 0] > 80).sum()
    grey = (abs(colours.astype(int) - 0.9 * 255) < 1).all(axis=2).sum()
    assert grey > 3 * 60 * 60


def test_the_same_matrix_gives_the_same_bytes() -> None:
    matrix, names = np.eye(4, dtype=np.int64), ["a", "b", "c", "a very long name that would push all else aside"]
    assert draw_confusion(matrix, names, "t") == draw_confusion(matrix, names, "t")
