"""`labelmerge predict`: images and any list of labels → masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.errors import SampleError, UsageError, printable, quoted
from labelmerge.text import some

from . import options

_MAX_IMAGES_SHOWN = 20
_MAX_LABELS_SHOWN = 10


@click.command("predict")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|FOLDER|PATTERN|URL…")
@options.checkpoint
@click.option(
    "--labels", metavar="TEXT", help='"deer, grass, sky", or "deer = DESCRIPTION; grass; sky"; or --labels-file.'
)
@click.option(
    "--labels-file",
    type=options.existing_file,
    metavar="FILE",
    help="The same as a CSV file with the columns name and description.",
)
@options.out_folder("Where masks, their labels and overlays go.")
@options.views
@click.option(
    "--encoder",
    shell_complete=options.complete.encoder,
    metavar="SPEC",
    help="The text encoder for new labels, if the bank's own is not at its path on this machine.",
)
@click.option(
    "--segments",
    is_flag=True,
    help="Tell things apart, for methods with segments: ids as a 16-bit PNG, and outlines in the overlay.",
)
@click.option(
    "--segment-score",
    type=options.Number(0, 1),
    metavar="P",
    help="With --segments: how probable the label of a segment has to be; default: `segment_score` as in training.",
)
@click.option(
    "--coco",
    is_flag=True,
    help="Also write coco.json: each label's region in each image, as run lengths; with --segments, panoptic.json.",
)
@click.option(
    "--labeller",
    type=options.input_folder,
    metavar="RUN",
    help="For depth runs that take labels as input: the run that labels the pixels.",
)
@options.by
@options.device
@options.as_json
def command(
    images: tuple[str, ...],
    checkpoint: Path,
    labels: str | None,
    labels_file: Path | None,
    out: Path,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Segment images with any list of labels.

    Every pixel gets the nearest of the labels. A name that the model was trained with needs no description; where
    datasets differ about it, DATASET:NAME chooses one's meaning, and DATASET:* takes all its labels. Any other label
    is best described: NAME = DESCRIPTION, up to the next semicolon. Without --labels, the labels are those of the
    dataset that the model was trained on, if it is one.

    A FOLDER stands for the images in it, a PATTERN ("shots/**/*.jpg") for those it matches. For each image,
    the command writes an index PNG, a JSON file that says what its values mean, and an overlay, and prints the share of
    each label.

    A run of the method `depth` takes no labels. It gives each pixel's depth, up to an unknown scale and shift per
    image: as a 16-bit PNG, and as a picture.

    \b
    Example:
      labelmerge predict photo.jpg --checkpoint run --out masks \\
        --labels "road, sky; deer = A deer is a wild hoofed animal with slender legs"
      labelmerge predict shots/ https://example.org/street.jpg --checkpoint run --labels "road, sky" --out masks --coco
    """
    from labelmerge.predict.images import refuse_absent

    refuse_absent(images)
    options.refuse_missing(checkpoint=checkpoint)
    labeller = chosen.pop("labeller")
    if labels is None and labels_file is None:
        from labelmerge.predict.depths import gives_depth

        if gives_depth(checkpoint):
            _depths(images, checkpoint, out, as_json, labeller, chosen)
            return
    if labeller is not None:
        raise UsageError("--labeller is for runs that give depths, which take no --labels", fix="Leave one of them out")
    from labelmerge.predict.queries import parse_labels, read_labels

    queries = parse_labels(labels) if labels is not None else []
    queries += read_labels(labels_file) if labels_file is not None else []
    given = labels is not None or labels_file is not None
    options.load_torch()
    from labelmerge.predict.predict import predict

    done = predict(
        images,
        checkpoint,
        queries if given else None,
        out,
        views=options.chosen_views(chosen),
        track=options.track,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    lines = [
        f"{entry.image.name}: {_shares(entry.shares)}"
        + ("" if entry.segments is None else f" ({options.counted(entry.segments, 'segment')})")
        for entry in done.written[:_MAX_IMAGES_SHOWN]
    ]
    if (rest := len(done.written) - _MAX_IMAGES_SHOWN) > 0:
        lines.append(f"… and {options.counted(rest, 'other image')}, whose shares are in their JSON files")
    masks = ", ".join(entry.mask.name for entry in done.written[:3])
    more = f" and {len(done.written) - 3} more" if len(done.written) > 3 else ""
    written = f"Wrote {masks}{more} with labels and overlays into {out}" if done.written else "Wrote nothing"
    for file in (done.coco, done.panoptic):
        written += f", and {file.name}" if file is not None else ""
    options.say(done.to_json(), as_json, "\n".join([*map(printable, lines), written]))
    _refuse_failed(done.failed, len(done.written))


def _depths(
    images: tuple[str, ...], checkpoint: Path, out: Path, as_json: bool, labeller: Path | None, chosen: dict[str, Any]
) -> None:
    from labelmerge.predict.depths import predict_depths

    views = options.chosen_views(chosen)
    senseless = [name for name in ("segments", "segment_score", "coco", "encoder", "by") if chosen.get(name)]
    if senseless:
        raise UsageError(
            f"the run gives depths, and --{senseless[0].replace('_', '-')} is of labels", fix="Leave it out"
        )
    done = predict_depths(
        images, checkpoint, out, labeller=labeller, views=views, device=chosen.get("device"), track=options.track
    )
    names = some((entry.depth.name for entry in done.written), 3)
    options.say(done.to_json(), as_json, f"Wrote {names} with pictures into {out}" if done.written else "Wrote nothing")
    _refuse_failed(done.failed, len(done.written))


def _refuse_failed(failed: tuple[tuple[str | Path, str], ...], written: int) -> None:
    if failed:
        path, reason = failed[0]
        raise SampleError(f"{len(failed)} of {len(failed) + written} images failed; the first: {path}: {reason}")


def _shares(shares: dict[str, float]) -> str:
    """The labels that an image has pixels of, the largest first."""
    present = [f"{quoted(name)} {share:.1%}" for name, share in shares.items() if share > 0]
    return some(present, _MAX_LABELS_SHOWN)
