"""datasets -> shards: the whole of `labelmerge shard`.

Shards appear one by one, each complete, and the manifest last. Until then the folder holds `.unfinished/`: what the run
was asked for, and a record of every finished shard. The same command goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge import __version__
from labelmerge.catalog import Recipe
from labelmerge.errors import LayoutError, ShardError, UsageError
from labelmerge.files import output_faults, sha256_file, write_json
from labelmerge.progress import Track, no_track
from labelmerge.sharding.executors import Job, Shard, run
from labelmerge.sharding.manifest import FORMAT, MANIFEST, UNFINISHED, read_manifest
from labelmerge.sharding.members import member_names
from labelmerge.sharding.plan import Plan, make_plan

_RUN = "run.json"
_OTHER_OUT = "Remove the folder, or choose another --out"
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
        shards: how many.
        bytes: size of the shards.
        kept: shards that an earlier run of the same command had finished.
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
    shards: int
    bytes: int
    kept: int = 0

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
    short_edge: int | None = None,
    workers: int = 1,
    limit: int | None = None,
    image_format: str | None = None,
    quality: int | None = None,
    samples_per_shard: int = 1000,
    max_skip_ratio: float | None = None,
    track: Track = no_track,
) -> ShardReport:
    """Write one split of a dataset as WebDataset shards into ``<out>/<dataset>/<split>/``.

    The bytes depend on the files, the recipe and the options, not on `workers` or on interruptions.

    Args:
        recipe: what the dataset is.
        root: where it was unpacked.
        split: ``train``, ``val`` or ``test``.
        out: folder for all datasets' shards.
        short_edge: shrink larger images to this short edge, in pixels; masks likewise, nearest neighbour.
        workers: processes.
        limit: only the first so many candidates.
        image_format: ``jpg`` or ``png``; by default the recipe's. Images that aren't in this format already are
            encoded anew and counted in the notes as `reencoded_images`.
        quality: of JPEGs that have to be encoded; 95 where None.
        samples_per_shard: candidates in one shard.
        max_skip_ratio: fail, without a manifest, where a larger share of the candidates is unusable.
        track: progress over candidates.

    Raises:
        LayoutError, RecipeError, UsageError: the dataset isn't there, or isn't as the recipe says.
        ShardError: the folder holds shards of another run, or too much was skipped.
        OutputError: no space, no permission.
    """
    _check_options(workers, max_skip_ratio)
    plan = make_plan(
        recipe,
        root,
        split,
        short_edge=short_edge,
        limit=limit,
        image_format=image_format,
        quality=quality,
        samples_per_shard=samples_per_shard,
    )
    folder = out / recipe.name / split
    if (finished := _finished(folder, plan)) is not None:
        _log.info("%s is complete already", folder)
        return _report(finished, folder, kept=len(finished["shards"]))
    shards = _begin(folder, plan)
    kept = len(shards)
    state = folder / UNFINISHED
    tasks = [task for task in plan.tasks if task.number not in shards]

    def progress() -> Generator[None, None, None]:
        for event in run(Job(plan.source, plan.options, folder), tasks, workers):
            if event is None:
                yield
            else:
                shards[event.number] = event
                write_json(state / f"{event.number:06d}.json", event.to_json())

    _finish(progress(), track, f"sharding {recipe.name} {split}", sum(len(task.items) for task in tasks))
    manifest = _manifest(plan, [shards[number] for number in sorted(shards)])
    _refuse_bad(manifest, max_skip_ratio, root)
    write_json(folder / MANIFEST, manifest)
    with output_faults(folder):
        shutil.rmtree(state)
    return _report(manifest, folder, kept)


def check(
    recipe: Recipe,
    root: Path,
    split: str,
    *,
    short_edge: int | None = None,
    workers: int = 1,
    limit: int | None = None,
    image_format: str | None = None,
    quality: int | None = None,
    samples_per_shard: int = 1000,
    max_skip_ratio: float | None = None,
    track: Track = no_track,
) -> ShardReport:
    """Do all that `shard` does, but write nothing: what would be skipped and why, and how much space it takes."""
    _check_options(workers, max_skip_ratio)
    plan = make_plan(
        recipe,
        root,
        split,
        short_edge=short_edge,
        limit=limit,
        image_format=image_format,
        quality=quality,
        samples_per_shard=samples_per_shard,
    )
    shards: list[Shard] = []

    def progress() -> Generator[None, None, None]:
        for event in run(Job(plan.source, plan.options, None), list(plan.tasks), workers):
            if event is None:
                yield
            else:
                shards.append(event)

    _finish(progress(), track, f"checking {recipe.name} {split}", plan.samples)
    manifest = _manifest(plan, sorted(shards, key=lambda made: made.number))
    _refuse_bad(manifest, max_skip_ratio, root)
    return _report(manifest, None, kept=0)


def _check_options(workers: int, max_skip_ratio: float | None) -> None:
    if workers < 1:
        raise UsageError(f"workers is {workers}: it must be 1 or more")
    if max_skip_ratio is not None and not 0 <= max_skip_ratio <= 1:
        raise UsageError(f"max_skip_ratio is {max_skip_ratio}: it must be 0 to 1")


def _finish(steps: Generator[None, None, None], track: Track, what: str, total: int) -> None:
    # Closed also when interrupted, so that no worker goes on behind the user's back.
    with closing(steps):
        for _ in track(steps, what, total):
            pass


def _identity(plan: Plan) -> dict[str, Any]:
    """All that decides the shards' bytes."""
    return {
        "labelmerge": __version__,
        "recipe": _sha256(plan.source.recipe.text),
        "variant": plan.source.variant,
        "label_space": plan.source.space.hash,
        "options": plan.options.to_json(),
        "candidates": plan.candidates,
    }


