"""Are shards what their manifest says, and their samples what the schema says? Is an image there twice?"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labelmerge.errors import RemoteError, ShardError, UsageError
from labelmerge.inspect.duplicates import Found, Images, Overlap
from labelmerge.inspect.schema import Counts, Expected, Remark, check_sample
from labelmerge.labels import LabelSpace
from labelmerge.progress import Track, no_track
from labelmerge.shardset.croissant import CROISSANT, croissant_problem
from labelmerge.shardset.manifest import MANIFEST, read_manifest, role
from labelmerge.shardset.shard import Shard, shards_of
from labelmerge.shardset.splits import find_splits
from labelmerge.shardset.tar import read_samples
from labelmerge.urls import path_or_url
from labelmerge.workers import interrupts_held_back, stopping, worker_pool

_MAX_PROBLEMS_PER_SHARD = 100


@dataclass(frozen=True)
class Problem:
    """One fault: in which file (and sample), and what it is."""

    where: str
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, and every fault; the images that are there twice and what is odd, which are no faults."""

    splits: int
    shards: int
    samples: int
    problems: tuple[Problem, ...]
    overlaps: tuple[Overlap, ...] = ()
    remarks: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def verify(folders: Sequence[Path], *, workers: int = 1, track: Track = no_track) -> VerifyReport:
    """Check every shard under `folders` against its manifest and every sample against the schema.

    Args:
        folders: splits, datasets, or folders of datasets.
        workers: processes.
        track: progress over shards.

    Raises:
        ShardError: there is nothing to verify. Faults of shards are in the report.
        LabelmergeError: a worker process died.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}: it must be 1 or more")
    folders = find_splits(folders, unfinished=True)
    problems: list[Problem] = []
    remarks: list[Problem] = []
    splits: list[_Split] = []
    tasks: list[_Task] = []
    for folder in folders:
        try:
            manifest, space = read_manifest(folder)
        except ShardError as error:
            problems.append(Problem(error.place, error.what))
            continue
        split = _Split(folder, manifest, space)
        listed = {entry["name"] for entry in manifest["shards"]}
        for path in sorted(folder.glob("*.tar")):
            if path.name not in listed:
                problems.append(Problem(str(path), "is not in the manifest"))
        tasks += [_Task(len(splits), shard, split.expected) for shard in shards_of(folder, manifest)]
        splits.append(split)
    found = Found()
    # Closed also when interrupted, so that no worker goes on behind the user's back.
    with closing(_run(tasks, workers)) as results:
        for task, checked in zip(tasks, track(results, "verifying shards", len(tasks)), strict=True):
            problems += [
                Problem(f"{task.shard}:{key}" if key else str(task.shard), what) for key, what in checked.problems
            ]
            remarks += [Problem(f"{task.shard}:{key}", what) for key, what in checked.remarks]
            if checked.unlisted:
                problems.append(Problem(str(task.shard), f"has {checked.unlisted} more faults"))
            found.add(task.split, checked.numbers, bytes(checked.hashes))
            problems += splits[task.split].add(task.shard, checked)
    for split in splits:
        problems += [Problem(path_or_url(split.folder / MANIFEST), what) for what in split.check()]
        if what := croissant_problem(split.folder, split.manifest):
            problems.append(Problem(path_or_url(split.folder / CROISSANT), what))
    problems += _check_embedding_sizes(splits)
    overlaps = found.overlaps([split.images for split in splits])
    samples = sum(split.samples for split in splits)
    return VerifyReport(len(folders), len(tasks), samples, tuple(problems), overlaps, tuple(remarks))


class _Split:
    """Adds up what is found in a split's shards, in their order, to compare it with the manifest."""

    def __init__(self, folder: Path, manifest: dict[str, Any], space: LabelSpace) -> None:
        self.folder = folder
        self.manifest = manifest
        self.samples = 0
        self.counts = Counts()
        self.expected = Expected(
            manifest["dataset"], manifest["split"], manifest["annotation_type"], tuple(manifest["members"]), space
        )
        trained_on = role(manifest) == "train" and manifest["split"] == "train"
        self.images = Images(folder, manifest["dataset"], manifest["split"], trained_on)
        self._last = -1
        self._complete = True  # every sample could be counted

    def add(self, shard: Shard, checked: _Checked) -> Iterator[Problem]:
        """Take in the next shard."""
        self.samples += checked.samples
        self.counts.add(checked.counts)
        self._complete = self._complete and checked.complete
        if checked.first is not None and checked.last is not None:
            if checked.first <= self._last:
                yield Problem(str(shard), "its samples do not follow those of the shard before")
            self._last = max(self._last, checked.last)

    def check(self) -> Iterator[str]:
        """What of the manifest is wrong."""
        counts, listed = self.manifest["counts"], sum(entry["samples"] for entry in self.manifest["shards"])
        if counts["written"] != listed:
            yield f"counts {counts['written']} samples written, but its shards have {listed}"
        if counts["skipped"] != len(self.manifest["skipped"]):
            yield f"counts {counts['skipped']} skipped, but lists {len(self.manifest['skipped'])}"
        if counts["found"] != counts["written"] + counts["skipped"]:
            yield "its counts do not add up"
        if not self._complete:
            return
        pixels = {str(index): count for index, count in self.counts.pixels.items()}
        ignored = pixels.pop(str(self.expected.space.ignore_index), 0)
        sizes = {
            "pixels": self.counts.image_pixels,
            "min": list(self.counts.least or (0, 0)),
            "max": list(self.counts.most),
        }
        said = self.manifest.get("depth")
        depths = () if said is None else (("depth", {**said, "known_pixels": self.counts.depth_pixels}),)
        for name, have in (
            ("class_pixels", pixels),
            ("class_boxes", {str(index): count for index, count in self.counts.boxes.items()}),
            ("ignored_pixels", ignored),
            ("sizes", sizes),
            *depths,
        ):
            if self.manifest[name] != have:
                yield f"{name} {'do' if name == 'sizes' else 'does'} not agree with the samples"


