"""The shipped descriptions, copied to where a user can edit them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labelmerge.catalog import Recipe, load_descriptions
from labelmerge.descriptions import read_descriptions, write_descriptions
from labelmerge.errors import OutputError, UsageError
from labelmerge.files import whole_or_nothing


def write_curated(datasets: Sequence[Recipe], out: Path, *, force: bool = False) -> list[Path]:
    """Copy the descriptions of `datasets` to ``<out>/<dataset>.csv``; the paths come back in the order of `datasets`.

    Nothing is written unless everything can be: a file in `out` that says something else is somebody's work.

    Args:
        datasets: whose descriptions.
        out: the user's folder, made if need be; `labelmerge embed --descriptions` takes it.
        force: replace files that say something else.

    Raises:
        OutputError: a file in `out` says something else and `force` is not set, or can't be written.
        UsageError: `out` is where a recipe's own descriptions are, or two recipes have the same name.
        DescriptionsError: a descriptions file is malformed.
    """
    targets = target_files(datasets, out)
    rows = {path: load_descriptions(recipe) for path, recipe in targets.items()}
    if not force:
        edited = [path for path in targets if path.exists() and read_descriptions(path) != rows[path]]
        if edited:
            more = f" (and {len(edited) - 1} more files)" if len(edited) > 1 else ""
            raise OutputError(
                f"holds other descriptions than the shipped ones{more}",
                where=edited[0],
                fix="Choose another --out, or give --force to replace them",
            )
    with whole_or_nothing(targets):
        for path in targets:
            write_descriptions(path, rows[path])
    return list(targets)


def target_files(datasets: Sequence[Recipe], out: Path) -> dict[Path, Recipe]:
    """Where in `out` each dataset's descriptions go; a dataset named twice counts once.

    Raises:
        UsageError: that would be a recipe's own descriptions file, or two recipes have the same name.
    """
    targets: dict[Path, Recipe] = {}
    for recipe in datasets:
        path = out / f"{recipe.name}.csv"
        if targets.setdefault(path, recipe).path.resolve() != recipe.path.resolve():
            raise UsageError(f"two recipes are named {recipe.name!r}", where=recipe.path, fix="Give one another name")
        if path.resolve() == recipe.descriptions.resolve():
            raise UsageError("is the dataset's own descriptions file", where=path, fix="Choose another --out")
    return targets
