from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.loading.augment import (
    Augmentation,
    Window,
    crop_boxes,
    crop_image,
    crop_mask,
    draw_window,
    resize_short_edge,
    training_view,
)
from labelmerge.loading.stream import Sample, ShardSet

from .toy_shards import Toy

WINDOWS = [
    Window(30, 40, 0, 0, 20, False),
    Window(30, 40, 5, 13, 20, True),
    Window(60, 80, 33, 21, 20, True),
    Window(15, 20, -3, 0, 20, False),
    Window(12, 16, -8, -2, 20, True),
    Window(90, 17, 31, -1, 20, False),
]


def pixel_under(window: Window, y: int, x: int, height: int, width: int) -> tuple[int, int] | None:
    """The original pixel under the centre of pixel (y, x) of the view: the definition, one pixel at a time."""
    if window.mirrored:
        x = window.crop - 1 - x
    sy, sx = y + window.top, x + window.left
    if not (0 <= sy < window.height and 0 <= sx < window.width):
        return None
    return int((sy + 0.5) * height / window.height), int((sx + 0.5) * width / window.width)


@pytest.mark.parametrize("window", WINDOWS)
def test_masks_take_the_nearest_pixel_and_ignore_outside(window: Window) -> None:
    mask = np.random.default_rng(0).integers(0, 200, (30, 40), dtype=np.uint8)
    view = crop_mask(mask, window, 255)
    assert view.dtype == np.uint8 and view.flags.c_contiguous
    for y in range(window.crop):
        for x in range(window.crop):
            place = pixel_under(window, y, x, 30, 40)
            assert view[y, x] == (255 if place is None else mask[place])


@pytest.mark.parametrize("window", WINDOWS)
def test_images_are_resized_as_a_whole_image_would_be_and_lie_where_the_mask_does(window: Window) -> None:
    smooth = np.indices((30, 40)).sum(0).astype(np.uint8) * 3
    image = np.stack([smooth, smooth, smooth], axis=2)
    view = crop_image(image, window)
    whole = np.asarray(Image.fromarray(image).resize((window.width, window.height), Image.Resampling.BILINEAR))
    inside = crop_mask(np.zeros((30, 40), dtype=np.uint8), window, 255) == 0
    padded = np.full((200, 200, 3), 0, dtype=np.uint8)
    padded[50 : 50 + window.height, 50 : 50 + window.width] = whole
    reference = padded[50 + window.top :, 50 + window.left :][: window.crop, : window.crop]
    reference = reference[:, ::-1] if window.mirrored else reference
    assert np.abs(view[inside].astype(int) - reference[inside]).max() <= 2
    assert (view[~inside] == view[~inside][:1]).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_boxes_cover_the_same_pixels_as_a_mask_of_them(window: Window) -> None:
    boxes = np.array([[4, 6, 30, 25], [0, 0, 40, 30], [20, 10, 36, 28]], dtype=np.float32)
    out, kept = crop_boxes(boxes, 30, 40, window)
    assert out.dtype == np.float32 and len(out) == len(kept)
    for box, which in zip(out, kept, strict=True):
        x0, y0, x1, y1 = boxes[which].astype(int)
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[y0:y1, x0:x1] = 1
        rows, columns = np.nonzero(crop_mask(mask, window, 0))
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, seen, atol=0.5 + 1e-4)  # a mask's edge lies on a pixel's edge
        assert (box >= 0).all() and (box <= window.crop).all()


def test_boxes_that_are_mostly_cut_off_or_tiny_are_dropped() -> None:
    window = Window(100, 100, 0, 0, 50, False)
    boxes = np.array(
        [[10, 10, 30, 30], [45, 0, 85, 40], [30, 30, 70, 60], [60, 60, 90, 90], [5, 5, 8, 40], [10, 10, 10, 20]],
        dtype=np.float32,
    )
    out, kept = crop_boxes(boxes, 100, 100, window)
    assert kept.tolist() == [0, 2]
    assert out.tolist() == [[10, 10, 30, 30], [30, 30, 50, 50]]
    assert crop_boxes(boxes[:0], 100, 100, window)[0].shape == (0, 4)


def test_windows_reach_every_place_and_keep_the_scale_in_range() -> None:
    settings = Augmentation(crop=20, short_edge=60, scale=(0.5, 2.0))
    rng = np.random.default_rng(0)
    windows = [draw_window(30, 40, settings, rng) for _ in range(300)]
    heights = [window.height for window in windows]
    assert min(heights) < 34 and max(heights) > 110 and all(30 <= height <= 120 for height in heights)
    assert {window.mirrored for window in windows} == {True, False}
    for window in windows:
        assert 0 <= window.top <= window.height - 20 and 0 <= window.left <= window.width - 20
        assert window.width == pytest.approx(window.height * 4 / 3, abs=1)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return ShardSet.open(Toy("streets", ("road", "sky", "car")).write(tmp_path)).read(0)


def test_the_same_generator_gives_the_same_view(sample: Sample) -> None:
    settings = Augmentation(crop=32, blur=0.5, jpeg=0.5)
    seeds = (1, 1, 2)
    first, again, other = (training_view(sample, settings, 255, np.random.default_rng(seed)) for seed in seeds)
    assert first.image.shape == (32, 32, 3) and first.image.dtype == np.uint8
    assert (first.image == again.image).all()
    assert first.mask is not None and again.mask is not None and (first.mask == again.mask).all()
    assert (first.image != other.image).any()


@pytest.mark.parametrize("step", ["colour", "blur", "jpeg"])
def test_each_change_of_colour_changes_the_image_and_not_the_mask(sample: Sample, step: str) -> None:
    plain = Augmentation(crop=32, scale=(1.0, 1.0), colour=0, blur=0, jpeg=0)
    changed = Augmentation(**{**dataclasses.asdict(plain), step: 1.0})
    before = training_view(sample, plain, 255, np.random.default_rng(3))
    after = training_view(sample, changed, 255, np.random.default_rng(3))
    assert (before.image != after.image).any()
    assert before.mask is not None and after.mask is not None and (before.mask == after.mask).all()


def test_a_window_without_labels_is_drawn_again() -> None:
    mask = np.full((200, 200), 255, dtype=np.uint8)
    mask[:100] = 3
    nothing: npt.NDArray[np.float32] = np.zeros((0, 4), dtype=np.float32)
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    flags = np.zeros(0, dtype=np.bool_)
    sample = Sample("k", image, mask, None, nothing, flags.astype(np.int64), flags, flags, None, {})
    settings = Augmentation(crop=20, scale=(1.0, 1.0))
    masks = [training_view(sample, settings, 255, np.random.default_rng(seed)).mask for seed in range(50)]
    assert all(mask is not None and (mask == 3).any() for mask in masks)


def test_the_short_edge_is_what_was_asked_for() -> None:
    image: npt.NDArray[np.uint8] = np.zeros((30, 47, 3), dtype=np.uint8)
    assert resize_short_edge(image, 60).shape == (60, 94, 3)
    assert resize_short_edge(image.transpose(1, 0, 2), 15).shape == (24, 15, 3)
