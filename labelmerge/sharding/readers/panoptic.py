"""Panoptic PNG + JSON, the COCO way: a colour picture holds segment ids, the JSON says what each segment is.

id = R + 256 G + 65536 B (cocodataset/panopticapi); 0 and ids that the JSON doesn't list for the image are "no label".
Segments are renumbered 1, 2, … in the order of the JSON, so that they fit 16 bits, and keep the id in the PNG as their
native id; crowds keep their class and are flagged. Segments of a category in `ids.ignore` are "no label". An image
whose annotation lists no segment is a sample without labels (the negative images of WildDash 2). An id that is listed
twice counts once; its pixels are "no label" where it has two classes. So are those of categories that the file lacks.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os.path import splitext

import numpy as np

from labelmerge.errors import LayoutError, SampleError
from labelmerge.sharding.pictures.images import decode_exact, packed_pixels, read_file
from labelmerge.sharding.readers.shared.boxes import check_size
from labelmerge.sharding.readers.shared.classes import match_categories
from labelmerge.sharding.readers.shared.listed import (
    Images,
    on_disk,
    spellings,
    stored,
    together,
    unlisted,
    with_entries,
)
from labelmerge.sharding.readers.shared.tables import (
    Faults,
    Groups,
    NameById,
    Record,
    flag,
    loading,
    read_lists,
    reference,
    whole,
)
from labelmerge.sharding.source.layout import find, first_place, inside
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Segment, Skip, Source
from labelmerge.shardset.run_lengths import RunLengths

KEYS = Keys(types=("mask",), layout=("images", "annotations", "masks"), ids=("ignore", "map"), instances=True)
label_space = None
image = None

_MAX_SEGMENTS = np.iinfo(np.uint16).max


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images of the JSON that are on disk with their PNG; raises LayoutError."""
    images = first_place(source, "images", "folder of images")
    masks = first_place(source, "masks", "folder of panoptic PNGs")
    path = source.root / first_place(source, "annotations", "panoptic JSON")
    with loading(scratch):
        categories, listed_images = NameById(), Images(scratch, images, None, or_flat=True)
        faults = Faults("images", "annotations")
        used_categories: set[int | str] = set()
        annotations = Groups(scratch, "annotations")
        count = 0

        def add(record: Record) -> None:
            nonlocal count
            count += 1
            segments = tuple(_packed(info) for info in record["segments_info"])
            used_categories.update(category for _, category, _ in segments)
            name = str(record["file_name"])
            annotations.add(reference(record, "image_id"), (count, name, segments), size=300 * (1 + len(segments)))

        read_lists(path, {"categories": categories, "images": listed_images, "annotations": add}, faults)
        on_disk(scratch, "files", (match.path for match in find(source.root, f"{images}/**/*")))
        pictures = (match.path for match in find(source.root, f"{masks}/**/*"))
        on_disk(scratch, "masks", (path for path in pictures if path.lower().endswith(".png")))
        listed_images.close()
        annotations.close()
        classes = match_categories(source, categories.names, path, used_categories)

    notes: Counter[str] = Counter()
    known, ignore = 0, source.space.ignore_index
    for listed, entries in together(with_entries(scratch, "annotations"), own=0):
        names = list(dict.fromkeys(name for _, name, _ in entries))
        if listed.problem is not None:
            yield Skip(listed.path, listed.problem)
        elif not names:
            yield Skip(listed.path, "no annotation in the JSON")
        elif len(names) > 1:
            yield Skip(listed.path, f"annotated twice, with different pictures: {names[0]} and {names[1]}")
        elif (mask := _taken(scratch, masks, names[0])) is None:
            yield Skip(listed.path, f"no annotation: expected {masks}/{names[0]}")
        else:
            found = _once([segment for _, _, segments in entries for segment in segments], classes, ignore, notes)
            known += sum(category in classes for _, category, _, _ in found) or not found
            yield Item(listed.path, (mask, listed.size, found), str(listed.id))
    if notes["segments_of_unknown_categories"] and not known:
        raise LayoutError("none of its segments is of a category that it lists", where=path)
    notes.update({**faults.notes(), **listed_images.notes})
    yield from (Note(what, count) for what, count in notes.items() if count)
    if extra := unlisted(scratch):
        yield Note("images_not_listed", extra)
    ((extra,),) = scratch.execute("SELECT count(*) FROM masks")
    if extra:
        yield Note("masks_not_listed", extra)


def _once(
    segments: Sequence[tuple[int, int, bool]], classes: Mapping[int | str, int], ignore: int, notes: Counter[str]
) -> tuple[tuple[int, int, int, bool], ...]:
    """The segments of an image, each id once, with its class; "no label" where that is unknown, or is two."""
    found: dict[int, tuple[int, int, int, bool]] = {}
    for value, category, crowd in segments:
        index = classes.get(category, ignore)
        notes["segments_of_unknown_categories"] += category not in classes
        if value in found:
            notes["segments_listed_twice"] += 1
            if found[value][2] != index:
                notes["segments_of_two_classes"] += 1
                index = ignore
        found[value] = value, category, index, crowd
    return tuple(found.values())


def _taken(scratch: sqlite3.Connection, masks: str, name: str) -> str | None:
    """The mask that an annotation names, no longer among those that are left; with its folders, or else without."""
    for parts in (None, 1):
        for spelling in (name, *spellings(name), *spellings(splitext(name)[0] + ".png")):
            path = inside(masks, spelling, parts)
            if path is not None and scratch.execute("DELETE FROM masks WHERE path = ?", (stored(path),)).rowcount:
                return path
    return None


def _packed(info: Record) -> tuple[int, int, bool]:
    """Id in the PNG, category id, crowd."""
    return whole(info["id"]), whole(reference(info, "category_id")), flag(info.get("iscrowd"))


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    found: tuple[str, ...] = (item.annotation[0],)
    return found


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """Decode one panoptic PNG; raises SampleError."""
    png, listed_size, listed = item.annotation
    path = source.root / png
    check_size(source, item, listed_size, size)
    if len(listed) > _MAX_SEGMENTS:
        raise SampleError(f"the JSON lists {len(listed)} segments, more than {_MAX_SEGMENTS}", where=path)
    picture = decode_exact(read_file(path), path)
    if picture.mode not in ("RGB", "RGBA"):
        raise SampleError(f"is not an RGB panoptic PNG (mode {picture.mode})", where=path)
    if (picture.height, picture.width) != size:
        raise SampleError(f"is {picture.width}x{picture.height}, but its image is {size[1]}x{size[0]}", where=path)
    pixels = packed_pixels(picture)
    runs = RunLengths(pixels)
    stored_ids, place_of_run = np.unique(runs.of(pixels) & 0xFFFFFF, return_inverse=True)
    classes = np.full(len(stored_ids), source.space.ignore_index, dtype=source.space.dtype)
    numbers = np.zeros(len(stored_ids), dtype=np.uint16)
    place_of = {int(value): place for place, value in enumerate(stored_ids) if value}
    segments: list[Segment] = []
    without_pixels = 0
    for value, category_id, index, iscrowd in listed:
        place = place_of.pop(value, None)
        if place is None:
            without_pixels += 1
        elif index != source.space.ignore_index:
            segments.append(Segment(len(segments) + 1, index, category_id, iscrowd, str(value)))
            classes[place], numbers[place] = index, len(segments)
    return Annotation(
        mask=runs.paint(classes[place_of_run]),
        instances=runs.paint(numbers[place_of_run]),
        segments=tuple(segments),
        notes={"segments_without_pixels": without_pixels, "unlisted_segments": len(place_of)},
    )
