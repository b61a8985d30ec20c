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
@click.option("--name", metavar="NAME", help="Name of the dataset; default: the folder's name.")
@click.option("--reader", metavar="READER", help="The reader to use, if a folder can be read in several ways.")
@click.option(
    "--annotations", metavar="TEXT", help="Part of the path of the annotations to use, if there are several of a kind."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing recipe and CSV.")
@options.as_json
def command(
    folder: Path,
    out: Path,
    name: str | None,
    reader: str | None,
    annotations: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Find out what a folder holds, and write its recipe and the CSV of its classes.

    \b
    Example:
      labelmerge recipe ~/data/my_streets --out .
    """
    from labelmerge.recipe.recipe import make, summary

    found = make(folder, out, name, reader, overwrite, annotations)
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
