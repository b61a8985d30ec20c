"""`labelmerge train`: one model on all the shards."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelmerge.errors import LabelmergeError
from labelmerge.settings import parse_setting
from labelmerge.train.config import (
    DEFAULT_PRESET,
    heading,
    load_config,
    preset_names,
    settings_by_group,
)

from . import options

if TYPE_CHECKING:
    from labelmerge.train.finished import RunResult


def settings(function: Any) -> Any:
    """`--preset`, `--config`, `--set`, `--split`, and a flag for each setting that has one: None where not given."""
    flags = {
        each.name: options.setting_flag(each, section=heading(group))
        for group, declared in settings_by_group().items()
        for each in declared
        if each.flag
    }
    presets = ", ".join([f"{DEFAULT_PRESET} (default)", *(name for name in preset_names() if name != DEFAULT_PRESET)])
    for option in (
        *reversed(flags.values()),
        click.option(
            "--split",
            shell_complete=options.complete.split,
            default="train",
            show_default=True,
            help="Which split of a dataset's folder.",
        ),
        click.option(
            "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any other setting of docs/training.md."
        ),
        click.option("--config", "config_file", type=options.existing_file, metavar="FILE", help="Settings, as TOML."),
        click.option(
            "--preset",
            metavar="NAME",
            shell_complete=options.complete.preset,
            help=f"Settings to start from: {presets}.",
        ),
    ):
        function = option(function)
    return function


@click.command("train", cls=options.SpreadCommand)
@options.shards()
@options.bank()
@options.out_folder("The run: checkpoints, log, curves. The same command again resumes it.")
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
    other options. Give the same command again to resume an interrupted run from its newest checkpoint. Under torchrun,
    the processes share every batch.

    \b
    Example:
      labelmerge train --shards shards-out --bank bank --out run --preset tiny --steps 300
      torchrun --nproc-per-node 8 --no-python labelmerge train --shards shards-out --bank bank --out run \\
        --preset segformer-b5
      labelmerge train --shards shards-out/nyuv2 --bank bank --out fine-tuned --preset segformer-b5 \\
        --init run --steps 20000 --set eval_sets=true
    """
    given = {name: value for name, value in flags.items() if value is not None}
    config = load_config(preset, config_file, {**dict(map(parse_setting, assignments)), **given})
    from labelmerge.processes import is_first

    logger = logging.getLogger("labelmerge")
    if not is_first():
        logger.setLevel(logging.WARNING)

    def show_settings() -> None:
        for line in (
            config.summary() if logger.isEnabledFor(logging.INFO) else ()
        ):  # neither --quiet nor another process
            options.echo(line, err=as_json)

    from labelmerge.model.checkpoint import newest_checkpoint
    from labelmerge.train.finished import finished_run

    if (done := finished_run(shards, bank, out, config, split)) is not None and "WORLD_SIZE" not in os.environ:
        logger.info("the run is finished: all %d steps are done, nothing to do", done.steps)
        _say(done, out, as_json)
        return

    begins = Path(config.init) if config.init and newest_checkpoint(out) is None else None
    if os.environ.get("WORLD_SIZE", "1") in ("", "1"):  # of several processes, one alone is to say it
        options.refuse_missing(shards, bank, begins)
    options.load_torch()
    from labelmerge.train.loop import train
    from labelmerge.train.processes import OtherProcessFailed

    try:
        result = train(
            shards, bank, out, config=config, split=split, device=device, found=show_settings, track=options.track
        )
    except OtherProcessFailed:
        raise click.exceptions.Exit(1) from None
    except KeyboardInterrupt:
        if not is_first():
            raise click.exceptions.Exit(1) from None
        none = newest_checkpoint(out) is None
        goes_on = "starts over: no checkpoint was due yet" if none else "resumes from the newest checkpoint"
        raise LabelmergeError("interrupted", where=out, fix=f"The same command {goes_on}") from None
    if is_first():
        _say(result, out, as_json)


def _say(result: RunResult, out: Path, as_json: bool) -> None:
    run = shlex.quote(str(out))
    options.say(
        {
            "run": str(result.run),
            "steps": result.steps,
            "final_loss": result.final_loss,
            "checkpoint": str(result.checkpoint),
            "seconds": round(result.seconds, 3),
            "skipped": result.skipped,
            "untaught": list(result.untaught),
        },
        as_json,
        f"{options.counted(result.steps, 'step')}, loss {result.final_loss:.3f}, {result.seconds:.0f} s"
        + (f", {options.counted(result.skipped, 'corrupt sample')} replaced" if result.skipped else "")
        + f": {result.checkpoint} and {out / 'curves.png'}. "
        f"Next: labelmerge eval --checkpoint {run} --shards DIR --out {shlex.quote(str(out / 'results.json'))}",
    )
