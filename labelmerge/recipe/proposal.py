"""What a folder may be: a proposal, and how it is written as a recipe and a CSV of classes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class Proposal:
    """One way to read a folder.

    Attributes:
        what: in words, for people.
        reader, kind: the reader, and the annotation type.
        layout, ids, options, splits: the recipe's tables.
        classes: name by index.
        remarks: what the user should know or check.
        named: whether the files say what the classes are called.
    """

    what: str
    reader: str
    kind: str
    layout: dict[str, Any]
    classes: dict[int, str]
    splits: dict[str, str] = field(default_factory=dict)
    ids: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    named: bool = True

    def toml(self, name: str) -> str:
        """The text of the recipe."""
        lines = [f"# {self.what}.", "# Written by `labelmerge recipe`; docs/recipes.md explains every key."]
        lines += [f"# {remark}" for remark in self.remarks]
        said = {"name": name, "annotation_type": self.kind, "reader": self.reader, "descriptions": f"{name}.csv"}
        lines += ["", *(f"{key} = {_value(value)}" for key, value in said.items())]
        for table in ("layout", "ids", "options", "splits"):
            content: Mapping[str, Any] = getattr(self, table)
            if content:
                lines += ["", f"[{table}]", *(f"{_key(key)} = {_value(value)}" for key, value in content.items())]
        return "\n".join(lines).replace("\r", " ") + "\n"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's texts are TOML's, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def indexed(names: Sequence[str]) -> dict[int, str]:
    """Classes in order of first mention; names that are the same but for case and outer blanks are one."""
    kept: dict[str, str] = {}
    for name in names:
        if name.strip():
            kept.setdefault(name.strip().casefold(), name.strip())
    return dict(enumerate(kept.values()))
