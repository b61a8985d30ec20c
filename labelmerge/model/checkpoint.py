"""The checkpoint format: one folder, complete or not there (docs/architecture.md, "A run").

::

    RUN/checkpoints/step-000300/
        model.safetensors   the state of the learner: weights, temperature, whatever its method remembers
        state.pt            what only resuming needs: optimiser, scheduler, random state
        config.toml         everything needed to run it again
        meta.json           format, step, the files' hashes, and what the trainer adds: model, columns, …
        bank/               the bank version it was trained with
        taxonomy.csv        what the labels of the bank mean, where the columns are concepts
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from labelmerge.errors import CheckpointError, OutputError, near_path
from labelmerge.files import output_faults, sha256_file
from labelmerge.network import is_web
from labelmerge.parsing import parse_json, parse_toml
from labelmerge.remote import list_files, local_file, local_folder
from labelmerge.urls import url_of

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "labelmerge-checkpoint/1"
_WEIGHTS, _STATE, _CONFIG, _META, _BANK = "model.safetensors", "state.pt", "config.toml", "meta.json", "bank"
_TAXONOMY = "taxonomy.csv"
_FILES = (_WEIGHTS, _CONFIG, _META)  # without which it is none; the state is for resuming alone
_MEND = "Use another checkpoint, or remove this one and train on from the one before"
_STEPS = "checkpoints/"
_STEP = re.compile(r"step-(\d{6,})")
_MOST_CHANNELS = 1 << 16  # of a pixel's embedding; what is asked for beyond is damage, and memory
_MOST_PIXELS = 1 << 16  # of a short edge
# What the trainer adds to meta.json, where it does.
_ADDED = {"manifests": dict, "columns": list, "column_labels": list, "datasets": list, "label_dim": int, "init": dict}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        tensors: the learner's state by name, on the CPU; `labelmerge.methods.restore` makes the learner.
        config: the training configuration.
        meta: the whole of meta.json.
        step: how many steps it was trained for.
        hash: names the weights: the first 16 hexadecimal digits of the SHA-256 of model.safetensors.
        folder: the checkpoint's own folder.
        bank_folder: the bank version it was trained with, if it holds one.
        taxonomy_file: what the labels of that bank mean, if its columns are concepts (`read_taxonomy` reads it).
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    meta: dict[str, Any]
    step: int
    hash: str
    folder: Path
    bank_folder: Path | None
    taxonomy_file: Path | None = None

    @property
    def method(self) -> str:
        """The name of the method it was trained by."""
        return str(self.config.get("method", "ssiw"))

    @property
    def model_name(self) -> str:
        """The name of its network."""
        return str(self.meta["model"]["name"])

    @property
    def short_edge(self) -> int:
        """The short edge of an image at scale 1 in training, pixels; 0: its own size. Raises CheckpointError."""
        return self._edge(self.config)

    def short_edge_of(self, dataset: str | None) -> int:
        """The same of a dataset, which may have been trained in views of its own. Raises CheckpointError."""
        own = self.config.get("views")
        table = own.get(dataset) if isinstance(own, dict) else None
        return self._edge(table) if isinstance(table, dict) and "short_edge" in table else self.short_edge

    def _edge(self, settings: Mapping[str, Any]) -> int:
        pixels = settings.get("short_edge", 0)
        if type(pixels) is not int or not 0 <= pixels <= _MOST_PIXELS:
            raise CheckpointError(f"short_edge is {pixels!r}", where=self.folder / _CONFIG, fix="Give --short-edge")
        return pixels


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Any],
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    meta: Mapping[str, Any],
    bank_folder_writer: Callable[[Path], None] | None = None,
    taxonomy: str | None = None,
    keep: int = 2,
) -> Path:
    """Write ``<folder>/checkpoints/step-<step>``, which appears by one rename, and remove older ones.

    Args:
        folder: the run.
        tensors: the learner's ``state_dict``.
        model: its network's ``name`` and ``embedding_dim``.
        state: what resuming needs: tensors, numbers, strings, and lists, tuples and dicts of them
            (``torch.load(weights_only=True)`` must read it back).
        config: goes to config.toml.
        meta: goes to meta.json, beside the keys that the format sets: format, model, step, sha256.
        bank_folder_writer: writes the bank version as the folder it is given, which is not there yet.
        taxonomy: the content of taxonomy.csv.
        keep: how many checkpoints remain, counting this one.

    Returns:
        The checkpoint's folder.

    Raises:
        OutputError: no space, no permission, or something in the way.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    checkpoints = folder / "checkpoints"
    final = checkpoints / f"step-{step:06d}"
    with output_faults(final):
        checkpoints.mkdir(parents=True, exist_ok=True)
        sweep_checkpoints(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=checkpoints))
        try:
            _write(temporary, step, tensors, model, state, config, meta, bank_folder_writer, taxonomy)
            if final.exists():  # a run that is repeated: a folder can't be renamed onto another
                final.rename(checkpoints / f".{final.name}.replaced")
            temporary.rename(final)
            # Renamed before they are removed, so that what has a checkpoint's name is whole at any moment.
            for _, old in _numbered(checkpoints)[:-keep]:
                if old != final:
                    old.rename(checkpoints / f".{old.name}.old")
            _sync(checkpoints)
        except OutputError as error:  # the bank's writer names a file of the temporary folder
            raise OutputError(error.what, where=final, fix=error.fix) from error
        finally:
            for path in checkpoints.glob(".step-*"):
                shutil.rmtree(path)
    return final


