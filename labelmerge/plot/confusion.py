"""A confusion matrix as a picture, from three classes to several hundred."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_WITH_NUMBERS = 40  # classes; in more cells than that nobody reads numbers
_LONGEST_NAME = 28
_CELL_INCHES = (0.42, 0.155)  # with numbers and without; the smaller still holds a line of 7 points
_MARGIN_INCHES = 2.4
_DPI = 110
_WHITE_ABOVE = 0.55  # of a row: there the colour is dark


def draw_confusion(confusion: npt.NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """The picture of a confusion matrix, as the bytes of a PNG.

    Each row is divided by its sum: where the pixels of a class went, in per cent of them. Rows of classes without
    labelled pixels are grey. Up to 40 classes, cells of at least 1 % hold their number. The colour grows as the square
    root, so that a mistake of a few per cent is seen beside a diagonal of ninety.

    Args:
        confusion: int64 ``[K, K]``, row = truth, column = prediction.
        names: of the K classes.
        title: above it.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(names)
    numbered = count <= _MOST_WITH_NUMBERS
    cell = _CELL_INCHES[0 if numbered else 1]
    sums = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, sums, out=np.full(confusion.shape, np.nan), where=sums > 0)
    side = max(cell * count, 1.5)
    figure = Figure(figsize=(side + _MARGIN_INCHES + 0.9, side + _MARGIN_INCHES + 0.5), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["Blues"].with_extremes(bad="0.9")
    drawn = axes.imshow(share, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    size = 8 if numbered else 7
    axes.set_xticks(range(count), short, rotation=90, fontsize=size)
    axes.set_yticks(range(count), short, fontsize=size)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    axes.set_title(title, fontsize=10)
    if numbered:
        for row, column in zip(*np.nonzero(np.nan_to_num(share) >= 0.01), strict=True):
            value = share[row, column]
            ink = "white" if value > _WHITE_ABOVE else "0.15"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    else:
        # So many cells lead the eye astray: hairlines every ten, and names on all four sides.
        axes.set_xticks(np.arange(9.5, count - 1, 10), minor=True)
        axes.set_yticks(np.arange(9.5, count - 1, 10), minor=True)
        axes.grid(which="minor", color="0.8", linewidth=0.5)
        axes.tick_params(which="both", length=0, labeltop=True, labelright=True)
        for label in axes.get_xticklabels():
            label.set_rotation(90)
    bar = figure.colorbar(drawn, ax=axes, shrink=min(1.0, 3 / side), ticks=[0, 0.05, 0.25, 0.5, 1], format="{x:.0%}")
    bar.outline.set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()
