"""`labelmerge merge`: an embedding bank → which labels mean the same, and which clash."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command("merge")
@options.bank()
@options.out_folder("Where merge.html, merge.csv and merge.json go.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    metavar="T",
    help="The cosine from which on two labels mean the same; default: the one that only 1 in 1000 pairs of labels of "
    "one and the same dataset exceed.",
)
@options.as_json
def command(bank: Path, out: Path, threshold: float | None, as_json: bool) -> None:
    """Report which labels mean the same, and which clash.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge merge --bank bank --out merge
    """
    from labelmerge.embed.bank import Bank
    from labelmerge.embed.similarity import merge_groups
    from labelmerge.plot.merge import write_merge_report

    report = merge_groups(Bank.load(bank), threshold)
    write_merge_report(report, out)
    merged = sum(len(group.members) for group in report.groups)
    options.say(
        report.to_json(),
        as_json,
        f"{sum(report.datasets.values())} labels: {merged} merged into {len(report.groups)}, {len(report.alone)} alone "
        f"(cosine {report.threshold:.3f})\n"
        f"To check: {len(report.same_name)} same names apart, {len(report.other_name)} different names together, "
        f"{len(report.near_misses)} near misses, {len(report.same_dataset)} pairs of one dataset hard to tell apart\n"
        f"Made {out / 'merge.html'}, merge.csv and merge.json",
    )
