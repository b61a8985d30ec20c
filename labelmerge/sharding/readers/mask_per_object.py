"""One mask PNG for each object and a CSV that lists them: Open Images V6.

All masks of an image are painted into one class mask, the largest first, so that small things lie on top (as
openimages2coco does); equal sizes in the order of their file names. An image can have masks of a class and of its
parent in the hierarchy (Woman, Person): the same rule holds. Most mask files are larger than their image: each is
resized to it, nearest neighbour. What no mask covers is unknown, not background: "no label".

The classes are those of the user's own `classes-segmentation.txt` (one machine id such as "/m/0bt9lr" a line); their
names come from the class descriptions CSV, which some releases give with a header line and some without. A class keeps
the index that it has among all classes of the recipe.

Nothing is ever rotated: `Rotation` in image_ids_and_rotation.csv says by how much "the image and boxes should be
rotated" to stand upright (storage.googleapis.com/openimages/web/2018-05-17-rotation-information.html; 2.6 % of images),
so that pixels, boxes and masks agree as they are. Where someone has turned the images and not the masks, the shapes
tell: such masks are left out and counted.

With `layout.image_labels` (the CSV of image-level labels that people verified) every image has the list of the classes
that it was annotated for: those verified to be there (Confidence 1), whose objects were all drawn, and those verified
not to be (0). Classes that only one box for a group stands for are left out, where the CSV of boxes is there. What
nobody verified is in no list, and what is verified of a class says nothing of those above and below it.

Option `min_predicted_iou`: leave out masks whose PredictedIoU is lower; those without one stay.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from posixpath import basename, splitext

from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.labels import LabelSpace
from labelmerge.sharding.pictures.images import read_indices, resize_nearest
from labelmerge.sharding.readers.shared.classes import folded
from labelmerge.sharding.readers.shared.listed import loaded, stored
from labelmerge.sharding.readers.shared.painting import Canvas
from labelmerge.sharding.readers.shared.tables import Rows, csv_rows, loading
from labelmerge.sharding.source.layout import find, first_place, optional_place, places
from labelmerge.sharding.source.source import FIRST, Annotation, Box, Item, Keys, Note, Skip, Source, clip

KEYS = Keys(
    types=("mask", "noisy_mask"),
    layout=("images", "masks", "annotations", "class_names"),
    layout_optional=("classes", "boxes", "image_labels"),
    options=("min_predicted_iou",),
)
image = None

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_FLAGS = ("IsGroupOf", "IsDepiction")  # "1", "0", or "-1": unknown
# The two CSVs round corners differently.
_SAME_BOX = 1e-3


def label_space(source: Source) -> LabelSpace:
    """The classes that the user's files list, with the recipe's indices; raises LayoutError."""
    used = sorted(set(_class_of(source).values()))
    if not used:
        raise LayoutError("no class of the recipe is listed", where=source.root / _classes_file(source))
    return LabelSpace(source.space.name, tuple(used), tuple(source.space.name_of(index) for index in used))


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images that the CSV names, each with its masks; raises LayoutError or RecipeError."""
    notes: Counter[str] = Counter()
    with loading(scratch):
        _load_masks(source, scratch, notes)
        _load_flagged_boxes(source, scratch, notes)
        own_lists = _load_image_labels(source, scratch)
        _load_files(source, scratch, "images", suffix="")
        _load_files(source, scratch, "masks", suffix=".png")

    query = (
        "SELECT image, images.path, mask.name, masks.path, label, box, x0, y0, x1, y1 FROM mask "
        "LEFT JOIN images ON images.name = image LEFT JOIN masks ON masks.name = mask.name "
        "ORDER BY coalesce(images.path, image), image, mask.name, mask.rowid"
    )
    for (image, path), rows in groupby(scratch.execute(query), key=itemgetter(0, 1)):
        listed = {row[2]: row[3:] for row in reversed(list(rows))}  # of equal names, the first counts
        if path is None:
            yield Skip(loaded(image), "named in the CSV, but there is no such image")
            continue
        flagged = scratch.execute(
            "SELECT label, groups, depiction, x0, y0, x1, y1 FROM flagged WHERE image = ?", (image,)
        )
        boxes = flagged.fetchall()
        here = tuple(
            (loaded(file), label, tuple(corners), *_flags(boxes, label, corners), box)
            for _, (file, label, box, *corners) in sorted(listed.items())
            if file is not None
        )
        notes["missing_masks"] += len(listed) - len(here)
        if here:
            yield Item(loaded(path), here, loaded(image), _annotated(scratch, image) if own_lists else None)
        else:
            yield Skip(loaded(path), f"none of its {len(listed)} masks is on disk")
    yield from (Note(what, count) for what, count in sorted(notes.items()) if count)


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = tuple(entry[0] for entry in item.annotation)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Paint one image's masks; raises SampleError."""
    height, width = size
    canvas = Canvas(size)
    indices: list[int] = []
    boxes = []
    notes: Counter[str] = Counter()
    for path, index, (x0, y0, x1, y1), group_of, depiction, number in item.annotation:
        try:
            stored_mask = read_indices(source.root / path)
        except SampleError as error:
            notes[f"unreadable_masks: {error.what}{FIRST}{path})"] += 1
            continue
        if not _same_shape(stored_mask.shape, size):
            notes["masks_of_another_shape"] += 1
            continue
        area = canvas.paint(resize_nearest(stored_mask != 0, size))
        if area == 0:
            notes["empty_masks"] += 1
            continue
        indices.append(index)
        bbox = clip((x0 * width, y0 * height, x1 * width, y1 * height), size)
        if bbox is None:
            notes["zero_size_boxes"] += 1
        else:
            boxes.append(Box(bbox, index, float(area), group_of=group_of, depiction=depiction, native_id=number))
    if not indices:
        faults = ", ".join(f"{what.replace('_', ' ')}: {count}" for what, count in sorted(notes.items()))
        raise SampleError(f"none of its masks covers a pixel ({faults})", where=source.root / item.path)
    mask = canvas.classes(indices, source.space.ignore_index, source.space.dtype)
    return Annotation(mask=mask, boxes=tuple(boxes), notes=notes)


