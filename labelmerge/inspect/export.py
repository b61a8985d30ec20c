"""Shards as COCO files, for tools that read those: panoptic PNGs and JSON, or instances JSON.

The formats: cocodataset.org/#format-data and cocodataset/panopticapi. JSON is written as it comes, so that memory stays
flat in the number of images.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.errors import SampleError, ShardError, UsageError, did_you_mean
from labelmerge.files import atomic_folder
from labelmerge.labels import LabelSpace
from labelmerge.progress import Track, no_track
from labelmerge.shardset.manifest import MANIFEST, read_manifest, recipe_keys
from labelmerge.shardset.meta import parse
from labelmerge.shardset.pixels import decode_whole, png_bytes
from labelmerge.shardset.splits import find_splits
from labelmerge.shardset.tar import read_samples

PANOPTIC, INSTANCES = "coco-panoptic", "coco-instances"
FORMATS = (PANOPTIC, INSTANCES)

# Readers of annotations that know no stuff.
_ONLY_OBJECTS = ("coco_instances", "video_instances")

Array = npt.NDArray[Any]
Record = dict[str, Any]


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

    Panoptic: the segments of `instances.png`, and what the mask has besides them as one segment for each class. Pixels
    without a label are 0. Instances: the things among the segments, as RLE; or else the boxes.

    Category ids are the dataset's own where the segments carry one for each class that occurs; then other classes,
    whose ids nobody knows, are no categories. Else they are class index + 1.

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
    splits = _splits(folder)
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


@dataclass(frozen=True)
class _Sample:
    key: str
    number: int
    meta: Record
    members: Mapping[str, bytes]
    where: str


@dataclass(frozen=True)
class _Split:
    folder: Path
    manifest: Mapping[str, Any]
    space: LabelSpace

    @property
    def name(self) -> str:
        return str(self.manifest["split"])

    @property
    def dataset(self) -> str:
        return str(self.manifest["dataset"])

    @property
    def samples(self) -> int:
        return int(self.manifest["counts"]["written"])

    @property
    def has_segments(self) -> bool:
        return "instances.png" in self.manifest["members"]

    @property
    def things(self) -> list[Any] | None:
        """The names or indices of the classes that are things, as far as the recipe tells; None where it does not."""
        recipe = recipe_keys(self.manifest)
        try:
            variants = [one for one in recipe.get("variants", []) if one["name"] == self.manifest["variant"]]
            recipe |= variants[0] if variants else {}
            if recipe["reader"] in _ONLY_OBJECTS:
                return list(self.space.indices)
            things = recipe.get("options", {}).get("things")
            return None if things is None else list(things)
        except (KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"its recipe is malformed ({error!r})", where=self.folder / MANIFEST) from error

    @cached_property
    def image(self) -> str:
        """The name of the image member, which is also its suffix."""
        return "jpg" if "jpg" in self.manifest["members"] else "png"

    def read(self, *members: str) -> Iterator[_Sample]:
        """The samples, with these members and the JSON parsed. Raises ShardError."""
        for entry in self.manifest["shards"]:
            path = self.folder / entry["name"]

            def damaged(key: str, what: str, path: Path = path) -> NoReturn:
                raise ShardError(
                    what, where=f"{path}:{key}" if key else path, fix="`labelmerge verify` shows all faults"
                )

            if not path.is_file():
                damaged("", "is missing")
            try:
                yield from self._samples(path, members, damaged)
            except OSError as error:
                damaged("", f"can't be read ({error.strerror})")

    def _samples(
        self, path: Path, members: tuple[str, ...], damaged: Callable[[str, str], NoReturn]
    ) -> Iterator[_Sample]:
        for key, found in read_samples(path, damaged, ("json", *members)):
            if missing := [name for name in ("json", *members) if name not in found]:
                damaged(key, f"members missing: {', '.join(missing)}")
            digits = key.removeprefix(f"{self.dataset}-{self.name}-")
            if not digits.isdecimal():
                damaged(key, "the key is none of this split")
            try:
                meta = parse(found["json"])
            except ValueError as error:
                damaged(key, str(error))
            yield _Sample(key, int(digits), meta, found, f"{path}:{key}")


def _splits(folder: Path) -> list[_Split]:
    splits = [_Split(path, *read_manifest(path)) for path in find_splits([folder])]
    first = splits[0]
    for split in splits[1:]:
        if split.dataset != first.dataset:
            raise ShardError(
                f"holds several datasets ({first.dataset}, {split.dataset}, …)",
                where=folder,
                fix="Export one at a time",
            )
        if split.space.hash != first.space.hash or split.has_segments != first.has_segments:
            raise ShardError(
                f"its splits {first.name} and {split.name} differ in their classes or members",
                where=folder,
                fix="Export one at a time",
            )
    if twice := [name for name, count in Counter(split.name for split in splits).items() if count > 1]:
        raise ShardError(f"holds the {twice[0]} split several times", where=folder, fix="Export one at a time")
    return splits


def _refuse_format(split: _Split, format: str) -> None:
    if format == PANOPTIC and "mask.png" not in split.manifest["members"]:
        raise ShardError("has boxes, but no masks", where=split.folder, fix=f"Use --format {INSTANCES}")
    boxes = split.manifest["annotation_type"] == "box" or split.manifest["class_boxes"]
    if format == INSTANCES and not split.has_segments and not boxes:
        raise ShardError(
            "has masks of classes, but neither instances nor boxes", where=split.folder, fix=f"Use --format {PANOPTIC}"
        )


@dataclass(frozen=True)
class _Seen:
    """What the segments tell: which classes are things, and their native ids where every class has its own."""

    things: set[int]
    ids: dict[int, int]


def _look(splits: Sequence[_Split]) -> _Seen:
    things: set[int] = set()
    pairs: set[tuple[int, int]] = set()
    for split in splits if splits[0].has_segments else ():
        for sample in split.read():
            with _faults(sample):
                segments = sample.meta["segments"]
                per_class = Counter(segment["class_index"] for segment in segments)
                things |= {index for index, count in per_class.items() if count > 1}
                things |= {segment["class_index"] for segment in segments if segment["iscrowd"]}
                pairs |= {(segment["class_index"], segment["category_id"]) for segment in segments}
    one_to_one = len({index for index, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)
    return _Seen(things, dict(pairs) if one_to_one else {})


class _faults:
    """Turns what hostile or damaged content makes Python raise into a ShardError that names the sample."""

    def __init__(self, sample: _Sample) -> None:
        self._where = sample.where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, IndexError, OverflowError, SampleError)):
            what = error.what if isinstance(error, SampleError) else repr(error)
            raise ShardError(
                f"is damaged ({what})", where=self._where, fix="`labelmerge verify` shows all faults"
            ) from error


def _indices(space: LabelSpace, names: Iterable[Any]) -> set[int]:
    """The indices of classes that are given by name or index; raises UsageError."""
    names = list(names)
    if unknown := [name for name in names if name not in space.names and name not in space]:
        raise UsageError(f"{space.name} has no class {unknown[0]!r}", fix=did_you_mean(str(unknown[0]), space.names))
    return {name if name in space else space.indices[space.names.index(name)] for name in names}


def _category_ids(splits: Sequence[_Split], native: Mapping[int, int]) -> Mapping[int, int]:
    """Category id by class index: the dataset's own for all classes that there are, or index + 1."""
    occurring = {int(index) for split in splits for index, count in split.manifest["class_pixels"].items() if count}
    return native if native and occurring <= native.keys() else {index: index + 1 for index in splits[0].space.indices}


