"""What happens to a sample before the model sees it: scale, crop, flip, colour, blur, JPEG; masks and boxes follow.

All randomness comes from the generator that is passed in, so a sample's view is a function of that generator's seed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from labelmerge.loading.stream import Mask, Sample

# How often another window is drawn when one shows nothing that is labelled.
_TRIES = 8
# What is left of a box that a crop cuts must be this share of it, and this many pixels wide and high, to stand for it.
_MIN_VISIBLE = 0.25
_MIN_SIDE = 4.0
# What lies outside the image: near the mean of photographs, so that it is about 0 for the model.
_PADDING = (124, 116, 104)


@dataclass(frozen=True)
class Augmentation:
    """How training views are drawn. Probabilities and strengths of 0 switch a step off.

    Attributes:
        crop: side of the square view, pixels.
        short_edge: the image's short edge at scale 1, pixels; 0 keeps the image's own size.
        scale: the range of the random factor on that size (log-uniform).
        flip: probability of the mirror image.
        colour: strength of the change of brightness, contrast and saturation: each factor is within 1 ± colour.
        blur: probability of a Gaussian blur (sigma 0.1 to 1.5 pixels).
        jpeg: probability of JPEG artefacts (quality 25 to 90).
    """

    crop: int
    short_edge: int = 0
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    colour: float = 0.3
    blur: float = 0.1
    jpeg: float = 0.1


@dataclass(frozen=True)
class View:
    """A training view of one sample; crop × crop.

    Attributes:
        image: uint8 ``[crop, crop, 3]``.
        mask: as the sample's, ``[crop, crop]``, `ignore` outside the image; None where the sample has none.
        boxes: float32 ``[P, 4]``, x0, y0, x1, y1 within the view.
        kept: int64 ``[P]``: which of the sample's boxes these are.
    """

    image: npt.NDArray[np.uint8]
    mask: Mask | None
    boxes: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Where a view lies in the scaled image, in the scaled image's pixels; it may reach outside.

    Attributes:
        height, width: of the scaled image.
        top, left: the view's upper left corner; negative where the image is smaller than the view.
        crop: side of the view.
        mirrored: whether the view is flipped left to right.
    """

    height: int
    width: int
    top: int
    left: int
    crop: int
    mirrored: bool


def training_view(sample: Sample, settings: Augmentation, ignore: int, rng: np.random.Generator) -> View:
    """Draw one view of a sample. Another window is tried (up to 8 times) when one shows no label and no box.

    Args:
        ignore: the mask value for what lies outside the image.
        rng: all randomness; advanced by as many draws as it takes.
    """
    for _ in range(_TRIES):
        window = draw_window(sample.image.shape[0], sample.image.shape[1], settings, rng)
        mask = None if sample.mask is None else crop_mask(sample.mask, window, ignore)
        boxes, kept = crop_boxes(sample.boxes, sample.image.shape[0], sample.image.shape[1], window)
        if (mask is not None and (mask != ignore).any()) or len(boxes):
            break
    image = crop_image(sample.image, window)
    image = _photometric(image, settings, rng)
    return View(image, mask, boxes, kept)


def draw_window(height: int, width: int, settings: Augmentation, rng: np.random.Generator) -> Window:
    """A random scale and place for an image of height × width."""
    low, high = settings.scale
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if settings.short_edge:
        factor *= settings.short_edge / min(height, width)
    scaled_height, scaled_width = max(1, round(height * factor)), max(1, round(width * factor))
    # An image smaller than the view lies anywhere within it: the same formula with the signs turned.
    spare_y, spare_x = scaled_height - settings.crop, scaled_width - settings.crop
    top = int(rng.integers(min(0, spare_y), max(0, spare_y) + 1))
    left = int(rng.integers(min(0, spare_x), max(0, spare_x) + 1))
    return Window(scaled_height, scaled_width, top, left, settings.crop, bool(rng.random() < settings.flip))


