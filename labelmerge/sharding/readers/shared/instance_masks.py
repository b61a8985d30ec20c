"""Objects with a mask each, as COCO stores them: polygons or run-length codes; and how they make one class mask.

COCO has no painting order: the largest object is painted first, so that small things lie on top; equal ones by their
ids. Crowds are painted like the rest and flagged. What no object covers is "no label".
"""

from __future__ import annotations

import marshal
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import LayoutError, SampleError
from labelmerge.sharding.readers.shared.boxes import FAR, check_size, clipped
from labelmerge.sharding.readers.shared.listed import annotated_in, of_unknown_images, together, unlisted, with_entries
from labelmerge.sharding.readers.shared.painting import Canvas
from labelmerge.sharding.readers.shared.tables import Faults, Record, native_id
from labelmerge.sharding.source.source import FIRST, Annotation, Box, Item, Note, Segment, Skip, Source

Mask = npt.NDArray[np.bool_]

_MAX_OBJECTS = int(np.iinfo(np.uint16).max)
_MAX_LENGTH = 1e7  # pixels, all edges of a polygon together
_MAX_DIGITS = 7  # of 5 bits each, for 32 bits


def packed(bbox: Any, segmentation: Any) -> bytes:
    """Box and mask as the JSON gives them; `painted` looks into them. Raises ValueError where nested too deeply."""
    return marshal.dumps((bbox, segmentation))


def object_id(record: Record, otherwise: int) -> int | str:
    """An annotation's own id; some files give none. Raises ValueError."""
    return native_id(record, "id") if "id" in record else otherwise


def items_of(
    source: Source,
    scratch: sqlite3.Connection,
    classes: Mapping[int | str, int],
    path: Path,
    faults: Faults,
    skipped: str,
    *,
    own_lists: bool = False,
) -> Iterator[Item | Skip | Note]:
    """The images of `Images`, each with its objects from the table `objects`.

    Args:
        source: whose label space.
        scratch: the database; the entries of `objects` are (id, category id, crowd, `packed` box and mask).
        classes: class index by category id.
        path: the annotation file.
        faults: its malformed records.
        skipped: why an image without objects is left out.
        own_lists: whether images say which categories they were annotated for.

    Raises:
        LayoutError: no image has an object.
    """
    used = unknown = ignored = again = 0
    for listed, entries in together(with_entries(scratch, "objects"), own=0):
        again += len(entries)
        entries = list(dict.fromkeys(entries))
        again -= len(entries)
        every = tuple((own, classes[kind], kind, crowd, data) for own, kind, crowd, data in entries if kind in classes)
        known = tuple(entry for entry in every if entry[1] != source.space.ignore_index)
        used += len(every)
        ignored += len(every) - len(known)
        unknown += len(entries) - len(every)
        if listed.problem is not None or not known:
            yield Skip(listed.path, listed.problem or skipped)
        else:
            kinds = {kind for _, kind, _, _ in entries}
            annotated = annotated_in(source, listed, kinds, classes) if own_lists else None
            yield Item(listed.path, (listed.size, known), str(listed.id), annotated)
    if not used:
        why = f" ({faults})" if faults.notes() else ""
        raise LayoutError(f"none of its annotations is of an image and a category that it lists{why}", where=path)
    counts = (
        ("images_not_listed", unlisted(scratch)),
        ("objects_of_unknown_images", of_unknown_images(scratch, "objects")),
        ("objects_of_unknown_categories", unknown),
        ("objects_of_ignored_categories", ignored),
        ("objects_listed_twice", again),
        *faults.notes().items(),
    )
    yield from (Note(what, count) for what, count in counts if count)


