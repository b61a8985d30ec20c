"""`labelmerge merge`: an embedding bank → which labels mean the same, and which clash."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelmerge.catalog import load_recipe
from labelmerge.files import whole_or_nothing
from labelmerge.merge.choices import MERGES
from labelmerge.text import some

from . import options

if TYPE_CHECKING:
    from labelmerge.merge.edits import Carried
    from labelmerge.merge.folding import Folded
    from labelmerge.merge.report import MergeReport
    from labelmerge.merge.taxonomy import Taxonomy

_PAGE, _BANK = "merge.html", "bank"  # in --out, beside the tables

_log = logging.getLogger(__name__)


@click.command("merge", cls=options.SpreadCommand)
@click.argument("datasets", shell_complete=options.complete.datasets, nargs=-1, metavar="[DATASET…]")
@click.option(
    "--bank",
    type=options.input_folder,
    metavar="BANK",
    help="The embedding bank that `embed` wrote; default: one made in --out from the given DATASETs.",
)
@click.option(
    "--encoder",
    shell_complete=options.complete.encoder,
    metavar="SPEC",
    help="Without --bank: the text encoder, as in `embed`; default: that of the bank in --out, or offline.",
)
@options.out_folder("Where merge.html, taxonomy.csv, relations.csv, merge.csv and merge.json go.")
@click.option(
    "--shards",
    type=options.input_folder,
    multiple=True,
    metavar="DIR…",
    help="Folders that `shard` wrote: adds images, and the numbers of pixels and boxes of each label, to the report.",
)
@click.option(
    "--crops",
    type=options.WholeNumber(min=0),
    metavar="N",
    help="With --shards: how many image crops the page shows for each label; default: 3.",
)
@click.option(
    "--merge",
    "how",
    type=click.Choice(MERGES),
    default="concepts",
    show_default=True,
    help="What is one class: labels of one set of concepts, of one text, of similar texts, of one name, none, or what "
    "--taxonomy says.",
)
@click.option(
    "--taxonomy",
    type=options.existing_file,
    metavar="FILE",
    help="A taxonomy that you have edited, instead of the one that would be found.",
)
@click.option(
    "--edits",
    type=options.existing_file,
    metavar="FILE",
    help="A taxonomy that you have edited, perhaps before the bank had all of its datasets: keep the rows that you "
    "changed, and find all others.",
)
@click.option(
    "--into",
    metavar="DATASET",
    shell_complete=options.complete.datasets,
    help="Make one concept of all that each label of this dataset stands for: fewer and wider classes, so that more "
    "labels of the other datasets have just one.",
)
@click.option(
    "--checkpoint",
    type=options.input_folder,
    metavar="RUN",
    help="A run whose predictions on --shards are evidence: what it calls one dataset's pixels in another's words "
    "decides how labels that are attached by their words are related.",
)
@click.option(
    "--images",
    type=options.WholeNumber(min=1),
    metavar="N",
    help="With --checkpoint: how many images of each dataset to look at; default: 50.",
)
@options.device
@click.option(
    "--threshold",
    type=options.Number(-1, 1),
    metavar="T",
    help="Cosine above which two texts count as similar; default: one that hardly any two labels of the same dataset "
    "reach.",
)
@options.seed
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    datasets: tuple[str, ...],
    bank: Path | None,
    encoder: str | None,
    out: Path,
    shards: tuple[Path, ...],
    crops: int | None,
    how: str,
    taxonomy: Path | None,
    edits: Path | None,
    into: str | None,
    checkpoint: Path | None,
    images: int | None,
    device: str | None,
    threshold: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Find out which labels mean the same, which contain others, and which clash.

    A DATASET is a known one (`labelmerge ls`), the path of a recipe, or a list of class names: a .txt file with one
    name a line, or a .csv file with a column `name` and maybe one `description`. With --bank, they
    choose among the bank's datasets; default: all.

    merge.html is the report to read. taxonomy.csv says which concepts each label may stand for: edit it, and
    `labelmerge train --taxonomy taxonomy.csv` trains with your decisions. relations.csv lists every pair of related
    labels, with the evidence.

    \b
    Example:
      labelmerge merge cityscapes camvid --out merge
      labelmerge merge my.csv other.txt cityscapes --out merge
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge merge --bank bank --out merge
      labelmerge merge --bank bank --shards shards-out --out merge
      labelmerge merge --bank bank --shards shards-out --checkpoint run --out merge
      labelmerge merge --bank bank --edits merge/taxonomy.csv --out merge2
      labelmerge merge --bank bank --into camvid --out in-camvids-classes
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.bank.concepts import concept_encoder
    from labelmerge.merge.counts import read_counts
    from labelmerge.merge.edits import carry_edits
    from labelmerge.merge.folding import fold
    from labelmerge.merge.merge import JSON, RELATIONS, TABLE, TAXONOMY, write_merge
    from labelmerge.merge.merges import by_concepts, by_similarity, taxonomy_of
    from labelmerge.merge.report import merge_report
    from labelmerge.plot.crops import CROPS, label_crops
    from labelmerge.plot.merge_page.page import write_merge_page

    _refuse(how, taxonomy, edits, checkpoint, shards, crops, images)
    for name in (name for name, count in Counter(datasets).items() if count > 1):
        _log.warning("%s is named more than once, and counts once: nothing is compared with itself", name)
    with whole_or_nothing(out / name for name in (TAXONOMY, RELATIONS, TABLE, JSON, _PAGE, _BANK)):
        if bank is not None and datasets and not options.was_typed(context, "bank"):
            bank = None  # labelmerge.toml's is for what names no datasets
        if bank is None:
            bank = _bank_of(datasets, encoder, out, device)
            labels = whole = Bank.load(bank)
        elif encoder is not None and options.was_typed(context, "encoder"):
            raise click.UsageError("--encoder is for a bank in --out; --bank has its own")
        else:
            whole = Bank.load(bank)
            labels = whole.for_datasets(_names_of(datasets)) if datasets else whole
        encode = concept_encoder(labels, device=device, track=options.track)
        kept = ""
        if edits is not None:
            carried = carry_edits(labels, edits, encode)
            found, kept = carried.taxonomy, _edits(carried)
        elif checkpoint is not None:
            from labelmerge.evaluate.cross import IMAGES, count_predictions

            seen = count_predictions(
                checkpoint, shards, bank, limit=images or IMAGES, seed=seed, device=device, track=options.track
            )
            found = by_concepts(labels, encode, seen)
        elif how == "similar" and taxonomy is None:
            found = by_similarity(labels, threshold)
        else:
            found = taxonomy_of(how, labels, taxonomy, encode=encode)
            if found.datasets != labels.datasets():  # a person's table may leave datasets out
                left_out = some(name for name in labels.datasets() if name not in found.datasets)
                _log.warning("left out: %s, which %s has no rows of; --edits finds them", left_out, taxonomy)
                labels = labels.for_datasets(found.datasets)
        if into is not None:
            folded = fold(found, into)
            found = folded.taxonomy
            kept += _into(folded, into)
        report = merge_report(labels, found, read_counts(shards, labels) if shards else None, threshold)
        report = replace(report, version=whole.version)  # as the bank has it, for what is chosen of it has another
        content = write_merge(report, found, labels, out)
        each = CROPS if crops is None else crops
        pictures = label_crops(shards, labels, each=each, track=options.track) if shards and each else {}
        write_merge_page(report, found, labels, out / _PAGE, crops=pictures, seed=seed, track=options.track)
    options.say(content, as_json, _summary(report, found, kept, out))


def _refuse(
    how: str,
    taxonomy: Path | None,
    edits: Path | None,
    checkpoint: Path | None,
    shards: tuple[Path, ...],
    crops: int | None,
    images: int | None,
) -> None:
    """Raise UsageError where options don't go together."""
    if edits is not None and (how != "concepts" or taxonomy is not None or checkpoint is not None):
        raise click.UsageError("--edits goes with --merge concepts, without --taxonomy and --checkpoint")
    if checkpoint is not None and (how != "concepts" or taxonomy is not None):
        raise click.UsageError("--checkpoint is evidence for --merge concepts, without --taxonomy")
    if checkpoint is not None and not shards:
        raise click.UsageError("--checkpoint needs --shards, whose images it is shown")
    if crops is not None and not shards:
        raise click.UsageError("--crops is how many images of --shards the page shows")
    if images is not None and checkpoint is None:
        raise click.UsageError("--images is how many --checkpoint looks at")


