"""A split of a dataset as it was unpacked, read without shards: the samples that `shard` would write, one by one."""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.catalog import SPLITS, Recipe
from labelmerge.errors import LabelmergeError, LayoutError, SampleError, UsageError
from labelmerge.labels import LabelSpace
from labelmerge.sharding.depths import Meaning, has_depth
from labelmerge.sharding.make import Tally, make_sample, member_names
from labelmerge.sharding.plan import Options, make_plan
from labelmerge.sharding.source.source import Item, Source
from labelmerge.shardset.depth_maps import DEPTH, DepthMap, decode_depth
from labelmerge.shardset.manifest import things
from labelmerge.shardset.meta import unpacked
from labelmerge.shardset.pixels import Mask
from labelmerge.urls import path_or_url

_PREFERENCE = ("val", "test", "train")
assert set(_PREFERENCE) == set(SPLITS)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawSample:
    """A sample as `labelmerge.shardset.samples.LabelledImage` describes it."""

    key: str
    image: npt.NDArray[np.uint8]
    mask: Mask | None
    instances: Mask | None = None
    segments: Sequence[Mapping[str, Any]] = ()
    pixel_area: float = 1.0
    depth: DepthMap | None = None
    annotated: frozenset[int] | None = None
    path: str = ""


@dataclass(frozen=True)
class RawSplit:
    """One split of one dataset, as `labelmerge.shardset.samples.Samples` describes it."""

    on_disk: Source
    options: Options
    items: Sequence[tuple[int, Item]]
    skipped: Sequence[tuple[str, str]]
    items_sha256: str

    @property
    def dataset(self) -> str:
        return self.on_disk.recipe.name

    @property
    def split(self) -> str:
        return self.on_disk.split

    @property
    def annotation_type(self) -> str:
        return self.on_disk.recipe.annotation_type

    @property
    def space(self) -> LabelSpace:
        return self.on_disk.space

    @property
    def annotated(self) -> frozenset[str] | None:
        names = self.on_disk.recipe.annotated
        return None if names is None else frozenset(names)

    @property
    def own_lists(self) -> bool:
        return any(item.annotated is not None for _, item in self.items)

    @property
    def has_segments(self) -> bool:
        return "instances.png" in member_names(self.on_disk, self.options)

    @property
    def has_depth(self) -> bool:
        return has_depth(self.on_disk)

    @property
    def depth_unit(self) -> str | None:
        return Meaning.of(self.on_disk).unit if self.has_depth else None

    @property
    def things(self) -> frozenset[int] | None:
        told = {"recipe": {"text": self.on_disk.recipe.text}, "variant": self.on_disk.variant}
        names = things(told, self.space)
        return None if names is None else frozenset(self.space.indices[self.space.names.index(name)] for name in names)

    @property
    def folder(self) -> Path:
        return self.on_disk.root

    @property
    def source(self) -> Mapping[str, Any]:
        recipe = self.on_disk.recipe
        return {
            "kind": "dataset",
            "recipe": recipe.argument,
            "recipe_sha256": hashlib.sha256(recipe.text.encode()).hexdigest(),
            "root": path_or_url(self.on_disk.root),
            "variant": self.on_disk.variant,
            "candidates": self.items_sha256,
        }

    def __len__(self) -> int:
        return len(self.items)

    def read(self, number: int, instances: bool = False, depth: bool = False) -> RawSample:
        """Make sample 0 .. len - 1; raises SampleError where it is unusable."""
        place, item = self.items[number]
        made = make_sample(self.on_disk, item, f"{self.dataset}-{self.split}-{place:09d}", self.options, Tally())
        try:
            image = np.asarray(Image.open(io.BytesIO(made.members[self.options.image_format])).convert("RGB"))
            mask, ids = (
                _indices(made.members[name]) if name in made.members else None for name in ("mask.png", "instances.png")
            )
            meta = unpacked(made.members["json"])
            depths = decode_depth(made.members[DEPTH], image.shape[:2]) if depth and DEPTH in made.members else None
        except Exception as error:  # decoders raise whatever they like at bytes that are not theirs
            raise SampleError(f"can't be decoded ({type(error).__name__}: {error})", where=item.path) from error
        return RawSample(
            made.key,
            image,
            mask,
            ids if instances else None,
            meta["segments"] if instances else (),
            depth=depths,
            annotated=None if item.annotated is None else frozenset(meta["annotated"]),
            path=str(meta["source"]["path"]),
        )


def _indices(png: bytes) -> Mask:
    values = np.asarray(Image.open(io.BytesIO(png)))
    return values if values.dtype == np.uint8 else values.astype(np.uint16)


def open_raw(recipe: Recipe, root: Path, split: str | None = None) -> RawSplit:
    """List a split of a dataset as it was unpacked. Nothing is written into the dataset.

    Args:
        recipe: what the dataset is.
        root: its folder.
        split: None: the first of `val`, `test` and `train` that is labelled and there.

    Raises:
        UsageError, RecipeError, LayoutError: as `labelmerge.sharding.plan.make_plan`.
    """
    first: LabelmergeError | None = None
    for each in (split,) if split else _PREFERENCE:
        try:
            found = _open(recipe, root, each)
        except (LayoutError, UsageError) as error:
            first = first or error
        else:
            if first is not None:
                _log.info("%s %s is measured, because %s can't be: %s", recipe.name, each, _PREFERENCE[0], first)
            return found
    assert first is not None
    raise first


def _open(recipe: Recipe, root: Path, split: str) -> RawSplit:
    # Evaluation sets are small enough to be listed in memory; what the plan keeps on disk is needed no longer then.
    with (
        tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch,
        make_plan(recipe, root, split, Path(scratch)) as plan,
    ):
        items = [entry for number in range(len(plan.sizes)) for entry in plan.task(number).items]
    return RawSplit(
        on_disk=plan.source,
        options=plan.options,
        items=items,
        skipped=[(skip.path, skip.reason) for skip in plan.skips],
        items_sha256=plan.candidates,
    )
