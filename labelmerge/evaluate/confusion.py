"""A confusion matrix as a picture, from three classes to several hundred."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_MOST_WITH_NUMBERS = 40  # classes; in more cells than that nobody reads numbers
_MOST_WITH_NAMES = 300  # the picture would have more pixels than viewers like
_CELL = (46, 17, 3)  # pixels with numbers, with names, with neither; 17 still hold a line of text
_SMALLEST_SIDE = 220
_LONGEST_NAME = 28
_MARGIN, _GAP = 17, 6
_LABEL, _TITLE = 17, 20
_BAR = (20, 220)  # width and height of the bar of colours
_DARK = 0.45  # of a row: from there on the colour is
_INK, _GREY, _LINE = (0, 0, 0), (230, 230, 230), (204, 204, 204)
_TICKS = (0, 0.05, 0.25, 0.5, 1)


def draw_confusion(confusion: npt.NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """The picture of a confusion matrix, as the bytes of a PNG.

    Each row is divided by its sum: where the pixels of a class went, in per cent of them. Rows of classes without
    labelled pixels are grey. Up to 40 classes, cells of at least 1 % hold their number. The colour grows as the square
    root, so that a mistake of a few per cent is seen beside a diagonal of ninety.

    Drawn cell by cell and name by name here: a library for figures takes seconds to lay out and draw hundreds of names.

    Args:
        confusion: int64 ``[K, K]``, row = truth, column = prediction.
        names: of the K classes.
        title: above it.
    """
    count = len(names)
    numbered, named = count <= _MOST_WITH_NUMBERS, count <= _MOST_WITH_NAMES
    sums = confusion.sum(axis=1, keepdims=True)
    share = np.divide(confusion, sums, out=np.full(confusion.shape, np.nan), where=sums > 0)
    cell = max(_CELL[0 if numbered else 1 if named else 2], -(-_SMALLEST_SIDE // count))
    side = cell * count

    font = _font(12 if numbered else 11)
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    if not named:  # every twentieth
        short = [name if place % 20 == 0 else "" for place, name in enumerate(short)]
    left, right = (_names(short, cell, font, anchor) for anchor in ("rm", "lm"))
    round_about = named and not numbered  # so many cells lead the eye astray: names on all four sides
    label, head = _font(_LABEL), _font(_TITLE)

    line = _LABEL + 2 * _GAP
    x0 = _MARGIN + line + left.width + _GAP
    y0 = _MARGIN + _TITLE + 2 * _GAP + (left.width + _GAP if round_about else 0)
    far = right.width + _GAP if round_about else 0
    beside = x0 + side + far + 2 * _MARGIN
    width = max(beside + _BAR[0] + 60, x0 + side // 2 + int(head.getlength(title)) // 2 + _MARGIN)
    shift = max(0, int(head.getlength(title)) // 2 + _MARGIN - x0 - side // 2)  # a title wider than all else
    x0, beside, width = x0 + shift, beside + shift, width + shift
    height = y0 + side + _GAP + left.width + line + _MARGIN
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)

    small = Image.fromarray(_coloured(share))
    picture.paste(small.resize((side, side), Image.Resampling.NEAREST), (x0, y0))
    picture.paste(left, (x0 - _GAP - left.width, y0))
    picture.paste(left.transpose(Image.Transpose.ROTATE_90), (x0, y0 + side + _GAP))
    if round_about:
        picture.paste(right, (x0 + side + _GAP, y0))
        picture.paste(right.transpose(Image.Transpose.ROTATE_90), (x0, y0 - _GAP - right.width))
        for place in range(10 * cell, side, 10 * cell):
            draw.line((x0 + place, y0, x0 + place, y0 + side), _LINE)
            draw.line((x0, y0 + place, x0 + side, y0 + place), _LINE)
    if numbered:
        digits = _font(11)
        for row, column in zip(*np.nonzero(np.nan_to_num(share) >= 0.01), strict=True):
            value = share[row, column]
            at = (x0 + cell * (int(column) + 0.5), y0 + cell * (int(row) + 0.5))
            draw.text(at, f"{100 * value:.0f}", "white" if value > _DARK else (38, 38, 38), digits, "mm")
    draw.rectangle((x0 - 1, y0 - 1, x0 + side, y0 + side), outline=_INK)

    draw.text((x0 + side / 2, _MARGIN), title, _INK, head, "ma")
    draw.text((x0 + side / 2, height - _MARGIN), "predicted", _INK, label, "md")
    words = Image.new("RGB", (int(label.getlength("labelled")) + 2, line), "white")
    ImageDraw.Draw(words).text((words.width / 2, line / 2), "labelled", _INK, label, "mm")
    upright = words.transpose(Image.Transpose.ROTATE_90)
    picture.paste(upright, (x0 - _GAP - left.width - line, max(0, y0 + (side - upright.height) // 2)))
    _bar(picture, draw, (beside, y0 + side - _BAR[1]))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _coloured(share: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The colours ``[…, 3]`` of shares, grey for none: from white over blue to dark blue, even in lightness."""
    from matplotlib import colormaps

    colours: npt.NDArray[np.uint8] = colormaps["Blues"](np.sqrt(np.nan_to_num(share)), bytes=True)[..., :3]
    return np.where(np.isnan(share)[..., None], np.array(_GREY, np.uint8), colours)


def _names(names: Sequence[str], cell: int, font: FreeTypeFont, anchor: str) -> Image.Image:
    """A name for each cell of a side, one below the other; turned, they stand below the matrix.

    Args:
        anchor: ``rm`` where they end at the matrix, ``lm`` where they begin there.
    """
    wide = max(1, *(int(font.getlength(name)) + 2 for name in names))
    strip = Image.new("RGB", (wide, cell * len(names)), "white")
    draw = ImageDraw.Draw(strip)
    for place, name in enumerate(names):
        if name:
            middle = max(cell * (place + 0.5), font.size / 2 + 1)  # where cells are lower than the text
            draw.text((wide - 1 if anchor == "rm" else 0, middle), name, _INK, font, anchor)
    return strip


def _bar(picture: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int]) -> None:
    """What the colours mean, beside the matrix."""
    (x, y), (width, height) = at, _BAR
    steps = (np.linspace(1, 0, height) ** 2)[:, None].repeat(width, axis=1)  # the colour grows as the root
    picture.paste(Image.fromarray(_coloured(steps)), at)
    for share in _TICKS:
        where = y + (1 - share**0.5) * (height - 1)
        draw.line((x + width, where, x + width + 3, where), _INK)
        draw.text((x + width + _GAP, where), f"{share:.0%}", _INK, _font(13), "lm")


@cache
def _font(size: int) -> FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has the letters of most languages."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
