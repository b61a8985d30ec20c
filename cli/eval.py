"""`labelmerge eval`: a checkpoint and shards → mIoU, per class and per set."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command("eval", cls=options.SpreadCommand)
@click.option("--checkpoint", type=options.folder, required=True, metavar="RUN", help="A run, or one checkpoint of it.")
@options.shards()
@options.bank()
@options.out_file("Where the results go, as JSON; the confusion matrices go beside them, as .confusion.npz.")
@options.views
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Which split of each dataset; default: val, where there is none test, then train.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N images of each set.")
@click.option("--per-class", is_flag=True, help="Show the IoU of every class (it always is in the JSON).")
@options.device
@options.as_json
def command(
    checkpoint: Path,
    shards: tuple[Path, ...],
    bank: Path,
    out: Path,
    short_edge: int | None,
    scales: tuple[float, ...],
    flip: bool,
    split: str | None,
    limit: int | None,
    per_class: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Measure a trained model on shards, by their own labels.

    The sets need not have been trained on: each is segmented with the labels of its own label space, by their vectors
    in the bank. Whole images, at the masks' own resolution.

    \b
    Example:
      labelmerge eval --checkpoint run --shards shards-out/camvid --bank bank --out results.json
    """
    from labelmerge.evaluate.results import evaluate

    results = evaluate(
        checkpoint,
        shards,
        bank,
        out,
        short_edge=short_edge,
        scales=scales,
        flip=flip,
        split=split,
        device=device,
        limit=limit,
        track=options.track,
    )
    lines = [results.table(per_class=per_class), ""]
    if skipped := sum(len(result.skipped) for result in results.sets):
        lines.append(f"{skipped} corrupt samples were skipped; they are listed in {out}")
    lines.append(f"Wrote {out} and {results.confusion_path}")
    options.say(results.to_json(), as_json, "\n".join(lines))
