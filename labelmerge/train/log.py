"""The log of a run, read: log.jsonl, which `labelmerge.train.run.RunLog` writes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labelmerge.errors import ConfigError
from labelmerge.parsing import parse_json
from labelmerge.text import counted

LOG = "log.jsonl"

_log = logging.getLogger(__name__)


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl, each with a step, a loss (None where nothing taught) and tables of parts and datasets.

    Lines that are damaged are left out, which a warning counts: the run itself is in its checkpoints. The last one is
    left out without a word where it has no end, for a kill, or a run that is writing it, leaves such a line.

    Raises:
        ConfigError: the file can't be read.
    """
    path = out / LOG
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"can't be read ({error.strerror})", where=path) from error
    *texts, _ = data.split(b"\n")
    lines = []
    for text in texts:
        try:
            lines.append(_log_line(parse_json(text)))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    if damaged := len(texts) - len(lines):
        _log.warning("%s: %s left out", path, counted(damaged, "damaged line is", "damaged lines are"))
    return lines


def _log_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError, TypeError or KeyError where it is not a line of a log."""
    step = line["step"]
    if type(step) is not int or step < 0:
        raise ValueError(step)
    tables = {name: dict(line.get(name) or {}) for name in ("parts", "datasets")}
    others = (value for name, value in line.items() if name not in tables)
    for value in (line["loss"], *others, *(value for table in tables.values() for value in table.values())):
        if not isinstance(value, int | float | None):
            raise TypeError(value)
    return {**line, **tables}


def never_taught(out: Path, datasets: Sequence[str]) -> list[str]:
    """The datasets without a loss in any line of the log. Raises ConfigError."""
    seen = {name for line in read_log(out) for name, value in line["datasets"].items() if value is not None}
    return [name for name in datasets if name not in seen]


def last_loss(out: Path) -> float:
    """The loss in the last line of the log; nan where there is none. Raises ConfigError."""
    lines = read_log(out)
    return float(lines[-1]["loss"]) if lines and lines[-1]["loss"] is not None else math.nan
