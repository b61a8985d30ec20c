"""Shards as files: always the same bytes, whole or not there, and good for others to read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from labelmerge.catalog import load_recipe
from labelmerge.errors import OutputError, SampleError, ShardError, UsageError
from labelmerge.inspect.verify import verify
from labelmerge.sharding.pictures.images import image_member, open_image, read_indices
from labelmerge.sharding.shard import check, shard
from labelmerge.shardset.pixels import decode_whole, png_bytes

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

T = TypeVar("T")
Samples = Callable[[Path], dict[str, dict[str, Any]]]


def content(folder: Path) -> dict[str, str]:
    """Every file under a folder with its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_bytes_for_any_number_of_workers(own: Own, tmp_path: Path) -> None:
    own.pairs(7)
    own.mask("masks/train/002.png", size=(3, 3))
    for workers in (1, 2):
        shard(own.recipe, own.root, "train", tmp_path / str(workers), workers=workers, samples_per_shard=2)
    one, two = content(tmp_path / "1"), content(tmp_path / "2")
    assert one == two
    tars = [f"my_streets/train/my_streets-train-{number:06d}.tar" for number in range(4)]
    assert list(one) == [
        "my_streets/train/.sources.json",
        "my_streets/train/croissant.json",
        "my_streets/train/manifest.json",
        *tars,
    ]
    assert verify([tmp_path]).problems == ()


