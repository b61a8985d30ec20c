"""`labelmerge describe`: names -> descriptions."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import click

from labelmerge.catalog import Recipe, dataset_names, load_descriptions, load_recipe
from labelmerge.errors import UsageError

from . import options


@click.command("describe")
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET…")
@click.option(
    "--from",
    "source",
    type=click.Choice(["curated", "wikipedia"]),
    default="curated",
    show_default=True,
    help="Our own words, which ship with labelmerge, or the opening sentences of Wikipedia articles.",
)
@click.option("--out", type=options.folder, metavar="DIR", help="Where to write <dataset>.csv; needed unless --lint.")
@click.option("--force", is_flag=True, help="Replace descriptions in DIR that somebody wrote or changed.")
@click.option(
    "--contact",
    metavar="TEXT",
    help="Your e-mail or URL, sent to Wikipedia, whose rules ask for it.",
    envvar="LABELMERGE_CONTACT",
)
@click.option("--lint", "check", is_flag=True, help="Write nothing; list what is wrong with the descriptions.")
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    datasets: tuple[str, ...],
    source: str,
    out: Path | None,
    force: bool,
    contact: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Write what the labels of a dataset mean.

    DATASET is a name (`labelmerge ls` shows them), the path of a recipe of your own, or `all`. Edit the files as you
    like and give their folder to `labelmerge embed --descriptions`. With --lint, the descriptions in --out count
    before the shipped ones.

    \b
    Example:
      labelmerge describe cityscapes camvid --out words
      labelmerge describe cityscapes --from wikipedia --contact me@example.org --out words
      labelmerge describe cityscapes --lint --out words
    """
    names = [name for given in datasets for name in (dataset_names() if given == "all" else [given])]
    recipes = [load_recipe(name) for name in dict.fromkeys(names)]
    if check:
        context.exit(_lint(recipes, out, as_json))
    if out is None:
        raise UsageError("where to write is missing", fix="Give --out DIR")
    if source == "wikipedia":
        _refresh(recipes, out, contact, force, as_json)
    else:
        _copy(recipes, out, force, as_json)


def _copy(recipes: list[Recipe], out: Path, force: bool, as_json: bool) -> None:
    from labelmerge.describe.curated import write_curated

    paths = write_curated(recipes, out, force=force)
    result, last = _summary(recipes, out, paths)
    options.say(result, as_json, last)


def _refresh(recipes: list[Recipe], out: Path, contact: str | None, force: bool, as_json: bool) -> None:
    from labelmerge.describe.wikipedia import refresh_from_wikipedia

    done = refresh_from_wikipedia(recipes, out, contact=contact, force=force, track=options.track)
    result, last = _summary(recipes, out, done.paths)
    lines = []
    by_reason = sorted(done.kept, key=lambda row: (row.dataset, row.reason))
    for (dataset, reason), group in groupby(by_reason, key=lambda row: (row.dataset, row.reason)):
        rows = list(group)
        lines.append(f"{dataset}: {len(rows)} kept as before, {reason}: {', '.join(row.name.strip() for row in rows)}")
    lines.append(f"{done.refreshed} from Wikipedia (CC BY-SA 4.0), {len(done.kept)} kept as before.")
    result |= {"refreshed": done.refreshed, "kept": [asdict(row) for row in done.kept]}
    options.say(result, as_json, "\n".join([*lines, last]))


def _summary(recipes: list[Recipe], out: Path, paths: list[Path]) -> tuple[dict[str, object], str]:
    rows = [row for recipe in recipes for row in load_descriptions(recipe, overrides=out)]
    empty = sum(not row.description.strip() for row in rows)
    result = {"written": [str(path) for path in paths], "labels": len(rows), "without_description": empty}
    files = f"{len(paths)} file{'s' * (len(paths) != 1)}"
    return result, f"Wrote {len(rows)} labels in {files} to {out}; {empty} of them have no description yet."


def _lint(recipes: list[Recipe], out: Path | None, as_json: bool) -> int:
    from labelmerge.describe.lint import lint

    found = [(recipe.name, problem) for recipe in recipes for problem in lint(load_descriptions(recipe, overrides=out))]
    lines = [f"{dataset} {problem.index} {problem.name!r} {problem.what}" for dataset, problem in found]
    checked = ", ".join(recipe.name for recipe in recipes)
    lines.append(f"{len(found)} problem{'s' * (len(found) != 1)} in the descriptions of {checked}.")
    result = {"problems": [{"dataset": dataset, **asdict(problem)} for dataset, problem in found]}
    options.say(result, as_json, "\n".join(lines))
    return 1 if found else 0
