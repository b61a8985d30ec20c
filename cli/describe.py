"""`labelmerge describe`: names -> descriptions."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from labelmerge.catalog import Recipe, load_descriptions, load_recipe
from labelmerge.errors import DescriptionsError, UsageError

from . import options


@click.command("describe")
@click.argument("datasets", shell_complete=options.complete.datasets, nargs=-1, required=True, metavar="DATASET…")
@click.option(
    "--from",
    "source",
    type=click.Choice(["curated", "wikipedia"]),
    default="curated",
    show_default=True,
    help="The descriptions that ship with labelmerge, or the opening sentences of Wikipedia articles.",
)
@click.option("--out", type=options.folder, metavar="DIR", help="Where to write <dataset>.csv; needed unless --lint.")
@click.option("--force", is_flag=True, help="Replace descriptions in DIR even if they were edited.")
@click.option(
    "--contact",
    metavar="TEXT",
    help="Your e-mail address or URL, which Wikipedia's rules ask for; or set LABELMERGE_CONTACT.",
    envvar="LABELMERGE_CONTACT",
)
@click.option(
    "--language", metavar="CODE", help="Language of Wikipedia: en (default), de, pt, zh-yue …; titles stay English."
)
@click.option(
    "--follow-redirects", is_flag=True, help="Use the article that a title redirects to, instead of reporting it."
)
@click.option("--again", is_flag=True, help="Fetch everything again, even what an earlier run into DIR has fetched.")
@click.option("--lint", "check", is_flag=True, help="Write nothing; list what is wrong with the descriptions.")
@click.option(
    "--max-tokens",
    type=options.WholeNumber(min=10),
    metavar="N",
    help="Longest sentence, with its prompt; default: 60 (CLIP reads 77).",
)
@click.option(
    "--encoder",
    shell_complete=options.complete.encoder,
    metavar="SPEC",
    help="With --lint: count tokens as this encoder does, not as CLIP does.",
)
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    datasets: tuple[str, ...],
    source: str,
    out: Path | None,
    force: bool,
    contact: str | None,
    language: str | None,
    follow_redirects: bool,
    again: bool,
    check: bool,
    max_tokens: int | None,
    encoder: str | None,
    as_json: bool,
) -> None:
    """Write what the labels of a dataset mean.

    DATASET is a name (`labelmerge ls` shows them), the path of a recipe of your own, a mixture such as mseg7, or `all`.
    Edit the files as you like and give their folder to `labelmerge embed --descriptions`; a file needs only the rows
    that differ from ours. --lint checks the shipped descriptions, or those in --out; the exit status is 1 if any is at
    fault.

    Wikipedia's answers are kept in DIR/.wikipedia, so an interrupted run resumes where it stopped.

    \b
    Example:
      labelmerge describe cityscapes camvid --out words
      labelmerge describe cityscapes --from wikipedia --contact me@example.org --out words
      labelmerge describe cityscapes --lint --out words
    """
    from labelmerge.embed.datasets import expand

    names = [name for given in datasets for name in expand(given)]
    recipes = [load_recipe(name) for name in dict.fromkeys(names)]
    if encoder and not check:
        raise UsageError("--encoder goes with --lint; to embed with it, use `labelmerge embed --encoder`")
    if source != "wikipedia" and (language or follow_redirects or again):
        raise UsageError("--language, --follow-redirects and --again go with --from wikipedia")
    if check and (source == "wikipedia" or force):
        raise UsageError("--lint writes nothing, so --from wikipedia and --force don't go with it")
    if max_tokens is not None and not check and source != "wikipedia":
        raise UsageError("--max-tokens goes with --lint or --from wikipedia")
    limit = {} if max_tokens is None else {"max_tokens": max_tokens}
    if check:
        context.exit(_lint(recipes, out, encoder, limit, as_json))
    if out is None:
        raise UsageError("where to write is missing", fix="Give --out DIR")
    if source == "wikipedia":
        if not contact:
            raise UsageError(
                "Wikipedia's rules ask whom to write to when a program misbehaves",
                fix="Give --contact with your e-mail or URL, or set LABELMERGE_CONTACT",
            )
        asked = {"language": language} if language else {}
        flags = {"follow_redirects": follow_redirects, "again": again, "force": force}
        _refresh(recipes, out, as_json, contact=contact, **asked, **flags, **limit)
    else:
        _copy(recipes, out, force, as_json)


def _copy(recipes: list[Recipe], out: Path, force: bool, as_json: bool) -> None:
    from labelmerge.describe.curated import write_curated

    paths = write_curated(recipes, out, force=force)
    result, last = _summary(recipes, out, paths)
    options.say(result, as_json, last)


def _refresh(recipes: list[Recipe], out: Path, as_json: bool, **settings: Any) -> None:
    from labelmerge.describe.wikipedia import refresh_from_wikipedia

    done = refresh_from_wikipedia(recipes, out, track=options.track, **settings)
    result, last = _summary(recipes, out, done.paths)
    lines = []
    by_reason = sorted(done.kept, key=lambda row: (row.dataset, row.reason))
    for (dataset, reason), group in groupby(by_reason, key=lambda row: (row.dataset, row.reason)):
        rows = list(group)
        lines.append(f"{dataset}: {len(rows)} kept as before, {reason}: {', '.join(row.name.strip() for row in rows)}")
    if any(row.ask for row in done.kept):
        lines.append(
            "To fetch one of these, write the exact title of its article into the wikipedia column of its row "
            f"in {out} and run again."
        )
    lines.append(f"{done.refreshed} from Wikipedia (CC BY-SA 4.0), {len(done.kept)} kept as before.")
    result |= {"refreshed": done.refreshed, "kept": [asdict(row) for row in done.kept]}
    options.say(result, as_json, "\n".join([*lines, last]))


def _summary(recipes: list[Recipe], out: Path, paths: list[Path]) -> tuple[dict[str, object], str]:
    rows = [row for recipe in recipes for row in load_descriptions(recipe, overrides=out)]
    empty = sum(not row.description.strip() for row in rows)
    result = {"written": [str(path) for path in paths], "labels": len(rows), "without_description": empty}
    files = f"{len(paths)} file{'s' * (len(paths) != 1)}"
    return result, f"Wrote {len(rows)} labels in {files} to {out}; {empty} of them have no description yet."


def _lint(recipes: list[Recipe], out: Path | None, encoder: str | None, limit: dict[str, int], as_json: bool) -> int:
    from labelmerge.describe.lint import lint

    settings: dict[str, Any] = dict(limit)
    if encoder:
        from labelmerge.encoders.encoders import load_encoder

        reader = load_encoder(encoder, "cpu")
        settings["count_tokens"] = lambda text: reader.count_tokens([text])[0][0]
        settings.setdefault("max_tokens", reader.max_tokens)
    if out is not None and not out.is_dir():
        raise UsageError("no such folder", where=out)
    lines: list[str] = []
    found: list[dict[str, object]] = []
    for recipe in recipes:
        try:
            rows = load_descriptions(recipe, overrides=out)
        except DescriptionsError as error:  # one dataset's unreadable file does not hide the faults of the others
            found.append({"dataset": recipe.name, "index": None, "name": None, "kind": "malformed", "what": str(error)})
            lines.append(f"{recipe.name} {error}")
            continue
        for problem in lint(rows, **settings):
            found.append({"dataset": recipe.name, **asdict(problem)})
            lines.append(f"{recipe.name} {problem.index} {problem.name!r} {problem.what}")
    names = {recipe.name for recipe in recipes}
    strays = sorted(str(path) for path in out.glob("*.csv") if path.stem not in names) if out else []
    if strays:
        lines.append(f"Not looked at, since it is named after no dataset that was asked for: {', '.join(strays)}")
    checked = ", ".join(recipe.name for recipe in recipes)
    lines.append(f"{len(found)} problem{'s' * (len(found) != 1)} in the descriptions of {checked}.")
    options.say({"problems": found, "not_looked_at": strays}, as_json, "\n".join(lines))
    return 1 if found else 0
