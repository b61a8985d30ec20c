"""Which of a recipe's layouts a folder has."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from labelmerge import catalog
from labelmerge.catalog import NO_READER, SPLITS, UNLABELED, Recipe, Variant
from labelmerge.errors import LayoutError, RecipeError, UsageError, did_you_mean, near_path
from labelmerge.sharding import depths
from labelmerge.sharding.readers import READERS
from labelmerge.sharding.source.fetched import local_root
from labelmerge.sharding.source.layout import entries, exists, fill, pattern_problem, see, strings
from labelmerge.sharding.source.source import ANNOTATED, UPRIGHT, Source
from labelmerge.text import some
from labelmerge.urls import url_of

_log = logging.getLogger(__name__)

_MAX_ENTRIES_SHOWN = 8
_MOST_ABOVE = 3  # as deep as the folders of splits lie


class NoLabels(UsageError):
    """The dataset has this split, but its labels are not published."""


def open_source(recipe: Recipe, root: Path, split: str) -> Source:
    """Find out how a dataset lies under `root`, which may be at a URL; then the source's root is a folder here.

    Raises:
        UsageError: the dataset has no such split.
        RecipeError: the recipe names no known reader, or says what its reader doesn't understand.
        LayoutError: `root` is not a folder, or nothing in it looks as the recipe says.
    """
    if recipe.reader == NO_READER:
        raise LayoutError(
            f"{recipe.name} can be embedded, but labelmerge can't read its files yet",
            where=recipe.path.name,
            fix="Convert it to index PNGs and write a recipe for those (docs/recipes.md)",
        )
    for name in (recipe.reader, *(variant.reader for variant in recipe.variants if variant.reader is not None)):
        if name not in READERS:
            raise RecipeError(f"unknown reader {name!r}", where=recipe.path, fix=did_you_mean(name, READERS))
    if problems := _key_problems(recipe):
        raise RecipeError("; ".join(problems), where=recipe.path, fix="docs/recipes.md lists every key")
    if split not in (*SPLITS, UNLABELED):
        raise UsageError(f"unknown split {split!r}", fix=did_you_mean(split, (*SPLITS, UNLABELED)))
    if split == UNLABELED:
        recipe = _images_alone(recipe)
    fetched = url_of(root) is not None
    root = local_root(recipe, root, split)
    if not os.path.isdir(root):
        fix = near_path(root) or f"--root is where {recipe.name} was unpacked"
        raise LayoutError("no such folder", where=root, fix=fix)

    for bases in ([""], [f"{folder.strip('/')}/" for folder in recipe.folders if os.path.isdir(root / folder)]):
        found = [(base, _variant_at(recipe, root / base, split)) for base in bases]
        fitting = [(base, variant) for base, variant in found if variant is not None]
        if fitting:
            variant = fitting[0][1]
            here = tuple(base for base, other in fitting if other.name == variant.name)
            for base in (base for base, _ in fitting if base not in here):
                _log.warning("%s is laid out in another way than %s: not read; shard it by itself", base, here[0])
            return _source(recipe, root, split, here, variant)
    above = None if fetched else _above(recipe, root, split)
    fix = f"It lies in a folder above: --root {above}" if above is not None else see(recipe, root)
    raise LayoutError(_expected(recipe, root, split), where=root, fix=fix)


def _above(recipe: Recipe, root: Path, split: str) -> Path | None:
    """The folder above `root` that the recipe's images lie in, where `root` is one within the dataset."""
    for above in Path(os.path.abspath(root)).parents[:_MOST_ABOVE]:
        for variant in _variants(recipe):
            for pattern in strings(variant.layout or {}, "images"):
                wanted = fill(pattern, {"split": _word(recipe, variant, split)})
                first, slash, _ = wanted.partition("/")
                # Not where the search would go through all that lies there.
                if slash and not set(first) & set("*?[") and (above / first).is_dir() and exists(above, wanted):
                    return Path(os.path.relpath(above)) if not root.is_absolute() else above
    return None


def _images_alone(recipe: Recipe) -> Recipe:
    """The recipe of a dataset's images without labels; raises UsageError where it says of none where they lie."""
    if UNLABELED not in recipe.layout:
        raise UsageError(
            f"{recipe.name} has no {UNLABELED} split: its recipe doesn't say where images without labels lie",
            fix=f"Say it in a recipe of your own: layout.{UNLABELED}; or write one with the reader `images`",
        )
    return replace(
        recipe,
        annotation_type="image",
        reader="images",
        layout={"images": recipe.layout[UNLABELED]},
        ids={},
        options={key: value for key, value in recipe.options.items() if key == UPRIGHT},
        variants=(),
    )


_BASE = ""


def _variants(recipe: Recipe) -> Iterator[Variant]:
    """The recipe's variants with all tables filled in, and last the recipe itself as one without a name."""
    for variant in recipe.variants:
        yield replace(
            variant,
            reader=recipe.reader if variant.reader is None else variant.reader,
            layout=recipe.layout if variant.layout is None else variant.layout,
            ids=recipe.ids if variant.ids is None else variant.ids,
            options=recipe.options if variant.options is None else variant.options,
            splits=recipe.splits if variant.splits is None else variant.splits,
        )
    yield Variant(
        _BASE,
        (),
        reader=recipe.reader,
        layout=recipe.layout,
        ids=recipe.ids,
        splits=recipe.splits,
        options=recipe.options,
    )


