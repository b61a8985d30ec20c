"""Variants of one training run, side by side: each is trained by `train` and measured by `eval`.

::

    labelmerge compare --shards shards-out --bank bank --eval-shards shards-out/camvid --out table7 \\
        --vary merge=naive merge=name merge=text

A comparison is a plan of command lines, made and checked as a whole before the first of them runs (`plan`). Each
command is a process of its own, so that the next finds memory free, and nothing is done twice: a variant's folder is a
run with its results.json, which shows how far it has come. See docs/evaluation.md, "A whole comparison".
"""

from __future__ import annotations

import logging
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from subprocess import DEVNULL, Popen
from typing import Any

from labelmerge.compare.plan import RESULTS, Job, Plan
from labelmerge.compare.report import report_runs
from labelmerge.files import locked, output_faults, say_others
from labelmerge.parsing import parse_json
from labelmerge.train.log import last_loss
from labelmerge.workers import interrupts_held_back

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a variant ended.

    Attributes:
        failed: ``training`` or ``evaluation``, whichever failed; "" if neither did.
        miou: by set (``<dataset>-<split>``), 0..1, None where it is undefined; empty if the variant failed.
        harmonic_mean: over the sets.
        abs_rel: of runs that give depths, in place of mIoU; by set.
    """

    job: Job
    failed: str = ""
    miou: Mapping[str, float | None] = field(default_factory=dict)
    harmonic_mean: float | None = None
    abs_rel: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.job.variant.name,
            "settings": dict(self.job.variant.own),
            "folder": str(self.job.folder),
            "state": f"{self.failed} failed" if self.failed else "measured" if self.job.evaluate else "trained",
            "miou": dict(self.miou),
            "harmonic_mean": self.harmonic_mean,
            **({"abs_rel": dict(self.abs_rel)} if self.abs_rel else {}),
        }


def run_plan(plan: Plan, program: Sequence[str]) -> list[Outcome]:
    """Run what is left, one command after the other, and write the report anew after every variant.

    A variant that fails is logged, and the next begins. The commands share this process's standard error (progress,
    warnings, errors); their standard output is dropped, since the run holds all that it says.

    Args:
        program: what to put before a command's words: a launcher if there is one, then the installed command.

    Raises:
        OutputError: `plan.out` can't be written, or another process is running a comparison there.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the command that was running has been ended.
    """
    say_others(plan.out, "a comparison", ("report.html", "*/config.toml", "first/*/config.toml"))
    with output_faults(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with locked(plan.out / ".compare.lock", "this comparison"), _terminated_as_interrupted():
        for number, job in enumerate(plan.jobs, 1):
            outcomes.append(_run_job(job, f"{number}/{len(plan.jobs)} {job.variant.name}", program))
            measured = [each.folder for each in plan.jobs if each.evaluate]
            if runs := [folder for folder in measured if (folder / "config.toml").is_file()]:
                report_runs(runs, plan.out)
    return outcomes


def _run_job(job: Job, title: str, program: Sequence[str]) -> Outcome:
    if not job.trained:
        seconds = _run(title, "training", [*program, *job.train])
        if seconds is None:
            return Outcome(job, "training")
        _log.info("%s: trained, loss %.3f, %s", title, last_loss(job.folder), _duration(seconds))
    if not job.evaluate:
        return Outcome(job)
    if not job.measured:
        if _run(title, "evaluation", [*program, *job.evaluate]) is None:
            return Outcome(job, "evaluation")
    content = parse_json((job.folder / RESULTS).read_bytes())
    miou = {f"{entry['dataset']}-{entry['split']}": entry["miou"] for entry in content["sets"]}
    harmonic_mean = content.get("harmonic_mean")
    abs_rel = {
        f"{entry['dataset']}-{entry['split']}": entry["depth"]["abs_rel"]
        for entry in content["sets"]
        if "depth" in entry
    }
    figure, value = "harmonic mean", harmonic_mean
    if abs_rel:
        figure, value = "mean AbsRel", sum(abs_rel.values()) / len(abs_rel)
    _log.info(
        "%s: %s, %s %s",
        title, "was measured before" if job.measured else "measured",
        figure, "-" if value is None else f"{100 * value:.1f} %",
    )  # fmt: skip
    return Outcome(job, "", miou, harmonic_mean, abs_rel)


def _run(title: str, what: str, command: Sequence[str]) -> float | None:
    """Run a command to its end. Returns the seconds it took, or None if it failed, which is logged."""
    _log.info("%s: %s", title, what)
    began = time.monotonic()
    with interrupts_held_back():
        process = Popen(command, stdin=DEVNULL, stdout=DEVNULL)
    try:
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status == 0:
        return time.monotonic() - began
    # A killed command may have left the line of a progress bar open.
    end, how = ("", f"exit status {status}") if status > 0 else ("\n", f"killed by {signal.Signals(-status).name}")
    _log.error("%s%s: %s failed (%s): %s", end, title, what, how, shlex.join(command))
    return None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that no command outlives this process."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
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
