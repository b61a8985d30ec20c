"""labelmerge export: shards as files that other trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.errors import UsageError, printable
from labelmerge.files import read_text
from labelmerge.text import some

from . import options

_MAX_THINGS_SHOWN = 8


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", type=options.existing_folder)
@click.option(
    "--format",
    type=click.Choice(["index-png", "coco-panoptic", "coco-instances", "yolo", "hf"]),
    required=True,
    help="Images and index PNGs; COCO's panoptic PNGs and JSON, or its instances JSON; YOLO's text files; Parquet for "
    "Hugging Face's datasets.",
)
@click.option(
    "--taxonomy",
    type=options.existing_file,
    metavar="FILE",
    help="The table that `merge` wrote: its concepts are the classes. Shards of one label space need none.",
)
@options.out_folder("Where the files go: a folder that is new or empty.")
@click.option("--no-images", is_flag=True, help="Write the annotations only.")
@click.option(
    "--things",
    type=options.existing_file,
    metavar="FILE",
    help="Names of the classes that are things, one per line; default: those of the recipe, or those of which some "
    "image has two segments.",
)
@click.option(
    "--task",
    type=click.Choice(["detect", "segment"]),
    help="YOLO: boxes (detect) or outlines (segment); default: segment.",
)
@click.option("--push", metavar="OWNER/NAME", help="hf: also upload the folder to this private dataset on the hub.")
@options.as_json
def command(
    folders: tuple[Path, ...],
    format: str,
    taxonomy: Path | None,
    out: Path,
    no_images: bool,
    things: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Write shards as one dataset for other trainers.

    DIR is a split, a dataset, or a folder of datasets. All of them get one class list, one palette, and names and ids
    that are unique over all; splits stay splits. One dataset alone as COCO files keeps its own category ids.

    \b
    Example:
      labelmerge export one --format index-png --out merged
    """
    from labelmerge.inspect.export_merged import check_options, export_merged
    from labelmerge.inspect.samples import is_one_dataset

    names = None
    if things is not None:
        names = [line.strip() for line in read_text(things, UsageError).splitlines() if line.strip()]
    check_options(format, not no_images, names, **chosen)

    if taxonomy is None and format.startswith("coco-") and len(folders) == 1 and is_one_dataset(folders[0]):
        from labelmerge.inspect.export import export

        report = export(folders[0], format, out, images=not no_images, things=names, track=options.track)
        options.say(report.to_json(), as_json, _text(report))
        return
    merged = export_merged(
        folders, format, out, taxonomy=taxonomy, images=not no_images, things=names, track=options.track, **chosen
    )
    options.say(merged.to_json(), as_json, _merged_text(merged))


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


def _merged_text(report: Any) -> str:
    from labelmerge.inspect.merged import lost_words

    lines = lost_words(report.lost, report.labelled)
    if report.lost:
        lines.append(
            "`labelmerge relabel --checkpoint RUN` splits such labels; `labelmerge merge --into DATASET` makes one "
            "class of all that a label of that dataset stands for; or give each of them one concept."
        )
    lines += [f"left out: {reason}" for reason in report.left_out]
    if report.crowds:
        crowds = options.counted(report.crowds, "crowd or depiction", "crowds and depictions")
        lines.append(f"left out: {crowds}, which {report.format} can't mark")
    if report.things:
        lines.append(f"things: {some(report.things, _MAX_THINGS_SHOWN)}")
    if report.format == "yolo" and "val" not in report.splits:
        lines.append("There is no val split, which YOLO's trainers want: name one in data.yaml.")
    objects = f"{options.counted(report.annotations, 'annotation')}, " if report.annotations else ""
    classes = options.counted(len(report.classes), "class", "classes")
    images = options.counted(report.images, "image")
    task = f" ({report.task})" if report.task else ""
    lines.append(
        f"Wrote {images} of {', '.join(report.datasets)} ({', '.join(report.splits)}) to {report.folder} as "
        f"{report.format}{task}: {objects}{classes}."
    )
    if report.pushed:
        lines.append(f"Pushed to {report.pushed}.")
    return "\n".join(map(printable, lines))