# --- COCO out ---------------------------------------------------------------------------------------------------------


def _written(
    splits: Sequence[_Split],
    format: str,
    into: Path,
    images: bool,
    categories: list[Record],
    ids: Mapping[int, int],
    counts: Counter[str],
) -> Iterator[None]:
    """Write all splits; yields after every image."""
    kind = "panoptic" if format == PANOPTIC else "instances"
    for split in splits:
        pictures = into / "annotations" / f"{kind}_{split.name}"
        members = ["mask.png"] if format == PANOPTIC else []
        members += ["instances.png"] if split.has_segments else []
        if format == PANOPTIC:
            pictures.mkdir()
        if images:
            (into / split.name).mkdir()
        with (into / "annotations" / f"{kind}_{split.name}.json").open("w", encoding="utf-8") as stream:
            stream.write(f'{{"info": {_text(_info(split))}, "categories": {_text(categories)},\n"images": [')
            empty = True
            for sample in split.read():
                with _faults(sample):
                    empty = _write_list(stream, [_image(split, sample)], empty)
            stream.write('],\n"annotations": [')
            empty = True
            for sample in split.read(*members, *((split.image,) if images else ())):
                with _faults(sample):
                    if format == PANOPTIC:
                        annotation, picture = _panoptic(split, sample, ids)
                        (pictures / f"{sample.key}.png").write_bytes(picture)
                        records = [annotation]
                        counts["annotations"] += len(annotation["segments_info"])
                    else:
                        made = _segments(sample, ids) if split.has_segments else _boxes(sample, ids)
                        records = [
                            {"id": number, "image_id": sample.number, **record}
                            for number, record in enumerate(made, start=counts["annotations"] + 1)
                        ]
                        counts["annotations"] += len(records)
                    empty = _write_list(stream, records, empty)
                if images:
                    (into / split.name / f"{sample.key}.{split.image}").write_bytes(sample.members[split.image])
                yield
            stream.write("]}\n")


