"""datasets -> shards: the whole of `labelmerge shard`.

Shards appear one by one, each complete, and the manifest last. Until then the folder holds `.unfinished/`: what was
asked for, and a record of every finished shard. The same command goes on from there. Several processes, on one machine
or many, may each do a part; `finish` then makes the manifest of all their records.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from labelmerge.catalog import SPLITS, Recipe, refuse_taken_name
from labelmerge.errors import LayoutError, UsageError, did_you_mean
from labelmerge.files import say_others
from labelmerge.progress import Track, no_track
from labelmerge.sharding.executors import EXECUTORS, Job, ShardRecord, make_shards
from labelmerge.sharding.finish import complete
from labelmerge.sharding.outcome import ShardReport, empty_manifest, full_manifest, refuse_bad, report_of
from labelmerge.sharding.plan import Chosen, Plan, make_plan
from labelmerge.sharding.resume import (
    WHOLE,
    Request,
    begin,
    finished_manifest,
    nothing_begun,
    refuse_changed,
    working_folder,
    write_record,
)
from labelmerge.sharding.source.locate import NoLabels
from labelmerge.sharding.source.state import State, is_as_before
from labelmerge.shardset.manifest import IN_SHARDS, things
from labelmerge.shardset.samples import all_are_things

_log = logging.getLogger(__name__)


def shard(
    recipe: Recipe,
    root: Path,
    split: str,
    out: Path,
    *,
    workers: int | None = None,
    executor: str = "local",
    part: tuple[int, int] = WHOLE,
    max_skip_ratio: float | None = None,
    device: str | None = None,
    track: Track = no_track,
    **chosen: Unpack[Chosen],
) -> ShardReport:
    """Write one split of a dataset as WebDataset shards into ``<out>/<dataset>/<split>/``.

    The bytes depend on the files, the recipe and the options, not on `workers` or on interruptions.

    Args:
        recipe: what the dataset is.
        root: where it was unpacked.
        split: ``train``, ``val`` or ``test``; or ``unlabeled``, images alone, where the recipe says where they lie.
        out: folder for all datasets' shards.
        workers: processes, or with Ray shards at a time; see `executors.run`.
        executor: ``local`` or ``ray``.
        part: (I, N): only every N-th shard, from the I-th on. Processes with the other parts may run at the same time,
            on other machines that share `out`; when all are done, `finish` writes the manifest.
        max_skip_ratio: fail, without a manifest, where a larger share of the images is unusable.
        device: of the teacher of boxes; None: a GPU if there is one.
        track: progress over images.
        chosen: what else there is to choose, see `plan.Options`. Images that aren't in the format already are encoded
            anew and counted in the notes as `reencoded_images`.

    Raises:
        LayoutError, RecipeError, UsageError: the dataset isn't there, or isn't as the recipe says.
        ShardError: the folder holds shards made from other files or options, or of files that have changed since they
            were finished, or too much was skipped. (Of an unfinished run, the shards of changed files are made again.)
        OutputError: no space, no permission.
    """
    start = time.monotonic()
    _check_options(workers, executor, max_skip_ratio, part)
    refuse_taken_name(recipe)
    folder = out / recipe.name / split
    say_others(out, "shards", IN_SHARDS)
    with (
        working_folder(folder, part) as scratch,
        make_plan(recipe, root, split, scratch, **chosen) as plan,
    ):
        wanted = Request(len(plan.sizes), max_skip_ratio, empty_manifest(plan))
        if (finished := finished_manifest(folder, wanted)) is not None:
            refuse_changed(folder, lambda number, state: _is_as_before(plan, number, state))
            _log.info("%s is complete already", folder)
            refuse_bad(finished, max_skip_ratio, folder)
            return report_of(finished, folder, kept=len(finished["shards"]))
        if "instances.png" in wanted.manifest["members"] and things(wanted.manifest, plan.source.space) is None:
            _log.warning("%s", all_are_things(recipe.name))
        ours = range(part[0] - 1, len(plan.sizes), part[1])
        there = begin(folder, wanted, ours, alone=part == WHOLE)
        changed = [number for number, made in there.items() if not _is_as_before(plan, number, made.state)]
        if changed:
            _log.warning("%s: files of %d finished shards have changed: these are made again", folder, len(changed))
            there = {number: made for number, made in there.items() if number not in changed}
        todo = [number for number in ours if number not in there]

        def progress() -> Generator[None, None, None]:
            job = Job(plan.source, plan.options, folder, device)
            for event in make_shards(job, map(plan.task, todo), workers, executor):
                if event is None:
                    yield
                else:
                    there[event.number] = event
                    write_record(folder, event)

        what = f"sharding {recipe.name} {split}" + (f" {part[0]}/{part[1]}" if part[1] > 1 else "")
        with nothing_begun(folder, alone=part == WHOLE):
            _work_off(progress(), track, what, sum(plan.sizes[number] for number in todo))
        kept = len(ours) - len(todo)
        if part[1] == 1:
            return replace(complete(folder, wanted, there), kept=kept, seconds=time.monotonic() - start)
        done = full_manifest(wanted.manifest, list(there.values()))
        return replace(report_of(done, folder, kept, time.monotonic() - start), part=part)


def check(
    recipe: Recipe,
    root: Path,
    split: str,
    *,
    workers: int | None = None,
    max_skip_ratio: float | None = None,
    track: Track = no_track,
    **chosen: Unpack[Chosen],
) -> ShardReport:
    """Do all that `shard` does, but write nothing: what would be skipped and why, how much space and time it takes.

    The box teacher is not asked; its embeddings' size is not in the estimate.
    """
    start = time.monotonic()
    _check_options(workers, "local", max_skip_ratio, WHOLE)
    refuse_taken_name(recipe)
    chosen["box_teacher"] = None
    shards: list[ShardRecord] = []
    with (
        tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch,
        make_plan(recipe, root, split, Path(scratch), **chosen) as plan,
    ):

        def progress() -> Generator[None, None, None]:
            for event in make_shards(
                Job(plan.source, plan.options, None), map(plan.task, range(len(plan.sizes))), workers
            ):
                if event is None:
                    yield
                else:
                    shards.append(event)

        _work_off(progress(), track, f"checking {recipe.name} {split}", plan.samples)
        manifest = full_manifest(empty_manifest(plan), shards)
    refuse_bad(manifest, max_skip_ratio, root)
    return report_of(manifest, None, kept=0, seconds=time.monotonic() - start)


def check_all(recipe: Recipe, root: Path, **settings: Any) -> list[ShardReport]:
    """`check` of every split that is under `root`.

    Args:
        recipe, root: the dataset.
        settings: as `check` takes.

    Raises:
        as `check`; LayoutError only where no split can be read: those that can't beside others that can are left out,
        and the log says why.
    """
    reports = []
    left_out: list[tuple[str, LayoutError]] = []
    for split in SPLITS:
        try:
            reports.append(check(recipe, root, split, **settings))
        except NoLabels:
            continue
        except LayoutError as error:
            left_out.append((split, error))
    if not reports and left_out:
        raise left_out[0][1]
    for split, why in left_out:
        _log.warning("%s: %s", split, why)
    return reports


def _is_as_before(plan: Plan, number: int, state: State) -> bool:
    return number < len(plan.sizes) and is_as_before(plan.source, [item for _, item in plan.task(number).items], state)


def _check_options(workers: int | None, executor: str, max_skip_ratio: float | None, part: tuple[int, int]) -> None:
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}: it must be 1 or more")
    if executor not in EXECUTORS:
        raise UsageError(f"unknown executor {executor!r}", fix=did_you_mean(executor, EXECUTORS))
    if max_skip_ratio is not None and not 0 <= max_skip_ratio <= 1:
        raise UsageError(f"max_skip_ratio is {max_skip_ratio}: it must be 0 to 1")
    if not 1 <= part[0] <= part[1]:
        raise UsageError(f"part {part[0]}/{part[1]}: it must be 1/N to N/N")


def _work_off(steps: Generator[None, None, None], track: Track, what: str, total: int) -> None:
    # Closed also when interrupted, so that no worker goes on behind the user's back.
    with closing(steps):
        for _ in track(steps, what, total):
            pass
