"""Splits of several datasets as one dataset: one class list, one number for each class, unique names and ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.errors import ShardError, TaxonomyError, UsageError, did_you_mean
from labelmerge.inspect.samples import Array, ExportSplit, Record, faults, member_pixels
from labelmerge.labels import LabelSpace, names_of
from labelmerge.merge.taxonomy import Taxonomy, read_taxonomy, space_name
from labelmerge.shardset.manifest import read_manifest
from labelmerge.shardset.splits import find_splits
from labelmerge.text import some

_ORDER = ("train", "val", "test")
_RELABEL = "`labelmerge relabel … --taxonomy T` writes them in one"


@dataclass(frozen=True)
class Lost:
    """A label that has no class in the list: the concepts that it may stand for, and how much of it there is."""

    dataset: str
    name: str
    concepts: tuple[str, ...]
    pixels: int
    boxes: int


@dataclass(frozen=True)
class MergedSample:
    """An image and its annotation in the one class list.

    Attributes:
        number: its id among all images, from 1.
        image: its file.
        mask: ``[H, W]`` classes, `ignore_index` for no label; None where its dataset has no masks.
        instances: ``[H, W]`` segment ids; None where its dataset has none.
        segments, boxes: as in a sample's JSON, with classes of the list; without those that have none.
    """

    key: str
    number: int
    image: bytes
    height: int
    width: int
    native_id: str
    path: str
    mask: Array | None
    instances: Array | None
    segments: list[Record]
    boxes: list[Record]


@dataclass(frozen=True)
class MergedSplit:
    """A split of one dataset, and the class of each of its labels.

    Attributes:
        split: the shards.
        space: the class list.
        class_of: by index of the split's own space; a label that it lacks gives no label.
    """

    split: ExportSplit
    space: LabelSpace
    class_of: Mapping[int, int]

    @property
    def name(self) -> str:
        return self.split.name

    @property
    def has_masks(self) -> bool:
        return "mask.png" in self.split.manifest["members"]

    @property
    def has_boxes(self) -> bool:
        return self.split.manifest["annotation_type"] == "box" or bool(self.split.manifest["class_boxes"])

    @cached_property
    def things(self) -> set[int] | None:
        """The classes that are things, as far as the shards tell."""
        if self.split.manifest["annotation_type"] == "box" and "things" not in self.split.manifest:
            return set(self.class_of.values())
        named = self.split.things
        if named is None:
            return None
        own = self.split.space
        return {
            self.class_of[index]
            for index, name in zip(own.indices, own.names, strict=True)
            if name in named and index in self.class_of
        }

    def repeated(self) -> set[int]:
        """The classes of which some image has two segments, or a crowd: these must be things."""
        found: set[int] = set()
        for sample in self.split.read() if self.split.has_segments else ():
            with faults(sample):
                counts = Counter(segment["class_index"] for segment in sample.meta["segments"])
                crowds = {segment["class_index"] for segment in sample.meta["segments"] if segment["iscrowd"]}
                found |= crowds | {index for index, count in counts.items() if count > 1}
        return {self.class_of[index] for index in found if index in self.class_of}

    def read(self, first: int, *, image: bool = True) -> Iterator[MergedSample]:
        """The samples, numbered from `first` on. Raises ShardError."""
        members = [*([self.split.image] if image else []), *(["mask.png"] if self.has_masks else [])]
        members += ["instances.png"] if self.split.has_segments else []
        table = self.split.space.lookup(self.class_of, self.space.ignore_index).astype(self.space.dtype)
        for number, sample in enumerate(self.split.read(*members), start=first):
            with faults(sample):
                meta = sample.meta
                segments = self._classed(meta["segments"])
                instances = None
                if self.split.has_segments:
                    kept = np.zeros(1 << 16, dtype=np.uint16)
                    kept[[segment["id"] for segment in segments]] = [segment["id"] for segment in segments]
                    instances = kept[member_pixels(sample, "instances.png")]
                yield MergedSample(
                    key=sample.key,
                    number=number,
                    image=sample.members[self.split.image] if image else b"",
                    height=meta["height"],
                    width=meta["width"],
                    native_id=meta["source"]["native_id"],
                    path=meta["source"]["path"],
                    mask=table[member_pixels(sample, "mask.png")] if self.has_masks else None,
                    instances=instances,
                    segments=segments,
                    boxes=self._classed(meta["boxes"]),
                )

    def _classed(self, records: Iterable[Record]) -> list[Record]:
        return [
            {**record, "class_index": self.class_of[record["class_index"]]}
            for record in records
            if record["class_index"] in self.class_of
        ]


@dataclass(frozen=True)
class MergedSets:
    """All splits, by the name of the split and then by dataset.

    Attributes:
        space: the class list, 0 .. C - 1.
        splits: one or more.
        lost: the labels that have no class, of which there is any.
    """

    space: LabelSpace
    splits: tuple[MergedSplit, ...]
    lost: tuple[Lost, ...]

    @property
    def datasets(self) -> list[str]:
        """The datasets' names, sorted."""
        return sorted({each.split.dataset for each in self.splits})

    @property
    def labelled(self) -> tuple[int, int]:
        """How many pixels and boxes have a label in the shards, with a class or without."""
        manifests = [each.split.manifest for each in self.splits]
        pixels, boxes = (
            sum(sum(each[what].values()) for each in manifests) for what in ("class_pixels", "class_boxes")
        )
        return pixels, boxes

    def by_name(self) -> dict[str, list[tuple[int, MergedSplit]]]:
        """The splits of each name, each with the number of its first image."""
        found: dict[str, list[tuple[int, MergedSplit]]] = {}
        first = 1
        for each in self.splits:
            found.setdefault(each.name, []).append((first, each))
            first += each.split.samples
        return found

    def things(self, named: Iterable[str] | None) -> set[int]:
        """The classes that are things: those that are named, or else told by the shards, or seen twice in an image.

        Raises UsageError: no such class.
        """
        if named is not None:
            names = list(named)
            if unknown := [name for name in names if name not in self.space.names]:
                raise UsageError(f"no class is called {unknown[0]!r}", fix=did_you_mean(unknown[0], self.space.names))
            return {self.space.names.index(name) for name in names}
        told = [each.things if each.things is not None else each.repeated() for each in self.splits]
        return set[int]().union(*told)


