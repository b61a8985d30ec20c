"""`labelmerge demo`: the whole pipeline on nine toy datasets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from . import options


@click.command("demo")
@options.out_folder("A new folder, or that of an earlier demo, which is replaced.")
@click.option(
    "--seeds",
    type=options.WholeNumber(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many toy worlds to average over; shows mean and standard deviation.",
)
@options.seed
@click.option(
    "--steps",
    type=options.WholeNumber(min=1),
    metavar="N",
    help="Training steps of every model; fewer is faster and worse.",
)
@click.option(
    "--quick", is_flag=True, help="Train nothing: show the datasets and what their labels mean, in half a minute."
)
@click.option("--depth", is_flag=True, help="Only draw one toy dataset with depths, and make its shards and bank.")
@options.as_json
def command(out: Path, seeds: int, seed: int, steps: int | None, quick: bool, depth: bool, as_json: bool) -> None:
    """Run the whole pipeline on nine toy datasets.

    Draws toy versions of the nine training datasets, in their official layouts, and two to test on; describes, embeds
    and shards them; trains the same small model once for every way to merge label spaces; evaluates zero-shot; and
    writes one HTML page. The page on what the labels mean is ready after half a minute, while the models train.
    docs/demo.md says how the worlds are drawn and what the comparison shows.

    \b
    Example:
      labelmerge demo --out demo-out
      labelmerge demo --out demo-out --quick
    """
    if depth:
        if seeds > 1 or quick or steps is not None:
            raise click.UsageError("--depth draws one world and trains nothing: only --out and --seed go with it")
        from labelmerge.demo.depths import run_depth_demo

        made = run_depth_demo(out, seed=seed, track=options.track)
        options.say(made, as_json, f"Wrote the toy village with depths: {made['shards']}, and its bank, {made['bank']}")
        return
    from labelmerge.demo.demo import PAGE, run_demo
    from labelmerge.demo.experiment import FULL
    from labelmerge.demo.results import table

    if quick and steps is not None:
        raise click.UsageError("--steps needs training, which --quick skips")
    size = FULL if steps is None else replace(FULL, steps=steps)
    with _only_warnings("labelmerge.train"):  # six runs would say six times what one says
        result = run_demo(out, seed=seed, seeds=seeds, size=size, training=not quick, track=options.track)
    where = f"Wrote the page, with everything it shows, into {out}. Open {out / PAGE} in a browser."
    options.say({**result, "page": str(out / PAGE)}, as_json, where if quick else f"{table(result)}\n\n{where}")


@contextmanager
def _only_warnings(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
