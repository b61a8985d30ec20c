"""Damage, run, judge."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .targets import TARGETS, Target, damage
from .world import build

MOST_MEMORY = 1 << 30
"""Bytes above what the same command takes with sound files."""
_SECONDS = 180
_CRASHED = 70
_HARMFUL = frozenset("\x1b\x07\x9b\u202e\u2066\x00")


@dataclass(frozen=True)
class Ran:
    """A command that was run.

    Attributes:
        status: its exit status; None where it had to be killed.
        memory: bytes, its peak.
    """

    status: int | None
    out: str
    err: str
    memory: int


@dataclass(frozen=True)
class Failure:
    """A damage that a command does not stand, and how to do it again."""

    target: str
    number: int
    command: str
    what: str
    detail: str = ""


def run(words: Sequence[str], scratch: Path) -> Ran:
    """Run a command in a process of its own, forked from this one, which has all modules in memory already."""
    out, err = scratch / "stdout", scratch / "stderr"
    child = os.fork()
    if child == 0:
        _be_command(words, out, err)
    ends = time.monotonic() + _SECONDS
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            status = -1
            break
        time.sleep(0.003)
    code = None if status == -1 else os.waitstatus_to_exitcode(status)
    said, told = (path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in (out, err))
    return Ran(code, said, told, usage.ru_maxrss * 1024)


def _be_command(words: Sequence[str], out: Path, err: Path) -> None:
    os.setpgid(0, 0)
    status = _CRASHED
    try:
        for path, number in ((out, 1), (err, 2)):
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, number)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        try:
            import_module("labelmerge.cli.main").cli.main(list(words), prog_name="labelmerge")
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def judge(ran: Ran, changed: bool, target: Target, usual: int) -> str:
    """What is wrong with how a command met a damaged file; "" where nothing is."""
    if ran.status is None:
        return f"did not end within {_SECONDS} s"
    if ran.status == _CRASHED or "Traceback (most recent call last)" in ran.err:
        return "traceback"
    if ran.status < 0:
        return f"killed by {signal.Signals(-ran.status).name}"
    if ran.memory > usual + MOST_MEMORY:
        return f"took {ran.memory >> 20} MB, {usual >> 20} MB before"
    if _HARMFUL & set(ran.out + ran.err):
        return "control characters in what it printed"
    if ran.status and not ran.err.strip() and not ran.out.strip():
        return "failed without a word"
    if ran.status == 0 and changed and target.sealed:
        return "success with a file that is not what its hash says"
    if ran.status == 0 and ran.out.startswith(("{", "[")):
        try:
            json.loads(ran.out, parse_constant=lambda name: 1 / 0)
        except (ValueError, ZeroDivisionError):
            return "success with JSON that is none, or numbers that are none"
    return ""


class Attack:
    """A sound world, and copies of it to damage."""

    def __init__(self, folder: Path, names: Iterable[str] = TARGETS) -> None:
        self.folder, self.sound = folder, folder / "sound"
        trains = any(TARGETS[name].needs_torch for name in names)
        for module in ("pyarrow.parquet", "webdataset.writer"):  # forked commands need not load them again
            import_module(module)
        for verb in ("ls", "describe", "embed", "bank", "shard", "verify", "stats", "export", "merge", "train", "eval"):
            import_module(f"labelmerge.cli.{verb}")
        for module in ("sharding.shard", "inspect.verify"):
            import_module(f"labelmerge.{module}")
        if trains:
            for module in ("train.loop", "evaluate.evaluate", "predict.predict", "predict.relabel"):
                import_module(f"labelmerge.{module}")
            import_module("torch").set_num_threads(1)
        self._usual: dict[tuple[str, ...], int] = {}
        build(self.sound, self._sound, run=trains)

    def _sound(self, *words: object) -> None:
        ran = run([str(word) for word in words], self.folder)
        if ran.status != 0:
            raise RuntimeError(f"{words} failed on sound files: {ran.err}")

    def one(self, name: str, seed: int, number: int) -> list[Failure]:
        """Damage number `number` of a target, and all its commands."""
        target, rng = TARGETS[name], random.Random(f"{seed} {name} {number}")
        world, out = self.folder / "world", self.folder / "out"
        failures = []
        shutil.rmtree(world, ignore_errors=True)
        shutil.copytree(self.sound, world)
        if target.files[0].startswith("run/checkpoints/step-000001"):  # so that training goes on from this one
            shutil.rmtree(world / "run/checkpoints/step-000002")
        path = rng.choice([found for pattern in target.files for found in sorted(world.glob(pattern))])
        how = rng.choice(target.how)
        changed = damage(path, how, rng, target.member)
        if target.seal is not None:
            target.seal(path)
        for words in target.commands:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            usual = self._usual_memory(words)
            ran = run([word.format(world=world, out=out) for word in words], self.folder)
            if what := judge(ran, changed, target, usual):
                detail = "\n".join((ran.err.strip() or ran.out.strip()).splitlines()[-4:])
                failures.append(Failure(name, number, f"{words[0]} ({how.__name__} of {path.name})", what, detail))
        return failures

    def _usual_memory(self, words: tuple[str, ...]) -> int:
        if words not in self._usual:
            out, world = self.folder / "out-sound", self.folder / "world-sound"
            for folder in (out, world):
                shutil.rmtree(folder, ignore_errors=True)
            out.mkdir()
            shutil.copytree(self.sound, world)
            ran = run([word.format(world=world, out=out) for word in words], self.folder)
            if ran.status != 0:
                raise RuntimeError(f"{words} failed on sound files: {ran.err}")
            self._usual[words] = ran.memory
        return self._usual[words]


def attack(
    folder: Path, seed: int, tries: int, names: Iterable[str] = (), tell: Callable[[Failure], None] | None = None
) -> list[Failure]:
    """Damage each target so many times.

    Args:
        folder: to work in; made anew.
        tries: of each target.
        names: of targets; all where none is given.
        tell: hears of every failure at once.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chosen = list(names) or list(TARGETS)
    world = Attack(folder, chosen)
    failures = []
    for name in chosen:
        for number in range(tries):
            for failure in world.one(name, seed, number):
                failures.append(failure)
                if tell is not None:
                    tell(failure)
    return failures
