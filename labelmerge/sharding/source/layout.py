"""Where the files of a dataset are: the patterns of a recipe's layout."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from labelmerge.catalog import Recipe
from labelmerge.errors import LayoutError, RecipeError
from labelmerge.sharding.source.lists import read_list
from labelmerge.sharding.source.source import Item, Skip, Source

_WILDCARD = re.compile(r"\*\*/|\*")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_PLACEHOLDERS = "{split}, {stem}, {number}, {number:06d}, {1}, {2}, …"
_NUMBER_FORMAT = re.compile(r"number(?::(0\d+d))?")


@dataclass(frozen=True)
class Match:
    """A file that a pattern found: its path under the root, and what each wildcard stood for."""

    path: str
    groups: tuple[str, ...]
    stem: str


def fill(pattern: str, fields: Mapping[str, str | int]) -> str:
    """Replace the placeholders of a layout pattern: ``{split}``, ``{stem}``, ``{1}``, ``{number:06d}``, ….

    A placeholder without a value among `fields` stays; an unknown one is a RecipeError.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if number := _NUMBER_FORMAT.fullmatch(name):
            return format(fields["number"], number[1] or "d") if "number" in fields else match[0]
        if name in fields:
            return str(fields[name])
        if name in ("split", "stem") or name.isdecimal():
            return match[0]
        raise RecipeError(
            f"unknown placeholder {match[0]} in {pattern!r}",
            fix=f"Known: {_PLACEHOLDERS}",
        )

    return _PLACEHOLDER.sub(value, pattern)


def pattern_problem(pattern: str) -> str | None:
    """Why `pattern` can't be one of a layout; None where it can."""
    parts = pattern.split("/")
    if not parts[0]:
        return f"{pattern!r} must be relative to the root"
    if parts[-1] == "**" or any("**" in part and part != "**" for part in parts):
        return f"in {pattern!r}, '**' must be a folder of its own: '**/'"
    try:
        fill(pattern, {})
    except RecipeError as error:
        return f"{error.what} (known: {_PLACEHOLDERS})"
    return None


def mask_wildcards(pattern: str, images: str) -> str:
    """The wildcard pattern that finds every file that `pattern` can name for any image of the pattern `images`."""
    wildcards = list(_WILDCARD.finditer(images))
    fields: dict[str, str | int] = {str(place): match[0] for place, match in enumerate(wildcards, 1)}
    fields["stem"] = images[wildcards[0].start() : wildcards[-1].end()] if wildcards else "*"
    return fill(re.sub(r"\{number[^{}]*\}", "*", pattern), fields)


def find(root: Path, pattern: str) -> Iterator[Match]:
    """The files under `root` that match `pattern`, in no particular order.

    ``*`` stands for part of one name and ``**/`` for any number of folders, also none; names that begin with a dot are
    no dataset's files. Symbolic links are followed.
    """
    pattern = pattern.removeprefix("./")
    regex = re.compile("".join(_regex(part) for part in _split_wildcards(pattern)))
    for path in _walk(root, "", tuple(pattern.split("/")), want_folders=False):
        match = regex.fullmatch(path)
        assert match is not None, (pattern, path)
        groups = match.groups()
        stem = path[match.start(1) : match.end(len(groups))] if groups else PurePosixPath(path).stem
        yield Match(path, groups, stem)


def exists(root: Path, pattern: str) -> bool:
    """Whether some file or folder under `root` matches `pattern`."""
    return any(True for _ in _walk(root, "", tuple(pattern.rstrip("/").split("/")), want_folders=True))


def _split_wildcards(pattern: str) -> Iterator[str]:
    end = 0
    for match in _WILDCARD.finditer(pattern):
        yield pattern[end : match.start()]
        yield match[0]
        end = match.end()
    yield pattern[end:]


def _regex(part: str) -> str:
    return {"*": "([^/]*)", "**/": "((?:[^/]+/)*)"}.get(part) or re.escape(part)


@lru_cache
def _segment(segment: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, segment.split("*"))), re.DOTALL)