def _summary(report: MergeReport, found: Taxonomy, kept: str, out: Path) -> str:
    """What was found, in lines; `kept` says what became of a person's edits."""
    from labelmerge.merge.attachment import TEXT

    wide = [
        f"{entry.key[0]}'s {entry.name} ({' or '.join(entry.concepts)})"
        for entry in found.entries
        if len(entry.concepts) > 1 and entry.evidence == TEXT
    ]
    merged = sum(len(group.members) for group in report.groups)
    pairs = report.relations
    return (
        f"{options.counted(sum(report.datasets.values()), 'label')}, {options.counted(report.concepts, 'concept')}: "
        f"{merged:,} labels in {options.counted(len(report.groups), 'class', 'classes')} of several datasets, "
        f"{len(report.alone):,} alone\n"
        f"Pairs of different datasets' labels: {pairs['same']:,} the same, {pairs['contains']:,} one within the other, "
        f"{pairs['overlaps']:,} overlapping\n"
        f"To check: {options.counted(len(report.doubts), 'unsure label')}; pairs: {len(report.same_name):,} of one "
        f"name with two meanings, {len(report.other_name):,} of two names with one meaning, {len(report.near_misses):,}"
        f" near but unrelated, {len(report.same_dataset):,} of one dataset hard to tell apart\n"
        + kept
        + (f"Taken for any of several things: {some(wide)}. Edit taxonomy.csv where that is wrong\n" if wide else "")
        + f"Made {out / 'merge.html'} to read, taxonomy.csv to edit and train with, relations.csv, merge.csv and "
        "merge.json"
    )


