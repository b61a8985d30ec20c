"""Several processes that share one evaluation: what `torchrun` starts, on one machine or many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from labelmerge.errors import LabelmergeError, UsageError

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # a process that dies is torchrun's affair; one that has the larger images is waited for


@dataclass(frozen=True)
class Ranks:
    """This process's place among all that share the work.

    Attributes:
        rank: 0 for the one that writes the results.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    def share(self, numbers: Sequence[T]) -> Sequence[T]:
        """This process's part: every world-th, so that parts of a sorted set are alike. Each number is in one part."""
        return numbers[self.rank :: self.world]

    def gather(self, mine: T) -> list[T]:
        """What every process has, in order of rank, for all of them. `mine` must be picklable."""
        if self.world == 1:
            return [mine]
        import torch.distributed

        everyone: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(everyone, mine)
        return everyone

    @contextmanager
    def same_fate(self) -> Iterator[None]:
        """Where the work within fails in one process, it fails in all: none waits for one that has given up."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        told = failure
        if failure is not None and not isinstance(failure, LabelmergeError):  # others can't always be sent
            told = LabelmergeError(f"process {self.rank} failed ({type(failure).__name__}: {failure})")
        for theirs in (failure, *self.gather(told)):
            if theirs is not None:
                raise theirs


@contextmanager
def processes() -> Iterator[Ranks]:
    """The processes that `torchrun` has started, connected while the block lasts; without it, this one alone.

    Raises:
        UsageError: the environment is not as torchrun makes it.
    """
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < world:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {world} in the environment", fix="Start it with torchrun")
    if world == 1:
        yield Ranks()
        return
    import torch.distributed

    # Counts lie in main memory and are few: gloo carries them wherever the models are.
    try:
        torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"the {world} processes can't be connected ({error})", fix="Start them with torchrun"
        ) from error
    try:
        yield Ranks(rank, world)
    finally:
        torch.distributed.destroy_process_group()


def own_device(name: str | None) -> str | None:
    """The device for this process: among several on one machine that ask for a GPU or for nothing, each has its own."""
    if name not in (None, "cuda") or "LOCAL_RANK" not in os.environ:
        return name
    import torch

    return f"cuda:{_number('LOCAL_RANK', 0)}" if torch.cuda.is_available() else name


def is_first() -> bool:
    """Whether this process is the one that speaks: the only one, or the first of several."""
    return _number("RANK", 0) == 0


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise UsageError(f"{variable} is {text!r} in the environment, not a number", fix="Start it with torchrun")
    return int(text) if text else default
