"""What the manifest of relabelled shards says: what was annotated, what was predicted, by which model and rule."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labelmerge import __version__
from labelmerge.bank.bank import Bank
from labelmerge.labels import LabelSpace
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.methods.restore import Trained
from labelmerge.model.views import Views
from labelmerge.predict.splitting import Relabelled, Rule
from labelmerge.shardset.manifest import read_manifest, told_things
from labelmerge.shardset.run_lengths import histogram
from labelmerge.shardset.shard import shards_of
from labelmerge.shardset.shardset import ShardSet

_log = logging.getLogger(__name__)

_RULES = {
    "mask": "a label of one concept is that concept; of several, the model's likeliest among them, a segment's as one",
    "box": "a pixel in a box, smallest first, is the model's likeliest concept of all where that is one of the box's",
    "image": "a pixel is the model's likeliest label of all",
    "none": "a label of one concept is that concept; of several, no label",
}


@dataclass(frozen=True, eq=False)
class Job:
    """What is the same for all splits, and `things_of` each."""

    table: Taxonomy | None
    space: LabelSpace
    taxonomy: Mapping[str, str]
    trained: Trained | None
    bank: Bank | None
    confidence: float
    least_cover: float | None
    views: Views
    things: Mapping[tuple[str, str], set[int] | None]


class Made:
    """What is counted while shards are written."""

    def __init__(self) -> None:
        self.shards: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.class_pixels: Counter[int] = Counter()
        self.class_boxes: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.ignored = self.samples = self.pixels = self.depth_pixels = 0
        self.sizes: list[tuple[int, int]] = []

    def add(self, found: Relabelled, size: tuple[int, int], ignore: int) -> set[int]:
        """Count a sample; returns the concepts that are present."""
        self.samples += 1
        self.pixels += size[0] * size[1]
        sizes = [*self.sizes, size]
        (low, high), (narrow, wide) = ((min(sides), max(sides)) for sides in zip(*sizes, strict=True))
        self.sizes = [(low, narrow), (high, wide)]
        self.counts.update(found.counts)
        boxes = Counter(box["class_index"] for box in found.boxes)
        self.class_boxes.update(boxes)
        if found.mask is None:
            return set(boxes)
        pixels = histogram(found.mask)
        self.ignored += pixels.pop(ignore, 0)
        self.class_pixels.update(pixels)
        return set(pixels)


def shards_with_samples(each: ShardSet, source: Mapping[str, Any]) -> Iterator[tuple[str, range]]:
    """The name of each of a split's shards, and the numbers of its samples.

    A warning says where one is not what the manifest says: what can't be read of it is skipped, and a wrong pixel of a
    JPEG or a wrong digit of a box is taken as it is.

    Args:
        source: the split's manifest.
    """
    first = 0
    for shard in shards_of(each.folder, source):
        if not shard.as_written():
            _log.warning(
                "%s does not match the manifest's sha256, and is read all the same: see `labelmerge verify`",
                shard,
            )
        yield shard.path.name, range(first, first := first + shard.samples)


def new_type(annotation_type: str, rule: Rule) -> str:
    """The annotation type of relabelled shards."""
    return "noisy_mask" if annotation_type in ("box", "image") and rule.model is not None else annotation_type


def about(job: Job, each: ShardSet, rule: Rule, source: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the relabelling, without its counts."""
    how = "none" if rule.model is None else each.annotation_type if each.annotation_type in ("box", "image") else "mask"
    decided = "predicted" if rule.model is not None else "ignored"
    model = None
    if job.trained is not None and job.bank is not None and rule.model is not None:
        checkpoint = job.trained.checkpoint
        model = {
            "hash": checkpoint.hash,
            "step": checkpoint.step,
            "model": checkpoint.model_name,
            "method": checkpoint.method,
            "bank_version": job.bank.version,
            "views": rule.model.predictor.views.to_json(),
        }
    return {
        "labelmerge": __version__,
        "source": {
            "manifest_sha256": each.manifest_sha256,
            "annotation_type": each.annotation_type,
            "label_space": {"name": each.space.name, "hash": each.space.hash},
        },
        **({"taxonomy": dict(job.taxonomy)} if job.taxonomy else {}),
        "checkpoint": model,
        "rule": _RULES[how],
        "confidence": job.confidence,
        **({"least_cover": rule.least_cover} if rule.least_cover is not None else {}),
        "labels": [
            {
                "index": index,
                "name": each.space.name_of(index),
                "concepts": [rule.space.name_of(concept) for concept in concepts],
                "how": "annotated" if len(concepts) == 1 and how != "box" else decided,
            }
            for index, concepts in rule.sets.items()
        ],
    }


def manifest_of(
    job: Job, each: ShardSet, rule: Rule, source: Mapping[str, Any], made: Made, said: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole manifest; `said` is what `about` says."""
    annotation_type = new_type(each.annotation_type, rule)
    members = {*source["members"]} - {"box_embeddings.npy"} | ({"mask.png"} if annotation_type != "box" else set())
    members |= {"instances.png"} if rule.least_cover is not None else set()
    alone = each.annotation_type == "image"  # where the model may have found anything
    countable = None if alone else job.things[each.dataset, each.split]
    listed = set() if alone else set(each.space.indices_of(each.annotated))
    manifest = {
        **source,
        "labelmerge": __version__,
        "annotation_type": annotation_type,
        "box_teacher": None,
        "label_space": rule.space.to_json(),
        "annotated": list(rule.space.names) if alone else _concepts(rule, listed),
        "members": sorted(members),
        "shards": made.shards,
        "counts": {
            "found": made.samples + len(made.skipped),
            "written": made.samples,
            "skipped": len(made.skipped),
        },
        "skipped": made.skipped,
        "class_pixels": {str(index): made.class_pixels[index] for index in sorted(made.class_pixels)},
        "class_boxes": {str(index): made.class_boxes[index] for index in sorted(made.class_boxes)},
        "ignored_pixels": made.ignored,
        "sizes": {"pixels": made.pixels, "min": list(made.sizes[0]), "max": list(made.sizes[-1])},
        "reproduce": _command(job),
        "relabel": {**said, "counts": {name: count for name, count in sorted(made.counts.items())}},
    }
    if "depth" in source:
        manifest["depth"] = {**source["depth"], "known_pixels": made.depth_pixels}
    return manifest if countable is None else {**manifest, "things": _concepts(rule, countable)}


def _concepts(rule: Rule, indices: set[int]) -> list[str]:
    """The names of all concepts that some classes may stand for."""
    return [rule.space.name_of(concept) for concept in sorted({c for index in indices for c in rule.sets[index]})]


def things_of(each: ShardSet) -> set[int] | None:
    """The classes that are things, as far as that is known. Raises ShardError where its recipe makes no sense."""
    if each.annotation_type == "box":
        return set(each.space.indices)
    named = told_things(each.folder, read_manifest(each.folder)[0], each.space)
    return None if named is None else set(each.space.indices_of(named))


def _command(job: Job) -> str:
    words = ["labelmerge", "relabel", "DIR"]
    words += ["--taxonomy", job.taxonomy["name"], "--name", job.space.name] if job.taxonomy else []
    words += ["--confidence", f"{job.confidence:g}", "--out", "OUT"]
    words += ["--instances", "--least-cover", f"{job.least_cover:g}"] if job.least_cover is not None else []
    return shlex.join(words + (["--checkpoint", "RUN"] if job.trained is not None else []))
