"""Crops show what a label is given to: the right colours, at the right place, in every kind of dataset."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_recipe
from labelmerge.embed.datasets import find_datasets
from labelmerge.embed.embed import embed_labels
from labelmerge.errors import ShardError
from labelmerge.plot import crops
from labelmerge.plot.crops import SIDE, label_crops
from labelmerge.sharding.shard import shard
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits

from .. import companies

COLOURS = {name: np.array(colour) for name, colour in companies.COLOURS.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three datasets as shards, and their bank."""
    root = tmp_path_factory.mktemp("crops")
    recipes = companies.recipes(root)
    companies.draw(root / "data")
    for dataset, recipe in recipes.items():
        shard(load_recipe(recipe), root / "data" / dataset, "train", root / "shards")
    embed_labels(find_datasets([str(recipe) for recipe in recipes.values()]), root / "bank", encoder="offline")
    return root


def crops_of(strip: bytes) -> list[npt.NDArray[np.uint8]]:
    """Each crop of a strip, [SIDE, SIDE, 3]."""
    image = Image.open(io.BytesIO(strip))
    assert image.format == "WEBP" and image.height == SIDE
    pixels = np.asarray(image.convert("RGBA"))
    starts = range(0, image.width, SIDE + 3)
    assert image.width == len(starts) * (SIDE + 3) - 3
    assert all((pixels[:, start : start + SIDE, 3] == 255).all() for start in starts)
    return [pixels[:, start : start + SIDE, :3] for start in starts]


def test_a_crop_shows_its_label_bright_and_the_rest_dark(made: Path) -> None:
    bank = Bank.load(made / "bank")
    strips = label_crops([made / "shards"], bank, each=2)
    shown = {(dataset, bank.names[row]): strips.get((dataset, index)) for row, (dataset, index) in enumerate(bank.keys)}
    assert {key for key, strip in shown.items() if strip is None} <= {("gate", "person"), ("depot", "person")}
    for (dataset, name), strip in shown.items():
        if strip is None:
            continue
        cut = crops_of(strip)
        assert len(cut) == 2
        words = {"vehicle": ("car", "bus")}.get(name, (name,))
        for crop in cut:
            like = np.stack([np.abs(crop - COLOURS[word].astype(float)).max(axis=2) < 40 for word in words])
            lit: npt.NDArray[np.bool_] = np.logical_or.reduce(like)
            assert lit.mean() > 0.1, (dataset, name)
            # Other labels' colours are nowhere as bright as in the image.
            for other in COLOURS.keys() - set(words):
                assert (np.abs(crop - COLOURS[other].astype(float)).max(axis=2) < 40).mean() < 0.02
            if name in ("car", "bus", "vehicle"):
                assert lit[SIDE // 2, SIDE // 2]
                # The crop is half as wide again as the object, unless the image is too small.
                assert not lit[0].any() and lit[SIDE // 2].sum() > SIDE / 3
    assert strips == label_crops([made / "shards"], bank, each=2)


def test_the_frames_of_one_film_dont_fill_a_strip(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = find_splits([made / "shards/yard"])
    shards = ShardSet.open(folder)
    meta = shards.meta(0)
    monkeypatch.setattr(ShardSet, "__len__", lambda self: 1000)  # a film
    monkeypatch.setattr(ShardSet, "meta", lambda self, number: meta)
    numbers = [number for number, _ in crops._worth_a_look(shards, 6)]
    assert len(numbers) == 6 and numbers == sorted(numbers)
    assert min(b - a for a, b in zip(numbers, numbers[1:], strict=False)) > 6 and numbers[-1] - numbers[0] > 500


def test_a_dark_thing_is_outlined() -> None:
    shown = np.zeros((96, 96), dtype=np.bool_)
    shown[32:64, 32:64] = True
    pixels = crops._crop(np.full((96, 96, 3), 9, np.uint8), shown, (32, 32, 64, 64), 1024.0).pixels
    box = pixels.max(axis=2) == 255
    assert box.sum() > 100 and not box[40:56].all(axis=1).any() and pixels.min() < 9


def test_a_dataset_that_the_bank_lacks_is_left_out(made: Path) -> None:
    bank = Bank.load(made / "bank").for_datasets(["yard"])
    assert {dataset for dataset, _ in label_crops([made / "shards"], bank)} == {"yard"}


def test_a_damaged_sample_is_counted_and_others_are_shown(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "yard/train").mkdir(parents=True)
    for path in (made / "shards/yard/train").iterdir():
        (tmp_path / "yard/train" / path.name).write_bytes(path.read_bytes())
    (tar,) = tmp_path.rglob("*.tar")
    data = bytearray(tar.read_bytes())
    at = data.index(b"IDAT") + 8
    data[at : at + 40] = bytes(40)
    tar.write_bytes(data)
    bank = Bank.load(made / "bank")
    with caplog.at_level(logging.WARNING):
        strips = label_crops([tmp_path], bank)
    assert [len(crops_of(strip)) for strip in strips.values()] == [2, 2]
    assert "1 sample can't be read" in caplog.text
    with pytest.raises(ShardError):
        label_crops([tmp_path / "nothing"], bank)


def test_crops_are_not_neighbours(tmp_path: Path) -> None:
    """Of a video's frames, those that lie far apart are shown: each of these 40 is a little lighter than the last."""
    for number in range(40):
        for folder, value in (("images", 5 * number), ("masks", 0)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (64, 48), value).save(tmp_path / folder / f"{number:02}.png")
    (tmp_path / "film.csv").write_text("index,name,description\n0,road,A road is paved.\n")
    (tmp_path / "film.toml").write_text(
        'name = "film"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "film.csv"\n'
        '[layout]\nimages = "images/*.png"\nmasks = "masks/{stem}.png"\n[splits]\nval = ""\ntest = ""\n'
    )
    shard(load_recipe(str(tmp_path / "film.toml")), tmp_path, "train", tmp_path / "shards")
    bank = tmp_path / "bank"
    embed_labels(find_datasets([str(tmp_path / "film.toml")]), bank, encoder="offline")
    (strip,) = label_crops([tmp_path / "shards"], Bank.load(bank)).values()
    light = [float(crop.mean()) for crop in crops_of(strip)]
    assert len(light) == 3 and max(light) - min(light) > 50
