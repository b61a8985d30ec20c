"""`labelmerge compare`: train and measure variants of a run, and put them side by side."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelmerge.errors import LabelmergeError, UsageError
from labelmerge.text import aligned

from . import options
from .train import settings

if TYPE_CHECKING:
    from labelmerge.compare.compare import Outcome

_EVAL = "eval_"


@click.command("compare", cls=options.SpreadCommand)
@click.argument("name", required=False)
@options.shards("What all variants are trained on: folders that `shard` wrote.", required=False)
@options.bank(required=False)
@click.option(
    "--eval-shards",
    type=options.input_folder,
    multiple=True,
    metavar="DIR…",
    help="What all variants are measured on.  [required]",
)
@options.out_folder("Where the runs of the variants and the report go. The same command again does what is left.")
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY=VALUE",
    help="One variant: a setting of docs/training.md, or shards, bank, preset or config. Several keys give all "
    "combinations; KEY=VALUE+KEY=VALUE joins settings that go together.",
)
@click.option(
    "--with",
    "given",
    multiple=True,
    metavar="WHAT=VALUE",
    help="What the comparison NAME needs, such as the run to start from.",
)
@settings
@options.eval_option(
    "--eval-split",
    type=click.Choice(["train", "val", "test"]),
    help="Which split of each dataset to measure on; default: val, else test, else train.",
)
@options.eval_views
@options.eval_option(
    "--eval-task",
    multiple=True,
    type=click.Choice(["panoptic", "instances"]),
    help="Also measure PQ or AP, for sets and methods with segments.",
)
@options.eval_option(
    "--eval-mixed",
    is_flag=True,
    help="Also segment every set with one list of all sets' labels, where the method has such a list.",
)
@options.eval_option("--eval-only", metavar="NAMES", help='Measure these classes alone: "road, car, camvid:Sky".')
@options.eval_option("--eval-leave-out", metavar="NAMES", help="Measure all classes but these.")
@partial(options.depth_limits, option=options.eval_option, prefix="eval-")
@options.eval_option("--eval-limit", type=options.WholeNumber(min=1), metavar="N", help="At most N images of each set.")
@click.option(
    "--launcher",
    default="",
    metavar="COMMAND",
    help='Command to start `labelmerge` with, such as "torchrun --nproc-per-node 8 --no-python".',
)
@click.option("--print", "print_only", is_flag=True, help="Print the commands, one line per variant, and run nothing.")
@options.device
@options.as_json
def command(
    name: str | None,
    shards: tuple[Path, ...],
    bank: Path | None,
    eval_shards: tuple[Path, ...],
    out: Path,
    vary: tuple[str, ...],
    given: tuple[str, ...],
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    split: str,
    launcher: str,
    print_only: bool,
    device: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train and measure variants of a run, and put them side by side.

    Variants differ in nothing but what --vary says. Each has a folder of its own; it is trained as `train` would and
    measured as `eval` would, with the label vectors that it was trained with. `report` then puts them side by side.
    Everything is checked before the first variant begins. If one fails, the others still run; the same command again
    does what is left.

    NAME is a shipped comparison (table8: fine-tuning; table9: depth; usss: few labels; mdp: pretraining), or a TOML
    file of your own; --vary adds to it.

    \b
    Example:
      labelmerge compare --shards shards-out --bank bank --eval-shards shards-out/camvid shards-out/kitti \\
        --out table7 --vary merge=naive merge=name merge=table+taxonomy=groups.csv merge=text \\
        --preset segformer-b5 --eval-short-edge 720
      labelmerge compare --shards shards-out --bank bank --eval-shards shards-out/camvid --out table5 \\
        --vary losses=hd losses=hd,ld losses=hd,ld,wd
      labelmerge compare --shards shards-out --eval-shards shards-out/camvid --out table6 \\
        --vary bank=bank-words bank=bank
      labelmerge compare table8 --with run=merged --shards shards-out/nyuv2 --bank bank \\
        --eval-shards shards-out/nyuv2 --out table8 --epochs 100
    """
    from labelmerge.compare.asked import Comparison, asked_variants
    from labelmerge.compare.named import comparison_of, load_named

    named = None if name is None else load_named(name)
    asked = Comparison(
        out=out,
        vary=vary,
        eval_shards=eval_shards,
        shards=shards,
        bank=bank,
        preset=preset,
        config=config_file,
        split=split,
        device=device,
        settings={**dict(map(_assignment, assignments)), **_texts(flags)},
        eval_options={
            name.removeprefix(_EVAL): value
            for name, value in flags.items()
            if name.startswith(_EVAL) and value not in (None, False, (1.0,), ())
        },
    )
    if named is not None:
        asked = comparison_of(named, asked, dict(map(_given, given)))
    elif given:
        raise UsageError("--with needs the name of a comparison", fix="Leave it out")
    before = _words(launcher)
    if before and not print_only and shutil.which(before[0]) is None:
        raise UsageError(f"--launcher: there is no program {before[0]!r} here", fix="Is it installed, and in PATH?")
    asked_variants(asked)
    options.load_torch()
    from labelmerge.compare.compare import run_plan
    from labelmerge.compare.plan import make_plan

    plan = make_plan(asked, here=not print_only)
    if print_only:
        options.say(plan.to_json(), as_json, "\n".join(plan.lines(before)))
        return
    # The command of this very environment, wherever it is called from.
    script = shutil.which("labelmerge", path=Path(sys.executable).parent)
    program = [script] if script else [sys.executable, "-m", "labelmerge.cli"]
    try:
        outcomes = run_plan(plan, [*before, *program])
    except KeyboardInterrupt:
        click.echo(err=True)  # ends the line of a progress bar
        raise LabelmergeError("interrupted", where=out, fix="The same command goes on where it stopped") from None
    written = [path for path in (out / "report.html", out / "report.md") if path.is_file()]
    lines = [_table(outcomes), *([f"\nWrote {written[0]} and {written[1].name}"] if written[1:] else [])]
    options.say(
        {"variants": [outcome.to_json() for outcome in outcomes], "report": [str(path) for path in written]},
        as_json,
        "\n".join(lines),
    )
    if failed := [f"{outcome.job.variant.name} ({outcome.failed})" for outcome in outcomes if outcome.failed]:
        raise LabelmergeError(
            f"{len(failed)} of {options.counted(len(outcomes), 'variant')} failed: {', '.join(failed)}",
            where=out,
            fix="The same command tries again; what is done is not repeated",
        )


