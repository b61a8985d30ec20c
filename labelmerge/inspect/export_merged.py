"""Several datasets → one folder for a trainer of one's own: one class list, one palette, unique names and ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelmerge.colours import palette
from labelmerge.errors import LabelmergeError, ShardError, UsageError, did_you_mean
from labelmerge.files import atomic_folder
from labelmerge.inspect.formats import coco, hf, index_png, yolo
from labelmerge.inspect.formats.written import Format, Request
from labelmerge.inspect.merged import Lost, MergedSets, open_merged
from labelmerge.progress import Track, no_track
from labelmerge.push.push import push as push_folder
from labelmerge.text import csv_text
from labelmerge.upload import check_url

INDEX_PNG, PANOPTIC, INSTANCES, YOLO, HF = "index-png", "coco-panoptic", "coco-instances", "yolo", "hf"
FORMATS: dict[str, Format] = {
    INDEX_PNG: index_png,
    PANOPTIC: coco.PANOPTIC,
    INSTANCES: coco.INSTANCES,
    YOLO: yolo,
    HF: hf,
}
TASKS = ("detect", "segment")
_WITHOUT_THINGS = (INDEX_PNG, HF)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class MergedReport:
    """What was written.

    Attributes:
        folder: where.
        format: what.
        datasets, splits: their names.
        images, annotations: how many; annotations are objects, or of a panoptic format segments.
        classes: the class list, in the order of its numbers.
        things: which of them are things, for formats that tell.
        lost: the labels that have no class.
        labelled: the pixels and boxes that have a label in the shards.
        left_out: the splits that such files can't hold, and why.
        pushed: the repository that it was pushed to.
        task: of YOLO's files: ``detect`` or ``segment``.
        crowds: how many crowds and depictions were left out, because the format can't mark them.
    """

    folder: Path
    format: str
    datasets: tuple[str, ...]
    splits: tuple[str, ...]
    images: int
    annotations: int
    classes: tuple[str, ...]
    things: tuple[str, ...]
    lost: tuple[Lost, ...]
    labelled: tuple[int, int]
    left_out: tuple[str, ...]
    pushed: str | None = None
    task: str | None = None
    crowds: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "folder": str(self.folder), "lost": [vars(each) for each in self.lost]}


def export_merged(
    folders: Sequence[Path],
    format: str,
    out: Path,
    *,
    taxonomy: Path | None = None,
    images: bool = True,
    things: Iterable[str] | None = None,
    task: str | None = None,
    push: str | None = None,
    track: Track = no_track,
) -> MergedReport:
    """Write the shards of several datasets as one dataset.

    Beside the format's own files (`labelmerge.inspect.formats`) there are ``classes.txt``, a class a line, and
    ``classes.csv``: index, name, colour. Images keep their bytes, and are named by their keys, which no two datasets
    share. A label of several concepts has no class: its pixels get no label, its boxes are left out.

    Args:
        folders: splits, datasets, or folders of datasets.
        format: one of `FORMATS`.
        out: must not exist, or be empty.
        taxonomy: as `open_merged`.
        images: whether to write them, too; Parquet files always hold them.
        things: names of the classes that are things.
        task: of YOLO's files: ``detect`` or ``segment``; None: outlines where all sets can give some.
        push: OWNER/NAME of a dataset on the Hugging Face hub to upload the folder to.
        track: progress over images.

    Raises:
        ShardError, TaxonomyError, UsageError: as `open_merged`; no split can be in such files; an option that makes no
            sense.
        OutputError: no space, no permission, or something in the way.
        LabelmergeError: it is written, but could not be pushed.
    """
    if things is not None:
        things = list(things)
    check_options(format, images, things, task, push)
    sets = open_merged(folders, taxonomy)
    writer = FORMATS[format]
    objects = [each.split.has_segments for each in sets.splits if not writer.refuse(each, False)]
    segments = task == "segment" or (task is None and bool(objects) and all(objects))
    kept, left_out = [], []
    for each in sets.splits:
        if reason := writer.refuse(each, segments):
            left_out.append(f"{each.split.dataset} {each.name} {reason}")
        else:
            kept.append(each)
    if not kept:
        raise ShardError(f"nothing to write as {format}: {'; '.join(left_out)}", where=folders[0])
    countable = sets.things(things) if format not in _WITHOUT_THINGS else set()
    if format in (INSTANCES, YOLO) and not countable:
        raise ShardError(
            "which classes are things can't be told: no image has two segments of one class",
            where=folders[0],
            fix="Name them with --things FILE",
        )
    written = replace(sets, splits=tuple(kept))
    with atomic_folder(out) as into:
        request = Request(written, into, palette(sets.space.names), countable, images, segments)
        total = sum(each.split.samples for each in kept)
        for _ in track(writer.write(request), f"exporting {', '.join(written.datasets)}", total):
            pass
        _write_classes(into, written, request)
    report = MergedReport(
        folder=out,
        format=format,
        datasets=tuple(written.datasets),
        splits=tuple(written.by_name()),
        images=request.counts["images"],
        annotations=request.counts["annotations"],
        classes=sets.space.names,
        things=tuple(sets.space.names[index] for index in sorted(countable)),
        lost=sets.lost,
        labelled=sets.labelled,
        left_out=tuple(left_out),
        task=TASKS[segments] if format == YOLO else None,
        crowds=request.counts["crowds"],
    )
    return report if push is None else replace(report, pushed=_push(out, push))


def check_options(format: str, images: bool, things: Iterable[str] | None, task: str | None, push: str | None) -> None:
    """Raise UsageError where an option makes no sense with a format; as `export_merged`."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    if things is not None and format in _WITHOUT_THINGS:
        raise UsageError(f"files of --format {format} don't tell things from stuff", fix="Leave --things out")
    if task is not None and format != YOLO:
        raise UsageError("--task is for --format yolo alone", fix="Leave it out")
    if task is not None and task not in TASKS:
        raise UsageError(f"unknown task {task!r}", fix=did_you_mean(task, TASKS))
    if not images and format == HF:
        raise UsageError("Parquet files hold the images", fix="Leave --no-images out, or use another --format")
    if push is not None and format != HF:
        raise UsageError("--push is for --format hf alone", fix="Use --format hf")
    if push is not None and not _REPO.fullmatch(push):
        raise UsageError(f"{push!r} is not the name of a repository", fix="Write OWNER/NAME")
    if push is not None:
        check_url(f"hf://datasets/{push}")


def _write_classes(into: Path, sets: MergedSets, request: Request) -> None:
    names = sets.space.names
    (into / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    rows = (
        (index, name, "#{:02x}{:02x}{:02x}".format(*colour))
        for index, (name, colour) in enumerate(zip(names, request.palette.tolist(), strict=True))
    )
    (into / "classes.csv").write_text(csv_text([("index", "name", "colour"), *rows]), encoding="utf-8")


def _push(folder: Path, repo: str) -> str:
    """Upload a folder to a dataset on the hub, as whoever is logged in there; returns the repository's address."""
    url = f"hf://datasets/{repo}"
    try:
        return push_folder(folder, url).uploaded.url
    except LabelmergeError as error:
        fix = f"{error.fix}; then: labelmerge push {folder} {url}"
        raise LabelmergeError(f"is written, but not pushed: {url} {error.what}", where=folder, fix=fix) from error
