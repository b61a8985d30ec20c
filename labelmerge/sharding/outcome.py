"""What became of the items: the manifest, and a report of it."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge import __version__
from labelmerge.errors import LayoutError, ShardError
from labelmerge.sharding.depths import Meaning, has_depth
from labelmerge.sharding.executors import ShardRecord
from labelmerge.sharding.make import Sizes, member_names
from labelmerge.sharding.plan import Plan
from labelmerge.sharding.resume import WHOLE
from labelmerge.sharding.source.source import FIRST, ClassMap, Source
from labelmerge.shardset.manifest import FORMAT, things
from labelmerge.text import counted, kinds, some

_MAX_REASONS_SHOWN = 3


@dataclass(frozen=True)
class ShardReport:
    """What was written, or by `check` would be.

    Attributes:
        folder: where the shards and their manifest are; None for a check.
        variant: which of the recipe's layouts was found; None for the recipe's own.
        found, written: images, and those of them that became samples.
        skipped: [{"path", "reason"}], all of them.
        notes: what else was odd, counted.
        image_format: ``jpg`` or ``png``.
        classes, classes_seen: how many there are, and how many of them occur.
        absent: the names of those that don't, in their order; none where images are all there is.
        unlabelled: the share of pixels without a label, of those that are written; 0 where there are no masks.
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
    absent: tuple[str, ...]
    unlabelled: float
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
            "absent": list(self.absent),
        }


def empty_manifest(plan: Plan) -> dict[str, Any]:
    """The manifest of a run of which no shard is made yet."""
    source, recipe = plan.source, plan.source.recipe
    manifest = {
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
    if has_depth(source):
        manifest["depth"] = {"unit": Meaning.of(source).unit, "known_pixels": 0}
    return manifest if source.class_map is None else {**manifest, **_in_concepts(manifest, source, source.class_map)}


def _in_concepts(manifest: dict[str, Any], source: Source, classes: ClassMap) -> dict[str, list[str]]:
    """What the recipe says in the dataset's own classes."""
    annotated = source.space.names if source.recipe.annotated is None else source.recipe.annotated
    said = {"annotated": classes.names(annotated, source.space)}
    boxes = source.recipe.annotation_type == "box"
    countable = list(source.space.names) if boxes else things(manifest, source.space)
    return said if countable is None else {**said, "things": classes.names(countable, source.space)}


def _teacher(plan: Plan) -> dict[str, Any] | None:
    """The model that embeds the boxes: its name, and the hash of its weights (a hub's name says it all: None)."""
    if plan.options.box_teacher is None:
        return None
    from labelmerge.encoders.encoders import fingerprint

    found = fingerprint(plan.options.box_teacher)
    name = plan.options.box_teacher if found.weights_sha256 is None else found.model
    return {"encoder": name, "weights_sha256": found.weights_sha256}


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
        ("--taxonomy", options.taxonomy and options.taxonomy.name),
        ("--no-instances", None if options.instances else ""),
        ("--box-teacher", options.box_teacher and os.path.basename(options.box_teacher)),
    ):
        if value is not None:
            words += [option, str(value)] if value != "" else [option]
    return shlex.join(words)


def full_manifest(skeleton: dict[str, Any], shards: list[ShardRecord]) -> dict[str, Any]:
    """The skeleton with what became of the items."""
    shards = sorted(shards, key=lambda made: made.number)
    pixels: Counter[int] = sum((made.class_pixels for made in shards), Counter())
    boxes: Counter[int] = sum((made.class_boxes for made in shards), Counter())
    notes = _merged([skeleton["notes"], *(made.notes for made in shards)])
    sizes = Sizes()
    for made in shards:
        if made.samples:
            sizes.add(Sizes.from_json(made.sizes))
    if again := sum(made.samples for made in shards) - len({source for made in shards for source in made.sources}):
        notes["duplicate_images"] = again
    skipped = skeleton["skipped"] + [skip for made in shards for skip in made.skipped]
    written = sum(made.samples for made in shards)
    depth = "depth" in skeleton
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
        **(
            {"depth": {**skeleton["depth"], "known_pixels": sum(made.depth_pixels for made in shards)}} if depth else {}
        ),
    }


def _merged(counted: Iterable[Mapping[str, int]]) -> Counter[str]:
    """All notes together; of those that say where they were found first, each kind once, with its first place."""
    notes: Counter[str] = Counter()
    whole: dict[str, str] = {}
    for some_notes in counted:
        for what, count in some_notes.items():
            kind, mark, _ = what.partition(FIRST)
            notes[whole.setdefault(kind, what) if mark else what] += count
    return notes


def refuse_bad(manifest: dict[str, Any], max_skip_ratio: float | None, root: Path) -> None:
    counts = manifest["counts"]
    skipped = kinds(f"{skip['path']}: {skip['reason']}" for skip in manifest["skipped"])
    first = some(skipped, _MAX_REASONS_SHOWN, separator="; ")
    if counts["written"] == 0:
        raise LayoutError(f"none of the images can be used ({counts['found']:,} found: {first})", where=root)
    if max_skip_ratio is not None and counts["skipped"] > max_skip_ratio * counts["found"]:
        share = f"{counts['skipped']:,} of {counted(counts['found'], 'image')}"
        raise ShardError(f"{share} can't be used, more than --max-skip-ratio allows ({first})", where=root)


def report_of(manifest: dict[str, Any], folder: Path | None, kept: int, seconds: float = 0.0) -> ShardReport:
    names, indices = manifest["label_space"]["names"], manifest["label_space"]["indices"]
    seen = manifest["class_pixels"].keys() | manifest["class_boxes"].keys()
    pixels = manifest["ignored_pixels"] + sum(manifest["class_pixels"].values())
    return ShardReport(
        folder=folder,
        dataset=manifest["dataset"],
        split=manifest["split"],
        variant=manifest["variant"],
        found=manifest["counts"]["found"],
        written=manifest["counts"]["written"],
        skipped=tuple(manifest["skipped"]),
        notes=manifest["notes"],
        image_format=str(manifest["options"].get("image_format", "?")),
        classes=len(manifest["label_space"]["names"]),
        classes_seen=len(seen),
        absent=()
        if manifest["annotation_type"] == "image"
        else tuple(name for name, index in zip(names, indices, strict=True) if str(index) not in seen),
        unlabelled=manifest["ignored_pixels"] / pixels if pixels else 0.0,
        shards=len(manifest["shards"]),
        bytes=sum(entry["bytes"] for entry in manifest["shards"]),
        seconds=seconds,
        kept=kept,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
