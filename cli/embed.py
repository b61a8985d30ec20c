"""`labelmerge embed`: labels and descriptions → a version of an embedding bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelmerge.text import some

from . import options

if TYPE_CHECKING:
    from labelmerge.embed.changes import ChangedText

_MAX_SHOWN = 5
_MAX_CHANGES_SHOWN = 10


@click.command("embed")
@click.argument("datasets", shell_complete=options.complete.datasets, nargs=-1, required=True, metavar="DATASET...")
@options.out_folder("The bank: a folder, created if needed.")
@click.option(
    "--descriptions",
    type=options.folder_of_files,
    metavar="DIR",
    help="Folder of <dataset>.csv files whose rows replace the shipped descriptions.",
)
@click.option(
    "--encoder",
    shell_complete=options.complete.encoder,
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
    help="Labels of several sentences: store the mean of their vectors, or keep each of them, too; default: as in the "
    "bank, or average.",
)
@click.option(
    "--shipped",
    is_flag=True,
    help="Let the shipped texts replace your own that are in the bank (from --descriptions or a recipe).",
)
@click.option("--only", is_flag=True, help="Leave out datasets that are in the bank but not named here.")
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
    shipped: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Turn labels and descriptions into a versioned embedding bank.

    A DATASET is a known one (`labelmerge ls`), a recipe of your own (a path ending in .toml), a list of class names (a
    path ending in .csv or .txt), a mixture such as mseg7, or `all`. Datasets that are already in the bank stay there.
    Only new texts are encoded, so running the same command again changes nothing. Texts that differ from the bank's
    replace them, and are listed.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge embed cityscapes --encoder offline --out bank2 --prompt "{name}" --prompt "{name}: {sentence}"
    """
    from labelmerge.embed.datasets import find_datasets
    from labelmerge.embed.embed import embed_labels

    report = embed_labels(
        find_datasets(datasets),
        out,
        encoder=encoder,
        descriptions=descriptions,
        words=words,
        prompts=prompts,
        several=several,
        only=only,
        shipped=shipped,
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
    lines += _changes(report.changed)
    lines.append(f"{options.made(report.new, report.back)} {report.version} in {out}")
    options.say({**asdict(report), "out": str(out)}, as_json, "\n".join(lines))


def _changes(changed: Sequence[ChangedText]) -> list[str]:
    """Whose text is another than before, and which labels that text is shared with."""
    lines = []
    for label in changed[:_MAX_CHANGES_SHOWN]:
        line = f"Another text: {label.key} {label.name}"
        if label.left:
            line += f"; no longer that of {some(label.left, 3)}"
        if label.joined:
            line += f"; now that of {some(label.joined, 3)}"
        lines.append(line)
    if (rest := len(changed) - _MAX_CHANGES_SHOWN) > 0:
        lines.append(f"… and {options.counted(rest, 'other label')} with another text: `labelmerge bank diff`")
    return lines
