"""What lies under a folder: all paths once, and which of them belong to which split."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import basename, splitext
from typing import TypeVar

from labelmerge.errors import LayoutError, UsageError, near_path
from labelmerge.sharding.readers.shared.listed import IMAGE_SUFFIXES

T = TypeVar("T")

_MAX_FILES = 5_000_000
_MOST_LINES = 200  # of a list of images that are looked at
_WORDS = {
    "train": ("training", "train"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("testing", "test"),
}
_WORD = re.compile(
    rf"(?<![a-z])({'|'.join(word for words in _WORDS.values() for word in words)})"
    r"(?:(?![a-z])|(?=annot|label|mask|image))",  # SegNet's CamVid: trainannot lies beside train
    re.IGNORECASE,
)


class Tree:
    """The files under a folder, names with a leading dot left out; links are followed. Raises LayoutError."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError("no such folder", where=root, fix=near_path(root) or None)
        self.root = root
        self.paths: list[str] = []
        seen: set[str] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in seen else []
            seen.add(real)
            inner = os.path.relpath(folder, root).replace(os.sep, "/")
            prefix = "" if inner == "." else f"{inner}/"
            self.paths += [f"{prefix}{name}" for name in sorted(names) if not name.startswith(".")]
            if len(self.paths) > _MAX_FILES:
                raise LayoutError(f"holds more than {_MAX_FILES} files", where=root)

    @cached_property
    def images(self) -> list[str]:
        """The paths of pictures."""
        return [path for path in self.paths if path.lower().endswith(IMAGE_SUFFIXES)]

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """The paths of pictures by their last part."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            found[basename(path)].append(path)
        return found

    def ending(self, *endings: str) -> list[str]:
        """The paths with one of some endings, in any case."""
        return [path for path in self.paths if path.lower().endswith(endings)]

    def folders_of_images(self, names: Iterable[str], near: str) -> tuple[str, int] | None:
        """The folder under which most of some listed names are, and how many parts of each count (0: all).

        Of folders with equally many, the one that has most parts with the annotation file `near` in common.
        """
        names = list(names)
        for parts in (0, 1):
            votes: dict[str, int] = defaultdict(int)
            for name in names:
                wanted = "/".join(name.split("/")[-parts:])
                for path in self.by_name.get(basename(name), ()):
                    if path == wanted or path.endswith(f"/{wanted}"):
                        votes[path[: -len(wanted)].rstrip("/") or "."] += 1
            if votes:
                shared = set(near.split("/")) | {split_of(near)}
                best = max(
                    votes, key=lambda folder: (votes[folder], len(shared & {*folder.split("/"), split_of(folder)}))
                )
                return best, parts
        return None


def split_of(path: str) -> str | None:
    """The split whose word a path holds; None where it holds none."""
    match = _WORD.search(path)
    return None if match is None else next(split for split, words in _WORDS.items() if match[1].lower() in words)


@dataclass(frozen=True)
class Template:
    """A path with ``{split}`` for the split's word: `text`, and the split and word that it had, or None."""

    text: str
    split: str | None
    word: str | None


def template(path: str) -> Template:
    """The template of a path: each place where its first split's word stands is ``{split}``."""
    match = _WORD.search(path)
    if match is None:
        return Template(path, None, None)
    word = match[1]
    text = _WORD.sub(lambda each: "{split}" if each[1] == word else each[0], path)
    return Template(text, split_of(path), word)


def by_template(paths: Iterable[str]) -> dict[str, dict[str | None, tuple[str | None, str]]]:
    """Paths by their template's text, then by split: the word, and the path."""
    found: dict[str, dict[str | None, tuple[str | None, str]]] = defaultdict(dict)
    for path in paths:
        made = template(path)
        found[made.text].setdefault(made.split, (made.word, path))
    return found


def words_of(splits: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """The recipe's `[splits]` for what was found: (split, its word). Splits that are not there have no labels."""
    found = {split: word for split, word in splits if split is not None and word is not None}
    if not found:
        return {"val": "", "test": ""}
    said = {split: found.get(split, "") for split in _WORDS}
    return {split: word for split, word in said.items() if word != split}


def endings(paths: Iterable[str]) -> list[str]:
    """The endings that files have, each as it is written, sorted."""
    return sorted({splitext(path)[1] for path in paths})


def spread(things: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of a list, evenly over all of it."""
    if len(things) <= most:
        return things
    return [things[place * len(things) // most] for place in range(most)]


def split_lists(tree: Tree, stems: Container[str], prefer: str) -> tuple[str, dict[str, str]] | None:
    """Lists of images by split, one stem a line: ``ImageSets/Main/{split}.txt``, and the recipe's `[splits]`.

    Args:
        tree: the files.
        stems: what the lines must be, nearly all.
        prefer: a folder whose lists count first.
    """
    found = []
    for place, there in by_template(tree.ending(".txt")).items():
        if basename(place).lower() != "{split}.txt":
            continue
        path = next(path for _, path in there.values())
        try:
            lines = (tree.root / path).read_text(encoding="utf-8-sig").splitlines()[:_MOST_LINES]
        except (OSError, ValueError):
            continue
        known = sum(line.strip() in stems or line.split()[0] in stems for line in lines if line.strip())
        if known * 10 >= 9 * len(lines) > 0:
            found.append((f"{prefer}/" not in place, place, there))
    if not found:
        return None
    _, place, there = min(found, key=lambda each: each[:2])
    return place, words_of((split, word) for split, (word, _) in there.items())
