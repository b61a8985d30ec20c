"""Settings that are declared once: field, flag, summary, checks and documentation all come from the declaration.

::

    @dataclass(frozen=True)
    class ViewSettings:
        crop: int = setting(64, "Side of a training view, in pixels.", group="views", minimum=1, flag=True)

        def __post_init__(self) -> None:
            refuse(problems(self))

`settings_of` gives the declarations back as data. The command line builds its flags from them, `parse` reads a file,
`summary` prints values, and `table` is the page in docs/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from labelmerge.errors import ConfigError, UsageError, did_you_mean
from labelmerge.parsing import parse_toml

LARGEST = 2**63 - 1
"""The largest number that TOML and torch can hold; no setting may be above it."""

_DECLARATION = "labelmerge.setting"
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}

_declared: dict[type, tuple[Setting, ...]] = {}  # what `settings_of` has found so far

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One setting as it was declared.

    Attributes:
        name: the key in files, and the field.
        kind: int, float, bool, str, ``tuple[str, ...]``, ``Mapping[str, int]`` or ``Mapping[str, Mapping[str, Any]]``.
        default: what holds where nothing is said.
        help: what it does, in a sentence or two, for the command line and for docs/; backticks are allowed.
        group: the heading that it stands under; a declaration without one stands under that of the one before it.
        choices: all values of a string; all items of a tuple. Empty where anything goes.
        minimum, above, maximum, below: bounds of a number; the first and third may be reached.
        flag: whether the command line has a flag of this name.
        metavar: what stands for the value in the flag's help.
        path: the value is a file or a folder.
        incidental: it changes how a run is carried out or shown, not what it computes (but for rounding, the draws of
            dropout and what batch norm averages over). A run may go on with another value.
    """

    name: str
    kind: Any
    default: Any
    help: str
    group: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    flag: bool = False
    metavar: str = ""
    path: bool = False
    incidental: bool = False

    @property
    def is_number(self) -> bool:
        return self.kind in (int, float)

    @property
    def bounds(self) -> str:
        """The bounds in words: ``at least 1``, ``within 0 to 1``, ``above 0 and below 1``."""
        if self.minimum is not None and self.maximum is not None:
            return f"within {self.minimum} to {self.maximum}"
        words = (("at least", self.minimum), ("above", self.above), ("at most", self.maximum), ("below", self.below))
        return " and ".join(f"{word} {bound}" for word, bound in words if bound is not None)

    def read(self, value: Any) -> Any:
        """`value` in the setting's own type. Raises TypeError, which says in words what it should have been."""
        return _read(value, self.kind)

    def fault(self, value: Any) -> str:
        """What is wrong with a value of the right type; "" if nothing is."""
        if isinstance(value, tuple):
            repeated = len(set(value)) < len(value)
            if self.choices and (not value or repeated or not set(value) <= set(self.choices)):
                return f"{self.name} must be some of {', '.join(self.choices)}, not {list(value)}"
        elif self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}"
        if self.is_number:
            inside = (
                (self.minimum is None or value >= self.minimum)  # not `<`, which nan would pass
                and (self.above is None or value > self.above)
                and (self.maximum is None or value <= self.maximum)
                and (self.below is None or value < self.below)
            )
            if not inside:
                return f"{self.name} must be {self.bounds}, not {value!r}"
            if value > LARGEST:
                return f"{self.name} must be at most {LARGEST}, not {value!r}"
        return ""


def setting(default: T, help: str, *, minimum: float | None = None, above: float | None = None, **more: Any) -> T:
    """A field of a settings class, which is a frozen dataclass. `Setting` says what the arguments mean.

    A number must be at least 0 where neither `minimum` nor `above` says otherwise.
    """
    number = isinstance(default, int | float) and not isinstance(default, bool)
    if number and minimum is None and above is None:
        minimum = 0
    declared = {"default": default, "help": help, "minimum": minimum, "above": above, **more}
    metadata = {_DECLARATION: declared}
    if isinstance(default, Mapping):
        return cast(T, field(default_factory=lambda: dict(default), metadata=metadata))
    return field(default=default, metadata=metadata)


def settings_of(cls: type) -> tuple[Setting, ...]:
    """The settings that a class declares, in order; other fields are left out."""
    if cls not in _declared:
        kinds = get_type_hints(cls)
        declared: list[Setting] = []
        for each in fields(cls):
            if _DECLARATION in each.metadata:
                before = {"group": declared[-1].group} if declared else {}
                declared.append(Setting(each.name, kinds[each.name], **{**before, **each.metadata[_DECLARATION]}))
        _declared[cls] = tuple(declared)
    return _declared[cls]


