"""Few labels: `labelled`, `epochs`, and encoders alone to begin with."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from labelmerge.errors import ConfigError, ShardError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.loading.datasets import DatasetShards
from labelmerge.shardset.shardset import ShardSet
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, toy_bank
from .conftest import STREETS, TOYS

CONFIG = TrainConfig(steps=2, batch_size=2, crop=32, lr=1e-3, log_every=1, labelled={"streets": 2})


def streets(tmp_path: Path) -> DatasetShards:
    return DatasetShards("streets", (ShardSet.open(STREETS.write(tmp_path / "shards")),))


def test_more_labels_hold_fewer_and_seeds_differ(tmp_path: Path) -> None:
    whole = streets(tmp_path)
    keys = [whole.fetch(number).key for number in range(6)]
    chosen = {count: whole.labelled(count, 0) for count in (1, 3, 6)}
    seen = {count: [some.fetch(number).key for number in range(len(some))] for count, some in chosen.items()}
    assert set(seen[1]) < set(seen[3]) < set(seen[6]) and seen[6] == keys and len(seen[3]) == 3
    assert len({whole.labelled(3, seed).chosen for seed in range(9)}) > 3
    assert chosen[3].nbytes == whole.nbytes // 2
    with pytest.raises(ShardError, match="7 labelled samples of streets were asked for, and it has 6"):
        whole.labelled(7, 0)


def test_images_without_their_labels_have_none_at_all(tmp_path: Path) -> None:
    hidden = streets(tmp_path).labelled(1, 0).without_labels()
    assert (hidden.dataset, hidden.annotation_type, len(hidden)) == ("streets/unlabelled", "image", 6)
    sample = hidden.fetch(3, instances=True)
    assert set(sample.members) == {"json", "png"} and sample.decode().mask is None


def test_a_run_with_few_labels_says_so(run: Any, tmp_path: Path) -> None:
    STREETS.write(tmp_path / "shards")
    replace(STREETS, split="val", count=2).write(tmp_path / "val")
    toy_bank(TOYS).save(tmp_path / "bank")
    words: tuple[object, ...] = (
        "train",
        "--shards",
        tmp_path / "shards",
        "--bank",
        tmp_path / "bank",
        "--out",
        tmp_path / "run",
    )
    words += ("--batch-size", 2, "--crop", 32, "--device", "cpu", "--epochs", 3, "--labelled")
    refused = run(*words, "street=2")
    assert refused.exit_code and "`labelled` names 'street', which is not here. Did you mean" in refused.output
    for wrong in ("streets", "streets=x", "streets=0"):
        refused = run(*words, wrong)
        assert refused.exit_code and "labelled" in refused.output and "Traceback" not in refused.output
    done = run(*words, "streets=2")
    assert done.exit_code == 0, done.output
    config = tomllib.loads((tmp_path / "run/config.toml").read_text())
    assert (config["labelled"], config["steps"], config["epochs"]) == ({"streets": 2}, 3, 3.0)
    assert "nothing to do" in run(*words, "streets=2").output
    evaluate(tmp_path / "run", [tmp_path / "val"], None, tmp_path / "results.json", device="cpu")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"]["checkpoint"]["labelled"] == {"streets": 2}


def test_sets_without_labels_have_none_to_choose_from(tmp_path: Path) -> None:
    photos = Toy("photos", ("road", "sky"), "image")
    shards = [STREETS.write(tmp_path / "shards"), photos.write(tmp_path / "shards")]
    toy_bank(TOYS).save(tmp_path / "bank")
    config = replace(CONFIG, labelled={"photos": 2})
    with pytest.raises(ConfigError, match="photos, which has no labels"):
        train(shards, tmp_path / "bank", tmp_path / "run", config=config, device="cpu")


def test_an_encoder_alone_is_taken_over(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, labelled={}, batch_size=3)
    first = train([shards], bank, tmp_path / "first", config=config, device="cpu")
    again = replace(config, init=str(first.run), encoder_only=True, steps=1, lr=0.0, seed=1)
    second = train([shards], bank, tmp_path / "second", config=again, device="cpu")
    new = train([shards], bank, tmp_path / "new", config=replace(again, init=""), device="cpu")
    old, own, fresh = (
        safetensors.torch.load_file(each.checkpoint / "model.safetensors") for each in (first, second, new)
    )
    equal = {key for key in own if torch.equal(own[key], old[key])}
    assert {key for key in own if key.startswith("model.net.")} - equal == {
        "model.net.head.weight", "model.net.head.bias",
    }  # fmt: skip
    assert torch.equal(own["model.net.head.weight"], fresh["model.net.head.weight"])
