"""Decoding the first rows of a file gives the pixels that decoding all of it gives."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.shardset.pixels import (
    _differences_added,
    decode_image,
    decode_mask,
    first_rows,
    image_region,
    open_image,
    png_bytes,
)

from ..loading.pictures import jpeg, label_mask, photograph
from ..loading.toy_shards import png

HEIGHT, WIDTH = 150, 97


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"quality": 30, "optimize": True},
        {"restart_marker_rows": 1},
        {"comment": b"\xff\xc0 no frame, only words"},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0\xff\xc0\xff\xda"},
    ],
    ids=["444", "422", "420", "coarse", "restarts", "comment", "exif"],
)
@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_the_first_rows_of_a_jpeg_are_equal_to_the_last_bit(options: dict[str, object], grey: bool) -> None:
    image = photograph(HEIGHT, WIDTH, noise=8)
    data = jpeg(image[..., 0] if grey else image, **options)
    whole = decode_image(data)
    for rows in (1, 8, 15, 16, 17, 63, 100, 132, 133, 134, 135, 149, 150):
        shorter = open_image(first_rows(data, rows))
        assert rows <= shorter.size[1] == (rows + 16 if rows + 16 < HEIGHT else HEIGHT)
        assert (np.asarray(shorter.convert("RGB"))[:rows] == whole[:rows]).all()
    assert (image_region(data, (13, 40, 60, 77)) == whole[40:77, 13:60]).all()


def pillow(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}, {"keep_rgb": True}])
def test_jpegs_have_the_pixels_that_pillow_sees(mode: str, options: dict[str, object]) -> None:
    if "keep_rgb" in options and mode != "RGB":
        return
    buffer = io.BytesIO()
    Image.fromarray(photograph(HEIGHT, WIDTH, noise=8)).convert(mode).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    assert (decode_image(data) == pillow(data)).all()
    assert (decode_image(data + bytes(20)) == pillow(data)).all()
    for end in (len(data) - 2, len(data) // 2, 30):
        with pytest.raises((OSError, SyntaxError)):
            pillow(data[:end])
        with pytest.raises((OSError, SyntaxError)):
            decode_image(data[:end])


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}])
def test_a_damaged_jpeg_has_the_pixels_that_pillow_sees_or_none(options: dict[str, object]) -> None:
    data = jpeg(photograph(60, 80, noise=8), **options)
    rng = np.random.default_rng(0)
    refused, seen_by_us_alone = 0, 0
    for _ in range(400):
        damaged = bytearray(data)
        for place in rng.integers(2, len(data), 3):
            damaged[place] = rng.integers(256)
        try:
            expected = pillow(bytes(damaged))
        except (OSError, SyntaxError):
            refused += 1
            try:
                decode_image(bytes(damaged))
                seen_by_us_alone += 1
            except (OSError, SyntaxError):
                pass
        else:
            assert (decode_image(bytes(damaged)) == expected).all()
    # libjpeg-turbo goes on at some places where it gives up when Pillow hands it the file in pieces
    assert 20 < refused < 380 and seen_by_us_alone < 0.15 * refused


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_smaller_jpeg_is_the_same_whatever_part_of_it_is_decoded(shrink: int) -> None:
    data = jpeg(photograph(HEIGHT, WIDTH))
    small = open_image(data)
    small.draft(None, (WIDTH // shrink, HEIGHT // shrink))
    whole = np.asarray(small)
    box = (8, 16, 48, 64)
    x0, y0, x1, y1 = (side // shrink for side in box)
    assert (image_region(data, box, shrink) == whole[y0:y1, x0:x1]).all()


def test_files_that_can_not_be_cut_are_decoded_whole() -> None:
    image = photograph(HEIGHT, WIDTH)
    progressive = jpeg(image, progressive=True)
    interlaced = bytearray(png(image))
    interlaced[28] = 1
    webp = io.BytesIO()
    Image.fromarray(image).save(webp, "WEBP", lossless=True)
    for data in (progressive, bytes(interlaced), webp.getvalue(), b"", b"\xff\xd8", b"\xff\xd8\xff", progressive[:200]):
        assert first_rows(data, 20) == data
    assert (image_region(progressive, (3, 5, 50, 60)) == decode_image(progressive)[5:60, 3:50]).all()
    assert (image_region(png(image), (3, 5, 50, 60)) == image[5:60, 3:50]).all()
    assert (image_region(webp.getvalue(), (3, 5, 50, 60)) == image[5:60, 3:50]).all()
    with pytest.raises(SampleError, match="PNG that can't be decoded at 1/2"):
        image_region(png(image), (0, 0, 10, 10), 2)


def test_headers_that_lie_never_do_more_than_fail() -> None:
    data = jpeg(photograph(40, 30))
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(2, 300, 3):
            damaged[place] = rng.integers(256)
        first_rows(bytes(damaged), 3)
        first_rows(bytes(damaged[: rng.integers(700)]), 3)


@pytest.mark.parametrize("by", ["Pillow", "labelmerge"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_part_of_a_mask(dtype: type[np.uint8 | np.uint16], by: str) -> None:
    wide = 300 * label_mask(HEIGHT, WIDTH, 200).astype(np.uint16)
    mask: npt.NDArray[Any] = wide.astype(dtype)  # modulo 256 in 8 bits
    data = png(mask) if by == "Pillow" else png_bytes(mask)
    size = (HEIGHT, WIDTH)
    whole = decode_mask(data, "mask.png", size)
    assert whole.dtype == dtype and (whole == mask).all()
    for bottom in (1, 2, 15, 16, 17, 33, 77, 149, 150):
        for x0, y0, x1 in ((0, 0, WIDTH), (3, bottom // 2, 50), (WIDTH - 1, bottom - 1, WIDTH)):
            part = decode_mask(data, "mask.png", size, (x0, y0, x1, bottom))
            assert part.dtype == dtype and (part == mask[y0:bottom, x0:x1]).all()
            assert part.shape == (bottom - y0, x1 - x0)
    assert (_differences_added(data, WIDTH, 0, WIDTH, 20) is None) == (by == "Pillow")
    for damaged in (data[:60], data[:44] + bytes(30) + data[74:]):
        with pytest.raises((SampleError, OSError, SyntaxError)):
            decode_mask(damaged, "mask.png", size)
    with pytest.raises(SampleError, match="97x150, the image 97x151"):
        decode_mask(data, "mask.png", (151, 97), (0, 0, 97, 5))
    with pytest.raises(SampleError, match="not a single channel"):
        decode_mask(png(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)), "mask.png", size, (0, 0, 97, 5))
