"""Similarity matrices: how near the labels of several datasets lie to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.colours import dataset_styles
from labelmerge.errors import UsageError
from labelmerge.merge.clustering import blocks_of, cosines_of, linkage, seriation
from labelmerge.names import prompt_name
from labelmerge.plot.figures import check_format, dataset_legend, save_figure
from labelmerge.plot.groups import group_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCH_PER_NAME = 0.13
_PANEL_INCHES = (4.5, 9.0)  # smallest; and the size where names are left out
_TITLES = {WORD_TEMPLATE: "Words"}
COLOURS = {"Words": "YlOrBr", "Sentences": "PuBu"}
"""Of matrices, from pale to dark, so that they read in grey and by every eye."""
_BLOCK_INCHES = 0.15  # from one block's name to the next, at least
_INCHES_FOR_BLOCK = 0.24  # on average, so that most names stand beside their blocks
_SMALLEST_BLOCK = 3  # labels; smaller ones have no name
PALEST = 0.5
"""The quantile of the cosines below which all is pale: half of all pairs have nothing in common."""


@dataclass(frozen=True)
class SimilarityPlot:
    """What `plot_similarity` drew.

    Attributes:
        labels: how many rows the matrices have.
        left_out: how many labels have none, since the bank of words lacks them.
        blocks: for each matrix from left to right its title and its `block_diagonality`.
        named: how many blocks have a name, where labels have none.
    """

    labels: int
    left_out: int
    blocks: tuple[tuple[str, float], ...]
    named: int = 0


def plot_similarity(
    bank: Bank,
    out: Path,
    *,
    words: Bank | None = None,
    datasets: Sequence[str] | None = None,
    max_names: int = 120,
) -> SimilarityPlot:
    """Draw the cosines between all labels as a matrix; with `words`, their words' matrix beside it.

    Rows are in the order of `seriation` of `bank`, in both matrices, so that labels of one category form a block on the
    diagonal. Each matrix has a scale of its own, from the median of its cosines to 1, and words another colour than
    sentences: bare words lie nearer together, so that one scale would make the two look alike. A strip shows which
    dataset a row comes from; names are written up to `max_names` labels, and of more the blocks are named
    (`named_blocks`). Over each matrix stands its `block_diagonality`. The same banks give the same file.

    Args:
        bank: the labels.
        out: a file ending in .png, .svg or .pdf.
        words: a bank of bare words; labels that it lacks are left out of both matrices.
        datasets: only these; None means all.
        max_names: how many labels may have their names beside the matrix.

    Raises:
        UsageError: another file format, or the two banks share no label.
        BankError: a bank has no labels of a dataset.
        OutputError: the file can't be written.
    """
    check_format(out)
    if datasets is not None:
        bank = bank.for_datasets(datasets)
    left_out = 0
    if words is not None:
        left_out = sum(key not in words for key in bank.keys)
        bank = _shared(bank, words)
        words = words.for_keys(bank.keys)
    order = seriation(bank)
    banks = [b for b in (words, bank) if b is not None]
    blocks = tuple((_title(b), block_diagonality(b)) for b in banks)
    panels = [
        (f"{title}\nblock-diagonality {blocky:.2f}", cosines_of(b.vectors)[np.ix_(order, order)])
        for b, (title, blocky) in zip(banks, blocks, strict=True)
    ]
    labels = [(bank.keys[row][0], prompt_name(bank.names[row])) for row in order]
    most = int(_PANEL_INCHES[1] / _INCHES_FOR_BLOCK)
    groups = named_blocks(bank, order, most) if len(labels) > max_names else []
    _draw(panels, labels, groups, out)
    return SimilarityPlot(len(labels), left_out, blocks, len(groups))


def named_blocks(bank: Bank, order: npt.NDArray[np.int64], most: int) -> list[tuple[int, int, str]]:
    """The blocks along the diagonal: where each begins and ends (after its last label), and a name.

    The `linkage` tree is cut into as many clusters of `_SMALLEST_BLOCK` labels or more as there may be names; all
    labels of a cluster stand together in a `seriation`.

    Args:
        bank: the labels.
        order: its `seriation`.
        most: how many blocks may be named; of more, the largest are.
    """
    texts, vectors, column = bank.columns()
    cosines = cosines_of(vectors)
    tree = linkage(cosines)
    best: list[npt.NDArray[np.int64]] = []
    for count in sorted({round(len(texts) / share) for share in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96)} - {0}):
        block = blocks_of(cosines, count, tree)[column[order]]
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        lengths = np.diff(starts, append=len(block))
        found = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        large = [places for places in found if len(places) >= _SMALLEST_BLOCK]
        if len(large) <= most and len(large) >= len(best):
            best = large
    names = group_names(bank, [order[places] for places in best]) if best else []
    return [(int(places[0]), int(places[-1]) + 1, name) for places, name in zip(best, names, strict=True)]


def block_diagonality(bank: Bank, blocks: int | None = None) -> float:
    """How clearly the similarity matrix falls into blocks: 0 not at all; 1 where all labels of a block are the same.

    The K distinct texts are cut into `blocks` blocks by complete linkage of the bank's own cosines, each bank at its
    best. With W the mean cosine of two texts of one block, and B that of two texts of different blocks,

        (W - B) / (1 - B)

    is how much of the way from strangers to sameness the members of a block have come. Moving or stretching the range
    that an encoder's cosines take, with 1 staying 1, does not change it, so that encoders can be compared. Texts are
    compared, not labels: labels that share a text are one vector, whose cosine with itself says nothing.

    Args:
        bank: the labels.
        blocks: how many; None for the square root of K, rounded.

    Returns:
        The number; 0 where there are no two texts in a block, or no two blocks.

    Raises:
        ValueError: fewer blocks than 1 or more than K.
    """
    texts, vectors, _ = bank.columns()
    count = round(len(texts) ** 0.5) if blocks is None else blocks
    if not 1 <= count <= len(texts):
        raise ValueError(f"{count} blocks of {len(texts)} texts")
    cosines = np.clip(vectors @ vectors.T, -1, 1).astype(np.float64)
    block = blocks_of(cosines.astype(np.float32), count)
    same = block[:, None] == block[None]
    other = ~same
    np.fill_diagonal(same, False)
    if not same.any() or not other.any():
        return 0.0
    within, between = float(cosines[same].mean()), float(cosines[other].mean())
    return (within - between) / (1 - between) if between < 1 else 0.0


def _shared(bank: Bank, words: Bank) -> Bank:
    keys = [key for key in bank.keys if key in words]
    if not keys:
        raise UsageError(
            f"has no label of {bank.folder or bank.version}",
            where=words.folder,
            fix=f"`labelmerge embed {' '.join(bank.datasets())} --words --out {words.folder or 'BANK'}` adds them",
        )
    return bank.for_keys(keys)


def _title(bank: Bank) -> str:
    return f"{_TITLES.get(bank.prompt, 'Sentences')} · {bank.encoder}"


def _draw(
    panels: Sequence[tuple[str, npt.NDArray[np.float32]]],
    labels: Sequence[tuple[str, str]],
    groups: Sequence[tuple[int, int, str]],
    out: Path,
) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    side = _PANEL_INCHES[1] if groups else max(_PANEL_INCHES[0], len(labels) * _INCH_PER_NAME)
    styles = dataset_styles([dataset for dataset, _ in labels])
    strip = np.array([to_rgb(styles[dataset].colour) for dataset, _ in labels])
    figure = Figure(figsize=(len(panels) * side + 2.6, side + 1.9), layout="constrained", dpi=130)
    # For each panel a strip of dataset colours and a matrix.
    axes = figure.subplots(1, 2 * len(panels), squeeze=False, width_ratios=[0.02, 1] * len(panels))[0]
    for number, (title, matrix) in enumerate(panels):
        rail, plot = axes[2 * number], axes[2 * number + 1]
        rail.imshow(strip[:, None], aspect="auto", interpolation="nearest")
        rail.set_xticks([])
        rail.set_yticks([])
        if number == 0 and not groups:
            rail.set_yticks(range(len(labels)), [name for _, name in labels], fontsize=7)
            rail.tick_params(length=0)
        elif number == 0:
            _name_blocks(rail, groups, len(labels), side)
        colours = COLOURS[title.partition(" ")[0]]
        low = float(np.quantile(matrix, PALEST))
        image = plot.imshow(matrix, cmap=colours, vmin=low, vmax=1, aspect="auto", interpolation="nearest")
        for start, end, _ in groups:
            square = ([start - 0.5, end - 0.5, end - 0.5, start - 0.5, start - 0.5],) * 2
            plot.plot(square[0], [*square[1][1:], square[1][1]], color="0.25", lw=0.5)
        plot.set_title(title, fontsize=12)
        plot.set_xticks([])
        plot.set_yticks([])
        for spine in (*rail.spines.values(), *plot.spines.values()):
            spine.set_visible(False)
        figure.colorbar(
            image, ax=plot, location="bottom", shrink=0.5, aspect=40, pad=0.01, label="cosine", extend="min"
        )
    dataset_legend(figure, styles)
    save_figure(figure, out)


def _name_blocks(rail: Axes, groups: Sequence[tuple[int, int, str]], labels: int, inches: float) -> None:
    """Write the names of blocks left of the strip, spread so that none covers another, with lines to the blocks."""
    step = _BLOCK_INCHES / inches * labels
    middles = np.array([(start + end - 1) / 2 for start, end, _ in groups])
    for (start, end, name), middle, place in zip(groups, middles, spread(middles, step, labels), strict=True):
        rail.plot([-0.9, -0.9], [start - 0.3, end - 0.7], color="0.25", lw=1.0, clip_on=False)
        rail.annotate(
            name,
            xy=(-1.0, middle),
            xytext=(-3.4, place),
            annotation_clip=False,
            ha="right",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "0.5", "shrinkA": 1, "shrinkB": 0},
        )
    rail.set_xlim(-0.5, 0.5)
    rail.set_ylim(labels - 0.5, -0.5)


def spread(wanted: npt.NDArray[np.float64], step: float, length: float) -> npt.NDArray[np.float64]:
    """Places near the wanted ones, ascending, at least a step apart and within 0..length where there is room.

    Runs of names that would touch are moved apart around their common middle.
    """
    runs: list[list[float]] = []  # sum of the wanted places of their members less what spreading adds, count
    for number, place in enumerate(wanted.tolist()):
        runs.append([place - number * step, 1.0])
        while len(runs) > 1 and runs[-2][0] / runs[-2][1] > runs[-1][0] / runs[-1][1]:
            total, count = runs.pop()
            runs[-1] = [runs[-1][0] + total, runs[-1][1] + count]
    base = np.concatenate([np.full(int(count), total / count) for total, count in runs]) if runs else np.zeros(0)
    room = length - 1 - step * max(len(wanted) - 1, 0)
    places: npt.NDArray[np.float64] = np.clip(base, 0, max(room, 0)) + step * np.arange(len(wanted))
    return places
