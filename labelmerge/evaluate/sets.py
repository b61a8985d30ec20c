"""What can be measured: a split of a dataset, from its shards or from the dataset's own folder."""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from labelmerge.catalog import SPLITS, load_recipe
from labelmerge.errors import LabelmergeError, LayoutError, SampleError, ShardError, UsageError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.pixels import Mask
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits

_PREFERENCE = ("val", "test", "train")
assert set(_PREFERENCE) == set(SPLITS)

_log = logging.getLogger(__name__)


class Picture(Protocol):
    """An image and its truth."""

    @property
    def key(self) -> str: ...
    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """``[H, W, 3]``, RGB."""

    @property
    def mask(self) -> Mask | None:
        """``[H, W]`` class indices of the dataset's label space; None in a box dataset."""


@dataclass(frozen=True)
class EvalSet:
    """One split of one dataset.

    Attributes:
        dataset, split, annotation_type: as in a manifest.
        space: the label space of its masks.
        where: the folder of its shards, or of the dataset.
        source: what in results.json says which data these are.
        count: how many samples there are.
        read: sample 0 .. count - 1; raises SampleError where it is unusable.
        skipped: path and reason of what is known to be unusable before it is read.
    """

    dataset: str
    split: str
    annotation_type: str
    space: LabelSpace
    where: Path
    source: Mapping[str, Any]
    count: int
    read: Callable[[int], Picture]
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def name(self) -> str:
        """``<dataset>-<split>``."""
        return f"{self.dataset}-{self.split}"


def open_sets(shards: Sequence[Path], datasets: Sequence[tuple[str, Path]], split: str | None) -> list[EvalSet]:
    """Everything that has labelled masks, in order of dataset and split; what is left out is logged.

    Args:
        shards: split folders, dataset folders, or folders of datasets.
        datasets: names or recipes of datasets, each with the folder that it was unpacked into.
        split: which split of each dataset to take; by default `val`, where there is none `test`, then `train`. A
            split folder of shards that is given itself is always taken.

    Raises:
        UsageError: nothing is given, or no dataset has this name.
        ShardError, LayoutError, RecipeError: what is given can't be used, has no masks, or is there twice.
    """
    if not shards and not datasets:
        raise UsageError("nothing to measure on", fix="Give --shards, or --dataset with its --root")
    kept, reasons = [], []
    for data in [ShardSet.open(folder) for folder in choose_splits(shards, split)]:
        if reason := _no_masks(data.dataset, data.split, data.annotation_type):
            reasons.append(reason)
        elif not any(data.class_pixels.values()):
            reasons.append(f"no pixel of {data.dataset} {data.split} is labelled (are its masks held back?)")
        else:
            kept.append(from_shards(data))
    for dataset, root in datasets:
        recipe = load_recipe(dataset)
        if reason := _no_masks(recipe.name, split or "every split", recipe.annotation_type):
            reasons.append(reason)
        else:
            kept.append(from_folder(dataset, root, split))
    if not kept:
        where = [*shards, *(root for _, root in datasets)][0]
        raise ShardError("; ".join(reasons), where=where, fix="Evaluate on a dataset or split with masks")
    for reason in reasons:
        _log.info("left out: %s", reason)
    first: dict[str, EvalSet] = {}
    for each in kept:
        if first.setdefault(each.name, each) is not each:
            raise ShardError(
                f"{each.dataset} {each.split} is given twice: {first[each.name].where} holds it too",
                where=each.where,
                fix="Evaluate them one after the other",
            )
    return sorted(kept, key=lambda each: (each.dataset, each.split))


def _no_masks(dataset: str, split: str, annotation_type: str) -> str | None:
    """Why a set without masks can't be measured; None for one with masks."""
    instead = {"box": "boxes but no masks", "image": "images alone"}.get(annotation_type)
    return None if instead is None else f"{dataset} {split} has {instead}, so there is no IoU to measure"


