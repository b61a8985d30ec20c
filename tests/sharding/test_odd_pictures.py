"""Pictures with tags, depths and compressions that say something else than their pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.errors import SampleError
from labelmerge.sharding.pictures.images import decode_exact, indices, open_image, to_rgb
from labelmerge.sharding.pictures.orientation import as_stored, orientation_of, tiff_as_stored
from labelmerge.sharding.shard import shard

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

Samples = Callable[[Path], dict[str, dict[str, Any]]]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def tag(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_tag_goes_and_the_pixels_stay(kind: str, orientation: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8))
    data = encoded(image, kind, exif=tag(orientation))
    opened = Image.open(io.BytesIO(data))
    assert orientation_of(data, opened) == orientation
    plain = as_stored(data, opened)
    again = Image.open(io.BytesIO(plain))
    assert again.getexif().get(274, 1) == 1 and orientation_of(plain, again) == 1
    assert (np.asarray(again) == np.asarray(opened)).all()


def test_the_tag_in_xmp_goes_too() -> None:
    data = encoded(Image.new("RGB", (12, 8)), "JPEG", xmp=XMP)
    opened = Image.open(io.BytesIO(data))
    assert orientation_of(data, opened) == 6 == opened.getexif()[274]
    assert Image.open(io.BytesIO(as_stored(data, opened))).getexif().get(274, 1) == 1


def test_a_tiff_is_as_stored() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "TIFF", exif=tag(6))
    assert (np.asarray(Image.open(io.BytesIO(tiff_as_stored(data)))) == pixels).all()
    assert (np.asarray(decode_exact(data, Path("a.tif"))) == pixels).all()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_drawn_upright_need_an_option(own: Own, tmp_path: Path, read_samples: Samples, orientation: int) -> None:
    own.write_recipe(own.recipe_file.read_text().replace("*.jpg", "*.png"))
    own.image("images/train/a.png", exif=tag(orientation))
    shape = (16, 12) if orientation > 4 else (12, 16)
    mask = own.mask("masks/train/a.png", size=shape)
    if orientation > 4:
        with pytest.raises(Exception, match=f"orientation tag {orientation}: options.upright"):
            shard(own.recipe, own.root, "train", tmp_path / "no")
    else:
        assert shard(own.recipe, own.root, "train", tmp_path / "no").notes["images_with_orientation_tag"] == 1
    own.write_recipe(own.recipe_file.read_text() + "[options]\nupright = true\n")
    report = shard(own.recipe, own.root, "train", tmp_path / "yes")
    assert report.notes["images_turned_upright"] == 1 and report.folder is not None
    (sample,) = read_samples(report.folder).values()
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(Image.open(own.root / "images/train/a.png"))
    assert (sample["png"] == np.asarray(upright)).all() and (sample["mask.png"] == mask).all()


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG2000", {"quality_layers": [20]}), ("WEBP", {}), ("AVIF", {})]
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_pictures_are_no_masks(kind: str, options: dict[str, Any], mode: str) -> None:
    with pytest.raises(SampleError, match="does not keep values exactly"):
        decode_exact(encoded(Image.new(mode, (16, 16)), kind, **options), Path("mask.png"))


@pytest.mark.parametrize(
    ("kind", "shape", "options"),
    [
        ("WEBP", (16, 24, 3), {"lossless": True}),
        ("TIFF", (16, 24), {"compression": "tiff_lzw"}),
        ("TIFF", (16, 24), {"compression": "tiff_adobe_deflate"}),
        ("BMP", (16, 24), {}),
        ("PPM", (16, 24, 3), {}),
    ],
)
def test_lossless_pictures_may_be_masks(kind: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    picture = decode_exact(encoded(Image.fromarray(values), kind, **options), Path("mask"))
    assert (np.asarray(picture) == values).all()


def pages(kind: str, *sizes: tuple[int, int]) -> bytes:
    random = np.random.default_rng(0)
    first, *others = (Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)) for size in sizes)
    return encoded(first, kind, save_all=True, append_images=others)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG"])
def test_masks_of_several_pages_are_refused(kind: str) -> None:
    decode_exact(pages(kind, (8, 12)), Path("mask"))
    with pytest.raises(SampleError, match="holds several pages or frames"):
        decode_exact(pages(kind, (8, 12), (8, 12)), Path("mask"))
    if kind == "TIFF":  # whose smaller pages are for quick views
        assert decode_exact(pages(kind, (8, 12), (4, 6)), Path("mask")).size == (12, 8)


def test_images_of_several_pages_are_counted(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    own.write_recipe(own.recipe_file.read_text().replace("*.jpg", "*.tif"))
    for name, count in (("a", 3), ("b", 1)):
        own.mask(f"masks/train/{name}.png")
        (own.root / "images/train").mkdir(parents=True, exist_ok=True)
        (own.root / f"images/train/{name}.tif").write_bytes(pages("TIFF", *[(12, 16)] * count))
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert report.notes["images_of_several_pages_of_which_the_first_counts"] == 1 and report.folder is not None
    for sample in read_samples(report.folder).values():
        with Image.open(own.root / sample["json"]["source"]["path"]) as first:
            assert (sample["png"][..., 0] == np.asarray(first)).all()


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.uint16) * 257,
        GREY.astype(np.uint16),
        GREY.astype(np.int32),
        GREY.astype(np.float32) / 255,
        GREY.astype(np.float32),
        GREY.astype(np.float32) * 257,
    ],
)
def test_deep_pictures_whose_scale_is_certain(values: np.ndarray[Any, Any]) -> None:
    assert (np.asarray(to_rgb(Image.fromarray(values)))[..., 0] == GREY).all()


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.uint16) * 16 - GREY.astype(np.uint16) % 2,
        GREY.astype(np.int32) - 1,
        GREY.astype(np.float32) / 100,
        np.where(GREY > 9, np.nan, 1).astype(np.float32),
        GREY.astype(np.int32) * 10**6,
    ],
)
def test_deep_pictures_whose_scale_is_a_guess(values: np.ndarray[Any, Any]) -> None:
    with pytest.raises(SampleError, match="not known"):
        to_rgb(Image.fromarray(values))


def with_significant_bits(values: np.ndarray[Any, Any], bits: int) -> bytes:
    """A 16-bit grey PNG that says how many of its bits mean something."""
    out = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(out, "PNG")
    body = b"sBIT" + bytes([bits])
    chunk = b"\0\0\0\x01" + body + zlib.crc32(body).to_bytes(4, "big")
    return out.getvalue()[:33] + chunk + out.getvalue()[33:]  # after the signature and IHDR


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_png_that_says_how_many_of_its_16_bits_count(bits: int) -> None:
    plain = GREY.astype(np.uint16) << bits - 8 | GREY.astype(np.uint16) % 3  # as the sensor counts
    scaled = plain << 16 - bits | plain >> 2 * bits - 16  # as the standard has it
    for stored in (plain, scaled):
        image = open_image(with_significant_bits(stored, bits), Path("a.png"))
        assert (np.asarray(to_rgb(image))[..., 0] == GREY).all()


def grey_tiff(values: np.ndarray[Any, Any], bits: int, *, white_is_0: bool) -> bytes:
    """A TIFF of one strip, after TIFF 6.0; rows must fill whole bytes."""
    rows = b"".join(
        int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(len(row) * bits // 8, "big")
        for row in values.tolist()
    )
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_0), 273: 8, 277: 1, 278: height}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in {**tags, 279: len(rows)}.items())
    return b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + struct.pack("<H", 9) + entries + bytes(4)


@pytest.mark.parametrize("white_is_0", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_greys_of_a_tiff_are_what_it_stores(bits: int, white_is_0: bool) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (6, 8)).astype(np.uint8)
    np.testing.assert_array_equal(indices(grey_tiff(values, bits, white_is_0=white_is_0), Path("a.tif")), values)


@pytest.mark.parametrize("largest", [1, 18, 100, 254, 255, 256, 1000, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_values_of_a_pgm_are_what_it_stores(largest: int, plain: bool) -> None:
    values = np.random.default_rng(largest).integers(0, largest + 1, (6, 8)).astype(">u2" if largest > 255 else "u1")
    head = f"P{2 if plain else 5}\n# of a camera: 640 480 255\n8 6 # wide and high\n{largest}\n".encode()
    data = head + (" ".join(map(str, values.ravel())).encode() if plain else values.tobytes())
    np.testing.assert_array_equal(indices(data, Path("a.pgm")), values)
