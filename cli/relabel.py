"""labelmerge relabel: the shards of several datasets become shards in one taxonomy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.errors import printable
from labelmerge.text import some

from . import options

_MAX_SKIPS_SHOWN = 3
_OF_MODELS = ("bank", "confidence", "short_edge", "scales", "flip", "window", "window_stride", "device")


@click.command("relabel")
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", type=options.existing_folder)
@click.option(
    "--taxonomy",
    type=options.existing_file,
    metavar="FILE",
    help="The table that `merge` wrote; without one, images alone and (--instances) boxes get their own labels.",
)
@click.option(
    "--checkpoint",
    type=options.input_folder,
    metavar="RUN",
    help='The model that divides labels of several concepts; without it they become "no label".',
)
@click.option(
    "--bank",
    type=options.input_folder,
    metavar="BANK",
    help="The embedding bank with these sets' labels; default: the one that the checkpoint carries.",
)
@options.out_folder("Folder for all shards, which go into DIR/<dataset>/<split>/.")
@click.option("--name", metavar="NAME", help="Name of the label space.  [default: the file's name]")
@click.option(
    "--confidence",
    type=options.Number(0, 1),
    default=0.5,
    show_default=True,
    metavar="P",
    help="Ignore pixels and segments whose likeliest concept has less than this probability among its label's.",
)
@click.option("--instances", is_flag=True, help="Also make a mask of each box by itself (instances.png).")
@click.option(
    "--least-cover",
    type=options.Number(0, 1),
    default=0.2,
    show_default=True,
    metavar="SHARE",
    help="With --instances: drop masks that cover less than this share of their box.",
)
@options.views
@options.device
@options.as_json
def command(folders: tuple[Path, ...], taxonomy: Path | None, out: Path, as_json: bool, **chosen: Any) -> None:
    """Rewrite the shards of several datasets in one taxonomy.

    DIR is a split, a dataset, or a folder of datasets. A label of one concept becomes it; among several the model
    chooses, pixel by pixel or segment by segment. Boxes become masks inside the boxes, and images alone whatever the
    model sees in them. Each manifest says what was
    annotated and what was predicted, and by which checkpoint.

    \b
    Example:
      labelmerge relabel shards-out --checkpoint run --taxonomy merge/taxonomy.csv --out one
      labelmerge relabel shards-out/objects365 --checkpoint run --instances --out pseudo
    """
    if chosen["checkpoint"] is None:
        options.refuse_idle(_OF_MODELS, "is for a model", "Give --checkpoint too, or leave it out")
    if not chosen["instances"]:
        options.refuse_idle(["least_cover"], "is for masks of boxes", "Give --instances too, or leave it out")
    options.refuse_missing(folders, chosen["bank"], chosen["checkpoint"])
    options.load_torch()
    from labelmerge.predict.relabel import relabel

    views = options.chosen_views(chosen)
    report = relabel(folders, taxonomy, out, views=views, track=options.track, **chosen)
    options.say(report.to_json(), as_json, _text(report, taxonomy is None))


def _text(report: Any, own: bool) -> str:
    lines = [f"left out: {reason}" for reason in report.left_out]
    for split in report.splits:
        name, counts = f"{split.dataset} {split.split}", split.counts
        lines += [f"skipped {key}: {reason}" for key, reason in split.skipped[:_MAX_SKIPS_SHOWN]]
        if (more := len(split.skipped) - _MAX_SKIPS_SHOWN) > 0:
            lines.append(f"… and {more} more, listed in {split.folder / 'manifest.json'}")
        if report.checkpoint is None and split.open:
            labels = options.counted(len(split.open), "label stands", "labels stand")
            lost = f"{counts.get('unsure_pixels', 0):,} pixels and {counts.get('dropped_boxes', 0):,} boxes"
            lines.append(
                f"WARNING: {name}: {labels} for several concepts and lost {lost}, which only a model can split "
                f"(--checkpoint): {some(split.open)}"
            )
        before, after = split.annotation_type
        became = "" if before == after else f", {before} became {after}"
        pixels = ", ".join(f"{counts.get(f'{what}_pixels', 0):,} {what}" for what in ("mapped", "predicted", "unsure"))
        if "predicted_masks" in counts:
            dropped = f"{counts.get('dropped_masks', 0):,} too small"
            pixels += f"; masks of boxes: {counts['predicted_masks']:,}, {dropped}"
        there = ", there already" if split.kept else ""
        lines.append(f"{name}: {options.counted(split.images, 'image')}{became}; pixels: {pixels}{there}")
    concepts = options.counted(len(report.space), "concept")
    folders = options.counted(len(report.splits), "split")
    labels = "labels of their own" if own else f"the {concepts} of {report.space.name!r} ({report.space.hash})"
    lines.append(f"Wrote {folders} with {labels}.")
    return "\n".join(map(printable, lines))
