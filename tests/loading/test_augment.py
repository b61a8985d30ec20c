"""Views against a literal reference: decode all of it, cut it out, scale it with Pillow, paste it, mirror it."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from labelmerge.errors import SampleError
from labelmerge.loading.augment import (
    Augmentation,
    View,
    Window,
    blur,
    change_colours,
    crop_boxes,
    crop_image,
    crop_mask,
    draw_window,
    training_view,
)
from labelmerge.shardset.sample import NO_BOXES, Decoded, Encoded

from .pictures import jpeg, photograph
from .toy_shards import Toy, png

GREY = np.array([0.299, 0.587, 0.114])
PLAIN = Augmentation(crop=96, colour=0, blur=0, jpeg=0)
HEIGHT, WIDTH = 180, 240

WINDOWS = [
    Window(0, 0, 96, 96, 0, 0, 96, 96, 96, 96, False),
    Window(31, 17, 127, 113, 0, 0, 96, 96, 96, 96, True),
    Window(100, 66, 148, 114, 0, 0, 96, 96, 96, 96, True),
    Window(0, 0, 240, 180, 5, 0, 75, 53, 96, 96, False),
    Window(0, 0, 240, 180, 5, 40, 75, 93, 96, 96, True),
    Window(17, 0, 222, 180, 0, 9, 96, 93, 96, 96, False),
]


def encoded(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], **options: Any) -> Encoded:
    members = {"jpg": jpeg(image, **options), "mask.png": png(mask)}
    return Encoded("k", members, Toy("streets", ("road", "sky")).space, "mask", "here")


def literal_image(image: npt.NDArray[np.uint8], window: Window) -> npt.NDArray[np.uint8]:
    view = Image.new("RGB", (window.width, window.height), (124, 116, 104))
    size = (window.x1 - window.x0, window.y1 - window.y0)
    cut = Image.fromarray(image).crop((window.left, window.top, window.right, window.bottom))
    view.paste(cut.resize(size, Image.Resampling.BILINEAR), (window.x0, window.y0))
    return np.asarray(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if window.mirrored else view)


def difference(out: Tensor, reference: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return np.abs(out.permute(1, 2, 0).numpy().astype(np.int64) - reference.astype(np.int64))


def pixel_under(window: Window, y: int, x: int) -> tuple[int, int] | None:
    """The image's pixel under the centre of pixel (y, x) of the view: the definition, one pixel at a time."""
    if window.mirrored:
        x = window.width - 1 - x
    if not (window.y0 <= y < window.y1 and window.x0 <= x < window.x1):
        return None
    down = (window.bottom - window.top) / (window.y1 - window.y0)
    across = (window.right - window.left) / (window.x1 - window.x0)
    return int(window.top + (y - window.y0 + 0.5) * down), int(window.left + (x - window.x0 + 0.5) * across)


def view_of(
    picture: Encoded | Decoded, settings: Augmentation, seed: int, ignore: int = 255
) -> tuple[npt.NDArray[np.uint8], View]:
    out = torch.empty(3, *settings.size, dtype=torch.uint8)
    view = training_view(picture, NO_BOXES.boxes, settings, ignore, np.random.default_rng(seed), out)
    return out.numpy(), view


@pytest.mark.parametrize("window", WINDOWS)
def test_masks_take_the_nearest_pixel_and_ignore_outside(window: Window) -> None:
    mask = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH), dtype=np.uint8)
    view = crop_mask(mask, window, 255, (0, 0, WIDTH, HEIGHT))
    assert view.dtype == np.uint8 and view.shape == (96, 96)
    for y in range(window.height):
        for x in range(window.width):
            place = pixel_under(window, y, x)
            assert view[y, x] == (255 if place is None else mask[place])
            top, bottom, left, right = window.shown
            assert (top <= y < bottom and left <= x < right) == (place is not None)
    part = mask[window.top : window.bottom, window.left : window.right]
    assert (crop_mask(part, window, 255, window.box) == view).all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("subsampling", [0, 2], ids=["444", "420"])
def test_images_are_as_if_decoded_whole_cut_out_and_scaled_by_pillow(window: Window, subsampling: int) -> None:
    picture = encoded(photograph(HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH), dtype=np.uint8), subsampling=subsampling)
    whole = picture.picture()
    out, other = torch.empty(3, 96, 96, dtype=torch.uint8), torch.empty(3, 96, 96, dtype=torch.uint8)
    crop_image(picture, window, out)
    crop_image(whole, window, other)
    assert torch.equal(out, other)  # what is decoded is the same to the last bit, however much is decoded
    assert difference(out, literal_image(whole.image, window)).max() <= 2


