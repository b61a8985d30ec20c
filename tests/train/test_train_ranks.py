"""Two processes on a CPU, connected as torchrun connects them, against one process with the whole batch."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from labelmerge.errors import ConfigError, UsageError
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train
from labelmerge.train.processes import (
    distribute,
    left_alone,
    refuse_one_gpu_for_all,
    synchronised,
    training_ranks,
)

# SGD, whose steps are proportional to gradients: Adam's blow differences of rounding in tiny gradients up.
CONFIG = TrainConfig(
    steps=3, batch_size=4, crop=32, optimizer="sgd", lr=1e-2, scale_min=0.9, scale_max=1.2, log_every=1, workers=0
)

_RUNS = """
import json, os, sys
from pathlib import Path
import torch
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

torch.set_num_threads(1)
shards, bank, *runs = sys.argv[1:]
for out, config in zip(runs[::2], runs[1::2], strict=True):
    train([Path(shards)], Path(bank), Path(out), config=TrainConfig.from_dict(json.loads(config)), device="cpu")
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
"""

_COMMAND = """
import os, signal
import torch
from labelmerge.loading.mixture import Mixture
from labelmerge.cli.main import main

torch.set_num_threads(1)
batch = Mixture.batch
kill = os.environ["RANK"] == "1" and os.environ.get("KILL")
Mixture.batch = lambda self, step: os.kill(os.getpid(), signal.SIGKILL) if kill and step == 2 else batch(self, step)
main()
"""


def two_processes(code: str, *args: object, **environment: str) -> list[subprocess.CompletedProcess[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            env={
                **os.environ,
                **environment,
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [(process, *process.communicate(timeout=120)) for process in started]
    finally:
        for process in started:
            process.kill()
    return [subprocess.CompletedProcess(process.args, process.returncode, *texts) for process, *texts in ended]


def numbers(logged: float | dict[str, float | None]) -> dict[str, float]:
    """One figure or a table of them; -1 where there is none."""
    table = logged if isinstance(logged, dict) else {"": logged}
    return {key: -1.0 if value is None else value for key, value in table.items()}


def test_two_processes_equal_one_with_the_whole_batch(shards: Path, bank: Path, tmp_path: Path) -> None:
    configs = {
        # 4 samples of 3 datasets: the processes' shares of each loss differ, and so do their numbers of pixels.
        "all": dataclasses.replace(CONFIG, ema=0.9, clip=5.0),
        "pieces": dataclasses.replace(CONFIG, accumulate=2),
        # One sample each, of views of 2 pixels in which no box is left: one process has no loss at all.
        "nothing": dataclasses.replace(CONFIG, batch_size=2, crop=2),
    }
    runs = [part for name, config in configs.items() for part in (tmp_path / name, json.dumps(config.to_dict()))]
    for process in two_processes(_RUNS, shards, bank, *runs):
        assert process.returncode == 0, process.stderr
    for name, config in configs.items():
        alone = train([shards], bank, tmp_path / f"{name}-alone", config=config, device="cpu")
        ours, theirs = (
            safetensors.torch.load_file(run / "checkpoints" / "step-000003" / "model.safetensors")
            for run in (alone.run, tmp_path / name)
        )
        begun = config.changed(steps=1, lr=0.0, temperature_lr=0.0)
        before = safetensors.torch.load_file(
            train([shards], bank, tmp_path / f"{name}-begun", config=begun, device="cpu").checkpoint
            / "model.safetensors"
        )
        moved = max(float((ours[key] - before[key]).abs().max()) for key in ours)
        apart = max(float((ours[key] - theirs[key]).abs().max()) for key in ours)
        assert apart < 2e-5 * moved, name  # rounding of float32
        lines, single = (
            [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
            for run in (tmp_path / name, alone.run)
        )
        assert len(lines) == 3  # one process writes
        for line, other in zip(lines, single, strict=True):
            for key in ("loss", "grad_norm", "parts", "datasets"):
                assert numbers(line[key]) == pytest.approx(numbers(other[key]), rel=1e-5), (name, key)


def test_a_killed_process_ends_the_run_with_one_message(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    args = ("train", "--shards", shards, "--bank", bank, "--out", out, "--device", "cpu", "--steps", 4, "--crop", 32)
    settings = ("--batch-size", 4, "--checkpoint-every", 2)
    first, second = two_processes(_COMMAND, *args, *settings, KILL="1")
    assert (first.returncode, second.returncode) == (1, -signal.SIGKILL)
    assert second.stdout == second.stderr == ""  # the first one speaks for both
    last = first.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: another process of this run ended without saying why")
    assert "at step 3; the newest good checkpoint is step-000002. " in last and "Traceback" not in first.stderr
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000002"]

    resumed = run(*args, *settings)  # with another number of processes
    assert resumed.exit_code == 0, resumed.output
    assert "resuming from step 2" in resumed.stderr and resumed.stdout.strip().splitlines()[-1].startswith("4 steps")


def test_a_fault_of_all_processes_is_told_once(shards: Path, bank: Path, tmp_path: Path) -> None:
    args = ("train", "--shards", shards, "--bank", tmp_path / "nowhere", "--out", tmp_path / "run", "--device", "cpu")
    both = two_processes(_COMMAND, *args)
    assert [process.returncode for process in both] == [1, 1]
    assert sorted("no bank here" in process.stderr for process in both) == [False, True]
    assert not any("Traceback" in process.stderr for process in both)


def test_a_batch_too_small_for_the_pieces_is_refused(shards: Path, bank: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accumulate 5 makes more pieces than the batch has samples"):
        dataclasses.replace(CONFIG, accumulate=5)


def test_an_environment_that_is_not_torchruns_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="the processes can't be connected .*RANK.* Start them with torchrun"):
        with training_ranks("cpu"):
            pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="Start them with torchrun"):
        with training_ranks("cpu"):
            pass


def test_several_processes_are_not_sent_to_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    refuse_one_gpu_for_all(None)
    refuse_one_gpu_for_all("cuda")  # each its own
    with pytest.raises(UsageError, match="would train on cuda:1.*Leave --device out"):
        refuse_one_gpu_for_all("cuda:1")


def test_gpus_that_lose_each_other_are_not_called_a_dead_process() -> None:
    told = left_alone(RuntimeError("NCCL error in: here.cpp:1, unhandled system error\nmore"))
    assert told is not None and told.what.endswith("process ended (NCCL error in: here.cpp:1, unhandled system error)")
    assert left_alone(RuntimeError("shapes do not fit")) is None


def test_one_process_needs_no_wrapping() -> None:
    module = torch.nn.Linear(1, 1)
    assert distribute(module, Ranks(), torch.device("cpu")) is module


@pytest.mark.parametrize("name", ["lite", "timm:resnet18"])
def test_norms_of_all_processes_keep_their_activations(name: str) -> None:
    network = build_model(name, 4).eval()
    images, weights = torch.rand(1, 3, 64, 64), dict(network.named_parameters())
    with torch.no_grad():
        alone = network(images)
        together = synchronised(network)
        assert any(isinstance(part, torch.nn.SyncBatchNorm) for part in together.modules())
        assert torch.equal(together(images), alone)
    assert all(weights[key] is parameter for key, parameter in together.named_parameters())
