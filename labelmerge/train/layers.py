"""Layers of settings, each over the one before: a preset, a file, a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labelmerge.errors import ConfigError, did_you_mean
from labelmerge.methods.settings import METHOD_SETTINGS
from labelmerge.settings import Setting, parse, refuse, settings_of
from labelmerge.train.renamed import renamed


def settings_class(method: object, where: Path | str | None = None) -> type[Any]:
    """The class of a method's settings. Raises ConfigError where there is no such method."""
    if not isinstance(method, str) or method not in METHOD_SETTINGS:
        fix = did_you_mean(str(method), METHOD_SETTINGS)
        raise ConfigError(f"unknown method {method!r}", where=where, fix=fix)
    return METHOD_SETTINGS[method]


def method_of(layers: list[tuple[Mapping[str, Any], Path | str | None]], default: str) -> str:
    """The method that the last layer to name one asks for. Raises ConfigError."""
    for layer, where in reversed(layers):
        if "method" in layer:
            settings_class(layer["method"], where)
            return str(layer["method"])
    return default


def parse_layer(
    layer: Mapping[str, Any], method: str, common: Sequence[Setting], where: Path | str | None
) -> dict[str, Any]:
    """The flat, typed values of a preset, a file or a command line.

    Args:
        common: the settings of training that no method owns.

    Raises:
        ConfigError: all that is wrong with it.
    """
    layer = renamed(layer)
    tables = {name: layer[name] for name in METHOD_SETTINGS if isinstance(layer.get(name), Mapping)}
    flat = {name: value for name, value in layer.items() if name not in tables}
    known = (*common, *settings_of(METHOD_SETTINGS[method]))
    foreign = {each.name: name for name, kind in METHOD_SETTINGS.items() for each in settings_of(kind)}
    for each in known:
        foreign.pop(each.name, None)
    wrong = [
        f"{key} is a setting of the method {foreign[key]}, and the method here is {method}"
        for key in flat
        if key in foreign
    ]
    values, more = parse(known, {key: value for key, value in flat.items() if key not in foreign})
    wrong += more
    for name, content in tables.items():
        right, more = parse(settings_of(METHOD_SETTINGS[name]), content)
        wrong += [f"[{name}] {problem}" for problem in more]
        if name == method:
            wrong += [f"{key} is given twice, the second time in [{name}]" for key in sorted(content.keys() & flat)]
            values |= right
    refuse(wrong, where)
    return values
