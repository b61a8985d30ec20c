"""What will go into which shard: decided before anything is written, so that it depends on nothing but the dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.catalog import Recipe
from labelmerge.errors import LayoutError, UsageError
from labelmerge.sharding.layout import see
from labelmerge.sharding.locate import open_source
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.sample import Item, Note, Skip, Source

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_MAX_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Options:
    """What a user can choose about the shards; all of it changes their bytes.

    Attributes:
        image_format: ``jpg`` or ``png``.
        short_edge: pixels; larger images are shrunk so that their short edge is this long. None: sizes as they are.
        quality: of JPEGs that have to be encoded, 1 to 100; None: 95.
        samples_per_shard: candidates that go into one shard.
        limit: only so many candidates, the first; None: all.
    """

    image_format: str
    short_edge: int | None
    quality: int | None
    samples_per_shard: int
    limit: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """One shard to be: its number, and its candidates with their numbers."""

    number: int
    items: tuple[tuple[int, Item], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the first sample is read."""

    source: Source
    options: Options
    tasks: tuple[Task, ...]
    skips: tuple[Skip, ...]
    notes: Mapping[str, int]
    candidates: str  # hash of all that the reader found

    @property
    def samples(self) -> int:
        """How many candidates have an annotation."""
        return sum(len(task.items) for task in self.tasks)


def make_plan(
    recipe: Recipe,
    root: Path,
    split: str,
    *,
    short_edge: int | None = None,
    limit: int | None = None,
    image_format: str | None = None,
    quality: int | None = None,
    samples_per_shard: int = 1000,
) -> Plan:
    """List a split's candidates and deal them out to shards.

    A sample's number is its place in the sorted list of all candidates, so that one that has to be skipped, now or
    later, moves no other.

    Raises:
        LayoutError, RecipeError, UsageError: as `open_source` and the reader; also where nothing at all is found.
    """
    for name, value in (("short_edge", short_edge), ("limit", limit), ("samples_per_shard", samples_per_shard)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: it must be 1 or more")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}: it must be 1 to 100")
    source = open_source(recipe, root, split)
    items: list[tuple[int, Item]] = []
    skips: list[Skip] = []
    notes: Counter[str] = Counter()
    all_jpeg = True
    digest = hashlib.sha256()
    for number, entry in enumerate(map(_utf8, READERS[recipe.reader].scan(source))):
        full = limit is not None and len(items) >= limit
        _update(digest, entry)
        if isinstance(entry, Item):
            all_jpeg = all_jpeg and entry.path.lower().endswith(_JPEG_SUFFIXES)
            if not full:
                items.append((number, entry))
        elif isinstance(entry, Skip):
            if not full:
                skips.append(entry)
        else:
            notes[entry.what] += entry.count
    if not items:
        raise LayoutError(_nothing(source, skips), where=root, fix=see(recipe))
    chosen = image_format or recipe.image_format
    if chosen == "auto":
        chosen = "jpg" if all_jpeg and short_edge is None else "png"
    if quality is not None and chosen != "jpg":
        raise UsageError("quality is for JPEG only", fix="Add --image-format jpg, or leave --quality out")
    return Plan(
        source=source,
        options=Options(chosen, short_edge, quality, samples_per_shard, limit),
        tasks=tuple(
            Task(number, tuple(items[start : start + samples_per_shard]))
            for number, start in enumerate(range(0, len(items), samples_per_shard))
        ),
        skips=tuple(skips),
        notes=notes,
        candidates=digest.hexdigest(),
    )


def _utf8(entry: Item | Skip | Note) -> Item | Skip | Note:
    """The entry itself, unless JSON could not hold its path."""
    if isinstance(entry, Note):
        return entry
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        return Skip(entry.path.encode("utf-8", "backslashreplace").decode(), "the file's name is not UTF-8")
    return entry


def _nothing(source: Source, skips: list[Skip]) -> str:
    what = f"nothing to shard in {source.recipe.name}'s {source.split} split"
    if not skips:
        return f"{what}: no images found"
    reasons = "; ".join(f"{skip.path}: {skip.reason}" for skip in skips[:_MAX_REASONS_SHOWN])
    return (
        f"{what}: {len(skips)} files found, all unusable ({reasons}{'; …' if len(skips) > _MAX_REASONS_SHOWN else ''})"
    )


def _update(digest: hashlib._Hash, entry: object) -> None:
    """Hash a reader's entry: a dataclass, and in it strings, numbers, arrays and tuples of them."""
    if isinstance(entry, (Item, Skip, Note)):
        entry = tuple(vars(entry).values())
    if isinstance(entry, tuple):
        digest.update(b"(")
        for piece in entry:
            _update(digest, piece)
        digest.update(b")")
    else:
        digest.update(entry.tobytes() if isinstance(entry, np.ndarray) else repr(entry).encode() + b",")
