"""What a wrong name of a dataset may have meant: a shipped one, or a recipe or class list that lies there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from labelmerge.class_lists import SUFFIXES
from labelmerge.errors import UsageError, did_you_mean
from labelmerge.parsing import parse_toml


def no_such_file(path: Path) -> UsageError:
    """What to say of a recipe or class list that isn't there."""
    what = "recipe" if path.suffix == ".toml" else "class list"
    near = difflib.get_close_matches(path.name, _lying_in(path.parent), n=3, cutoff=0.5)
    lies = f"{' and '.join(near)} {'lies' if len(near) == 1 else 'lie'} there" if near else None
    return UsageError(f"no such {what}", where=path, fix=lies)


def unknown_dataset(name: str, shipped: Sequence[str]) -> UsageError:
    """What to say of a name that no shipped dataset has: the near ones, and the file that lies here."""
    files = _lying_in(Path())
    here = [file for file in files if Path(file).stem == name] or [file for file in files if _name_in(file) == name]
    near = here or difflib.get_close_matches(name, files, n=2, cutoff=0.7)
    lies = f"Did you mean {' or '.join(near)}, which {'lies' if len(near) == 1 else 'lie'} here? " if near else ""
    known = "" if here else f"{did_you_mean(name, shipped)} "
    if near and known.startswith("Known"):  # a file is near and no shipped name: the whole list would hide it
        known = ""
    how = (
        f"; a recipe of your own is given by its path, ending in .toml, and a list of classes by one in "
        f"{' or '.join(SUFFIXES)}"
    )
    more = how if known.startswith("Known") else ""
    return UsageError(f"unknown dataset {name!r}", fix=f"{lies}{known}`labelmerge ls` shows all{more}")


def _lying_in(folder: Path) -> list[str]:
    """The names of the recipes and class lists in a folder, sorted."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in (".toml", *SUFFIXES))
    except OSError:
        return []


def _name_in(file: str) -> object:
    """The `name` of a recipe in this folder, which may be another than the file's; None where it has none."""
    if not file.endswith(".toml"):
        return None
    try:
        return parse_toml(Path(file).read_text(encoding="utf-8")).get("name")
    except (OSError, ValueError):
        return None
