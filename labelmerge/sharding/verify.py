"""Are shards what their manifest says, and their samples what the schema says?"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.errors import SampleError, ShardError
from labelmerge.files import sha256_file
from labelmerge.labels import LabelSpace
from labelmerge.progress import Track, no_track
from labelmerge.sharding.images import decode
from labelmerge.sharding.manifest import MANIFEST, UNFINISHED, Types, read_manifest, wrong_types

_SAMPLE_TYPES: Types = {
    "key": str,
    "dataset": str,
    "split": str,
    "annotation_type": str,
    "label_space": str,
    "height": int,
    "width": int,
    "original_height": int,
    "original_width": int,
    "source": dict,
    "present": str,
    "boxes": str,
    "segments": str,
}
_LISTS = ("present", "boxes", "segments")
_SOURCE_TYPES: Types = {"path": str, "native_id": str, "sha256": str}
_BOX_TYPES: Types = {
    "bbox": list,
    "class_index": int,
    "iscrowd": bool,
    "group_of": bool,
    "depiction": bool,
    "reflected": bool,
    "area": (int, float),
    "native_id": str,
}
_SEGMENT_TYPES: Types = {
    "id": int,
    "class_index": int,
    "category_id": int,
    "iscrowd": bool,
    "area": int,
    "native_id": str,
}
_FORMATS = {"jpg": "JPEG", "png": "PNG"}
# Float32 readers of boxes may step this far over the border.
_BORDER = 1e-3


@dataclass(frozen=True)
class Problem:
    """One fault: in which file (and sample), and what it is."""

    where: str
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, and every fault that was found."""

    splits: int
    shards: int
    samples: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_splits(folders: Sequence[Path]) -> list[Path]:
    """The folders with a manifest, or an unfinished one, at or below `folders`; sorted, each once.

    Raises:
        ShardError: one of `folders` doesn't exist or has no shards in it.
    """
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ShardError("no such folder", where=folder)
        here = {path.parent for name in (MANIFEST, UNFINISHED, "*.tar") for path in folder.rglob(name)}
        if not here:
            raise ShardError("no shards here", where=folder, fix="Give a folder that `labelmerge shard` wrote")
        found |= here
    return sorted(found)


def verify(folders: Sequence[Path], track: Track = no_track) -> VerifyReport:
    """Check every shard under `folders` against its manifest and every sample against the schema.

    Args:
        folders: splits, datasets, or folders of datasets.
        track: progress over shards.

    Raises:
        ShardError: there is nothing to verify. Faults of shards are in the report.
    """
    problems: list[Problem] = []
    shards: list[tuple[Path, dict[str, Any], LabelSpace, _Totals]] = []
    totals = []
    splits = find_splits(folders)
    for folder in splits:
        try:
            manifest, space = read_manifest(folder)
        except ShardError as error:
            problems.append(Problem(str(error.where), error.what))
            continue
        total = _Totals(folder, manifest)
        totals.append(total)
        listed = {entry["name"] for entry in manifest["shards"]}
        for path in sorted(folder.glob("*.tar")):
            if path.name not in listed:
                problems.append(Problem(str(path), "is not in the manifest"))
        shards += [(folder / entry["name"], entry, space, total) for entry in manifest["shards"]]
    for path, entry, space, total in track(shards, "verifying shards", len(shards)):
        problems += [Problem(f"{path}{sample}", what) for sample, what in _check_shard(path, entry, space, total)]
    for total in totals:
        problems += [Problem(str(total.folder / MANIFEST), what) for what in total.check()]
    return VerifyReport(len(splits), len(shards), sum(total.samples for total in totals), tuple(problems))


