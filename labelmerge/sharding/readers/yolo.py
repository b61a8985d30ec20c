"""YOLO: a text file of boxes or polygons for each image, one thing a line, coordinates from 0 to 1.

A line is `class x y width height` (the box's centre and size) or `class x1 y1 x2 y2 …` (a polygon). A label file lies
where its image does, with the last folder `images` of the path replaced by `labels`; else beside its image. An image
without one is an image without objects, as the format has it. For masks, boxes are not enough: they are left out and
counted; small polygons are painted over large ones. Where `kpt_shape` is given, what follows a box is keypoints.

Where the images are is said by one of

- `layout.data`: the data.yaml, with `names` (a list or a table), `train`, `val` and `test` (folders, lists of images,
  or several of both) and perhaps `path`. Paths of another machine, and Roboflow's `../train/images`, are found by what
  of them is there;
- `layout.list`: a list of images, one path a line;
- `layout.images`: patterns.

Without a data.yaml, `layout.class_names` is the list of names, one a line; without it, too, a class number is the
index. `[ids]`: see `shared.things`.
"""

from __future__ import annotations

import posixpath
import re
import sqlite3
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from labelmerge.errors import LayoutError, RecipeError, SampleError
from labelmerge.sharding.pictures.images import read_file
from labelmerge.sharding.readers.shared import outlines, things
from labelmerge.sharding.readers.shared.beside import Folders, spelled, under
from labelmerge.sharding.readers.shared.classes import SKIPPED, label_values, match_categories
from labelmerge.sharding.readers.shared.listed import IMAGE_SUFFIXES
from labelmerge.sharding.readers.shared.things import Found
from labelmerge.sharding.source.layout import find, first_place, places
from labelmerge.sharding.source.source import Annotation, Item, Keys, Note, Skip, Source
from labelmerge.text import counted

KEYS = Keys(
    types=things.TYPES,
    layout=(),
    layout_optional=("data", "list", "images", "class_names"),
    ids=things.IDS,
    options=things.OPTIONS,
    instances=True,
)
label_space = None
image = None

_WHERE = ("data", "list", "images")
_BOX = 5  # fields of a line
_MIN_POLYGON = 7
_OUTSIDE = 0.01  # how far rounding may put a coordinate outside of 0..1
_MAX_TEXT = 1 << 26  # bytes of a data.yaml, a list of images or of names
_DRIVE = re.compile(r"[A-Za-z]:")


