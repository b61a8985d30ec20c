"""One mask PNG for each object and a CSV that lists them: Open Images V6.

All masks of an image are painted into one class mask, the largest first, so that small things lie on top (as
openimages2coco does); equal sizes in the order of their file names. Most mask files are larger than their image: each
is resized to it, nearest neighbour. What no mask covers is unknown, not background: "no label".

The classes are those of the user's own `classes-segmentation.txt` (one machine id such as "/m/0bt9lr" a line); their
names come from the class descriptions CSV, which some releases give with a header line and some without. A class keeps
the index that it has among all classes of the recipe.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from labelmerge.errors import LayoutError, SampleError
from labelmerge.labels import LabelSpace
from labelmerge.sharding.images import read_indices, resize_nearest
from labelmerge.sharding.layout import find, first_place, optional_place, places
from labelmerge.sharding.readers.classes import folded
from labelmerge.sharding.readers.tables import csv_rows
from labelmerge.sharding.sample import Annotation, Box, Corners, Item, Keys, Note, Skip, Source, clip

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks", "annotations", "class_names"),
    layout_optional=("classes", "boxes"),
)
image = None

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
# The two CSVs round corners differently.
_SAME_BOX = 1e-3


def label_space(source: Source) -> LabelSpace:
    """The classes that the user's files list, with the recipe's indices; raises LayoutError."""
    used = sorted(set(_class_of(source).values()))
    if not used:
        raise LayoutError("no class of the recipe is listed", where=source.root / _classes_file(source))
    return LabelSpace(source.space.name, tuple(used), tuple(source.space.name_of(index) for index in used))


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images that the CSV names, each with its masks; raises LayoutError."""
    classes = _class_of(source)
    path = source.root / first_place(source, "annotations", "CSV of masks")
    masks: dict[str, list[tuple[str, str, Corners]]] = defaultdict(list)  # by image: file name, machine id, box
    notes: Counter[str] = Counter()
    columns = ("MaskPath", "ImageID", "LabelName", *(f"Box{corner}" for corner in _CORNERS))
    for number, (name, image, label, *corners) in enumerate(csv_rows(path, columns), 1):
        if label not in classes:
            notes["masks_of_other_classes"] += 1
        else:
            masks[image].append((name, label, _corners(corners, path, number)))
    groups = _groups(source, masks)

    images = _by_name(source, "images", masks)
    wanted = {name for listed in masks.values() for name, _, _ in listed}
    files = _by_name(source, "masks", wanted, suffix=".png")
    found: list[tuple[str, Item | Skip]] = []
    for image, listed in masks.items():
        if image not in images:
            found.append((image, Skip(image, "named in the CSV, but there is no such image")))
            continue
        here = tuple(
            (files[name], classes[label], corners, _is_group(groups.get((image, label), ()), corners))
            for name, label, corners in sorted(listed)
            if name in files
        )
        notes["missing_masks"] += len(listed) - len(here)
        missing = f"none of its {len(listed)} masks is on disk"
        found.append((images[image], Item(images[image], here) if here else Skip(images[image], missing)))
    yield from (entry for _, entry in sorted(found, key=lambda pair: pair[0]))
    yield from (Note(what, count) for what, count in sorted(notes.items()) if count)


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Paint one image's masks; raises SampleError."""
    height, width = size
    painted = []
    boxes = []
    notes: Counter[str] = Counter()
    for path, index, (x0, y0, x1, y1), group_of in item.annotation:
        try:
            covered = resize_nearest(read_indices(source.root / path) != 0, size)
        except SampleError:
            notes["unreadable_masks"] += 1
            continue
        area = int(np.count_nonzero(covered))
        if area == 0:
            notes["empty_masks"] += 1
            continue
        painted.append((area, index, covered))
        bbox = clip((x0 * width, y0 * height, x1 * width, y1 * height), size)
        if bbox is None:
            notes["zero_size_boxes"] += 1
        else:
            boxes.append(Box(bbox, index, float(area), group_of=group_of))
    if not painted:
        faults = ", ".join(f"{what.replace('_', ' ')}: {count}" for what, count in sorted(notes.items()))
        raise SampleError(f"none of its masks covers a pixel ({faults})", where=source.root / item.path)
    mask = np.full(size, source.space.ignore_index, dtype=source.space.dtype)
    for _, index, covered in sorted(painted, key=lambda entry: -entry[0]):
        mask[covered] = index
    return Annotation(mask=mask, boxes=tuple(boxes), notes=notes)


def _class_of(source: Source) -> dict[str, int]:
    """Class index by machine id."""
    names_path = source.root / first_place(source, "class_names", "CSV of class names")
    columns = ("LabelName", "DisplayName")
    names = {label: name for label, name in csv_rows(names_path, columns, defaults=columns)}
    index_of = {folded(name): index for name, index in zip(source.space.names, source.space.indices, strict=True)}
    if "classes" not in source.layout:
        return {label: index_of[folded(name)] for label, name in names.items() if folded(name) in index_of}
    path = source.root / _classes_file(source)
    try:
        labels = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"can't be read ({error})", where=path) from error
    if unknown := [label for label in labels if folded(names.get(label, "")) not in index_of]:
        listed = ", ".join(f"{label} ({names[label]})" if label in names else label for label in unknown[:5])
        raise LayoutError(
            f"{len(unknown)} of {len(labels)} classes are, by {names_path.name}, none of {source.space.name}: {listed}",
            where=path,
        )
    return {label: index_of[folded(names[label])] for label in labels}


def _classes_file(source: Source) -> str:
    key = "classes" if "classes" in source.layout else "class_names"
    return first_place(source, key, "list of classes")


def _corners(texts: list[str], path: Path, row: int) -> Corners:
    """x0, y0, x1, y1 as shares of width and height."""
    try:
        x0, y0, x1, y1 = map(float, texts)
    except ValueError as error:
        raise LayoutError(f"row {row} has a box of {texts}", where=path) from error
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise LayoutError(f"row {row} has a box of {texts}", where=path)
    return x0, y0, x1, y1


def _groups(source: Source, images: dict[str, list[tuple[str, str, Corners]]]) -> dict[tuple[str, str], list[Corners]]:
    """The boxes that stand for a group of things, by (image, machine id); {} where the user has no CSV of boxes."""
    groups: dict[tuple[str, str], list[Corners]] = defaultdict(list)
    place = optional_place(source, "boxes")
    if place is not None:
        path = source.root / place
        for number, row in enumerate(csv_rows(path, ("IsGroupOf", "ImageID", "LabelName", *_CORNERS)), 1):
            is_group, image, label, *corners = row
            if is_group == "1" and image in images:
                groups[image, label].append(_corners(corners, path, number))
    return groups


def _is_group(groups: list[Corners] | tuple[()], corners: Corners) -> bool:
    return any(max(abs(a - b) for a, b in zip(group, corners, strict=True)) < _SAME_BOX for group in groups)


def _by_name(source: Source, key: str, wanted: Collection[str], suffix: str = "") -> dict[str, str]:
    """Paths of the files of one layout key whose stem (plus `suffix`) is wanted.

    The first place counts, and of several files in one the first by path.
    """
    found: dict[str, str] = {}
    for base in source.bases:
        for pattern in places(source, key):
            here: dict[str, str] = {}
            for match in find(source.root, base + pattern):
                name = PurePosixPath(match.path).stem + suffix
                if name in wanted:
                    here[name] = min(match.path, here.get(name, match.path))
            found = here | found
    return found
