from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import tomli_w
import torch
from torch import Tensor

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, ConfigError, LabelmergeError, OutputError, ShardError
from labelmerge.loading.batch import Batch
from labelmerge.methods.ssiw.learner import SSIWLearner
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import RunResult, train
from labelmerge.train.optimizer import schedule_factor
from labelmerge.train.run import lock_run

from ..loading.toy_shards import Toy, toy_bank
from ..weights import same, weights
from .conftest import STREETS, THINGS, TOYS

T = TypeVar("T")

CONFIG = TrainConfig(
    steps=6, batch_size=3, crop=32, lr=1e-3, scale_min=0.9, scale_max=1.2, log_every=2, checkpoint_every=3
)


def same_weights(a: RunResult, b: RunResult) -> bool:
    return same(weights(a), weights(b))


def log_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def figures(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("images_per_second", "wait_share")}
        for line in log_lines(run)
    ]


def test_a_run_has_all_it_takes_to_use_it_and_to_run_it_again(shards: Path, bank: Path, tmp_path: Path) -> None:
    result = train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")
    assert (result.steps, result.skipped, result.run) == (6, 0, tmp_path / "run")
    assert result.checkpoint == tmp_path / "run" / "checkpoints" / "step-000006"
    assert (result.run / "curves.png").read_bytes().startswith(b"\x89PNG")

    lines = log_lines(result.run)
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert set(line["parts"]) == {"hd", "ld", "wd"} and all(value > 0 for value in line["parts"].values())
        assert line["loss"] == pytest.approx(sum(line["parts"].values()), rel=1e-5)
    assert result.final_loss == lines[-1]["loss"]
    assert lines[-1]["temperature"] != pytest.approx(CONFIG.method_settings.temperature, abs=1e-6)  # it is learned

    config = tomllib.loads((result.run / "config.toml").read_text())
    assert config["steps"] == 6 and config["inputs"]["bank_version"] == Bank.load(bank).version
    checkpoint = load_checkpoint(result.run)
    assert checkpoint.step == 6 and checkpoint.config == config and checkpoint.bank_folder is not None
    assert Bank.load(checkpoint.bank_folder).version == checkpoint.meta["bank_version"]
    assert checkpoint.meta["columns"] == ["tree", "road", "sky", "car", "cup"]
    assert set(checkpoint.meta["manifests"]) == {"parts/train", "streets/train", "things/train"}


def test_it_learns(tmp_path: Path) -> None:
    STREETS.write(tmp_path / "shards")
    toy_bank([STREETS]).save(tmp_path / "bank")
    config = dataclasses.replace(CONFIG, steps=60, batch_size=4, lr=5e-3, colour=0, blur=0, jpeg=0, log_every=10)
    result = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "run", config=config, device="cpu")
    first, *_, last = log_lines(result.run)
    assert last["loss"] < 0.4 * first["loss"]


_KILLED_IN_STEP_FIVE = """
import json, os, signal, sys
from pathlib import Path
import torch
from labelmerge.loading.mixture import Mixture
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

batch = Mixture.batch
Mixture.batch = lambda self, step: os.kill(os.getpid(), signal.SIGKILL) if step == 4 else batch(self, step)
torch.set_num_threads(1)
shards, bank, out, config = sys.argv[1:]
config = json.loads(config)
train([Path(shards)], Path(bank), Path(out), config=TrainConfig.from_dict(config), device="cpu")
"""


