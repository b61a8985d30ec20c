"""What happens to a sample before the model sees it: scale, crop, flip, colour, blur, JPEG; masks and boxes follow.

A view is cut out of the image before it is scaled, so that only what it shows is decoded and scaled: `Window` is a
rectangle of whole pixels of the image and the rectangle of the view that it fills. Image, mask and boxes follow the
same two rectangles.

All randomness comes from the generator that is passed in, so a sample's view is a function of that generator's seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from labelmerge.device import at_once
from labelmerge.shardset.depth_maps import UNKNOWN, DepthMap
from labelmerge.shardset.pixels import SHRINKS, Mask, Region, decode_image

# How often another window is drawn when one shows nothing that is labelled.
_TRIES = 8
# What is left of a box that a crop cuts must be this share of it, and this many pixels wide and high, to stand for it.
_MIN_VISIBLE = 0.25
_MIN_SIDE = 4.0
# What lies outside the image: near the mean of photographs, so that it is about 0 for the model.
_PADDING = (124, 116, 104)
# A JPEG is decoded at 1/n of its size where at least this factor of n is left to shrink afterwards.
_LEFT_TO_SHRINK = 2
_AT_ONCE = 1 << 18  # values of images that are finished together
# Colours are changed in whole numbers, in units of 2^-14: the same on every machine and with any number of threads.
_BITS = 14
_GREY = (4899, 9617, 1868)  # 0.299, 0.587, 0.114 (ITU-R BT.601) in these units; they add up to 2^14


@dataclass(frozen=True)
class Augmentation:
    """How training views are drawn. Probabilities and strengths of 0 switch a step off.

    Attributes:
        crop: side of a square view, or its (height, width), pixels.
        short_edge: the image's short edge at scale 1, pixels; 0 keeps the image's own size.
        scale: the range of the random factor on that size (log-uniform).
        flip: probability of the mirror image.
        colour: strength of the change of brightness, contrast and saturation: each factor is within 1 ± colour.
        blur: probability of a Gaussian blur (sigma 0.1 to 1.5 pixels).
        jpeg: probability of JPEG artefacts (quality 25 to 90).
    """

    crop: int | tuple[int, int]
    short_edge: int = 0
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    colour: float = 0.3
    blur: float = 0.1
    jpeg: float = 0.1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a view, pixels."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


class Picture(Protocol):
    """What a view is drawn from: `Decoded`, in memory, or `Encoded`, which decodes what it is asked for."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def shrinks(self) -> bool: ...
    def region(self, box: Region, shrink: int = 1) -> npt.NDArray[np.uint8]: ...
    def mask_region(self, box: Region) -> Mask | None: ...
    def instances_region(self, box: Region) -> Mask | None: ...
    def depth_region(self, box: Region) -> DepthMap | None: ...


@dataclass(frozen=True)
class View:
    """A training view of one sample, beside its image, of height H and width W.

    Attributes:
        mask: as the sample's, ``[H, W]``, `ignore` outside the image; None where the sample has none.
        instances: the sample's segment ids, ``[H, W]``, 0 outside the image; None where it has none, or nobody asked.
        boxes: float32 ``[P, 4]``, x0, y0, x1, y1 within the view.
        kept: int64 ``[P]``: which of the sample's boxes these are.
        unfinished: what is to be done to the image yet.
        shown: top, bottom, left and right of the part of the view that shows the image.
        depth: its depths as they are, ``[H, W]``, 0 outside the image; None where there are none, or nobody asked.
    """

    mask: Mask | None
    instances: Mask | None
    boxes: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]
    unfinished: Photometric
    shown: tuple[int, int, int, int]
    depth: DepthMap | None = None