def _info(split: _Split) -> Record:
    recipe = recipe_keys(split.manifest)
    return {
        "description": f"{recipe.get('title') or split.dataset}, {split.name} split, exported from labelmerge's shards",
        "url": recipe.get("homepage", ""),
        "licence": recipe.get("licence", ""),
    }


def _image(split: _Split, sample: _Sample) -> Record:
    return {
        "id": sample.number,
        "file_name": f"{sample.key}.{split.image}",
        "height": sample.meta["height"],
        "width": sample.meta["width"],
        "native_id": sample.meta["source"]["native_id"],
        "source": sample.meta["source"]["path"],
    }


def _panoptic(split: _Split, sample: _Sample, ids: Mapping[int, int]) -> tuple[Record, bytes]:
    """The annotation of one image and its PNG."""
    mask = _pixels(sample, "mask.png")
    listed = {segment["id"]: segment for segment in sample.meta["segments"]}
    numbers = np.zeros_like(mask, dtype=np.uint32)
    if split.has_segments:
        known = np.zeros(1 << 16, dtype=np.uint32)
        known[list(listed)] = list(listed)
        numbers = known[_pixels(sample, "instances.png")]
    free = numbers == 0
    number_of = np.zeros(1 << 16, dtype=np.uint32)
    pixels = np.bincount(mask[free], minlength=1 << 16)
    pixels[split.space.ignore_index] = 0
    for number, index in enumerate(np.flatnonzero(pixels).tolist(), start=max(listed, default=0) + 1):
        number_of[index] = number
        listed[number] = {"class_index": index, "iscrowd": False}
    numbers = np.where(free, number_of[mask], numbers)
    records = [
        {
            "id": number,
            "category_id": ids[listed[number]["class_index"]],
            "area": area,
            "bbox": bbox,
            "iscrowd": int(listed[number]["iscrowd"]),
        }
        for number, area, bbox in _regions(numbers)
    ]
    every = np.arange(max(listed, default=0) + 1)
    rgb = np.stack([every & 255, every >> 8 & 255, every >> 16], axis=-1).astype(np.uint8)[numbers]
    annotation = {"image_id": sample.number, "file_name": f"{sample.key}.png", "segments_info": records}
    return annotation, png_bytes(Image.fromarray(rgb))


def _regions(numbers: Array) -> Iterator[tuple[int, int, list[int]]]:
    """Value, area and [x, y, width, height] of every value but 0 in [H, W], ascending."""
    width = numbers.shape[1]
    flat = numbers.ravel()
    order = np.argsort(flat.astype(np.uint16) if flat.max() < 1 << 16 else flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    ends = np.append(starts[1:], flat.size)
    left, right = (extreme.reduceat(order % width, starts) for extreme in (np.minimum, np.maximum))
    for start, end, x0, x1 in zip(starts.tolist(), ends.tolist(), left.tolist(), right.tolist(), strict=True):
        if value := int(flat[order[start]]):
            # The sort is stable: a region's pixels are still in their order, from its top row to its last.
            y0, y1 = int(order[start]) // width, int(order[end - 1]) // width
            yield value, end - start, [x0, y0, x1 - x0 + 1, y1 - y0 + 1]


def _segments(sample: _Sample, ids: Mapping[int, int]) -> Iterator[Record]:
    """The things of one image, as RLE."""
    from pycocotools import mask as rle

    numbers = np.asfortranarray(_pixels(sample, "instances.png"))
    boxes = {value: (area, bbox) for value, area, bbox in _regions(numbers)}
    for segment in sample.meta["segments"]:
        if segment["class_index"] in ids:
            area, bbox = boxes[segment["id"]]
            encoded = rle.encode((numbers == segment["id"]).astype(np.uint8))
            yield {
                "category_id": ids[segment["class_index"]],
                "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode()},
                "area": area,
                "bbox": bbox,
                "iscrowd": int(segment["iscrowd"]),
            }


def _boxes(sample: _Sample, ids: Mapping[int, int]) -> Iterator[Record]:
    for box in sample.meta["boxes"]:
        x0, y0, x1, y1 = box["bbox"]
        yield {
            "category_id": ids[box["class_index"]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": box["area"],
            "iscrowd": int(box["iscrowd"] or box["group_of"]),
            "isfake": int(box["depiction"]),
            "isreflected": int(box["reflected"]),
        }


def _pixels(sample: _Sample, member: str) -> Array:
    pixels: Array = np.asarray(decode_whole(sample.members[member], Path(member)))
    if pixels.shape != (sample.meta["height"], sample.meta["width"]) or pixels.dtype.kind != "u":
        raise ValueError(f"{member} is {pixels.dtype}{list(pixels.shape)}")
    return pixels


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_list(stream: IO[str], records: Iterable[Record], empty: bool) -> bool:
    """Write more elements of a JSON list; whether the list is still empty."""
    for record in records:
        stream.write(("\n" if empty else ",\n") + _text(record))
        empty = False
    return empty
