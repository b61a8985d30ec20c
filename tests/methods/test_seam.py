"""A method that the library has never heard of: one entry in the dict, and every command works with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelmerge.bank.bank import Bank
from labelmerge.errors import ConfigError, UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.methods.method import Vocabulary, find_method, part_in_step
from labelmerge.methods.restore import load_trained
from labelmerge.methods.settings import METHOD_SETTINGS
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import RunResult, train

from ..conftest import Run
from ..loading.toy_shards import Toy, toy_bank
from ..train.conftest import STREETS
from ..weights import same, weights
from .averages.method import AveragesLearner
from .averages.settings import AveragesSettings

PLAIN = TrainConfig(
    steps=8, batch_size=4, crop=32, lr=5e-3, scale_min=0.9, scale_max=1.2, log_every=2, checkpoint_every=4
)

_KILLED_IN_STEP_SIX = """
import json, os, signal, sys
from pathlib import Path
import torch
from labelmerge.loading.mixture import Mixture
from labelmerge.methods.settings import METHOD_SETTINGS
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train
sys.path.insert(0, sys.argv[1])
from tests.methods.averages.settings import AveragesSettings

METHOD_SETTINGS["averages"] = AveragesSettings
batch = Mixture.batch
Mixture.batch = lambda self, step: os.kill(os.getpid(), signal.SIGKILL) if step == 5 else batch(self, step)
torch.set_num_threads(1)
shards, bank, out, config = sys.argv[2:]
train([Path(shards)], Path(bank), Path(out), config=TrainConfig.from_dict(json.loads(config)), device="cpu")
"""


@pytest.fixture(autouse=True)
def averages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHOD_SETTINGS, "averages", AveragesSettings)


@pytest.fixture
def config(averages: None) -> TrainConfig:
    return replace(PLAIN, method="averages", method_settings=AveragesSettings())


@pytest.fixture
def result(shards: Path, bank: Path, tmp_path: Path, config: TrainConfig) -> RunResult:
    return train([shards], bank, tmp_path / "run", config=config, device="cpu")


def test_its_terms_are_logged_and_its_state_is_the_checkpoint(result: RunResult) -> None:
    lines = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        assert set(line["parts"]) == {"class", "small"} and set(line["datasets"]) == {"parts", "streets"}
        assert line["drift"] > 0 and "temperature" not in line
        assert line["loss"] == pytest.approx(sum(line["parts"].values()), rel=1e-5)
    assert (result.run / "curves.png").exists()
    state = weights(result)
    assert state["mean"].norm() == pytest.approx(lines[-1]["drift"]) and state["begun"] == 2
    learner = load_trained(result.run).learner
    assert isinstance(learner, AveragesLearner) and same(learner.state_dict(), state)
    assert learner.vocabulary.datasets == ("parts", "streets")
    assert learner.vocabulary.texts == ("tree", "road", "sky", "car")


def test_a_killed_run_ends_with_the_state_of_a_whole_one(
    result: RunResult, shards: Path, bank: Path, tmp_path: Path, config: TrainConfig
) -> None:
    out, root = tmp_path / "killed", Path(__file__).parents[2]
    words = [str(root), str(shards), str(bank), str(out), json.dumps(config.to_dict())]
    process = subprocess.run([sys.executable, "-P", "-c", _KILLED_IN_STEP_SIX, *words], timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000004"]
    resumed = train([shards], bank, out, config=config, device="cpu")
    assert same(weights(resumed), weights(result))
    last, whole = (json.loads((run / "log.jsonl").read_text().splitlines()[-1]) for run in (out, result.run))
    assert (last["loss"], last["drift"], last["parts"]) == (whole["loss"], whole["drift"], whole["parts"])


def test_an_average_of_it_and_pieces(
    shards: Path, bank: Path, tmp_path: Path, result: RunResult, config: TrainConfig
) -> None:
    averaged = train([shards], bank, tmp_path / "ema", config=replace(config, ema=0.9), device="cpu")
    assert torch.equal(weights(averaged)["mean"], weights(result)["mean"])  # buffers are copied
    assert not torch.equal(weights(averaged)["head.weight"], weights(result)["head.weight"])
    sgd = replace(config, optimizer="sgd", lr=1e-2)
    whole = train([shards], bank, tmp_path / "whole", config=sgd, device="cpu")
    pieces = train([shards], bank, tmp_path / "pieces", config=replace(sgd, accumulate=2), device="cpu")
    for key, value in weights(whole).items():
        assert torch.allclose(value.float(), weights(pieces)[key].float(), atol=2e-5), key


def test_it_is_evaluated_on_its_own_labels_alone(result: RunResult, bank: Path, tmp_path: Path) -> None:
    val = replace(STREETS, split="val", count=3).write(tmp_path / "val")
    results = evaluate(result.run, [val], bank, tmp_path / "results.json")
    assert results.protocol["decision"] == "largest logit of the head" and results.sets[0].images == 3
    assert results.sets[0].metrics.pixel_accuracy > 0.2
    coast = Toy("coast", ("road", "sea"), split="val")
    other = coast.write(tmp_path / "other")
    toy_bank([coast]).save(tmp_path / "sea")
    with pytest.raises(UsageError, match="'averages' knows only the labels that it was trained with, and not 'sea'"):
        evaluate(result.run, [other], tmp_path / "sea", tmp_path / "r.json")


def test_the_commands_know_it(
    run: Run, shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cli"
    words = ("--batch-size", 4, "--crop", 32, "--steps", 3, "--device", "cpu", "--set", "method=averages")
    done = run("train", "--shards", shards, "--bank", bank, "--out", out, *words)
    assert done.exit_code == 0, done.output
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    predict = ("predict", tmp_path / "photo.png", "--checkpoint", out, "--device", "cpu", "--out", tmp_path / "masks")
    done = run(*predict, "--labels", "sky, road")
    assert done.exit_code == 0, done.output
    assert set(np.unique(np.asarray(Image.open(tmp_path / "masks/photo.png")))) <= {0, 1}
    refused = run(*predict, "--labels", "sky, streets:car, cup")
    assert refused.exit_code != 0 and "not 'cup'. Ask for labels of its columns" in refused.output


def test_a_bare_name_is_a_trained_datasets_where_others_of_the_bank_have_it_too(
    run: Run, shards: Path, bank: Path, tmp_path: Path, config: TrainConfig
) -> None:
    ours = Bank.load(bank)
    two = toy_bank([Toy("aaa", ("road", "sky")), Toy("bbb", ("road", "sky"))])
    texts = [f"{name} of another kind" for name in two.texts]
    both = replace(
        ours,
        keys=[*two.keys, *ours.keys],
        names=[*two.names, *ours.names],
        texts=[*texts, *ours.texts],
        vectors=np.concatenate([-two.vectors, ours.vectors]),
        tokens=[1] * (len(two) + len(ours)),
        truncated=[False] * (len(two) + len(ours)),
    )
    both.save(tmp_path / "both")
    train([shards], tmp_path / "both", tmp_path / "run", config=config, device="cpu")
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    words = ("--checkpoint", tmp_path / "run", "--device", "cpu", "--out", tmp_path / "masks", "--labels", "sky, road")
    done = run("predict", tmp_path / "photo.png", *words)
    assert done.exit_code == 0, done.output


def test_its_encoder_is_what_another_method_may_begin_with(
    result: RunResult, shards: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    still = TrainConfig(steps=1, batch_size=3, crop=32, lr=0.0, init=str(result.run)).changed(temperature_lr=0.0)
    with caplog.at_level("INFO", logger="labelmerge"):
        ssiw = train([shards], bank, tmp_path / "ssiw", config=still, device="cpu")
    ours, theirs = weights(ssiw), weights(result)
    assert torch.equal(ours["model.net.stem.0.weight"], theirs["model.net.stem.0.weight"])
    assert ours["model.net.head.weight"].shape != theirs["model.net.head.weight"].shape
    assert "4 of 27 tensors are new" in caplog.text


def test_unknown_methods_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown method 'ssi'.*ssiw"):
        find_method("ssi")


def test_a_vocabulary_comes_back_from_meta() -> None:
    own = Vocabulary(3, ("a", "b"), ("x", "y"), ((("a", 0), ("b", 4)), (("a", 1),)))
    assert Vocabulary.from_meta({**own.to_meta(), "model": {"embedding_dim": 9}}) == own
    older = {"columns": ["x"], "column_labels": [["b:4", "a:0"]], "model": {"embedding_dim": 9}}
    assert Vocabulary.from_meta(older) == Vocabulary(9, ("a", "b"), ("x",), ((("b", 4), ("a", 0)),))


def test_taking_part_adds_nothing_but_a_gradient_of_zero() -> None:
    some = [torch.ones(2, requires_grad=True), torch.tensor(3.0, requires_grad=True)]
    nothing = part_in_step(*some)
    torch.autograd.backward(nothing)
    assert nothing == 0 and all(each.grad is not None and not each.grad.any() for each in some)
