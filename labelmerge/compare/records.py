"""Runs and results as they lie on disk (docs/architecture.md, "A run"; docs/evaluation.md, "results.json")."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelmerge.compare.examples import ExampleRecord, read_examples
from labelmerge.errors import CheckpointError, LabelmergeError
from labelmerge.parsing import parse_json, parse_toml
from labelmerge.remote import local_file, local_folder
from labelmerge.train.log import read_log
from labelmerge.urls import path_or_url

RESULTS_FORMAT = "labelmerge-results/1"
_HASH_DIGITS = 16  # of the weights' SHA-256 that results.json names a checkpoint by

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetFigures:
    """What a results.json says of one set; figures are 0..1, None where they have no meaning.

    Attributes:
        data: what tells whether two results are of the same data.
        figures: the set's figures by their key in results.json.
        classes: IoU by class name, in the order of the label space; numbers tell classes of one name apart.
        names: the classes' names alone, in that order.
        unknown: how many of them have no vector, and are never predicted.
        examples: the images of which it has pictures.
        worst: the same of those with the most mistakes.
    """

    data: str
    images: int
    figures: Mapping[str, float | None]
    classes: Mapping[str, float | None]
    unknown: int = 0
    examples: Sequence[ExampleRecord] = ()
    worst: Sequence[ExampleRecord] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """One results.json: by set name, the protocol as it stands there, and the version of labelmerge and the command
    that measured."""

    path: Path
    sets: Mapping[str, SetFigures]
    protocol: Mapping[str, Any]
    version: str = ""
    command: str = ""

    @property
    def checkpoint(self) -> Mapping[str, Any]:
        """hash, step, model, merge."""
        found: Mapping[str, Any] = self.protocol["checkpoint"]
        return found


@dataclass(frozen=True)
class RunRecord:
    """A run folder, or, where only results are at hand, what they say of it.

    Attributes:
        name: what it is called beside the others.
        folder: None where only results are at hand.
        settings: config.toml without its table of inputs.
        inputs: that table.
        meta: meta.json of the newest checkpoint; empty where there is none yet.
        log: the lines of log.jsonl.
        checkpoints: how results name the checkpoints that are there.
        results: what was measured with it.
    """

    name: str
    folder: Path | None
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    meta: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    checkpoints: Sequence[str]
    results: Sequence[Measured] = ()

    @property
    def merge(self) -> str:
        """How labels were merged; "?" where neither run nor results say."""
        said = [self.meta.get("merge"), self.settings.get("merge")]
        said += [measured.checkpoint.get("merge") for measured in self.results]
        return next((str(kind) for kind in said if kind), "?")


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Runs with their results, in the order given.

    Args:
        paths: run folders, and results.json files; each belongs to the run that has its checkpoint, or else
            counts as a run of its own. Results that lie in a run folder are found.

    What is damaged is left out, which a warning says, as long as something remains.

    Raises:
        CheckpointError: some folders are not runs; the message names all of them.
        LabelmergeError: nothing can be read; the message is about the first.
    """
    paths = [_local(path) for path in paths]
    unique = list({path.resolve(): path for path in paths}.values())
    wrong = [path_or_url(path) for path in unique if not path.is_file() and not (path / "config.toml").is_file()]
    if wrong:
        raise CheckpointError(
            f"not {'a run' if len(wrong) == 1 else 'runs'}: {', '.join(wrong)}",
            fix="Give folders that `labelmerge train --out` wrote (config.toml is in them), or results.json files",
        )
    runs: list[RunRecord] = []
    faults: list[LabelmergeError] = []
    for path in sorted(unique, key=Path.is_file):  # results come after the runs that they may be of
        try:
            if path.is_dir():
                runs.append(_read_run(path))
            else:
                _assign(read_results(path), runs)
        except LabelmergeError as error:
            faults.append(error)
    if faults and not runs:
        raise faults[0]
    for fault in faults:
        _log.warning("left out: %s", fault)
    return _named(runs)


def _local(path: Path) -> Path:
    """A run's folder or a results.json here; of one at a URL, what a record is made of, in the cache."""
    return local_file(path) if path.suffix == ".json" else local_folder(path, _is_of_record)


def _is_of_record(name: str) -> bool:
    return name in ("config.toml", "log.jsonl") or name.endswith((".json", ".webp"))


def _read_run(folder: Path) -> RunRecord:
    try:
        config = parse_toml((folder / "config.toml").read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can't be read as TOML ({error})", where=folder / "config.toml") from error
    metas = [_json(path) for path in sorted((folder / "checkpoints").glob("step-*/meta.json"), key=_step)]
    found = [_found(path) for path in sorted(folder.glob("*.json"))]
    hashes = {meta["step"]: _hash(meta) for meta in metas if type(meta.get("step")) is int}
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        settings={key: value for key, value in config.items() if key != "inputs"},
        inputs=config["inputs"] if isinstance(config.get("inputs"), dict) else {},
        meta=metas[-1] if metas else {},
        log=read_log(folder),
        checkpoints=[_hash(meta) for meta in metas],
        results=[measured for measured in found if measured is not None and not _is_stale(measured, hashes)],
    )


def _is_stale(measured: Measured, hashes: Mapping[int, str]) -> bool:
    """Whether results in a run's folder are of another run, such as the one that was there before; a warning says so.

    Those of a checkpoint of this run that is no longer kept are not.
    """
    step, weights = measured.checkpoint["step"], measured.checkpoint["hash"]
    if not hashes or weights in hashes.values() or (step not in hashes and step < max(hashes)):
        return False
    _log.warning("left out: %s (is of other weights than the run has at step %d: evaluate again)", measured.path, step)
    return True


