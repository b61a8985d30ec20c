"""The nearest labels in other datasets as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.colours import dataset_styles
from labelmerge.merge.clustering import calibrated_threshold
from labelmerge.merge.neighbours import Neighbourhood
from labelmerge.plot.figures import check_format, dataset_legend, marker, save_figure

_ROW_INCHES = 0.24
_PANEL_INCHES = 0.85  # title and margins
_MARKS_SHOWN = 14
_NUMBER_WIDTH = 0.08  # of a cosine in print, in cosines


def plot_neighbours(bank: Bank, found: Sequence[Neighbourhood], out: Path) -> None:
    """Draw neighbourhoods, one below the other: cosines as bars, and which datasets have each neighbour.

    A dashed line marks the bank's `calibrated_threshold`: labels at or above it are taken to mean the same.

    Args:
        bank: whose neighbourhoods they are.
        found: at least one, from `find_neighbours`.
        out: a file ending in .png, .svg or .pdf.

    Raises:
        UsageError: another file format.
        OutputError: the file can't be written.
    """
    check_format(out)
    from matplotlib.figure import Figure

    styles = dataset_styles(bank.datasets())
    limit = calibrated_threshold(bank)
    drawn = {dataset for one in found for neighbour in one.neighbours for dataset in neighbour.datasets}
    low = min(0.0, *(neighbour.cosine for one in found for neighbour in one.neighbours), 0.0)
    heights = [max(len(one.neighbours), 1) * _ROW_INCHES + _PANEL_INCHES for one in found]
    figure = Figure(figsize=(9, sum(heights) + 0.8), layout="constrained", dpi=200)
    rows = figure.subplots(len(found), 2, squeeze=False, height_ratios=heights, width_ratios=[1, 0.62])
    for (bars, marks), one in zip(rows, found, strict=True):
        places = np.arange(len(one.neighbours))
        cosines = [neighbour.cosine for neighbour in one.neighbours]
        bars.barh(places, cosines, height=0.62, color=["#0072b2" if c >= limit else "#b5c9d6" for c in cosines])
        for place, cosine in zip(places, cosines, strict=True):
            inside = cosine > _NUMBER_WIDTH  # a bar has room for its number, which so never meets the line
            bars.text(
                cosine - 0.01 if inside else max(cosine, 0) + 0.01,
                place,
                f"{cosine:.2f}",
                ha="right" if inside else "left",
                va="center",
                fontsize=8,
                color="white" if inside and cosine >= limit else "0.1",
            )
        bars.axvline(limit, color="0.3", lw=0.9, ls="--", zorder=3)
        bars.set_yticks(places, [neighbour.name for neighbour in one.neighbours], fontsize=9)
        bars.set_ylim(max(len(places), 1) - 0.4, -0.6)
        bars.set_xlim(low, 1.09)
        bars.set_xticks(np.arange(0, 1.01, 0.2))
        bars.tick_params(axis="x", labelsize=8)
        bars.set_title(
            f"{one.name}  ({_shortened(', '.join(one.datasets))})", fontsize=10, loc="left", fontweight="bold"
        )
        bars.spines[["top", "right"]].set_visible(False)
        marks.set_ylim(bars.get_ylim())
        marks.set_xlim(-0.6, _MARKS_SHOWN + 2)
        marks.axis("off")
        for place, neighbour in zip(places, one.neighbours, strict=True):
            datasets = neighbour.datasets
            for number, dataset in enumerate(datasets[:_MARKS_SHOWN]):
                style = styles[dataset]
                marks.scatter(number, place, s=46, marker=marker(style), color=style.colour)
            if len(datasets) > _MARKS_SHOWN:
                marks.text(_MARKS_SHOWN, place, f"+{len(datasets) - _MARKS_SHOWN}", va="center", fontsize=8)
    rows[-1][0].set_xlabel(f"cosine (dashed: the threshold for the same meaning, {limit:.2f})", fontsize=9)
    dataset_legend(figure, {name: style for name, style in styles.items() if name in drawn})
    save_figure(figure, out)


def _shortened(owners: str, most: int = 60) -> str:
    if len(owners) <= most:
        return owners
    kept = owners[:most].rpartition(", ")[0]
    return f"{kept} and {owners.count(', ') - kept.count(', ')} more"
