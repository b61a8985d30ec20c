"""`labelmerge merge`: an embedding bank → which labels mean the same, and which clash."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command("merge", cls=options.SpreadCommand)
@options.bank()
@options.out_folder("Where merge.html, merge.csv, merge.json and mapping.csv go.")
@click.option(
    "--shards",
    type=options.folder,
    multiple=True,
    metavar="DIR…",
    help="Folders that `shard` wrote: the report then says how many pixels and boxes each label has.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    metavar="T",
    help="The cosine from which on two labels mean the same; default: one that hardly any two labels of one and the "
    "same dataset reach.",
)
@options.seed
@options.as_json
def command(bank: Path, out: Path, shards: tuple[Path, ...], threshold: float | None, seed: int, as_json: bool) -> None:
    """Report which labels mean the same, and which clash.

    merge.html is the report to read. mapping.csv says which labels are one class: edit its column `group`, and
    `labelmerge train --merge table --mapping mapping.csv` trains with your word instead of the machine's.

    \b
    Example:
      labelmerge embed cityscapes camvid --encoder offline --out bank
      labelmerge merge --bank bank --out merge
      labelmerge merge --bank bank --shards shards-out --out merge
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.merge.counts import read_counts
    from labelmerge.merge.groups import merge_groups
    from labelmerge.merge.merge import write_merge_report
    from labelmerge.plot.merge_page.page import write_merge_page

    labels = Bank.load(bank)
    report = merge_groups(labels, threshold, read_counts(shards, labels) if shards else None)
    content = write_merge_report(report, labels, out)
    write_merge_page(report, labels, out / "merge.html", seed=seed, track=options.track)
    merged = sum(len(group.members) for group in report.groups)
    options.say(
        content,
        as_json,
        f"{options.counted(sum(report.datasets.values()), 'label')}: {merged} merged into {len(report.groups)}, "
        f"{len(report.alone)} alone (cosine {report.threshold:.3f})\n"
        f"To check: same names apart {len(report.same_name)}, different names together {len(report.other_name)}, "
        f"near misses {len(report.near_misses)}, pairs of one dataset hard to tell apart {len(report.same_dataset)}, "
        f"labels that cover others {len(report.covers)}\n"
        f"Made {out / 'merge.html'}, merge.csv, merge.json and mapping.csv",
    )