def kill_in_step_five(shards: Path, bank: Path, out: Path, config: TrainConfig) -> None:
    settings = json.dumps(config.to_dict())
    command = [sys.executable, "-c", _KILLED_IN_STEP_FIVE, str(shards), str(bank), str(out), settings]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    with (out / "log.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')  # as if it had been killed while it wrote


def interrupt_in_step_five(shards: Path, bank: Path, out: Path, config: TrainConfig) -> None:
    def interrupt(step: int, sums: Tensor) -> Tensor:
        if step == 4:
            raise KeyboardInterrupt
        return sums

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        let_losses(patch, interrupt)
        train([shards], bank, out, config=config, device="cpu")


@pytest.mark.parametrize(
    "optimizer, stop", [("adamw", kill_in_step_five), ("sgd", interrupt_in_step_five)], ids=["adamw-kill", "sgd-ctrl-c"]
)
def test_a_stopped_run_goes_on_and_ends_with_the_weights_of_an_uninterrupted_one(
    shards: Path,
    bank: Path,
    tmp_path: Path,
    optimizer: str,
    stop: Callable[[Path, Path, Path, TrainConfig], None],
) -> None:
    config = dataclasses.replace(CONFIG, optimizer=optimizer, warmup=2, clip=1.0)
    whole = train([shards], bank, tmp_path / "whole", config=config, device="cpu")
    out = tmp_path / "stopped"
    stop(shards, bank, out, config)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000003"]
    resumed = train([shards], bank, out, config=config, device="cpu")
    assert resumed.steps == 6 and same_weights(whole, resumed)
    assert [line["step"] for line in log_lines(out)] == [2, 4, 6]
    assert figures(out) == figures(whole.run)  # the line of step 4 has step 3, which lies before the checkpoint


def test_the_number_of_workers_changes_nothing(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=3)
    alone = train([shards], bank, tmp_path / "a", config=config, device="cpu")
    config = dataclasses.replace(config, workers=2)
    assert same_weights(alone, train([shards], bank, tmp_path / "b", config=config, device="cpu"))


def test_a_finished_run_is_left_as_it_is(
    shards: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(CONFIG, steps=2)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    before = {path: path.stat().st_mtime_ns for path in result.run.rglob("*") if path.is_file()}
    with caplog.at_level("INFO", logger="labelmerge"):
        again = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    assert "the run is finished: 2 of 2 steps are done" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in result.run.rglob("*") if path.is_file()}
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(result, seconds=0.0)
    more_often = dataclasses.replace(config, log_every=1, workers=1)
    assert train([shards], bank, tmp_path / "run", config=more_often, device="cpu").steps == 2


def test_a_run_goes_on_though_settings_have_other_names_now(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = CONFIG.changed(steps=2, merge="text", negatives="own")
    out = train([shards], bank, tmp_path / "run", config=config, device="cpu").run
    older = tomllib.loads((out / "config.toml").read_text())
    older |= {"merge": "embedding", "mapping": "", "label_space": "dataset"}
    del older["taxonomy"], older["views"], older["negatives"], older["inputs"]["columns"]
    (out / "config.toml").write_text(tomli_w.dumps(older))
    assert train([shards], bank, out, config=config, device="cpu").steps == 2


def test_two_processes_do_not_write_one_run(shards: Path, bank: Path, tmp_path: Path) -> None:
    with lock_run(tmp_path / "run"), pytest.raises(OutputError, match="run: another process is writing this run"):
        train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")
    assert not (tmp_path / "run").exists()
    train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")
    assert not list((tmp_path / "run").glob(".*"))


def test_another_configuration_bank_or_data_does_not_go_on(shards: Path, bank: Path, tmp_path: Path) -> None:
    config, out = dataclasses.replace(CONFIG, steps=2), tmp_path / "run"
    train([shards], bank, out, config=config, device="cpu")
    with pytest.raises(ConfigError, match="run: another run is here.*lr was 0.001 and is now 0.1; steps was 2"):
        train([shards], bank, out, config=dataclasses.replace(config, lr=0.1, steps=4), device="cpu")
    other_bank = tmp_path / "other"
    toy_bank(TOYS, encoder="other").save(other_bank)
    with pytest.raises(ConfigError, match="data: the bank was v0001-.* and is now v0001-[0-9a-f]*. Use"):
        train([shards], other_bank, out, config=config, device="cpu")
    with pytest.raises(ConfigError, match="settings or data: parts/train is gone. Use .*--init takes its weights"):
        train([shards / "streets", shards / "things"], bank, out, config=config, device="cpu")
    Toy("parts", ("tree", "road"), "noisy_mask", count=4).write(shards)
    with pytest.raises(ConfigError, match="settings or data: the shards of parts/train are others. Use"):
        train([shards], bank, out, config=config, device="cpu")


def test_a_run_that_saved_nothing_may_begin_again_otherwise(shards: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    wrong = dataclasses.replace(CONFIG, steps=1, model="segformer-b0", pretrained="nowhere.pth")
    with pytest.raises(ConfigError, match="nowhere.pth"):
        train([shards], bank, out, config=wrong, device="cpu")
    assert train([shards], bank, out, config=dataclasses.replace(CONFIG, steps=1), device="cpu").steps == 1
    assert tomllib.loads((out / "config.toml").read_text())["model"] == "tiny"


def test_the_softmax_may_run_over_the_samples_own_labels(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=1, log_every=1)
    union = train([shards], bank, tmp_path / "union", config=config, device="cpu")
    config = config.changed(negatives="own")
    own = train([shards], bank, tmp_path / "own", config=config, device="cpu")
    over_all, over_own = (log_lines(result.run)[0]["parts"] for result in (union, own))
    # Same weights and batch; fewer labels to choose from is a smaller loss. Boxes know no softmax.
    assert over_own["hd"] < over_all["hd"] and over_own["ld"] < over_all["ld"] and over_own["wd"] == over_all["wd"]


def test_datasets_without_a_loss_are_left_out(
    shards: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = CONFIG.changed(steps=1, losses=("hd",))
    with caplog.at_level("INFO", logger="labelmerge"):
        result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    assert "things is left out" in caplog.text and "parts is left out" in caplog.text
    assert list(load_checkpoint(result.run).meta["manifests"]) == ["streets/train"]
    with pytest.raises(ConfigError, match="nothing to train on: things is left out: no loss for box"):
        train([shards / "things"], bank, tmp_path / "other", config=config, device="cpu")


def test_evaluation_sets_are_trained_on_only_on_request(
    bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'role = "eval"'
    recipe = {"recipe": {"name": "streets", "sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text}}
    folder = dataclasses.replace(TOYS[0], changes=recipe).write(tmp_path / "shards")
    config = dataclasses.replace(CONFIG, steps=1)
    with pytest.raises(ConfigError, match="streets is left out: it is an evaluation set"):
        train([folder], bank, tmp_path / "run", config=config, device="cpu")
    result = train([folder], bank, tmp_path / "run", config=dataclasses.replace(config, eval_sets=True), device="cpu")
    assert list(load_checkpoint(result.run).meta["manifests"]) == ["streets/train"]


def test_batches_smaller_than_the_number_of_datasets_train_too(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=3, batch_size=1, log_every=1)
    result = train([shards], bank, tmp_path / "run", config=config, device="cpu")
    present = [[name for name, value in line["parts"].items() if value is not None] for line in log_lines(result.run)]
    assert present == [["ld"], ["hd"], ["wd"]]


def test_corrupt_samples_are_counted(bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Toy("streets", STREETS.names, corrupt=(2,)).write(tmp_path / "shards")
    config = dataclasses.replace(CONFIG, steps=4)
    with caplog.at_level("WARNING", logger="labelmerge"):
        result = train([tmp_path / "shards"], bank, tmp_path / "run", config=config, device="cpu")
    assert result.skipped == 1 and log_lines(result.run)[-1]["skipped"] == 1
    assert caplog.text.count("streets-train-000000002") == 1


def let_losses(patch: pytest.MonkeyPatch, change: Callable[[int, Tensor], Tensor]) -> None:
    """Let SSIW's losses go through `change`, which is told the step."""
    plain = SSIWLearner.forward

    def forward(self: SSIWLearner, batch: Batch) -> Tensor:
        return change(batch.step, plain(self, batch))

    patch.setattr(SSIWLearner, "forward", forward)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    let_losses(monkeypatch, lambda step, sums: sums * (factor if step >= 3 else 1))
    with pytest.raises(LabelmergeError, match=r"no longer a number, at step 4; the newest good .* step-000003"):
        train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")
    assert load_checkpoint(tmp_path / "run").step == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_one_clear_line(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run_out(step: int, sums: Tensor) -> Tensor:
        raise error

    let_losses(monkeypatch, run_out)
    with pytest.raises(
        LabelmergeError, match="out of memory with .* 3 and crop 32, at step 1; there is no checkpoint yet. Use --acc"
    ):
        train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")


def test_other_faults_are_not_called_out_of_memory(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(step: int, sums: Tensor) -> Tensor:
        raise RuntimeError("a shape is wrong")

    let_losses(monkeypatch, fail)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")


def test_batches_that_do_not_fit_into_memory_are_not_begun(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, crop=10_000_000)
    with pytest.raises(LabelmergeError, match="out of memory with batch_size 3 and crop 10000000"):
        train([shards], bank, tmp_path / "run", config=config, device="cpu")


def test_batches_too_small_for_batch_norm_are_named(
    shards: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def normalise(step: int, sums: Tensor) -> Tensor:
        normalised: Tensor = torch.nn.BatchNorm2d(4)(torch.zeros(1, 4, 1, 1))
        return sums + normalised.sum()

    let_losses(monkeypatch, normalise)  # as in hrnet-w48 with one view of 32 pixels
    with pytest.raises(ConfigError, match="batch norms of tiny have .* batch_size 3 and crop 32, at .* Use a larger"):
        train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")


def test_boxes_out_of_view_are_no_loss_of_zero(bank: Path, tmp_path: Path) -> None:
    THINGS.write(tmp_path / "shards")
    config = dataclasses.replace(CONFIG, steps=1, crop=2)  # no box is as small as what is left of one
    with pytest.raises(LabelmergeError, match="no sample had anything that a loss is for, so nothing was learned"):
        train([tmp_path / "shards"], bank, tmp_path / "run", config=config, device="cpu")
    (line,) = log_lines(tmp_path / "run")
    assert line["loss"] is line["parts"]["wd"] is None


def test_a_finished_run_needs_no_log(shards: Path, bank: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=1)
    out = train([shards], bank, tmp_path / "run", config=config, device="cpu").run
    log = out / "log.jsonl"
    log.unlink()
    (out / "curves.png").unlink()
    assert train([shards], bank, out, config=config, device="cpu").steps == 1 and not (out / "curves.png").exists()


def test_missing_inputs_are_named_and_leave_nothing(shards: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ShardError, match="no such folder"):
        train([tmp_path / "nowhere"], bank, out, config=CONFIG, device="cpu")
    with pytest.raises(BankError, match="no bank here"):
        train([shards], tmp_path / "nowhere", out, config=CONFIG, device="cpu")
    with pytest.raises(ConfigError, match="unknown method"):
        train([shards], bank, out, config=dataclasses.replace(CONFIG, method="other"), device="cpu")
    assert not out.exists()
    out.write_text("")
    with pytest.raises(OutputError, match="a file is where a folder must go"):
        train([shards], bank, out, config=CONFIG, device="cpu")


def test_progress_is_told_the_loss(shards: Path, bank: Path, tmp_path: Path) -> None:
    told: list[str] = []

    class Bar(list[T]):
        def set_postfix_str(self, text: str) -> None:
            told.append(text)

    class Told:
        def __call__(self, things: Iterable[T], what: str, total: int | None = None, /) -> Iterable[T]:
            assert (what, total) == ("training", 2)
            return Bar(things)

    train([shards], bank, tmp_path / "run", config=dataclasses.replace(CONFIG, steps=2), device="cpu", track=Told())
    assert len(told) == 1 and told[0].startswith("loss ")


def test_the_learning_rate_warms_up_and_decays_by_the_polynomial() -> None:
    config = TrainConfig(steps=10, warmup=4, power=2.0)
    factors = [schedule_factor(step, config) for step in range(10)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[5:] == pytest.approx([((6 - k) / 6) ** 2 for k in range(1, 6)])


def test_a_run_that_ends_while_the_rate_rises_is_told(
    shards: Path, bank: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for warmup, told in ((1, False), (2, True)):
        config = dataclasses.replace(CONFIG, steps=2, warmup=warmup)
        train([shards], bank, tmp_path / str(warmup), config=config, device="cpu")
        assert ("before its learning rate has risen: 2 steps, and warmup = 2" in caplog.text) == told