def _given(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--with {text!r} is not WHAT=VALUE", fix="For instance --with run=RUN")
    return name, value


def _assignment(text: str) -> tuple[str, str]:
    from labelmerge.settings import parse_setting

    key, _ = parse_setting(text)
    return key, text.partition("=")[2].strip()


def _texts(flags: dict[str, Any]) -> dict[str, str]:
    """The settings given by flags, in the form that --set takes."""
    from labelmerge.settings import parse_setting

    texts = {}
    for name, value in flags.items():
        if name.startswith(_EVAL) or value is None:
            continue
        text = json.dumps(value) if isinstance(value, bool) else str(value)
        # A path such as 2024 would be read as a number without quotes.
        reads_otherwise = isinstance(value, str) and parse_setting(f"{name}={text}")[1] != value
        texts[name] = json.dumps(value, ensure_ascii=False) if reads_otherwise else text
    return texts


def _words(launcher: str) -> list[str]:
    try:
        return shlex.split(launcher)
    except ValueError as error:
        raise UsageError(f"--launcher {launcher!r} can't be read as a shell would ({error})") from None


def _table(outcomes: list[Outcome]) -> str:
    outcomes = [outcome for outcome in outcomes if outcome.job.evaluate]
    sets = sorted({name for outcome in outcomes for name in outcome.miou})
    if any(outcome.abs_rel for outcome in outcomes):
        of_depths: list[tuple[str, ...]] = [("AbsRel %", *sets)]
        for outcome in outcomes:
            known = map(outcome.abs_rel.get, sets)
            of_depths.append((outcome.job.variant.name, *("-" if f is None else f"{100 * f:.1f}" for f in known)))
        return "\n".join(aligned(of_depths))
    rows = [("mIoU %", *sets, "harmonic mean")]
    for outcome in outcomes:
        figures = (*(outcome.miou.get(name) for name in sets), outcome.harmonic_mean)
        rows.append((outcome.job.variant.name, *("-" if f is None else f"{100 * f:.1f}" for f in figures)))
    return "\n".join(aligned(rows))
