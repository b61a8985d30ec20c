"""Things of one image, each with a label and an outline, as annotation tools save them: masks or boxes of them.

Keys of `[ids]`, all by label: `ignore` (painted as "no label"), `skip` (left out), `map` (label → class index or name).
Other labels are the class names themselves; case and outer blanks don't matter where no two classes differ by these.
Labels that nothing covers are left out and counted by their name. So is what is malformed: the note says what is wrong,
and where it was found first.

`options.background` names the class of the pixels that nothing covers; without it they are "no label".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.errors import RecipeError, SampleError
from labelmerge.sharding.pictures.images import read_file
from labelmerge.sharding.readers.shared.classes import SKIPPED, class_index, label_values
from labelmerge.sharding.readers.shared.outlines import Outline
from labelmerge.sharding.readers.shared.painting import Canvas
from labelmerge.sharding.source.source import FIRST, Annotation, Box, Item, Segment, Source, clip

TYPES = ("mask", "noisy_mask", "box")
IDS = ("ignore", "skip", "map")
OPTIONS = ("background",)

_MAX_NAME = 40  # characters of a label that the notes show
_MAX_THINGS = int(np.iinfo(np.uint16).max)
_MAX_BYTES = 1 << 26  # of an annotation file of one image


@dataclass(frozen=True)
class Thing:
    """One thing: its class index or `ignore_index`, its outline, the file's own id of it, whether it is several."""

    index: int
    outline: Outline
    native_id: str = ""
    crowd: bool = False


@dataclass
class Found:
    """What a file of one image says, thing by thing.

    Attributes:
        where: the file, for notes.
        things: those that can be used, in file order.
        notes: what was left out.
        listed: how many things the file lists, without those that the recipe leaves out.
    """

    where: str
    things: list[Thing] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    listed: int = 0

    @contextmanager
    def one(self, what: str) -> Iterator[None]:
        """For one thing: a ValueError leaves it out, and the note says why, and where (`what`: shape 3, line 7)."""
        self.listed += 1
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            kind = what.rsplit(" ", 1)[0].replace(" ", "_")
            self.notes[f"{kind}s left out: {_say(error)}{FIRST}{self.where}, {what})"] += 1

    def add(
        self, source: Source, label: object, outline: Outline, native_id: str = "", crowd: bool = False, parts: int = 1
    ) -> None:
        """Take a thing with its label. Raises ValueError where that is not text.

        Args:
            parts: as how many things it was listed.
        """
        if not isinstance(label, str):
            raise ValueError("its label is not text")
        index = label_values(source).get(label)
        if index == SKIPPED:
            self.listed -= parts
        elif index is None:
            self.notes["things_of_unknown_labels"] += 1
            self.notes[f"label {label.strip()[:_MAX_NAME]!r} is not a class"] += 1
        else:
            self.things.append(Thing(index, outline, native_id, crowd))