def scan(source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
    """List the images, each with its label file; raises LayoutError or RecipeError."""
    things.check(source)
    given = [key for key in _WHERE if key in source.layout]
    if len(given) != 1:
        raise RecipeError("one of layout.data, layout.list and layout.images must be given", where=source.recipe.path)
    class_values(source)
    folders = Folders(source.root)
    notes = {"listed_twice": 0, "images_without_label_file": 0}
    images: set[str] = set()
    missing: set[str] = set()
    for path, there in _images(source, folders):
        notes["listed_twice"] += path in images
        (images if there else missing).add(path)
    with_labels = 0
    entries: list[Item | Skip] = [Skip(path, "listed, but there is no such image") for path in missing]
    for each in images:
        found = next((path for path in label_paths(each) if path in folders), "")
        with_labels += bool(found)
        entries.append(Item(each, found))
    if images and not with_labels:
        expected = next(iter(label_paths(min(images))))
        raise LayoutError(
            f"none of {counted(len(images), 'image')} has a label file: {min(images)} would have {expected}",
            where=source.root,
        )
    notes["images_without_label_file"] = len(images) - with_labels
    yield from sorted(entries, key=lambda entry: entry.path)
    yield from (Note(what, count) for what, count in notes.items() if count)


def label_paths(path: str) -> Iterator[str]:
    """Where the label file of an image may be, under the root: the usual place first, then its other spellings."""
    before, found, after = f"/{path}".rpartition("/images/")
    stem = posixpath.splitext(f"{before}/labels/{after}" if found else f"/{path}")[0][1:]
    for each in (f"{stem}.txt", f"{stem}.TXT"):
        yield from spelled(each)


# --- where images are -------------------------------------------------------------------------------------------------


def _images(source: Source, folders: Folders) -> Iterator[tuple[str, bool]]:
    """The images of the split, under the root, and whether each is there."""
    if "images" in source.layout:
        for pattern in (base + place for base in source.bases for place in places(source, "images")):
            yield from ((match.path, True) for match in find(source.root, pattern) if _is_image(match.path))
    elif "list" in source.layout:
        yield from _listed(source, first_place(source, "list", "list of images"), folders)
    else:
        data = first_place(source, "data", "data.yaml")
        content = data_yaml(source)
        said = content.get(source.word)
        wanted = [each for each in (said if isinstance(said, list) else [said]) if isinstance(each, str) and each]
        if not wanted:
            raise LayoutError(
                f"names no images of its split {source.word!r}",
                where=source.root / data,
                fix="The recipe's [splits] may say what it is called there",
            )
        for each in wanted:
            place = resolved(source, folders, posixpath.dirname(data), content.get("path"), each)
            if place is None:
                raise LayoutError(
                    f"says that the images of {source.word!r} are in {each!r}: there is nothing under the root",
                    where=source.root / data,
                )
            if place in folders:
                yield from _listed(source, place, folders)
            else:
                pattern = f"{place}/**/*" if place else "**/*"
                yield from ((match.path, True) for match in find(source.root, pattern) if _is_image(match.path))


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def resolved(source: Source, folders: Folders, folder: str, path: object, said: str) -> str | None:
    """What a data.yaml in `folder` means by a path: a file or folder under the root, or None."""
    bases = [*_ways(folder, path), folder] if isinstance(path, str) and path.strip() else [folder]
    for base in bases:
        for candidate in _ways(base, said):
            if candidate in folders or (source.root / candidate).is_dir():
                return candidate
    return None


def _ways(folder: str, said: str) -> Iterator[str]:
    """What a path may mean: as it is written; without what leads out of the folder; the end of a longer one."""
    for spelling in spelled(said.strip()):
        plain = _DRIVE.sub("", spelling, count=1) if _DRIVE.match(spelling) else spelling
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        if not plain.startswith("/"):
            straight = under(folder, plain) if parts else folder
            if straight is not None:
                yield straight
        while parts and parts[0] == "..":
            parts = parts[1:]
        # A name alone is too little: there may be one of every split.
        for place in range(max(1, len(parts) - 1) if parts else 0):
            inner = under(folder, "/".join(parts[place:]))
            if inner is not None:
                yield inner


def _listed(source: Source, place: str, folders: Folders) -> Iterator[tuple[str, bool]]:
    """The images that a list names; as it writes them where they are not there."""
    folder = posixpath.dirname(place)
    for line in text_of_file(source, place).splitlines():
        if line.strip():
            found = next((path for base in (folder, "") for path in _ways(base, line) if path in folders), None)
            yield (line.strip(), False) if found is None else (found, True)


def text_of_file(source: Source, place: str) -> str:
    """A text under the root. Raises LayoutError."""
    path = source.root / place
    try:
        data = read_file(path)
        if len(data) > _MAX_TEXT:
            raise LayoutError(f"has more than {_MAX_TEXT} bytes", where=path)
        return data.decode("utf-8-sig")
    except SampleError as error:
        raise LayoutError(error.what, where=path) from error
    except UnicodeDecodeError as error:
        raise LayoutError(f"is not UTF-8 (byte {error.start})", where=path) from error


# --- classes ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def data_yaml(source: Source) -> dict[str, Any]:
    """The content of `layout.data`. Raises LayoutError."""
    import yaml

    place = first_place(source, "data", "data.yaml")
    try:
        # All as texts: else a class "no" would be False, and "1e3" a number.
        content = yaml.load(text_of_file(source, place), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" in line {mark.line + 1}" if mark else ""
        raise LayoutError(f"is not YAML ({getattr(error, 'problem', None) or 'malformed'}{at})", where=place) from error
    if not isinstance(content, dict):
        raise LayoutError("is not a YOLO data.yaml: it has no keys", where=source.root / place)
    return content


def class_names(source: Source) -> dict[int, str] | None:
    """Name by class number; None where nothing says. Raises LayoutError."""
    if "data" in source.layout:
        names = data_yaml(source).get("names")
        listed: Any = dict(enumerate(names)) if isinstance(names, list) else names
        try:
            found = {int(number): name for number, name in listed.items() if isinstance(name, str)}
        except (AttributeError, TypeError, ValueError):
            found = {}
        if not found:
            where = source.root / first_place(source, "data", "data.yaml")
            raise LayoutError("has no names: neither a list nor a table of classes", where=where)
        if len(found) < len(listed):
            where = source.root / first_place(source, "data", "data.yaml")
            raise LayoutError("has names that are not text", where=where)
        return found
    if "class_names" not in source.layout:
        return None
    text = text_of_file(source, first_place(source, "class_names", "list of class names"))
    return {number: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()}


@lru_cache(maxsize=1)
def class_values(source: Source) -> dict[int, int]:
    """Class index, `ignore_index` or SKIPPED, by class number. Raises LayoutError or RecipeError."""
    names = class_names(source)
    if names is None:
        return {index: index for index in source.space.indices}
    values = label_values(source)
    skipped = {number: SKIPPED for number, name in names.items() if values.get(name) == SKIPPED}
    where = source.root / first_place(source, "data" if "data" in source.layout else "class_names", "list of names")
    rest = {number: name for number, name in names.items() if number not in skipped}
    return {**match_categories(source, rest, where, ()), **skipped}


# --- labels -----------------------------------------------------------------------------------------------------------


def files(item: Item) -> tuple[str, ...]:
    """The annotation files of one item, under the root."""
    return (item.annotation,) if item.annotation else ()


def read(source: Source, item: Item, size: tuple[int, int]) -> Annotation:
    """One image's lines as masks or boxes; raises SampleError."""
    found = Found(item.annotation)
    path = source.root / (item.annotation or item.path)
    boxes = source.recipe.annotation_type == "box"
    keypoints = "data" in source.layout and "kpt_shape" in data_yaml(source)
    seen: set[str] = set()
    for number, line in enumerate(_lines(source, item.annotation), 1):
        fields = line.split()
        if not fields:
            continue
        if " ".join(fields) in seen:
            found.notes["lines_twice"] += 1
            continue
        seen.add(" ".join(fields))
        with found.one(f"line {number}"):
            outline = _outline(fields[:_BOX] if keypoints else fields, size)
            index = class_values(source).get(_class(fields[0]))
            if index is None:
                found.notes["things_of_unknown_labels"] += 1
                found.notes[f"class number {_class(fields[0])} has no name"] += 1
            elif index == SKIPPED:
                found.listed -= 1
            elif isinstance(outline, outlines.Rectangle) and not boxes:
                found.notes["boxes_without_mask"] += 1
            else:
                found.things.append(things.Thing(index, outline, str(number)))
    return things.annotation(source, found, size, path, largest_first=True)


def _lines(source: Source, place: str) -> Iterable[str]:
    if not place:
        return ()
    try:
        return text_of_file(source, place).splitlines()
    except LayoutError as error:
        raise SampleError(error.what, where=source.root / place) from error


def _class(field: str) -> int:
    number = float(field)
    if number != int(number) or number < 0:
        raise ValueError(f"its class is {field[:20]}")
    return int(number)


def _outline(fields: list[str], size: tuple[int, int]) -> outlines.Outline:
    """What a line covers. Raises ValueError."""
    _class(fields[0])
    numbers = [outlines.number(field, "coordinates") for field in fields[1:]]
    if not all(-_OUTSIDE <= number <= 1 + _OUTSIDE for number in numbers):
        raise ValueError("its coordinates are not from 0 to 1")
    if len(fields) == _BOX:
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise ValueError("its box has no area")
        corners = ((x - width / 2) * size[1], (y - height / 2) * size[0])
        return outlines.Rectangle((*corners, (x + width / 2) * size[1], (y + height / 2) * size[0]))
    if len(fields) < _MIN_POLYGON or len(numbers) % 2:
        raise ValueError(f"it has {len(fields)} fields: neither a box nor a polygon")
    points = [(x * size[1], y * size[0]) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    return outlines.Polygon(tuple(points))
