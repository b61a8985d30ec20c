"""What readers and the shard writer tell each other: a source, its items, and an item's annotation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from labelmerge.catalog import Recipe
from labelmerge.labels import LabelSpace

UPRIGHT = "upright"
"""An option of every reader: annotations are of the pictures as their orientation tags turn them."""


ANNOTATED = "annotated"
"""A key of every reader's layout: the table of the classes that single images were annotated for."""

FIRST = " (first: "
"""Between what a note counts and where it was found first, which is kept of one of them only."""


@dataclass(frozen=True, eq=False)
class Source:
    """One split of a dataset on disk, as its recipe describes it.

    Attributes:
        recipe: the recipe.
        root: the folder that the user named.
        split: ``train``, ``val``, ``test`` or ``unlabeled``.
        word: the dataset's own word for the split.
        variant: the name of the recipe's variant that was found, or None.
        reader: the name of the reader: the variant's, or the recipe's.
        bases: folders under the root ("" or ending in "/") at which the layout was found.
        layout, ids, options: the recipe's tables, the variant's in their place where it has some.
        space: the classes; the reader may have narrowed the recipe's.
        class_map: the concepts that take the classes' places in the shards, if the user gave a taxonomy.
    """

    recipe: Recipe
    root: Path
    split: str
    word: str
    variant: str | None
    reader: str
    bases: tuple[str, ...]
    layout: Mapping[str, Any]
    ids: Mapping[str, Any]
    options: Mapping[str, Any]
    space: LabelSpace
    class_map: ClassMap | None = None

    @property
    def shard_space(self) -> LabelSpace:
        """The classes as the shards have them."""
        return self.space if self.class_map is None else self.class_map.space

    @property
    def annotated(self) -> tuple[int, ...]:
        """The indices of the classes that every image was annotated for of which nothing else is said."""
        return tuple(sorted(self.space.indices_of(self.recipe.annotated)))


@dataclass(frozen=True)
class Item:
    """An image that has an annotation.

    Attributes:
        path: relative to the root; where one file holds many images, ``file#what`` tells them apart.
        annotation: the reader's own affair (picklable: strings, numbers, tuples of them, numpy arrays).
        native_id: the dataset's own id of the image, "" where its path is all there is.
        annotated: the indices of the classes that this image was annotated for, wherever they occur in it; None where
            all images were annotated alike. Of a split either all items have such a list, or none has.
    """

    path: str
    annotation: Any
    native_id: str = ""
    annotated: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Skip:
    """A file that can't become a sample, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Note:
    """Something worth counting that concerns no single sample."""

    what: str
    count: int


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        bbox: x0, y0, x1, y1 in pixels of the image, inside it.
        class_index: in the label space.
        area: in pixels.
        iscrowd: it stands for several things that are not told apart (COCO, Objects365).
        group_of: likewise (Open Images).
        depiction: a picture or model of the thing (Objects365's `isfake`, Open Images' `IsDepiction`).
        reflected: a mirror image (Objects365's `isreflected`).
        native_id: the dataset's own id of the box; "" where it has none.
    """

    bbox: tuple[float, float, float, float]
    class_index: int
    area: float
    iscrowd: bool = False
    group_of: bool = False
    depiction: bool = False
    reflected: bool = False
    native_id: str = ""


Corners = tuple[float, float, float, float]


def clip(corners: Corners, size: tuple[int, int]) -> Corners | None:
    """The part of a box (x0, y0, x1, y1) inside an image of (height, width); None where nothing is left of it."""
    x0, x1 = (min(max(edge, 0.0), float(size[1])) for edge in corners[::2])
    y0, y1 = (min(max(edge, 0.0), float(size[0])) for edge in corners[1::2])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


@dataclass(frozen=True)
class Segment:
    """One segment: `id` is its value in the instances mask, 1 or above; `native_id` the dataset's own id of it."""

    id: int
    class_index: int
    category_id: int
    iscrowd: bool
    native_id: str = ""


@dataclass(frozen=True)
class Annotation:
    """What a reader found for one image.

    Attributes:
        mask: [H, W] class indices in the label space's dtype, `ignore_index` where there is no label; None for boxes.
        instances: [H, W] uint16 segment ids, 0 = none; None where the format has no segments.
        boxes, segments: described above.
        notes: what was odd and how often, for the manifest.
        depth: [H, W] depths, numbers as the file has them; None where it has none. See `labelmerge.sharding.depths`.
    """

    mask: npt.NDArray[Any] | None = None
    instances: npt.NDArray[np.uint16] | None = None
    boxes: tuple[Box, ...] = ()
    segments: tuple[Segment, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)
    depth: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class ClassMap:
    """The concepts that take the places of a dataset's classes in its shards (see `sharding.merged`).

    Attributes:
        space: all concepts of the taxonomy, so that every dataset's shards have one label space.
        group_of: the concept's number, by class index.
    """

    space: LabelSpace
    group_of: Mapping[int, int]

    def names(self, names: Iterable[str], space: LabelSpace) -> list[str]:
        """The concepts of some classes of `space`, by name."""
        wanted = set(names)
        found = {self.group_of[index] for index, name in zip(space.indices, space.names, strict=True) if name in wanted}
        return [self.space.name_of(group) for group in sorted(found)]

    def apply(self, annotation: Annotation, space: LabelSpace) -> Annotation:
        """The same annotation with groups for the classes of `space`."""
        mask = annotation.mask
        if mask is not None:
            table = space.lookup(self.group_of, self.space.ignore_index).astype(self.space.dtype)
            mask = table[mask]
        return replace(
            annotation,
            mask=mask,
            boxes=tuple(replace(box, class_index=self.group_of[box.class_index]) for box in annotation.boxes),
            segments=tuple(replace(part, class_index=self.group_of[part.class_index]) for part in annotation.segments),
        )


@dataclass(frozen=True)
class Keys:
    """What a reader serves, and the keys it knows in the tables of a recipe.

    Attributes:
        types: annotation types.
        layout, layout_optional: keys of `[layout]` that must and may be there.
        ids, options: keys of these tables, all optional.
        instances: every sample has an instances mask; where False, it has one if `layout.instances` is given.
    """

    types: tuple[str, ...]
    layout: tuple[str, ...]
    layout_optional: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    instances: bool = False


class Reader(Protocol):
    """A module of `labelmerge.sharding.readers`: one annotation format."""

    @property
    def KEYS(self) -> Keys: ...

    @property
    def label_space(self) -> Callable[[Source], LabelSpace] | None:
        """How the classes of a source follow from its files; None where they are always the recipe's."""

    @property
    def image(self) -> Callable[[Source, Item], bytes] | None:
        """How to get an item's image as the bytes of a PNG or JPEG (may raise SampleError); None: a file."""

    @property
    def files(self) -> Callable[[Item], tuple[str, ...]] | None:
        """The files, under the root, that an item's annotation is read from; None where the item holds it."""

    def scan(self, source: Source, scratch: sqlite3.Connection) -> Iterator[Item | Skip | Note]:
        """List the items, cheaply, sorted by image path; then whatever else is worth a record.

        Annotation files may be larger than memory: what must be sorted or joined goes into tables of `scratch`, an
        empty database on disk that lives as long as the scan.

        Raises LayoutError or RecipeError.
        """

    def read(self, source: Source, item: Item, size: tuple[int, int]) -> Annotation:
        """Decode one annotation for an image of this (height, width). Raises SampleError."""
