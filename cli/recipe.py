"""labelmerge recipe: a folder becomes a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.errors import printable

from . import options


@click.command()
@click.argument("folder", type=options.own_folder)
@click.option(
    "--out", type=options.folder, default=".", metavar="DIR", help="Where the TOML and the CSV go.  [default: here]"
)
@click.option("--name", metavar="NAME", help="Of the dataset; by default after the folder.")
@click.option("--reader", metavar="READER", help="Which one, where a folder may be read in several ways.")
@click.option("--overwrite", is_flag=True, help="Replace a recipe and a CSV that are there.")
@options.as_json
def command(folder: Path, out: Path, name: str | None, reader: str | None, overwrite: bool, as_json: bool) -> None:
    """Look at a folder, say what it is, and write its recipe and the CSV of its classes.

    \b
    Example:
      labelmerge recipe ~/data/my_streets --out .
    """
    from labelmerge.recipe.recipe import make, summary

    found = make(folder, out, name, reader, overwrite)
    result: dict[str, Any] = {
        "what": found.proposal.what,
        "reader": found.proposal.reader,
        "annotation_type": found.proposal.kind,
        "classes": found.proposal.classes,
        "splits": {split: vars(tried) for split, tried in found.splits.items()},
        "remarks": found.proposal.remarks,
        "recipe": str(found.recipe),
        "descriptions": str(found.descriptions),
    }
    options.say(result, as_json, "\n".join(map(printable, summary(found, folder))))