def _say(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return str(error)[:80] if isinstance(error, ValueError) and error.args else "a field is of another type"


def annotation(source: Source, found: Found, size: tuple[int, int], where: Path, largest_first: bool) -> Annotation:
    """What is known of one image of (height, width): boxes, or masks with instances and boxes.

    Args:
        source: whose label space and annotation type.
        found: the things.
        size: of the image.
        where: the annotation file, for messages.
        largest_first: paint small things on top; else in the order of `found`, which the tool keeps.

    Raises:
        SampleError: the file lists things and none can be used, or no mask covers a pixel.
    """
    if len(found.things) > _MAX_THINGS:
        raise SampleError(f"has {len(found.things)} objects, more than {_MAX_THINGS}", where=where)
    if found.listed and not found.things:
        raise SampleError(f"none of its {found.listed} objects can be used ({_listed(found.notes)})", where=where)
    if source.recipe.annotation_type == "box":
        return _boxes(source, found, size)
    background = _background(source)
    if not found.things and background is None:
        raise SampleError("lists no object, so every pixel would be without a label", where=where)
    return _masks(source, found, size, where, largest_first, background)


def _listed(notes: Counter[str]) -> str:
    return ", ".join(f"{what.replace('_', ' ')}: {count}" for what, count in sorted(notes.items()))[:300]


def _boxes(source: Source, found: Found, size: tuple[int, int]) -> Annotation:
    boxes = []
    notes = found.notes
    for thing in found.things:
        corners = clip(thing.outline.corners, size)
        if thing.index == source.space.ignore_index:
            notes["objects_of_ignored_labels"] += 1
        elif corners is None:
            notes["zero_size_boxes"] += 1
        else:
            area = (corners[2] - corners[0]) * (corners[3] - corners[1])
            boxes.append(Box(corners, thing.index, area, iscrowd=thing.crowd, native_id=thing.native_id))
    return Annotation(boxes=tuple(boxes), notes=notes)


def _masks(
    source: Source, found: Found, size: tuple[int, int], where: Path, largest_first: bool, background: int | None
) -> Annotation:
    ignore, dtype = source.space.ignore_index, source.space.dtype
    painted: list[tuple[Thing, int]] = []
    canvas = Canvas(size)
    for thing in found.things:
        try:
            covered = thing.outline.mask(size)
        except (ValueError, TypeError, OverflowError):
            found.notes["malformed_masks"] += 1
            continue
        area = canvas.paint(covered, over_all=not largest_first)
        if area:
            painted.append((thing, area))
        else:
            found.notes["empty_masks"] += 1
    if found.things and not painted:
        raise SampleError(f"none of its objects covers a pixel ({_listed(found.notes)})", where=where)
    segments: list[Segment] = []
    boxes: list[Box] = []
    number_of = np.zeros(len(painted) + 1, dtype=np.uint16)  # things that are "no label" have no segment
    for place, (thing, area) in enumerate(painted, 1):
        if thing.index == ignore:
            continue
        segments.append(Segment(len(segments) + 1, thing.index, thing.index, thing.crowd, thing.native_id))
        number_of[place] = len(segments)
        corners = clip(thing.outline.corners, size)
        if corners is not None:
            boxes.append(Box(corners, thing.index, float(area), iscrowd=thing.crowd, native_id=thing.native_id))
    mask = canvas.classes([thing.index for thing, _ in painted], ignore if background is None else background, dtype)
    return Annotation(mask, number_of[canvas.top], tuple(boxes), tuple(segments), found.notes)


@lru_cache(maxsize=1)
def _background(source: Source) -> int | None:
    named = source.options.get("background")
    return None if named is None else class_index(source.space, named, source.recipe.path)


def check(source: Source) -> None:
    """Raise RecipeError where `[ids]` or `options.background` name something that is not a class."""
    label_values(source)
    if _background(source) is not None and source.recipe.annotation_type == "box":
        raise RecipeError("options.background does not go with boxes", where=source.recipe.path)


def annotation_file(item: Item) -> tuple[str, ...]:
    """The annotation files of an item that has one of its own, under the root."""
    return (str(item.annotation),)


def read_json(path: Path) -> Any:
    """The content of a JSON file of one image. Raises SampleError."""
    data = read_file(path)
    if len(data) > _MAX_BYTES:
        raise SampleError(f"has more than {_MAX_BYTES} bytes", where=path)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SampleError(f"is not JSON (not UTF-8: byte {error.start})", where=path) from error
    except RecursionError as error:
        raise SampleError("is not JSON (it is nested too deeply)", where=path) from error
    except ValueError as error:
        at = f"{error.msg} in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise SampleError(f"is not JSON ({at})", where=path) from error


def listed_size(height: object, width: object) -> tuple[int, int] | None:
    """(height, width) as a file gives them, as numbers or texts; None where it gives none that can be."""
    try:
        found = int(str(height)), int(str(width))
    except ValueError:
        return None
    return found if min(found) > 0 else None
