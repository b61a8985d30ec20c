"""The run folder, apart from its checkpoints: what the run is (config.toml), how it went (log.jsonl, curves.png)."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labelmerge.errors import ConfigError
from labelmerge.files import locked, output_faults, say_others, sweep_temporaries, write_bytes, write_text
from labelmerge.model.checkpoint import sweep_checkpoints
from labelmerge.parsing import parse_toml
from labelmerge.train.config import INCIDENTAL, TrainConfig
from labelmerge.train.log import LOG, read_log
from labelmerge.train.renamed import renamed

CONFIG, CURVES, TENSORBOARD = "config.toml", "curves.png", "tensorboard"
_LOCK = ".lock"
_MAX_CHANGES_SHOWN = 4
_SMOOTH = 50  # longer curves are smoothed over this part of their points
_COLOURS = 10
# What every line of the log has, whatever the method adds.
_COMMON = (
    "step", "loss", "parts", "datasets", "grad_norm", "lr", "images_per_second", "wait_share", "skipped",
)  # fmt: skip

_log = logging.getLogger(__name__)


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Keep other processes from writing the run, whose folder is made; one that dies lets go of it.

    Raises:
        OutputError: another process is writing it, or the folder can't be made.
    """
    say_others(out, "a run", (CONFIG, "checkpoints"))
    with output_faults(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / _LOCK, "this run"):
            sweep_temporaries(out)
            sweep_checkpoints(out)
            yield
    finally:
        with suppress(OSError):
            out.rmdir()  # only if nothing came of it


def claim_run(out: Path, config: TrainConfig, inputs: Mapping[str, Any], *, begun: bool) -> dict[str, Any]:
    """Make the folder this run's, or make sure that it is.

    Args:
        inputs: what the run is trained on: ``bank`` and ``shards`` (paths, which may change when a run goes on),
            ``bank_version``, ``columns`` (a hash), ``manifests`` {dataset/split: sha256} and ``weights`` {path of
            another run: sha256}, which may not; though weights that it began with may be gone.
        begun: whether there is a checkpoint. Without one nothing is lost, and the folder may become another run's.

    Returns:
        What config.toml holds: the settings, and `inputs` as a table of that name.

    Raises:
        ConfigError: the folder holds another run, or a config.toml that no run wrote.
        OutputError: it can't be written.
    """
    import tomli_w

    ours = {**config.to_dict(), "inputs": dict(inputs)}
    path = out / CONFIG
    if not begun:
        _refuse_settings_of_a_user(path)
        write_text(path, tomli_w.dumps(ours))
        return ours
    try:
        theirs = parse_toml(path.read_bytes())
        for table in ("manifests", "weights"):
            if not isinstance(theirs.get("inputs", {}).get(table, {}), dict):
                raise ValueError(f"inputs.{table} is not a table")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"can't be read as TOML ({error})", where=path, fix="The newest checkpoint holds a copy of it"
        ) from error
    # A setting that a run's version did not know yet had no effect on it: the default has none.
    known = TrainConfig(method=theirs.get("method", TrainConfig.method)).to_dict()
    theirs = {**known, **renamed(theirs)}
    # Runs from before there were taxonomies have a column for each text, which the bank's version tells.
    theirs["inputs"] = {"columns": ours["inputs"].get("columns"), **theirs.get("inputs", {})}
    known_weights, found_weights = (each["inputs"].get("weights", {}) for each in (theirs, ours))
    theirs["inputs"]["weights"] = {**found_weights, **known_weights}
    if known_weights or found_weights:
        ours["inputs"]["weights"] = {**known_weights, **found_weights}
    changes = _changes(theirs, ours)
    if changes:
        shown = "; ".join(changes[:_MAX_CHANGES_SHOWN])
        more = f"; and {len(changes) - _MAX_CHANGES_SHOWN} more" if len(changes) > _MAX_CHANGES_SHOWN else ""
        raise ConfigError(
            f"another run is here, and it can't resume with other settings or data: {shown}{more}",
            where=out,
            fix="Use what this run began with (its config.toml), or another --out; there, --init takes its weights",
        )
    return ours


