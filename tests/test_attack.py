"""A few damaged files of every kind; `python -m tests.attack` goes on for as long as you like (docs/reliability.md)."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from .attack import mutations
from .attack.attack import _CRASHED, Ran, judge
from .attack.targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
# In a process of its own: each try forks it, which does not go with the threads of a test run.
QUICK = ("manifest", "metadata", "tar", "bank")


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_few_tries() -> None:
    command = [sys.executable, "-m", "tests.attack", "--seed", "1", "--tries", "1", "--only", *QUICK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUICK)} files damaged, 0 failures" in done.stdout


def test_what_counts_as_a_failure() -> None:
    target, sealed = TARGETS["manifest"], TARGETS["tar"]
    said = {"out": "", "err": "Error: it is damaged"}
    assert judge(Ran(1, memory=1, **said), True, target, 1) == ""
    assert judge(Ran(0, '{"a": 1}', "", 1), True, target, 1) == ""
    assert judge(Ran(_CRASHED, memory=1, **said), True, target, 1) == "traceback"
    assert "did not end" in judge(Ran(None, memory=1, **said), True, target, 1)
    assert "killed by SIGSEGV" in judge(Ran(-11, memory=1, **said), True, target, 1)
    assert "took 2000 MB" in judge(Ran(1, memory=2000 << 20, **said), True, target, 1 << 20)
    assert "control characters" in judge(Ran(1, "", "\x1b[2J", 1), True, target, 1)
    assert "without a word" in judge(Ran(1, "", "", 1), True, target, 1)
    assert "JSON" in judge(Ran(0, '{"a": NaN}', "", 1), True, target, 1)
    assert "hash" in judge(Ran(0, "", "", 1), True, sealed, 1)
    assert judge(Ran(0, "", "", 1), False, sealed, 1) == ""


def test_damage_is_the_same_for_one_seed() -> None:
    data = b'{"a": [1, 2, {"b": "c"}]}'
    for how in (*mutations.BYTES, mutations.json_value):
        assert how(data, random.Random(3)) == how(data, random.Random(3))