def open_merged(folders: Sequence[Path], taxonomy: Path | None = None) -> MergedSets:
    """Open the splits at or below some folders as one dataset.

    Args:
        folders: splits, datasets, or folders of datasets.
        taxonomy: gives labels their classes, its concepts; shards that are in it already keep theirs. None: all
            shards have one label space.

    Raises:
        ShardError: damaged or unfinished shards, or one split twice.
        UsageError: several label spaces and no taxonomy.
        TaxonomyError: the table doesn't fit.
    """
    splits = [ExportSplit(path, *read_manifest(path)) for path in find_splits(folders)]
    first: dict[tuple[str, str], ExportSplit] = {}
    for split in splits:
        if (twin := first.setdefault((split.dataset, split.name), split)) is not split:
            raise ShardError(f"is {split.dataset}'s {split.name} split, and so is {twin.where}", where=split.where)
    if taxonomy is None:
        space, class_of = _one_space(splits)
    else:
        space, class_of = _in_taxonomy(splits, taxonomy)
    merged = sorted(
        (MergedSplit(split, space, class_of(split)) for split in splits),
        key=lambda each: (_place(each.name), each.split.dataset),
    )
    if not any(each.class_of for each in merged):
        raise ShardError("no label has a class of its own", where=taxonomy or folders[0], fix=_RELABEL)
    return MergedSets(space, tuple(merged), tuple(_lost(merged, taxonomy)))


def _place(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _one_space(splits: Sequence[ExportSplit]) -> tuple[LabelSpace, Any]:
    space = splits[0].space
    for split in splits:
        if split.space.hash != space.hash:
            raise UsageError(
                f"{splits[0].dataset} and {split.dataset} have different label spaces",
                fix=f"Give --taxonomy, the table that `labelmerge merge` wrote; or {_RELABEL}",
            )
    place = {index: number for number, index in enumerate(space.indices)}
    return LabelSpace.of(space.name, space.names), lambda split: place


def _in_taxonomy(splits: Sequence[ExportSplit], path: Path) -> tuple[LabelSpace, Any]:
    table = read_taxonomy(path, names_of(split.space for split in splits), others=True)
    space = table.space(space_name(path))

    def class_of(split: ExportSplit) -> dict[int, int]:
        if not all(key in table for key in split.space.keys):
            if split.space.names == space.names:  # in this taxonomy already
                return {index: index for index in split.space.indices}
            raise TaxonomyError(
                f"has no row for {split.space.name}",
                where=path,
                fix=f"Make it with a bank that has {split.space.name}: `labelmerge merge --bank BANK --out DIR`",
            )
        return {
            index: table.concepts.index(concepts[0])
            for index in split.space.indices
            if len(concepts := table[split.space.name, index].concepts) == 1
        }

    return space, class_of


def _lost(splits: Sequence[MergedSplit], taxonomy: Path | None) -> Iterator[Lost]:
    found: dict[tuple[str, str], Lost] = {}
    table: Taxonomy | None = None
    for each in splits:
        own = each.split.space
        manifest = each.split.manifest
        for index, name in zip(own.indices, own.names, strict=True):
            pixels, boxes = (manifest[what].get(str(index), 0) for what in ("class_pixels", "class_boxes"))
            if index in each.class_of or not (pixels or boxes) or taxonomy is None:
                continue
            table = table or read_taxonomy(taxonomy, {}, others=True)
            before = found.get((each.split.dataset, name))
            found[each.split.dataset, name] = Lost(
                each.split.dataset,
                name,
                table[own.name, index].concepts,
                pixels + (before.pixels if before else 0),
                boxes + (before.boxes if before else 0),
            )
    yield from found.values()


def lost_words(lost: Sequence[Lost], labelled: tuple[int, int]) -> list[str]:
    """A line for each label that is lost, and one for all of them, for a terminal; `labelled` is what there was."""
    if not lost:
        return []
    counts = sum(each.pixels for each in lost), sum(each.boxes for each in lost)
    shares = [
        f"{count:,} of {whole:,} labelled {what} ({count / whole:.0%})"
        for count, whole, what in zip(counts, labelled, ("pixels", "boxes"), strict=True)
        if count
    ]
    return [
        f"WARNING: {each.dataset}: {each.name!r} may be {some(each.concepts, 3)}: "
        + " and ".join(
            [f"{each.pixels:,} pixels became `no label`"] * bool(each.pixels)
            + [f"{each.boxes:,} boxes are left out"] * bool(each.boxes)
        )
        for each in lost
    ] + [f"Together these are {' and '.join(shares)}."]
