"""What will go into which shard: decided before anything is written, so that it depends on nothing but the dataset.

Candidates may be millions: they are listed into a database on disk, and read back one shard at a time.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from labelmerge.catalog import Recipe, load_label_space, refuse_unknown_classes
from labelmerge.errors import LayoutError, OutputError, UsageError
from labelmerge.files import sha256_file
from labelmerge.sharding.annotated import with_lists
from labelmerge.sharding.depths import Meaning, has_depth
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.layout import see
from labelmerge.sharding.source.locate import open_source
from labelmerge.sharding.source.source import Item, Note, Skip, Source
from labelmerge.text import kinds, some

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_MAX_REASONS_SHOWN = 3


@dataclass(frozen=True)
class Options:
    """What a user can choose about the shards; all of it changes their bytes.

    Attributes:
        image_format: ``jpg`` or ``png``.
        short_edge: pixels; larger images are shrunk so that their short edge is this long. None: sizes as they are.
        quality: of JPEGs that have to be encoded, 1 to 100; None: 95.
        samples_per_shard: items that go into one shard.
        limit: only the first so many items; None: all.
        box_teacher: the ``open_clip:…`` spec of a model that embeds every box's image; None: no embeddings.
        taxonomy: a table of the classes' concepts; the shards then have concepts for classes (see `merged`).
        instances: whether samples have an instances mask where the dataset tells objects apart.
    """

    image_format: str
    short_edge: int | None = None
    quality: int | None = None
    samples_per_shard: int = 250
    limit: int | None = None
    box_teacher: str | None = None
    taxonomy: Path | None = None
    instances: bool = True

    def to_json(self) -> dict[str, Any]:
        """The taxonomy by its hash; no teacher, whose name may be a path: a manifest says which model it is."""
        values = {name: value for name, value in asdict(self).items() if name != "box_teacher"}
        return {**values, "taxonomy": None if self.taxonomy is None else sha256_file(self.taxonomy)}


class Chosen(TypedDict, total=False):
    """`Options` as a user gives them: those that are not given have their defaults, the image format the recipe's."""

    image_format: str | None
    short_edge: int | None
    quality: int | None
    samples_per_shard: int
    limit: int | None
    box_teacher: str | None
    taxonomy: Path | None
    instances: bool


