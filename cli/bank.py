"""`labelmerge bank`: what an embedding bank holds, what changed, and what goes in and out of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelmerge.errors import UsageError
from labelmerge.text import aligned
from labelmerge.urls import path_or_url

from . import options

if TYPE_CHECKING:
    from labelmerge.bank.bank import Bank
    from labelmerge.bank.versions import Change, Difference, Label

_MAX_SHOWN = 5
_MAX_LABELS = 10
_VERSION = re.compile(r"v?\d+(-[0-9a-f]+)?")


class _OfBank(click.Command):
    """A command on a BANK, which is that of labelmerge.toml or LABELMERGE_BANK where no word is one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = ctx.lookup_default("bank")
        named = any((Path(arg) / "bank.json").is_file() or options.is_url(arg) for arg in args)
        if own is not None and not named:
            args = [str(own), *args]
            named = True
        asked = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.MissingParameter as error:
            if error.param is not None and error.param.name == "bank":
                raise UsageError("no bank is named", fix=_which_bank(ctx, asked)) from error
            raise
        bank = ctx.params.get("bank")
        if not named and bank is not None and _VERSION.fullmatch(str(bank)) and not bank.exists():
            raise UsageError("no bank is named", fix=_which_bank(ctx, asked))
        return rest


def _which_bank(ctx: click.Context, args: Sequence[str]) -> str:
    """How to name the bank: the one that lies here, where it is alone."""
    here = sorted(file.parent.name for file in Path().glob("*/bank.json"))
    bank = here[0] if len(here) == 1 else "BANK"
    lie = f"Here lie {', '.join(here)}. " if len(here) > 1 else ""
    return (
        f"{lie}Give its folder, `{ctx.command_path} {shlex.join([bank, *args])}`, or name it once for all commands in "
        f'labelmerge.toml: bank = "{bank}"'
    )


_bank = click.argument("bank", type=options.input_folder)
_version = click.option("--version", metavar="VERSION", help="In full, v0002 or 2; default: the newest.")


@click.group("bank", cls=options.Group)
def command() -> None:
    """Look into an embedding bank, and move vectors in and out of it.

    BANK is the folder that `embed` wrote. A version is named in full or by its number, v0002.

    \b
    Example:
      labelmerge bank list bank
      labelmerge bank diff bank v0001 v0002
      labelmerge bank export bank --out vectors.npy
      labelmerge bank prune bank --keep 3 --check
    """


@command.command("list", cls=_OfBank)
@_bank
@options.as_json
def list_command(bank: Path, as_json: bool) -> None:
    """List the versions of a bank, newest last."""
    from labelmerge.bank.versions import list_versions

    versions = list_versions(bank)
    rows: list[tuple[str, ...]] = [("version", "labels", "datasets", "dim", "size", "encoder", "prompt")]
    for version in versions:
        size = "gone" if version.bytes is None else _size(version.bytes)
        prompt = version.prompt[0] + (f" (and {len(version.prompt) - 1} more)" if len(version.prompt) > 1 else "")
        numbers = (str(version.labels), str(len(version.datasets)), str(version.dim))
        rows.append((version.version, *numbers, size, version.encoder, prompt))
    lines = aligned(rows, left=len(rows[0]))
    text = (
        "\n".join(lines)
        + f"\n{options.counted(len(versions), 'version')} in {path_or_url(bank)}; commands use the last"
    )
    options.say({"versions": [version.to_json() for version in versions]}, as_json, text)