def _refuse_settings_of_a_user(path: Path) -> None:
    """Raise ConfigError where a config.toml would be replaced that no run wrote: one has `inputs`."""
    try:
        known = "inputs" in parse_toml(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        known = False
    if not known:
        raise ConfigError("no run wrote this, and the run's own would replace it", where=path, fix="Use another --out")


def _changes(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What differs, in words; what may differ left out."""
    old, new = _flat(theirs), _flat(ours)
    changes = [
        f"{key} was {_show(old.get(key))} and is now {_show(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    before, now = (each["inputs"].get("manifests", {}) for each in (theirs, ours))
    for name in sorted(before.keys() | now.keys()):
        if name not in before:
            changes.append(f"{name} is new")
        elif name not in now:
            changes.append(f"{name} is gone")
        elif before[name] != now[name]:
            changes.append(f"the shards of {name} are others")
    if not changes and theirs["inputs"].get("columns") != ours["inputs"].get("columns"):
        changes.append("the labels have other columns")  # of another version; else it follows from what is listed
    return changes


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    inputs = settings.get("inputs", {})
    return {
        **{key: value for key, value in settings.items() if key != "inputs" and key not in INCIDENTAL},
        "the bank": inputs.get("bank_version"),
        **{f"the weights of {path}": digest for path, digest in inputs.get("weights", {}).items()},
    }


def _show(value: Any) -> str:
    if value is None:
        return "absent"
    if value == "":
        return "not set"
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


class RunLog:
    """log.jsonl as it grows, and TensorBoard's files beside it.

    Args:
        out: the run.
        step: lines after it are dropped: those steps are about to be run again.
        tensorboard: write ``tensorboard/`` too; where that package is not installed, the log says so and nothing else
            happens.

    Raises:
        ConfigError: the log can't be read.
        OutputError: it can't be written.
    """

    def __init__(self, out: Path, step: int, *, tensorboard: bool = False) -> None:
        lines = [line for line in read_log(out) if line["step"] <= step]
        write_text(out / LOG, "".join(json.dumps(line) + "\n" for line in lines))
        self._path, self._board = out / LOG, _open_board(out, step) if tensorboard else None

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line; a number that is not finite becomes null."""
        line = _without_nan(line)
        with output_faults(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        if self._board is not None:
            with output_faults(self._path.parent / TENSORBOARD):
                for name, value in _scalars(line):
                    self._board.add_scalar(name, value, line["step"])
                self._board.flush()

    def close(self) -> None:
        """Let go of TensorBoard's files."""
        if self._board is not None:
            self._board.close()


def _open_board(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.warning("tensorboard is not installed (pip install tensorboard): %s alone has the log", out / LOG)
        return None
    with output_faults(out / TENSORBOARD):
        return SummaryWriter(str(out / TENSORBOARD), purge_step=step + 1)


def _scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line by name, those of a table as ``table/name``."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{name}", inner) for name, inner in value.items() if inner is not None)
        elif key != "step" and value is not None:
            yield key, value


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def figures(told: Sequence[Tensor], terms: int) -> Tensor:
    """What the log says about some steps, each a row: the loss, the gradient's norm, every term and every dataset.

    Args:
        told: what each process has of the S steps, [S, 1 + 2·T·D]: the norm, its own sums, everybody's units.
        terms: T.

    Returns:
        float64 [S, 2 + T + D]; nan for the loss, a term or a dataset that had nothing in a step. A dataset's figure is
        the sum of its terms' means.
    """
    norm = told[0][:, :1].double()
    steps = len(norm)
    total = torch.stack([rows[:, 1:].double().chunk(2, 1)[0] for rows in told]).sum(0).view(steps, terms, -1)
    units = told[0][:, 1:].double().chunk(2, 1)[1].reshape(steps, terms, -1)  # [S, T, D], as `total`
    of_terms, count = total.sum(2), units.sum(2)
    loss = (of_terms / count.clamp(min=1)).sum(1, keepdim=True).where(taught(told)[:, None], torch.nan)
    of_datasets = (total / units.clamp(min=1)).sum(1).where(units.sum(1) > 0, torch.nan)
    return torch.cat([loss, norm, of_terms / count, of_datasets], dim=1)


def taught(told: Sequence[Tensor]) -> Tensor:
    """Whether there was anything to learn from in each step, bool [S]: a pixel, box or segment of any loss.

    Args:
        told: as for `figures`.
    """
    return told[0][:, 1:].chunk(2, 1)[1].sum(1) > 0


def mean_of(values: Sequence[float]) -> float:
    """The mean of what is a number; nan where nothing is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def draw_curves(out: Path) -> None:
    """Draw log.jsonl as curves.png: losses, by annotation type and by dataset, and what drives and limits the run.

    Nothing where nothing is logged.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    lines = read_log(out)
    if not lines:
        return
    figure = Figure(figsize=(11, 7), layout="constrained")
    (losses, datasets), *small = figure.subplots(3, 2, sharex=True, height_ratios=[3, 1, 1])
    names = {"loss": "sum", **{f"parts.{key}": f"L_{key.upper()}" for key in lines[-1]["parts"]}}
    for key, name in names.items():
        _plot(losses, lines, key, label=name, linewidth=2 if key == "loss" else 1.2)
    losses.set_ylabel("loss")
    sets = list(lines[-1].get("datasets", ()))
    for place, name in enumerate(sets):
        dashes = "--" if place >= _COLOURS else "-"  # matplotlib's ten colours come round again
        _plot(datasets, lines, f"datasets.{name}", label=name, linewidth=1.2, linestyle=dashes)
    datasets.set_ylabel("loss by dataset")
    for axes in (losses, datasets):
        axes.set_ylim(bottom=0)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8, ncols=1 + len(axes.lines) // 8)
    own = [key for key, value in lines[-1].items() if key not in _COMMON and not isinstance(value, Mapping)]
    curves = (
        ("lr", "learning rate"),
        ("images_per_second", "images/s"),
        (own[0] if own else "grad_norm", {"temperature": "τ"}.get(own[0], own[0]) if own else "gradient"),
        ("wait_share", "data wait"),
    )
    for axes, (key, name) in zip((axes for row in small for axes in row), curves, strict=True):
        _plot(axes, lines, key, color="0.3", linewidth=1)
        axes.set_ylabel(name)
        if key not in own:
            axes.set_ylim(bottom=0)
        if key == "wait_share":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in small[-1]:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(out / CURVES, buffer.getvalue())


def _plot(axes: Any, lines: Sequence[Mapping[str, Any]], key: str, **style: Any) -> None:
    """A figure of the log (``table.name`` for one of a table) as a line through the steps that have it.

    Many noisy points are drawn faint, with their running mean over them; a single one is a dot.
    """
    table, _, name = key.rpartition(".")
    known = [(line["step"], value) for line in lines if (value := (line.get(table) or line).get(name)) is not None]
    if not known:
        return
    steps, values = zip(*known, strict=True)
    window = len(values) // _SMOOTH
    if window > 1 and "label" in style:
        (faint,) = axes.plot(steps, values, **{**style, "label": None, "linewidth": 0.6, "alpha": 0.3})
        style["color"] = faint.get_color()
        sums = [0.0, *accumulate(values)]
        spans = [(max(0, i + 1 - window), i + 1) for i in range(len(values))]
        values = tuple((sums[end] - sums[start]) / (end - start) for start, end in spans)
    axes.plot(steps, values, marker="o" if len(values) == 1 else None, **style)
