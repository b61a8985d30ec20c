"""What all figures for papers share: formats, the legend of datasets, and the same bytes from the same input."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from labelmerge.colours import Style
from labelmerge.errors import UsageError
from labelmerge.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Outline

FORMATS = (".png", ".svg", ".pdf")
_LEGEND_INCHES = (0.5, 0.075)  # of a dataset's mark in the legend, and of each letter of its name
# Without dates and versions, the same input gives the same file.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def check_format(out: Path) -> None:
    """Raise UsageError unless `out` ends in one of `FORMATS`."""
    if out.suffix.lower() not in FORMATS:
        raise UsageError(
            f"can't draw {out.suffix + ' files' if out.suffix else 'without a file extension'}",
            where=out,
            fix=f"Use {', '.join(FORMATS)}",
        )


def marker(style: Style) -> Outline:
    """A dataset's shape as matplotlib draws markers."""
    from matplotlib.path import Path as Outline

    return Outline([*style.outline, style.outline[0]], closed=True)


def legend_columns(inches: float, datasets: Iterable[str]) -> int:
    """How many datasets stand side by side in the legend of a figure so wide, and none is cut off."""
    names = list(datasets)
    widest = _LEGEND_INCHES[0] + _LEGEND_INCHES[1] * max(map(len, names), default=0)
    return max(1, min(len(names), int(inches / widest)))


def dataset_legend(figure: Figure, styles: Mapping[str, Style]) -> None:
    """A legend of datasets, each with its colour and shape, below the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.markers import MarkerStyle

    handles = [
        Line2D(
            [], [], linestyle="none", marker=MarkerStyle(marker(style)), markersize=7, color=style.colour, label=name
        )
        for name, style in styles.items()
    ]
    columns = legend_columns(figure.get_figwidth(), styles)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=9, frameon=False, handletextpad=0.2
    )


def save_figure(figure: Figure, out: Path) -> None:
    """Write the figure in the format of the file's extension; raises OutputError."""
    import matplotlib

    kind = out.suffix.lower()
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "labelmerge"}):
        figure.savefig(stream, format=kind[1:], metadata=_METADATA[kind])
    write_bytes(out, stream.getvalue())