def _same_shape(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether two pictures can be one, resized: both have been rounded to whole pixels, so to one pixel an edge."""
    return abs(shape[0] * size[1] - shape[1] * size[0]) <= sum(shape) + sum(size)


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
        labels = path.read_text(encoding="utf-8-sig").split()
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


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """The numbers that a row gives as text; None where one is none."""
    try:
        numbers = list(map(float, texts))
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _load_masks(source: Source, scratch: sqlite3.Connection, notes: Counter[str]) -> None:
    """The CSV of masks, of the classes in use."""
    classes = _class_of(source)
    path = source.root / first_place(source, "annotations", "CSV of masks")
    least = source.options.get("min_predicted_iou")
    if least is not None and (type(least) not in (int, float) or not 0 <= least <= 1):
        raise RecipeError(f"options.min_predicted_iou is {least!r}: it must be 0 to 1", where=source.recipe.path)
    # Where PredictedIoU is not asked for, its column may be missing: any other takes its place.
    iou_column = "BoxID" if least is None else "PredictedIoU"
    columns = ["MaskPath", "ImageID", "LabelName", *(f"Box{corner}" for corner in _CORNERS), "BoxID", iou_column]
    rows = Rows(scratch, "mask", ("name", "image", "label", "x0", "y0", "x1", "y1", "box"))
    added = 0
    for name, image, label, *texts, box, iou in csv_rows(path, columns):
        numbers = _numbers([*texts, iou or "1"] if least is not None else texts)
        if label not in classes:
            notes["masks_of_other_classes"] += 1
        elif "/" in name or "\\" in name:
            notes["mask_paths_refused"] += 1  # they lead out of their folder
        elif numbers is None:
            notes["malformed_rows"] += 1
        elif least is not None and numbers[4] < least:
            notes["masks_below_min_predicted_iou"] += 1
        else:
            added += 1
            rows.add(stored(name), stored(image), classes[label], *numbers[:4], box)
    rows.close()
    if not added and notes["malformed_rows"]:
        raise LayoutError(
            f"no row can be used: {notes['malformed_rows']} of them have a number that can't be read",
            where=path,
        )


def _load_flagged_boxes(source: Source, scratch: sqlite3.Connection, notes: Counter[str]) -> None:
    """Of the CSV of boxes, where the user has it, those with a flag that the CSV of masks lacks."""
    columns = ("image", "label", "groups", "depiction", "x0", "y0", "x1", "y1")
    rows = Rows(scratch, "flagged", columns)
    place = optional_place(source, "boxes")
    if place is not None:
        classes = _class_of(source)
        path = source.root / place
        for group, depiction, image, label, *texts in csv_rows(path, (*_FLAGS, "ImageID", "LabelName", *_CORNERS)):
            if (group == "1" or depiction == "1") and label in classes:
                corners = _numbers(texts)
                if corners is None:
                    notes["malformed_rows"] += 1
                else:
                    rows.add(stored(image), classes[label], group == "1", depiction == "1", *corners)
    rows.close()
    scratch.execute("CREATE INDEX flagged_image ON flagged (image)")


def _load_image_labels(source: Source, scratch: sqlite3.Connection) -> bool:
    """The CSV of verified labels of whole images, where the user has it; whether that is so."""
    place = optional_place(source, "image_labels")
    rows = Rows(scratch, "verified", ("image", "label"))
    if place is not None:
        classes = _class_of(source)
        for image, label, confidence in csv_rows(source.root / place, ("ImageID", "LabelName", "Confidence")):
            # A machine's guesses have other numbers.
            if label in classes and confidence in ("0", "1", "0.0", "1.0"):
                rows.add(stored(image), classes[label])
    rows.close()
    scratch.execute("CREATE INDEX verified_image ON verified (image)")
    return place is not None


def _annotated(scratch: sqlite3.Connection, image: bytes) -> tuple[int, ...]:
    """The classes that an image was annotated for."""
    query = "SELECT label FROM verified WHERE image = ?1 EXCEPT SELECT label FROM flagged WHERE image = ?1 AND groups"
    return tuple(sorted(label for (label,) in scratch.execute(query, (image,))))


def _load_files(source: Source, scratch: sqlite3.Connection, key: str, suffix: str) -> None:
    """A table of the paths of the files of one layout key, by their stem plus `suffix`.

    The first place counts, and of several files in one the first by path.
    """
    rows = Rows(scratch, f"{key}_found", ("name", "place", "path"))
    patterns = [base + pattern for base in source.bases for pattern in places(source, key)]
    for place, pattern in enumerate(patterns):
        for match in find(source.root, pattern):
            rows.add(stored(splitext(basename(match.path))[0] + suffix), place, stored(match.path))
    rows.close()
    scratch.execute(f"CREATE TABLE {key} (name PRIMARY KEY, path) WITHOUT ROWID")
    scratch.execute(
        f"INSERT OR IGNORE INTO {key} SELECT name, path FROM {key}_found "
        f"WHERE name IN (SELECT {'image' if key == 'images' else 'name'} FROM mask) ORDER BY name, place, path"
    )
    scratch.execute(f"DROP TABLE {key}_found")


def _flags(boxes: Sequence[Sequence[float]], label: int, corners: Sequence[float]) -> tuple[bool, bool]:
    """Whether the box with these corners stands for a group, and whether it is a depiction."""
    same = [
        box
        for box in boxes
        if box[0] == label and max(abs(a - b) for a, b in zip(box[3:], corners, strict=True)) < _SAME_BOX
    ]
    return any(box[1] for box in same), any(box[2] for box in same)
