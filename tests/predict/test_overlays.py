"""Overlays."""

from __future__ import annotations

import numpy as np
import pytest

from labelmerge.colours import palette
from labelmerge.predict.overlays import legend, overlay, panel, present, with_legend

NAMES = ["road", "sky", "horse", "animal--ground-animal"]


def test_overlay_mixes_image_and_colour() -> None:
    image = np.full((4, 6, 3), 200, np.uint8)
    classes = np.zeros((4, 6), np.int64)
    classes[:, 3:] = 1
    classes[0, 0] = 255
    out = overlay(image, classes, NAMES, strength=0.5, edges=False)
    np.testing.assert_allclose(out[2, 0], (200 + palette(NAMES)[0].astype(float)) / 2, atol=0.5)
    np.testing.assert_allclose(out[2, 5], (200 + palette(NAMES)[1].astype(float)) / 2, atol=0.5)
    np.testing.assert_array_equal(out[0, 0], [148, 148, 148])
    with_edges = overlay(image, classes, NAMES)
    assert (with_edges[2, 2] == 255).all() and (with_edges[2, 3] != 255).any()
    assert out.dtype == np.uint8 and (image == 200).all()


def test_segments_of_one_class_differ_in_shade() -> None:
    image = np.full((4, 8, 3), 200, np.uint8)
    classes = np.zeros((4, 8), np.int64)
    ids = np.repeat([1, 2, 3, 0], 2)[None].repeat(4, 0)
    classes[:, 4:6] = 1
    out = overlay(image, classes, NAMES, strength=0.5, edges=False, segments=ids)
    plain = overlay(image, classes, NAMES, strength=0.5, edges=False)
    assert (out[0, 0] == plain[0, 0]).all() and (out[0, 4] == plain[0, 4]).all()
    assert (out[0, 2] >= plain[0, 2]).all() and out[0, 2].sum() > plain[0, 2].sum() + 60
    np.testing.assert_array_equal(out[0, 7], [148, 148, 148])  # in no segment
    drawn = np.asarray(with_legend(image, classes, NAMES, ids))
    assert drawn.shape[0] > np.asarray(with_legend(image, classes, NAMES)).shape[0]  # a line more: "in no segment"
    nothing = overlay(image, classes, NAMES, segments=np.zeros_like(ids))
    assert (nothing == nothing[0, 0]).all()


def test_present_counts_all_masks() -> None:
    assert present(np.array([[0, 2, 2]]), None, np.array([[3, 255, 3], [3, 9, -1]]), count=4) == [3, 2, 0]


@pytest.mark.parametrize("width", [30, 200, 1000])
def test_legend_fits_its_width(width: int) -> None:
    drawn = legend([*NAMES, "a very long name of a class that nobody would want to read in full"], width)
    assert drawn.width == width
    last = np.asarray(drawn)[:, -1]
    assert (last == 255).all()
    assert all((np.asarray(drawn) == colour).all(axis=2).any() for colour in palette(NAMES))


def test_pictures_have_a_legend_of_what_is_in_them() -> None:
    image = np.full((60, 200, 3), 128, np.uint8)
    classes = np.zeros((60, 200), np.uint8)
    shown = np.asarray(with_legend(image, classes, NAMES))
    assert shown.shape[0] > 60 and shown.shape[1] == 200
    below = shown[60:]
    assert (below == palette(NAMES)[0]).all(axis=2).any()
    assert not (below == palette(NAMES)[1]).all(axis=2).any()


def test_panel_shows_truth_only_where_there_is_one() -> None:
    image = np.full((40, 50, 3), 128, np.uint8)
    classes = np.zeros((40, 50), np.int64)
    three = panel(image, classes, classes, NAMES)
    two = panel(image, None, classes, NAMES)
    assert three.width > 150 and 100 < two.width < 110
    assert panel(image, classes, classes, NAMES, height=120).height > 120
