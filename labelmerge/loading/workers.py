"""Processes that make batches ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, Dataset

from labelmerge.errors import LabelmergeError
from labelmerge.loading.batch import Batch


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
    with dead_workers():
        for made in loader:
            if isinstance(made, LabelmergeError):
                raise made
            yield made


@contextmanager
def dead_workers() -> Iterator[None]:
    """Say in one line that a process of `made_ahead` died: torch raises that wherever its parent happens to be.

    Raises:
        LabelmergeError: a worker process died.
    """
    try:
        yield
    except Exception as error:
        died = _death(error)
        if died is None:
            raise
        raise LabelmergeError(
            f"a loading process died ({died.splitlines()[0].rstrip('. ')})",
            fix="Usually memory ran out: use fewer --workers, or give the machine more shared memory",
        ) from error


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
