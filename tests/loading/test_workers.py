"""A dead loading process is said in one line, when a batch is waited for and not before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from labelmerge.errors import LabelmergeError
from labelmerge.loading.workers import _Deaths, made_ahead

DEATH = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def raised(error: BaseException) -> Callable[[], Any]:
    def wait() -> None:
        raise error

    return wait


def pids(step: int) -> Any:
    return [step, os.getpid()]


def test_a_worker_that_dies_during_other_work_is_told_at_the_next_batch() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    made: Any = made_ahead(pids, range(8), 1, pin_memory=False)
    first, worker = next(made)
    assert first == 0 and worker != os.getpid()
    os.kill(worker, signal.SIGKILL)
    for _ in range(20):  # as long as a checkpoint takes: nothing is raised here
        time.sleep(0.005)
    # torch tells it in one of two ways, by who notices first
    told = r"a loading process died \(DataLoader worker \(pid(\(s\))? \d+\) (is killed|exited unexpectedly)"
    with pytest.raises(LabelmergeError, match=told):
        list(made)
    if callable(before):
        assert signal.getsignal(signal.SIGCHLD) is before  # torch sets its own once in a process


def test_children_that_are_not_workers_may_end() -> None:
    made: Any = made_ahead(pids, range(40), 1, pin_memory=False)
    seen = [next(made)]
    os.waitpid(os.posix_spawn("/bin/false", ["false"], os.environ), 0)
    assert [step for step, _ in [*seen, *made]] == list(range(40))


def test_a_death_that_became_another_error_is_still_one() -> None:
    def wrapped() -> None:
        try:
            raise DEATH
        except RuntimeError as error:
            raise SystemError("interrupted") from error

    def while_tidying_up() -> None:
        try:
            raise DEATH
        finally:
            raise KeyError("while tidying up")

    with pytest.raises(LabelmergeError, match=r"a loading process died \(DataLoader worker \(pid 7\) is killed"):
        _Deaths().told_by(wrapped)
    with pytest.raises(LabelmergeError, match="a loading process died"):
        _Deaths().told_by(while_tidying_up)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match="mine"):
        _Deaths().told_by(raised(ValueError("mine")))
