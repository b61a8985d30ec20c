"""The shard sets of one dataset as one list of samples."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from labelmerge.errors import ShardError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.sample import Encoded
from labelmerge.shardset.shardset import ShardSet


@dataclass(frozen=True)
class DatasetShards:
    """All the shard sets of one dataset, one after the other."""

    dataset: str
    sets: tuple[ShardSet, ...]

    def __post_init__(self) -> None:
        first = self.sets[0]
        splits: dict[str, ShardSet] = {}
        for shard_set in self.sets:
            twin = splits.setdefault(shard_set.split, shard_set)
            if twin is not shard_set:
                raise ShardError(
                    f"is {self.dataset}'s {shard_set.split} split, and so is {twin.folder}",
                    where=shard_set.folder,
                    fix="Train on one of them",
                )
        for other in self.sets[1:]:
            if (other.space.hash, other.annotation_type) != (first.space.hash, first.annotation_type):
                raise ShardError(
                    f"is {self.dataset} with another label space or annotation type than in {first.folder}",
                    where=other.folder,
                    fix="Train on one of them, or write both again with one recipe",
                )

    @property
    def space(self) -> LabelSpace:
        return self.sets[0].space

    @property
    def annotation_type(self) -> str:
        return self.sets[0].annotation_type

    @property
    def annotated(self) -> frozenset[str] | None:
        """The names of the classes that all its splits were annotated for; None: all classes."""
        listed = [shard_set.annotated for shard_set in self.sets if shard_set.annotated is not None]
        return frozenset.intersection(*listed) if listed else None

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def fetch(self, number: int, *, instances: bool = False) -> Encoded:
        """Sample `number` of them all, not decoded; raises SampleError or ShardError.

        Args:
            instances: read its map of segment ids too, where it has one.
        """
        ends = list(itertools.accumulate(map(len, self.sets)))
        place = bisect.bisect_right(ends, number)
        number -= ends[place - 1] if place else 0
        return self.sets[place].fetch(number, but=()) if instances else self.sets[place].fetch(number)


def group_by_dataset(sets: Sequence[ShardSet]) -> list[DatasetShards]:
    """Shard sets by dataset, sorted by name; raises ShardError where those of one dataset do not fit together."""
    names = sorted({shard_set.dataset for shard_set in sets})
    return [DatasetShards(name, tuple(s for s in sets if s.dataset == name)) for name in names]