@dataclass(frozen=True)
class Photometric:
    """What is done to an image and to nothing else, in this order; by default nothing.

    Attributes:
        brightness, contrast, saturation: factors of `change_colours`.
        sigma: of `blur`, pixels; 0 for none.
        quality: of JPEG; 0 for none.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    sigma: float = 0.0
    quality: int = 0


@dataclass(frozen=True)
class Window:
    """Which part of an image a view shows, and which part of the view that is, in pixels.

    Attributes:
        left, top, right, bottom: the part of the image; multiples of `shrink`.
        x0, y0, x1, y1: the part of the view; less than all of it where the scaled image is smaller than the view.
        height, width: of the view.
        mirrored: whether the view is flipped left to right (as the last step: x0 and x1 are of the view before that).
        shrink: 1, 2, 4 or 8: at which fraction of its size the image is to be decoded.
    """

    left: int
    top: int
    right: int
    bottom: int
    x0: int
    y0: int
    x1: int
    y1: int
    height: int
    width: int
    mirrored: bool
    shrink: int = 1

    @property
    def box(self) -> Region:
        return self.left, self.top, self.right, self.bottom

    @property
    def shown(self) -> tuple[int, int, int, int]:
        """Top, bottom, left, right of the view's part that shows the image; the rest is padding."""
        left, right = (self.width - self.x1, self.width - self.x0) if self.mirrored else (self.x0, self.x1)
        return self.y0, self.y1, left, right


def training_view(
    picture: Picture,
    boxes: npt.NDArray[np.float32],
    settings: Augmentation,
    ignore: int,
    rng: np.random.Generator,
    out: Tensor,
    *,
    defer: bool = False,
    instances: bool = False,
    depth: bool = False,
    labelled: bool = True,
) -> View:
    """Draw one view of a sample. Another window is tried (up to 8 times) when one shows no label and no box.

    Args:
        boxes: float32 ``[P, 4]``, x0, y0, x1, y1 in pixels of the image.
        ignore: the mask value for what lies outside the image.
        rng: all randomness; advanced by as many draws as it takes.
        out: the view's image is written here, RGB: uint8 ``[3, H, W]``, contiguous.
        defer: leave colour and blur to `finish`, on another device; not where JPEG artefacts come after them.
        instances: cut the segment ids out as well, where the sample has any.
        depth: the same of its depths. They are not scaled with the view: a larger picture of a thing is one of a longer
            lens, not of a nearer camera.
        labelled: whether the sample may have labels; without, the first window is as good as any.

    Raises:
        SampleError: what the view shows is damaged.
    """
    height, width = picture.size
    for attempt in range(_TRIES):
        window = draw_window(height, width, settings, rng, picture.shrinks)
        if attempt < 2:  # where one window is not enough, the next ones may lie anywhere
            region = (0, 0, width, height) if attempt else window.box
            mask = picture.mask_region(region)
        seen = None if mask is None else crop_mask(mask, window, ignore, region)
        inside, kept = crop_boxes(boxes, window)
        if not labelled or (seen is not None and (seen != ignore).any()) or len(inside):
            break
    ids = picture.instances_region(window.box) if instances else None
    segments = None if ids is None else crop_mask(ids, window, 0, window.box)
    depths = picture.depth_region(window.box) if depth else None
    seen_depths = (
        None if depths is None else crop_mask(depths, window, UNKNOWN, window.box).astype(np.uint16, copy=False)
    )
    crop_image(picture, window, out)
    photometric = _draw_photometric(settings, rng)
    if not defer or photometric.quality:
        finish(out[None], [photometric])
        photometric = Photometric()
    return View(seen, segments, inside, kept, photometric, window.shown, seen_depths)


def draw_window(
    height: int, width: int, settings: Augmentation, rng: np.random.Generator, shrinks: bool = False
) -> Window:
    """A random scale and place for an image of height × width, which may be decoded smaller if it `shrinks`."""
    low, high = settings.scale
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if settings.short_edge:
        factor *= settings.short_edge / min(height, width)
    view_height, view_width = settings.size
    tall, wide = _shown(height, factor, view_height), _shown(width, factor, view_width)
    shrink = 1
    if shrinks:
        left_over = min(tall[0] / tall[1], wide[0] / wide[1]) / _LEFT_TO_SHRINK
        shrink = next(n for n in SHRINKS if n == 1 or n <= left_over)
    top, bottom, y0, y1 = _place(height, tall, view_height, shrink, rng)
    left, right, x0, x1 = _place(width, wide, view_width, shrink, rng)
    mirrored = bool(rng.random() < settings.flip)
    return Window(left, top, right, bottom, x0, y0, x1, y1, view_height, view_width, mirrored, shrink)


