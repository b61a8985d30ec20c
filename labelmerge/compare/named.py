"""Comparisons by name: what papers and docs/methods.md put side by side, each one command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from labelmerge.catalog import UNLABELED
from labelmerge.compare.asked import Comparison, First, config_of, with_firsts
from labelmerge.compare.variants import INPUTS, Variant, find_variants
from labelmerge.errors import ConfigError, UsageError, did_you_mean
from labelmerge.evaluate.sets import open_sets
from labelmerge.files import read_text
from labelmerge.parsing import parse_toml
from labelmerge.settings import parse_setting
from labelmerge.shardset.shardset import ShardSet
from labelmerge.shardset.splits import find_splits
from labelmerge.train.config import load_config

_KEYS = {"about": str, "vary": list, "needs": dict, "settings": dict, "first": list}
_KEYS_OF_FIRST = {"name": str, "shards": str, "each": bool, "settings": dict}
_PLACE = re.compile(r"\{([\w-]+)\}")


@dataclass(frozen=True)
class Named:
    """A comparison as a TOML file says it; ``{NAME}`` in its values is what a user gave by that name, or the folder of
    a run that is trained first.

    Attributes:
        name: what the user called it.
        about: what is compared, in a sentence or two.
        vary: as ``--vary`` takes it.
        needs: what the user must give, by name, and what that is.
        settings: of all variants, by name; those that the user gives come before them.
        first: the runs that are trained first: `name`; `shards`, with commas; or `each`: one for each dataset of the
            comparison that has labels, measured on that; and `settings`.
    """

    name: str
    about: str
    vary: tuple[str, ...]
    needs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    first: tuple[Mapping[str, Any], ...] = ()


def names_of_comparisons() -> list[str]:
    """The comparisons that ship, sorted."""
    folder = files("labelmerge.compare").joinpath("named")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_named(name: str) -> Named:
    """A shipped comparison by its name, or a user's own by its path.

    Raises:
        UsageError: no comparison has that name.
        ConfigError: the file can't be read, or is of another form.
    """
    if name.endswith(".toml"):
        text = read_text(Path(name), ConfigError)
    elif name in (known := names_of_comparisons()):
        text = files("labelmerge.compare").joinpath("named", f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UsageError(f"no comparison is called {name!r}", fix=did_you_mean(name, known))
    try:
        content = parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"is not TOML ({error})", where=name) from None
    firsts = content.get("first", [])
    wrong = _wrong(content, _KEYS, "")
    if isinstance(firsts, list):
        wrong += [fault for first in firsts for fault in _wrong(first, _KEYS_OF_FIRST, "first: ")]
        wrong += ["first: no name" for first in firsts if isinstance(first, dict) and "name" not in first]
    if not wrong and not content.get("vary"):
        wrong.append("nothing varies: `vary` is missing")
    if wrong:
        raise ConfigError("; ".join(wrong), where=name, fix='docs/evaluation.md, "Comparisons by name"')
    rest = {key: content[key] for key in ("needs", "settings") if key in content}
    return Named(name, content.get("about", ""), tuple(map(str, content["vary"])), **rest, first=tuple(firsts))


def _wrong(content: Any, known: Mapping[str, type], at: str) -> list[str]:
    if not isinstance(content, dict):
        return [f"{at}not a table"]
    faults = [f"{at}unknown key {key!r}" for key in content if key not in known]
    return faults + [
        f"{at}{key} must be a {kind.__name__}"
        for key, kind in known.items()
        if key in content and not isinstance(content[key], kind)
    ]


def comparison_of(named: Named, asked: Comparison, given: Mapping[str, str]) -> Comparison:
    """What a user asked for, and what the comparison of that name adds.

    Args:
        asked: its `vary` comes after the comparison's own, its settings in their place.
        given: what the user gave by name.

    Raises:
        UsageError: something is missing, or nobody needs it.
        ConfigError: the file names a run that it doesn't train.
        ShardError: shards can't be read.
    """
    for name, what in named.needs.items():
        if not given.get(name):
            raise UsageError(f"{named.name} needs {what}", fix=f"Give it: --with {name}=…")
    if unknown := [name for name in given if name not in named.needs]:
        fix = did_you_mean(unknown[0], named.needs) if named.needs else "Leave it out"
        raise UsageError(f"{named.name} needs no {unknown[0]!r}", fix=fix)
    places = dict(given)
    firsts: list[First] = []
    swept = _swept(named, asked)
    for first in named.first:
        if not first.get("shards") and any("shards" in each.own for each in swept):
            raise UsageError(f"{named.name} trains on --shards first, so shards can't vary", fix="Give --shards")
        own = _for_all(first, swept, asked, partial(_filled, places=dict(places), where=named.name), firsts)
        places[first["name"]] = ",".join(dict.fromkeys(str(asked.out / run.called) for run in own))
        firsts += own
    varied = {part.partition("=")[0] for text in asked.vary for part in re.split(r"\+(?=\w+=)", text)}
    settings = {key: _text(value) for key, value in named.settings.items() if key not in varied}
    vary = [_filled(text, places, named.name) for text in named.vary]
    return replace(asked, vary=[*vary, *asked.vary], settings={**settings, **asked.settings}, first=firsts)


def _swept(named: Named, asked: Comparison) -> list[Variant]:
    """What the user lets vary besides the comparison's own: each combination."""
    own = {text.partition("=")[0] for text in named.vary}
    more = [text for text in asked.vary if text.partition("=")[0] not in own]
    return find_variants(more) if more else [Variant("", {})]