@dataclass(frozen=True)
class Task:
    """A shard to be made: its number, and its items with theirs."""

    number: int
    items: tuple[tuple[int, Item], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the first sample is read.

    Attributes:
        source, options: what was asked for.
        sizes: for every task, how many items it has.
        skips, notes: what the reader found besides items.
        candidates: hash of all that the reader found.
    """

    source: Source
    options: Options
    sizes: tuple[int, ...]
    skips: tuple[Skip, ...]
    notes: Mapping[str, int]
    candidates: str
    _listed: sqlite3.Connection

    @property
    def samples(self) -> int:
        """How many items there are."""
        return sum(self.sizes)

    def task(self, number: int) -> Task:
        """One shard's items, read back from disk."""
        (data,) = self._listed.execute("SELECT items FROM tasks WHERE number = ?", (number,)).fetchone()
        return Task(number, pickle.loads(data))


@contextmanager
def make_plan(recipe: Recipe, root: Path, split: str, scratch: Path, **chosen: Unpack[Chosen]) -> Iterator[Plan]:
    """List a split's items and deal them out to shards.

    A sample's number is its place in the sorted list of everything that the reader finds, so that an image that has to
    be skipped, now or later, changes no other's number.

    Args:
        recipe, root, split: the dataset.
        scratch: an empty folder for lists that are too long for memory; the plan is good as long as it is there.
        chosen: see `Options`.

    Raises:
        LayoutError, RecipeError, UsageError: as `open_source` and the reader; also where nothing at all is found.
        OutputError: no space in `scratch`.
    """
    _refuse_senseless(recipe, chosen)
    source = open_source(recipe, root, split)
    if has_depth(source):
        Meaning.of(source)
    if not chosen.get("instances", True):
        source = replace(source, layout={key: value for key, value in source.layout.items() if key != "instances"})
    refuse_unknown_classes(recipe, load_label_space(recipe) if recipe.annotated or recipe.things else source.space)
    if (taxonomy := chosen.get("taxonomy")) is not None:
        from labelmerge.sharding.merged import read_class_map

        source = replace(source, class_map=read_class_map(taxonomy, source.space))
    with closing(_database(scratch / "tasks.sqlite")) as listed:
        found = _Found(listed, chosen.get("samples_per_shard", Options.samples_per_shard), chosen.get("limit"))
        with _space(scratch), closing(_database(scratch / "scan.sqlite")) as tables:
            listed.execute("CREATE TABLE tasks (number INTEGER PRIMARY KEY, items BLOB)")
            scanned = with_lists(source, READERS[source.reader].scan(source, tables))
            for number, entry in enumerate(map(_utf8, scanned)):
                found.add(number, entry)
            found.end_task()
        (scratch / "scan.sqlite").unlink()
        if not found.sizes:
            raise LayoutError(_nothing(source, found.skips), where=root, fix=see(recipe))
        yield Plan(
            source=source,
            options=_options(recipe, found.all_jpeg, chosen),
            sizes=tuple(found.sizes),
            skips=tuple(found.skips),
            notes=found.notes,
            candidates=found.digest.hexdigest(),
            _listed=listed,
        )


class _Found:
    """Takes what a reader finds, and writes down a task whenever it has a shard's worth."""

    def __init__(self, listed: sqlite3.Connection, samples_per_shard: int, limit: int | None) -> None:
        self._listed = listed
        self._samples_per_shard = samples_per_shard
        self._limit = limit
        self._items: list[tuple[int, Item]] = []
        self._count = 0
        self.sizes: list[int] = []
        self.skips: list[Skip] = []
        self.notes: Counter[str] = Counter()
        self.all_jpeg = True
        self.digest = hashlib.sha256()

    def add(self, number: int, entry: Item | Skip | Note) -> None:
        full = self._limit is not None and self._count >= self._limit
        _update(self.digest, entry)
        if isinstance(entry, Item):
            self.all_jpeg = self.all_jpeg and entry.path.lower().endswith(_JPEG_SUFFIXES)
            if not full:
                self._items.append((number, entry))
                self._count += 1
                if len(self._items) == self._samples_per_shard:
                    self.end_task()
        elif isinstance(entry, Skip):
            if not full:
                self.skips.append(entry)
        else:
            self.notes[entry.what] += entry.count

    def end_task(self) -> None:
        if self._items:
            data = pickle.dumps(tuple(self._items), protocol=pickle.HIGHEST_PROTOCOL)
            self._listed.execute("INSERT INTO tasks VALUES (?, ?)", (len(self.sizes), data))
            self.sizes.append(len(self._items))
            self._items = []


def _database(path: Path) -> sqlite3.Connection:
    """A database for one run: nothing in it outlives a crash, so nothing is done for its safety."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


@contextmanager
def _space(scratch: Path) -> Iterator[None]:
    """Let SQLite sort in `scratch` and not in /tmp, which may be small, or memory."""
    before = os.environ.get("SQLITE_TMPDIR")
    os.environ["SQLITE_TMPDIR"] = str(scratch)
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OutputError(
            f"can't keep the list of images ({error})", where=scratch, fix="Free some space and run again"
        ) from error
    finally:
        if before is None:
            del os.environ["SQLITE_TMPDIR"]
        else:
            os.environ["SQLITE_TMPDIR"] = before


def _refuse_senseless(recipe: Recipe, chosen: Chosen) -> None:
    for name in ("short_edge", "limit", "samples_per_shard"):
        value = chosen.get(name)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"{name} is {value}: it must be 1 or more")
    quality, spec = chosen.get("quality"), chosen.get("box_teacher")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}: it must be 1 to 100")
    if spec is not None and recipe.annotation_type != "box":
        raise UsageError(
            f"a box teacher is for boxes, but {recipe.name} has annotations of type {recipe.annotation_type}",
            fix="Leave --box-teacher out",
        )


def _options(recipe: Recipe, all_jpeg: bool, chosen: Chosen) -> Options:
    image_format = chosen.get("image_format") or recipe.image_format
    if image_format == "auto":
        image_format = "jpg" if all_jpeg and chosen.get("short_edge") is None else "png"
    if chosen.get("quality") is not None and image_format != "jpg":
        raise UsageError("quality is for JPEG only", fix="Add --image-format jpg, or leave --quality out")
    values: dict[str, Any] = {**chosen, "image_format": image_format}
    return Options(**values)


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
    reasons = some(kinds(f"{skip.path}: {skip.reason}" for skip in skips), _MAX_REASONS_SHOWN, separator="; ")
    found = "the only file found is unusable" if len(skips) == 1 else f"{len(skips)} files found, all unusable"
    return f"{what}: {found} ({reasons})"


def _update(digest: hashlib._Hash, entry: object) -> None:
    """Hash a reader's entry: a dataclass, and in it strings, numbers, arrays and tuples of them."""
    if isinstance(entry, (Item, Skip, Note)):
        entry = tuple(vars(entry).values())[: -1 if isinstance(entry, Item) and entry.annotated is None else None]
    if isinstance(entry, tuple):
        digest.update(b"(")
        for piece in entry:
            _update(digest, piece)
        digest.update(b")")
    else:
        digest.update(entry.tobytes() if isinstance(entry, np.ndarray) else repr(entry).encode() + b",")
