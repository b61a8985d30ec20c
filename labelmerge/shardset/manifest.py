"""The manifest of a split's shards, which says that the folder is finished and what is in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelmerge.errors import LabelmergeError, ShardError, UsageError, did_you_mean
from labelmerge.labels import LabelSpace
from labelmerge.parsing import parse_json, parse_toml
from labelmerge.shardset.depth_maps import depth_problem

FORMAT = "labelmerge-shards/2"
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
IN_SHARDS = (f"*/*/{MANIFEST}", f"*/*/{UNFINISHED}")
"""What a folder of shards holds, for `labelmerge.files.say_others`."""

CROWD_BOXES = "crowd_boxes"
"""The note that counts, in a box dataset, boxes of several things not told apart, which no box loss takes."""

OWN_LISTS = "images_with_their_own_annotated_classes"
"""The note that counts samples whose json says which classes the image was annotated for."""

Types = Mapping[str, type | tuple[type, ...]]

_TYPES: Types = {
    "labelmerge": str,
    "dataset": str,
    "split": str,
    "annotation_type": str,
    "variant": (str, type(None)),
    "recipe": dict,
    "options": dict,
    "box_teacher": (dict, type(None)),
    "candidates": str,
    "label_space": dict,
    "members": list,
    "shards": list,
    "counts": dict,
    "skipped": list,
    "notes": dict,
    "class_pixels": dict,
    "class_boxes": dict,
    "ignored_pixels": int,
    "sizes": dict,
    "reproduce": str,
}
_COUNTS: Types = {"found": int, "written": int, "skipped": int}
_RECIPE: Types = {"name": str, "sha256": str, "text": str}
_SHARD: Types = {"name": str, "samples": int, "bytes": int, "sha256": str}
_SKIP: Types = {"path": str, "reason": str}
_SIZES: Types = {"pixels": int, "min": list, "max": list}
# Readers of annotations that know no stuff.
_ONLY_OBJECTS = ("coco_instances", "video_instances")
# What these become: names of files.
_NAME = re.compile(r"[a-z0-9_]+")
_MEMBER_NAME = re.compile(r"[a-z0-9_.]{1,40}")
_SHARD_NAME = re.compile(r"[a-z0-9_]+-[a-z0-9_]+-[0-9]+\.tar")


def read_manifest(folder: Path) -> tuple[dict[str, Any], LabelSpace]:
    """A split's manifest, with every field of the right type, and its label space.

    Raises:
        ShardError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ShardError(
            "no manifest: the shards are not finished",
            where=folder,
            fix="Run the command that writes it once more; after `shard --part`, `labelmerge verify --finish`",
        )
    try:
        manifest = parse_json(path.read_bytes())
    except OSError as error:
        raise ShardError(f"can't be read ({error.strerror})", where=path) from error
    except ValueError as error:
        raise ShardError(f"is not a manifest ({error})", where=path) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        have = repr(manifest.get("format")) if isinstance(manifest, dict) else "none"
        raise ShardError(f"its format is {have}, not {FORMAT!r}", where=path)
    if problem := manifest_problem(manifest):
        raise ShardError(problem, where=path)
    try:
        space = LabelSpace.from_json(manifest["label_space"])
        if not all(isinstance(name, str) for name in space.names) or not all(map(_is_count, space.indices)):
            raise TypeError("names must be strings, indices numbers")
        return manifest, space
    except LabelmergeError as error:
        raise ShardError(error.what, where=path) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"label_space is malformed ({error})", where=path) from error


