"""Shards as training and evaluation read them: any sample by its number, straight from the tar.

A shard is never unpacked. Its headers are read once, when the first sample of it is asked for; after that a sample is
one read of the file. The format is in docs/architecture.md, "Shards".
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelmerge.errors import SampleError, ShardError, UsageError
from labelmerge.files import sha256_file
from labelmerge.labels import LabelSpace
from labelmerge.shardset.depth_maps import DEPTH
from labelmerge.shardset.manifest import CROWD_BOXES, MANIFEST, OWN_LISTS, annotated, read_manifest, role, things
from labelmerge.shardset.meta import parse
from labelmerge.shardset.sample import Encoded, Sample
from labelmerge.shardset.shard import Shard, shards_of
from labelmerge.shardset.tar import Index, read_index
from labelmerge.urls import path_or_url

SELDOM = ("instances.png", DEPTH)
"""The members that are read only where somebody asks for them."""


def seldom(instances: bool = False, depth: bool = False) -> tuple[str, ...]:
    """Those of `SELDOM` that aren't asked for."""
    return tuple(name for name, asked in zip(SELDOM, (instances, depth), strict=True) if not asked)


@dataclass(frozen=True)
class ShardSet:
    """One split of one dataset, in shards.

    Attributes:
        folder: the split folder; that of a split at a URL holds its manifest alone (`where` is the URL).
        dataset: the dataset's name.
        split: the split's name.
        annotation_type: ``mask`` | ``noisy_mask`` | ``box`` | ``image`` (without annotations).
        role: ``train``, or ``eval`` for a set that is kept from training, by the recipe it was made from.
        space: the label space of its masks and boxes.
        annotated: the names of the classes that it was annotated for, by its recipe; None: all of them.
        own_lists: whether images have lists of their own, by which they were annotated for different classes.
        has_segments: whether its samples have segments (``instances.png``).
        depth_unit: of the depths that its samples have (``depth.png``); None where they have none.
        depth_pixels: how many pixels of the whole split have a known depth.
        things: the indices of the classes that are things, by its recipe; None: it isn't told.
        class_pixels: labelled pixels of each class index in the whole split (classes without any may be absent).
        class_boxes: boxes of each class index, likewise.
        crowd_boxes: those of them, in a box dataset, that stand for several things not told apart.
        nbytes: size of all its shards.
        box_teacher: the model that embedded the boxes when the shards were made, as in the manifest.
        manifest_sha256: hash of the manifest, which holds the hashes of the shards: the identity of the data.
    """

    folder: Path
    dataset: str
    split: str
    annotation_type: str
    role: str
    space: LabelSpace
    annotated: frozenset[str] | None
    own_lists: bool
    has_segments: bool
    depth_unit: str | None
    depth_pixels: int
    things: frozenset[int] | None
    class_pixels: Mapping[int, int]
    class_boxes: Mapping[int, int]
    crowd_boxes: int
    nbytes: int
    box_teacher: Mapping[str, str | None] | None
    manifest_sha256: str
    _shards: Sequence[Shard] = field(repr=False)
    _ends: Sequence[int] = field(repr=False)
    _index: dict[int, Index] = field(repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> ShardSet:
        """Read the manifest, and see that every shard is there in its full length (contents: `labelmerge verify`).

        Shards at a URL are seen to when they are fetched.

        Raises:
            ShardError: as `read_manifest`; or a shard is missing or has another size, or there are no samples.
        """
        manifest, space = read_manifest(folder)
        shards = shards_of(folder, manifest)
        shard_set = cls(
            folder=folder,
            dataset=manifest["dataset"],
            split=manifest["split"],
            annotation_type=manifest["annotation_type"],
            role=role(manifest),
            space=space,
            annotated=annotated(manifest),
            own_lists=manifest["notes"].get(OWN_LISTS, 0) > 0,
            has_segments="instances.png" in manifest["members"],
            depth_unit=manifest["depth"]["unit"] if "depth" in manifest else None,
            depth_pixels=manifest["depth"]["known_pixels"] if "depth" in manifest else 0,
            things=_things(manifest, space, folder),
            class_pixels={int(index): count for index, count in manifest["class_pixels"].items()},
            class_boxes={int(index): count for index, count in manifest["class_boxes"].items()},
            crowd_boxes=manifest["notes"].get(CROWD_BOXES, 0),
            nbytes=sum(shard.nbytes for shard in shards),
            box_teacher=manifest["box_teacher"],
            manifest_sha256=sha256_file(folder / MANIFEST),
            _shards=shards,
            _ends=tuple(itertools.accumulate(shard.samples for shard in shards)),
            _index={},
        )
        for shard in shards:
            if shard.url is not None:
                continue
            if not shard.path.is_file():
                raise ShardError("the manifest lists this shard, but it is missing", where=shard.path)
            if (size := shard.path.stat().st_size) != shard.nbytes:
                raise ShardError(f"has {size} bytes, but the manifest says {shard.nbytes}", where=shard.path)
        if not len(shard_set):
            raise ShardError("no samples in these shards", where=folder)
        return shard_set

    @property
    def where(self) -> str:
        """The split's folder as messages have it: as it was given; its URL, where it has one."""
        return path_or_url(self.folder)

    @property
    def has_depth(self) -> bool:
        """Whether its samples have depths."""
        return self.depth_unit is not None

    @property
    def source(self) -> Mapping[str, Any]:
        """Which data these are, for a record of results."""
        return {"kind": "shards", "folder": path_or_url(self.folder.resolve()), "manifest_sha256": self.manifest_sha256}

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Nothing: what was unusable is not in the shards."""
        return ()

    def __repr__(self) -> str:
        samples = f"{len(self):,} samples, {len(self.space)} classes"
        return f"ShardSet({self.dataset} {self.split}: {samples}, {self.annotation_type}, {self.where!r})"

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, number: int, instances: bool = False, depth: bool = False) -> Sample:
        """Read and decode sample `number` (0 .. len - 1, in the order of the shards), with or without its instances and
        depths.

        Raises:
            SampleError: this sample is corrupt; others may be read.
            ShardError: the shard itself can't be read or is not what the manifest says.
        """
        return self.fetch(number, but=seldom(instances, depth)).decode()

    def fetch(self, number: int, but: Container[str] = SELDOM) -> Encoded:
        """Read sample `number`, without the members `but`, and decode nothing. Raises as `read`."""
        key, files, where = self._members(number, lambda name: name not in but)
        return Encoded(key, files, self.space, self.annotation_type, where)

    def meta(self, number: int) -> Mapping[str, Any]:
        """What the json of sample `number` says; nothing else is read. Raises as `read`."""
        _, files, where = self._members(number, lambda name: name == "json")
        try:
            return parse(files["json"])
        except KeyError as error:
            raise SampleError("no json", where=where) from error
        except ValueError as error:
            raise SampleError(str(error), where=where) from error

    def _members(self, number: int, wanted: Callable[[str], bool]) -> tuple[str, dict[str, bytes], str]:
        """A sample's key, its members by kind, and what errors call it."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = bisect.bisect_right(self._ends, number)
        tar = self._shards[shard]
        first = self._ends[shard - 1] if shard else 0
        index = self._shard_index(shard)
        places = {
            name: (int(start), int(stop))
            for name, (start, stop) in zip(index.members, index.places[number - first], strict=True)
            if start >= 0 and wanted(name)
        }
        begin = min((start for start, _ in places.values()), default=0)
        end = max((stop for _, stop in places.values()), default=0)
        try:
            with tar.open() as stream:
                stream.seek(begin)
                data = stream.read(end - begin)
        except OSError as error:
            raise ShardError(f"can't be read ({error.strerror})", where=str(tar)) from error
        files = {name: data[start - begin : stop - begin] for name, (start, stop) in places.items()}
        key = index.keys[number - first].decode()
        return key, files, f"{tar}: {key}"

    def _shard_index(self, shard: int) -> Index:
        if shard not in self._index:
            tar = self._shards[shard]
            index = read_index(tar)
            expected = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
            if len(index.keys) != expected:
                raise ShardError(
                    f"has {len(index.keys)} samples, but the manifest says {expected}",
                    where=str(tar),
                    fix="`labelmerge verify` shows all faults",
                )
            self._index[shard] = index
        return self._index[shard]


def _things(manifest: Mapping[str, Any], space: LabelSpace, folder: Path) -> frozenset[int] | None:
    try:
        names = things(manifest, space)
    except (KeyError, TypeError, AttributeError):  # a recipe without a reader tells nothing
        return None
    except UsageError as error:
        raise ShardError(f"its recipe is at fault: {error.what}", where=folder / MANIFEST, fix=error.fix) from error
    return None if names is None else frozenset(space.indices[space.names.index(name)] for name in names)
