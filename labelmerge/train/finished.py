"""Is a run finished, and of just this? Answered without torch, so that the same command again answers at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge import __version__
from labelmerge.bank.store import read_index
from labelmerge.catalog import UNLABELED
from labelmerge.errors import LabelmergeError, OutputError
from labelmerge.files import sha256_file, write_json
from labelmerge.remote import local_file
from labelmerge.shardset.manifest import MANIFEST
from labelmerge.shardset.splits import find_splits
from labelmerge.train.config import INCIDENTAL, TrainConfig
from labelmerge.urls import url_of

FINISHED = "finished.json"


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        run: its folder.
        steps: how many steps its newest checkpoint has behind it.
        final_loss: mean loss over the last logged steps.
        checkpoint: the newest checkpoint's folder.
        seconds: how long this call took; near 0 where the run was finished before.
        skipped: corrupt samples met and replaced in this call, by all processes.
        untaught: the datasets of which no loss came in the whole run, as its log has it.
    """

    run: Path
    steps: int
    final_loss: float
    checkpoint: Path
    seconds: float
    skipped: int
    untaught: tuple[str, ...] = ()


def note_finished(
    result: RunResult, shards: Sequence[Path], bank: Path, config: TrainConfig, split: str | None
) -> None:
    """Write down what a finished run was made of. Where that can't be done, the next call looks for itself."""
    try:
        of = _made_of(shards, bank, config, split)
        content = {
            "of": of,
            "steps": result.steps,
            "final_loss": result.final_loss,
            "untaught": list(result.untaught),
            "checkpoint": result.checkpoint.name,
        }
        there = result.run / FINISHED
        if not there.is_file() or json.loads(there.read_bytes()) != content:
            write_json(there, content)
    except (OSError, ValueError, OutputError):
        pass


def finished_run(
    shards: Sequence[Path], bank: Path, out: Path, config: TrainConfig, split: str | None
) -> RunResult | None:
    """The result of a run that was finished before with just these inputs and settings; None where that isn't sure."""
    try:
        noted: dict[str, Any] = json.loads((out / FINISHED).read_bytes())
        checkpoint = out / "checkpoints" / noted["checkpoint"]
        newest = max(path.name for path in checkpoint.parent.glob("step-*"))
        meta = json.loads((checkpoint / "meta.json").read_bytes())
        if newest != checkpoint.name or meta["step"] != noted["steps"]:
            return None
        if noted["of"] != _made_of(shards, bank, config, split):
            return None
        return RunResult(out, noted["steps"], noted["final_loss"], checkpoint, 0.0, 0, tuple(noted["untaught"]))
    except (OSError, ValueError, KeyError, TypeError, LabelmergeError):
        return None


def weights_it_begins_with(config: TrainConfig) -> dict[str, str]:
    """The hashes of the weights of other runs that a run is made of, by their paths; of those that are here.

    These are the newest of `init`, `pretrained`, and a method's `supervised`.
    """
    found = {path: _weights_of(Path(path)) for path in runs_it_begins_with(config)}
    return {path: digest for path, digest in found.items() if digest is not None}


def runs_it_begins_with(config: TrainConfig) -> list[str]:
    """`init`, `pretrained`, and a method's `supervised`, as far as they are paths on this machine."""
    paths = [config.init, config.pretrained, *getattr(config.method_settings, "supervised", ())]
    return [path for path in paths if path and url_of(Path(path)) is None]


def _weights_of(run: Path) -> str | None:
    steps = sorted(run.glob("checkpoints/step-*"), key=lambda step: (len(step.name), step.name), reverse=True)
    for folder in (run, *steps):
        try:
            return str(json.loads((folder / "meta.json").read_bytes())["sha256"]["model.safetensors"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _made_of(shards: Sequence[Path], bank: Path, config: TrainConfig, split: str | None) -> str:
    """A hash of all that decides what a run computes. Raises LabelmergeError or OSError where inputs are missing."""
    settings = {name: value for name, value in config.to_dict().items() if name not in INCIDENTAL}
    whole = {
        "labelmerge": __version__,
        "settings": settings,
        "bank": read_index(bank)[-1]["file_sha256"],
        "manifests": sorted(sha256_file(folder / MANIFEST) for folder in find_splits(shards, split, also=UNLABELED)),
        "taxonomy": sha256_file(local_file(Path(config.taxonomy))) if config.taxonomy else None,
        **({"weights": weights} if (weights := weights_it_begins_with(config)) else {}),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
