"""The shard sets of one dataset as one list of samples."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from labelmerge.catalog import UNLABELED
from labelmerge.errors import ShardError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.sample import Encoded
from labelmerge.shardset.shardset import SELDOM, ShardSet, seldom

_ANNOTATIONS = ("mask.png", "box_embeddings.npy", *SELDOM)

UNLABELLED = "/unlabelled"
"""What follows a dataset's name where its images stand as a dataset of their own, without their labels."""


@dataclass(frozen=True)
class DatasetShards:
    """All the shard sets of one dataset, one after the other.

    Attributes:
        dataset: its name.
        sets: the splits.
        chosen: which of their samples there are, by number, ascending; None: all.
        hidden: nobody sees their annotations: masks, boxes and segments are not even read.
    """

    dataset: str
    sets: tuple[ShardSet, ...]
    chosen: tuple[int, ...] | None = None
    hidden: bool = False

    def __post_init__(self) -> None:
        first = self.sets[0]
        splits: dict[str, ShardSet] = {}
        for shard_set in self.sets:
            twin = splits.setdefault(shard_set.split, shard_set)
            if twin is not shard_set:
                raise ShardError(
                    f"is {self.dataset}'s {shard_set.split} split, and so is {twin.where}",
                    where=shard_set.where,
                    fix="Train on one of them",
                )
        for other in self.sets[1:]:
            same_type = self.hidden or other.annotation_type == first.annotation_type
            if other.space.hash != first.space.hash or not same_type:
                raise ShardError(
                    f"is {self.dataset} with another label space or annotation type than in {first.where}",
                    where=other.where,
                    fix="Train on one of them, or write both again with one recipe",
                )

    @property
    def space(self) -> LabelSpace:
        return self.sets[0].space

    @property
    def annotation_type(self) -> str:
        return "image" if self.hidden else self.sets[0].annotation_type

    @property
    def own_lists(self) -> bool:
        """Whether images were annotated for different classes, as lists of their own say."""
        return not self.hidden and any(shard_set.own_lists for shard_set in self.sets)

    @property
    def annotated(self) -> frozenset[str] | None:
        """The names of the classes that all its splits were annotated for; None: all. Images may have lists of their
        own."""
        listed = [shard_set.annotated for shard_set in self.sets if shard_set.annotated is not None]
        return frozenset.intersection(*listed) if listed else None

    @property
    def has_depth(self) -> bool:
        """Whether all its samples have depths, and anybody may see them."""
        return not self.hidden and all(shard_set.has_depth for shard_set in self.sets)

    @property
    def depth_pixels(self) -> int:
        """How many pixels of all its splits have a known depth."""
        return sum(shard_set.depth_pixels for shard_set in self.sets)

    def __len__(self) -> int:
        return sum(map(len, self.sets)) if self.chosen is None else len(self.chosen)

    @property
    def nbytes(self) -> int:
        """How many bytes of shards its samples have; of chosen ones, what as many have on average."""
        whole, count = sum(each.nbytes for each in self.sets), sum(map(len, self.sets))
        return whole if self.chosen is None else whole * len(self.chosen) // max(count, 1)

    def fetch(self, number: int, *, instances: bool = False, depth: bool = False) -> Encoded:
        """Sample `number` of them all, not decoded; raises SampleError or ShardError.

        Args:
            instances: read its map of segment ids too, where it has one.
            depth: read its depths too, where it has some.
        """
        number = number if self.chosen is None else self.chosen[number]
        ends = list(itertools.accumulate(map(len, self.sets)))
        place = bisect.bisect_right(ends, number)
        number -= ends[place - 1] if place else 0
        if self.hidden:
            return replace(self.sets[place].fetch(number, but=_ANNOTATIONS), annotation_type="image")
        return self.sets[place].fetch(number, but=seldom(instances, depth))

    def labelled(self, count: int, seed: int) -> DatasetShards:
        """The dataset as if `count` of its samples were annotated: the first of a permutation of them all.

        A larger count of the same seed holds those of a smaller one.

        Raises:
            ShardError: there are not so many.
        """
        if count > len(self):
            raise ShardError(
                f"{count} labelled samples of {self.dataset} were asked for, and it has {len(self)}",
                fix=f"Ask for at most {len(self)}; a dataset that `labelled` does not name has all its labels",
            )
        identity = int.from_bytes(hashlib.sha256(self.dataset.encode()).digest()[:8])
        order = np.random.default_rng([3, seed, identity]).permutation(len(self))
        return replace(self, chosen=tuple(sorted(order[:count].tolist())))

    def without_labels(self, more: DatasetShards | None = None) -> DatasetShards:
        """All its images as a dataset of their own, which nobody sees the annotations of, and `more` that have none."""
        sets = self.sets if more is None else (*self.sets, *more.sets)
        return replace(self, dataset=self.dataset + UNLABELLED, sets=sets, chosen=None, hidden=True)


def group_by_dataset(sets: Sequence[ShardSet]) -> list[DatasetShards]:
    """Shard sets by dataset, sorted by name, a split of images alone as one of its own.

    Raises:
        ShardError: those of one dataset do not fit together.
    """
    groups: dict[str, list[ShardSet]] = {}
    for each in sets:
        alone = each.split == UNLABELED and each.annotation_type == "image"
        groups.setdefault(each.dataset + UNLABELLED * alone, []).append(each)
    return [DatasetShards(name, tuple(own), hidden=name.endswith(UNLABELLED)) for name, own in sorted(groups.items())]
