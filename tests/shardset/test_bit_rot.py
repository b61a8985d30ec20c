"""A flipped bit in a PNG of a shard is never another mask: it is a damaged sample."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.shardset.pixels import decode_image, decode_mask, decode_whole, image_region, is_whole_png, png_bytes

from ..loading.pictures import label_mask, photograph

SIZE = (60, 80)
FAULTS = (SampleError, OSError, SyntaxError, ValueError, EOFError)


def pillow_png(mask: npt.NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("writer", ["ours", "pillow"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_flipped_bit_of_a_mask_is_noticed_or_does_no_harm(writer: str, dtype: type[np.uint8 | np.uint16]) -> None:
    mask = label_mask(*SIZE, 20).astype(dtype)
    data = png_bytes(mask) if writer == "ours" else pillow_png(mask)
    rng = np.random.default_rng(0)
    noticed = 0
    for bit in rng.integers(0, 8 * len(data), 400).tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        for region in (None, (0, 0, 80, 20)):
            expected = mask if region is None else mask[:20]
            try:
                found = decode_mask(bytes(damaged), "mask.png", SIZE, region)
            except FAULTS:
                noticed += 1
            else:
                assert (found == expected).all(), bit
    assert noticed == 800  # every byte of these files is under some checksum


def test_a_flipped_bit_of_an_image_is_noticed() -> None:
    data = png_bytes(Image.fromarray(photograph(*SIZE)))
    damaged = bytearray(data)
    damaged[len(data) * 3 // 4] ^= 1
    with pytest.raises(SampleError, match="damaged PNG"):
        decode_image(bytes(damaged))
    with pytest.raises(SampleError, match="damaged PNG"):
        image_region(bytes(damaged), (0, 0, 80, 8))
    with pytest.raises(SampleError, match="not a readable image"):
        decode_whole(bytes(damaged), Path("mask.png"))


def test_a_whole_png() -> None:
    data = png_bytes(label_mask(*SIZE, 20))
    assert is_whole_png(data) and is_whole_png(data + b"more")
    assert not is_whole_png(data[:-1]) and not is_whole_png(b"") and not is_whole_png(b"x" + data[1:])


def test_half_a_jpeg_with_an_end_is_damaged_when_all_is_decoded() -> None:
    out = io.BytesIO()
    Image.fromarray(photograph(*SIZE)).save(out, "JPEG", quality=90)
    data = out.getvalue()
    decode_whole(data, Path("a.jpg"))
    decode_whole(data[:-2] + bytes(3) + data[-2:], Path("a.jpg"))  # a few bytes too many do no harm
    with pytest.raises(SampleError, match="damaged JPEG"):
        decode_whole(data[: len(data) // 2] + b"\xff\xd9", Path("a.jpg"))
