"""Classes that a dataset, or an image, was not annotated for: from the shards to the loss."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from labelmerge.labels import IGNORE
from labelmerge.losses import LabelTable, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.merge.choices import Negatives
from labelmerge.merge.negatives import negatives
from labelmerge.methods.method import find_method
from labelmerge.methods.ssiw.losses import Labels, ssiw_sums
from labelmerge.methods.ssiw.settings import SsiwSettings
from labelmerge.methods.ssiw.teacher import label_teacher
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs

from ..loading.toy_shards import Toy, toy_bank

# Labels of `streets` 2 and 3 do not occur in it, and those of `parts` are others' labels, too.
LISTS = {0: (0, 1), 1: (0, 1, 2), 2: (), 4: (1, 3), 5: (0, 1, 2, 3)}
STREETS = Toy("streets", ("road", "sky", "car", "tree"), annotated=LISTS)
PARTS = Toy("parts", ("tree", "road", "cup"), "noisy_mask", annotated={0: (0, 2), 3: (1,)})
ROOMS = Toy("rooms", ("cup", "car", "wall"))


def test_a_recipe_says_which_classes_never_compete(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    path = shards / "streets/train/manifest.json"
    manifest = json.loads(path.read_text())
    text = f'annotated = ["road", "sky"]\n{manifest["recipe"]["text"]}'
    manifest["recipe"] |= {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(manifest))
    config = TrainConfig(merge="text")
    columns = read_inputs([shards], bank, None, config, find_method("ssiw"), Ranks()).columns
    streets = list(columns.tables).index("streets")
    assert [columns.texts[place] for place in columns.unannotated[streets].nonzero()[0]] == ["car"]
    assert columns.unannotated.sum() == 1
    words = ["train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", "--merge", "text"]
    words += ["--steps", 2, "--batch-size", 3, "--crop", 32, "--device", "cpu"]
    assert run(*words).exit_code == 0


@pytest.mark.parametrize("how", get_args(Negatives))
def test_what_an_image_was_not_annotated_for_is_neither_right_nor_wrong_in_it(how: Negatives, tmp_path: Path) -> None:
    toys = (STREETS, PARTS, ROOMS)
    for toy in toys:
        toy.write(tmp_path / "shards")
    toy_bank(toys).save(tmp_path / "bank")
    config = TrainConfig(merge="text", batch_size=12, crop=24)
    inputs = read_inputs([tmp_path / "shards"], tmp_path / "bank", None, config, find_method("ssiw"), Ranks())
    columns, mixture = inputs.columns, inputs.mixture
    (batch,) = mixture.batch(0)
    batch = pickle.loads(pickle.dumps(batch)).to(torch.device("cpu"))
    settings = SsiwSettings(losses=("hd", "ld"), negatives=how)
    labels = Labels.of(columns, settings, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(batch), columns.vectors.shape[1], 6, 6, generator=generator, requires_grad=True)
    tau = torch.tensor(0.2)
    ours = ssiw_sums(batch, v, labels, tau, label_teacher, settings)

    weights = torch.from_numpy(negatives(columns, how, strength=settings.foreign_weight)).double()
    positive, vectors = torch.from_numpy(columns.positive), torch.from_numpy(columns.vectors).double()
    wanted = torch.zeros(2, 3, dtype=torch.float64)
    seen = 0
    noisy: list[int] = []
    tables = {}
    for i, key in enumerate(batch.keys):
        toy = next(each for each in toys if each.name == batch.datasets[i])
        listed = toy.annotated.get(int(key[-9:]), tuple(range(len(toy.names))))
        assert (batch.annotated[i] is None) == (toy is ROOMS)
        if batch.annotated[i] is not None:
            assert batch.annotated[i].tolist() == list(listed)
        absent = {name for number, name in enumerate(toy.names) if number not in listed}
        competing = torch.tensor([text not in absent for text in columns.texts])
        seen += int((~competing).sum())
        tables[i] = LabelTable(positive, weights * competing)
        mask = batch.masks[i : i + 1]
        if toy is PARTS:
            noisy.append(i)
        else:
            losses = pixel_cosine_loss(
                v[i : i + 1].double(), vectors, mask, 0.2, IGNORE, table=tables[i], reduction="none"
            )
            wanted[0, int(batch.dataset_ids[i])] += losses.sum()
    for i in noisy:
        each = trimmed_pixel_cosine_loss(
            v[i : i + 1].double(), vectors, batch.masks[i : i + 1], 0.2, IGNORE, table=tables[i]
        )
        labelled = int((batch.masks[i] != IGNORE).sum())
        wanted[1, int(batch.dataset_ids[i])] += each * (labelled - int(settings.drop * labelled))
    assert seen > 5
    assert torch.allclose(ours.double(), wanted, rtol=1e-4)
    mine, theirs = (torch.autograd.grad(loss.sum(), v, retain_graph=True)[0] for loss in (ours, wanted))
    assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-6)


def test_splits_with_and_without_lists_and_a_whole_run(run: Any, tmp_path: Path) -> None:
    plain = Toy("streets", STREETS.names, split="val", changes={"recipe": recipe('annotated = ["road", "sky"]')})
    for toy in (STREETS, plain, ROOMS):
        toy.write(tmp_path / "shards")
    toy_bank((STREETS, ROOMS)).save(tmp_path / "bank")
    folders = [tmp_path / "shards/streets/train", tmp_path / "shards/streets/val", tmp_path / "shards/rooms"]
    inputs = read_inputs(folders, tmp_path / "bank", None, TrainConfig(merge="text"), find_method("ssiw"), Ranks())
    assert not inputs.columns.unannotated.any() and list(inputs.columns.classes) == ["streets"]
    found = {
        key: listed.tolist()
        for step in range(30)
        for batch in inputs.mixture.batch(step)
        for key, listed in zip(batch.keys, batch.annotated, strict=True)
        if listed is not None
    }
    assert {key for key in found if "-val-" in key} and {key for key in found if "-train-" in key}
    for key, own in found.items():
        train = "-train-" in key
        assert own == list(LISTS.get(int(key[-9:]), (0, 1)) if train else (0, 1)), "as their dataset, where not told"
    words = ["train", "--shards", *folders, "--bank", tmp_path / "bank", "--out", tmp_path / "run", "--merge", "text"]
    assert run(*words, "--steps", 2, "--batch-size", 4, "--crop", 32, "--device", "cpu").exit_code == 0
    alone = read_inputs([folders[-1]], tmp_path / "bank", None, TrainConfig(merge="text"), find_method("ssiw"), Ranks())
    assert alone.mixture.batch(0)[0].annotated == [] and not alone.columns.classes


def recipe(text: str) -> dict[str, str]:
    return {"name": "streets", "sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text}
