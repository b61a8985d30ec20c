"""What a run may be asked for beyond the plain one: pieces, averages, fine-tuning, formats, other logs."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labelmerge.errors import CheckpointError, ConfigError, LabelmergeError
from labelmerge.loading.batch import Batch
from labelmerge.loading.mixture import Mixture
from labelmerge.model.checkpoint import load_checkpoint, load_state
from labelmerge.model.ema import copy_of, update_average
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import RunResult, train

from ..loading.toy_shards import toy_bank
from ..weights import weights
from .conftest import STREETS, TOYS

CONFIG = TrainConfig(steps=4, batch_size=4, crop=32, lr=1e-3, log_every=2, checkpoint_every=2)


def apart(a: RunResult, b: RunResult) -> float:
    ours, theirs = weights(a), weights(b)
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ours)


@pytest.fixture
def plain(shards: Path, bank: Path, tmp_path: Path) -> RunResult:
    return train([shards], bank, tmp_path / "plain", config=CONFIG, device="cpu")


@pytest.mark.parametrize("pieces", [2, 4])
def test_a_batch_in_pieces_is_the_same_step(shards: Path, bank: Path, tmp_path: Path, pieces: int) -> None:
    config = dataclasses.replace(CONFIG, optimizer="sgd", lr=1e-2)
    whole = train([shards], bank, tmp_path / "whole", config=config, device="cpu")
    config = dataclasses.replace(config, accumulate=pieces)
    in_pieces = train([shards], bank, tmp_path / "pieces", config=config, device="cpu")
    assert 0 < apart(whole, in_pieces) < 2e-5  # rounding of float32
    assert in_pieces.final_loss == pytest.approx(whole.final_loss, rel=1e-6)


def test_a_run_may_go_on_in_more_pieces(shards: Path, bank: Path, tmp_path: Path, plain: RunResult) -> None:
    (plain.checkpoint / "meta.json").unlink()  # back to step 2
    again = train([shards], bank, plain.run, config=dataclasses.replace(CONFIG, accumulate=2), device="cpu")
    assert again.steps == 4 and again.final_loss == pytest.approx(plain.final_loss, rel=1e-3)


def test_the_average_is_what_a_checkpoint_holds_and_training_goes_on_with_the_weights(
    shards: Path, bank: Path, tmp_path: Path, plain: RunResult
) -> None:
    config = dataclasses.replace(CONFIG, ema=0.9)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    raw = load_state(result.run)["weights"]
    assert all(torch.equal(raw[key], value) for key, value in weights(plain).items())  # averaging changes nothing
    assert apart(result, plain) > 0 and load_checkpoint(result.run).meta["ema"] == 0.9

    (result.checkpoint / "meta.json").unlink()
    before = weights(result)
    resumed = train([shards], bank, result.run, config=config, device="cpu")
    assert all(torch.equal(before[key], value) for key, value in weights(resumed).items())


def test_the_average_forgets_its_start_and_copies_statistics() -> None:
    module = nn.BatchNorm1d(2)
    average = copy_of(module)
    history = []
    for step in range(30):
        with torch.no_grad():
            module.weight.fill_(step)
            module.running_mean = torch.full((2,), float(step))
        update_average(average, module, 0.5, step)
        history.append(float(average.weight[0]))
    expected = 1.0
    for step in range(30):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert history[-1] == pytest.approx(expected)
    assert average.running_mean is not None and average.running_mean.tolist() == [29, 29]
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_channels_last_changes_rounding_alone(shards: Path, bank: Path, tmp_path: Path, plain: RunResult) -> None:
    config = dataclasses.replace(CONFIG, channels_last=True)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    assert result.final_loss == pytest.approx(plain.final_loss, rel=1e-3)


def test_a_compiled_model_trains_and_saves_the_same(
    shards: Path, bank: Path, tmp_path: Path, plain: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def eager(graph: Any, inputs: Sequence[Any]) -> Any:  # generating code for a CPU would take half a minute
        sizes.append([each for each in inputs if not isinstance(each, Tensor)])
        return graph.forward

    compile_with = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: compile_with(self, backend=eager, **kwargs))
    config = dataclasses.replace(CONFIG, compile=True, accumulate=3)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    assert weights(result).keys() == weights(plain).keys() and apart(result, plain) < 1e-5
    assert sizes == [[], []]  # pieces of 1 and of 2 images, each with a graph in which no size is left open


def test_a_model_that_can_not_be_compiled_is_one_line(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise OSError("no compiler here")

    compile_with = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **kwargs: compile_with(self, backend=broken, **kwargs))
    with pytest.raises(ConfigError, match="tiny can't be compiled here .* at step 1; .* Train without --compile"):
        train([shards], bank, tmp_path / "run", config=dataclasses.replace(CONFIG, compile=True), device="cpu")


def test_fine_tuning_begins_with_weights_and_temperature(
    shards: Path, bank: Path, tmp_path: Path, plain: RunResult
) -> None:
    still = CONFIG.changed(steps=2, lr=0.0, temperature_lr=0.0, init=str(plain.run))
    result = train([shards / "streets"], bank, tmp_path / "run", config=still, device="cpu")
    assert apart(result, plain) == 0
    given = load_checkpoint(plain.run)
    meta = load_checkpoint(result.run).meta
    assert meta["init"] == {"checkpoint": str(given.folder), "hash": given.hash, "step": 4}
    # Going on reads its own checkpoint, and still knows where it came from.
    longer = dataclasses.replace(CONFIG, init=str(plain.run))
    out = tmp_path / "longer"
    train([shards / "streets"], bank, out, config=longer, device="cpu")
    (out / "checkpoints" / "step-000004" / "meta.json").unlink()
    plain.run.rename(tmp_path / "elsewhere")
    resumed = train([shards / "streets"], bank, out, config=longer, device="cpu")
    assert load_checkpoint(resumed.run).meta["init"] == meta["init"]


@pytest.mark.parametrize(
    ("settings", "labels_own"),
    [
        ({"method": "mdp"}, "memory"),
        ({"method": "usss", "cross_weight": 0.0, "within_weight": 0.0}, "decoders.0.weight"),
        ({"method": "lmseg", "classifier": "heads"}, "heads.weight"),
    ],
    ids=["mdp", "usss", "lmseg"],
)
def test_what_belongs_to_labels_is_not_other_labels(tmp_path: Path, settings: dict[str, Any], labels_own: str) -> None:
    """Of a run of other labels that are as many, a head or a class mean is nobody's."""
    others = dataclasses.replace(STREETS, name="fields", names=("grass", "sky", "cow"))
    for toy in (STREETS, others):
        toy.write(tmp_path / "shards")
    toy_bank([STREETS, others]).save(tmp_path / "bank")

    def trained(dataset: str, **more: Any) -> RunResult:
        config = TrainConfig.from_dict({"steps": 1, "batch_size": 2, "crop": 32, "lr": 0.0, **settings, **more})
        out = tmp_path / f"{dataset}{len(more)}"
        return train([tmp_path / "shards" / dataset], tmp_path / "bank", out, config=config, device="cpu")

    first = trained("streets")
    same, other = (weights(trained(dataset, init=str(first.run), seed=1)) for dataset in ("streets", "fields"))
    mine = weights(first)
    body = next(key for key in mine if key.startswith("model.") and key.endswith("weight"))
    assert torch.equal(same[body], mine[body]) and torch.equal(other[body], mine[body])
    if labels_own == "memory":
        assert mine["images"][0].any() and same["images"][0].any()
        new = weights(trained("fields", seed=1))
        assert torch.equal(other["images"], new["images"])
    else:
        assert torch.equal(same[labels_own], mine[labels_own]) and not torch.equal(other[labels_own], mine[labels_own])


