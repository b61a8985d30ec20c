"""Pictures of confusion matrices: looked at by eye once; here their size, colours and that names are drawn."""

from __future__ import annotations

import io
import subprocess
import sys

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


def test_drawing_takes_no_figures() -> None:
    """matplotlib takes a second to load them, and seconds to lay out hundreds of names."""
    code = (
        "import sys, numpy as np; from labelmerge.evaluate.confusion import draw_confusion;"
        "draw_confusion(np.eye(60, dtype=np.int64), ['class'] * 60, 't'); assert 'matplotlib.figure' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [3, 60])
def test_cells_lie_where_they_belong_and_names_beside_them(count: int) -> None:
    """Truth goes down, predictions go across; every class that has a name is named left and below."""
    matrix = np.zeros((count, count), dtype=np.int64)
    matrix[:, 0] = 9
    colours = picture(count, matrix).astype(int)
    blue = np.argwhere(colours[:, :, 2] - colours[:, :, 0] > 80)
    rows, columns = blue[:, 0], blue[:, 1]
    left = columns < np.median(columns) + 100  # not the bar
    assert np.ptp(rows[left]) > (count - 1) * np.ptp(columns[left])
    names = colours[rows[left].min() : rows[left].max(), : columns.min() - 3].max(axis=2) < 100
    lines = np.array_split(names[:, names.shape[1] // 3 :].any(axis=1), count)
    assert all(line.any() for line in lines)