def painted(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """One class mask, instances and boxes of an item's objects, for an image of this (height, width).

    Raises:
        SampleError: the image has another size than listed, there are more objects than 16 bits can number, or none
            covers a pixel.
    """
    listed_size, objects = item.annotation
    check_size(source, item, listed_size, size)
    where = source.root / item.path
    if len(objects) > _MAX_OBJECTS:
        raise SampleError(f"has {len(objects)} objects, more than {_MAX_OBJECTS}", where=where)
    canvas = Canvas(size)
    segments: list[Segment] = []
    boxes = []
    notes: Counter[str] = Counter()
    for own, index, category, crowd, data in sorted(objects, key=lambda thing: (isinstance(thing[0], str), thing[0])):
        bbox, segmentation = marshal.loads(data)
        try:
            covered = decoded(segmentation, size)
        except (ValueError, TypeError, KeyError, OverflowError):
            notes[f"malformed_masks{FIRST}{item.path}, id {own})"] += 1
            continue
        area = canvas.paint(covered)
        if area == 0:
            notes["empty_masks"] += 1
            continue
        segments.append(Segment(len(segments) + 1, index, category, crowd, str(own)))
        boxes.append(Box(_corners(bbox, covered), index, float(area), iscrowd=crowd, native_id=str(own)))
    if not segments:
        faults = ", ".join(f"{what.replace('_', ' ')}: {count}" for what, count in sorted(notes.items()))
        raise SampleError(f"none of its objects covers a pixel ({faults})", where=where)
    indices = [segment.class_index for segment in segments]
    return Annotation(
        mask=canvas.classes(indices, source.space.ignore_index, source.space.dtype),
        instances=canvas.top.astype(np.uint16),
        boxes=tuple(boxes),
        segments=tuple(segments),
        notes=notes,
    )


def _corners(bbox: Any, covered: Mask) -> tuple[float, float, float, float]:
    """The box that the JSON gives, or, where it gives none that makes sense, the one around the mask."""
    try:
        x, y, width, height = map(float, bbox)
        corners = clipped((x, y, width, height), covered.shape)
        if not isinstance(corners, str):
            return corners
    except (ValueError, TypeError, OverflowError):
        pass
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def decoded(segmentation: Any, size: tuple[int, int]) -> Mask:
    """[H, W] of an object: all parts of its polygons together, or its run-length code.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is neither.
    """
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        if (height, width) != size:
            raise ValueError(f"is for {width}x{height}")
        counts = segmentation["counts"]
        return _unrolled(_runs_of_text(counts) if isinstance(counts, str) else np.array(counts, dtype=np.int64), size)
    return _filled(segmentation, size)


def _unrolled(runs: npt.NDArray[np.int64], size: tuple[int, int]) -> Mask:
    """[H, W] of runs of 0 and 1 by turns, down the columns. Raises ValueError where they don't cover just that."""
    height, width = size
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ValueError("the runs don't cover the image")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _runs_of_text(text: str) -> npt.NDArray[np.int64]:
    """The counts of a compressed code (cocodataset/cocoapi, common/maskApi.c).

    Each is a number of digits of 5 bits, the lowest first, with a sign in the last; from the fourth on it is the
    difference to the count two before. pycocotools would read beyond the end of a damaged one.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - ord("0")
    is_last = codes & 32 == 0
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        raise ValueError("is not a run-length code")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_DIGITS:
        raise ValueError("is not a run-length code")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts) - np.where(codes[ends] & 16, 1 << 5 * lengths, 0)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _filled(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """Polygons filled as cocoapi does; parts of fewer than three points cover nothing."""
    from pycocotools import mask as coco

    if not isinstance(polygons, list):
        raise TypeError("is neither polygons nor a run-length code")
    parts = [np.array(part, dtype=np.float64) for part in polygons]
    if any(part.ndim != 1 or len(part) % 2 for part in parts):
        raise ValueError("a polygon is not a list of x and y")
    parts = [part for part in parts if len(part) >= 6]
    for part in parts:
        points = part.reshape(-1, 2)
        length = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum()
        # cocoapi takes memory for every step along the edges
        if not (np.abs(points).max() <= FAR and length <= _MAX_LENGTH):
            raise ValueError("a polygon is nowhere near the image")
    if not parts:
        return np.zeros(size, dtype=np.bool_)
    merged = coco.merge(coco.frPyObjects([part.tolist() for part in parts], *size))
    return _unrolled(_runs_of_text(merged["counts"].decode()), size)
