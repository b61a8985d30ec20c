"""The plan of a comparison: the commands of every variant, all checked before the first one runs."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelmerge import __version__
from labelmerge.compare.asked import Comparison, Faults, asked_variants, config_of
from labelmerge.compare.records import read_results
from labelmerge.compare.variants import INPUTS, Variant
from labelmerge.device import choose_device
from labelmerge.errors import ConfigError, LabelmergeError, UsageError
from labelmerge.evaluate.classes import Classes, names_of
from labelmerge.evaluate.sets import EvalSet, open_sets
from labelmerge.methods.method import find_method
from labelmerge.model.checkpoint import newest_checkpoint, read_meta
from labelmerge.model.views import Views
from labelmerge.processes import Ranks
from labelmerge.train.begin import begin
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs
from labelmerge.train.run import claim_run
from labelmerge.urls import path_or_url

RESULTS = "results.json"
_NO_VIEWS = ("split", "limit", "task", "mixed", "only", "leave_out", "depth_crop", "depth_max")  # of `eval`'s options
_WEIGHTS = "model.safetensors"
_OTHERWISE = {"--by", "--taxonomy", "--segment-score"}
"""Options of `eval` that no comparison gives: results that were measured with one are another measurement's."""


@dataclass(frozen=True)
class Job:
    """A variant, the two commands that train and measure it, and how far it has come.

    Attributes:
        folder: its run.
        train, evaluate: the words after ``labelmerge``; `evaluate` is () where nothing is to be measured.
        trained: the run is finished.
        measured: its results.json is about the finished run and these sets, measured as asked.
    """

    variant: Variant
    folder: Path
    train: tuple[str, ...]
    evaluate: tuple[str, ...]
    trained: bool
    measured: bool

    @property
    def state(self) -> str:
        """``measured``, ``trained`` or ``unfinished``."""
        return "measured" if self.measured else "trained" if self.trained else "unfinished"


@dataclass(frozen=True)
class Plan:
    """All that a comparison runs: each variant's two commands, then the report."""

    out: Path
    jobs: tuple[Job, ...]
    report: tuple[str, ...]

    def lines(self, launcher: Sequence[str] = ()) -> list[str]:
        """Shell commands: a line for each variant, and the last for the report."""
        lines = []
        for job in self.jobs:
            both = (shlex.join([*launcher, "labelmerge", *words]) for words in (job.train, job.evaluate) if words)
            lines.append(" && ".join(both))
        return [*lines, shlex.join(["labelmerge", *self.report])]

    def to_json(self) -> dict[str, Any]:
        """The variants with their commands, each a list of words, and how far they have come."""
        variants = [
            {
                "name": job.variant.name,
                "settings": dict(job.variant.own),
                "folder": str(job.folder),
                "state": job.state,
                "train": ["labelmerge", *job.train],
                "eval": ["labelmerge", *job.evaluate] if job.evaluate else [],
            }
            for job in self.jobs
        ]
        return {"variants": variants, "report": ["labelmerge", *self.report]}


def make_plan(asked: Comparison, *, here: bool = True) -> Plan:
    """Check everything that can be checked beforehand, and plan what to run.

    Opens all inputs, builds every variant's model, and refuses folders that hold another run.

    Args:
        here: the plan is to run on this machine, so its device is checked too.

    Raises:
        UsageError, ConfigError: the request makes no sense, or variants are wrong; one message names them all.
        ShardError, BankError, CheckpointError …: an input can't be used or doesn't fit.
    """
    variants = asked_variants(asked)
    views = Views(**{key: value for key, value in asked.eval_options.items() if key not in _NO_VIEWS})
    depth = _gives_depth(asked, variants)
    sets = open_sets(asked.eval_shards, [], asked.eval_options.get("split"), depth=depth)
    _refuse_classes(asked.eval_options, sets, depth)
    if here:
        choose_device(asked.device)
    jobs: list[Job] = []
    same: dict[str, str] = {}
    begun: set[tuple[object, ...]] = set()
    faults = Faults(asked.out)
    planned = [
        (
            replace(asked, shards=run.shards, settings=run.settings, eval_shards=run.eval_shards),
            Variant(run.name, run.inputs),
        )
        for run in asked.first
    ]
    for own, variant in [*planned, *((asked, variant) for variant in variants)]:
        first = own is not asked
        with faults.of(variant):
            here_measured = [data for data in sets if not first or Path(data.where) in own.eval_shards]
            jobs.append(_plan_job(own, variant, here_measured, views, {} if first else same, begun, jobs))
    faults.refuse()
    report = ("report", *(str(job.folder) for job in jobs if job.evaluate), "--out", str(asked.out))
    return Plan(asked.out, tuple(jobs), report)


