"""labelmerge verify: shards against their manifest and the schema; images that are there twice."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from labelmerge.errors import UsageError, printable

from . import options


@click.command()
@click.argument("folders", metavar="DIR…", type=options.existing_folder, nargs=-1, required=True)
@click.option("--workers", type=options.WholeNumber(min=1), default=1, metavar="N", help="Number of processes. [1]")
@click.option("--no-leaks", is_flag=True, help="Exit with status 1 if an image is both trained and evaluated on.")
@click.option(
    "--twins",
    is_flag=True,
    help="Also find images that look the same though their bytes differ: encoded again, resized.",
)
@click.option("--finish", is_flag=True, help="Instead, write the manifests of splits that were sharded in parts.")
@options.as_json
def command(folders: tuple[Path, ...], workers: int, no_leaks: bool, twins: bool, finish: bool, as_json: bool) -> None:
    """Check every shard against its manifest and every sample against the schema, and find duplicate images.

    DIR is what `shard` wrote: a split, a dataset, or a folder of datasets. All faults are listed; the exit status is 1
    if there are any. Give training and evaluation sets together to see whether they share images; shared images are
    reported, and count as a fault with --no-leaks. Images are the same if the bytes of their source files are; with
    --twins, also if they look the same (by a perceptual hash, which may also match frames of one video).

    \b
    Example:
      labelmerge verify shards --workers 8
      labelmerge verify shards/cityscapes shards/camvid --twins
    """
    if finish:
        if no_leaks or twins:
            flag = "--no-leaks" if no_leaks else "--twins"
            raise UsageError(f"--finish looks at no images: give {flag} to a run without it")
        _finish(folders, as_json)
        return
    from labelmerge.inspect.duplicates import LEAK
    from labelmerge.inspect.twins import find_twins
    from labelmerge.inspect.verify import verify

    report = verify(folders, workers=workers, track=options.track)
    lines = [f"{problem.where}: {problem.what}" for problem in report.problems]
    lines += [f"note: {remark.where}: {remark.what}" for remark in report.remarks]
    lines += [_overlap(overlap) for overlap in reversed(report.overlaps)]
    alike = find_twins(folders, options.track) if twins else ()
    lines += [_overlap(overlap, alike=True) for overlap in reversed(alike)]
    counts = (
        f"{options.counted(report.samples, 'sample')} in {options.counted(report.shards, 'shard')} of "
        f"{options.counted(report.splits, 'split')}"
    )
    faults = len(report.problems)
    leaks = any(overlap.kind == LEAK for overlap in (*report.overlaps, *alike))
    verdict = f"{options.counted(faults, 'fault')} in {counts}" if faults else f"No fault in {counts}"
    verdict += ", but training images are in evaluation sets." if leaks else "."
    result = report.to_json() | ({"twins": [asdict(overlap) for overlap in alike]} if twins else {})
    options.say(result, as_json, "\n".join(map(printable, [*lines, verdict])))
    if faults or (leaks and no_leaks):
        raise click.exceptions.Exit(1)


def _overlap(overlap: Any, alike: bool = False) -> str:
    one, two = overlap.examples[0]
    example = f"{one} {'looks like' if alike else 'is'} {two}" + (", …" if overlap.images > 1 else "")
    images, one_only = options.counted(overlap.images, "image"), overlap.images == 1
    if alike:
        what = "LEAK" if overlap.kind == "leak" else "twins"
        verb = "looks" if one_only else "look"
        where = "others of it" if overlap.kind == "within" else f"images of {overlap.second}"
        return f"{what}: {images} of {overlap.first} {verb} like {where} ({example})"
    if overlap.kind == "within":
        verb = "repeats another" if one_only else "repeat others"
        return f"duplicates: {images} of {overlap.first} {verb} of it ({example})"
    what = "LEAK" if overlap.kind == "leak" else "duplicates"
    return f"{what}: {images} of {overlap.first} {'is' if one_only else 'are'} in {overlap.second} ({example})"


def _finish(folders: tuple[Path, ...], as_json: bool) -> None:
    from labelmerge.sharding.finish import finish_all

    report = finish_all(folders, options.track)
    lines = [f"{problem.where}: {problem.what}" for problem in report.unfinished]
    lines += [
        f"finished {made.folder}: {options.counted(made.written, 'sample')} in {options.counted(made.shards, 'shard')}"
        for made in report.finished
    ]
    splits = options.counted(len(report.finished) + len(report.unfinished), "unfinished split")
    before = f"{report.already} {'was' if report.already == 1 else 'were'} finished before"
    last = f"Finished {len(report.finished)} of {splits}; {before}."
    options.say(report.to_json(), as_json, "\n".join(map(printable, [*lines, last])))
    if report.unfinished:
        raise click.exceptions.Exit(1)
