"""labelmerge push: a folder that labelmerge wrote → the hub, or another URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.errors import UsageError, printable

from . import options


@click.command()
@click.argument("folder", metavar="DIR", type=options.own_folder)
@click.argument("url", metavar="URL")
@click.option(
    "--license",
    "licence",
    metavar="NAME",
    help="Licence on the card, by its name on the hub, such as cc-by-4.0; default: unknown.",
)
@click.option(
    "--replace", is_flag=True, help="Overwrite files that differ there; remove those that no longer exist here."
)
@click.option("--public", is_flag=True, help="On the hub: make a new repository public.")
@click.option(
    "--state", is_flag=True, help="Of a run: also upload what resuming needs (twice the size of the weights)."
)
@options.as_json
def command(folder: Path, url: str, licence: str | None, as_json: bool, **chosen: bool) -> None:
    """Upload shards, an export, a bank or a run, with a card.

    URL is hf://datasets/OWNER/NAME, hf://OWNER/NAME for a run, or a folder at s3://, gs:// and so on. What is there and
    equal is not sent again: the same command again goes on where it broke off. A README.md in DIR is the card; else one
    is made of what the files say: task, classes, sizes, how to load them.

    \b
    Example:
      labelmerge push shards hf://datasets/me/streets --license cc-by-4.0
      labelmerge push run s3://my-bucket/run
    """
    if not options.is_url(url):
        raise UsageError(f"{url} is not a URL", fix="Write hf://datasets/OWNER/NAME, s3://BUCKET/FOLDER, …")
    from labelmerge.push.push import push

    report = push(folder, url, licence=licence, track=options.track, **chosen)
    options.say(report.to_json(), as_json, _text(report))


def _text(report: Any) -> str:
    from labelmerge.inspect.stats import size

    done = report.uploaded
    same = f", {done.same} there already" if done.same else ""
    removed = f", {done.removed} removed" if done.removed else ""
    card = "; the README.md that is there stays" if done.kept_card else ""
    sent = f"{options.counted(done.sent, 'file')}, {size(done.bytes)}"
    return printable(f"Pushed {report.kind} {report.folder} to {done.url}: {sent}{same}{removed}{card}.")