def manifest_problem(manifest: dict[str, Any]) -> str | None:
    """What is missing from a manifest or makes no sense in it; None where nothing is wrong."""
    if wrong := wrong_types(manifest, _TYPES):
        return wrong
    if not all(isinstance(name, str) and _MEMBER_NAME.fullmatch(name) for name in manifest["members"]):
        return "'members' is not a list of names"
    if "json" not in manifest["members"] or not {"jpg", "png"} & set(manifest["members"]):
        return "'members' lists no json or no image"
    if wrong := depth_problem(manifest):
        return wrong
    for name in ("dataset", "split"):
        if not _NAME.fullmatch(manifest[name]):
            return f"{name!r} must be lower case letters, digits and '_'"
    for name in ("class_pixels", "class_boxes", "notes"):
        if not all(_is_count(count) and (name == "notes" or key.isdecimal()) for key, count in manifest[name].items()):
            return f"{name!r} is not a table of counts"
    records = [("counts", manifest["counts"], _COUNTS), ("recipe", manifest["recipe"], _RECIPE)]
    records += [("sizes", manifest["sizes"], _SIZES)]
    records += [("shards", entry, _SHARD) for entry in manifest["shards"]]
    records += [("skipped", entry, _SKIP) for entry in manifest["skipped"]]
    for name, record, types in records:
        if wrong := wrong_types(record, types):
            return f"{name}: {wrong}"
    if not all(len(pair) == 2 and all(map(_is_count, pair)) for pair in map(manifest["sizes"].get, ("min", "max"))):
        return "sizes: 'min' and 'max' must be [height, width]"
    for entry in manifest["shards"]:
        if not _SHARD_NAME.fullmatch(entry["name"]):
            return f"shards: {entry['name']!r} is not the name of a shard"
        if not _is_count(entry["samples"]) or not _is_count(entry["bytes"]):
            return f"shards: {entry['name']} has a negative size"
    if len({entry["name"] for entry in manifest["shards"]}) < len(manifest["shards"]):
        return "shards: a name occurs twice"
    if hashlib.sha256(manifest["recipe"]["text"].encode()).hexdigest() != manifest["recipe"]["sha256"]:
        return "recipe: the text does not match its sha256"
    try:
        recipe = parse_toml(manifest["recipe"]["text"])
    except ValueError as error:
        return f"recipe: the text can't be read as TOML ({error})"
    for name in ("title", "homepage", "licence", "role"):
        if not isinstance(recipe.get(name, ""), str):
            return f"recipe: {name!r} must be a string"
    for where, record, name in (
        ("recipe: ", recipe, "annotated"), ("recipe: ", recipe, "things"),
        ("", manifest, "annotated"), ("", manifest, "things"),
    ):  # fmt: skip
        listed = record.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            return f"{where}{name!r} must be a list of names"
    return None


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def recipe_keys(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the recipe that the shards were made by (docs/recipes.md)."""
    return parse_toml(manifest["recipe"]["text"])


def role(manifest: Mapping[str, Any]) -> str:
    """``train``, or ``eval`` for a dataset that is never trained on, by its recipe."""
    return str(recipe_keys(manifest).get("role", "train"))


def annotated(manifest: Mapping[str, Any]) -> frozenset[str] | None:
    """The names of the classes that the split was annotated for; None: all of its label space.

    The recipe says it in the dataset's own classes, the manifest itself where a taxonomy's concepts took their places.
    """
    listed = manifest.get("annotated", recipe_keys(manifest).get("annotated"))
    return None if listed is None else frozenset(listed)


def things(manifest: Mapping[str, Any], space: LabelSpace) -> list[str] | None:
    """The names of the classes that are things, as far as recipe or manifest tell; None where they don't.

    Args:
        manifest: of a split.
        space: the classes that the recipe speaks of: the manifest's, or the dataset's own.

    Raises:
        KeyError, TypeError, AttributeError: the recipe is malformed.
        UsageError: it names a class that is not there.
    """
    if "things" in manifest:
        return list(manifest["things"])
    recipe = recipe_keys(manifest)
    variants = [one for one in recipe.get("variants", []) if one["name"] == manifest["variant"]]
    recipe |= variants[0] if variants else {}
    if recipe["reader"] in _ONLY_OBJECTS:
        return list(space.names)
    listed = recipe.get("things", recipe.get("options", {}).get("things"))
    if listed is None:
        return None
    if unknown := [name for name in listed if name not in space.names and name not in space]:
        raise UsageError(f"{space.name} has no class {unknown[0]!r}", fix=did_you_mean(str(unknown[0]), space.names))
    return [space.name_of(name) if name in space else name for name in listed]


def told_things(folder: Path, manifest: Mapping[str, Any], space: LabelSpace) -> list[str] | None:
    """As `things`, of the split in `folder`. Raises ShardError, too, where its recipe is malformed."""
    try:
        return things(manifest, space)
    except (KeyError, TypeError, AttributeError) as error:
        what = "its recipe is malformed where it says which classes are things"
        raise ShardError(what, where=folder / MANIFEST) from error


def wrong_types(record: object, types: Types) -> str | None:
    """Which key a JSON object lacks, or has a value of another type under; None where nothing is wrong."""
    if not isinstance(record, dict):
        return "not an object"
    for key, wanted in types.items():
        if key not in record:
            return f"{key!r} is missing"
        if not isinstance(record[key], wanted) or (wanted is int and isinstance(record[key], bool)):
            return f"{key!r} is a {type(record[key]).__name__}"
    return None