def _variant_at(recipe: Recipe, folder: Path, split: str) -> Variant | None:
    for variant in _variants(recipe):
        patterns = variant.detect if variant.name != _BASE else strings(variant.layout or {}, "images")
        fields = {"split": _word(recipe, variant, split)}
        found = [exists(folder, fill(pattern, fields)) for pattern in patterns]
        # A layout that names no images needs nothing on disk: they come from a hub.
        if not (all(found) if variant.name != _BASE else any(found) or not patterns):
            continue
        if not any(exists(folder, fill(pattern, fields)) for pattern in variant.unless):
            return variant
    return None


def _word(recipe: Recipe, variant: Variant, split: str) -> str:
    words = variant.splits or {}
    word = words.get(split, split)
    if not word:
        labelled = ", ".join(name for name in SPLITS if words.get(name, name))
        raise NoLabels(f"{recipe.name} has no labels for its {split} split", fix=f"Labelled: {labelled}")
    return word


def _source(recipe: Recipe, root: Path, split: str, bases: tuple[str, ...], variant: Variant) -> Source:
    assert variant.reader is not None  # `_variants` has filled it in
    source = Source(
        recipe=recipe,
        root=root,
        split=split,
        word=_word(recipe, variant, split),
        variant=variant.name or None,
        reader=variant.reader,
        bases=bases,
        layout=variant.layout or {},
        ids=variant.ids or {},
        options=variant.options or {},
        space=catalog.load_label_space(recipe),
    )
    narrowed = READERS[variant.reader].label_space
    return source if narrowed is None else replace(source, space=narrowed(source))


def _expected(recipe: Recipe, root: Path, split: str) -> str:
    wanted = []
    for variant in _variants(recipe):
        fields = {"split": _word(recipe, variant, split)}
        wanted.append(" or ".join(fill(pattern, fields) for pattern in strings(variant.layout or {}, "images")))
    images = ", or ".join(dict.fromkeys(reversed(wanted)))
    folders = f", here or in {' or '.join(recipe.folders)}" if recipe.folders else ""
    names = sorted(entry.name + "/" * os.path.isdir(entry.path) for entry in entries(str(root)))
    have = f"found {some(names, _MAX_ENTRIES_SHOWN)}" if names else "the folder is empty"
    return f"not laid out as {recipe.name}: expected images at {images}{folders}; {have}"


def _key_problems(recipe: Recipe) -> list[str]:
    """What in the tables of a recipe its readers do not understand."""
    problems = []
    for variant in _variants(recipe):
        assert variant.reader is not None  # `_variants` has filled it in
        reader = READERS[variant.reader]
        keys, beside = reader.KEYS, (depths.LAYOUT,) if reader.image is None else ()
        if recipe.annotation_type not in keys.types:
            types = " or ".join(keys.types)
            problems.append(f"the reader {variant.reader!r} gives {types}, not {recipe.annotation_type}")
        known = {
            "layout": (*keys.layout, *keys.layout_optional, *beside, UNLABELED, ANNOTATED),
            "ids": keys.ids,
            "options": (*keys.options, UPRIGHT, *depths.OPTIONS),
        }
        at = f" of variant {variant.name!r}" if variant.name else ""
        for table, names in known.items():
            content: Mapping[str, object] = getattr(variant, table)
            problems += [
                f"unknown key {table}.{key}{at} (the reader {variant.reader!r} knows {', '.join(names) or 'none'})"
                for key in content
                if key not in names
            ]
        layout = variant.layout or {}
        problems += [f"layout.{key}{at} is missing" for key in keys.layout if key not in layout]
        problems += [
            f"layout.{key}{at} must be a pattern or a list of patterns"
            for key, value in layout.items()
            if key not in _LAYOUT_TABLES and not _is_strings(value)
        ]
        problems += [
            f"layout.{key}{at}: {problem}"
            for key in layout
            if key not in _LAYOUT_TABLES and _is_strings(layout[key])
            for pattern in strings(layout, key)
            if (problem := pattern_problem(pattern))
        ]
        problems += [
            f"{key}{at}: {problem}"
            for key, patterns in (("detect", variant.detect), ("unless", variant.unless))
            for pattern in patterns
            if (problem := pattern_problem(pattern))
        ]
        problems += [
            f"{table}.{key}{at} must be {what}"
            for (table, key), (kind, what) in _TYPES.items()
            if not isinstance(getattr(variant, table).get(key, kind()), kind)
        ]
        problems += [
            f"layout.{key}{at} must be a table of {what}, by split"
            for key, (fits, what) in _LAYOUT_TABLES.items()
            if key in layout and not _is_by_split(layout[key], fits)
        ]
    return list(dict.fromkeys(problems))


_TYPES: dict[tuple[str, str], tuple[type, str]] = {
    ("ids", "ignore"): (list, "a list"),
    ("ids", "skip"): (list, "a list"),
    ("ids", "map"): (dict, "a table"),
    ("options", "resize_masks"): (bool, "true or false"),
    ("options", UPRIGHT): (bool, "true or false"),
}


def _is_strings(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(entry, str) and entry for entry in values)


def _is_number(value: object) -> bool:
    return type(value) is int


def _is_by_split(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(key in SPLITS and fits(entry) for key, entry in value.items())


_LAYOUT_TABLES = {"number_offset": (_is_number, "whole numbers"), "stems": (_is_strings, "patterns")}