def choose_splits(folders: Sequence[Path], split: str | None) -> list[Path]:
    """The split folders of shards to measure: of each dataset one, as `open_sets` says.

    Raises:
        ShardError: as `labelmerge.shardset.splits.find_splits`.
    """
    found = find_splits(folders, split)
    if split is None:
        named = {folder.resolve() for folder in folders}
        taken = [folder for folder in found if folder in named]
        by_dataset: dict[Path, list[Path]] = {}
        for folder in found:
            if folder not in named:
                by_dataset.setdefault(folder.parent, []).append(folder)
        taken += [min(splits, key=_preference) for splits in by_dataset.values()]
        found = sorted(taken)
    return found


def _preference(folder: Path) -> tuple[int, str]:
    known = folder.name in _PREFERENCE
    return (_PREFERENCE.index(folder.name) if known else len(_PREFERENCE), folder.name)


def from_shards(data: ShardSet) -> EvalSet:
    """A split in shards."""
    return EvalSet(
        dataset=data.dataset,
        split=data.split,
        annotation_type=data.annotation_type,
        space=data.space,
        where=data.folder,
        source={"kind": "shards", "folder": str(data.folder), "manifest_sha256": data.manifest_sha256},
        count=len(data),
        read=data.read,
    )


def from_folder(dataset: str, root: Path, split: str | None) -> EvalSet:
    """A split of a dataset as it was unpacked: the samples that `labelmerge shard` would write, made one by one.

    Args:
        dataset: a name, or the path of a recipe.
        root: the dataset's folder.
        split: None: the first of `val`, `test` and `train` that is labelled and there.

    Raises:
        UsageError, RecipeError, LayoutError: as `labelmerge.sharding.plan.make_plan`.
    """
    first: LabelmergeError | None = None
    for each in (split,) if split else _PREFERENCE:
        try:
            found = _from_folder(dataset, root, each)
        except (LayoutError, UsageError) as error:
            first = first or error
        else:
            if first is not None:
                _log.info("%s %s is measured, because %s can't be: %s", found.dataset, each, _PREFERENCE[0], first)
            return found
    assert first is not None
    raise first


@dataclass(frozen=True)
class _Read:
    key: str
    image: npt.NDArray[np.uint8]
    mask: Mask


def _from_folder(dataset: str, root: Path, split: str) -> EvalSet:
    from labelmerge.sharding.make import Tally, make_sample
    from labelmerge.sharding.plan import make_plan

    recipe = load_recipe(dataset)
    # Evaluation sets are small enough to be listed in memory; what the plan keeps on disk is needed no longer then.
    with (
        tempfile.TemporaryDirectory(prefix="labelmerge-") as scratch,
        make_plan(recipe, root, split, Path(scratch)) as plan,
    ):
        items = [entry for number in range(len(plan.sizes)) for entry in plan.task(number).items]
    source, options = plan.source, plan.options

    def read(number: int) -> Picture:
        place, item = items[number]
        made = make_sample(source, item, f"{recipe.name}-{split}-{place:09d}", options, Tally())
        try:
            image = np.asarray(Image.open(io.BytesIO(made.members[options.image_format])).convert("RGB"))
            values = np.asarray(Image.open(io.BytesIO(made.members["mask.png"])))
        except Exception as error:  # decoders raise whatever they like at bytes that are not theirs
            raise SampleError(f"can't be decoded ({type(error).__name__}: {error})", where=item.path) from error
        return _Read(made.key, image, values if values.dtype == np.uint8 else values.astype(np.uint16))

    return EvalSet(
        dataset=recipe.name,
        split=split,
        annotation_type=recipe.annotation_type,
        space=source.space,
        where=root,
        source={
            "kind": "dataset",
            "recipe": recipe.argument,
            "recipe_sha256": hashlib.sha256(recipe.text.encode()).hexdigest(),
            "root": str(root),
            "variant": source.variant,
            "candidates": plan.candidates,
        },
        count=len(items),
        read=read,
        skipped=[(skip.path, skip.reason) for skip in plan.skips],
    )
