"""datasets -> shards: the whole of `labelmerge shard`.

Shards appear one by one, each complete, and the manifest last. Until then the folder holds `.unfinished/`: what the run
was asked for, and a record of every finished shard. The same command goes on from there. Several processes, on one
machine or many, may each do a part; `finish` then makes the manifest of all their records.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from labelmerge import __version__
from labelmerge.catalog import SPLITS, Recipe
from labelmerge.errors import LayoutError, ShardError, UsageError, did_you_mean
from labelmerge.files import write_json
from labelmerge.progress import Track, no_track
from labelmerge.sharding.executors import EXECUTORS, Job, Shard, run
from labelmerge.sharding.make import Sizes, member_names
from labelmerge.sharding.plan import Chosen, Plan, make_plan
from labelmerge.sharding.resume import (
    WHOLE,
    Run,
    begin,
    finished_manifest,
    read_run,
    records,
    sweep,
    working_folder,
    write_record,
)
from labelmerge.sharding.source.locate import NoLabels
from labelmerge.shardset.croissant import write_croissant
from labelmerge.shardset.manifest import FORMAT, MANIFEST, read_manifest

_MAX_REASONS_SHOWN = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardReport:
    """What was written, or by `check` would be.

    Attributes:
        folder: where the shards and their manifest are; None for a check.
        variant: which of the recipe's layouts was found; None for the recipe's own.
        found, written: candidates, and those of them that became samples.
        skipped: [{"path", "reason"}], all of them.
        notes: what else was odd, counted.
        image_format: ``jpg`` or ``png``.
        classes, classes_seen: how many there are, and how many of them occur.
        shards: how many.
        bytes: size of the shards.
        seconds: how long it took; a check does all the work but the writing.
        kept: shards that an earlier run of the same command had finished.
        part: the part that was done, of how many; then the counts are of that part.
    """

    folder: Path | None
    dataset: str
    split: str
    variant: str | None
    found: int
    written: int
    skipped: tuple[dict[str, str], ...]
    notes: dict[str, int]
    image_format: str
    classes: int
    classes_seen: int
    shards: int
    bytes: int
    seconds: float
    kept: int = 0
    part: tuple[int, int] = WHOLE

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "folder": None if self.folder is None else str(self.folder),
            "skipped": list(self.skipped),
        }


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
        split: ``train``, ``val`` or ``test``.
        out: folder for all datasets' shards.
        workers: processes, or with Ray shards at a time; see `executors.run`.
        executor: ``local`` or ``ray``.
        part: (I, N): only every N-th shard, from the I-th on. Processes with the other parts may run at the same time,
            on other machines that share `out`; when all are done, `finish` writes the manifest.
        max_skip_ratio: fail, without a manifest, where a larger share of the candidates is unusable.
        device: of the teacher of boxes; None: a GPU if there is one.
        track: progress over candidates.
        chosen: what else there is to choose, see `plan.Options`. Images that aren't in the format already are encoded
            anew and counted in the notes as `reencoded_images`.

    Raises:
        LayoutError, RecipeError, UsageError: the dataset isn't there, or isn't as the recipe says.
        ShardError: the folder holds shards of another run, or too much was skipped.
        OutputError: no space, no permission.
    """
    start = time.monotonic()
    _check_options(workers, executor, max_skip_ratio, part)
    folder = out / recipe.name / split
    with (
        working_folder(folder, part) as scratch,
        make_plan(recipe, root, split, scratch, **chosen) as plan,
    ):
        wanted = Run(len(plan.sizes), max_skip_ratio, _skeleton(plan))
        if (finished := finished_manifest(folder, wanted)) is not None:
            _log.info("%s is complete already", folder)
            _refuse_bad(finished, max_skip_ratio, folder)
            return _report(finished, folder, kept=len(finished["shards"]))
        ours = range(part[0] - 1, len(plan.sizes), part[1])
        there = begin(folder, wanted, ours, alone=part == WHOLE)
        todo = [number for number in ours if number not in there]

        def progress() -> Generator[None, None, None]:
            job = Job(plan.source, plan.options, folder, device)
            for event in run(job, map(plan.task, todo), workers, executor):
                if event is None:
                    yield
                else:
                    there[event.number] = event
                    write_record(folder, event)

        what = f"sharding {recipe.name} {split}" + (f" {part[0]}/{part[1]}" if part[1] > 1 else "")
        _work_off(progress(), track, what, sum(plan.sizes[number] for number in todo))
        kept = len(ours) - len(todo)
        if part[1] == 1:
            return replace(_finish(folder, wanted, there), kept=kept, seconds=time.monotonic() - start)
        done = _manifest(wanted.manifest, list(there.values()))
        return replace(_report(done, folder, kept, time.monotonic() - start), part=part)


