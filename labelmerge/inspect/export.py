"""Shards as COCO files, for tools that read those: panoptic PNGs and JSON, or instances JSON.

The formats: cocodataset.org/#format-data and cocodataset/panopticapi. JSON is written as it comes, so that memory stays
flat in the number of images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmerge.errors import ShardError, UsageError, did_you_mean
from labelmerge.files import atomic_folder
from labelmerge.inspect.coco import boxes, objects, panoptic, text, write_list
from labelmerge.inspect.samples import ExportSample, ExportSplit, Record, faults, member_pixels, open_splits
from labelmerge.labels import LabelSpace
from labelmerge.progress import Track, no_track
from labelmerge.shardset.manifest import recipe_keys

PANOPTIC, INSTANCES = "coco-panoptic", "coco-instances"
FORMATS = (PANOPTIC, INSTANCES)


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        folder: where.
        dataset, format: what.
        splits: the splits' names.
        images, annotations: how many; of a panoptic format, annotations are segments.
        categories: how many.
        things: names of the classes that are things.
        guessed: whether the things were found by looking at the segments.
    """

    folder: Path
    dataset: str
    format: str
    splits: tuple[str, ...]
    images: int
    annotations: int
    categories: int
    things: tuple[str, ...]
    guessed: bool

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "folder": str(self.folder)}


def export(
    folder: Path,
    format: str,
    out: Path,
    *,
    images: bool = True,
    things: Iterable[str] | None = None,
    track: Track = no_track,
) -> ExportReport:
    """Write the shards of one dataset as COCO files.

    ``<out>/<split>/<key>.jpg`` are the images, their bytes as they are in the shards;
    ``<out>/annotations/panoptic_<split>.json`` with ``panoptic_<split>/<key>.png``, or
    ``<out>/annotations/instances_<split>.json``. An image's id is the number in its key.

    Panoptic: the segments of `instances.png`, and what the mask has besides them as one segment for each class, of
    things as a crowd. Pixels without a label are 0. Instances: the things among the segments, as RLE; or else the
    boxes.

    Category ids are the dataset's own where the segments carry one for each class that occurs; then other classes,
    whose ids are not known, are not categories. Else they are class index + 1.

    Args:
        folder: a split, or a dataset.
        format: one of `FORMATS`.
        out: must not exist, or be empty.
        images: whether to write them, too.
        things: names of the classes that are things, which COCO tells from stuff. None: all of a dataset of objects or
            boxes; those in the recipe's `options.things`; else those of which an image has two segments, or a crowd.
        track: progress over images.

    Raises:
        ShardError: unfinished or damaged shards, several datasets, or no annotation of the kind that is asked for.
        UsageError: no such format or class.
        OutputError: no space, no permission, or something in the way.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}", fix=did_you_mean(format, FORMATS))
    splits = open_splits(folder)
    for split in splits:
        _refuse_format(split, format)
    seen = _look(splits)
    space = splits[0].space
    named = splits[0].things if things is None else list(things)
    if format == INSTANCES and not splits[0].has_segments:
        chosen = set(space.indices)
    else:
        chosen = seen.things if named is None else _indices(space, named)
    if format == INSTANCES and not chosen:
        raise ShardError(
            "which classes are things can't be told: no image has two segments of one class",
            where=folder,
            fix="Name them with --things FILE",
        )
    ids = {
        index: number
        for index, number in _category_ids(splits, seen.ids).items()
        if index in chosen or format == PANOPTIC
    }
    categories = [
        {"id": ids[index], "name": name, "isthing": int(index in chosen), "class_index": index}
        for index, name in zip(space.indices, space.names, strict=True)
        if index in ids
    ]
    counts = Counter[str]()
    with atomic_folder(out) as into:
        (into / "annotations").mkdir()
        samples = _written(splits, format, into, images, categories, ids, counts)
        for _ in track(samples, f"exporting {splits[0].dataset}", sum(split.samples for split in splits)):
            counts["images"] += 1
    return ExportReport(
        folder=out,
        dataset=splits[0].dataset,
        format=format,
        splits=tuple(split.name for split in splits),
        images=counts["images"],
        annotations=counts["annotations"],
        categories=len(categories),
        things=tuple(space.name_of(index) for index in sorted(chosen)),
        guessed=named is None and splits[0].has_segments,
    )


# --- shards in --------------------------------------------------------------------------------------------------------


def _refuse_format(split: ExportSplit, format: str) -> None:
    if format == PANOPTIC and "mask.png" not in split.manifest["members"]:
        raise ShardError("has boxes, but no masks", where=split.where, fix=f"Use --format {INSTANCES}")
    boxes = split.manifest["annotation_type"] == "box" or split.manifest["class_boxes"]
    if format == INSTANCES and not split.has_segments and not boxes:
        raise ShardError(
            "has masks of classes, but neither instances nor boxes", where=split.where, fix=f"Use --format {PANOPTIC}"
        )


@dataclass(frozen=True)
class _Seen:
    """What the segments tell: which classes are things, and their native ids where every class has its own."""

    things: set[int]
    ids: dict[int, int]


def _look(splits: Sequence[ExportSplit]) -> _Seen:
    things: set[int] = set()
    pairs: set[tuple[int, int]] = set()
    for split in splits if splits[0].has_segments else ():
        for sample in split.read():
            with faults(sample):
                segments = sample.meta["segments"]
                per_class = Counter(segment["class_index"] for segment in segments)
                things |= {index for index, count in per_class.items() if count > 1}
                things |= {segment["class_index"] for segment in segments if segment["iscrowd"]}
                pairs |= {(segment["class_index"], segment["category_id"]) for segment in segments}
    one_to_one = len({index for index, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)
    return _Seen(things, dict(pairs) if one_to_one else {})


def _indices(space: LabelSpace, names: Iterable[Any]) -> set[int]:
    """The indices of classes that are given by name or index; raises UsageError."""
    names = list(names)
    if unknown := [name for name in names if name not in space.names and name not in space]:
        raise UsageError(f"{space.name} has no class {unknown[0]!r}", fix=did_you_mean(str(unknown[0]), space.names))
    return {name if name in space else space.indices[space.names.index(name)] for name in names}


def _category_ids(splits: Sequence[ExportSplit], native: Mapping[int, int]) -> Mapping[int, int]:
    """Category id by class index: the dataset's own for all classes that there are, or index + 1."""
    occurring = {int(index) for split in splits for index, count in split.manifest["class_pixels"].items() if count}
    return native if native and occurring <= native.keys() else {index: index + 1 for index in splits[0].space.indices}


