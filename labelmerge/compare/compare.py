"""Variants of one training run, side by side: each is trained and measured by the commands that do it alone.

::

    labelmerge compare --shards shards-out --bank bank --eval-shards shards-out/camvid --out table7 \\
        --vary merge=naive merge=name merge=embedding

A comparison is a plan of command lines, made and checked as a whole before the first of them runs. Each runs in a
process of its own, so that memory is free for the next, and what is done already is not done again: the folder of a
variant is a run with its results.json, and says by itself how far it is. docs/evaluation.md, "A whole comparison".
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from labelmerge.compare.records import read_results
from labelmerge.compare.report import report_runs
from labelmerge.device import choose_device
from labelmerge.errors import ConfigError, LabelmergeError, UsageError, did_you_mean
from labelmerge.evaluate.sets import EvalSet, open_sets
from labelmerge.evaluate.views import Views
from labelmerge.files import locked, output_faults
from labelmerge.methods.method import find_method
from labelmerge.model.checkpoint import newest_checkpoint, read_meta
from labelmerge.processes import Ranks
from labelmerge.train.begin import begin
from labelmerge.train.config import TrainConfig, load_config, parse_setting
from labelmerge.train.inputs import read_inputs
from labelmerge.train.run import claim_run, last_loss
from labelmerge.workers import interrupts_held_back

RESULTS = "results.json"
INPUTS = ("shards", "bank", "preset", "config")
"""What may vary besides the settings: options of `train` that name folders, files and presets."""

_PATHS = ("shards", "bank", "config", "mapping", "init", "pretrained")
_WEIGHTS = "model.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        out: every variant's run goes into a folder of it, the report beside them.
        vary: what differs, as ``KEY=VALUE`` (`find_variants`).
        shards, bank, preset, config, split, device: of all variants, as `train` takes them; what varies is left out.
        settings: of all variants; the values as texts, as ``train --set KEY=VALUE`` takes them.
        eval_shards: what every variant is measured on.
        eval_options: keywords of `labelmerge.evaluate.evaluate.evaluate`: short_edge, scales, flip, window,
            window_stride, split, limit; those that are not the default.
    """

    out: Path
    vary: Sequence[str]
    eval_shards: Sequence[Path]
    shards: Sequence[Path] = ()
    bank: Path | None = None
    preset: str | None = None
    config: Path | None = None
    split: str = "train"
    device: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    eval_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: its name, and what it has for itself, by key."""

    name: str
    own: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """A variant, the two commands that make and measure it, and how far it is.

    Attributes:
        folder: its run.
        train, evaluate: the words after ``labelmerge``.
        trained: the run is finished.
        measured: its results.json is of the finished run, of these sets, and was measured as asked.
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
    """Everything that a comparison runs, in this order: each variant's two commands, then the report."""

    out: Path
    jobs: tuple[Job, ...]
    report: tuple[str, ...]

    def lines(self, launcher: Sequence[str] = ()) -> list[str]:
        """Shell commands, one line for each variant and the last for the report."""
        lines = []
        for job in self.jobs:
            train, evaluate = (shlex.join([*launcher, "labelmerge", *words]) for words in (job.train, job.evaluate))
            lines.append(f"{train} && {evaluate}")
        return [*lines, shlex.join(["labelmerge", *self.report])]

    def to_json(self) -> dict[str, Any]:
        """The variants with their commands, each a list of words, and how far they are."""
        variants = [
            {
                "name": job.variant.name,
                "settings": dict(job.variant.own),
                "folder": str(job.folder),
                "state": job.state,
                "train": ["labelmerge", *job.train],
                "eval": ["labelmerge", *job.evaluate],
            }
            for job in self.jobs
        ]
        return {"variants": variants, "report": ["labelmerge", *self.report]}


@dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Attributes:
        failed: ``training`` or ``evaluation``, whichever did; "" where neither did.
        miou: by set (``<dataset>-<split>``), 0..1, None where it has no meaning; empty where one failed.
        harmonic_mean: over the sets.
    """

    job: Job
    failed: str = ""
    miou: Mapping[str, float | None] = field(default_factory=dict)
    harmonic_mean: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.job.variant.name,
            "settings": dict(self.job.variant.own),
            "folder": str(self.job.folder),
            "state": f"{self.failed} failed" if self.failed else "measured",
            "miou": dict(self.miou),
            "harmonic_mean": self.harmonic_mean,
        }


def find_variants(vary: Sequence[str]) -> list[Variant]:
    """The variants that ``--vary`` asks for: where several keys vary, every combination.

    A variant is called by its values; by key and value where the value is a number or the like, which says nothing
    alone.

    Args:
        vary: ``KEY=VALUE``, one for each value: a setting of training, or one of `INPUTS`. Settings that go together
            are joined, ``merge=table+mapping=groups.csv``; they are a value of the first key.

    Raises:
        UsageError: an unknown key, a value that is there twice, not of that form.
    """
    axes: dict[str, list[dict[str, str]]] = {}
    for text in vary:
        own = _assignments(text)
        axis = axes.setdefault(next(iter(own)), [])
        if own in axis:
            raise UsageError(f"--vary {text} is there twice")
        axis.append(own)
    if not axes:
        raise UsageError("nothing varies", fix="Give --vary KEY=VALUE once for each variant")
    combined = []
    for chosen in itertools.product(*axes.values()):
        keys = [key for own in chosen for key in own]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise UsageError(f"--vary gives a variant two values of {twice[0]}", fix="Vary each key in one place")
        combined.append({key: value for own in chosen for key, value in own.items()})
    names = ["+".join(_name(key, value) for key, value in own.items()) for own in combined]
    if len(set(names)) < len(names):  # two paths that end alike
        names = ["+".join(_name(key, value, whole=True) for key, value in own.items()) for own in combined]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two variants would be called {twice[0]!r}", fix="Call the folders or files differently")
    return [Variant(name, own) for name, own in zip(names, combined, strict=True)]


def _assignments(text: str) -> dict[str, str]:
    known = [*INPUTS, *(setting.name for setting in fields(TrainConfig))]
    own: dict[str, str] = {}
    for part in re.split(r"\+(?=\w+=)", text):  # a plus within a value (1e+3) is no end of it
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--vary {text!r} is not KEY=VALUE", fix="For instance --vary merge=naive")
        if key not in known:
            raise UsageError(f"--vary {text}: unknown setting {key!r}", fix=did_you_mean(key, known))
        if key in own:
            raise UsageError(f"--vary {text} gives {key} twice")
        own[key] = value
    return own


def _name(key: str, value: str, *, whole: bool = False) -> str:
    """A variant's part of a folder's name. `whole`: of a path, not its last part alone."""
    speaks = key in INPUTS or isinstance(parse_setting(f"{key}={value}")[1], str)
    said = Path(value).name if key in _PATHS and not whole else value
    name = re.sub(r"[^\w.,=+-]+", "-", said if speaks and said else f"{key}={''.join(said.split())}").strip("-.")
    return name or key


def make_plan(asked: Comparison, *, here: bool = True) -> Plan:
    """Check everything that can be checked at once, and plan what is to be run.

    All inputs are opened, every variant's model is begun, and folders that hold another run are refused.

    Args:
        here: it is to run on this machine; its device is checked too.

    Raises:
        UsageError, ConfigError: what is asked for makes no sense; all variants at fault are named in one message.
        ShardError, BankError, CheckpointError …: an input can't be used, or doesn't fit.
    """
    variants = find_variants(asked.vary)
    _refuse_both(asked, variants)
    views = Views(**{key: value for key, value in asked.eval_options.items() if key not in ("split", "limit")})
    sets = open_sets(asked.eval_shards, [], asked.eval_options.get("split"))
    if here:
        choose_device(asked.device)
    jobs: list[Job] = []
    same: dict[str, str] = {}
    begun: set[tuple[object, ...]] = set()
    faults: dict[str, list[str]] = {}  # what is wrong: the names of those where it is
    for variant in variants:
        try:
            jobs.append(_plan_job(asked, variant, sets, views, same, begun))
        except LabelmergeError as error:
            folder = asked.out / variant.name
            where = None if error.where == folder else error.where
            faults.setdefault(str(LabelmergeError(error.what, where=where, fix=error.fix)), []).append(variant.name)
    if faults:
        said = [f"{', '.join(names)}: {what}" for what, names in faults.items()]
        raise ConfigError("; ".join(text.rstrip(".") for text in said), where=asked.out)
    report = ("report", *(str(job.folder) for job in jobs), "--out", str(asked.out))
    return Plan(asked.out, tuple(jobs), report)


def _refuse_both(asked: Comparison, variants: Sequence[Variant]) -> None:
    """Refuse what is given for all and varied too, and inputs that some variant lacks. Raises UsageError."""
    common = {key for key in INPUTS if getattr(asked, key)} | asked.settings.keys()
    varied = {key for variant in variants for key in variant.own}
    if both := sorted(common & varied):
        raise UsageError(f"{both[0]} is varied, and given for all variants too", fix="Leave one of them out")
    for key in ("shards", "bank"):
        if key not in common and not all(key in variant.own for variant in variants):
            raise UsageError(f"nothing says which {key} to train with", fix=f"Give --{key}, or --vary {key}=PATH")


def _plan_job(
    asked: Comparison,
    variant: Variant,
    sets: Sequence[EvalSet],
    views: Views,
    same: dict[str, str],
    begun: set[tuple[object, ...]],
) -> Job:
    """Check one variant as `train` and `eval` will, and see how far it is.

    Args:
        same: what the variants so far compute, and their names.
        begun: the models that could be made.
    """
    folder, own = asked.out / variant.name, variant.own
    shards = [Path(own["shards"])] if "shards" in own else list(asked.shards)
    bank = Path(own["bank"]) if "bank" in own else asked.bank
    assert bank is not None  # `_refuse_both`
    preset = own.get("preset", asked.preset)
    config_file = Path(own["config"]) if "config" in own else asked.config
    settings = {**asked.settings, **{key: value for key, value in own.items() if key not in INPUTS}}

    words = ["train", "--shards", *map(str, shards), "--bank", str(bank), "--out", str(folder)]
    words += ["--preset", preset] if preset else []
    words += ["--config", str(config_file)] if config_file else []
    words += ["--split", asked.split] if asked.split != "train" else []
    device = ["--device", asked.device] if asked.device else []
    words += device
    assignments = [f"{key}={text}" for key, text in settings.items()]
    words += ["--set", *assignments] if assignments else []
    # Without --bank: each is measured with the vectors that it was trained with, which its checkpoint carries.
    measure = ["eval", "--checkpoint", str(folder), "--shards", *map(str, asked.eval_shards)]
    measure += ["--out", str(folder / RESULTS), *_options(asked.eval_options), *device]

    config = load_config(preset, config_file, dict(map(parse_setting, assignments)))
    _refuse_mapping(config, "mapping" in asked.settings)
    checkpoint = newest_checkpoint(folder)
    with _quietly():
        inputs = read_inputs(shards, bank, asked.split, config, find_method(config.method), Ranks())
        for data in sets:
            inputs.bank.rows(data.space.keys)
        computed = {**config.to_dict(), "mapping": "", "losses": sorted(config.losses)}
        what = json.dumps([computed, inputs.record["bank_version"], inputs.record["manifests"]])
        if what in same:
            raise ConfigError(f"is the same as {same[what]}", fix="Vary something that makes a difference")
        same[what] = variant.name
        if checkpoint is not None:
            claim_run(folder, config, inputs.record, begun=True)
        elif (model := (config.model, config.pretrained, config.init, inputs.bank.dim)) not in begun:
            begin(config, inputs.bank)
            begun.add(model)
    if checkpoint is None or read_meta(checkpoint)["step"] < config.steps:
        return Job(variant, folder, tuple(words), tuple(measure), trained=False, measured=False)
    if "short_edge" not in asked.eval_options:
        views = replace(views, short_edge=config.short_edge)
    protocol = {**views.to_json(), **{key: asked.eval_options.get(key) for key in ("split", "limit")}}
    measured = _is_measured(folder / RESULTS, checkpoint, inputs.bank.content_hash, sets, protocol)
    return Job(variant, folder, tuple(words), tuple(measure), trained=True, measured=measured)


def _refuse_mapping(config: TrainConfig, given_to_all: bool) -> None:
    """What `merged_bank` would refuse, in words that help here. Raises UsageError."""
    fix = "Give it to one variant: --vary merge=table+mapping=FILE"
    if config.merge in ("naive", "name") and given_to_all:
        raise UsageError(f"the merge {config.merge!r} has no use for a mapping", fix=fix)
    if config.merge == "table" and not config.mapping:
        raise UsageError("the merge by table needs a mapping", fix=f"{fix}; `labelmerge merge` writes one")


def _options(options: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, tuple):
            value = ",".join(str(number).removesuffix(".0") for number in value)
        words += [flag] if value is True else [flag, str(value)]
    return words


def _is_measured(
    results: Path, checkpoint: Path, bank_hash: str, sets: Sequence[EvalSet], protocol: Mapping[str, Any]
) -> bool:
    """Whether a results.json is of this checkpoint with its own bank, of these sets, and was measured this way."""
    try:
        found = read_results(results)
    except LabelmergeError:  # none, or a damaged one: measured again
        return False
    weights = str(read_meta(checkpoint)["sha256"][_WEIGHTS])
    return (
        weights.startswith(str(found.checkpoint["hash"]))
        and found.protocol.get("bank", {}).get("content_sha256") == bank_hash
        and {name: figures.data for name, figures in found.sets.items()}
        == {data.name: str(data.source["manifest_sha256"]) for data in sets}
        and all(found.protocol.get(key) == value for key, value in protocol.items())
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the log of training: what it says of a variant it says again when it begins."""
    logger = logging.getLogger("labelmerge.train")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def run_plan(plan: Plan, program: Sequence[str]) -> list[Outcome]:
    """Run what is not done yet, one command after the other, and write the report again after every variant.

    A variant that fails is logged, and the next begins. What the commands write to standard error (progress, warnings,
    errors) goes to this process's; their standard output goes nowhere, since everything it says is in the run.

    Args:
        program: what stands before a command's words: the installed command, after its launcher if it has one.

    Raises:
        OutputError: `plan.out` can't be written, or another process is running a comparison there.
        KeyboardInterrupt: by Ctrl-C or a termination signal; the command that was running is ended first.
    """
    with output_faults(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with locked(plan.out / ".compare.lock", "this comparison"), _terminated_as_interrupted():
        for number, job in enumerate(plan.jobs, 1):
            outcomes.append(_run_job(job, f"{number}/{len(plan.jobs)} {job.variant.name}", program))
            if runs := [each.folder for each in plan.jobs if (each.folder / "config.toml").is_file()]:
                report_runs(runs, plan.out)
    return outcomes


def _run_job(job: Job, title: str, program: Sequence[str]) -> Outcome:
    if not job.trained:
        seconds = _run(title, "training", [*program, *job.train])
        if seconds is None:
            return Outcome(job, "training")
        _log.info("%s: trained, loss %.3f, %s", title, last_loss(job.folder), _duration(seconds))
    if not job.measured:
        if _run(title, "evaluation", [*program, *job.evaluate]) is None:
            return Outcome(job, "evaluation")
    content = json.loads((job.folder / RESULTS).read_text(encoding="utf-8"))
    miou = {f"{entry['dataset']}-{entry['split']}": entry["miou"] for entry in content["sets"]}
    harmonic_mean = content["harmonic_mean"]
    _log.info(
        "%s: %s, harmonic mean %s",
        title, "was measured before" if job.measured else "measured",
        "-" if harmonic_mean is None else f"{100 * harmonic_mean:.1f} %",
    )  # fmt: skip
    return Outcome(job, "", miou, harmonic_mean)


def _run(title: str, what: str, command: Sequence[str]) -> float | None:
    """Run a command to its end: the seconds it took, or None where it failed; the log says which."""
    _log.info("%s: %s", title, what)
    began = time.monotonic()
    with interrupts_held_back():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status == 0:
        return time.monotonic() - began
    # One that was killed may have left a progress bar without the end of its line.
    end, how = ("", f"exit status {status}") if status > 0 else ("\n", f"killed by {signal.Signals(-status).name}")
    _log.error("%s%s: %s failed (%s): %s", end, title, what, how, shlex.join(command))
    return None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A request to end comes as Ctrl-C does, so that no command is left running without this process."""
    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