def _check_embedding_sizes(splits: Sequence[_Split]) -> Iterator[Problem]:
    sizes: defaultdict[Path, set[int]] = defaultdict(set)
    for split in splits:
        sizes[split.folder.parent] |= split.counts.embedding_sizes
    for folder, different in sizes.items():
        if len(different) > 1:
            yield Problem(path_or_url(folder), f"box_embeddings.npy of different lengths: {sorted(different)}")


# --- one shard --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    split: int
    shard: Shard
    expected: Expected


@dataclass
class _Checked:
    """What one shard was found to be.

    Attributes:
        problems: (key of the sample or "", what).
        remarks: the first of what is odd, likewise.
        unlisted: how many more there are.
        complete: every sample could be counted.
        first, last: the smallest and the largest number of a sample.
        numbers, hashes: of the samples with a source image, its first 16 bytes of SHA-256.
    """

    problems: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    unlisted: int = 0
    samples: int = 0
    complete: bool = True
    first: int | None = None
    last: int | None = None
    numbers: array[int] = field(default_factory=lambda: array("l"))
    hashes: bytearray = field(default_factory=bytearray)
    counts: Counts = field(default_factory=Counts)

    def report(self, key: str, what: str) -> None:
        if isinstance(what, Remark):
            self.remarks = [*self.remarks, (key, what)][:_MAX_PROBLEMS_PER_SHARD]
            return
        self.complete = False
        if len(self.problems) < _MAX_PROBLEMS_PER_SHARD:
            self.problems.append((key, what))
        else:
            self.unlisted += 1


class _Stopped(Exception):
    """The parent has asked to stop."""


def _check_shard(task: _Task, stopped: Callable[[], bool] = lambda: False) -> _Checked:
    shard, checked = task.shard, _Checked()
    try:
        with shard.open() as stream:
            if (size := os.fstat(stream.fileno()).st_size) != shard.nbytes:
                checked.report("", f"has {size} bytes, but the manifest says {shard.nbytes}")
            elif hashlib.file_digest(stream, "sha256").hexdigest() != shard.sha256:  # type: ignore[arg-type]
                checked.report("", "its content does not match the manifest's sha256")
        for key, members in read_samples(shard, checked.report):
            if stopped():
                raise _Stopped
            _check(key, members, task.expected, checked)
    except FileNotFoundError:
        checked.report("", "is missing")
        return checked
    except OSError as error:
        checked.report("", f"can't be read ({error.strerror})")
        return checked
    except (ShardError, RemoteError) as error:  # can't be fetched
        checked.report("", error.what)
        return checked
    if checked.samples != shard.samples:
        checked.report("", f"has {checked.samples} samples, but the manifest says {shard.samples}")
    return checked


def _check(key: str, members: dict[str, bytes], expected: Expected, checked: _Checked) -> None:
    checked.samples += 1
    source = None
    faults = check_sample(key, members, expected, checked.counts)
    while True:
        try:
            checked.report(key, next(faults))
        except StopIteration as done:
            source = done.value
            break
    number = expected.number(key)
    if number is None:
        checked.report(key, "the key does not belong to this split")
        return
    if checked.last is not None and number <= checked.last:
        checked.report(key, "the key occurs twice, or samples are out of order")
    checked.first = number if checked.first is None else min(checked.first, number)
    checked.last = number if checked.last is None else max(checked.last, number)
    if source is not None:
        checked.numbers.append(number)
        checked.hashes += bytes.fromhex(source)[:16]


# --- several processes ------------------------------------------------------------------------------------------------


def _run(tasks: Sequence[_Task], workers: int) -> Generator[_Checked, None, None]:
    """The tasks' results, in their order."""
    if workers == 1:
        yield from map(_check_shard, tasks)
        return
    with worker_pool(workers, "Run again with fewer --workers") as pool:
        with interrupts_held_back():  # all tasks are handed over here, and workers started
            results = pool.map(_work, tasks)
        yield from results


def _work(task: _Task) -> _Checked:
    return _check_shard(task, stopping)
