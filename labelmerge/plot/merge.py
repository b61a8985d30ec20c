"""The merge report as files: a page to read, a table to sort, JSON for programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from labelmerge.embed.similarity import MergeReport
from labelmerge.files import write_json, write_text
from labelmerge.plot.similarity import dataset_colours

CSV_HEADER = ("group", "name", "labels", "lowest_cosine", "dataset", "index", "label", "text")


def write_merge_report(report: MergeReport, out: Path) -> None:
    """Write ``merge.html`` (self-contained), ``merge.csv`` (a row per label; group 0 = alone) and ``merge.json``.

    Raises:
        OutputError: the files can't be written.
    """
    write_json(out / "merge.json", report.to_json())
    write_text(out / "merge.csv", merge_table(report))
    write_text(out / "merge.html", merge_page(report))


def merge_table(report: MergeReport) -> str:
    """The groups as CSV with the columns `CSV_HEADER`; labels that are alone have group 0."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for number, group in enumerate(report.groups, start=1):
        about = (number, group.name, len(group.members), f"{group.lowest:.4f}")
        writer.writerows((*about, m.dataset, m.index, m.name, m.text) for m in group.members)
    writer.writerows((0, "", 1, "", m.dataset, m.index, m.name, m.text) for m in report.alone)
    return out.getvalue()


def merge_page(report: MergeReport) -> str:
    """The report as one HTML page that needs nothing else."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labelmerge.plot", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("merge.html.j2").render(
        report=report, labels=sum(report.datasets.values()), colours=dataset_colours(list(report.datasets))
    )
