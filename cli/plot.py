"""`labelmerge plot`: pictures of what a stage made."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.group("plot")
def command() -> None:
    """Draw similarity matrices and other pictures.

    \b
    Example:
      labelmerge plot similarity --bank bank --out similarity.png
    """


@command.command("similarity")
@options.bank()
@click.option("--words", type=options.folder, metavar="BANK", help="A bank of bare words, drawn beside the other.")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only this dataset; may be repeated.")
@options.out_file("The picture: .png, .svg or .pdf.")
def similarity(bank: Path, words: Path | None, datasets: tuple[str, ...], out: Path) -> None:
    """Draw how near the labels of all datasets lie to each other, similar ones side by side.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge embed cityscapes camvid --encoder offline --words --out words
      labelmerge plot similarity --bank bank --words words --out similarity.png
    """
    from labelmerge.embed.bank import Bank
    from labelmerge.plot.similarity import plot_similarity

    drawn = plot_similarity(Bank.load(bank), out, words=Bank.load(words) if words else None, datasets=datasets or None)
    click.echo(f"Drew {drawn} labels: {out}")
