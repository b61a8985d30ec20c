"""Similarity matrices: how near the labels of several datasets lie to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import WORD_TEMPLATE, Bank
from labelmerge.colours import dataset_styles
from labelmerge.errors import UsageError
from labelmerge.merge.clustering import blocks_of, cosines_of, seriation
from labelmerge.names import prompt_name
from labelmerge.plot.figures import check_format, dataset_legend, save_figure

_INCH_PER_NAME = 0.13
_PANEL_INCHES = (4.5, 9.0)  # smallest; and the size where names are left out
_TITLES = {WORD_TEMPLATE: "Words"}
_COLOURS = "PuBu"  # from pale to dark, so that it reads in grey and by every eye
_PALEST = 0.5  # the quantile of the cosines below which all is pale: half of all pairs have nothing in common


@dataclass(frozen=True)
class SimilarityPlot:
    """What `plot_similarity` drew.

    Attributes:
        labels: how many rows the matrices have.
        left_out: how many labels have none, since the bank of words lacks them.
        blocks: for each matrix from left to right its title and its `block_diagonality`.
    """

    labels: int
    left_out: int
    blocks: tuple[tuple[str, float], ...]


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
    diagonal. Colours mean the same in both. A strip shows which dataset a row comes from; names are written up to
    `max_names` labels, and over each matrix its `block_diagonality`. The same banks give the same file.

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
    _draw(panels, labels, max_names, out)
    return SimilarityPlot(len(labels), left_out, blocks)


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
    max_names: int,
    out: Path,
) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    named = len(labels) <= max_names
    side = max(_PANEL_INCHES[0], len(labels) * _INCH_PER_NAME) if named else _PANEL_INCHES[1]
    styles = dataset_styles([dataset for dataset, _ in labels])
    strip = np.array([to_rgb(styles[dataset].colour) for dataset, _ in labels])
    low = min(float(np.quantile(matrix, _PALEST)) for _, matrix in panels)
    figure = Figure(figsize=(len(panels) * side + (2.6 if named else 1.4), side + 1.5), layout="constrained", dpi=130)
    # For each panel a strip of dataset colours and a matrix.
    axes = figure.subplots(1, 2 * len(panels), squeeze=False, width_ratios=[0.02, 1] * len(panels))[0]
    image = None
    for number, (title, matrix) in enumerate(panels):
        rail, plot = axes[2 * number], axes[2 * number + 1]
        rail.imshow(strip[:, None], aspect="auto", interpolation="nearest")
        rail.set_xticks([])
        rail.set_yticks([])
        if named and number == 0:
            rail.set_yticks(range(len(labels)), [name for _, name in labels], fontsize=7)
            rail.tick_params(length=0)
        image = plot.imshow(matrix, cmap=_COLOURS, vmin=low, vmax=1, aspect="auto", interpolation="nearest")
        plot.set_title(title, fontsize=12)
        plot.set_xticks([])
        plot.set_yticks([])
        for spine in (*rail.spines.values(), *plot.spines.values()):
            spine.set_visible(False)
    if image is not None:
        figure.colorbar(image, ax=list(axes), shrink=0.5, pad=0.01, label="cosine", extend="min")
    dataset_legend(figure, styles)
    save_figure(figure, out)
