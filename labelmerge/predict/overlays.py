"""Class masks made visible: over the image, with a legend, beside the truth."""

from __future__ import annotations

import io
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
_SHADES = (0.0, 0.45, -0.4, 0.75, -0.65)  # of things of one class: towards white, and towards black
_IN_NO_SEGMENT = "in no segment"
_LONGEST = 2000  # pixels of the longer side of a picture
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
        segments: ``[H, W]`` ids, each of one class, 0 for none: what is in none counts as "no label", those of one
            class differ in shade, and a line is where two of them meet, too.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    table = np.vstack([palette(names), np.array([_UNLABELLED], np.uint8)]).astype(np.float32) * strength
    known = np.where((classes >= 0) & (classes < len(names)), classes, len(names))
    if segments is not None:
        known = np.where(segments > 0, known, len(names))
    grey = image @ (_LUMA * (1 - strength))
    mixed = grey[:, :, None] + (table[known] if segments is None else _shades(known, segments, table)[segments])
    if edges:
        mixed[_borders(known if segments is None else known + (len(names) + 1) * segments.astype(np.int64))] = 255
    out: Picture = np.round(mixed, out=mixed).astype(np.uint8)
    return out


def _shades(
    known: npt.NDArray[np.integer], segments: npt.NDArray[np.integer], table: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The colour of each segment: its class's, lighter or darker from the second of a class on."""
    label = np.full(int(segments.max(initial=0)) + 1, len(table) - 1)
    label[segments.ravel()] = known.ravel()
    label[0] = len(table) - 1
    colours: npt.NDArray[np.float32] = table[label]
    white = table.max()
    for position in np.unique(label[1:]).tolist():
        own = np.flatnonzero(label[1:] == position) + 1
        share = np.array(_SHADES, np.float32)[np.arange(len(own)) % len(_SHADES)][:, None]
        colours[own] += np.where(share > 0, share * (white - colours[own]), share * colours[own])
    return colours


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
    """The overlay at the image's size, and under it a legend of the classes in it, the largest first.

    With `segments` it says how many there are of a class that has several.
    """
    from PIL import Image

    font_size = _font_size(image.shape[1])
    width = max(image.shape[1], 160)
    key = _key(names, [classes], width, font_size)
    if segments is not None:
        inside = np.where(segments > 0, classes, -1)
        shown = present(inside, count=len(names))
        counts = [len(np.unique(segments[inside == position])) for position in shown]
        said = [f"{names[n]} ({count})" if count > 1 else names[n] for n, count in zip(shown, counts, strict=True)]
        colours = [palette(names)[shown]]
        if (inside < 0).any():
            said.append(_IN_NO_SEGMENT)
            colours.append(np.array([_UNLABELLED], np.uint8))
        key = legend(said, width, colours=np.concatenate(colours), font_size=font_size)
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


def overlay_jpg(
    image: Picture, classes: npt.NDArray[np.integer], names: Sequence[str], ids: npt.NDArray[np.integer] | None = None
) -> bytes:
    """`with_legend` as a JPEG whose longer side has at most `_LONGEST` pixels: a picture to look at needs no more."""
    from PIL import Image

    height, width = classes.shape
    if (factor := _LONGEST / max(height, width)) < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        rows = np.arange(size[1]) * height // size[1]
        columns = np.arange(size[0]) * width // size[0]
        classes, ids = classes[rows][:, columns], None if ids is None else ids[rows][:, columns]
    out = io.BytesIO()
    with_legend(image, classes, names, ids).save(out, "jpeg", quality=92, subsampling=0)
    return out.getvalue()
