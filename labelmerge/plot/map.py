"""The flat map of all labels as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.colours import dataset_styles
from labelmerge.names import prompt_name
from labelmerge.plot.figures import check_format, dataset_legend, legend_columns, marker, save_figure
from labelmerge.plot.groups import group_names
from labelmerge.plot.layout import Places, flat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = 10.0  # the map's longer side
_FLATTEST = 0.6  # its shorter side's least share of that
_LEGEND_INCHES = 0.2  # of each line
_GROUPS = 24  # at most
_LABELS_OF_A_GROUP = 12  # on average, where that makes fewer groups
_SMALLEST_GROUP = 3
_DPI = 200
_MARK_POINTS = 4.2  # a mark's diameter
_TURN = 2.4  # radians from one label to the next around their text's place: the golden angle
_FONT = 6.5
_ACROSS = np.linspace(0.1, 0.9, 9)  # where a group's title may stand, in shares of the group

Frame = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class MapPlot:
    """What `plot_map` drew: labels, the distinct texts that they lie around, how many of those have a name, groups."""

    labels: int
    texts: int
    named: int
    groups: int


def plot_map(bank: Bank, out: Path, *, datasets: Sequence[str] | None = None, seed: int = 0) -> MapPlot:
    """Draw all labels on a plane, similar ones near each other (`flat_map`), with their datasets' colours and shapes.

    Labels that share a text lie around one place. Names are written where they cover neither a mark nor another name,
    those of the most labels first. Texts that lie together are tinted and named as a
    group (`map_groups`). The same bank and seed give the same file on one machine.

    Args:
        bank: the labels.
        out: a file ending in .png, .svg or .pdf.
        datasets: only these; None means all.
        seed: of the map.

    Raises:
        UsageError: another file format.
        BankError: the bank has no labels of a dataset.
        OutputError: the file can't be written.
    """
    check_format(out)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if datasets is not None:
        bank = bank.for_datasets(datasets)
    _, vectors, column = bank.columns()
    places = flat_map(vectors, seed)
    width, height = np.maximum(np.ptp(places, axis=0), _FLATTEST) * _INCHES
    styles = dataset_styles(bank.datasets())
    legend = (-(-len(styles) // legend_columns(width + 0.4, styles))) * _LEGEND_INCHES + 0.15
    total = height + 0.4 + legend
    figure = Figure(figsize=(width + 0.4, total), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.2 / (width + 0.4), (0.2 + legend) / total, width / (width + 0.4), height / total))
    # One unit is as long on both axes, and a name at the edge has room.
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    half = np.array([width, height]) / _INCHES / 2 + 0.03
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.85")
    spots = _around(places, column, unit=float(2 * half[0]) / (width * 72))
    owner = np.array([dataset for dataset, _ in bank.keys])
    for name, style in styles.items():
        own = spots[owner == name]
        axes.scatter(
            own[:, 0], own[:, 1], s=_MARK_POINTS**2, marker=marker(style), color=style.colour, edgecolor="w", lw=0.25
        )
    groups = map_groups(places)
    titles = group_names(bank, [np.flatnonzero(np.isin(column, group)) for group in groups]) if groups else []
    for number, group in enumerate(groups):
        _tint(axes, places[group], number)
    taken = _write_titles(axes, [(title, places[group]) for title, group in zip(titles, groups, strict=True)], spots)
    counts = np.bincount(column, minlength=len(places))
    names = {place: prompt_name(bank.names[row]) for row, place in reversed(list(enumerate(column.tolist())))}
    order = sorted(range(len(places)), key=lambda place: (-counts[place], place))
    named = _write_names(axes, [(names[place], places[place], int(counts[place])) for place in order], spots, taken)
    dataset_legend(figure, styles)
    save_figure(figure, out)
    return MapPlot(len(bank), len(places), named, len(groups))


def map_groups(places: Places) -> list[npt.NDArray[np.int64]]:
    """Which of K places on the map lie together, as Ward's clusters of the plane (J. Ward, "Hierarchical grouping to
    optimize an objective function", JASA 58, 1963); clusters of fewer than three are left out."""
    from scipy.cluster import hierarchy

    count = min(_GROUPS, len(places) // _LABELS_OF_A_GROUP)
    if count < 2:
        return []
    cluster = hierarchy.fcluster(hierarchy.linkage(places, method="ward"), count, criterion="maxclust")
    groups = [np.flatnonzero(cluster == number) for number in np.unique(cluster)]
    return [group for group in groups if len(group) >= _SMALLEST_GROUP]


def _tint(axes: Axes, places: Places, number: int) -> None:
    """A pale patch around a group of places, behind everything else."""
    from matplotlib.patches import Polygon
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = places[ConvexHull(places).vertices]
    except QhullError:  # all on one line
        hull = places
    grey = ("0.955", "0.93")[number % 2]
    axes.add_patch(Polygon(hull, closed=True, facecolor=grey, edgecolor=grey, lw=14, joinstyle="round", zorder=0.1))


def _write_titles(axes: Axes, groups: Sequence[tuple[str, Places]], spots: Places) -> list[Frame]:
    """Write each group's name large, over all marks, where it covers the fewest of them; returns the boxes in pixels.

    The largest groups choose first, among places that lie within a group.
    """
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3.5, foreground="white")]
    frame, to_pixels = axes.get_window_extent(), axes.transData
    marks = to_pixels.transform(spots)
    boxes: list[Frame] = []
    for title, places in sorted(groups, key=lambda group: -len(group[1])):
        text = axes.text(0, 0, title, fontsize=11, color="0.2", fontweight="bold", path_effects=halo, zorder=4)
        text.set(ha="center", va="center")
        extent = text.get_window_extent()
        own = to_pixels.transform(places)
        low, high, middle = own.min(axis=0), own.max(axis=0), own.mean(axis=0)
        best = None
        for share in np.stack(np.meshgrid(_ACROSS, _ACROSS), axis=-1).reshape(-1, 2):
            at = low + share * (high - low)
            at[0] = np.clip(at[0], frame.x0 + extent.width / 2 + 4, frame.x1 - extent.width / 2 - 4)
            left, right = at[0] - extent.width / 2, at[0] + extent.width / 2
            bottom, top = at[1] - extent.height / 2, at[1] + extent.height / 2
            over = sum(left < x1 and right > x0 and bottom < y1 and top > y0 for x0, y0, x1, y1 in boxes)
            covered = (marks > (left - 4, bottom - 2)).all(axis=1) & (marks < (right + 4, top + 2)).all(axis=1)
            away = float(np.abs(at - middle).sum() / max((high - low).sum(), 1))
            cost = 1000 * over + int(covered.sum()) + 4 * away
            if best is None or cost < best[0]:
                best = (cost, at, (left, bottom, right, top))
        if best is not None:
            x, y = to_pixels.inverted().transform(best[1])
            text.set_position((float(x), float(y)))
            boxes.append(best[2])
    return boxes


