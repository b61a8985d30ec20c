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
from labelmerge.plot.crops import SIDE, label_crops
from labelmerge.sharding.shard import shard

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
    crops = label_crops([made / "shards"], bank, each=2)
    shown = {(dataset, bank.names[row]): crops.get((dataset, index)) for row, (dataset, index) in enumerate(bank.keys)}
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
    assert crops == label_crops([made / "shards"], bank, each=2)


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
        crops = label_crops([tmp_path], bank)
    assert [len(crops_of(strip)) for strip in crops.values()] == [2, 2]
    assert "1 sample can't be read" in caplog.text
    with pytest.raises(ShardError):
        label_crops([tmp_path / "nothing"], bank)
