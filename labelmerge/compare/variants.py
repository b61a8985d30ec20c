"""The variants that a comparison asks for, and their names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelmerge.errors import UsageError, did_you_mean
from labelmerge.settings import parse_setting
from labelmerge.train.config import all_settings

INPUTS = ("shards", "bank", "preset", "config")
"""What may vary besides the settings: options of `train` that name folders, files and presets."""

_PATHS = ("shards", "bank", "config")
_RUNS = ("pretrained", "supervised")  # settings that may hold paths of runs, with commas


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: its name, and the settings and inputs that are its own, by key."""

    name: str
    own: Mapping[str, str]


def find_variants(vary: Sequence[str]) -> list[Variant]:
    """The variants that ``--vary`` asks for: every combination, where several keys vary.

    A variant is named after its values, or after key and value where the value is a number or the like, which says
    little alone.

    Args:
        vary: ``KEY=VALUE``, one for each value of a training setting or of one of `INPUTS`. Settings that go together
            are joined, ``merge=table+taxonomy=groups.csv``, and count as a value of the first key.

    Raises:
        UsageError: an unknown key, a repeated value, or text of another form.
    """
    axes: dict[str, list[dict[str, str]]] = {}
    for text in vary:
        own = _assignments(text)
        axis = axes.setdefault(next(iter(own)), [])
        if own in axis:
            raise UsageError(f"--vary {text} is given twice")
        axis.append(own)
    if not axes:
        raise UsageError("nothing varies", fix="Give --vary KEY=VALUE once for each variant")
    combined = []
    for chosen in itertools.product(*axes.values()):
        keys = [key for own in chosen for key in own]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise UsageError(f"--vary gives one variant two values of {twice[0]}", fix="Vary each key in one place")
        combined.append({key: value for own in chosen for key, value in own.items()})
    names = ["+".join(_name(key, value) for key, value in own.items()) for own in combined]
    if len(set(names)) < len(names):  # two paths with the same last part
        names = ["+".join(_name(key, value, whole=True) for key, value in own.items()) for own in combined]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two variants would be named {twice[0]!r}", fix="Rename the folders or files")
    return [Variant(name, own) for name, own in zip(names, combined, strict=True)]


def _assignments(text: str) -> dict[str, str]:
    known = [*INPUTS, *(each.name for each in all_settings())]
    own: dict[str, str] = {}
    for part in re.split(r"\+(?=\w+=)", text):  # a plus within a value (1e+3) does not end it
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"--vary {text!r} is not KEY=VALUE", fix="For instance --vary merge=naive")
        if key not in known:
            raise UsageError(f"--vary {text}: unknown setting {key!r}", fix=did_you_mean(key, known))
        if key in own:
            raise UsageError(f"--vary {text} gives {key} twice")
        own[key] = value
    return own


def _name(key: str, value: str, *, whole: bool = False) -> str:
    """The part of a variant's name that one of its values makes. `whole`: of paths, more than the last part."""
    speaks = key in INPUTS or isinstance(parse_setting(f"{key}={value}")[1], str)
    path = key in _PATHS or any(each.name == key and each.path for each in all_settings())
    said = Path(value).name if path and not whole else value
    if key in _RUNS and not whole:
        said = ",".join(Path(run).name for run in value.split(","))
    name = re.sub(r"[^\w.,=+-]+", "-", said if speaks and said else f"{key}={''.join(said.split())}").strip("-.")
    return name or key
