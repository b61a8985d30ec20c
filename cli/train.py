"""`labelmerge train`: one model on all the shards."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import click

from labelmerge.errors import LabelmergeError

from . import options

# Flags that set a key of the configuration of the same name. What isn't given is left to the preset or the file.
_SETTINGS: dict[str, tuple[Any, str]] = {
    "steps": (click.IntRange(min=1), "How many batches."),
    "batch_size": (click.IntRange(min=1), "Samples in a batch, shared equally among the datasets."),
    "crop": (click.IntRange(min=8), "Side of a training view, pixels."),
    "short_edge": (click.IntRange(min=0), "Resize images to this short edge first; 0 keeps their size."),
    "accumulate": (click.IntRange(min=1), "Pieces that a batch goes through the model in: less memory, the same step."),
    "lr": (float, "Learning rate."),
    "seed": (click.IntRange(min=0), "Of weights, order and views."),
    "losses": (str, "Which of hd (masks), ld (noisy masks) and wd (boxes) count; datasets without one are left out."),
    "merge": (
        click.Choice(["embedding", "naive", "name", "table"]),
        "What is one class: labels of one text (embedding, the default), each label, name, or group of --mapping.",
    ),
    "mapping": (str, "A table of groups, as `merge` writes it: with --merge table, or to overrule the embeddings."),
    "label_space": (click.Choice(["union", "dataset"]), "Softmax over all labels, or over the sample's own dataset's."),
    "pretrained": (str, "Encoder weights: imagenet, or a file."),
    "init": (str, "Begin with the weights and the temperature of this run or checkpoint: fine-tuning."),
    "ema": (float, "Evaluate an exponential moving average of the weights, of this decay (0.999)."),
    "channels_last": (bool, "Channels last in memory, which GPUs convolve faster."),
    "compile": (bool, "Send the model through torch.compile."),
    "tensorboard": (bool, "Log for TensorBoard too."),
    "workers": (click.IntRange(min=0), "Processes that make batches."),
    "checkpoint_every": (click.IntRange(min=1), "Steps between checkpoints."),
}
_METAVARS = {
    "lr": "RATE", "losses": "hd,ld,wd", "pretrained": "WHAT", "mapping": "FILE", "init": "RUN", "ema": "DECAY",
}  # fmt: skip


def settings(function: Any) -> Any:
    """`--preset`, `--config`, `--set`, `--split`, and the flags of `_SETTINGS`: None where they are not given."""
    for name, (kind, what) in reversed(_SETTINGS.items()):
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            function = click.option(flag, name, is_flag=True, default=None, help=what)(function)
            continue
        metavar = None if isinstance(kind, click.Choice) else _METAVARS.get(name, "N")
        function = click.option(flag, name, type=kind, metavar=metavar, help=what)(function)
    for option in (
        click.option("--split", default="train", show_default=True, help="Which split below a dataset's folder."),
        click.option(
            "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any other setting of docs/training.md."
        ),
        click.option("--config", "config_file", type=options.existing_file, metavar="FILE", help="Settings as TOML."),
        click.option("--preset", metavar="NAME", help="tiny (default), segformer-b5 or hrnet-w48."),
    ):
        function = option(function)
    return function


@click.command("train", cls=options.SpreadCommand)
@options.shards()
@options.bank()
@options.out_folder("The run: checkpoints, log, curves. The same command again goes on where it stopped.")
@settings
@options.device
@options.as_json
def command(
    shards: tuple[Path, ...],
    bank: Path,
    out: Path,
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    split: str,
    device: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train one model on all the shards.

    Every batch has the same share of every dataset. Settings come from the preset, then from --config, then from the
    other options. A run that was interrupted goes on from its newest checkpoint when the same command is given again.
    Started by torchrun, its processes share every batch.

    \b
    Example:
      labelmerge train --shards shards-out --bank bank --out run --preset tiny --steps 300
      torchrun --nproc-per-node 8 --no-python labelmerge train --shards shards-out --bank bank --out run \\
        --preset segformer-b5
      labelmerge train --shards shards-out/nyuv2 --bank bank --out fine-tuned --preset segformer-b5 \\
        --init run --steps 20000 --set eval_sets=true
    """
    from labelmerge.train.config import load_config, parse_setting

    given = {name: value for name, value in flags.items() if value is not None}
    config = load_config(preset, config_file, {**dict(map(parse_setting, assignments)), **given})
    from labelmerge.processes import is_first

    for line in config.summary() if is_first() else ():
        click.echo(line, err=as_json)
    if not is_first():
        logging.getLogger("labelmerge").setLevel(logging.WARNING)

    from labelmerge.train.loop import train
    from labelmerge.train.processes import OtherProcessFailed

    try:
        result = train(shards, bank, out, config=config, split=split, device=device, track=options.track)
    except OtherProcessFailed:
        raise click.exceptions.Exit(1) from None
    except KeyboardInterrupt:
        if not is_first():
            raise click.exceptions.Exit(1) from None
        from labelmerge.model.checkpoint import newest_checkpoint

        none = newest_checkpoint(out) is None
        goes_on = "begins anew: no checkpoint was due yet" if none else "goes on from the newest checkpoint"
        raise LabelmergeError("interrupted", where=out, fix=f"The same command {goes_on}") from None
    if not is_first():
        return
    run = shlex.quote(str(out))
    # Label vectors that are not the bank's own lie in the checkpoint.
    own_bank = bank if config.merge == "embedding" and not config.mapping else result.checkpoint / "bank"
    options.say(
        {
            "run": str(result.run),
            "steps": result.steps,
            "final_loss": result.final_loss,
            "checkpoint": str(result.checkpoint),
            "seconds": round(result.seconds, 3),
            "skipped": result.skipped,
        },
        as_json,
        f"{options.counted(result.steps, 'step')}, loss {result.final_loss:.3f}, {result.seconds:.0f} s"
        + (f", {options.counted(result.skipped, 'corrupt sample')} replaced" if result.skipped else "")
        + f": {result.checkpoint} and {out / 'curves.png'}. "
        f"Next: labelmerge eval --checkpoint {run} --shards DIR --bank {shlex.quote(str(own_bank))} "
        f"--out {shlex.quote(str(out / 'results.json'))}",
    )