def _for_all(
    first: Mapping[str, Any],
    swept: Sequence[Variant],
    asked: Comparison,
    fill: Callable[[str], str],
    before: Sequence[First],
) -> list[First]:
    """The runs of one `first` for all that is swept: one where that changes nothing of it, else one for each value."""
    found: dict[str, dict[str, list[tuple[Variant, First]]]] = {}  # by name, then by what is computed
    for each in swept:
        inputs = {key: text for key, text in each.own.items() if key in INPUTS and key != "shards"}
        settings = {key: text for key, text in each.own.items() if key not in INPUTS}
        for run in _runs(first, replace(asked, settings={**asked.settings, **settings}), fill):
            own = with_firsts(run.settings, each.own, before, asked.out)
            run = replace(run, settings=own, inputs=inputs, called=run.name)
            found.setdefault(run.name, {}).setdefault(_computed(run, asked), []).append((each, run))
    return [
        replace(
            runs[0][1],
            name=f"{name}+{runs[0][0].name.replace(',', '-')}" if len(different) > 1 else name,  # commas part runs
            serves=[each.own for each, _ in runs],
        )
        for name, different in found.items()
        for runs in different.values()
    ]


def _computed(run: First, asked: Comparison) -> str:
    """What two runs have in common that compute the same."""
    try:
        settings: Mapping[str, Any] = config_of(replace(asked, settings=run.settings), run.inputs).to_dict()
    except ConfigError:  # said when the run is planned
        settings = run.settings
    return json.dumps([settings, list(map(str, run.shards)), run.inputs.get("bank")], sort_keys=True, default=str)


def _runs(first: Mapping[str, Any], asked: Comparison, fill: Callable[[str], str]) -> list[First]:
    """The run of one `first`, or its runs where there is one for each dataset."""
    own = {key: fill(_text(value)) for key, value in first.get("settings", {}).items()}
    folders = [Path(folder) for folder in fill(first.get("shards", "")).split(",") if folder] or asked.shards
    datasets: dict[str, list[Path]] = {}
    labelled = set()
    for split in find_splits(folders, asked.split, also=UNLABELED):
        opened = ShardSet.open(split)
        datasets.setdefault(opened.dataset, []).append(split)
        labelled |= {opened.dataset} if opened.annotation_type != "image" else set()
    if not first.get("each"):
        return [First(f"first/{first['name']}", folders, {**asked.settings, **_labelled(asked, set(datasets)), **own})]
    sets = open_sets(asked.eval_shards, [], asked.eval_options.get("split"))
    return [
        First(
            f"first/{first['name']}-{dataset}",
            splits,
            {**asked.settings, **_labelled(asked, {dataset}), **own},
            tuple(Path(each.where) for each in sets if each.dataset == dataset),
        )
        for dataset, splits in datasets.items()
        if dataset in labelled  # images without labels teach nothing alone
    ]


def _labelled(asked: Comparison, datasets: set[str]) -> dict[str, str]:
    """The setting `labelled`, of these datasets alone; {} where nobody asked for it."""
    texts = [f"{key}={text}" for key, text in asked.settings.items() if key == "labelled"]
    whole = load_config(asked.preset, asked.config, dict(map(parse_setting, texts))).labelled
    own = [f"{name}={count}" for name, count in whole.items() if name in datasets]
    return {"labelled": ",".join(own) or "{}"} if whole else {}


def _filled(text: str, places: Mapping[str, str], where: str) -> str:
    if unknown := [name for name in _PLACE.findall(text) if name not in places]:
        raise ConfigError(f"{{{unknown[0]}}} is neither a need nor a run that is trained first", where=where)
    return _PLACE.sub(lambda found: places[found[1]], text)


def _text(value: Any) -> str:
    """A TOML value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)
