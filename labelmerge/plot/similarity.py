"""Similarity matrices: how near the labels of several datasets lie to each other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.describe.prompts import prompt_name
from labelmerge.embed.bank import WORD_TEMPLATE, Bank
from labelmerge.embed.similarity import cosine_matrix, seriation
from labelmerge.errors import UsageError
from labelmerge.files import write_bytes
from labelmerge.plot.colours import palette

FORMATS = (".png", ".svg", ".pdf")

_INCH_PER_NAME = 0.13
_PANEL_INCHES = (4.5, 9.0)  # smallest; and the size where names are left out
_TITLES = {WORD_TEMPLATE: "Words"}
_DARKEST = 0.02  # quantile of the cosines that gets the darkest colour: encoders differ in where they begin


def plot_similarity(
    bank: Bank,
    out: Path,
    *,
    words: Bank | None = None,
    datasets: Sequence[str] | None = None,
    max_names: int = 120,
) -> int:
    """Draw the cosines between all labels as a matrix; with `words`, their words' matrix beside it.

    Rows are in the order of `seriation` of `bank`, in both matrices, so that labels of one category form a block on the
    diagonal. Colours mean the same in both. A strip shows which dataset a row comes from; names are written up to
    `max_names` labels. The same banks give the same file.

    Args:
        bank: the labels.
        out: a file ending in .png, .svg or .pdf.
        words: a bank of bare words; labels that it lacks are left out of both matrices.
        datasets: only these; None means all.
        max_names: how many labels may have their names beside the matrix.

    Returns:
        How many labels were drawn.

    Raises:
        UsageError: another file format, or the two banks share no label.
        BankError: a bank has no labels of a dataset.
        OutputError: the file can't be written.
    """
    if out.suffix.lower() not in FORMATS:
        raise UsageError(
            f"can't draw a {out.suffix or 'file without ending'}", where=out, fix=f"Use {', '.join(FORMATS)}"
        )
    if datasets is not None:
        bank = bank.for_datasets(datasets)
    if words is not None:
        bank = _shared(bank, words)
        words = words.for_keys(bank.keys)
    order = seriation(bank)
    panels = [(_title(b), cosine_matrix(b)[np.ix_(order, order)]) for b in (words, bank) if b is not None]
    labels = [(bank.keys[row][0], prompt_name(bank.names[row])) for row in order]
    write_bytes(out, _draw(panels, labels, max_names, out.suffix.lower()[1:]))
    return len(labels)


def dataset_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour ``#rrggbb`` for each dataset; the same names get the same colours."""
    ordered = sorted(set(names))
    return {name: "#" + bytes(colour).hex() for name, colour in zip(ordered, palette(ordered), strict=True)}


def _shared(bank: Bank, words: Bank) -> Bank:
    keys = [key for key in bank.keys if key in words]
    if not keys:
        raise UsageError(
            f"has none of the labels of {bank.folder or bank.version}",
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
    kind: str,
) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    named = len(labels) <= max_names
    side = max(_PANEL_INCHES[0], len(labels) * _INCH_PER_NAME) if named else _PANEL_INCHES[1]
    colours = dataset_colours([dataset for dataset, _ in labels])
    strip = np.array([to_rgb(colours[dataset]) for dataset, _ in labels])
    low = min(float(np.quantile(matrix, _DARKEST)) for _, matrix in panels)
    figure = Figure(figsize=(len(panels) * side + (2.6 if named else 1.4), side + 1.3), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
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
        image = plot.imshow(matrix, cmap="magma", vmin=low, vmax=1, aspect="auto", interpolation="nearest")
        plot.set_title(title, fontsize=11)
        plot.set_xticks([])
        plot.set_yticks([])
        for spine in (*rail.spines.values(), *plot.spines.values()):
            spine.set_visible(False)
    if image is not None:
        figure.colorbar(image, ax=list(axes), shrink=0.5, pad=0.01, label="cosine")
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), fontsize=8, frameon=False)
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "labelmerge"}):
        dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
        figure.savefig(out, format=kind, metadata=dated[kind])
    return out.getvalue()
