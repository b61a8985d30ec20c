"""How many pixels and boxes each label has, from the manifests of shards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError
from labelmerge.labels import LabelKey
from labelmerge.shardset.manifest import MANIFEST, read_manifest
from labelmerge.shardset.splits import find_splits
from labelmerge.urls import path_or_url

_log = logging.getLogger(__name__)


class Count(NamedTuple):
    """Pixels and boxes of one label; None where no manifest says."""

    pixels: int | None = None
    boxes: int | None = None


def read_counts(folders: Sequence[Path], bank: Bank) -> dict[LabelKey, Count]:
    """The pixels and boxes of every label of the datasets below `folders`, summed over their splits.

    Only the manifests are read. Datasets that the bank lacks are named in the log and left out.

    Args:
        folders: what `labelmerge shard` wrote: splits, datasets, or folders of datasets.
        bank: whose labels are counted.

    Raises:
        ShardError: no manifest there, a damaged one, or one whose labels have other names than the bank's.
    """
    counts: dict[LabelKey, Count] = {}
    names = dict(zip(bank.keys, bank.names, strict=True))
    known = set(bank.datasets())
    for split in find_splits(folders):
        manifest, space = read_manifest(split)
        dataset, where = space.name, path_or_url(split / MANIFEST)
        if dataset not in known:
            _log.warning("%s: the bank has no labels of %s, so they are not counted", where, dataset)
            continue
        kind = manifest["annotation_type"]
        pixels = None if kind in ("box", "image") else _by_index(manifest["class_pixels"])
        boxes = None if kind == "image" else _by_index(manifest["class_boxes"])
        for key, name in zip(space.keys, space.names, strict=True):
            if names.get(key) != name:
                ours = f"{names[key]!r}" if key in names else "no such label"
                raise ShardError(
                    f"label {key[1]} of {dataset} is {name!r} in these shards, in the bank {ours}",
                    where=where,
                    fix="Make the bank and the shards from the same descriptions",
                )
            before = counts.get(key, Count())
            shown = boxes if kind != "mask" or boxes else None
            counts[key] = Count(_plus(before.pixels, pixels, key[1]), _plus(before.boxes, shown, key[1]))
    return counts


def _plus(before: int | None, found: dict[int, int] | None, index: int) -> int | None:
    return before if found is None else (before or 0) + found.get(index, 0)


def _by_index(counts: Mapping[str, int]) -> dict[int, int]:
    return {int(index): count for index, count in counts.items()}
