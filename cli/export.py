"""labelmerge export: shards as COCO files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.text import some

from . import options

_MAX_THINGS_SHOWN = 8


@click.command()
@click.argument("folder", metavar="DIR", type=options.existing_folder)
@click.option(
    "--format",
    type=click.Choice(["coco-panoptic", "coco-instances"]),
    required=True,
    help="Panoptic PNGs and their JSON, or an instances JSON: things as RLE, or boxes where there are only boxes.",
)
@options.out_folder("Where the files go: a folder that is new or empty.")
@click.option("--no-images", is_flag=True, help="Only the annotations.")
@click.option(
    "--things",
    type=options.existing_file,
    metavar="FILE",
    help="Names of the classes that are things, one a line; by default the recipe's, or those of which an image has "
    "two segments.",
)
@options.as_json
def command(folder: Path, format: str, out: Path, no_images: bool, things: Path | None, as_json: bool) -> None:
    """Write the shards of one dataset as COCO files, for tools that read those.

    DIR is a split, or a dataset with all its splits. Category ids are the dataset's own where the shards know them,
    else class index + 1. Masks without instances become one segment for each class.

    \b
    Example:
      labelmerge export shards/coco_panoptic/val --format coco-panoptic --out coco
    """
    from labelmerge.inspect.export import export

    names = (
        None if things is None else [line.strip() for line in things.read_text("utf-8").splitlines() if line.strip()]
    )
    report = export(folder, format, out, images=not no_images, things=names, track=options.track)
    options.say(report.to_json(), as_json, _text(report))


def _text(report: Any) -> str:
    lines = []
    if report.guessed:
        shown = some(report.things, _MAX_THINGS_SHOWN) or "none"
        classes = options.counted(len(report.things), "class", "classes")
        has, kind = ("has", "is a thing") if len(report.things) == 1 else ("have", "are things")
        lines.append(f"{classes} {has} several segments in an image, so {kind}: {shown}")
    annotations = options.counted(report.annotations, "segment" if report.format == "coco-panoptic" else "annotation")
    categories = options.counted(report.categories, "category", "categories")
    counts = f"{annotations} of {options.counted(report.images, 'image')}, {categories}"
    lines.append(f"Wrote {report.dataset} {', '.join(report.splits)} to {report.folder}: {counts}.")
    return "\n".join(lines)
