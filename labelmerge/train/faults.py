"""What can go wrong in the middle of a run, each said in one line with the step and what is kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labelmerge.device import is_out_of_memory
from labelmerge.errors import ConfigError, LabelmergeError
from labelmerge.train.config import TrainConfig
from labelmerge.train.log import never_taught
from labelmerge.train.processes import left_alone

_log = logging.getLogger(__name__)


@dataclass
class Place:
    """Where a run is.

    Attributes:
        step: the step being done, counted from 1 as in the log.
        checkpoint: the newest one.
    """

    step: int
    checkpoint: Path | None

    def __str__(self) -> str:
        kept = (
            f"the newest good checkpoint is {self.checkpoint.name}" if self.checkpoint else "there is no checkpoint yet"
        )
        return f"at step {self.step}; {kept}"


def refuse_no_number(loss: float, norm: float, out: Path) -> None:
    """Raises LabelmergeError where the loss or the gradient's norm is not a finite number."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = "the gradient" if math.isfinite(loss) else f"the loss ({loss})"
    raise LabelmergeError(
        f"{what} is no longer a number",
        where=out,
        fix="Train into another --out with a lower --lr, a longer warmup or a smaller clip",
    )


def say_untaught(out: Path, datasets: Sequence[str]) -> list[str]:
    """The datasets of which no loss came in the whole run, each of which a warning names.

    Raises:
        LabelmergeError: that is all of them.
    """
    never = never_taught(out, datasets)
    if len(never) == len(datasets):
        raise LabelmergeError(
            "no sample had anything that a loss is for, so nothing was learned",
            where=out,
            fix="`labelmerge stats --classes` shows what the shards hold",
        )
    for name in never:
        _log.warning("no loss ever came from %s: none of its samples had a label that was seen in training", name)
    return never


@contextmanager
def clear_faults(config: TrainConfig, place: Place) -> Iterator[None]:
    """Say in one line what went wrong within, at which step, and which checkpoint remains.

    Raises:
        LabelmergeError: memory ran out, a loading process or another process of the run died, or the library's own
            faults with the step added.
        ConfigError: batch norm has too little to average; the model can't be compiled.
    """
    try:
        with _foreign_faults(config):
            yield
    except LabelmergeError as error:
        raise type(error)(f"{error.what}, {place}", where=error.where, fix=error.fix) from error


@contextmanager
def _foreign_faults(config: TrainConfig) -> Iterator[None]:
    size = f"batch_size {config.batch_size} and crop {config.crop}"
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            if config.accumulate > 1:
                size += f" in {config.accumulate} pieces"
            fix = f"Use --accumulate {2 * config.accumulate} for the same step in less, or a smaller --crop"
            raise LabelmergeError(f"out of memory with {size}", fix=fix) from error
        if "more than 1 value per channel" in str(error):
            what = f"the batch norms of {config.model} have nothing to average with {size}"
            raise ConfigError(what, fix="Use a larger --batch-size or --crop") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            line = str(error).strip().splitlines()[0]
            what = f"{config.model} can't be compiled here ({type(error).__name__}: {line})"
            raise ConfigError(what, fix="Train without --compile") from error
        if alone := left_alone(error):
            raise alone from error
        raise