# --- COCO out ---------------------------------------------------------------------------------------------------------


def _written(
    splits: Sequence[ExportSplit],
    format: str,
    into: Path,
    images: bool,
    categories: list[Record],
    ids: Mapping[int, int],
    counts: Counter[str],
) -> Iterator[None]:
    """Write all splits; yields after every image."""
    kind = "panoptic" if format == PANOPTIC else "instances"
    things = {category["class_index"] for category in categories if category["isthing"]}
    for split in splits:
        pictures = into / "annotations" / f"{kind}_{split.name}"
        members = ["mask.png"] if format == PANOPTIC else []
        members += ["instances.png"] if split.has_segments else []
        if format == PANOPTIC:
            pictures.mkdir()
        if images:
            (into / split.name).mkdir()
        with (into / "annotations" / f"{kind}_{split.name}.json").open("w", encoding="utf-8") as stream:
            stream.write(f'{{"info": {text(_info(split))}, "categories": {text(categories)},\n"images": [')
            empty = True
            for sample in split.read():
                with faults(sample):
                    empty = write_list(stream, [_image(split, sample)], empty)
            stream.write('],\n"annotations": [')
            empty = True
            for sample in split.read(*members, *((split.image,) if images else ())):
                with faults(sample):
                    if format == PANOPTIC:
                        segments, picture = panoptic(
                            member_pixels(sample, "mask.png"),
                            member_pixels(sample, "instances.png") if split.has_segments else None,
                            sample.meta["segments"],
                            ids,
                            split.space.ignore_index,
                            things,
                        )
                        (pictures / f"{sample.key}.png").write_bytes(picture)
                        records = [
                            {"image_id": sample.number, "file_name": f"{sample.key}.png", "segments_info": segments}
                        ]
                        counts["annotations"] += len(segments)
                    else:
                        made = (
                            objects(member_pixels(sample, "instances.png"), sample.meta["segments"], ids)
                            if split.has_segments
                            else boxes(sample.meta["boxes"], ids)
                        )
                        records = [
                            {"id": number, "image_id": sample.number, **record}
                            for number, record in enumerate(made, start=counts["annotations"] + 1)
                        ]
                        counts["annotations"] += len(records)
                    empty = write_list(stream, records, empty)
                if images:
                    (into / split.name / f"{sample.key}.{split.image}").write_bytes(sample.members[split.image])
                yield
            stream.write("]}\n")


def _info(split: ExportSplit) -> Record:
    recipe = recipe_keys(split.manifest)
    return {
        "description": f"{recipe.get('title') or split.dataset}, {split.name} split, exported from labelmerge's shards",
        "url": recipe.get("homepage", ""),
        "licence": recipe.get("licence", ""),
    }


def _image(split: ExportSplit, sample: ExportSample) -> Record:
    return {
        "id": sample.number,
        "file_name": f"{sample.key}.{split.image}",
        "height": sample.meta["height"],
        "width": sample.meta["width"],
        "native_id": sample.meta["source"]["native_id"],
        "source": sample.meta["source"]["path"],
    }
