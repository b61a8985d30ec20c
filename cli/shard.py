"""labelmerge shard: a dataset on disk becomes WebDataset shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.catalog import SPLITS, UNLABELED, load_recipe, mixture_names
from labelmerge.errors import UsageError, printable
from labelmerge.text import kinds, some

from . import options

_MAX_SKIPS_SHOWN = 5
_MAX_NOTES_SHOWN = 12
_MAX_CLASSES_SHOWN = 8
_MINUTE = 60


def _part(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    number, slash, count = value.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(f"{value!r} is not I/N, such as 1/8 to 8/8", ctx, option)
    return int(number), int(count)


@click.command()
@click.argument("dataset", metavar="DATASET|RECIPE.toml", shell_complete=options.complete.dataset)
@click.option(
    "--root",
    type=options.input_folder,
    required=True,
    metavar="DIR",
    help="Where the dataset was unpacked, or its URL.",
)
@click.option(
    "--split",
    type=click.Choice((*SPLITS, UNLABELED)),
    help=f"Which split; with --check, default: all that have labels. {UNLABELED}: images only.",
)
@click.option(
    "--out",
    type=options.folder,
    metavar="DIR",
    help="Folder for all shards, which go into DIR/<dataset>/<split>/; needed unless --check.",
)
@click.option(
    "--short-edge",
    type=options.WholeNumber(min=1),
    metavar="N",
    help="Shrink larger images to this short edge, in pixels.",
)
@click.option(
    "--workers", type=options.WholeNumber(min=1), metavar="N", help="Number of processes; the shards are the same. [1]"
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Local processes, or the Ray cluster at RAY_ADDRESS.",
)
@click.option(
    "--part",
    metavar="I/N",
    callback=_part,
    help="Make only part I of N, one per cluster job; `verify --finish` completes the split.",
)
@click.option("--limit", type=options.WholeNumber(min=1), metavar="N", help="Only the first N images.")
@click.option(
    "--image-format",
    type=click.Choice(["jpg", "png"]),
    help="Default: JPEG if all images are JPEGs and keep their size, otherwise PNG (lossless). JPEGs that keep their "
    "size are copied byte for byte.",
)
@click.option(
    "--quality",
    type=options.WholeNumber(1, 100),
    metavar="N",
    help="Quality of JPEGs that must be encoded again; others are copied unchanged. [95]",
)
@click.option(
    "--taxonomy",
    type=options.existing_file,
    metavar="FILE",
    help="Use the concepts of this table, written by `merge`, as classes; each label must have exactly one.",
)
@click.option("--mapping", "older", type=options.existing_file, hidden=True)  # what older versions called it
@click.option(
    "--instances/--no-instances", default=True, help="Whether to keep masks of single objects, if there are any. [yes]"
)
@click.option(
    "--samples-per-shard",
    type=options.WholeNumber(min=1),
    metavar="N",
    help="Images in one shard, made by one process. [250]",
)
@click.option(
    "--max-skip-ratio",
    type=options.Number(0, 1),
    metavar="R",
    help="Fail if a larger share of the samples is unusable.",
)
@click.option(
    "--box-teacher",
    metavar="SPEC",
    help="Embed each box's image now, with this encoder (open_clip:MODEL/TAG_OR_PATH), to save the work in training.",
)
@options.device
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing: report what is there, what would be skipped, and the size of the shards.",
)
@options.as_json
def command(
    dataset: str,
    root: Path,
    split: str | None,
    out: Path | None,
    check: bool,
    as_json: bool,
    older: Path | None,
    **chosen: Any,
) -> None:
    """Turn a dataset on disk into WebDataset shards with a manifest.

    DATASET is a name that `labelmerge ls` shows, or the path of your own recipe. Run again, the same command goes on
    where it was interrupted.

    \b
    Example:
      labelmerge shard cityscapes --root ~/data/cityscapes --split train --out shards --workers 8
    """
    from labelmerge.sharding import shard as write

    if dataset in ("all", *mixture_names()):
        raise UsageError(f"{dataset} is several datasets", fix="Shard each by itself: each has a --root of its own")
    recipe = load_recipe(dataset)
    chosen["taxonomy"] = chosen["taxonomy"] or older
    settings = {name: value for name, value in chosen.items() if value is not None}
    lost = any(str(value) == "255" for value in recipe.ids.get("ignore", []))
    if check:
        if unused := [name for name in ("part", "device") if name in settings] + ["executor"] * (
            settings.pop("executor") != "local"
        ):
            raise UsageError(f"--{unused[0]} means nothing with --check", fix="Leave it out")
        if split:
            report = write.check(recipe, root, split, track=options.track, **settings)
            options.say(report.to_json(), as_json, _text(report, check, lost))
        else:
            reports = write.check_all(recipe, root, track=options.track, **settings)
            result = {"splits": [report.to_json() for report in reports]}
            options.say(result, as_json, "\n\n".join(_text(report, check, lost) for report in reports))
    elif split is None:
        raise UsageError("--split is missing", fix=f"One of {', '.join(SPLITS)}; or --check to see what is there")
    elif out is None:
        raise UsageError("--out is missing", fix="Say where the shards go, or use --check to write nothing")
    else:
        if chosen["box_teacher"] is None:
            options.refuse_idle(["device"], "is for a box teacher", "Give --box-teacher too, or leave it out")
        report = write.shard(recipe, root, split, out, track=options.track, **settings)
        options.say(report.to_json(), as_json, _text(report, check, lost))


def _classes(report: Any, lost: bool) -> list[str]:
    """How many classes occur, which don't, how much has no label; a warning where there is nothing to tell apart.

    Args:
        lost: whether the recipe takes 255 for no label, and so may lose what is foreground.
    """
    absent = f"; never: {some(report.absent, _MAX_CLASSES_SHOWN)}" if report.absent else ""
    lines = [f"classes: {report.classes_seen} of {report.classes} occur{absent}"]
    if report.unlabelled:
        lines.append(f"no label: {report.unlabelled:.1%} of the pixels")
    if report.absent and report.classes_seen <= 1 < report.classes:
        occurs = "only one class occurs" if report.classes_seen else "no class occurs"
        why = (
            "; what is foreground in 0/255 masks is lost to `ignore = [255]`, where the recipe should say "
            'map = {"0" = "background", "255" = "…"} under [ids]'
        )
        lines.append(
            f"WARNING: {occurs}, so nothing can be learnt from this{why if lost and report.unlabelled else ''}."
        )
    return lines


def _text(report: Any, check: bool, lost: bool) -> str:
    from labelmerge.inspect.stats import size

    notes = sorted(report.notes.items(), key=lambda note: (-note[1], note[0]))
    lines = [f"{what.replace('_', ' ')}: {count}" for what, count in notes[:_MAX_NOTES_SHOWN]]
    if len(notes) > _MAX_NOTES_SHOWN:
        lines.append(f"… and {len(notes) - _MAX_NOTES_SHOWN} smaller counts{'' if check else ', in manifest.json'}")
    if report.variant:
        lines.insert(0, f"layout: {report.variant}")
    skipped = kinds(f"skipped {skip['path']}: {skip['reason']}" for skip in report.skipped)
    shown = skipped if check else skipped[:_MAX_SKIPS_SHOWN]
    lines += shown
    if len(shown) < len(skipped):
        lines.append(f"… and {options.counted(len(skipped) - len(shown), 'other reason')}, in manifest.json")
    elif len(shown) < len(report.skipped):
        lines.append("--json lists them all" if check else "manifest.json lists them all")
    lines += _classes(report, lost)
    counts = f"{report.written:,} of {options.counted(report.found, 'image')} of {report.dataset} {report.split}"
    shards = f"{options.counted(report.shards, 'shard')}, {size(report.bytes)}"
    took = f"{report.seconds:.0f} s" if report.seconds < _MINUTE else f"{report.seconds / _MINUTE:.0f} min"
    if check:
        lines.append(f"Would write {counts} ({shards}, {report.image_format}; about {took}); wrote nothing.")
    elif report.part[1] > 1:
        part = f"part {report.part[0]}/{report.part[1]}"
        lines.append(f"Wrote {part}, {counts}, to {report.folder} ({shards}, {took}).")
        lines.append(f"When all parts are done: labelmerge verify --finish {report.folder}")
    else:
        kept = f", {report.kept} of them there already" if report.kept else ""
        lines.append(f"Wrote {counts} to {report.folder} ({shards}{kept}, {took}).")
    return "\n".join(map(printable, lines))
