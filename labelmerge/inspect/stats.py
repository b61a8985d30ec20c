"""How much is in shards, and of which classes: from the manifests alone, no shard is opened."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelmerge.errors import ShardError, quoted
from labelmerge.labels import LabelSpace
from labelmerge.shardset.manifest import MANIFEST, read_manifest, role
from labelmerge.shardset.splits import find_splits
from labelmerge.text import aligned
from labelmerge.urls import path_or_url

# What differs from one file to the next in a reason for skipping: paths and numbers.
_PARTICULAR = re.compile(r"'[^']*'|\S*[/\d]\S*(?: px\)| \S*[/\d]\S*)*")


@dataclass(frozen=True)
class SplitStats:
    """One split.

    Attributes:
        folder, dataset, split, annotation_type, role: which, and what it is for.
        samples, shards, bytes: what there is.
        skipped: how many images were skipped, by reason; paths and numbers in reasons are replaced by "…".
        notes: what else was odd, counted.
        pixels: of all images.
        smallest, largest: extremes of (height, width), one by one.
        labelled_pixels, ignored_pixels: of all masks.
        boxes: of all samples.
        classes, classes_seen: in the label space; with a pixel or a box.
        class_pixels, class_boxes: by index; all classes of the label space.
        space: the label space.
        depth_unit, depth_pixels: of depths, and how many are known; None and 0 where there are none.
    """

    folder: Path
    dataset: str
    split: str
    annotation_type: str
    role: str
    samples: int
    shards: int
    bytes: int
    skipped: dict[str, int]
    notes: dict[str, int]
    pixels: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    labelled_pixels: int
    ignored_pixels: int
    boxes: int
    class_pixels: dict[int, int]
    class_boxes: dict[int, int]
    space: LabelSpace
    depth_unit: str | None = None
    depth_pixels: int = 0

    @property
    def classes(self) -> int:
        return len(self.space)

    @property
    def classes_seen(self) -> int:
        return len(self.space) - len(self.never_seen)

    @property
    def never_seen(self) -> tuple[str, ...]:
        """The names of the classes without a pixel or a box."""
        return tuple(
            name
            for index, name in zip(self.space.indices, self.space.names, strict=True)
            if not self.class_pixels[index] and not self.class_boxes[index]
        )

    @property
    def ignored_share(self) -> float | None:
        """Pixels without a label over all of the masks; None where there are no masks."""
        total = self.labelled_pixels + self.ignored_pixels
        return self.ignored_pixels / total if total else None

    def to_json(self) -> dict[str, Any]:
        facts = {
            name: value for name, value in asdict(self).items() if name not in ("space", "class_pixels", "class_boxes")
        }
        return {
            **facts,
            "folder": path_or_url(self.folder),
            "classes": self.classes,
            "classes_seen": self.classes_seen,
            "never_seen": list(self.never_seen),
            "ignored_share": self.ignored_share,
            "per_class": [
                {
                    "index": index,
                    "name": name,
                    "pixels": self.class_pixels[index],
                    "boxes": self.class_boxes[index],
                    "pixel_share": self.class_pixels[index] / self.labelled_pixels if self.labelled_pixels else None,
                    "box_share": self.class_boxes[index] / self.boxes if self.boxes else None,
                }
                for index, name in zip(self.space.indices, self.space.names, strict=True)
            ],
        }


def stats(folders: Sequence[Path]) -> tuple[list[SplitStats], list[Path]]:
    """The finished splits at or below `folders`, and the folders of unfinished ones; sorted by folder.

    Raises:
        ShardError: there are no shards, or a manifest is damaged.
    """
    finished, unfinished = [], []
    for folder in find_splits(folders, unfinished=True):
        if (folder / MANIFEST).is_file():
            finished.append(_of(folder))
        else:
            unfinished.append(folder)
    return finished, unfinished


def _of(folder: Path) -> SplitStats:
    manifest, space = read_manifest(folder)
    pixels, boxes = (
        {index: 0 for index in space.indices} | {int(index): count for index, count in manifest[name].items()}
        for name in ("class_pixels", "class_boxes")
    )
    if unknown := sorted(index for index in {*pixels, *boxes} if index not in space):
        raise ShardError(f"counts class {unknown[0]}, which is not in its label space", where=folder / MANIFEST)
    return SplitStats(
        folder=folder,
        dataset=manifest["dataset"],
        split=manifest["split"],
        annotation_type=manifest["annotation_type"],
        role=role(manifest),
        samples=manifest["counts"]["written"],
        shards=len(manifest["shards"]),
        bytes=sum(entry["bytes"] for entry in manifest["shards"]),
        skipped=dict(Counter(_general(skip["reason"]) for skip in manifest["skipped"]).most_common()),
        notes=manifest["notes"],
        pixels=manifest["sizes"]["pixels"],
        smallest=tuple(manifest["sizes"]["min"]),
        largest=tuple(manifest["sizes"]["max"]),
        labelled_pixels=sum(pixels.values()),
        ignored_pixels=manifest["ignored_pixels"],
        boxes=sum(boxes.values()),
        depth_unit=manifest["depth"]["unit"] if "depth" in manifest else None,
        depth_pixels=manifest["depth"]["known_pixels"] if "depth" in manifest else 0,
        class_pixels=pixels,
        class_boxes=boxes,
        space=space,
    )


def _general(reason: str) -> str:
    """A reason without what concerns one file only, so that equal ones can be counted."""
    return _PARTICULAR.sub("…", reason)


# --- as text ----------------------------------------------------------------------------------------------------------

_WIDTH = 110
_HEADER = (
    "dataset",
    "split",
    "type",
    "role",
    "samples",
    "skipped",
    "shards",
    "size",
    "images",
    "classes",
    "labelled",
    "ignored",
)
_LEFT = 4  # so many columns are words


def table(splits: Sequence[SplitStats]) -> str:
    """One row for each split, and below what is worth a sentence: skips by reason, odd things, classes never seen."""
    rows = [_row(split) for split in splits]
    if len(rows) > 1:
        total = [sum(getattr(split, name) for split in splits) for name in ("samples", "shards", "bytes")]
        skipped = sum(sum(split.skipped.values()) for split in splits)
        rows.append(["total", "", "", "", f"{total[0]:,}", f"{skipped:,}", f"{total[1]:,}", size(total[2]), *[""] * 4])
    lines = aligned([_HEADER, *rows], left=_LEFT)
    for split in splits:
        name = f"{split.dataset} {split.split}"
        lines += [f"{name}: {count:,} skipped: {reason}" for reason, count in split.skipped.items()]
        lines += [f"{name}: {what.replace('_', ' ')}: {count:,}" for what, count in split.notes.items()]
        if split.depth_unit is not None:
            known = share(split.depth_pixels / split.pixels if split.pixels else 0)
            lines.append(f"{name}: depths in {split.depth_unit}, known at {known} of the pixels")
        if split.never_seen:
            lines.append(f"{name}: never seen: {_some(split.never_seen)}")
    return "\n".join(lines)


def class_tables(splits: Sequence[SplitStats]) -> str:
    """A table for every dataset: each of its classes with its pixels and boxes in each split, most frequent first."""
    groups: dict[tuple[str, str], list[SplitStats]] = {}
    for split in splits:
        groups.setdefault((split.dataset, split.space.hash), []).append(split)
    return "\n\n".join(_class_table(group) for group in groups.values())


def _class_table(splits: Sequence[SplitStats]) -> str:
    space = splits[0].space
    columns = [
        (f"{split.split} {kind}", counts, sum(counts.values()))
        for split in splits
        for kind, counts in (("pixels", split.class_pixels), ("boxes", split.class_boxes))
        if any(counts.values())
    ]
    header = ["class", "index"] + [cell for name, _, _ in columns for cell in (name, "share")]
    names = dict(zip(space.indices, space.names, strict=True))
    seen = [index for index in space.indices if any(counts[index] for _, counts, _ in columns)]
    order = sorted(seen, key=lambda index: ([-counts[index] / total for _, counts, total in columns], index))
    rows = [
        [names[index], str(index)]
        + [cell for _, counts, total in columns for cell in (f"{counts[index]:,}", share(counts[index] / total))]
        for index in order
    ]
    never = len(space) - len(seen)
    said = f"{splits[0].dataset}: {len(space)} classes" + (f", of which {never} never occur" if never else "")
    return "\n".join([said, *aligned([header, *rows])])


def _row(split: SplitStats) -> list[str]:
    (low, narrow), (high, wide) = split.smallest, split.largest
    labelled = [f"{split.boxes:,} boxes"] if split.boxes else []
    labelled += [f"{split.labelled_pixels:.3g} px"] if split.labelled_pixels else []
    return [
        split.dataset,
        split.split,
        split.annotation_type,
        split.role,
        f"{split.samples:,}",
        f"{sum(split.skipped.values()):,}",
        f"{split.shards:,}",
        size(split.bytes),
        f"{narrow}x{low}" if (low, narrow) == (high, wide) else f"{narrow}x{low}–{wide}x{high}",
        f"{split.classes_seen}/{split.classes}",
        " + ".join(labelled),
        "" if split.ignored_share is None else share(split.ignored_share),
    ]


def _some(names: Sequence[str]) -> str:
    """As many names as fit a line, and how many more there are."""
    shown = [quoted(name) for name in names]
    while len(shown) > 1 and len(", ".join(shown)) > _WIDTH:
        shown.pop()
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def share(part: float) -> str:
    """A share in per cent; 0 only where it is nothing."""
    return "0 %" if part == 0 else f"{100 * part:.2f} %" if part >= 0.00005 else "<0.01 %"


def size(count: float) -> str:
    """Bytes in units of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