def _gives_depth(asked: Comparison, variants: Sequence[Variant]) -> bool:
    """Whether the variants give depths in place of labels. Raises UsageError where some do and others don't."""
    found = set()
    for variant in variants:
        with suppress(LabelmergeError):  # said when the variant is planned
            found.add(find_method(config_of(asked, variant.own).method).answers)
    if len(found) > 1:
        raise UsageError("some variants give depths and others labels", fix="Compare them one after the other")
    return found == {"depth"}


def _plan_job(
    asked: Comparison,
    variant: Variant,
    sets: Sequence[EvalSet],
    views: Views,
    same: dict[str, str],
    begun: set[tuple[object, ...]],
    before: Sequence[Job],
) -> Job:
    """Check one variant as `train` and `eval` will, and see how far it has come.

    Args:
        same: what each earlier variant computes, and its name; this one is added.
        begun: the models that could be built so far; this one's is added.
        before: what is trained before it.
    """
    folder, own = asked.out / variant.name, variant.own
    shards = [Path(own["shards"])] if "shards" in own else list(asked.shards)
    bank = Path(own["bank"]) if "bank" in own else asked.bank
    assert bank is not None  # `asked_variants`
    preset = own.get("preset", asked.preset)
    config_file = Path(own["config"]) if "config" in own else asked.config
    settings = {**asked.settings, **{key: value for key, value in own.items() if key not in INPUTS}}

    words = ["train", "--shards", *map(path_or_url, shards), "--bank", path_or_url(bank), "--out", str(folder)]
    words += ["--preset", preset] if preset else []
    words += ["--config", str(config_file)] if config_file else []
    words += ["--split", asked.split] if asked.split != "train" else []
    device = ["--device", asked.device] if asked.device else []
    words += device
    assignments = [f"{key}={text}" for key, text in settings.items()]
    words += ["--set", *assignments] if assignments else []
    # No --bank: each is measured with the vectors that it was trained with, which its checkpoint holds.
    measure = ["eval", "--checkpoint", str(folder), "--shards", *map(path_or_url, asked.eval_shards)]
    measure += ["--out", str(folder / RESULTS), *_options(asked.eval_options), *device]
    if not sets:
        measure = []

    config = config_of(asked, own)
    _refuse_taxonomy(config, "taxonomy" in asked.settings)
    checkpoint = newest_checkpoint(folder)
    with _quietly():
        method = find_method(config.method)
        inputs = read_inputs(shards, bank, asked.split, config, method, Ranks())
        config = config.with_steps_for(inputs.samples)
        for data in sets if method.answers == "labels" else ():
            inputs.bank.rows(data.space.keys)
        computed = {
            name: sorted(value) if isinstance(value, list) else value  # in whatever order they were given
            for name, value in {**config.to_dict(), "taxonomy": ""}.items()
        }
        what = json.dumps([computed, inputs.record["bank_version"], inputs.record["manifests"]])
        if what in same:
            raise ConfigError(f"is the same as {same[what]}", fix="Vary something that makes a difference")
        same[what] = variant.name
        if checkpoint is not None:
            claim_run(folder, config, inputs.record, begun=True)
        elif (
            not _awaits(config, before)
            and (
                model := (
                    config.method,
                    config.model,
                    config.pretrained,
                    config.init,
                    config.encoder_only,
                    inputs.bank.dim,
                )
            )
            not in begun
        ):
            begin(config, method, inputs.vocabulary, inputs.bank.encoder)
            begun.add(model)
    if checkpoint is None or read_meta(checkpoint)["step"] < config.steps:
        return Job(variant, folder, tuple(words), tuple(measure), trained=False, measured=False)
    if not sets:
        return Job(variant, folder, tuple(words), (), trained=True, measured=False)
    own_edges: dict[str, int] = {}
    if "short_edge" not in asked.eval_options:
        views = replace(views, short_edge=config.short_edge)
        tables = ((data.dataset, config.views.get(data.dataset, {})) for data in sets)
        own_edges = {name: table["short_edge"] for name, table in tables if "short_edge" in table}
        own_edges = {name: edge for name, edge in own_edges.items() if edge != config.short_edge}
    limits = ("split", "limit", "depth_crop", "depth_max")
    protocol = {**views.to_json(), **{key: asked.eval_options.get(key) for key in limits}}
    protocol["short_edges"] = own_edges or None
    if tasks := [task for task in ("panoptic", "instances") if task in asked.eval_options.get("task", ())]:
        protocol["tasks"] = tasks
    if asked.eval_options.get("mixed"):
        protocol["mixed"] = True
    protocol["classes"] = _classes(asked.eval_options).to_json() or None
    measured = _is_measured(folder / RESULTS, checkpoint, inputs.bank.content_hash, sets, protocol)
    return Job(variant, folder, tuple(words), tuple(measure), trained=True, measured=measured)


