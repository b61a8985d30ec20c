"""Class masks made visible: over the image, with a legend, beside the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelmerge.colours import Palette, palette

if TYPE_CHECKING:
    from PIL import Image, ImageFont

Picture = npt.NDArray[np.uint8]

_BACKGROUND = (255, 255, 255)
_INK = (32, 32, 32)
_UNLABELLED = (96, 96, 96)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB, ITU-R BT.601
_MAX_NAME = 40  # characters of a name in a legend


def overlay(
    image: Picture,
    classes: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    strength: float = 0.55,
    edges: bool = True,
    segments: npt.NDArray[np.integer] | None = None,
) -> Picture:
    """The image in grey, each class tinted in its colour (over a coloured image no hue would be the legend's).

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        classes: ``[H, W]`` positions in `names`; any other value means "no label" and turns dark grey.
        names: the label names, which decide the colours (`labelmerge.colours.palette`).
        strength: share of the class colour, 0..1.
        edges: draw a white line where two classes meet.
        segments: ``[H, W]`` ids; a line is where two of these meet, too.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    table = np.vstack([palette(names), np.array([_UNLABELLED], np.uint8)]).astype(np.float32) * strength
    known = np.where((classes >= 0) & (classes < len(names)), classes, len(names))
    grey = image @ (_LUMA * (1 - strength))
    mixed = grey[:, :, None] + table[known]
    if edges:
        mixed[_borders(known if segments is None else known + (len(names) + 1) * segments.astype(np.int64))] = 255
    out: Picture = np.round(mixed, out=mixed).astype(np.uint8)
    return out


def _borders(classes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    border = np.zeros(classes.shape, dtype=np.bool_)
    border[:, :-1] |= classes[:, 1:] != classes[:, :-1]
    border[:-1] |= classes[1:] != classes[:-1]
    return border


def present(*masks: npt.NDArray[np.integer] | None, count: int) -> list[int]:
    """The positions 0..count-1 that occur in any of the masks, the most frequent first."""
    pixels = np.zeros(count, dtype=np.int64)
    for mask in masks:
        if mask is not None:
            pixels += np.bincount(mask[(mask >= 0) & (mask < count)].ravel(), minlength=count)
    return [int(position) for position in np.argsort(-pixels, kind="stable") if pixels[position]]


def legend(names: Sequence[str], width: int, *, colours: Palette | None = None, font_size: int = 14) -> Image.Image:
    """Swatches with names, in as many columns as fit into `width` pixels.

    Args:
        names: what to show, in this order.
        colours: their colours, uint8 ``[K, 3]``; by default those of `palette(names)`, which are only certain to be the
            same as an overlay's when `names` is the overlay's whole list.
    """
    from PIL import Image, ImageDraw, ImageFont

    colours = palette(names) if colours is None else colours
    font = ImageFont.load_default(font_size)
    pad, swatch, line = font_size // 2, font_size, round(font_size * 1.6)
    shown = [name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…" for name in names]
    room = width - 3 * pad - swatch  # for the text, where there is one column
    shown = [_fitted(name, font, room) for name in shown]
    cell = swatch + 3 * pad + math.ceil(max((font.getlength(name) for name in shown), default=0))
    columns = max(1, min((width - pad) // cell, len(names)))
    rows = math.ceil(len(names) / columns)
    out = Image.new("RGB", (width, rows * line + pad if rows else 0), _BACKGROUND)
    draw = ImageDraw.Draw(out)
    for number, (name, colour) in enumerate(zip(shown, colours, strict=True)):
        left, top = pad + (number // rows) * cell, pad // 2 + (number % rows) * line
        box = (left, top + (line - swatch) // 2, left + swatch, top + (line + swatch) // 2)
        draw.rectangle(box, fill=tuple(int(value) for value in colour), outline=_INK)
        draw.text((left + swatch + pad, top + line // 2), name, fill=_INK, font=font, anchor="lm")
    return out


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…" if text else ""


def with_legend(
    image: Picture,
    classes: npt.NDArray[np.integer],
    names: Sequence[str],
    segments: npt.NDArray[np.integer] | None = None,
) -> Image.Image:
    """The overlay at the image's size, and under it a legend of the classes in it, the largest first."""
    from PIL import Image

    font_size = _font_size(image.shape[1])
    key = _key(names, [classes], max(image.shape[1], 160), font_size)
    return _stack([Image.fromarray(overlay(image, classes, names, segments=segments)), key])


def panel(
    image: Picture,
    truth: npt.NDArray[np.integer] | None,
    prediction: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    height: int | None = None,
) -> Image.Image:
    """Image, truth (if there is one) and prediction side by side, each with a caption, over one legend.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        truth, prediction: ``[H, W]`` positions in `names`; any other value means "no label".
        height: pixels of each picture, up or down (small ones stay sharp-edged); by default the image's own.
    """
    from PIL import Image, ImageDraw, ImageFont

    parts = [("image", image)]
    parts += [
        (caption, overlay(image, mask, names, edges=height is None))
        for caption, mask in (("truth", truth), ("prediction", prediction))
        if mask is not None
    ]
    height = height or image.shape[0]
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    gap = max(2, width // 60)
    total = width * len(parts) + gap * (len(parts) - 1)
    font_size = _font_size(total)
    font = ImageFont.load_default(font_size)
    band = round(font_size * 1.7)
    pictures = Image.new("RGB", (total, height + band), _BACKGROUND)
    draw = ImageDraw.Draw(pictures)
    resample = Image.Resampling.NEAREST if height > image.shape[0] else Image.Resampling.BOX
    for number, (caption, picture) in enumerate(parts):
        left = number * (width + gap)
        pictures.paste(Image.fromarray(picture).resize((width, height), resample), (left, band))
        draw.text((left + width // 2, band // 2), caption, fill=_INK, font=font, anchor="mm")
    return _stack([pictures, _key(names, [truth, prediction], total, font_size)])


def _font_size(width: int) -> int:
    """Readable when the picture is shown as wide as a page."""
    return min(40, max(12, width // 60))


def _key(
    names: Sequence[str], masks: Sequence[npt.NDArray[np.integer] | None], width: int, font_size: int
) -> Image.Image:
    shown = present(*masks, count=len(names))
    return legend([names[n] for n in shown], width, colours=palette(names)[shown], font_size=font_size)


def _stack(parts: Sequence[Image.Image]) -> Image.Image:
    from PIL import Image

    out = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), _BACKGROUND)
    top = 0
    for part in parts:
        out.paste(part, (0, top))
        top += part.height
    return out
