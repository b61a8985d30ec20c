"""How the command ends where it is interrupted: in one line, with nothing half-written left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTING = """
import builtins
plain = builtins.__import__
def interrupted(name, *rest):
    if name == "click":
        raise KeyboardInterrupt
    return plain(name, *rest)
builtins.__import__ = interrupted
from labelmerge.cli.entry import main
main()
"""
WRITING = """
import os, signal, sys
from pathlib import Path
import labelmerge.cli.main
from labelmerge.cli.entry import main
from labelmerge.files import atomic_file
def work():
    with atomic_file(Path("bank.json")) as stream:
        stream.write(b"half")
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        signal.pause()
labelmerge.cli.main.main = work
main()
"""


def ended(code: str, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", code, *words]
    plain = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    return subprocess.run(command, cwd=folder, env=plain | more, capture_output=True, text=True, timeout=60)


def test_an_interrupt_while_it_starts_is_one_line(tmp_path: Path) -> None:
    done = ended(IMPORTING, tmp_path)
    assert (done.returncode, done.stderr) == (1, "\nAborted!\n")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_it_in_order(name: str, status: int, tmp_path: Path) -> None:
    done = ended(WRITING, tmp_path, name)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (status, "\nTerminated!\n", [])


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
def test_a_process_of_torchrun_ends_at_once(tmp_path: Path) -> None:
    done = ended(WRITING, tmp_path, "SIGTERM", TORCHELASTIC_RUN_ID="none")
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
