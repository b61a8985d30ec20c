"""`labelmerge predict`: images and any list of labels → masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from labelmerge.errors import SampleError, UsageError

from . import options


@click.command("predict")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=options.folder, required=True, metavar="RUN", help="A run, or one checkpoint of it.")
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
    "--encoder", metavar="SPEC", help="The text encoder for new labels, if the bank's own path is not on this machine."
)
@options.by
@options.device
@options.as_json
def command(
    images: tuple[Path, ...],
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
    is best described: NAME = DESCRIPTION, up to the next semicolon.

    Writes for each image an index PNG, a JSON file that says what its values mean, and an overlay.

    \b
    Example:
      labelmerge predict photo.jpg --checkpoint run --out masks \\
        --labels "road, sky; deer = A deer is a wild hoofed animal with slender legs"
    """
    if labels is None and labels_file is None:
        raise UsageError("no labels to choose from", fix="Give --labels or --labels-file")
    from labelmerge.predict.predict import predict
    from labelmerge.predict.queries import parse_labels, read_labels

    queries = parse_labels(labels) if labels is not None else []
    queries += read_labels(labels_file) if labels_file is not None else []
    done = predict(
        images,
        checkpoint,
        queries,
        out,
        views=options.chosen_views(chosen),
        track=options.track,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    masks = ", ".join(entry.mask.name for entry in done.written[:3])
    more = f" and {len(done.written) - 3} more" if len(done.written) > 3 else ""
    written = f"Wrote {masks}{more} with labels and overlays into {out}" if done.written else "Wrote nothing"
    options.say(done.to_json(), as_json, written)
    if done.failed:
        path, reason = done.failed[0]
        raise SampleError(
            f"{len(done.failed)} of {len(done.failed) + len(done.written)} images failed; the first: {path}: {reason}"
        )