def _step(path: Path) -> tuple[int, str]:
    number = path.parent.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1, number


def _hash(meta: Mapping[str, Any]) -> str:
    hashes = meta.get("sha256")
    return str(hashes.get("model.safetensors", ""))[:_HASH_DIGITS] if isinstance(hashes, dict) else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"can't be read as JSON ({error})", where=path) from error
    if not isinstance(content, dict):
        raise CheckpointError("is not a JSON object", where=path)
    return content


def _found(path: Path) -> Measured | None:
    """What a file of a run folder says, if it is a results.json."""
    try:
        if parse_json(path.read_bytes()).get("format") != RESULTS_FORMAT:
            return None
        return read_results(path)
    except (OSError, ValueError, AttributeError, LabelmergeError) as error:
        _log.warning("skipped: %s (%s)", path, error)
        return None


def read_results(path: Path) -> Measured:
    """Read a results.json. Raises LabelmergeError if it isn't one."""
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabelmergeError(f"can't be read as JSON ({error})", where=path) from error
    form = content.get("format") if isinstance(content, dict) else None
    if form != RESULTS_FORMAT:
        raise LabelmergeError(
            f"its format is {form!r}, not {RESULTS_FORMAT!r}", where=path, fix="`labelmerge eval --out` writes one"
        )
    try:
        measured = Measured(
            path=path,
            sets={f"{entry['dataset']}-{entry['split']}": _figures(entry, path) for entry in content["sets"]},
            protocol=dict(content["protocol"]),
            version=str(content.get("labelmerge", "")),
            command=str(content.get("reproduce", "")),
        )
        if not isinstance(measured.checkpoint["hash"], str) or type(measured.checkpoint["step"]) is not int:
            raise TypeError("checkpoint")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelmergeError(f"malformed ({error!r})", where=path, fix="Evaluate again") from error
    return measured


_FIGURES = ("miou", "miou_labelled", "frequency_weighted_iou", "mean_accuracy", "pixel_accuracy", "ignored_share")


_RELATED = ("ambiguity_aware", "mixed")
"""Figures that only some sets have, an mIoU each."""


def _figures(entry: Mapping[str, Any], path: Path) -> SetFigures:
    source = entry["source"]
    return SetFigures(
        data=str(source.get("manifest_sha256") or source.get("candidates")),
        images=int(entry["images"]),
        figures={
            **{key: _share(entry.get(key)) for key in _FIGURES},
            **{key: _share(entry[key]["miou"]) for key in _RELATED if key in entry},
            **{
                f"pq_{group}": _share(entry["panoptic"][group]["pq"])
                for group in ("all", "things", "stuff")
                if group in entry.get("panoptic", {})
            },
            **(_depth(entry["depth"]) if "depth" in entry else {}),
            **(
                {"mixed_pq": _share(entry["mixed"]["panoptic"]["all"]["pq"])}
                if "panoptic" in entry.get("mixed", {})
                else {}
            ),
            **({"ap": _share(entry["instances"]["ap"])} if "instances" in entry else {}),
        },
        classes=dict(zip(_names(entry["classes"]), (_share(row["iou"]) for row in entry["classes"]), strict=True)),
        unknown=sum("predicted_as" in row and row["predicted_as"] is None for row in entry["classes"]),
        examples=read_examples(path, f"{entry['dataset']}-{entry['split']}", entry.get("examples", ())),
        worst=read_examples(path, f"{entry['dataset']}-{entry['split']}", entry.get("worst", ())),
        names=tuple(str(row["name"]) for row in entry["classes"]),
    )


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes' names, with their numbers where a class list has a name twice."""
    names = [str(row["name"]) for row in rows]
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({row['index']})" for name, row in zip(names, rows, strict=True)]


def _depth(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """AbsRel, which has no upper end, and δ₁. Raises TypeError or ValueError where they are something else."""
    abs_rel = entry["abs_rel"]
    if not isinstance(abs_rel, int | float) or isinstance(abs_rel, bool):
        raise TypeError(abs_rel)
    if not 0 <= abs_rel < float("inf"):
        raise ValueError(f"{abs_rel} is no AbsRel")
    return {"abs_rel": float(abs_rel), "delta_1": _share(entry["delta_1"])}


def _share(value: Any) -> float | None:
    """Raises TypeError or ValueError where it is not a share."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(value)
    if not 0 <= value <= 1:
        raise ValueError(f"{value} is not within 0 to 1")
    return float(value)


def _assign(measured: Measured, runs: list[RunRecord]) -> None:
    """Give results to the run that has their checkpoint; where none has it, they are a run of their own."""
    for place, run in enumerate(runs):
        if measured.checkpoint["hash"] in run.checkpoints:
            if measured.path.resolve() not in [known.path.resolve() for known in run.results]:
                runs[place] = replace(run, results=[*run.results, measured])
            return
    name = measured.path.stem if measured.path.stem != "results" else measured.path.resolve().parent.name
    runs.append(RunRecord(name, None, {}, {}, {}, [], [str(measured.checkpoint["hash"])], [measured]))


def _named(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of one name get their parents' names too, or else numbers."""
    named: list[RunRecord] = []
    for run in runs:
        name = run.name
        if sum(other.name == name for other in runs) > 1 and run.folder is not None:
            name = f"{run.folder.resolve().parent.name}/{name}"
        number = 1
        while name in [other.name for other in named]:
            number += 1
            name = f"{run.name} ({number})"
        named.append(replace(run, name=name))
    return named