def _walk(
    root: Path, prefix: str, segments: Sequence[str], want_folders: bool, above: tuple[str, ...] = ()
) -> Iterator[str]:
    """Paths under `root`, beginning with `prefix`, that match the rest of a pattern; `above` ends loops of links."""
    head, rest = segments[0], segments[1:]
    folder = os.path.join(root, prefix)
    if "*" not in head:
        path = os.path.join(folder, head)
        if rest:
            if os.path.isdir(path):
                yield from _walk(root, f"{prefix}{head}/", rest, want_folders, above)
        elif os.path.isfile(path) or (want_folders and os.path.exists(path)):
            yield prefix + head
        return
    if head == "**":
        real = os.path.realpath(folder)
        if real in above:
            return
        above = (*above, real)
        yield from _walk(root, prefix, rest, want_folders, above)
        for name in [entry.name for entry in entries(folder) if _holds(entry.is_dir)]:
            yield from _walk(root, f"{prefix}{name}/", segments, want_folders, above)
        return
    matches = _segment(head).fullmatch
    for entry in entries(folder):
        if matches(entry.name):
            if not rest:
                if want_folders or _holds(entry.is_file):
                    yield prefix + entry.name
            elif _holds(entry.is_dir):
                yield from _walk(root, f"{prefix}{entry.name}/", rest, want_folders, above)


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a link that leads to itself
        return False


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, names with a leading dot left out. Raises LayoutError."""
    try:
        with os.scandir(folder) as found:
            yield from (entry for entry in found if not entry.name.startswith("."))
    except OSError as error:
        raise LayoutError(f"can't be listed ({error.strerror})", where=folder) from error


def places(source: Source, key: str) -> list[str]:
    """The patterns of one layout key, ``{split}`` filled in; [] where the recipe has none."""
    return [fill(pattern, {"split": source.word}) for pattern in strings(source.layout, key)]


def first_place(source: Source, key: str, what: str) -> str:
    """Of the places that the layout gives for one file or folder, the first that exists (path under the root).

    Raises:
        LayoutError: none does; names them.
    """
    found = optional_place(source, key)
    if found is None:
        expected = " or ".join(base + place for base in source.bases for place in places(source, key))
        raise LayoutError(f"no {what}: expected {expected}", where=source.root, fix=see(source.recipe, source.root))
    return found


def optional_place(source: Source, key: str) -> str | None:
    """As `first_place`, but None where nothing exists."""
    for base in source.bases:
        for place in places(source, key):
            found = source.root / base / place
            # A pipe would be waited for. No error where it may not be looked at.
            if os.path.isfile(found) or os.path.isdir(found):
                return base + place
    return None


def inside(folder: str, name: str, parts: int | None = None) -> str | None:
    """The path of a file that a JSON or CSV names, under `folder`; None if the name leads out of it.

    Args:
        folder: path under the root.
        name: what the file says, with ``/`` between folders; ``.`` is the folder itself.
        parts: keep only the last so many parts of `name`.
    """
    pieces = [piece for piece in name.split("/") if piece != "."]
    if parts is not None:
        pieces = pieces[-parts:]
    if not pieces or not all(pieces) or any(piece == ".." or "\\" in piece or "\0" in piece for piece in pieces):
        return None
    return "/".join(pieces if folder == "." else (folder, *pieces))


def strings(table: Mapping[str, Any], key: str) -> list[str]:
    """A layout value as a list: of one, of many, or empty where the key is absent."""
    value = table.get(key, [])
    return [value] if isinstance(value, str) else list(value)


def see(recipe: Recipe, root: Path | None = None) -> str:
    """The sentence that sends a user to the expected layout, and from a shipped one to a recipe for what `root` has."""
    seen = f"`labelmerge ls {recipe.argument}` shows the whole layout"
    shipped = recipe.argument == recipe.name
    own = f"; for other files, `labelmerge recipe {root}` writes a recipe" if shipped else ""
    return seen + (own if root is not None else "")


def pair(source: Source, key: str) -> Iterator[Item | Skip]:
    """Images and the annotation file of each, for the formats that have one annotation file for every image.

    Folders are listed once; no file is asked for by name. `Item.annotation` is the annotation's path under the root.

    Args:
        source: where to look; `layout.images`, and optionally `layout.list`, `list_entry`, `stems` and `exclude`.
        key: the layout key of the annotation files.
    """
    excluded = [re.compile("".join(map(_regex, _split_wildcards(pattern)))) for pattern in places(source, "exclude")]
    stems = strings(source.layout.get("stems", {}), source.split)
    list_entries = places(source, "list_entry") or ["{stem}"]
    listed = read_list(source, first_place(source, "list", "list of images")) if "list" in source.layout else None
    images: dict[str, tuple[str, Match]] = {}
    annotations: set[str] = set()
    searched: list[str] = []
    for base in source.bases:

        def kept(pattern: str, base: str = base) -> Iterator[Match]:
            for match in find(source.root, base + pattern):
                if not any(regex.fullmatch(match.path.removeprefix(base)) for regex in excluded):
                    yield match

        patterns = places(source, "images")
        for pattern in patterns:
            if os.path.isdir(source.root / base / pattern):
                raise RecipeError(
                    f"layout.images is a folder, {pattern!r}, and not the images in it",
                    where=source.recipe.path,
                    fix=f'Write "{pattern.rstrip("/")}/*.jpg", or whatever they end in',
                )
            for match in kept(pattern):
                if stems and not any(fnmatchcase(match.stem, wanted) for wanted in stems):
                    continue
                if listed is not None:
                    fields = _fields(source, match)
                    if not listed.offer({fill(entry, fields) for entry in list_entries}, match.path):
                        continue
                images.setdefault(match.path, (base, match))
        wanted = {mask_wildcards(place, pattern): None for pattern in patterns for place in places(source, key)}
        for pattern in wanted:
            searched.append(base + pattern)
            annotations.update(match.path for match in find(source.root, base + pattern))

    chosen, missing = (set(images), []) if listed is None else listed.chosen()

    def expected(path: str) -> list[str]:
        base, match = images[path]
        return [base + fill(place, _fields(source, match)) for place in places(source, key)]

    used: set[str] = set()
    others: dict[str, str | None] | None = None
    for path in sorted(chosen):
        looked_for = expected(path)
        found = next((place for place in looked_for if place in annotations), None)
        if found is None:
            if others is None:
                claimed = {place for each in chosen for place in expected(each)}
                others = _by_other_spelling(source.root, annotations - claimed, searched)
            found = next((other for place in looked_for if (other := others.get(_spelling(place)))), None)
        if found is None:
            yield Skip(path, f"no annotation: expected {' or '.join(looked_for)}")
        else:
            used.add(found)
            yield Item(path, found)
    for entry in missing:
        yield Skip(entry, f"named in {listed.path if listed else ''}, but there is no such image")
    # Where one folder serves several splits, the other splits' annotations are not orphans.
    if listed is None and not stems and "number_offset" not in source.layout:
        bases = {path: base for path in annotations - used for base in source.bases if path.startswith(base)}
        for path in sorted(bases):
            if path not in images and not any(r.fullmatch(path.removeprefix(bases[path])) for r in excluded):
                yield Skip(path, "no image for this annotation")


def counterpart(source: Source, path: str, key: str) -> list[str]:
    """The places, under the root, that the layout gives for another file of the image at `path`.

    Where `layout.images` is a folder and no pattern, ``{stem}`` is the image's path in it, without the ending.
    """
    found: dict[str, None] = {}
    for base in source.bases:
        if not path.startswith(base):
            continue
        for pattern in places(source, "images"):
            match = _matched(pattern.removeprefix("./"), path.removeprefix(base))
            if match is not None:
                found |= dict.fromkeys(base + fill(place, _fields(source, match)) for place in places(source, key))
    return list(found)


def _matched(pattern: str, path: str) -> Match | None:
    """How an image's path fits a pattern, or lies in a folder; None where it doesn't."""
    whole = re.fullmatch("".join(map(_regex, _split_wildcards(pattern))), path)
    if whole is not None and (groups := whole.groups()):
        return Match(path, groups, path[whole.start(1) : whole.end(len(groups))])
    folder = "" if pattern == "." else f"{pattern.rstrip('/')}/"
    if whole is not None:
        return Match(path, (), PurePosixPath(path).stem)
    return Match(path, (), os.path.splitext(path.removeprefix(folder))[0]) if path.startswith(folder) else None


def _spelling(path: str) -> str:
    """A path as two spellings of it are compared: whatever its letters' Unicode form, and the case of its ending."""
    stem, ending = os.path.splitext(path)
    return unicodedata.normalize("NFC", stem) + ending.lower()


def _by_other_spelling(root: Path, paths: Iterable[str], patterns: Iterable[str]) -> dict[str, str | None]:
    """Files by `_spelling`: `paths`, and those of patterns with the ending in another case; None where it is two."""
    there = set(paths)
    for pattern in patterns:
        stem, ending = os.path.splitext(pattern)
        for other in {ending.upper(), ending.lower()} - {ending, ""}:
            there.update(match.path for match in find(root, stem + other))
    found: dict[str, str | None] = {}
    for path in there:
        key = _spelling(path)
        found[key] = None if key in found else path
    return found


def _fields(source: Source, match: Match) -> dict[str, str | int]:
    fields: dict[str, str | int] = {str(place): group for place, group in enumerate(match.groups, 1)}
    fields |= {"split": source.word, "stem": match.stem}
    if digits := re.search(r"[0-9]+$", match.stem):
        fields["number"] = int(digits[0]) + source.layout.get("number_offset", {}).get(source.split, 0)
    return fields
