"""A confusion matrix as a picture, from three classes to several hundred."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_WITH_NUMBERS = 40  # classes; in more cells than that nobody reads numbers
_MOST_WITH_NAMES = 300  # the picture would have more pixels than viewers like
_CELL_INCHES = (0.42, 0.155, 0.03)  # with numbers, with names, with neither; 0.155 still holds a line of 7 points
_LONGEST_NAME = 28
_NAMES_INCHES = 1.9  # along each side that has names
_PADDING_INCHES = 0.45
_DPI = 110
_DARK = 0.45  # of a row: from there on the colour is


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
    numbered, named = count <= _MOST_WITH_NUMBERS, count <= _MOST_WITH_NAMES
    cell = _CELL_INCHES[0 if numbered else 1 if named else 2]
    sums = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, sums, out=np.full(confusion.shape, np.nan), where=sums > 0)

    # Placed by hand: matplotlib's own layout measures hundreds of names again and again.
    side, near = max(cell * count, 2.0), _NAMES_INCHES + _PADDING_INCHES
    far = _PADDING_INCHES if numbered or not named else near
    width, height = near + side + far + 1.3, near + side + far + _PADDING_INCHES
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((near / width, near / height, side / width, side / height))
    colours = colormaps["Blues"].with_extremes(bad="0.9")
    drawn = axes.imshow(share, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    places = range(0, count, 1 if named else 20)
    size = 8 if numbered else 7
    axes.set_xticks(places, [short[place] for place in places], rotation=90, fontsize=size)
    axes.set_yticks(places, [short[place] for place in places], fontsize=size)
    axes.tick_params(length=0 if named else 3)
    axes.set_xlabel("predicted", fontsize=11)
    axes.set_ylabel("labelled", fontsize=11)
    head = (near + side + (0.1 if far < near else far - 0.2)) / height
    figure.text((near + side / 2) / width, head, title, fontsize=13, ha="center", va="bottom")
    if numbered:
        for row, column in zip(*np.nonzero(np.nan_to_num(share) >= 0.01), strict=True):
            value = share[row, column]
            ink = "white" if value > _DARK else "0.15"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    elif named:
        # So many cells lead the eye astray: hairlines every ten, and names on all four sides.
        axes.set_xticks(np.arange(9.5, count - 1, 10), minor=True)
        axes.set_yticks(np.arange(9.5, count - 1, 10), minor=True)
        axes.grid(which="minor", color="0.8", linewidth=0.5)
        axes.tick_params(which="both", length=0)
        axes.tick_params(labeltop=True, labelright=True)
        axes.tick_params(axis="x", rotation=90)
    beside = figure.add_axes(((near + side + far + 0.1) / width, (near + side - 2) / height, 0.18 / width, 2 / height))
    bar = figure.colorbar(drawn, cax=beside, ticks=[0, 0.05, 0.25, 0.5, 1], format="{x:.0%}")
    bar.outline.set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return stream.getvalue()