@pytest.mark.parametrize("window", WINDOWS)
def test_boxes_cover_the_same_pixels_as_a_mask_of_them(window: Window) -> None:
    boxes = np.array([[24, 36, 180, 150], [0, 0, 120, 110], [104, 70, 126, 100]], dtype=np.float32)
    out, kept = crop_boxes(boxes, window)
    assert out.dtype == np.float32 and len(out) == len(kept) > 0
    for box, which in zip(out, kept, strict=True):
        x0, y0, x1, y1 = boxes[which].astype(int)
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[y0:y1, x0:x1] = 1
        rows, columns = np.nonzero(crop_mask(mask, window, 0, (0, 0, WIDTH, HEIGHT)))
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, seen, atol=0.5 + 1e-4)  # a mask's edge lies on a pixel's edge
        assert (box >= 0).all() and (box <= window.width).all()


def test_boxes_that_are_mostly_cut_off_or_tiny_are_dropped() -> None:
    window = Window(0, 0, 50, 50, 0, 0, 50, 50, 50, 50, False)
    boxes = np.array(
        [[10, 10, 30, 30], [45, 0, 85, 40], [30, 30, 70, 60], [60, 60, 90, 90], [5, 5, 8, 40], [10, 10, 10, 20]],
        dtype=np.float32,
    )
    out, kept = crop_boxes(boxes, window)
    assert kept.tolist() == [0, 2]
    assert out.tolist() == [[10, 10, 30, 30], [30, 30, 50, 50]]
    assert crop_boxes(boxes[:0], window)[0].shape == (0, 4)


@pytest.mark.parametrize("shrinks", [False, True])
def test_windows_reach_every_place_and_keep_the_scale_in_range(shrinks: bool) -> None:
    settings = Augmentation(crop=20, short_edge=60, scale=(0.5, 2.0))
    rng = np.random.default_rng(0)
    windows = [draw_window(300, 401, settings, rng, shrinks) for _ in range(400)]
    scales = [20 / (window.bottom - window.top) * 300 / 60 for window in windows]
    assert min(scales) < 0.55 and max(scales) > 1.8 and all(0.49 <= scale <= 2.1 for scale in scales)
    assert {window.mirrored for window in windows} == {True, False}
    assert {window.shrink for window in windows} == ({1, 2, 4} if shrinks else {1})
    assert min(window.left for window in windows) < 8 and max(window.right for window in windows) > 393
    for window in windows:
        assert 0 <= window.top < window.bottom <= 300 and 0 <= window.left < window.right <= 401
        assert (window.x0, window.y0, window.x1, window.y1) == (0, 0, 20, 20)
        assert all(side % window.shrink == 0 for side in window.box)
        assert abs((window.bottom - window.top) - (window.right - window.left)) < window.shrink


@pytest.mark.parametrize("size", [(30, 40), (7, 300), (1, 1)])
def test_small_images_lie_anywhere_within_the_view(size: tuple[int, int]) -> None:
    settings = Augmentation(crop=50, scale=(0.5, 1.0))
    rng = np.random.default_rng(0)
    for window in (draw_window(*size, settings, rng) for _ in range(100)):
        assert 0 <= window.left < window.right <= size[1] and (window.top, window.bottom) == (0, size[0])
        assert 0 <= window.x0 < window.x1 <= 50 and 0 <= window.y0 < window.y1 <= 50


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_decoded_smaller_is_close_to_one_decoded_whole(shrink: int) -> None:
    picture = encoded(photograph(900, 1200), np.zeros((900, 1200), dtype=np.uint8))
    side = 2 * shrink * 45  # a view of 45 pixels leaves the least to shrink afterwards for which this is chosen
    window = Window(16 * shrink, 8 * shrink, 16 * shrink + side, 8 * shrink + side, 0, 0, 45, 45, 45, 45, False, shrink)
    out = torch.empty(3, 45, 45, dtype=torch.uint8)
    crop_image(picture, window, out)
    reference = literal_image(picture.picture().image, window)
    assert difference(out, reference).mean() <= 1.0 and difference(out, reference).max() <= 12
    # half a pixel beside, it would be further away than that
    beside = literal_image(picture.picture().image, dataclasses.replace(window, left=window.left - shrink))
    assert difference(out, reference).mean() < difference(out, beside).mean()


def test_only_jpegs_that_shrink_a_lot_are_decoded_smaller() -> None:
    settings = Augmentation(crop=100, scale=(1.0, 1.0))
    shrinks = [
        draw_window(side, side, dataclasses.replace(settings, short_edge=100), np.random.default_rng(0), True).shrink
        for side in (399, 400, 799, 800, 1600, 5000)
    ]
    assert shrinks == [1, 2, 2, 4, 8, 8]


@pytest.mark.parametrize(
    "factors", [(1.0, 1.0, 1.0), (1.3, 1, 1), (1, 0.7, 1), (1, 1, 1.4), (0.8, 1.25, 0.7), (2, 2, 0)]
)
def test_colours_are_changed_as_one_step_after_the_other_would(factors: tuple[float, float, float]) -> None:
    brightness, contrast, saturation = factors
    image = photograph(64, 80)
    values = image.astype(np.float64)
    mean = (values @ GREY).mean()
    values = mean + contrast * (values - mean)
    grey = (values @ GREY)[..., None]
    values = brightness * (grey + saturation * (values - grey))
    out = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    change_colours(out[None], [factors])
    # the only difference: grey is rounded before it is multiplied
    bound = 0.51 + 0.5 * brightness * contrast * abs(1 - saturation) + 0.5 * brightness * abs(1 - contrast)
    assert np.abs(out.permute(1, 2, 0).numpy() - values.clip(0, 255)).max() <= bound


