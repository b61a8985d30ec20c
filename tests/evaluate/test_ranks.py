"""Several processes on one evaluation: real ones, connected by gloo, as torchrun starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.errors import UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import LabelSpace
from labelmerge.processes import Ranks, own_device, processes

ROOMS = LabelSpace.of("rooms", ["wall", "floor", "counter"])
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """bank, run, and shards of seven samples, two of them corrupt, which two processes don't share evenly."""
    bank = tools.bank([("rooms", i, name, f"About {name}.") for i, name in enumerate(ROOMS.names)])
    tools.run(tmp_path / "run", bank)
    rng = np.random.default_rng(0)
    samples = [
        (
            tools.png(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)),
            tools.png(rng.choice([0, 1, 2, 255], (16, 20)).astype(np.uint8)),
        )
        for _ in range(7)
    ]
    samples[2] = (b"no png", samples[2][1])
    samples[5] = (samples[5][0], tools.png(np.full((16, 20), 9, np.uint8)))
    tools.split(tmp_path / "shards/rooms/val", ROOMS, samples)
    return tmp_path


Done = subprocess.CompletedProcess[str]

ONE_FAILS = """
from labelmerge.processes import processes
with processes() as ranks:
    assert ranks.gather(ranks.rank) == [0, 1]
    with ranks.same_fate():
        if ranks.rank == 1:
            raise ZeroDivisionError("of this one alone")
"""


def measure(world: Path, out: str, shards: str = "shards") -> list[Done]:
    """`labelmerge eval` in two processes."""
    command = ["-m", "labelmerge.cli", "eval", "--checkpoint", "run", "--shards", shards, "--out", out]
    return start(world, 2, [*command, "--device", "cpu", "--worst", "2"])


def start(world: Path, count: int, arguments: list[str]) -> list[Done]:
    """Python in `count` processes with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, *arguments]
    running = []
    for rank in range(count):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **{name: str(value) for name, value in place.items()}, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, env=environment, cwd=world, text=True, stdout=pipe, stderr=pipe))
    done = []
    for process in running:
        stdout, stderr = process.communicate(timeout=120)
        done.append(subprocess.CompletedProcess(command, process.returncode, stdout, stderr))
    return done


def test_two_processes_find_what_one_does(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = measure(world, "results.json")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "harmonic mean" in first.stdout and second.stdout == ""
    text = (world / "results.json").read_text()
    with np.load(world / "results.confusion.npz") as matrices:
        confusion = matrices["rooms-val"]
    monkeypatch.chdir(world)
    evaluate(Path("run"), [Path("shards")], None, Path("results.json"), device="cpu", worst=2)
    assert (world / "results.json").read_text() == text
    with np.load(world / "results.confusion.npz") as matrices:
        np.testing.assert_array_equal(matrices["rooms-val"], confusion)
    (measured,) = json.loads(text)["sets"]
    assert (measured["images"], measured["skipped"]) == (5, 2)
    assert confusion.sum() + measured["ignored_pixels"] == 5 * 16 * 20


def test_a_fault_of_all_ends_all(world: Path, tools: Any) -> None:
    tools.split(world / "bad/rooms/val", ROOMS, [(b"no png", b"no png")])
    for done in measure(world, "no.json", "bad"):
        assert done.returncode == 1 and "none of 1 images has a labelled pixel" in done.stderr
    assert not (world / "no.json").exists()


def test_a_fault_of_one_ends_the_others_with_its_message(tmp_path: Path) -> None:
    first, second = start(tmp_path, 2, ["-c", ONE_FAILS])
    assert first.returncode == second.returncode == 1
    assert "process 1 failed (ZeroDivisionError: of this one alone)" in first.stderr.splitlines()[-1]
    assert second.stderr.splitlines()[-1].endswith("ZeroDivisionError: of this one alone")


@pytest.mark.parametrize("world_size", [1, 2, 3, 11])
def test_every_number_is_in_one_part(world_size: int) -> None:
    parts = [Ranks(rank, world_size).share(range(7)) for rank in range(world_size)]
    assert sorted(number for part in parts for number in part) == list(range(7))


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with processes() as ranks:
        assert ranks == Ranks(0, 1) and ranks.gather("mine") == ["mine"]
        with pytest.raises(KeyError), ranks.same_fate():
            raise KeyError
    assert own_device(None) is None and own_device("cpu") == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'many'"), processes():
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UsageError, match="RANK is 2 and WORLD_SIZE 2"), processes():
        pass
