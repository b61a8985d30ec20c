"""Class lists written anew in another order: a class is known by its name, and a number alone is never trusted."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, LabelmergeError, ShardError
from labelmerge.evaluate.cross import count_predictions
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.inspect.merged import open_merged
from labelmerge.merge.merges import by_concepts
from labelmerge.plot.crops import label_crops
from labelmerge.predict.relabel import relabel
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, png, toy_bank, write_split

STREETS = Toy("streets", ("road", "sky", "car"), split="val", count=3)
ROOMS = Toy("rooms", ("wall", "car"), colours=(3, 2))
ORDER = (2, 0, 1)  # the old number of each new class
ANEW = replace(STREETS, names=tuple(STREETS.names[old] for old in ORDER))


def write_anew(out: Path, toy: Toy = ANEW) -> Path:
    """The same images, whose masks have the new numbers."""
    samples = []
    for number in range(STREETS.count):
        key, members = replace(STREETS, split=toy.split).sample(number)
        mask = np.asarray(Image.open(io.BytesIO(members["mask.png"])))
        meta = {**json.loads(members["json"]), "label_space": toy.space.hash}
        new = np.array([ORDER.index(old) for old in range(3)], dtype=np.uint8)[mask]
        samples.append((key, {**members, "mask.png": png(new), "json": json.dumps(meta).encode()}))
    return write_split(out / toy.name / toy.split, toy, samples)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ssiw", "merge": "concepts"},
        {"method": "ssiw", "taxonomy": "table.csv"},
        {"method": "usss", "cross_weight": 0.0, "within_weight": 0.0},
        {"method": "mdp"},
        {"method": "lmseg", "classifier": "union"},
        {"method": "lmseg", "classifier": "heads"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_checkpoint_knows_classes_by_name(settings: dict[str, Any], tmp_path: Path) -> None:
    for toy in (replace(STREETS, split="train"), ROOMS):
        toy.write(tmp_path / "shards")
    bank = toy_bank([STREETS, ROOMS])
    bank.save(tmp_path / "bank")
    if "taxonomy" in settings:
        (tmp_path / "table.csv").write_text(by_concepts(bank).table())
        settings = {**settings, "taxonomy": str(tmp_path / "table.csv")}
    config = TrainConfig.from_dict({"steps": 2, "batch_size": 2, "crop": 32, "lr": 0.01, **settings})
    run = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "run", config=config, device="cpu").run
    old = evaluate(run, [STREETS.write(tmp_path / "old")], tmp_path / "bank", tmp_path / "old.json", device="cpu")
    toy_bank([ANEW, ROOMS]).save(tmp_path / "bank-anew")
    anew = write_anew(tmp_path / "anew")
    new = evaluate(run, [anew], tmp_path / "bank-anew", tmp_path / "new.json", device="cpu")
    (before,), (now,) = old.sets, new.sets
    assert now.labels.columns == tuple(before.labels.columns[k] for k in ORDER if before.labels.columns)
    np.testing.assert_array_equal(now.confusion, before.confusion[np.ix_(ORDER, ORDER)])
    assert len(np.unique(before.confusion.sum(axis=0))) > 1


def test_splits_with_other_classes_are_no_one_dataset(tmp_path: Path, tools: Any) -> None:
    bank = tools.bank([("streets", number, name, name) for number, name in enumerate(STREETS.names)])
    bank.save(tmp_path / "bank")
    tools.run(tmp_path / "run", bank)
    test = write_anew(tmp_path / "shards", replace(ANEW, split="test"))
    folders = [STREETS.write(tmp_path / "shards"), test]
    with pytest.raises(ShardError, match=r"has other classes of streets than .*test") as refused:
        evaluate(tmp_path / "run", folders, tmp_path / "bank", tmp_path / "results.json")
    assert str(refused.value.where).endswith("val")
    (tmp_path / "table.csv").write_text(by_concepts(toy_bank([STREETS])).table())
    for merged in (
        lambda: open_merged([tmp_path / "shards"], tmp_path / "table.csv"),
        lambda: relabel([tmp_path / "shards"], tmp_path / "table.csv", tmp_path / "out"),
    ):
        with pytest.raises(LabelmergeError, match="class 0 is '(road|car)' in one split and '(road|car)' in another"):
            merged()
    assert not (tmp_path / "out").exists()


def test_a_bank_of_other_numbers_is_refused(tmp_path: Path, tools: Any) -> None:
    bank = toy_bank([STREETS, ROOMS])
    Bank.save(bank, tmp_path / "bank")
    tools.run(tmp_path / "run", bank, dim=bank.dim)
    write_anew(tmp_path / "shards")
    replace(ROOMS, split="val").write(tmp_path / "shards")
    boxes = replace(STREETS, names=ANEW.names, kind="box", split="train").write(tmp_path / "boxes")
    for looked in (
        lambda: count_predictions(tmp_path / "run", [tmp_path / "shards"], tmp_path / "bank"),
        lambda: label_crops([tmp_path / "shards"], bank),
        lambda: relabel([boxes], None, tmp_path / "out", checkpoint=tmp_path / "run", instances=True),
    ):
        with pytest.raises(BankError, match="name 3 classes of streets differently: 0 is 'car' in the data"):
            looked()
    assert not (tmp_path / "out").exists()