def sweep_checkpoints(run: Path) -> None:
    """Remove what a save that was killed left, for who alone writes the run. Raises OutputError."""
    with output_faults(run):
        for left_over in (run / "checkpoints").glob(".step-*"):
            shutil.rmtree(left_over)


def _write(
    into: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Any],
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    meta: Mapping[str, Any],
    bank_folder_writer: Callable[[Path], None] | None,
    taxonomy: str | None,
) -> None:
    import safetensors.torch
    import torch

    into.chmod(0o755)  # mkdtemp's folder is its maker's alone
    # Through memory: the two libraries' own writers report a full disk in words of their own, not as an OSError.
    whole_tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    (into / _WEIGHTS).write_bytes(safetensors.torch.save(whole_tensors))
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    (into / _STATE).write_bytes(buffer.getbuffer())
    (into / _CONFIG).write_bytes(tomli_w.dumps(config).encode())
    if bank_folder_writer is not None:
        bank_folder_writer(into / _BANK)
    if taxonomy is not None:
        (into / _TAXONOMY).write_text(taxonomy, encoding="utf-8")
    whole = {
        "format": FORMAT,
        "model": dict(model),
        "step": step,
        "sha256": {name: sha256_file(into / name) for name in (_WEIGHTS, _STATE)},
    }
    if taken := sorted(whole.keys() & meta.keys()):
        raise ValueError(f"meta holds keys that the format sets: {', '.join(taken)}")
    (into / _META).write_text(json.dumps({**whole, **meta}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for path in [*into.rglob("*"), into]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _numbered(checkpoints: Path) -> list[tuple[int, Path]]:
    """The complete checkpoints in a folder, by step."""
    found = [(match, path) for path in checkpoints.glob("step-*") if (match := _STEP.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found if _is_checkpoint(path))


def _is_checkpoint(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that `path` means: itself, or the newest complete one of the run it is.

    Of one at a URL, the folder in the cache that stands for it, without what only resuming needs.

    Raises:
        CheckpointError: it is neither.
        RemoteError: it is at a URL and can't be fetched.
    """
    if (url := url_of(path)) is not None:
        return _fetch_checkpoint(url)
    if _is_checkpoint(path):
        return path
    if numbered := _numbered(path / "checkpoints"):
        return numbered[-1][1]
    if not path.exists():
        raise CheckpointError("no such run or checkpoint", where=path, fix=near_path(path) or None)
    if any((path / name).exists() for name in (_WEIGHTS, _META)):
        missing = [name for name in _FILES if not (path / name).is_file()]
        raise CheckpointError(f"the checkpoint lacks {', '.join(missing)}", where=path, fix=_MEND)
    if (path / _CONFIG).is_file():
        raise CheckpointError(
            "the run has no checkpoint yet",
            where=path,
            fix="It was stopped, or is, before the first one (`checkpoint_every`); the same `labelmerge train` goes on",
        )
    raise CheckpointError(
        "there is no checkpoint here", where=path, fix="Give the folder that `labelmerge train --out` wrote"
    )


def _fetch_checkpoint(url: str) -> Path:
    names = list_files(url).keys()
    folders = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] == _META}
    whole = [folder for folder in folders if all((f"{folder}/{name}" if folder else name) in names for name in _FILES)]
    steps = {folder: int(match[1]) for folder in whole if (match := _STEP.fullmatch(folder.removeprefix(_STEPS)))}
    if "" in whole:
        found = url
    elif steps:
        found = f"{url.rstrip('/')}/{max(steps, key=lambda folder: steps[folder])}"
    else:
        lists = "; a web server must list its folders" if is_web(url) else ""
        raise CheckpointError(
            "there is no checkpoint here", where=url, fix=f"Give what `labelmerge train` wrote{lists}"
        )
    hashes = read_meta(local_file(Path(f"{found}/{_META}")).parent)["sha256"]
    return local_folder(Path(found), lambda name: name != _STATE, {_WEIGHTS: hashes[_WEIGHTS]})


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run; None where there is none yet, or no run."""
    try:
        return find_checkpoint(run)
    except CheckpointError:
        return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint.

    Args:
        path: a run or a checkpoint folder, as for `find_checkpoint`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    folder = find_checkpoint(path)
    meta = read_meta(folder)
    config = read_config(folder)
    weights = _checked(folder, _WEIGHTS, meta)
    try:
        tensors = safetensors.torch.load_file(weights)
    except (OSError, SafetensorError) as error:
        raise CheckpointError("the weights can't be read", where=weights) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"the weights {name!r} hold values that are not finite", where=weights, fix=_MEND)
    bank, taxonomy = folder / _BANK, folder / _TAXONOMY
    return Checkpoint(
        tensors=tensors,
        config=config,
        meta=meta,
        step=meta["step"],
        hash=meta["sha256"][_WEIGHTS][:16],
        folder=folder,
        bank_folder=bank if bank.is_dir() else None,
        taxonomy_file=taxonomy if taxonomy.is_file() else None,
    )


def load_state(path: Path) -> dict[str, Any]:
    """The `state` that `save_checkpoint` was given, on the CPU.

    Args:
        path: a run or a checkpoint folder.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    import torch

    folder = find_checkpoint(path)
    file = _checked(folder, _STATE, read_meta(folder))
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler stumbles over
        raise CheckpointError("the training state can't be read", where=file) from error
    if not isinstance(state, dict):
        raise CheckpointError("the training state can't be read", where=file)
    return state


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of a checkpoint folder; raises CheckpointError where it is damaged."""
    path = folder / _META
    try:
        meta = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError("can't be read as JSON", where=path, fix=_MEND) from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise CheckpointError(f"its format is {found!r}, not {FORMAT!r}", where=path)
    model, hashes = meta.get("model"), meta.get("sha256")
    well_formed = (
        type(meta.get("step")) is int
        and meta["step"] >= 0
        and isinstance(model, dict)
        and isinstance(model.get("name"), str)
        and type(model.get("embedding_dim")) is int
        and isinstance(hashes, dict)
        and isinstance(hashes.get(_WEIGHTS), str)
    )
    if not well_formed or not isinstance(model, dict):
        raise CheckpointError("lacks step, model or sha256", where=path, fix=_MEND)
    for name, kind in _ADDED.items():
        if name in meta and not isinstance(meta[name], kind):
            raise CheckpointError(f"{name} is a {type(meta[name]).__name__}", where=path, fix=_MEND)
    for name, number in (("embedding_dim", model["embedding_dim"]), ("label_dim", meta.get("label_dim", 1))):
        if not 0 < number <= _MOST_CHANNELS:
            raise CheckpointError(f"{name} is {number}, not 1 to {_MOST_CHANNELS}", where=path, fix=_MEND)
    return meta


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a checkpoint folder; raises CheckpointError where it is damaged."""
    path = folder / _CONFIG
    try:
        return parse_toml(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError("can't be read as TOML", where=path, fix=_MEND) from error


def _checked(folder: Path, name: str, meta: Mapping[str, Any]) -> Path:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            "is missing, and no run can resume without it", where=path, fix="Start a new run with --init"
        )
    if sha256_file(path) != meta["sha256"].get(name):
        raise CheckpointError("the file is damaged: its SHA-256 is not the one in meta.json", where=path, fix=_MEND)
    return path
