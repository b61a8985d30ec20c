"""`labelmerge eval`: a checkpoint and shards, or a dataset's own folder → mIoU, per class and per set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.catalog import load_recipe
from labelmerge.errors import UsageError

from . import options


@click.command("eval", cls=options.SpreadCommand)
@options.checkpoint
@options.shards(required=False)
@click.option(
    "--dataset",
    "names",
    multiple=True,
    metavar="DATASET|RECIPE.toml",
    shell_complete=options.complete.dataset,
    help="A dataset as it was unpacked, read without shards; needs --root.",
)
@click.option(
    "--root",
    "roots",
    type=options.input_folder,
    multiple=True,
    metavar="DIR",
    help="Where it was unpacked: one for each --dataset, in the same order.",
)
@click.option(
    "--bank",
    type=options.input_folder,
    metavar="BANK",
    help="The embedding bank with these sets' labels; default: the one that the checkpoint carries.",
)
@options.out_file(
    "Where the results go, as JSON. Beside them go the confusion matrices, as .npz and as pictures, and a table of all "
    "images, the worst first."
)
@options.views
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Which split of each dataset; default: val, else test, else train.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    type=click.Choice(["semantic", "panoptic", "instances", "depth"]),
    help="What to measure besides mIoU (semantic): panoptic (PQ) or instances (AP), where there are segments. "
    "Runs that predict depth are measured by depth (AbsRel, δ).",
)
@options.by
@click.option(
    "--mixed",
    is_flag=True,
    help="Also segment each set with one list of all sets' labels, judged by the relations between labels.",
)
@click.option(
    "--taxonomy",
    type=options.existing_file,
    metavar="FILE",
    help="What the sets' labels mean, for the figures that use relations; default: the shipped concepts.",
)
@click.option(
    "--segment-score",
    type=options.Number(0, 1),
    metavar="P",
    help="For panoptic: how probable the label of a segment has to be; default: `segment_score` as in training.",
)
@click.option(
    "--only",
    metavar="NAMES",
    help='Measure these classes alone: "road, car, camvid:Sky". Pixels of the others don\'t count.',
)
@click.option("--leave-out", metavar="NAMES", help="Measure all classes but these, such as the background.")
@options.depth_limits
@click.option("--limit", type=options.WholeNumber(min=1), metavar="N", help="At most N images of each set.")
@click.option(
    "--examples",
    type=options.WholeNumber(min=0),
    metavar="N",
    help="Keep pictures of N images of each set for `labelmerge report`; default: 4.",
)
@click.option(
    "--worst",
    type=options.WholeNumber(min=0),
    metavar="N",
    help="Also of the N images of each set with the most mistakes.",
)
@click.option("--per-class", is_flag=True, help="Show the IoU of every class (always in the JSON file).")
@options.device
@options.as_json
def command(
    checkpoint: Path,
    shards: tuple[Path, ...],
    names: tuple[str, ...],
    roots: tuple[Path, ...],
    bank: Path | None,
    out: Path,
    split: str | None,
    only: str | None,
    leave_out: str | None,
    per_class: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Measure a trained model on shards or on datasets as they were unpacked, by their own labels.

    The sets need not have been trained on: each is segmented with the labels of its own label space, by their vectors
    in the bank (or by the run's columns, where these are concepts), and compared with its masks at their own
    resolution. Started by torchrun, its processes share the images.

    \b
    Example:
      labelmerge eval --checkpoint run --shards shards-out/camvid --out run/results.json --short-edge 720
      labelmerge eval --checkpoint run --dataset cityscapes --root ~/data/cityscapes --bank bank --out results.json \\
        --short-edge 1080 --window 640 --scales 0.5:1.75:0.25 --flip
      torchrun --nproc-per-node 8 --no-python labelmerge eval --checkpoint run --shards shards-out/* --out results.json
    """
    if len(names) != len(roots):
        raise UsageError(f"{len(names)} of --dataset but {len(roots)} of --root", fix="Give one --root for each")
    if not shards and not names:
        raise UsageError("nothing to measure on", fix="Give --shards, or --dataset with its --root")
    options.refuse_missing(shards, bank, checkpoint)
    options.load_torch()
    from labelmerge.evaluate.classes import names_of
    from labelmerge.evaluate.evaluate import evaluate
    from labelmerge.evaluate.examples import examples_folder
    from labelmerge.processes import is_first
    from labelmerge.sharding.raw import open_raw

    results = evaluate(
        checkpoint,
        shards,
        bank,
        out,
        datasets=[open_raw(load_recipe(name), root, split) for name, root in zip(names, roots, strict=True)],
        split=split,
        only=() if only is None else names_of(only),
        leave_out=() if leave_out is None else names_of(leave_out),
        views=options.chosen_views(chosen),
        track=options.track,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    lines = [results.table(per_class=per_class), ""]
    if skipped := sum(len(result.skipped) for result in results.sets):
        lines.append(f"Skipped, because unusable: {options.counted(skipped, 'sample')}. {out} has the reasons")
    pictures = (
        f", {results.confusion_path.name} and {options.counted(len(results.sets), 'picture')} beside it; "
        f"{results.images_path.name} has every image, the worst first"
    )
    lines.append(f"Wrote {out}{'' if results.of_depths else pictures}")
    if (examples := sum(len(result.examples) for result in results.sets)) or any(each.worst for each in results.sets):
        worst = sum(len(result.worst) for result in results.sets)
        shown = options.counted(examples, "example") + (f" and {worst:,} of the worst images" if worst else "")
        shown += f" in {examples_folder(out).name}/"
        of = out.parent if (out.parent / "config.toml").is_file() else out
        lines.append(f"{shown}: `labelmerge report {of} --out DIR` shows them")
    if is_first():
        options.say(results.to_json(), as_json, "\n".join(lines))
