"""`labelmerge plot`: pictures of what a stage made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from . import options

F = TypeVar("F", bound=Callable[..., Any])

_PICTURE = "The picture: .png, .svg or .pdf."


def _datasets(function: F) -> F:
    """`--dataset NAME`, repeatable."""
    what = "Only this dataset; may be repeated."
    return click.option("--dataset", "datasets", multiple=True, metavar="NAME", help=what)(function)


@click.group("plot", cls=options.Group)
def command() -> None:
    """Draw figures: similarity matrices, maps, nearest labels.

    \b
    Example:
      labelmerge plot similarity --bank bank --out similarity.png
      labelmerge plot map --bank bank --out map.pdf
      labelmerge plot neighbours --bank bank --label mouse --label cityscapes:rider
    """


@command.command("similarity", short_help="Draw the matrix of all cosines.")
@options.bank()
@click.option(
    "--words", type=options.input_folder, metavar="BANK", help="A bank of bare words, drawn beside the other."
)
@_datasets
@options.out_file(_PICTURE)
def similarity(bank: Path, words: Path | None, datasets: tuple[str, ...], out: Path) -> None:
    """Draw how close the labels of all datasets are to each other, with similar ones side by side.

    Of more than 120 labels, blocks of similar ones are named instead.

    Above each matrix stands its block-diagonality: 0 where the labels of a block are no closer to each other than to
    the rest, 1 where they are identical. docs/merge.md has the formula.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge embed cityscapes camvid --encoder offline --words --out words
      labelmerge plot similarity --bank bank --words words --out similarity.png
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.plot.similarity import plot_similarity

    drawn = plot_similarity(Bank.load(bank), out, words=Bank.load(words) if words else None, datasets=datasets or None)
    for title, blocky in drawn.blocks:
        options.echo(f"{title}: block-diagonality {blocky:.3f}")
    if drawn.left_out:
        options.echo(
            f"{options.counted(drawn.left_out, 'label')} left out because the bank of words lacks them: {words}"
        )
    blocks = f" with {options.counted(drawn.named, 'named block')}" if drawn.named else ""
    options.echo(f"Drew {options.counted(drawn.labels, 'label')}{blocks}: {out}")


@command.command("map", short_help="Draw all labels on a flat map, by meaning.")
@options.bank()
@_datasets
@options.seed
@options.out_file(_PICTURE)
def flat_map(bank: Path, datasets: tuple[str, ...], seed: int, out: Path) -> None:
    """Draw all labels on a flat map, on which labels that mean alike lie near each other.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge plot map --bank bank --out map.png
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.plot.map import plot_map

    drawn = plot_map(Bank.load(bank), out, datasets=datasets or None, seed=seed)
    labels, texts = options.counted(drawn.labels, "label"), options.counted(drawn.texts, "distinct text")
    groups = f", in {options.counted(drawn.groups, 'group')}" if drawn.groups else ""
    options.echo(f"Drew {labels} of {texts}, {drawn.named} of them by name{groups}: {out}")


@command.command("neighbours", short_help="List the labels nearest to given ones.")
@options.bank()
@click.option(
    "--label",
    "labels",
    multiple=True,
    required=True,
    metavar="LABEL",
    help="A name, DATASET:NAME or DATASET:INDEX; may be repeated.",
)
@_datasets
@click.option(
    "--count",
    type=options.WholeNumber(min=1),
    metavar="N",
    default=8,
    show_default=True,
    help="How many neighbours of each.",
)
@click.option("--out", type=options.new_file, metavar="FILE", help=f"{_PICTURE} Without it, only text is printed.")
@options.as_json
def neighbours(
    bank: Path, labels: tuple[str, ...], datasets: tuple[str, ...], count: int, out: Path | None, as_json: bool
) -> None:
    """List the labels of other datasets that are nearest to the given ones.

    A name stands for every label called that; where they mean different things, each meaning is listed on its own.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge plot neighbours --bank bank --label sidewalk --label camvid:Bicyclist --out neighbours.png
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.merge.neighbours import find_neighbours, neighbours_text
    from labelmerge.plot.neighbours import plot_neighbours

    loaded = Bank.load(bank)
    if datasets:
        loaded = loaded.for_datasets(datasets)
    found = [one for label in labels for one in find_neighbours(loaded, label, count)]
    if out is not None:
        plot_neighbours(loaded, found, out)
    text = neighbours_text(found)
    options.say([one.to_json() for one in found], as_json, text if out is None else f"{text}\nDrew it: {out}")