def finish(folder: Path) -> ShardReport:
    """Make the manifest of a split whose parts are all done.

    Args:
        folder: the split's, ``<out>/<dataset>/<split>``.

    Raises:
        ShardError: no run was begun there, or parts of it are missing; or too much was skipped.
        OutputError: a process is still writing there; no space, no permission.
    """
    if (folder / MANIFEST).is_file():
        manifest, _ = read_manifest(folder)
        return _report(manifest, folder, kept=len(manifest["shards"]))
    begun = read_run(folder)  # before a folder is made to work in
    with working_folder(folder, WHOLE):
        return _finish(folder, begun, records(folder, range(begun.tasks)))


def _finish(folder: Path, begun: Run, made: dict[int, Shard]) -> ShardReport:
    """`made`: the shards, by number, that are known to be whole: none is read again."""
    if missing := [number for number in range(begun.tasks) if number not in made]:
        first = ", ".join(f"{number:06d}" for number in missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ShardError(
            f"{len(missing)} of {begun.tasks} shards are not done yet ({first})",
            where=folder,
            fix="Run the missing parts, `labelmerge shard … --part I/N`, or the same command without --part",
        )
    manifest = _manifest(begun.manifest, list(made.values()))
    _refuse_bad(manifest, begun.max_skip_ratio, folder)
    write_croissant(folder, manifest)
    write_json(folder / MANIFEST, manifest)
    sweep(folder)
    return _report(manifest, folder, kept=0)


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
    chosen["box_teacher"] = None
    shards: list[Shard] = []
    with (
        tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch,
        make_plan(recipe, root, split, Path(scratch), **chosen) as plan,
    ):

        def progress() -> Generator[None, None, None]:
            for event in run(Job(plan.source, plan.options, None), map(plan.task, range(len(plan.sizes))), workers):
                if event is None:
                    yield
                else:
                    shards.append(event)

        _work_off(progress(), track, f"checking {recipe.name} {split}", plan.samples)
        manifest = _manifest(_skeleton(plan), shards)
    _refuse_bad(manifest, max_skip_ratio, root)
    return _report(manifest, None, kept=0, seconds=time.monotonic() - start)


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


def _teacher(plan: Plan) -> dict[str, Any] | None:
    """The model that embeds the boxes: its name, and the hash of its weights (a hub's name says it all: None)."""
    if plan.options.box_teacher is None:
        return None
    from labelmerge.encoders.encoders import fingerprint

    found = fingerprint(plan.options.box_teacher)
    name = plan.options.box_teacher if found.weights_sha256 is None else found.model
    return {"encoder": name, "weights_sha256": found.weights_sha256}


def _skeleton(plan: Plan) -> dict[str, Any]:
    """The manifest of a run of which no shard is made yet."""
    source, recipe = plan.source, plan.source.recipe
    return {
        "format": FORMAT,
        "labelmerge": __version__,
        "dataset": recipe.name,
        "split": source.split,
        "annotation_type": recipe.annotation_type,
        "variant": source.variant,
        "recipe": {"name": recipe.name, "sha256": _sha256(recipe.text), "text": recipe.text},
        "options": plan.options.to_json(),
        "box_teacher": _teacher(plan),
        "candidates": plan.candidates,
        "label_space": source.shard_space.to_json(),
        "members": member_names(source, plan.options),
        "shards": [],
        "counts": {"found": len(plan.skips), "written": 0, "skipped": len(plan.skips)},
        "skipped": [{"path": skip.path, "reason": skip.reason} for skip in plan.skips],
        "notes": dict(sorted(plan.notes.items())),
        "class_pixels": {},
        "class_boxes": {},
        "ignored_pixels": 0,
        "sizes": Sizes().to_json(),
        "reproduce": _command(plan),
    }


def _manifest(skeleton: dict[str, Any], shards: list[Shard]) -> dict[str, Any]:
    """The skeleton with what became of the candidates."""
    shards = sorted(shards, key=lambda made: made.number)
    pixels: Counter[int] = sum((made.class_pixels for made in shards), Counter())
    boxes: Counter[int] = sum((made.class_boxes for made in shards), Counter())
    notes: Counter[str] = sum((made.notes for made in shards), Counter(skeleton["notes"]))
    sizes = Sizes()
    for made in shards:
        if made.samples:
            sizes.add(Sizes.from_json(made.sizes))
    if again := sum(made.samples for made in shards) - len({source for made in shards for source in made.sources}):
        notes["duplicate_images"] = again
    skipped = skeleton["skipped"] + [skip for made in shards for skip in made.skipped]
    written = sum(made.samples for made in shards)
    return {
        **skeleton,
        "shards": [
            {"name": made.name, "samples": made.samples, "bytes": made.bytes, "sha256": made.sha256}
            for made in shards
            if made.samples
        ],
        "counts": {"found": written + len(skipped), "written": written, "skipped": len(skipped)},
        "skipped": skipped,
        "notes": dict(sorted(notes.items())),
        "class_pixels": {str(index): pixels[index] for index in sorted(pixels)},
        "class_boxes": {str(index): boxes[index] for index in sorted(boxes)},
        "ignored_pixels": sum(made.ignored_pixels for made in shards),
        "sizes": sizes.to_json(),
    }


def _refuse_bad(manifest: dict[str, Any], max_skip_ratio: float | None, root: Path) -> None:
    counts = manifest["counts"]
    first = "; ".join(f"{skip['path']}: {skip['reason']}" for skip in manifest["skipped"][:_MAX_REASONS_SHOWN])
    first += "; …" if counts["skipped"] > _MAX_REASONS_SHOWN else ""
    if counts["written"] == 0:
        raise LayoutError(f"none of {counts['found']} candidates is usable ({first})", where=root)
    if max_skip_ratio is not None and counts["skipped"] > max_skip_ratio * counts["found"]:
        share = f"{counts['skipped']} of {counts['found']} candidates"
        raise ShardError(f"{share} are unusable, more than --max-skip-ratio allows ({first})", where=root)


def _command(plan: Plan) -> str:
    recipe, options = plan.source.recipe, plan.options
    words = [
        "labelmerge",
        "shard",
        os.fsencode(Path(recipe.argument).name).decode(errors="backslashreplace"),  # JSON holds UTF-8 only
        "--root",
        "ROOT",
        "--split",
        plan.source.split,
        "--out",
        "OUT",
    ]
    for option, value in (
        ("--short-edge", options.short_edge),
        ("--limit", options.limit),
        ("--image-format", options.image_format),
        ("--quality", options.quality),
        ("--samples-per-shard", options.samples_per_shard),
        ("--mapping", options.mapping and options.mapping.name),
        ("--no-instances", None if options.instances else ""),
        ("--box-teacher", options.box_teacher and os.path.basename(options.box_teacher)),
    ):
        if value is not None:
            words += [option, str(value)] if value != "" else [option]
    return shlex.join(words)


def _report(manifest: dict[str, Any], folder: Path | None, kept: int, seconds: float = 0.0) -> ShardReport:
    return ShardReport(
        folder=folder,
        dataset=manifest["dataset"],
        split=manifest["split"],
        variant=manifest["variant"],
        found=manifest["counts"]["found"],
        written=manifest["counts"]["written"],
        skipped=tuple(manifest["skipped"]),
        notes=manifest["notes"],
        image_format=manifest["options"]["image_format"],
        classes=len(manifest["label_space"]["names"]),
        classes_seen=len(manifest["class_pixels"].keys() | manifest["class_boxes"].keys()),
        shards=len(manifest["shards"]),
        bytes=sum(entry["bytes"] for entry in manifest["shards"]),
        seconds=seconds,
        kept=kept,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