def _classes(eval_options: Mapping[str, Any]) -> Classes:
    """Which classes are measured."""
    chosen = {key: names_of(words) for key in ("only", "leave_out") if (words := eval_options.get(key)) is not None}
    return Classes(**chosen)


def _refuse_classes(eval_options: Mapping[str, Any], sets: Sequence[EvalSet], depth: bool) -> None:
    """Raise UsageError for classes that no set has, or where all that is measured is not classes."""
    classes = _classes(eval_options)
    if classes and (depth or eval_options.get("task")):
        fix = "Leave out --eval-only and --eval-leave-out, or --eval-task"
        raise UsageError("some classes alone are measured by pixels", fix=fix)
    classes.of(sets)


def _awaits(config: TrainConfig, before: Sequence[Job]) -> bool:
    """Whether a run begins with another that is still to be trained, so that it can't be looked at yet."""
    wanted = {config.init, config.pretrained}
    return any(str(job.folder) in wanted for job in before if not job.trained)


def _refuse_taxonomy(config: TrainConfig, given_to_all: bool) -> None:
    """Refuse what `taxonomy_of` would, in words that help here. Raises UsageError."""
    fix = "Give it to one variant: --vary merge=table+taxonomy=FILE"
    if config.merge not in ("concepts", "table") and given_to_all:
        raise UsageError(f"merge = {config.merge} takes no taxonomy", fix=fix)
    if config.merge == "table" and not config.taxonomy:
        raise UsageError("merge = table needs a taxonomy", fix=f"{fix}; `labelmerge merge` writes one")


def _options(options: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            words += [flag, *value]
            continue
        if isinstance(value, tuple):
            value = ",".join(str(number).removesuffix(".0") for number in value)
        words += [flag] if value is True else [flag, str(value)]
    return words


def _is_measured(
    results: Path, checkpoint: Path, bank_hash: str, sets: Sequence[EvalSet], protocol: Mapping[str, Any]
) -> bool:
    """Whether a results.json is about this checkpoint with its own bank and these sets, measured this way, by us."""
    try:
        found = read_results(results)
    except LabelmergeError:  # missing or damaged: measured again
        return False
    weights = str(read_meta(checkpoint)["sha256"][_WEIGHTS])
    return (
        found.version == __version__
        and weights.startswith(str(found.checkpoint["hash"]))
        and found.protocol.get("bank", {}).get("content_sha256") == bank_hash
        and {name: figures.data for name, figures in found.sets.items()}
        == {data.name: str(data.source["manifest_sha256"]) for data in sets}
        and all(found.protocol.get(key) == value for key, value in protocol.items())
        and _OTHERWISE.isdisjoint(found.command.split())
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep training's log back: it says the same again when the variant runs."""
    logger = logging.getLogger("labelmerge.train")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