def _into(folded: Folded, dataset: str) -> str:
    """What became of the other datasets' labels, in lines."""
    across = [f"{each.key[0]}'s {each.name} ({' or '.join(each.concepts)})" for each in folded.across]
    return (
        f"Into the classes of {dataset}: {options.counted(len(folded.within), 'label')} of other datasets, and not "
        f"{len(folded.outside):,} that have nothing in common with them\n"
        + (f"More than one class, or more than these classes: {some(across, 8)}\n" if across else "")
    )


def _edits(carried: Carried) -> str:
    """What became of a person's table, in lines."""
    shown = [
        f"{each.entry.key[0]}'s {each.entry.name} ({' or '.join(each.entry.concepts)}; found: "
        f"{' or '.join(each.found)})"
        for each in carried.edits
    ]
    kept = f"Kept as you wrote {'them' if len(shown) != 1 else 'it'}: {some(shown, 8)}" if shown else "Nothing edited"
    return f"{kept}\n" + (f"Found for datasets that the table lacked: {some(carried.new)}\n" if carried.new else "")


def _names_of(datasets: tuple[str, ...]) -> list[str]:
    """What a bank calls these datasets: a recipe's or list's name, where they are named by its path."""
    from labelmerge.embed.datasets import expand

    names = [name for given in datasets for name in expand(given)]
    return [load_recipe(name).name if Path(name).is_file() else name for name in names]


def _bank_of(datasets: tuple[str, ...], encoder: str | None, out: Path, device: str | None) -> Path:
    """A bank in the merge's own folder that holds these datasets and no others."""
    from labelmerge.embed.datasets import find_datasets
    from labelmerge.embed.embed import embed_labels

    if not datasets:
        raise click.UsageError("nothing to merge: name DATASETs or lists of class names, or give --bank")
    bank = out / _BANK
    default = None if (bank / "bank.json").exists() else "offline"
    recipes = find_datasets(datasets)
    embed_labels(recipes, bank, encoder=encoder or default, only=True, shipped=True, device=device, track=options.track)
    return bank
