"""labelmerge verify: shards against their manifest and the schema."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@click.argument("folders", metavar="DIR…", type=options.existing_folder, nargs=-1, required=True)
@options.as_json
def command(folders: tuple[Path, ...], as_json: bool) -> None:
    """Check every shard against its manifest and every sample against the schema.

    DIR is what `shard` wrote: a split, a dataset, or a folder of datasets. All faults are listed; the exit status is 1
    if there are any.

    \b
    Example:
      labelmerge verify shards
    """
    from labelmerge.sharding.verify import verify

    report = verify(folders, options.track)
    lines = [f"{problem.where}: {problem.what}" for problem in report.problems]
    counts = f"{report.samples} samples in {report.shards} shards of {report.splits} splits"
    verdict = f"{len(lines)} faults in {counts}." if lines else f"No fault in {counts}."
    options.say(report.to_json(), as_json, "\n".join([*lines, verdict]))
    if report.problems:
        raise click.exceptions.Exit(1)
