"""`labelmerge embed`: labels and descriptions → a version of an embedding bank."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from . import options

_MAX_SHOWN = 5


@click.command("embed")
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@options.out_folder("The bank: a folder, made where there is none.")
@click.option(
    "--descriptions",
    type=options.existing_folder,
    metavar="DIR",
    help="<dataset>.csv in here replace the shipped descriptions, row by row.",
)
@click.option(
    "--encoder",
    metavar="SPEC",
    help="open_clip:MODEL/TAG_OR_PATH, sentence-transformers:NAME_OR_PATH, or offline; default: the bank's own, or "
    "open_clip:ViT-B-32/laion2b_s34b_b79k for a new bank.",
)
@click.option("--words", is_flag=True, help="Embed the bare words: the baseline that sentences are compared with.")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEMPLATE",
    help="How a text is made, of {name}, {description} and {sentence} (each sentence of the description by itself); "
    'default: the bank\'s own, or "{name}: An image of {name}. {description}". Several make several sentences.',
)
@click.option(
    "--several",
    type=click.Choice(["average", "keep"]),
    help="A label of several sentences has the mean of their vectors, or that and each of them; default: the bank's "
    "own, or average.",
)
@click.option("--only", is_flag=True, help="Leave out the datasets that the bank holds and that are not named.")
@options.device
@options.as_json
def command(
    datasets: tuple[str, ...],
    out: Path,
    descriptions: Path | None,
    encoder: str | None,
    words: bool,
    prompts: tuple[str, ...],
    several: str | None,
    only: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Turn labels and descriptions into a versioned embedding bank.

    A DATASET is a known one (`labelmerge ls`), a recipe of your own (a path ending in .toml), a mixture such as
    mseg7, or `all`. Datasets that the bank holds already stay in it. Only texts that are new are encoded: running the
    same again changes nothing.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge embed cityscapes --encoder offline --out bank2 --prompt "{name}" --prompt "{name}: {sentence}"
    """
    from labelmerge.embed.embed import embed_labels, find_datasets

    report = embed_labels(
        find_datasets(datasets),
        out,
        encoder=encoder,
        descriptions=descriptions,
        words=words,
        prompts=prompts,
        several=several,
        only=only,
        device=device,
        track=options.track,
    )
    lines = [
        f"{options.counted(report.labels, 'label')} of {options.counted(len(report.datasets), 'dataset')}, "
        f"{options.counted(report.texts, 'distinct text')}: {report.encoded:,} encoded, {report.reused:,} reused "
        f"({report.encoder})"
    ]
    if report.sentences > report.texts:
        how = "their means" if report.several == "average" else "their means and each of them"
        lines.append(f"{options.counted(report.sentences, 'sentence')} in all; labels have {how}")
    if report.several == "keep":
        lines.append("Training and evaluation use the means; the others are there for programs of your own")
    if bare := report.missing_descriptions:
        said = f"{options.counted(bare, 'label')} {'has' if bare == 1 else 'have'} no description, only the bare prompt"
        lines.append(f"{said}; `labelmerge describe DATASET --lint` lists them")
    if long := report.truncated:
        shown = ", ".join(report.truncated_labels[:_MAX_SHOWN]) + (", …" if long > _MAX_SHOWN else "")
        lines.append(
            f"{options.counted(long, 'label')} {'has' if long == 1 else 'have'} a text longer than the encoder reads, "
            f"whose end doesn't count: {shown}"
        )
    lines.append(f"{options.made(report.new, report.back)} {report.version} in {out}")
    options.say({**asdict(report), "out": str(out)}, as_json, "\n".join(lines))
