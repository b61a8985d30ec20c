"""Images that were encoded again, found by what they look like; near pairs of hashes, against comparing all."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from click.testing import Result
from PIL import Image

from labelmerge.inspect.twins import NEAR, near_pairs, perceptual_hash

Pixels = npt.NDArray[np.uint8]


def _scene(seed: int, height: int = 90, width: int = 120) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _again(image: Pixels, quality: int, scale: float = 1.0) -> Pixels:
    out = BytesIO()
    height, width = image.shape[:2]
    size = round(width * scale), round(height * scale)
    Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).save(out, "jpeg", quality=quality)
    return np.asarray(Image.open(out))


def _bits(*images: Pixels) -> npt.NDArray[np.uint8]:
    hashes = [perceptual_hash(image) for image in images]
    assert all(hashes)
    return np.frombuffer(b"".join(hash_ for hash_ in hashes if hash_), np.uint8).reshape(len(images), -1)


def test_an_image_encoded_again_is_its_twin_and_no_other_is() -> None:
    scenes = [_scene(seed) for seed in range(12)]
    again = [_again(scenes[0], 60), _again(scenes[3], 90, 0.7)]
    assert near_pairs(_bits(*scenes, *again)) == [(0, 12), (3, 13)]


def test_plain_images_have_no_hash() -> None:
    assert perceptual_hash(np.full((40, 60, 3), 90, np.uint8)) is None


def test_near_pairs_are_all_of_them() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (60, 32), dtype=np.uint8)
    for row in range(20, 60):  # neighbours of the first 20, a few bits away
        flipped = np.unpackbits(hashes[row % 20])
        flipped[rng.choice(256, rng.integers(0, 16), replace=False)] ^= 1
        hashes[row] = np.packbits(flipped)
    apart = np.unpackbits(hashes[:, None] ^ hashes[None], axis=-1).sum(axis=-1)
    expected = [(a, b) for a in range(60) for b in range(a + 1, 60) if apart[a, b] <= NEAR]
    assert len(expected) > 20
    assert near_pairs(hashes) == expected
    assert near_pairs(hashes[:0]) == near_pairs(hashes[:1]) == []


def test_the_command_names_a_copy_of_an_evaluation_image(run: Callable[..., Result], tmp_path: Path) -> None:
    for name, role, seeds in (("mine", "train", (1, 2, 3)), ("theirs", "eval", (3, 4))):
        folder = tmp_path / name
        (folder / "shots").mkdir(parents=True)
        for seed in seeds:
            image = _scene(seed)
            Image.fromarray(image).save(
                folder / f"shots/{seed}.png" if role == "train" else folder / f"shots/{seed}.jpg"
            )
        (folder / f"{name}.csv").write_text("index,name,description\n0,road,A road is a way.\n")
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\nannotation_type = "image"\nreader = "images"\ndescriptions = "{name}.csv"\n'
            f'role = "{role}"\n[layout]\nimages = "shots/*"\n'
        )
        split = "train" if role == "train" else "val"
        made = run("shard", folder / f"{name}.toml", "--root", folder, "--split", split, "--out", tmp_path / "out")
        assert made.exit_code == 0, made.stderr
    plain = run("verify", tmp_path / "out")
    assert plain.exit_code == 0 and "LEAK" not in plain.output
    found = run("verify", tmp_path / "out", "--twins", "--no-leaks")
    assert found.exit_code == 1, found.output
    assert "LEAK: 1 image of" in found.output
    assert "looks like images of" in found.output
    assert "(mine-train-000000002 looks like theirs-val-000000000)" in found.output
