"""What evaluation reads: a split with labelled images, whether it lies in shards or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from labelmerge.labels import LabelSpace
from labelmerge.shardset.pixels import Mask


class LabelledImage(Protocol):
    """An image and its labels."""

    @property
    def key(self) -> str: ...

    @property
    def path(self) -> str:
        """Of the image file in the dataset, relative to its root; "" where nothing says it."""

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """``[H, W, 3]``, RGB."""

    @property
    def mask(self) -> Mask | None:
        """``[H, W]`` class indices of the dataset's label space; None in a box dataset."""

    @property
    def annotated(self) -> frozenset[int] | None:
        """The indices of the classes that this image was annotated for; None where it has no list of its own."""

    @property
    def instances(self) -> Mask | None:
        """``[H, W]`` segment ids, 0 for none; None where there are none or nobody asked."""

    @property
    def depth(self) -> npt.NDArray[np.uint16] | None:
        """``[H, W]`` depths, 0 where unknown; None where there are none or nobody asked."""

    @property
    def segments(self) -> Sequence[Mapping[str, Any]]:
        """What the ids mean, as in a sample's JSON."""

    @property
    def pixel_area(self) -> float:
        """How many pixels of the original image a pixel is: above 1 where shards were shrunk."""


def all_are_things(name: str) -> str:
    """What to say of a dataset with segments whose `things` are not told."""
    return (
        f"{name}: its recipe doesn't say which classes are things, so every segment counts as one, those of sky and "
        "road too. List the classes whose objects are told apart as `things` in the recipe, and shard again"
    )


class Samples(Protocol):
    """One split of one dataset: `ShardSet`, or `labelmerge.sharding.raw.RawSplit`."""

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def annotation_type(self) -> str: ...

    @property
    def space(self) -> LabelSpace:
        """The label space of its masks."""

    @property
    def annotated(self) -> frozenset[str] | None:
        """The names of the classes that its images were annotated for, but those with lists of their own; None: all."""

    @property
    def own_lists(self) -> bool:
        """Whether images have lists of their own."""

    @property
    def has_segments(self) -> bool:
        """Whether samples have segments."""

    @property
    def has_depth(self) -> bool:
        """Whether samples have depths."""

    @property
    def depth_unit(self) -> str | None:
        """Of the values of these (`labelmerge.shardset.depth_maps.metres`); None where there are none."""

    @property
    def things(self) -> frozenset[int] | None:
        """The indices of the classes that are things; None where it isn't told."""

    @property
    def folder(self) -> Path:
        """Where it lies: the split's shards, or the root of the dataset."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Which data these are, for a record of results; of JSON's types."""

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Path and reason of what is known to be unusable before it is read."""

    def __len__(self) -> int: ...

    def read(self, number: int, instances: bool = False, depth: bool = False) -> LabelledImage:
        """Sample 0 .. len - 1, with segments and depths where asked for; raises SampleError where it is unusable."""