def _around(places: Places, column: npt.NDArray[np.int64], unit: float) -> Places:
    """Where each label lies: in a spiral around its text's place; `unit` is the length of a point on the map."""
    number = np.zeros(len(column))
    seen = np.zeros(len(places), dtype=np.int64)
    for row, place in enumerate(column):
        number[row] = seen[place]
        seen[place] += 1
    out = 0.62 * _MARK_POINTS * unit * np.sqrt(number)
    spots: Places = places[column] + np.stack([out * np.cos(_TURN * number), out * np.sin(_TURN * number)], axis=1)
    return spots


def _write_names(
    axes: Axes, names: Sequence[tuple[str, npt.NDArray[np.float64], int]], spots: Places, taken: Sequence[Frame]
) -> int:
    """Write the names (name, place, labels there), first ones first, where there is room; returns how many."""
    from matplotlib.patheffects import withStroke

    point = _DPI / 72  # pixels
    halo = [withStroke(linewidth=1.4, foreground="white")]
    sizes = []
    for name, _, _ in names:
        text = axes.annotate(name, (0, 0), xycoords="figure pixels", fontsize=_FONT)
        extent = text.get_window_extent()
        sizes.append((extent.width, extent.height))
        text.remove()
    to_pixels = axes.transData
    frame = axes.get_window_extent()
    corners = place_names(
        anchors=to_pixels.transform([place for _, place, _ in names]),
        gaps=np.array([(0.62 * np.sqrt(count - 1) + 0.8) * _MARK_POINTS * point for _, _, count in names]),
        sizes=np.array(sizes),
        marks=to_pixels.transform(spots),
        reach=0.5 * _MARK_POINTS * point,
        frame=(frame.x0, frame.y0, frame.x1, frame.y1),
        taken=taken,
    )
    for number, corner in corners.items():
        # Anchored on the map, not on pixels, so that it keeps its place at every resolution.
        x, y = to_pixels.inverted().transform(corner)
        axes.text(x, y, names[number][0], fontsize=_FONT, va="bottom", ha="left", path_effects=halo)
    return len(corners)


def place_names(
    anchors: Places,
    gaps: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64],
    marks: Places,
    reach: float,
    frame: Frame,
    taken: Sequence[Frame] = (),
) -> dict[int, tuple[float, float]]:
    """Where names may stand so that none covers a mark or another name, the first ones choosing first.

    Each is tried right and left of its anchor, above and below. All lengths in one unit, y upwards.

    Args:
        anchors: what the n names belong to: [n, 2].
        gaps: how far from its anchor each keeps: [n].
        sizes: width and height of each: [n, 2].
        marks: the middles of all marks: [m, 2].
        reach: how far a mark extends from its middle.
        frame: left, bottom, right and top of the area.
        taken: where no name may stand.

    Returns:
        The left bottom corner of every name that has a place, by its number.
    """
    corners: dict[int, tuple[float, float]] = {}
    full = np.array(taken, dtype=np.float64).reshape(-1, 4)  # left, bottom, right, top
    for number, ((x, y), gap, (width, height)) in enumerate(zip(anchors, gaps, sizes, strict=True)):
        for left, bottom in (
            (x + gap, y - height / 2),
            (x - gap - width, y - height / 2),
            (x - width / 2, y + gap),
            (x - width / 2, y - gap - height),
        ):
            right, top = left + width, bottom + height
            if left < frame[0] or bottom < frame[1] or right > frame[2] or top > frame[3]:
                continue
            over = (full[:, 0] < right) & (full[:, 2] > left) & (full[:, 1] < top) & (full[:, 3] > bottom)
            hidden = (marks[:, 0] > left - reach) & (marks[:, 0] < right + reach)
            hidden &= (marks[:, 1] > bottom - reach) & (marks[:, 1] < top + reach)
            if not over.any() and not hidden.any():
                corners[number] = (float(left), float(bottom))
                full = np.vstack([full, (left, bottom, right, top)])
                break
    return corners