def parse(declared: Iterable[Setting], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values of a file or a command line, each in its setting's type, and everything that is wrong with them.

    Returns:
        The values that are right, by name; and the problems, each in words.
    """
    known = {each.name: each for each in declared}
    right: dict[str, Any] = {}
    wrong = []
    for name, value in values.items():
        if name not in known:
            wrong.append(f"unknown setting {name!r} ({did_you_mean(name, known).rstrip('.')})")
            continue
        try:
            read = known[name].read(value)
        except TypeError as error:
            wrong.append(f"{name} must be {error}, not {value!r}")
            continue
        if fault := known[name].fault(read):
            wrong.append(fault)
        else:
            right[name] = read
    return right, wrong


def problems(instance: Any) -> list[str]:
    """What is wrong with the values of an instance of a settings class, each in words."""
    faults = (each.fault(getattr(instance, each.name)) for each in settings_of(type(instance)))
    return [fault for fault in faults if fault]


def refuse(wrong: Sequence[str], where: Path | str | None = None) -> None:
    """Raise one ConfigError of all problems; nothing where there are none."""
    if wrong:
        raise ConfigError("; ".join(wrong), where=where)


def idle(instance: Any, names: Iterable[str], because: str) -> list[str]:
    """What to say of those of the settings `names` that were changed and have no effect: a line each."""
    declared = {each.name: each.default for each in settings_of(type(instance))}
    changed = [name for name in names if getattr(instance, name) != declared[name]]
    return [f"{name} = {getattr(instance, name)} has no effect: {because}" for name in changed]


def values_of(instance: Any) -> dict[str, Any]:
    """The values of a settings class as TOML and JSON know them, by name."""
    values = {each.name: getattr(instance, each.name) for each in settings_of(type(instance))}
    return {
        name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def grouped(declared: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings under their headings, which come in the order of their first."""
    groups: dict[str, list[Setting]] = {}
    for each in declared:
        groups.setdefault(each.group, []).append(each)
    return groups


def summary(groups: Mapping[str, Iterable[Setting]], values: Mapping[str, Any]) -> list[str]:
    """Values for people, a line for each group."""
    shown = {name: value or '""' if isinstance(value, str) else str(value) for name, value in values.items()}
    width = max(map(len, groups))
    return [
        f"{title:<{width}} " + "  ".join(f"{each.name}={shown[each.name]}" for each in declared)
        for title, declared in groups.items()
    ]


def table(declared: Iterable[Setting], presets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table of settings, a line for each; keys with a flag are bold.

    Args:
        presets: the values of named presets; what differs from the default is shown.
    """
    lines = ["| key | means | values | default | presets |", "|---|---|---|---|---|"]
    for each in declared:
        key = f"**`{each.name}`**" if each.flag else f"`{each.name}`"
        given = {preset: each.read(values[each.name]) for preset, values in presets.items() if each.name in values}
        others = [f"{preset}: {_markdown(value)}" for preset, value in given.items() if value != each.default]
        cells = (key, each.help, _values(each), _markdown(each.default), ", ".join(others))
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return lines


def _values(declared: Setting) -> str:
    """What a setting may be, as a cell of the table."""
    choices = ", ".join(f"`{choice}`" for choice in declared.choices)
    if get_origin(declared.kind) is tuple:
        return f"some of {choices}" if choices else "list of strings"
    if get_origin(declared.kind) is not None:
        return "table of whole numbers" if get_args(declared.kind) == (str, int) else "table of tables"
    if declared.is_number:
        return f"{'whole, ' if declared.kind is int else ''}{declared.bounds}"
    return choices or ("true, false" if declared.kind is bool else "path" if declared.path else "text")


def _markdown(value: Any) -> str:
    if isinstance(value, str | tuple):
        return ", ".join(f"`{item}`" for item in ([value] if isinstance(value, str) else value) if item) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {number}" for name, number in value.items()) or "none"
    return str(value).lower().removesuffix(".0")


def _read(value: Any, kind: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and whole:
        return value
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if get_origin(kind) is tuple and isinstance(value, str):
        return tuple(item.strip() for item in value.split(","))
    if get_origin(kind) is tuple and isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if get_origin(kind) is not None and get_args(kind) == (str, int):
        if isinstance(value, str) and value:  # as a flag gives it: NAME=1,OTHER=2
            parts = [item.partition("=") for item in value.split(",")]
            if not all(equals for _, equals, _ in parts):
                raise TypeError("NAME=NUMBER, or several with commas between them")
            names = [name.strip() for name, _, _ in parts]
            if twice := [name for name in names if names.count(name) > 1]:
                raise TypeError(f"a number for each name, not two for {twice[0]}")
            value = {name.strip(): int(number) if number.strip().isdecimal() else number for name, _, number in parts}
        if isinstance(value, Mapping):
            return {str(name): _read(number, int) for name, number in value.items()}
    tables = get_origin(kind) is not None and get_args(kind)[1:] == (Mapping[str, Any],)
    if tables and isinstance(value, Mapping) and all(isinstance(table, Mapping) for table in value.values()):
        return {str(name): dict(table) for name, table in value.items()}
    if get_origin(kind) is not None and get_args(kind) == (str, int) and isinstance(value, str):
        raise TypeError("NAME=NUMBER, or several with commas between them")
    many = "a list of strings" if get_origin(kind) is tuple else f"a table of {'tables' if tables else 'whole numbers'}"
    raise TypeError(_TYPE_NAMES.get(kind, many))


def parse_setting(text: str) -> tuple[str, Any]:
    """One ``key=value`` of the command line; the value is read as TOML, or taken as a string where it is none.

    Raises:
        UsageError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    try:
        return key, parse_toml(f"value = {value}")["value"]
    except ValueError:
        return key, value.strip()