def test_what_does_not_fit_is_not_fine_tuned(
    shards: Path, bank: Path, tmp_path: Path, plain: RunResult, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(CONFIG, steps=1, init=str(plain.run))
    with pytest.raises(
        ConfigError, match="is a tiny, and this run trains a segformer-b0. Use its preset or --model tiny"
    ):
        other = dataclasses.replace(config, model="segformer-b0")
        train([shards], bank, tmp_path / "run", config=other, device="cpu")
    toy_bank(TOYS, dim=8).save(tmp_path / "narrow")
    with pytest.raises(ConfigError, match="embeddings have 16 dimensions, and the labels' vectors 8. Use a bank"):
        train([shards], tmp_path / "narrow", tmp_path / "run", config=config, device="cpu")
    with pytest.raises(CheckpointError, match="no such run or checkpoint"):
        train([shards], bank, tmp_path / "run", config=dataclasses.replace(config, init="nowhere"), device="cpu")
    toy_bank(TOYS, encoder="other").save(tmp_path / "other")
    train([shards], tmp_path / "other", tmp_path / "run", config=config, device="cpu")
    assert "was trained with vectors of toy, and continues with those of other" in caplog.text


def test_the_log_has_every_dataset_and_how_long_batches_were_waited_for(plain: RunResult) -> None:
    for line in map(json.loads, (plain.run / "log.jsonl").read_text().splitlines()):
        assert set(line["datasets"]) == {"parts", "streets", "things"}
        assert line["datasets"]["streets"] == pytest.approx(line["parts"]["hd"])  # the only one with masks
        assert 0 < line["wait_share"] < 1 and line["images_per_second"] > 0


def test_tensorboard_that_is_not_there_is_one_line(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = dataclasses.replace(CONFIG, steps=1, tensorboard=True)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    assert caplog.text.count("tensorboard is not installed") == 1 and not (result.run / "tensorboard").exists()


def test_tensorboard_has_what_the_log_has(shards: Path, bank: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    config = dataclasses.replace(CONFIG, tensorboard=True)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    events = accumulator.EventAccumulator(str(result.run / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (result.run / "log.jsonl").read_text().splitlines()]
    for name, values in (
        ("loss", [line["loss"] for line in lines]),
        ("parts/hd", [line["parts"]["hd"] for line in lines]),
    ):
        assert [event.step for event in events.Scalars(name)] == [2, 4]
        assert [event.value for event in events.Scalars(name)] == pytest.approx(values)


def test_a_killed_loader_worker_ends_the_run_with_a_usable_checkpoint(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: RunResult
) -> None:
    batch, parent = Mixture.batch, os.getpid()

    def fatal(self: Mixture, step: int) -> list[Batch]:
        if step == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, step)

    config = dataclasses.replace(CONFIG, workers=1)
    # Two batches are made ahead; a killed worker may be noticed in any of the steps before.
    with monkeypatch.context() as patch, pytest.raises(LabelmergeError) as caught:
        patch.setattr(Mixture, "batch", fatal)
        train([shards], bank, tmp_path / "run", config=dataclasses.replace(config, checkpoint_every=1), device="cpu")
    assert "a loading process died" in str(caught.value) and ", at step " in str(caught.value)
    again = dataclasses.replace(config, checkpoint_every=1)
    assert apart(train([shards], bank, tmp_path / "run", config=again, device="cpu"), plain) == 0