def test_a_folder_of_other_things_is_told(own: Own, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once: afterwards it has shards."""
    own.pairs(2)
    for _ in range(2):
        shard(own.recipe, own.root, "train", own.root)
    assert caplog.text.count(f"{own.root}: is to hold shards, and holds other things (images, ") == 1
    shard(own.recipe, own.root, "train", tmp_path / "new")
    assert caplog.text.count("is to hold") == 1


def test_a_sample_and_its_manifest(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    masks = own.pairs(3)
    (own.root / "masks/train/001.png").unlink()
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert report.folder == tmp_path / "my_streets" / "train"
    found = read_samples(report.folder)
    assert list(found) == ["my_streets-train-000000000", "my_streets-train-000000002"]  # the gap is the skipped one
    sample = found["my_streets-train-000000002"]
    original = (own.root / "images/train/002.jpg").read_bytes()
    assert sample["jpg"] == original
    np.testing.assert_array_equal(sample["mask.png"], masks[2])
    assert sample["json"] == {
        "key": "my_streets-train-000000002",
        "dataset": "my_streets",
        "split": "train",
        "annotation_type": "mask",
        "label_space": sample["json"]["label_space"],
        "height": 12,
        "width": 16,
        "original_height": 12,
        "original_width": 16,
        "source": {"path": "images/train/002.jpg", "native_id": "", "sha256": hashlib.sha256(original).hexdigest()},
        "present": [0, 1, 2],
        "boxes": [],
        "segments": [],
    }
    manifest = json.loads((report.folder / "manifest.json").read_text())
    tar = report.folder / "my_streets-train-000000.tar"
    assert manifest["format"] == "labelmerge-shards/2"
    assert manifest["members"] == ["jpg", "json", "mask.png"]
    assert manifest["counts"] == {"found": 3, "written": 2, "skipped": 1}
    assert manifest["recipe"]["text"] == own.recipe.text
    assert manifest["shards"] == [
        {
            "name": tar.name,
            "samples": 2,
            "bytes": tar.stat().st_size,
            "sha256": hashlib.sha256(tar.read_bytes()).hexdigest(),
        }
    ]
    both = np.concatenate([masks[0], masks[2]])
    assert manifest["class_pixels"] == {str(index): np.count_nonzero(both == index) for index in range(3)}
    assert manifest["ignored_pixels"] == np.count_nonzero(both == 255)
    assert manifest["label_space"]["names"] == ["road", "car", "sky"]
    assert str(tmp_path) not in json.dumps(manifest) and str(own.root) not in json.dumps(manifest)


def test_a_limit_takes_the_first_and_moves_no_name(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    own.pairs(5)
    (own.root / "masks/train/000.png").unlink()
    report = shard(own.recipe, own.root, "train", tmp_path, limit=2)
    assert report.folder is not None
    assert list(read_samples(report.folder)) == ["my_streets-train-000000001", "my_streets-train-000000002"]


def test_a_shard_without_samples_does_not_appear(own: Own, tmp_path: Path) -> None:
    own.pairs(6)
    for number in (2, 3):
        own.mask(f"masks/train/{number:03d}.png", size=(3, 3))
    report = shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    assert report.shards == 2 and len(report.skipped) == 2
    assert verify([tmp_path]).problems == ()


def test_too_many_skips_fail_before_the_manifest(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    (own.root / "masks/train/000.png").unlink()
    with pytest.raises(ShardError, match="1 of 4 images can't be used"):
        shard(own.recipe, own.root, "train", tmp_path, max_skip_ratio=0.2)
    assert not list(tmp_path.rglob("manifest.json"))
    assert shard(own.recipe, own.root, "train", tmp_path, max_skip_ratio=0.25).kept == 1
    with pytest.raises(UsageError, match="max_skip_ratio is nan"):
        check(own.recipe, own.root, "train", max_skip_ratio=float("nan"))


def test_a_name_that_is_not_utf_8_is_skipped(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    for folder, suffix in (("images", b"jpg"), ("masks", b"png")):
        directory = os.fsencode(own.root / folder / "train")
        with open(directory + b"/\xff." + suffix, "wb") as stream, open(directory + b"/000." + suffix, "rb") as other:
            stream.write(other.read())
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert report.skipped == ({"path": "images/train/\\udcff.jpg", "reason": "the file's name is not UTF-8"},)


def test_a_recipe_whose_name_is_not_utf_8(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    odd = own.recipe_file.with_name(os.fsdecode(b"my\xff.toml"))
    odd.write_text(own.recipe_file.read_text())
    report = shard(load_recipe(odd), own.root, "train", tmp_path)
    assert report.folder is not None
    reproduce = json.loads((report.folder / "manifest.json").read_text())["reproduce"]
    assert reproduce.startswith("labelmerge shard 'my\\xff.toml' --root ROOT")


# --- images -----------------------------------------------------------------------------------------------------------


def test_jpegs_that_are_not_rgb(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    originals = {
        "rgb": own.image("images/train/0_rgb.jpg"),
        "grey": own.image("images/train/1_grey.jpg", mode="L"),
        "cmyk": own.image("images/train/2_cmyk.jpg", mode="CMYK"),
    }
    for name in ("0_rgb", "1_grey", "2_cmyk"):
        own.mask(f"masks/train/{name}.png")
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert report.image_format == "jpg" and report.notes == {"reencoded_images": 1}
    assert report.folder is not None
    rgb, grey, cmyk = (sample["jpg"] for sample in read_samples(report.folder).values())
    assert (rgb, grey) == (originals["rgb"], originals["grey"])
    image = Image.open(BytesIO(cmyk))
    assert (image.mode, image.size) == ("RGB", (16, 12))


def test_mixed_formats_become_png_without_loss(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    one = '"images/{split}/*.jpg"'
    own.write_recipe(own.recipe_file.read_text().replace(one, f'[{one}, "images/{{split}}/*.png"]'))
    jpeg = own.image("images/train/a.jpg")
    png = own.image("images/train/b.png")
    for name in "ab":
        own.mask(f"masks/train/{name}.png")
    report = shard(own.recipe, own.root, "train", tmp_path / "png")
    assert report.image_format == "png" and report.notes == {"reencoded_images": 1} and report.folder is not None
    first, second = read_samples(report.folder).values()
    np.testing.assert_array_equal(first["png"], np.asarray(Image.open(BytesIO(jpeg))))
    np.testing.assert_array_equal(second["png"], np.asarray(Image.open(BytesIO(png))))
    asked = shard(own.recipe, own.root, "train", tmp_path / "jpg", image_format="jpg", quality=40)
    assert asked.notes == {"reencoded_images": 1} and asked.folder is not None
    first, second = read_samples(asked.folder).values()
    assert first["jpg"] == jpeg and second["jpg"] != png


def test_16_bit_images_are_scaled_not_clipped(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    own.write_recipe(own.recipe_file.read_text().replace("*.jpg", "*.png"))
    values = np.linspace(0, 65535, 192).reshape(12, 16).astype(np.uint16)
    own.mask("images/train/a.png", values)
    own.mask("masks/train/a.png")
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert report.folder is not None
    (sample,) = read_samples(report.folder).values()
    np.testing.assert_array_equal(sample["png"], np.stack([values >> 8] * 3, axis=-1))


def test_16_bits_in_the_other_byte_order_are_the_same_values(tmp_path: Path) -> None:
    values = np.arange(0, 60000, 5000, dtype=np.uint16).reshape(3, 4)
    # A TIFF in big-endian order, which Pillow can't write: header, data, then the directory.
    tags = [(256, 4), (257, 3), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 3), (279, 24)]
    directory = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    data = struct.pack(">2sHI", b"MM", 42, 32) + values.astype(">u2").tobytes()
    (tmp_path / "a.tif").write_bytes(data + struct.pack(">H", len(tags)) + directory + bytes(4))
    np.testing.assert_array_equal(read_indices(tmp_path / "a.tif"), values)
    image = decode_whole((tmp_path / "a.tif").read_bytes(), tmp_path / "a.tif")
    encoded, _ = image_member(b"", image, "png", values.shape, None)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(encoded)))[..., 0], values >> 8)


@settings(max_examples=60, deadline=None)
@given(
    values=st.one_of(
        [arrays(dtype, st.tuples(st.integers(1, 9), st.integers(1, 9))) for dtype in (np.uint8, np.uint16)]
    )
)
def test_masks_are_encoded_without_loss(values: npt.NDArray[Any]) -> None:
    encoded = png_bytes(values)
    image = Image.open(BytesIO(encoded))
    assert image.mode == ("L" if values.dtype == np.uint8 else "I;16")
    np.testing.assert_array_equal(np.asarray(image), values)
    np.testing.assert_array_equal(np.asarray(open_image(encoded, Path("a.png"))), values)


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {}), ("jpg", {"progressive": True}), ("png", {})])
def test_a_cut_off_image_is_found_without_decoding_it(own: Own, suffix: str, options: dict[str, Any]) -> None:
    data = own.image(f"a.{suffix}", size=(40, 60), **options)
    assert open_image(data, Path("a")).size == (60, 40)
    assert open_image(data + b"trailing", Path("a")).size == (60, 40)
    for end in range(0, len(data) - (2 if suffix == "jpg" else 12)):
        with pytest.raises(SampleError, match="not a readable image"):
            open_image(data[:end], Path("a"))
    if suffix == "png":
        place = len(data) // 2
        with pytest.raises(SampleError):
            open_image(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], Path("a"))


def test_short_edge(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    own.image("images/train/a.jpg", size=(24, 36))
    own.image("images/train/b.jpg", size=(6, 8))
    large, small = own.mask("masks/train/a.png", size=(24, 36)), own.mask("masks/train/b.png", size=(6, 8))
    report = shard(own.recipe, own.root, "train", tmp_path, short_edge=12)
    assert report.image_format == "png" and report.folder is not None
    first, second = read_samples(report.folder).values()
    assert first["png"].shape == (12, 18, 3) and second["png"].shape == (6, 8, 3)
    np.testing.assert_array_equal(first["mask.png"], large[1::2, 1::2])
    np.testing.assert_array_equal(second["mask.png"], small)
    sizes = [first["json"][name] for name in ("height", "width", "original_height", "original_width")]
    assert sizes == [12, 18, 24, 36]
    assert verify([tmp_path]).problems == ()


@pytest.mark.parametrize(
    "options", [{"quality": 90}, {"limit": 0}, {"short_edge": 0}, {"samples_per_shard": 0}, {"workers": 0}]
)
def test_senseless_options_are_refused(own: Own, tmp_path: Path, options: dict[str, int]) -> None:
    own.write_recipe(own.recipe_file.read_text().replace("[layout]", 'image_format = "png"\n[layout]'))
    own.pairs(1)
    with pytest.raises(UsageError):
        shard(own.recipe, own.root, "train", tmp_path, **options)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


# --- interruptions ----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def stop_after(steps: int) -> Callable[..., Iterator[Any]]:
    def track(things: Iterable[T], what: str, total: int | None = None, /) -> Iterator[T]:
        for step, thing in enumerate(things):
            if step == steps:
                raise Interrupted
            yield thing

    return track


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on(own: Own, tmp_path: Path, workers: int) -> None:
    own.pairs(9)
    with pytest.raises(Interrupted):
        shard(own.recipe, own.root, "train", tmp_path / "a", samples_per_shard=3, workers=workers, track=stop_after(5))
    folder = tmp_path / "a/my_streets/train"
    assert [path.name for path in folder.iterdir() if path.suffix == ".tmp"] == []
    assert not (folder / "manifest.json").exists()
    finished = len(list(folder.glob("*.tar")))
    assert verify([tmp_path]).problems[0].what == "no manifest: the shards are not finished"
    report = shard(own.recipe, own.root, "train", tmp_path / "a", samples_per_shard=3)
    assert 1 <= report.kept <= finished and report.shards == 3
    shard(own.recipe, own.root, "train", tmp_path / "b", samples_per_shard=3)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_resume_after_kill_9(own: Own, tmp_path: Path) -> None:
    for number in range(30):
        own.image(f"images/train/{number:03d}.jpg", size=(300, 400))
        own.mask(f"masks/train/{number:03d}.png", size=(300, 400))
    words = ["shard", own.recipe_file, "--root", own.root, "--split", "train", "--out", tmp_path / "a"]
    command = [sys.executable, "-m", "labelmerge.cli", *map(str, words), "--samples-per-shard", "3"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    folder = tmp_path / "a/my_streets/train"
    deadline = time.monotonic() + 60
    while len(list(folder.glob(".unfinished/0*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (folder / ".my_streets-train-000009.tar.abcdefgh.tmp").write_bytes(b"half a shard")
    report = shard(own.recipe, own.root, "train", tmp_path / "a", samples_per_shard=3)
    assert 3 <= report.kept < 10 and report.written == 30
    shard(own.recipe, own.root, "train", tmp_path / "b", samples_per_shard=3)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_finished_run_is_not_repeated_but_a_damaged_one_is(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    before = content(tmp_path)
    tar = tmp_path / "my_streets/train/my_streets-train-000001.tar"
    time_before = tar.stat().st_mtime_ns
    assert shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2).kept == 2
    assert tar.stat().st_mtime_ns == time_before
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    assert shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2).kept == 0
    assert content(tmp_path) == before
    (tar.parent / "manifest.json").unlink()
    with pytest.raises(ShardError, match="holds tar files that no manifest describes"):
        shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)


def test_other_options_or_another_dataset_are_not_mixed_in(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2)
    with pytest.raises(ShardError, match=r"other files or options .limit was None, now 2.. Remove the folder"):
        shard(own.recipe, own.root, "train", tmp_path, samples_per_shard=2, limit=2)
    with pytest.raises(Interrupted):
        shard(own.recipe, own.root, "train", tmp_path / "b", samples_per_shard=2, track=stop_after(3))
    own.image("images/train/new.jpg")
    own.mask("masks/train/new.png")
    for folder in (tmp_path, tmp_path / "b"):
        with pytest.raises(ShardError, match="the dataset's files changed since"):
            shard(own.recipe, own.root, "train", folder, samples_per_shard=2)


def test_no_space_left(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.pairs(4)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        shard(own.recipe, own.root, "train", tmp_path)
    assert list(content(tmp_path)) == []


def test_check_writes_nothing_and_says_it_all(own: Own, tmp_path: Path) -> None:
    own.pairs(4)
    (own.root / "masks/train/000.png").unlink()
    own.mask("masks/train/001.png", size=(3, 3))
    before = content(own.root)
    trial = check(own.recipe, own.root, "train")
    assert content(own.root) == before
    report = shard(own.recipe, own.root, "train", tmp_path)
    assert trial.folder is None
    assert (trial.found, trial.written, trial.skipped, trial.bytes) == (4, 2, report.skipped, report.bytes)
