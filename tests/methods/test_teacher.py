from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from labelmerge.encoders import encoders
from labelmerge.errors import EncoderError, ShardError
from labelmerge.loading.augment import Augmentation
from labelmerge.loading.batch import Batch
from labelmerge.loading.datasets import group_by_dataset
from labelmerge.loading.mixture import Mixture
from labelmerge.methods.ssiw.teacher import choose_teacher, refuse_other_teachers
from labelmerge.shardset.shardset import ShardSet

from ..loading.toy_shards import Toy, toy_bank

THINGS = Toy("things", ("cup", "cat"), "box", colours=(0, 1))
CPU = torch.device("cpu")


class MeanColour:
    """An image tower that anyone can check: the mean colour, as a unit vector of 16 dimensions."""

    dim = 16

    def __init__(self, model: str) -> None:
        self.identity = {"model": model, "weights_sha256": None, "activation": None, "tokenizer": None}
        self.sizes: list[tuple[int, int]] = []

    def encode_images(self, images: list[Image.Image], *, batch_size: int = 64) -> Any:
        self.sizes += [image.size for image in images]
        colours = np.array([np.asarray(image).mean((0, 1)) for image in images], dtype=np.float32)
        vectors = np.pad(colours, ((0, 0), (0, 13)))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def batch_of(toy: Toy, folder: Path) -> Batch:
    sources = group_by_dataset([ShardSet.open(toy.write(folder))])
    augmentation = Augmentation(crop=40, scale=(1.0, 1.0), colour=0, blur=0, jpeg=0)
    return Mixture(sources, 6, 0, augmentation).batch(0)[0]


def test_without_an_image_tower_the_label_teaches_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch, bank = batch_of(THINGS, tmp_path), toy_bank([THINGS])
    with caplog.at_level(logging.INFO, logger="labelmerge"):
        teacher = choose_teacher(bank, CPU)
        assert not caplog.text  # there may be no boxes
        labels = torch.from_numpy(bank.vectors)
        for vectors, classes in zip(teacher(batch, labels), batch.box_classes, strict=True):
            assert torch.equal(vectors, labels[classes])
        teacher(batch, labels)
    assert caplog.text.count("each label's own embedding") == 1


def test_clips_image_tower_sees_what_is_in_the_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = MeanColour("open_clip:X/y")
    asked: list[tuple[Any, ...]] = []

    def load(*args: str) -> MeanColour:
        asked.append(args)
        return tower

    monkeypatch.setattr(encoders, "load_image_encoder", load)
    batch, bank = batch_of(THINGS, tmp_path), toy_bank([THINGS], encoder="open_clip:X/y")
    labels = torch.from_numpy(bank.vectors)
    teacher = choose_teacher(bank, CPU)
    assert not asked  # only when a box needs it
    found = teacher(batch, labels)
    assert asked == [("open_clip:X/y", "cpu")]
    for vectors, boxes, classes in zip(found, batch.boxes, batch.box_classes, strict=True):
        assert vectors.shape == (len(boxes), 16)
        # Class 0 is red and class 1 green, and each box holds its class's half of the image.
        assert torch.equal(vectors[:, :2].argmax(1), classes)
    corners = torch.cat(batch.boxes)
    expected = (corners[:, 2:].ceil() - corners[:, :2].floor()).int().tolist()
    assert tower.sizes == [tuple(size) for size in expected]
    assert len(teacher(batch.part(0, 1), labels)) == 1 and len(asked) == 1


def test_embeddings_in_the_shards_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "load_image_encoder", lambda *args: pytest.fail("no tower is needed"))
    toy = Toy("things", THINGS.names, "box", embedding_dim=16)
    batch, bank = batch_of(toy, tmp_path), toy_bank([toy], encoder="open_clip:X/y")
    labels = torch.from_numpy(bank.vectors)
    for vectors, stored in zip(choose_teacher(bank, CPU)(batch, labels), batch.box_embeddings, strict=True):
        assert stored is not None
        torch.testing.assert_close(vectors, stored / stored.norm(dim=1, keepdim=True))
    other = toy_bank([toy], dim=8, encoder="open_clip:X/y")
    with pytest.raises(ShardError, match="box embeddings of 16 dimensions, but the bank has 8"):
        choose_teacher(other, CPU)(batch, torch.from_numpy(other.vectors))


def test_an_image_tower_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "load_image_encoder", lambda *args: MeanColour("open_clip:other"))
    batch, bank = batch_of(THINGS, tmp_path), toy_bank([THINGS], encoder="open_clip:X/y")
    with pytest.raises(EncoderError, match="another model than the one that made the bank"):
        choose_teacher(bank, CPU)(batch, torch.from_numpy(bank.vectors))


@pytest.mark.parametrize(
    ("teacher", "refused"),
    [
        (None, False),
        ({"encoder": "open_clip:X/y", "weights_sha256": None}, False),
        ({"encoder": "open_clip:X/z", "weights_sha256": None}, True),
        ({"encoder": "open_clip:X", "weights_sha256": "abc"}, False),
        ({"encoder": "open_clip:X", "weights_sha256": "abd"}, True),
    ],
)
def test_box_embeddings_of_another_model_are_refused(tmp_path: Path, teacher: Any, refused: bool) -> None:
    shards = replace(ShardSet.open(THINGS.write(tmp_path)), box_teacher=teacher)
    bank = replace(toy_bank([THINGS]), encoder="open_clip:X/y", identity={"model": "X", "weights_sha256": "abc"})
    if refused:
        with pytest.raises(ShardError, match="its box embeddings were made by open_clip:X"):
            refuse_other_teachers(group_by_dataset([shards]), bank)
    else:
        refuse_other_teachers(group_by_dataset([shards]), bank)
    refuse_other_teachers(group_by_dataset([shards]), replace(bank, encoder="offline"))  # labels teach, not they
