"""The splits that an export reads: their samples in order, damage as one clear error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from labelmerge.errors import SampleError, ShardError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.manifest import read_manifest, told_things
from labelmerge.shardset.meta import parse
from labelmerge.shardset.pixels import decode_whole
from labelmerge.shardset.shard import Shard, shards_of
from labelmerge.shardset.splits import find_splits
from labelmerge.shardset.tar import read_samples
from labelmerge.urls import path_or_url

Array = npt.NDArray[Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class ExportSample:
    key: str
    number: int
    meta: Record
    members: Mapping[str, bytes]
    where: str


@dataclass(frozen=True)
class ExportSplit:
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
    def where(self) -> str:
        """The split's folder, or its URL."""
        return path_or_url(self.folder)

    @property
    def has_segments(self) -> bool:
        return "instances.png" in self.manifest["members"]

    @property
    def things(self) -> list[str] | None:
        """The names of the classes that are things, as far as the recipe tells; None where it does not."""
        return told_things(self.folder, self.manifest, self.space)

    @cached_property
    def image(self) -> str:
        """The name of the image member, which is also its suffix."""
        return "jpg" if "jpg" in self.manifest["members"] else "png"

    def read(self, *members: str) -> Iterator[ExportSample]:
        """The samples, with these members and the JSON parsed.

        Raises:
            ShardError: a shard is damaged, or, where there are members, not to the last bit what the manifest says,
                which is known when it has been read.
        """
        for shard in shards_of(self.folder, self.manifest):

            def damaged(key: str, what: str, shard: Shard = shard) -> NoReturn:
                raise ShardError(
                    what, where=f"{shard}:{key}" if key else str(shard), fix="`labelmerge verify` shows all faults"
                )

            try:
                yield from self._samples(shard, members, damaged)
                if members and not shard.as_written():
                    damaged("", "its content does not match the manifest's sha256")
            except FileNotFoundError:
                damaged("", "is missing")
            except OSError as error:
                damaged("", f"can't be read ({error.strerror})")

    def _samples(
        self, shard: Shard, members: tuple[str, ...], damaged: Callable[[str, str], NoReturn]
    ) -> Iterator[ExportSample]:
        for key, found in read_samples(shard, damaged, ("json", *members)):
            if missing := [name for name in ("json", *members) if name not in found]:
                damaged(key, f"members missing: {', '.join(missing)}")
            digits = key.removeprefix(f"{self.dataset}-{self.name}-")
            if not digits.isdecimal():
                damaged(key, "the key does not belong to this split")
            try:
                meta = parse(found["json"])
            except ValueError as error:
                damaged(key, str(error))
            yield ExportSample(key, int(digits), meta, found, f"{shard}:{key}")


def is_one_dataset(folder: Path) -> bool:
    """Whether all shards at or below a folder are of one dataset and have its own classes. Raises ShardError."""
    names = {
        name
        for manifest, space in map(read_manifest, find_splits([folder]))
        for name in (manifest["dataset"], space.name)
    }
    return len(names) == 1


def open_splits(folder: Path) -> list[ExportSplit]:
    splits = [ExportSplit(path, *read_manifest(path)) for path in find_splits([folder])]
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


class faults:
    """Turns what hostile or damaged content makes Python raise into a ShardError that names the sample."""

    def __init__(self, sample: ExportSample) -> None:
        self._where = sample.where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, IndexError, OverflowError, SampleError)):
            what = error.what if isinstance(error, SampleError) else repr(error)
            raise ShardError(
                f"is damaged ({what})", where=self._where, fix="`labelmerge verify` shows all faults"
            ) from error


def member_pixels(sample: ExportSample, member: str) -> Array:
    pixels: Array = np.asarray(decode_whole(sample.members[member], Path(member)))
    if pixels.shape != (sample.meta["height"], sample.meta["width"]) or pixels.dtype.kind != "u":
        raise ValueError(f"{member} is {pixels.dtype}{list(pixels.shape)}")
    return pixels