class _Totals:
    """Counts over a split's samples, to be compared with its manifest."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.samples = 0
        self.pixels = np.zeros(1 << 16, dtype=np.int64)
        self.boxes = np.zeros(1 << 16, dtype=np.int64)
        self.keys: set[str] = set()
        self.complete = True  # every sample could be counted

    def check(self) -> Iterator[str]:
        counts, listed = self.manifest["counts"], sum(entry["samples"] for entry in self.manifest["shards"])
        if counts["written"] != listed:
            yield f"counts {counts['written']} samples written, but its shards have {listed}"
        if counts["skipped"] != len(self.manifest["skipped"]):
            yield f"counts {counts['skipped']} skipped, but lists {len(self.manifest['skipped'])}"
        if counts["found"] != counts["written"] + counts["skipped"]:
            yield "its counts do not add up"
        if not self.complete:
            return
        for name, have in (("class_pixels", self.pixels), ("class_boxes", self.boxes)):
            wanted = {str(index): int(have[index]) for index in np.flatnonzero(have)}
            ignored = wanted.pop(str(self._ignore), 0) if name == "class_pixels" else 0
            if wanted != self.manifest[name]:
                yield f"{name} does not agree with the samples"
            if name == "class_pixels" and ignored != self.manifest["ignored_pixels"]:
                yield "ignored_pixels does not agree with the samples"

    @property
    def _ignore(self) -> int:
        return LabelSpace.from_json(self.manifest["label_space"]).ignore_index


def _check_shard(path: Path, entry: dict[str, Any], space: LabelSpace, total: _Totals) -> Iterator[tuple[str, str]]:
    """Faults of one shard: (":key" of the sample or "", what)."""
    if not path.is_file():
        total.complete = False
        yield "", "is missing"
        return
    samples = 0
    try:
        yield from (("", what) for what in _check_file(path, entry))
        for key, members, twice in _samples(path):
            samples += 1
            if twice:
                yield f":{key}", f"members that occur twice: {', '.join(twice)}"
            if key in total.keys:
                yield f":{key}", "the key occurs twice"
            total.keys.add(key)
            sound = True
            for what in _check_sample(key, members, space, total):
                sound = False
                yield f":{key}", what
            total.complete = total.complete and sound
    except tarfile.TarError as error:
        total.complete = False
        yield "", f"is not a whole tar ({error})"
    except OSError as error:
        total.complete = False
        yield "", f"can't be read ({error.strerror})"
        return
    total.samples += samples
    if samples != entry["samples"]:
        total.complete = False
        yield "", f"has {samples} samples, but the manifest says {entry['samples']}"


def _check_file(path: Path, entry: dict[str, Any]) -> Iterator[str]:
    if path.stat().st_size != entry["bytes"]:
        yield f"has {path.stat().st_size} bytes, but the manifest says {entry['bytes']}"
    elif sha256_file(path) != entry["sha256"]:
        yield "its content is not what the manifest's sha256 says"


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """Runs of members with one key, as WebDataset reads them: the key, the members, and the names that come twice."""
    with tarfile.open(path, "r:") as tar:
        files = (member for member in tar if member.isfile())
        for key, group in groupby(files, key=lambda member: member.name.partition(".")[0]):
            members: dict[str, bytes] = {}
            twice = []
            for member in group:
                name = member.name.partition(".")[2]
                if name in members:
                    twice.append(name)
                stream = tar.extractfile(member)
                assert stream is not None
                members[name] = stream.read()
            yield key, members, twice


def _check_sample(key: str, members: dict[str, bytes], space: LabelSpace, total: _Totals) -> Iterator[str]:
    expected = set(total.manifest["members"])
    if missing := sorted(expected - members.keys()):
        yield f"members missing: {', '.join(missing)}"
    if extra := sorted(members.keys() - expected):
        yield f"members that the manifest does not list: {', '.join(extra)}"
    if "json" not in members:
        return
    try:
        meta = json.loads(members["json"])
    except (ValueError, RecursionError) as error:
        yield f"json can't be read ({error})"
        return
    if wrong := wrong_types(meta, _SAMPLE_TYPES) or wrong_types(meta["source"], _SOURCE_TYPES):
        yield f"json: {wrong}"
        return
    for name in _LISTS:
        try:
            meta[name] = json.loads(meta[name])
        except (ValueError, RecursionError) as error:
            yield f"json: {name} is no JSON text ({error})"
            return
        if not isinstance(meta[name], list):
            yield f"json: {name} is no list"
            return
    for name, value in (
        ("key", key),
        ("dataset", total.manifest["dataset"]),
        ("split", total.manifest["split"]),
        ("annotation_type", total.manifest["annotation_type"]),
        ("label_space", space.hash),
    ):
        if meta[name] != value:
            yield f"json: {name} is {meta[name]!r}, not {value!r}"
    size = (meta["height"], meta["width"])
    for name in ("jpg", "png"):
        if name in members:
            yield from _check_size(key, name, members[name], size)
    present = {box["class_index"] for box in meta["boxes"] if wrong_types(box, {"class_index": int}) is None}
    if "mask.png" in members:
        mask = yield from _check_size(key, "mask.png", members["mask.png"], size)
        if mask is not None:
            counts = np.bincount(mask.ravel(), minlength=1 << 16)
            total.pixels += counts
            values = set(np.flatnonzero(counts).tolist()) - {space.ignore_index}
            if outside := sorted(value for value in values if value not in space):
                yield f"mask.png: values outside the label space: {', '.join(map(str, outside[:5]))}"
            present = values
    yield from _check_boxes(meta, space, total)
    if "instances.png" in members:
        instances = yield from _check_size(key, "instances.png", members["instances.png"], size)
        if instances is not None:
            yield from _check_segments(meta, space, np.bincount(instances.ravel()))
    elif meta["segments"]:
        yield "json: has segments, but there is no instances.png"
    if meta["present"] != sorted(present):
        yield f"json: present is {meta['present']}, but the annotation has {sorted(present)}"


def _check_size(
    key: str, name: str, data: bytes, size: tuple[int, int]
) -> Any:  # a generator of faults that returns the pixels, or None
    try:
        image = decode(data, Path(f"{key}.{name}"))
    except SampleError:
        yield f"{name} can't be decoded"
        return None
    if image.format != _FORMATS[name.rpartition(".")[2]]:
        yield f"{name} is a {image.format} file"
    if (image.height, image.width) != size:
        yield f"{name} is {image.width}x{image.height}, but the json says {size[1]}x{size[0]}"
    if name.endswith(".png") and name != "png" and image.mode not in ("L", "I;16"):
        yield f"{name} is no single-channel 8- or 16-bit PNG (mode {image.mode})"
        return None
    return np.asarray(image)


def _check_boxes(meta: dict[str, Any], space: LabelSpace, total: _Totals) -> Iterator[str]:
    for number, box in enumerate(meta["boxes"]):
        if wrong := wrong_types(box, _BOX_TYPES):
            yield f"json: boxes[{number}]: {wrong}"
            continue
        corners = box["bbox"]
        if len(corners) != 4 or not all(map(_is_number, corners)) or not _is_number(box["area"]) or box["area"] < 0:
            yield f"json: boxes[{number}]: bbox must be four numbers, and area one of 0 or more"
            continue
        x0, y0, x1, y1 = corners
        if not (-_BORDER <= x0 < x1 <= meta["width"] + _BORDER and -_BORDER <= y0 < y1 <= meta["height"] + _BORDER):
            yield f"json: boxes[{number}]: {corners} is no box inside the image"
        if box["class_index"] not in space:
            yield f"json: boxes[{number}]: class {box['class_index']} is not in the label space"
        else:
            total.boxes[box["class_index"]] += 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and -math.inf < value < math.inf


def _check_segments(meta: dict[str, Any], space: LabelSpace, areas: Any) -> Iterator[str]:
    listed: dict[int, int] = {}
    for number, segment in enumerate(meta["segments"]):
        if wrong := wrong_types(segment, _SEGMENT_TYPES):
            yield f"json: segments[{number}]: {wrong}"
            continue
        listed[segment["id"]] = segment["area"]
        if segment["class_index"] not in space:
            yield f"json: segments[{number}]: class {segment['class_index']} is not in the label space"
    have = {int(value): int(areas[value]) for value in np.flatnonzero(areas) if value}
    if listed != have:
        yield "instances.png and the segments of the json differ in ids or areas"
