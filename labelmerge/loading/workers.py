"""Processes that make batches ahead of time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from labelmerge.errors import LabelmergeError
from labelmerge.loading.batch import Batch
from labelmerge.workers import interrupts_held_back

T = TypeVar("T")


def made_ahead(
    make: Callable[[int], list[Batch]], steps: range, workers: int, *, pin_memory: bool
) -> Iterator[list[Batch]]:
    """``make(step)`` for every step, in order, by `workers` processes.

    Raises:
        LabelmergeError: what `make` raises; a worker process died.
    """
    loader = DataLoader(
        _Steps(make),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
    )
    deaths = _Deaths()
    try:
        with interrupts_held_back():  # workers inherit that: this process decides what Ctrl-C ends
            batches = deaths.told_by(lambda: deaths.listened_to(iter(loader)))
        while (made := deaths.told_by(lambda: next(batches, None))) is not None:
            if isinstance(made, LabelmergeError):
                raise made
            yield made
    finally:
        deaths.forget()


class _Deaths:
    """Keeps the news of a dead worker until the next batch is waited for.

    Torch's handler of SIGCHLD raises wherever this process happens to be: within a step, or while a checkpoint is
    written.
    """

    def __init__(self) -> None:
        self._torch: Any = None
        self._waiting = self._untold = False

    def listened_to(self, batches: T) -> T:
        """The same, once its workers have been started and torch's handler is set (which only a main thread can)."""
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        if callable(handler) and _in_main_thread():
            self._torch = handler
            signal.signal(signal.SIGCHLD, self._child_ended)
        return batches

    def forget(self) -> None:
        if self._torch is not None and _in_main_thread():
            signal.signal(signal.SIGCHLD, self._torch)

    def told_by(self, wait: Callable[[], T]) -> T:
        """What `wait` returns. A worker that dies meanwhile, or has died since the last time, is an error.

        Raises:
            LabelmergeError: a worker process died.
        """
        try:
            try:  # two of them, because the handler may raise in `finally`, too
                self._waiting = True
                if self._untold:
                    self._untold = False
                    self._torch(signal.SIGCHLD, None)
                return wait()
            finally:
                self._waiting = False
        except Exception as error:
            died = _death(error)
            if died is None:
                raise
            raise LabelmergeError(
                f"a loading process died ({died.splitlines()[0].rstrip('. ')})",
                fix="Usually memory ran out: use fewer --workers, or give the machine more shared memory",
            ) from error

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            self._torch(number, frame)
        else:
            self._untold = True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _death(error: BaseException | None) -> str | None:
    """What torch says of a dead worker, also where the code that it interrupted made another error of it."""
    while error is not None:
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


class _Steps(Dataset[list[Batch] | LabelmergeError]):
    """Batches by step. A fault is handed over as a value: torch would wrap it in a traceback's text."""

    def __init__(self, make: Callable[[int], list[Batch]]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> list[Batch] | LabelmergeError:
        try:
            return self._make(step)
        except LabelmergeError as error:
            return error


def _unchanged(made: Any) -> Any:
    return made
