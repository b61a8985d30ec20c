"""Label pictures as runs, beside counting and looking up pixel by pixel."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import labelmerge.shardset.run_lengths
from labelmerge.sharding.pictures.images import packed_pixels
from labelmerge.sharding.readers import (
    READERS,
    ade20k_seg,
    coco_boxes,
    coco_instances,
    colour_png,
    cvat,
    hdf5_stack,
    hf_dataset,
    images,
    index_png,
    labelme,
    mask_per_object,
    mat,
    panoptic,
    polygons,
    sun_toolbox,
    supervisely,
    video_instances,
    voc_xml,
    yolo,
)
from labelmerge.sharding.source.source import Reader
from labelmerge.shardset.run_lengths import RunLengths, histogram, pixel_counts

Array = npt.NDArray[Any]
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))
PAIRS = SHAPES.flatmap(
    lambda shape: st.tuples(arrays(np.uint8, shape, elements=st.integers(0, 3)), arrays(np.uint16, shape))
)


@given(PAIRS, st.booleans())
def test_runs_give_their_pictures_back(pair: tuple[Array, Array], turned: bool) -> None:
    first, second = (picture.T if turned else picture for picture in pair)
    runs = RunLengths(first, second)
    for picture in (first, second):
        painted = runs.paint(runs.of(picture))
        assert painted.dtype == picture.dtype
        assert np.array_equal(painted, picture)
    together = np.stack([runs.of(first), runs.of(second)])
    assert (together[:, 1:] != together[:, :-1]).any(0).all(), "neighbouring runs differ"


@given(PAIRS)
def test_histogram_counts_pixels(pair: tuple[Array, Array]) -> None:
    with mock.patch.object(labelmerge.shardset.run_lengths, "_PIXELS_AT_A_TIME", 5):
        for picture in pair:
            assert histogram(picture) == Counter(picture.ravel().tolist())


def test_runs_may_be_longer_than_32_bits() -> None:
    assert pixel_counts(np.array([0, 1, 0]), np.array([1 << 40, 1, 1])) == {0: (1 << 40) + 1, 1: 1}


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_packed_pixels_are_numbers_of_red_green_and_blue(mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, len(mode)), dtype=np.uint8)
    packed = packed_pixels(Image.fromarray(values)) & 0xFFFFFF
    assert np.array_equal(packed, values[..., :3].astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32))


def test_readers_are_known_by_the_names_of_their_modules() -> None:
    modules: tuple[Reader, ...] = (  # what mypy checks here, it can't see where readers are imported by name
        ade20k_seg,
        coco_boxes,
        coco_instances,
        colour_png,
        cvat,
        hdf5_stack,
        hf_dataset,
        images,
        index_png,
        labelme,
        mask_per_object,
        mat,
        panoptic,
        polygons,
        sun_toolbox,
        supervisely,
        video_instances,
        voc_xml,
        yolo,
    )
    assert {id(reader) for reader in READERS.values()} == {id(module) for module in modules}
    with pytest.raises(KeyError):
        READERS["values"]
