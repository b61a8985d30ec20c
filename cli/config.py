"""`labelmerge config`, and what it shows: options that a file or the environment gives once for all commands."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from labelmerge.errors import ConfigError, did_you_mean, printable
from labelmerge.parsing import parse_toml
from labelmerge.remote import SIZE_VARIABLE
from labelmerge.text import aligned
from labelmerge.urls import FOLDER_VARIABLE

from . import options

FILE = "labelmerge.toml"
_COMMANDS_ON_DEVICES = ("embed", "merge", "train", "eval", "compare", "predict", "relabel")
# What may be said once, and the option that it is, by command.
SHARED: dict[str, dict[str, str]] = {
    "bank": {"embed": "out", **dict.fromkeys(("merge", "train", "compare", "plot", "bank"), "bank")},
    "shards": dict.fromkeys(("merge", "train", "compare"), "shards"),
    "checkpoint": dict.fromkeys(("eval", "predict", "relabel"), "checkpoint"),
    "descriptions": {"embed": "descriptions"},
    "encoder": dict.fromkeys(("embed", "merge"), "encoder"),
    "device": dict.fromkeys(_COMMANDS_ON_DEVICES, "device"),
    "workers": dict.fromkeys(("shard", "verify"), "workers"),
}
# The cache of what is fetched from URLs: the library's own variables, which it reads.
CACHE = {"cache": FOLDER_VARIABLE, "cache_gb": SIZE_VARIABLE}
_PATHS = ("bank", "shards", "checkpoint", "descriptions")
_VARIABLES = (
    *(f"LABELMERGE_{key.upper()}" for key in SHARED),
    *CACHE.values(),
    *("LABELMERGE_CONTACT", "LABELMERGE_MAX_PIXELS"),  # of `describe` and of what reads images
)
# Between folders as in PATH; the colons of URLs separate nothing.
_SEPARATOR = re.compile(rf"{re.escape(os.pathsep)}(?!//|\d+(?:/|$))")
_EXAMPLE = 'bank = "bank"\nshards = ["shards-out"]\nencoder = "offline"\n[train]\npreset = "tiny"'

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """One value and where it was given."""

    value: Any
    source: str


@dataclass(frozen=True)
class Settings:
    """What the file and the environment say.

    Attributes:
        shared: values of `SHARED`, by name; the environment's win.
        cache: where the cache is and how large it may become, by the keys of `CACHE`; the environment's win.
        tables: options of single commands, from the file.
        file: the file, if there is one.
    """

    shared: dict[str, Given]
    cache: dict[str, Given]
    tables: dict[str, dict[str, Any]]
    file: Path | None


def read_settings(commands: tuple[str, ...]) -> Settings:
    """`labelmerge.toml` of this folder or the nearest above it, and ``LABELMERGE_BANK`` and the like.

    Raises:
        ConfigError: the file can't be read, or has a key that is neither in `SHARED` or `CACHE` nor a command.
    """
    file = next((path for folder in (Path.cwd(), *Path.cwd().parents) if os.path.isfile(path := folder / FILE)), None)
    shared: dict[str, Given] = {}
    cache: dict[str, Given] = {}
    tables: dict[str, dict[str, Any]] = {}
    for key, value in (_read(file) if file is not None else {}).items():
        assert file is not None
        if key in SHARED and key not in commands or key in SHARED and not isinstance(value, dict):
            texts = value if key == "shards" and isinstance(value, list) else [value]
            if not all(isinstance(text, str) or type(text) is int and key == "workers" for text in texts):
                what = {"shards": "a text or a list of texts", "workers": "a whole number"}.get(key, "a text")
                raise ConfigError(f"{key!r} must be {what}, not {value!r}", where=file)
            shared[key] = Given(_in_folder(value, file.parent) if key in _PATHS else value, str(file))
        elif key in CACHE:
            cache[key] = Given(_cache_value(key, value, file), str(file))
        elif key in commands and isinstance(value, dict):
            tables[key] = value
        else:
            what = "must be a table" if key in commands else "is neither a setting nor a command"
            raise ConfigError(f"{key!r} {what}", where=file, fix=did_you_mean(key, [*SHARED, *CACHE, *commands]))
    for key in SHARED:
        if value := os.environ.get(variable := f"LABELMERGE_{key.upper()}"):
            shared[key] = Given(_SEPARATOR.split(value) if key == "shards" else value, variable)
    for variable in sorted(name for name in os.environ if name.startswith("LABELMERGE_") and name not in _VARIABLES):
        near = did_you_mean(variable, _VARIABLES)
        _log.warning("%s is set, and is no variable of labelmerge's. %s", variable, near)
    for key, variable in CACHE.items():
        if value := os.environ.get(variable):
            cache[key] = Given(value, variable)
    return Settings(shared, cache, tables, file)


def _cache_value(key: str, value: Any, file: Path) -> str:
    if key == "cache" and isinstance(value, str) and value:
        return str((file.parent / Path(value).expanduser()).resolve())
    if key == "cache_gb" and type(value) in (int, float) and value > 0:
        return str(value)
    what = "the path of a folder" if key == "cache" else "a number of gigabytes"
    raise ConfigError(
        f"{key!r} must be {what}, and is {value!r}", where=file, fix='cache = "/data/cache", cache_gb = 50'
    )


@contextmanager
def cache_from(settings: Settings) -> Iterator[None]:
    """Tell the library where the cache is, while the block runs."""
    told = {CACHE[key]: str(given.value) for key, given in settings.cache.items() if CACHE[key] not in os.environ}
    os.environ.update(told)
    try:
        yield
    finally:
        for variable in told:
            os.environ.pop(variable, None)


def _read(file: Path) -> dict[str, Any]:
    try:
        return parse_toml(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"can't be read ({error.strerror})", where=file) from error
    except ValueError as error:
        raise ConfigError(f"can't be read as TOML ({error})", where=file) from error


def _in_folder(value: Any, folder: Path) -> Any:
    """Paths of a file are relative to its folder."""
    if isinstance(value, list):
        return [_in_folder(entry, folder) for entry in value]
    if isinstance(value, str) and "://" not in value:
        return os.path.relpath(folder / Path(value).expanduser())
    return value


def defaults_for(name: str, command: click.Command, settings: Settings) -> dict[str, Any]:
    """The defaults of a command's parameters, as click takes them.

    Raises:
        ConfigError: the command's table has a key that is not one of its options.
    """
    if isinstance(command, click.Group):
        found: dict[str, Any] = {}
        for part in command.list_commands(click.Context(command)):
            inner = command.commands[part]
            table = settings.tables.get(name, {}).get(part, {})
            found[part] = _shared(name, inner, settings) | _own(f"{name}.{part}", inner, table, settings)
        return found
    return _shared(name, command, settings) | _own(name, command, settings.tables.get(name, {}), settings)


def _shared(name: str, command: click.Command, settings: Settings) -> dict[str, Any]:
    params = {param.name: param for param in command.params}
    found: dict[str, Any] = {}
    for key, given in settings.shared.items():
        option = SHARED[key].get(name, "")
        if option in params:
            several = getattr(params[option], "multiple", False)
            found[option] = [given.value] if several and not isinstance(given.value, list) else given.value
    return found


def _own(name: str, command: click.Command, table: dict[str, Any], settings: Settings) -> dict[str, Any]:
    params = {param.name: param for param in command.params if isinstance(param, click.Option) and param.name}
    flags = {opt.removeprefix("--"): param for param in params.values() for opt in param.opts}
    found = {}
    for key, value in table.items():
        param = flags.get(key.replace("_", "-"))
        if param is None or param.name is None:
            raise ConfigError(
                f"[{name}] has {key!r}, which is not an option of it", where=settings.file, fix=did_you_mean(key, flags)
            )
        if isinstance(param.type, click.Path) and settings.file is not None:
            value = _in_folder(value, settings.file.parent)
        found[param.name] = _fitting(param, value, f"[{name}] {key!r}", settings.file)
    return found


def _fitting(param: click.Parameter, value: Any, key: str, where: Path | None) -> Any:
    """The value as if it had been typed. Raises ConfigError where it could not have been."""
    several, is_flag = getattr(param, "multiple", False), getattr(param, "is_flag", False)
    for one in value if several and isinstance(value, list) else [value]:
        if is_flag and not isinstance(one, bool):
            raise ConfigError(f"{key} must be true or false, not {one!r}", where=where)
        if is_flag:
            continue
        numeric = type(one) in (int, float) and not isinstance(param.type, click.Path)
        if not (isinstance(one, str) or numeric):
            what = "a text or a list of texts" if several else "a text"
            raise ConfigError(f"{key} must be {what}, not {one!r}", where=where)
        if not isinstance(param.type, click.Path):  # whether there is such a path is asked when it is needed
            try:
                param.type.convert(str(one), param, None)
            except click.BadParameter as error:
                raise ConfigError(f"{key}: {error.message.rstrip('.')}", where=where) from error
    if several:
        return value if isinstance(value, list) else [value]
    return value if is_flag else str(value)


@click.command("config")
@options.as_json
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show the options that labelmerge.toml and the environment set.

    labelmerge.toml lies in this folder or one above it; its paths are relative to it. Its top-level keys are bank,
    shards, checkpoint, descriptions, encoder, device and workers, and cache and cache_gb, the folder and size of the
    cache of downloads from URLs. A table with a command's name has options of that command. LABELMERGE_BANK,
    LABELMERGE_SHARDS (folders separated as in PATH) and so on override the file, and options on the command line
    override both.

    \b
    Example:
      LABELMERGE_BANK=bank labelmerge config
    """
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    settings = read_settings(tuple(root.command.list_commands(root)))
    rows = [("setting", "value", "from", "used by")]
    for key, given in settings.shared.items():
        value = ", ".join(map(str, given.value)) if isinstance(given.value, list) else str(given.value)
        used = ", ".join(f"{each} --out" if option == "out" else each for each, option in SHARED[key].items())
        rows.append((key, value, given.source, used))
    for key, given in settings.cache.items():
        rows.append((key, str(given.value), given.source, "whatever is at a URL"))
    for name, table in settings.tables.items():
        shown = root.command.get_command(root, name)
        assert shown is not None
        defaults_for(name, shown, settings)  # raises if a key is not one of its options
        for key, entry in table.items():
            rows.append((key, str(entry), str(settings.file), name))
    lines = list(map(printable, aligned(rows, left=4)))
    if len(rows) == 1:
        lines = [f"No {FILE} here or above, and no LABELMERGE_… is set. Such a file may say", "", _EXAMPLE]
    result = {
        "file": str(settings.file) if settings.file else None,
        "shared": {key: {"value": given.value, "from": given.source} for key, given in settings.shared.items()},
        "cache": {key: {"value": given.value, "from": given.source} for key, given in settings.cache.items()},
        "commands": settings.tables,
    }
    options.say(result, as_json, "\n".join(lines))