def _finished(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """The manifest of the same run, if it is complete and its shards are whole."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest, space = read_manifest(folder)
    except ShardError as error:
        raise ShardError(error.what, where=error.where, fix=_OTHER_OUT) from error
    identity = {
        "labelmerge": manifest["labelmerge"],
        "recipe": manifest["recipe"]["sha256"],
        "variant": manifest["variant"],
        "label_space": space.hash,
        "options": manifest["options"],
        "candidates": manifest["candidates"],
    }
    _refuse_other(folder, identity, _identity(plan))
    try:
        whole = all(_is_whole(folder, entry) for entry in manifest["shards"])
    except OSError as error:
        raise ShardError(f"can't be read ({error.strerror})", where=error.filename, fix=_OTHER_OUT) from error
    if whole:
        return manifest
    _log.warning("%s: a shard is damaged or gone: all are made again", folder)
    write_json(folder / UNFINISHED / _RUN, _identity(plan))
    with output_faults(folder):
        path.unlink()
    return None


def _begin(folder: Path, plan: Plan) -> dict[int, Shard]:
    """Prepare the folder; the shards, by number, that an earlier run of the same command has finished."""
    state = folder / UNFINISHED
    identity_file = state / _RUN
    shards: dict[int, Shard] = {}
    if identity_file.is_file():
        try:
            _refuse_other(folder, json.loads(identity_file.read_text(encoding="utf-8")), _identity(plan))
            for path in sorted(state.glob("[0-9]*.json")):
                made = Shard.from_json(json.loads(path.read_text(encoding="utf-8")))
                if made.samples == 0 or _is_whole(folder, made.to_json()):
                    shards[made.number] = made
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError("is damaged", where=state, fix=_OTHER_OUT) from error
    elif any(folder.glob("*.tar")):
        raise ShardError(
            "holds tar files that no manifest describes", where=folder, fix="Remove them, or choose another --out"
        )
    write_json(identity_file, _identity(plan))
    with output_faults(folder):
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
    if shards:
        _log.info("going on: %d of %d shards are there", len(shards), len(plan.tasks))
    return shards


def _is_whole(folder: Path, entry: dict[str, Any]) -> bool:
    path = folder / entry["name"]
    return path.is_file() and path.stat().st_size == entry["bytes"] and bool(sha256_file(path) == entry["sha256"])


def _refuse_other(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    if theirs == ours:
        return
    before = theirs["options"]
    changes = [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in ours["options"].items()
        if before.get(name) != value
    ]
    other = {
        "labelmerge": "labelmerge's version",
        "recipe": "the recipe",
        "variant": "the layout",
        "label_space": "the classes",
        "candidates": "the dataset's files",
    }
    changes += [f"{what} changed since" for name, what in other.items() if theirs[name] != ours[name]]
    raise ShardError(
        f"holds shards of another run ({'; '.join(changes)})",
        where=folder,
        fix=_OTHER_OUT,
    )


def _manifest(plan: Plan, shards: list[Shard]) -> dict[str, Any]:
    source, recipe = plan.source, plan.source.recipe
    pixels: Counter[int] = sum((made.class_pixels for made in shards), Counter())
    boxes: Counter[int] = sum((made.class_boxes for made in shards), Counter())
    notes: Counter[str] = sum((made.notes for made in shards), Counter(plan.notes))
    skipped = [{"path": skip.path, "reason": skip.reason} for skip in plan.skips]
    skipped += [skip for made in shards for skip in made.skipped]
    written = sum(made.samples for made in shards)
    return {
        "format": FORMAT,
        "labelmerge": __version__,
        "dataset": recipe.name,
        "split": source.split,
        "annotation_type": recipe.annotation_type,
        "variant": source.variant,
        "recipe": {"name": recipe.name, "sha256": _sha256(recipe.text), "text": recipe.text},
        "options": plan.options.to_json(),
        "candidates": plan.candidates,
        "label_space": source.space.to_json(),
        "members": member_names(plan.options.image_format, recipe.annotation_type, recipe.reader),
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
        "reproduce": _command(plan),
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
    ):
        if value is not None:
            words += [option, str(value)]
    return shlex.join(words)


def _report(manifest: dict[str, Any], folder: Path | None, kept: int) -> ShardReport:
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
        shards=len(manifest["shards"]),
        bytes=sum(entry["bytes"] for entry in manifest["shards"]),
        kept=kept,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
