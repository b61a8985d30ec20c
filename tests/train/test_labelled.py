"""Few labels: `labelled`, `epochs`, and encoders alone to begin with."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from labelmerge.errors import ConfigError, ShardError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.loading.datasets import DatasetShards, group_by_dataset
from labelmerge.methods.method import find_method
from labelmerge.processes import Ranks
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs
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
    with pytest.raises(ShardError, match="7 labelled samples of streets .* it has 6. Ask for at most 6"):
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
    for wrong in (["streets"], ["streets=x"], ["streets=0"], []):
        refused = run(*words, *wrong)
        assert refused.exit_code and "labelled" in refused.output and "Traceback" not in refused.output
    assert "labelled must be NAME=NUMBER" in run(*words, "streets").output
    for twice in (["streets=2,streets=3"], ["streets=2", "--labelled", "streets=3"], ["streets=2", "streets=3"]):
        refused = run(*words, *twice)
        assert refused.exit_code and "labelled must be a number for each name, not two for streets" in refused.output
    several = run(*words, "streets=2", "--labelled", "street=1")
    assert several.exit_code and "`labelled` names 'street', which is not here" in several.output
    done = run(*words, "streets=2")
    assert done.exit_code == 0, done.output
    config = tomllib.loads((tmp_path / "run/config.toml").read_text())
    assert (config["labelled"], config["steps"], config["epochs"]) == ({"streets": 2}, 3, 3.0)
    assert "nothing to do" in run(*words, "streets=2").output
    evaluate(tmp_path / "run", [tmp_path / "val"], None, tmp_path / "results.json", device="cpu")
    results = json.loads((tmp_path / "results.json").read_text())
    known = results["protocol"]["checkpoint"]
    assert known["labelled"] == {"streets": 2} and known["labelled_seed"] == 0 and "unlabelled" not in known


def test_results_name_the_images_without_labels_that_were_learned_from(tmp_path: Path) -> None:
    shards = [STREETS.write(tmp_path / "shards"), Toy("photos", ("road", "sky"), "image").write(tmp_path / "shards")]
    replace(STREETS, split="val", count=2).write(tmp_path / "val")
    toy_bank(TOYS).save(tmp_path / "bank")
    config = CONFIG.changed(unlabelled="entropy", steps=1, batch_size=3, labelled_seed=4)
    run = train(shards, tmp_path / "bank", tmp_path / "run", config=config, device="cpu").run
    evaluate(run, [tmp_path / "val"], None, tmp_path / "results.json", device="cpu")
    known = json.loads((tmp_path / "results.json").read_text())["protocol"]["checkpoint"]
    assert known["unlabelled"] == ["photos", "streets/unlabelled"]
    assert known["labelled"] == {"streets": 2} and known["labelled_seed"] == 4


def test_a_run_that_has_seen_hidden_labels_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards, bank = [STREETS.write(tmp_path / "shards")], tmp_path / "bank"
    toy_bank(TOYS).save(bank)

    def begun(labelled: dict[str, int], seed: int, first: str) -> list[str]:
        caplog.clear()
        config = replace(CONFIG, labelled=labelled, labelled_seed=seed, init=first, steps=1)
        read_inputs(shards, bank, "train", config, find_method("ssiw"), Ranks())
        return [each.getMessage() for each in caplog.records if "has learned from" in each.getMessage()]

    runs = {}
    for name, labelled in (("all", {}), ("three", {"streets": 3})):
        config = replace(CONFIG, labelled=labelled, steps=1)
        runs[name] = str(train(shards, bank, tmp_path / name, config=config, device="cpu").run)
    (said,) = begun({"streets": 2}, 0, runs["all"])
    assert "labels of streets that are hidden here: it had all of them. " in said and "--labelled streets=2" in said
    (said,) = begun({"streets": 2}, 0, runs["three"])
    assert "it had 3, chosen by labelled_seed = 0. " in said
    (said,) = begun({"streets": 3}, 1, runs["three"])
    assert said.endswith("--labelled streets=3 --set labelled_seed=1")
    assert not begun({"streets": 3}, 0, runs["three"]) and not begun({"streets": 5}, 0, runs["three"])
    assert not begun({}, 0, runs["all"])
    # Other shards of that name are other images, as far as anybody knows.
    replace(STREETS, seed=9).write(tmp_path / "shards")
    assert not begun({"streets": 2}, 0, runs["all"])


def test_sets_without_labels_have_none_to_choose_from(tmp_path: Path) -> None:
    photos = Toy("photos", ("road", "sky"), "image")
    shards = [STREETS.write(tmp_path / "shards"), photos.write(tmp_path / "shards")]
    toy_bank(TOYS).save(tmp_path / "bank")
    config = replace(CONFIG, labelled={"photos": 2})
    with pytest.raises(ConfigError, match="photos, which has no labels"):
        train(shards, tmp_path / "bank", tmp_path / "run", config=config, device="cpu")


def test_an_encoder_alone_is_taken_over(
    shards: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, labelled={}, batch_size=3)
    first = train([shards], bank, tmp_path / "first", config=config, device="cpu")
    again = replace(config, init=str(first.run), encoder_only=True, steps=1, lr=0.0, seed=1)
    second = train([shards], bank, tmp_path / "second", config=again, device="cpu")
    assert "encoder_only has no effect" not in caplog.text
    new = train([shards], bank, tmp_path / "new", config=replace(again, init=""), device="cpu")
    assert "encoder_only has no effect without --init, whose weights it is about" in caplog.text
    old, own, fresh = (
        safetensors.torch.load_file(each.checkpoint / "model.safetensors") for each in (first, second, new)
    )
    equal = {key for key in own if torch.equal(own[key], old[key])}
    assert {key for key in own if key.startswith("model.net.")} - equal == {
        "model.net.head.weight", "model.net.head.bias",
    }  # fmt: skip
    assert torch.equal(own["model.net.head.weight"], fresh["model.net.head.weight"])


def test_images_without_labels_are_a_split_from_shard_to_train(run: Any, tmp_path: Path) -> None:
    rng, root, files = np.random.default_rng(0), tmp_path / "data", tmp_path / "files"
    for number in range(9):
        drawn = number < 4
        image = ("images/train" if drawn else "extra", rng.integers(0, 256, (40, 48, 3)))
        for folder, values in (image, *[("masks/train", rng.integers(0, 2, (40, 48)))] * drawn):
            place = root / folder / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(place)
    files.mkdir()
    recipe, text = files / "yards.toml", (
        'name = "yards"\nannotation_type = "mask"\nreader = "index_png"\ndescriptions = "yards.csv"\n'
        '[layout]\nimages = "images/{split}/*.png"\nmasks = "masks/{split}/{stem}.png"\n'
    )  # fmt: skip
    (files / "yards.csv").write_text("index,name\n0,grass\n1,wall\n")
    words: tuple[object, ...] = ("shard", recipe, "--root", root, "--out", tmp_path / "shards", "--workers", 1)
    recipe.write_text(text)
    refused = run(*words, "--split", "unlabeled")
    assert (
        refused.exit_code and "yards has no unlabeled split" in refused.output and "layout.unlabeled" in refused.output
    )
    recipe.write_text(f'{text}unlabeled = "extra/*.png"\n')
    for split, count in (("train", 4), ("unlabeled", 5)):
        done = run(*words, "--split", split)
        assert done.exit_code == 0 and f"Wrote {count} of {count} images of yards {split}" in done.output
    assert run("verify", tmp_path / "shards").exit_code == 0
    assert run("embed", recipe, "--encoder", "offline", "--out", tmp_path / "bank").exit_code == 0
    train: tuple[object, ...] = ("train", "--shards", tmp_path / "shards", "--bank", tmp_path / "bank", "--steps", 1)
    train = (*train, "--batch-size", 2, "--crop", 32, "--device", "cpu")

    def log(out: str, *more: object) -> dict[str, Any]:
        done = run(*train, "--out", tmp_path / out, *more)
        assert done.exit_code == 0, done.output
        parts: dict[str, Any] = json.loads((tmp_path / out / "log.jsonl").read_text().splitlines()[-1])["parts"]
        return parts

    usss = ("--method", "usss", "--set", "label_embeddings=random")
    assert set(log("usss", *usss)) == {"ce_yards", "within_yards/unlabelled"}
    assert log("consistency", "--unlabelled", "entropy")["entropy"] > 0
    assert set(log("plain")) == {"hd", "ld", "wd"}  # whoever learns from labels alone never sees them
    record = tomllib.loads((tmp_path / "plain/config.toml").read_text())
    assert list(record["inputs"]["manifests"]) == ["yards/train"]
    # Images whose labels are hidden, and those that have none, are one dataset.
    sets = [ShardSet.open(folder) for folder in find_splits([tmp_path / "shards"], "train", also="unlabeled")]
    labelled, alone = group_by_dataset(sets)
    both = labelled.labelled(1, 0).without_labels(alone)
    assert (both.dataset, len(labelled), len(alone), len(both)) == ("yards/unlabelled", 4, 5, 9)
    assert all(both.fetch(number).decode().mask is None for number in range(9))
    assert set(log("few", *usss, "--labelled", "yards=1")) == {"ce_yards", "within_yards/unlabelled"}
    refused = run(*train, "--out", tmp_path / "wrong", *usss, "--labelled", "yards/unlabelled=1")
    assert refused.exit_code and "names 'yards/unlabelled', which is not here" in refused.output