def crop_image(image: npt.NDArray[np.uint8], window: Window) -> npt.NDArray[np.uint8]:
    """The window's view of an image ``[H, W, 3]``, antialiased where it shrinks; only the window is resized."""
    out = np.empty((window.crop, window.crop, 3), dtype=np.uint8)
    out[:] = _PADDING
    rows, columns, box = _overlap(window, image.shape[0], image.shape[1])
    size = (columns.stop - columns.start, rows.stop - rows.start)
    # BILINEAR with `box` samples as if the whole image had been resized first.
    out[rows, columns] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))
    return np.ascontiguousarray(out[:, ::-1]) if window.mirrored else out


def crop_mask(mask: Mask, window: Window, ignore: int) -> Mask:
    """The window's view of a mask ``[H, W]``: the nearest pixel's value, `ignore` outside."""
    out = np.full((window.crop, window.crop), ignore, dtype=mask.dtype)
    rows, columns, _ = _overlap(window, mask.shape[0], mask.shape[1])
    ys = _nearest(np.arange(rows.start, rows.stop) + window.top, window.height, mask.shape[0])
    xs = _nearest(np.arange(columns.start, columns.stop) + window.left, window.width, mask.shape[1])
    out[rows, columns] = mask[ys[:, None], xs]
    return np.ascontiguousarray(out[:, ::-1]) if window.mirrored else out


def crop_boxes(
    boxes: npt.NDArray[np.float32], height: int, width: int, window: Window
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The window's view of boxes ``[P, 4]`` of an image of height × width: scaled, moved, clipped, mirrored.

    Returns:
        The boxes that are left, and which of the given ones they are: a box of which less than a quarter, or less
        than 4 pixels in width or height, is visible is dropped.
    """
    scale = np.array([window.width / width, window.height / height] * 2, dtype=np.float64)
    offset = np.array([window.left, window.top] * 2, dtype=np.float64)
    whole = boxes.astype(np.float64) * scale - offset
    clipped = whole.clip(0, window.crop)
    sides = clipped[:, 2:] - clipped[:, :2]
    area = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    visible = np.prod(sides, axis=1)
    kept = np.flatnonzero((sides >= _MIN_SIDE).all(axis=1) & (visible >= _MIN_VISIBLE * area))
    clipped = clipped[kept]
    if window.mirrored:
        clipped[:, [0, 2]] = window.crop - clipped[:, [2, 0]]
    return clipped.astype(np.float32), kept


def resize_short_edge(image: npt.NDArray[np.uint8], short_edge: int) -> npt.NDArray[np.uint8]:
    """The whole image ``[H, W, 3]`` with its short edge at `short_edge` pixels, same shape of picture, antialiased."""
    height, width = image.shape[:2]
    factor = short_edge / min(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _overlap(window: Window, height: int, width: int) -> tuple[slice, slice, tuple[float, float, float, float]]:
    """The rows and columns of the view that the image covers, and the part of the original that they show (xyxy)."""
    y0, y1 = max(window.top, 0), min(window.top + window.crop, window.height)
    x0, x1 = max(window.left, 0), min(window.left + window.crop, window.width)
    down, across = height / window.height, width / window.width
    box = (x0 * across, y0 * down, min(x1 * across, width), min(y1 * down, height))
    return slice(y0 - window.top, y1 - window.top), slice(x0 - window.left, x1 - window.left), box


def _nearest(positions: npt.NDArray[np.int64], scaled: int, original: int) -> npt.NDArray[np.int64]:
    """The original pixel under the centre of each scaled pixel."""
    return np.minimum((2 * positions + 1) * original // (2 * scaled), original - 1)


def _photometric(
    image: npt.NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    if settings.colour:
        brightness, contrast, saturation = rng.uniform(1 - settings.colour, 1 + settings.colour, 3)
        values = image.astype(np.float32)
        grey = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        # contrast around the mean grey, saturation around each pixel's own grey
        mean = grey.mean()
        values = mean + np.float32(contrast) * (values - mean)
        grey = (mean + np.float32(contrast) * (grey - mean))[..., None]
        values = np.float32(brightness) * (grey + np.float32(saturation) * (values - grey))
        image = values.clip(0, 255).astype(np.uint8)
    if rng.random() < settings.blur:
        picture = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 1.5)))
        image = np.asarray(picture)
    if rng.random() < settings.jpeg:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(rng.integers(25, 91)))
        image = np.asarray(Image.open(buffer))
    return image
