"""What can be measured: splits of datasets with labelled masks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.catalog import SPLITS
from labelmerge.errors import ShardError, UsageError
from labelmerge.labels import LabelSpace
from labelmerge.shardset.samples import LabelledImage, Samples
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits, stand_in
from labelmerge.urls import path_or_url

_PREFERENCE = ("val", "test", "train")
assert set(_PREFERENCE) == set(SPLITS)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalSet:
    """One split of one dataset.

    Attributes:
        dataset, split, annotation_type: as in a manifest.
        space: the label space of its masks.
        where: the folder of its shards, or of the dataset.
        source: what in results.json says which data these are.
        count: how many samples there are.
        read: sample 0 .. count - 1, with its segments and depths or without; raises SampleError where it is unusable.
        skipped: path and reason of what is known to be unusable before it is read.
        has_segments: whether samples have segments.
        things: the indices of the classes that are things; None where it isn't told.
        annotated: the names of the classes that its images were annotated for; None: all of them.
        own_lists: whether images have lists of their own, which take the place of `annotated`.
        depth_unit: of its depths; None where it has none.
    """

    dataset: str
    split: str
    annotation_type: str
    space: LabelSpace
    where: str
    source: Mapping[str, Any]
    count: int
    read: Callable[[int, bool, bool], LabelledImage]
    skipped: Sequence[tuple[str, str]] = ()
    has_segments: bool = False
    things: frozenset[int] | None = None
    annotated: frozenset[str] | None = None
    own_lists: bool = False
    depth_unit: str | None = None

    @property
    def partly_annotated(self) -> bool:
        """Whether there are images that were not annotated for all classes."""
        return self.own_lists or self.annotated is not None

    @property
    def annotated_classes(self) -> npt.NDArray[np.bool_] | None:
        """bool ``[K]``: `annotated`, class by class."""
        names = self.annotated
        return None if names is None else np.array([name in names for name in self.space.names], dtype=np.bool_)

    @property
    def name(self) -> str:
        """``<dataset>-<split>``."""
        return f"{self.dataset}-{self.split}"

    @classmethod
    def of(cls, data: Samples) -> EvalSet:
        """The split in shards, or in a dataset's own folder."""
        return cls(
            dataset=data.dataset,
            split=data.split,
            annotation_type=data.annotation_type,
            space=data.space,
            where=path_or_url(data.folder),
            source=data.source,
            count=len(data),
            read=data.read,
            skipped=data.skipped,
            has_segments=data.has_segments,
            things=data.things,
            annotated=data.annotated,
            own_lists=data.own_lists,
            depth_unit=data.depth_unit,
        )


def open_splits(shards: Sequence[Path], datasets: Sequence[Samples], split: str | None) -> list[ShardSet]:
    """The splits in shards, by their manifests alone: nothing else need be loaded to see what is wrong with them.

    Args:
        shards: split folders, dataset folders, or folders of datasets.
        datasets: other splits, already open.
        split: which split of each dataset in shards to take; by default `val`, where there is none `test`, then
            `train`. A split folder of shards that is given itself is always taken.

    Raises:
        UsageError: nothing is given, or no dataset has this name.
        ShardError: what is given can't be used.
    """
    if not shards and not datasets:
        raise UsageError("nothing to measure on", fix="Give --shards, or --dataset with its --root")
    return [ShardSet.open(folder) for folder in choose_splits(shards, split)]


def open_sets(
    shards: Sequence[Path], datasets: Sequence[Samples], split: str | None, *, depth: bool = False
) -> list[EvalSet]:
    """`measurable` of `open_splits`. Raises as both do."""
    return measurable(open_splits(shards, datasets, split), datasets, depth=depth)


def measurable(splits: Sequence[ShardSet], datasets: Sequence[Samples], *, depth: bool = False) -> list[EvalSet]:
    """Everything that has labelled masks, in order of dataset and split; what is left out is logged.

    Args:
        splits: in shards.
        datasets: other splits.
        depth: depths are what counts, in place of masks.

    Raises:
        ShardError, LayoutError, RecipeError: nothing has masks, or something is there twice, or splits of one dataset
            have different classes.
    """
    kept, reasons = [], []
    for data in splits:
        if reason := _lacks(data, depth):
            reasons.append(reason)
        elif depth and not data.depth_pixels:
            reasons.append(f"no pixel of {data.dataset} {data.split} has a known depth")
        elif not depth and not any(data.class_pixels.values()):
            reasons.append(f"no pixel of {data.dataset} {data.split} is labelled (are its masks held back?)")
        else:
            kept.append(EvalSet.of(data))
    for other in datasets:
        if reason := _lacks(other, depth):
            reasons.append(reason)
        else:
            kept.append(EvalSet.of(other))
    if not kept:
        where = [*(each.where for each in splits), *(path_or_url(each.folder) for each in datasets)][0]
        raise ShardError(
            "; ".join(reasons), where=where, fix=f"Evaluate on a dataset or split with {'depths' if depth else 'masks'}"
        )
    for reason in reasons:
        _log.info("left out: %s", reason)
    first: dict[str, EvalSet] = {}
    of_space: dict[str, EvalSet] = {}
    for each in kept:
        twin = of_space.setdefault(each.space.name, each)
        if each.space.hash != twin.space.hash:
            raise ShardError(
                f"has other classes of {each.space.name} than {twin.where}",
                where=each.where,
                fix="Evaluate them one after the other, or write both again with one recipe",
            )
        if first.setdefault(each.name, each) is not each:
            raise ShardError(
                f"{each.dataset} {each.split} is given twice: {first[each.name].where} holds it too",
                where=each.where,
                fix="Evaluate them one after the other",
            )
    return sorted(kept, key=lambda each: (each.dataset, each.split))


def _lacks(data: Samples, depth: bool) -> str | None:
    """Why a set can't be measured; None where it can."""
    if depth:
        return None if data.has_depth else f"{data.dataset} {data.split} has no depths (depth.png)"
    return _no_masks(data.dataset, data.split, data.annotation_type)


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
        named = {stand_in(folder) for folder in folders}
        taken = {folder for folder in found if folder.resolve() in named}
        by_dataset: dict[Path, list[Path]] = {}
        for folder in found:  # those that are named, too: else the next best split would be measured besides
            by_dataset.setdefault(folder.parent.resolve(), []).append(folder)
        found = sorted(taken | {min(splits, key=_preference) for splits in by_dataset.values()})
    return found


def _preference(folder: Path) -> tuple[int, str]:
    known = folder.name in _PREFERENCE
    return (_PREFERENCE.index(folder.name) if known else len(_PREFERENCE), folder.name)