def test_each_image_of_a_batch_has_its_own_colours_and_ones_change_nothing() -> None:
    images = torch.from_numpy(np.stack([photograph(33, 20, seed, noise=30) for seed in range(3)])).permute(0, 3, 1, 2)
    factors = [(1.3, 0.7, 1.2), (1.0, 1.0, 1.0), (0.7, 1.0, 0.0)]
    together = images.contiguous()
    change_colours(together, factors)
    for i, factor in enumerate(factors):
        alone = images[i : i + 1].contiguous()
        change_colours(alone, [factor])
        assert torch.equal(alone[0], together[i])
    assert torch.equal(together[1], images[1]) and not torch.equal(together[0], images[0])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.5, 5.0])
def test_blur_is_a_gaussian_with_extended_edges(sigma: float) -> None:
    image = photograph(20, 31, noise=20)
    distance = np.arange(-30, 31)
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (np.abs(distance) <= np.ceil(3 * sigma))
    weights /= weights.sum()
    wide = np.pad(image.astype(np.float64), ((30, 30), (30, 30), (0, 0)), mode="edge")
    down = sum(weights[i] * wide[i : i + 20] for i in range(61))
    reference = sum(weights[i] * down[:, i : i + 31] for i in range(61))
    out = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    blur(out, sigma)
    assert np.abs(out.permute(1, 2, 0).numpy() - reference).max() <= 0.6


def test_the_same_generator_gives_the_same_view_from_a_file_and_from_memory() -> None:
    picture = encoded(photograph(HEIGHT, WIDTH), np.ones((HEIGHT, WIDTH), dtype=np.uint8))
    settings = Augmentation(crop=96, blur=0.5, jpeg=0.5)
    for seed in range(5):
        image, view = view_of(picture, settings, seed)
        again, view_again = view_of(picture.picture(), settings, seed)
        assert (image == again).all() and view.mask is not None and view_again.mask is not None
        assert (view.mask == view_again.mask).all() and (image != view_of(picture, settings, seed + 9)[0]).any()


@pytest.mark.parametrize("step", ["colour", "blur", "jpeg"])
def test_each_change_of_colour_changes_the_image_and_not_the_mask(step: str) -> None:
    picture = encoded(photograph(HEIGHT, WIDTH), np.indices((HEIGHT, WIDTH)).sum(0).astype(np.uint8) // 200)
    before, plain = view_of(picture, PLAIN, 6)
    settings = Augmentation(**{**dataclasses.asdict(PLAIN), step: 1.0})
    after, changed = view_of(picture, settings, 6)
    assert (before != after).any()
    assert plain.mask is not None and changed.mask is not None and (plain.mask == changed.mask).all()
    if step == "jpeg":
        assert len({jpeg_error(before, quality) for quality in (25, 90)} | {0}) == 3
        assert np.abs(before.astype(int) - after).mean() <= 1.05 * max(jpeg_error(before, 25), jpeg_error(before, 90))


def jpeg_error(image: npt.NDArray[np.uint8], quality: int) -> float:
    data = jpeg(image.transpose(1, 2, 0), quality=quality)
    decoded = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    return float(np.abs(image.astype(int) - decoded).mean())


def test_a_window_without_labels_is_drawn_again() -> None:
    mask = np.full((200, 200), 255, dtype=np.uint8)
    mask[100:] = 3
    picture = encoded(np.zeros((200, 200, 3), dtype=np.uint8), mask)
    settings = Augmentation(crop=20, scale=(1.0, 1.0))
    masks = [view_of(picture, settings, seed)[1].mask for seed in range(50)]
    assert all(mask is not None and (mask == 3).any() for mask in masks)
    # a view that was found at the second try or later is still the one that its mask shows
    shades = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 200, 3))
    rows = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (200, 200))
    plain = dataclasses.replace(settings, colour=0, blur=0, jpeg=0)
    for seed in range(20):
        image, view = view_of(Decoded(shades, np.where(mask == 3, rows, 255).astype(np.uint8)), plain, seed)
        assert view.mask is not None and (image[0] == view.mask)[view.mask != 255].all()


def test_damage_below_a_view_goes_unseen_and_within_it_is_an_error() -> None:
    picture = encoded(photograph(HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    cut = {**picture.members, "jpg": picture.members["jpg"][: len(picture.members["jpg"]) // 2]}
    damaged = dataclasses.replace(picture, members=cut)
    assert damaged.region((0, 0, 240, 20)).shape == (20, 240, 3)
    for call in (lambda: damaged.region((0, 0, 240, 180)), damaged.picture):
        with pytest.raises(SampleError, match="^here: can't be decoded"):
            call()
