"""How many pixels and boxes each label has, from the manifests of shards."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labelmerge.bank.bank import Bank
from labelmerge.errors import ShardError
from labelmerge.labels import LabelKey

MANIFEST = "manifest.json"

_log = logging.getLogger(__name__)


class Count(NamedTuple):
    """Pixels and boxes of one label; None where no manifest says."""

    pixels: int | None = None
    boxes: int | None = None


def read_counts(folders: Sequence[Path], bank: Bank) -> dict[LabelKey, Count]:
    """The pixels and boxes of every label of the datasets below `folders`, summed over their splits.

    Only the ``manifest.json`` files are read (docs/architecture.md, "Shards"). Datasets that the bank lacks are named
    in the log and left out.

    Args:
        folders: what `labelmerge shard` wrote: splits, datasets, or folders of datasets.
        bank: whose labels are counted.

    Raises:
        ShardError: no manifest there, a damaged one, or one whose labels have other names than the bank's.
    """
    counts: dict[LabelKey, Count] = {}
    names = dict(zip(bank.keys, bank.names, strict=True))
    known = set(bank.datasets())
    seen: set[Path] = set()
    for folder in folders:
        paths = [path for path in sorted(folder.rglob(MANIFEST)) if path.parent.name != ".unfinished"]
        if not paths:
            raise ShardError("holds no shards", where=folder, fix="`labelmerge shard DATASET … --out DIR` makes some")
        for path in paths:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            dataset, labels, pixels, boxes = _read(path)
            if dataset not in known:
                _log.warning("%s: the bank has no labels of %s, so they are not counted", path, dataset)
                continue
            for index, name in labels.items():
                key = (dataset, index)
                if key not in names or names[key] != name:
                    ours = f"{names[key]!r}" if key in names else "no such label"
                    raise ShardError(
                        f"label {index} of {dataset} is {name!r} in these shards, in the bank {ours}",
                        where=path,
                        fix="Make the bank and the shards from the same descriptions",
                    )
                before = counts.get(key, Count())
                counts[key] = Count(_plus(before.pixels, pixels, index), _plus(before.boxes, boxes, index))
    return counts


def _plus(before: int | None, found: dict[int, int] | None, index: int) -> int | None:
    return before if found is None else (before or 0) + found.get(index, 0)


def _read(path: Path) -> tuple[str, dict[int, str], dict[int, int] | None, dict[int, int] | None]:
    """Dataset, names by index, and pixels and boxes by index; None for what its kind of annotation has not."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        space = data["label_space"]
        labels = {int(index): str(name) for index, name in zip(space["indices"], space["names"], strict=True)}
        pixels = {int(index): int(number) for index, number in data["class_pixels"].items()}
        boxes = {int(index): int(number) for index, number in data["class_boxes"].items()}
        kind = data["annotation_type"]
        return str(space["name"]), labels, None if kind == "box" else pixels, boxes if kind != "mask" or boxes else None
    except OSError as error:
        raise ShardError(f"can't be read ({error.strerror})", where=path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"is not a manifest of shards ({error!r})", where=path, fix="Make the shards anew") from error