def _shown(side: int, factor: float, crop: int) -> tuple[int, int]:
    """How many pixels of an image's side a view shows, and how many of the view's pixels that makes."""
    if side * factor <= crop:
        return side, max(1, round(side * factor))
    return min(side, max(1, round(crop / factor))), crop


def _place(
    side: int, shown: tuple[int, int], crop: int, shrink: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Start and end of what is shown, drawn at random, in the image and in the view."""
    length = shown[0] // shrink * shrink
    start = int(rng.integers(0, side - length + 1)) // shrink * shrink
    # An image smaller than the view lies anywhere within it.
    place = int(rng.integers(0, crop - shown[1] + 1))
    return start, start + length, place, place + shown[1]


def crop_image(picture: Picture, window: Window, out: Tensor) -> None:
    """Write the window's view of an image to `out`, uint8 ``[3, H, W]``; antialiased where it shrinks."""
    # [h, w, 3]; torch warns of arrays that may not be written to, such as Pillow's
    part = torch.from_numpy(np.require(picture.region(window.box, window.shrink), requirements="W"))
    size = (window.y1 - window.y0, window.x1 - window.x0)
    # torch's antialiased filter is Pillow's BILINEAR within 2 grey levels, and 2 to 3 times faster
    part = interpolate(part.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)[0]
    if size != (window.height, window.width):
        out[:] = torch.tensor(_PADDING, dtype=torch.uint8)[:, None, None]
    top, bottom, left, right = window.shown
    out[:, top:bottom, left:right] = part.flip(2) if window.mirrored else part


def crop_mask(mask: Mask, window: Window, ignore: int, region: Region) -> Mask:
    """The window's view of a mask, of which this is the region ``[H, W]``: the pixel under each centre."""
    ys = _nearest(window.top, window.bottom, window.y1 - window.y0) - region[1]
    xs = _nearest(window.left, window.right, window.x1 - window.x0) - region[0]
    part: Mask = mask.take(ys, axis=0).take(xs[::-1] if window.mirrored else xs, axis=1)
    if part.shape == (window.height, window.width):
        return part
    out = np.full((window.height, window.width), ignore, dtype=mask.dtype)
    x0 = window.width - window.x1 if window.mirrored else window.x0
    out[window.y0 : window.y1, x0 : x0 + part.shape[1]] = part
    return out


def crop_boxes(boxes: npt.NDArray[np.float32], window: Window) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The window's view of boxes ``[P, 4]``: moved, scaled, clipped to what is shown, mirrored.

    Returns:
        The boxes that are left, and which of the given ones they are: a box of which less than a quarter, or less
        than 4 pixels in width or height, is visible is dropped.
    """
    shown = np.array([window.right - window.left, window.bottom - window.top] * 2, dtype=np.float64)
    size = np.array([window.x1 - window.x0, window.y1 - window.y0] * 2, dtype=np.float64)
    whole = (boxes.astype(np.float64) - [window.left, window.top] * 2) * (size / shown)
    clipped = whole.clip(0, size)
    sides = clipped[:, 2:] - clipped[:, :2]
    area = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    visible = np.prod(sides, axis=1)
    kept = np.flatnonzero((sides >= _MIN_SIDE).all(axis=1) & (visible >= _MIN_VISIBLE * area))
    clipped = clipped[kept] + [window.x0, window.y0] * 2
    if window.mirrored:
        clipped[:, [0, 2]] = window.width - clipped[:, [2, 0]]
    return clipped.astype(np.float32), kept


def _nearest(start: int, stop: int, count: int) -> npt.NDArray[np.int64]:
    """The pixel under the centre of each of `count` pixels that cover `start` to `stop`."""
    return start + (2 * np.arange(count) + 1) * (stop - start) // (2 * count)


def _draw_photometric(settings: Augmentation, rng: np.random.Generator) -> Photometric:
    factors = (1.0, 1.0, 1.0)
    if settings.colour:
        brightness, contrast, saturation = rng.uniform(1 - settings.colour, 1 + settings.colour, 3)
        factors = float(brightness), float(contrast), float(saturation)
    sigma = float(rng.uniform(0.1, 1.5)) if rng.random() < settings.blur else 0.0
    quality = int(rng.integers(25, 91)) if rng.random() < settings.jpeg else 0
    return Photometric(*factors, sigma, quality)


def finish_in_pieces(images: Tensor, photometrics: Sequence[Photometric]) -> None:
    """`finish` on a CPU: as many images at once as fit into its cache. Small ones cost more to begin than to do."""
    some = max(1, _AT_ONCE // images[0].numel())
    for first in range(0, len(images), some):
        finish(images[first : first + some], photometrics[first : first + some])


def finish(images: Tensor, photometrics: Sequence[Photometric]) -> None:
    """Change images, uint8 ``[B, 3, S, S]``, in place, each as its `Photometric` says: equally on every device."""
    factors = [(each.brightness, each.contrast, each.saturation) for each in photometrics]
    if any(each != (1.0, 1.0, 1.0) for each in factors):
        change_colours(images, factors)
    for image, photometric in zip(images, photometrics, strict=True):
        if photometric.sigma:
            blur(image, photometric.sigma)
        if photometric.quality:
            buffer = io.BytesIO()
            picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            picture.save(buffer, "JPEG", quality=photometric.quality)
            image.copy_(torch.from_numpy(decode_image(buffer.getvalue())).permute(2, 0, 1))


def change_colours(images: Tensor, factors: Sequence[tuple[float, float, float]]) -> None:
    """Change images, uint8 ``[B, 3, H, W]``, in place.

    Contrast is around the mean grey, saturation around each pixel's own grey, brightness around black: all three are
    linear in (R, G, B), so they are one sum, ``a · colour + b · grey + c · mean grey``, rounded and clipped once.

    Args:
        factors: brightness, contrast and saturation of each image, 0 to 8; 1 changes nothing.
    """
    brightness, contrast, saturation = torch.tensor(factors, dtype=torch.float64).T
    both = brightness * contrast
    per_pixel = torch.stack([both * saturation, both * (1 - saturation), brightness * (1 - contrast)]) * 2**_BITS
    own, greys, means = at_once(per_pixel, images.device)[:, :, None, None]
    values = images.to(torch.int32)
    grey = (values[:, 0] * _GREY[0]).add_(values[:, 1], alpha=_GREY[1]).add_(values[:, 2], alpha=_GREY[2])
    # uint8 grey as Pillow's; exact sums of whole numbers are the same whatever the order
    grey = grey.add_(1 << (_BITS - 1)).bitwise_right_shift_(_BITS)
    mean = grey.sum(1, keepdim=True, dtype=torch.int32).sum(2, keepdim=True).double() / grey[0].numel()
    constant = (means * mean).round().int() + (1 << (_BITS - 1))
    grey.mul_(greys.round().int()).add_(constant)
    torch.addcmul(grey[:, None], values, own.round().int()[:, None], out=values)
    images.copy_(values.bitwise_right_shift_(_BITS).clamp_(0, 255))


def blur(image: Tensor, sigma: float) -> None:
    """Blur an image, uint8 ``[3, H, W]``, in place with a Gaussian of `sigma` pixels, up to 5; edges are extended.

    The weights end at 3 sigma and are whole numbers that add up to 2^14.
    """
    reach = math.ceil(3 * sigma)
    bell = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(reach + 1)]
    weights = [round(2**_BITS * value / (2 * sum(bell) - 1)) for value in bell]
    weights[0] += 2**_BITS - (2 * sum(weights) - weights[0])
    values = image.to(torch.int32)
    # 8 bits of colour, times the weights, in two passes: 7 bits are dropped after the first, 21 after the second
    for dim, drop in ((1, 7), (2, 2 * _BITS - 7)):
        size = values.shape[dim]
        ends = [
            values.narrow(dim, at, 1).expand(*(reach if d == dim else -1 for d in range(3))) for at in (0, size - 1)
        ]
        wide = torch.cat([ends[0], values, ends[1]], dim)
        values = (values * weights[0]).add_(1 << (drop - 1))
        for i, weight in enumerate(weights[1:], start=1):
            values.add_(wide.narrow(dim, reach - i, size), alpha=weight)
            values.add_(wide.narrow(dim, reach + i, size), alpha=weight)
        values.bitwise_right_shift_(drop)
    image.copy_(values)
