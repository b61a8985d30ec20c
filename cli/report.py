"""`labelmerge report`: runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from labelmerge.text import aligned

from . import options


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=options.InputPath())
@options.out_folder("Where report.html and report.md go.")
@options.as_json
def command(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Put runs side by side: settings that differ, losses, speed, and what was measured.

    RUN is a folder that `train` wrote; results that `eval` wrote into it are found. RUN may also be a results.json
    from anywhere: it goes to the run whose checkpoint it is of, or stands for a run of its own.

    \b
    Example:
      labelmerge report runs/naive runs/name runs/embedding --out comparison
    """
    from labelmerge.compare.report import report_runs

    report = report_runs(runs, out)
    results = sum(len(run.results) for run in report.runs)
    lines = [f"Note: {note}" for note in report.notes]
    if results:
        first = report.tables[0]
        cells = [[f"{cell.text}*" if cell.best else cell.text for cell in row] for row in first.rows]
        lines += [*aligned([first.columns, *cells]), f"({first.about[0].lower()}{first.about[1:-1]} by *)", ""]
    page, text = report.paths
    counts = f"{len(report.runs)} run{'s' * (len(report.runs) != 1)}, {results} result{'s' * (results != 1)}"
    lines.append(f"Wrote {page} and {text.name}: {counts}")
    options.say(report.to_json(), as_json, "\n".join(lines))