@command.command("show", cls=_OfBank)
@_bank
@click.argument("number", required=False, metavar="[VERSION]")
@_version
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Also show the texts of its labels.")
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL", help="Only the texts of a NAME, DATASET:NAME or DATASET:INDEX."
)
@options.as_json
def show_command(
    bank: Path,
    number: str | None,
    version: str | None,
    datasets: tuple[str, ...],
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what a version holds, and what made it.

    \b
    Example:
      labelmerge bank show bank 2
      labelmerge bank show bank --label car --label camvid:Road
    """
    from labelmerge.bank.bank import Bank
    from labelmerge.bank.versions import summarise

    if number is not None and version is not None:
        raise UsageError(f"two versions are named, {number} and {version}")
    loaded = Bank.load(bank, version or number)
    if labels:
        _show_labels(loaded.for_datasets(datasets) if datasets else loaded, loaded.version, labels, as_json)
        return
    about = summarise(loaded)
    chosen = loaded.for_datasets(datasets) if datasets else None
    lines = [
        f"version      {about.version}",
        f"encoder      {about.encoder}",
        *(f"  {name:<15}{_value(value)}" for name, value in about.identity.items() if name != "spec"),
        *(f"{'prompt' if not place else '':<13}{prompt}" for place, prompt in enumerate(about.prompt)),
        f"vectors      {about.vectors} of {about.dim} dimensions"
        + (" (each sentence of a label has its own)" if about.several == "keep" else ""),
        f"labels       {about.labels} with {about.texts} distinct texts, {about.shared} as in another dataset",
        *(f"  {name:<15}{count}" for name, count in about.datasets.items()),
    ]
    if about.longest:
        lines.append(f"longest      {about.longest} tokens")
    if about.missing_descriptions:
        lines.append(f"undescribed  {about.missing_descriptions} have only the bare prompt")
    if cut := about.truncated_labels:
        shown = ", ".join(cut[:_MAX_SHOWN]) + (", …" if len(cut) > _MAX_SHOWN else "")
        lines.append(f"cut          {len(cut)} have a text longer than the encoder reads: {shown}")
    result = about.to_json()
    if chosen is not None:
        result["rows"] = _rows(chosen, range(len(chosen)))
        lines += [_label(row) for row in result["rows"]]
    options.say(result, as_json, "\n".join(lines))


def _show_labels(bank: Bank, version: str, labels: tuple[str, ...], as_json: bool) -> None:
    from labelmerge.merge.neighbours import find_rows

    places = dict.fromkeys(row for label in labels for row in find_rows(bank, label))
    rows = _rows(bank, places)
    texts = len({row["text"] for row in rows})
    last = f"{options.counted(len(rows), 'label')} with {options.counted(texts, 'distinct text')} in {version}"
    options.say({"version": version, "rows": rows}, as_json, "\n".join([*map(_label, rows), f"\n{last}"]).lstrip())


def _rows(bank: Bank, places: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {
            "dataset": bank.keys[row][0],
            "index": bank.keys[row][1],
            "name": bank.names[row],
            "tokens": bank.tokens[row],
            "truncated": bank.truncated[row],
            "text": bank.texts[row],
        }
        for row in places
    ]


def _label(row: dict[str, Any]) -> str:
    return f"\n{row['dataset']} {row['index']} {row['name']}\n{_indented(row['text'])}"


@command.command("diff", cls=_OfBank)
@_bank
@click.argument("old", required=False)
@click.argument("new", required=False)
@options.as_json
def diff_command(bank: Path, old: str | None, new: str | None, as_json: bool) -> None:
    """Show what changed from version OLD to version NEW.

    By default the newest version is compared with the one before it. The cosine says how far a label's vector moved: 1
    is not at all.
    """
    from labelmerge.bank.versions import compare, two_versions

    found = compare(*two_versions(bank, old, new))
    options.say(found.to_json(), as_json, "\n".join(_difference(found)))


def _difference(found: Difference) -> list[str]:
    lines = []
    for name, (ours, theirs) in found.about.items():
        lines += [f"{name}:", _indented(ours, "  - "), _indented(theirs, "  + ")]
    if not found.comparable:
        lines.append("Another encoder made each of the two: how far vectors moved can't be said")
    lines += _one_sided("+", found.added)
    lines += _one_sided("-", found.removed)
    for change in found.edited:
        name = change.name if change.name == change.old_name else f"{change.old_name} -> {change.name}"
        lines.append(f"~ {change.dataset} {change.index} {name}{_moved(change)}")
        if change.old_text != change.text:
            lines += [_indented(change.old_text, "    - "), _indented(change.text, "    + ")]
    if found.comparable:
        lines += [
            f"> {change.dataset} {change.index} {change.name}{_moved(change)}, the text is the same"
            for change in found.moved
        ]
    moved = f", {len(found.moved)} with another vector for the same text" if found.moved else ""
    lines.append(
        f"{found.old} -> {found.new}: {len(found.added)} added, {len(found.removed)} removed, "
        f"{len(found.edited)} edited{moved}, {found.unchanged} unchanged"
    )
    return lines


def _one_sided(sign: str, labels: tuple[Label, ...]) -> list[str]:
    """A line for each label; only their number for a dataset with many."""
    lines = []
    for dataset in dict.fromkeys(label.dataset for label in labels):
        own = [label for label in labels if label.dataset == dataset]
        if len(own) > _MAX_LABELS:
            lines.append(f"{sign} {dataset}: {len(own)} labels")
        else:
            lines += [f"{sign} {dataset} {label.index} {label.name}" for label in own]
    return lines


def _moved(change: Change) -> str:
    return "" if change.cosine is None else f"  cosine {change.cosine:.4f}"


@command.command("export", cls=_OfBank)
@_bank
@options.out_file("vectors.npy (with vectors.names.csv beside it), vectors.safetensors or vectors.csv.")
@_version
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Only the labels of this dataset.")
@options.as_json
def export_command(bank: Path, out: Path, version: str | None, datasets: tuple[str, ...], as_json: bool) -> None:
    """Write label vectors for other programs."""
    from labelmerge.bank.bank import Bank
    from labelmerge.bank.exchange import export_bank

    loaded = Bank.load(bank, version)
    chosen = loaded.for_datasets(datasets) if datasets else loaded
    files = export_bank(chosen, out)
    options.say(
        {"version": loaded.version, "labels": len(chosen), "dim": chosen.dim, "files": [str(path) for path in files]},
        as_json,
        f"Wrote {options.counted(len(chosen), 'vector')} of {chosen.dim} dimensions ({loaded.version}) "
        f"to {' and '.join(map(str, files))}",
    )


@command.command("import")
@click.argument("vectors", type=options.existing_file)
@click.option(
    "--names",
    type=options.existing_file,
    required=True,
    metavar="FILE",
    help="What the rows are: a CSV with the columns name and, if there are any, dataset, index and text; or one name a "
    "line.",
)
@options.out_folder("The bank: a folder, created if needed.")
@click.option(
    "--made-by", required=True, metavar="WORDS", help="What made the vectors; a bank holds vectors of one origin only."
)
@click.option("--dataset", metavar="NAME", help="The dataset of all rows, if the names file doesn't give one.")
@click.option("--normalise", is_flag=True, help="Scale vectors to unit length; otherwise other lengths are refused.")
@options.as_json
def import_command(
    vectors: Path, names: Path, out: Path, made_by: str, dataset: str | None, normalise: bool, as_json: bool
) -> None:
    """Put label vectors from elsewhere, a .npy file, into a bank.

    \b
    Example:
      labelmerge bank import vectors.npy --names vectors.names.csv --made-by "my encoder" --out my_bank
    """
    from labelmerge.bank.exchange import import_vectors

    done = import_vectors(vectors, names, out, made_by=made_by, dataset=dataset, normalise=normalise)
    rescaled = f", {done.rescaled} of them brought to unit length" if done.rescaled else ""
    options.say(
        {**done.to_json(), "out": str(out)},
        as_json,
        f"{options.counted(done.labels, 'vector')} of {done.dim} dimensions{rescaled}\n"
        f"{options.made(done.new, done.back)} {done.version} in {out}",
    )


@command.command("prune", cls=_OfBank)
@click.argument("bank", type=options.folder)
@click.argument("versions", nargs=-1, metavar="[VERSION...]")
@click.option("--keep", type=options.WholeNumber(min=1), metavar="N", help="Remove all but the N newest versions.")
@click.option("--check", is_flag=True, help="Only say what would be removed.")
@options.as_json
def prune_command(bank: Path, versions: tuple[str, ...], keep: int | None, check: bool, as_json: bool) -> None:
    """Remove old versions, and what interrupted runs left behind.

    The newest version always stays. Runs lose nothing: each checkpoint carries the version that it was trained with.
    """
    from labelmerge.bank.versions import prune

    if not versions and keep is None:
        raise click.UsageError("Say which versions to remove, or how many to keep with --keep N.")
    done = prune(bank, keep, versions, check=check)
    would = "" if done.done else "would be "
    lines = [f"{name} {would}removed" for name in (*done.removed, *done.leftovers)]
    stay = f"{options.counted(len(done.kept), 'version')} {'stays' if len(done.kept) == 1 else 'stay'}"
    lines.append(f"{_size(done.bytes)} {would}freed, {stay} in {bank}")
    options.say(done.to_json(), as_json, "\n".join(lines))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "-"
    return "-" if value is None else str(value)


def _indented(text: str, mark: str = "    ") -> str:
    return "\n".join(mark + line for line in text.split("\n"))
