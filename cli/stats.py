"""labelmerge stats: what is in shards, from their manifests."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@click.argument("folders", metavar="DIR…", type=options.existing_folder, nargs=-1, required=True)
@click.option("--classes", is_flag=True, help="Also show the pixels and boxes of each class in each split.")
@options.as_json
def command(folders: tuple[Path, ...], classes: bool, as_json: bool) -> None:
    """Count what is in shards: samples, pixels, boxes, classes. Reads the manifests only.

    DIR is what `shard` wrote: a split, a dataset, or a folder of datasets. Sizes are width x height, from the smallest
    to the largest of each. "ignored" is the share of mask pixels without a label.

    \b
    Example:
      labelmerge stats shards --classes
    """
    from labelmerge.inspect.stats import class_tables, stats, table

    splits, unfinished = stats(folders)
    lines = [table(splits), ""] if splits else []
    lines += [class_tables(splits), ""] if classes and splits else []
    lines += [f"{folder}: unfinished" for folder in unfinished]
    samples = options.counted(sum(split.samples for split in splits), "sample")
    lines.append(f"{samples} in {options.counted(len(splits), 'finished split')}.")
    data = {"splits": [split.to_json() for split in splits], "unfinished": [str(folder) for folder in unfinished]}
    options.say(data, as_json, "\n".join(lines))
