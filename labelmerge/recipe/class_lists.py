"""Files that say what the values or colours of masks are called, as people put them beside their masks."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from posixpath import basename
from typing import Any

from labelmerge.class_lists import plain_names
from labelmerge.errors import DescriptionsError
from labelmerge.recipe.tree import Tree

_NAMES = re.compile(
    r"(class(es)?(_?names?)?|labels?(_?names?)?|codes|names|categories|objectInfo150|label_?map|label_?colou?rs|"
    r"class_dict(_seg)?|colou?r_?map|id2label|obj)\.(txt|csv|json|names)",
    re.I,
)
_MAX_BYTES = 1 << 20
_CAMVID = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)\s+(\S.*)", re.ASCII)  # label_colors.txt
_CVAT = re.compile(r"([^:#]+):(\d+),(\d+),(\d+):.*", re.ASCII)  # labelmap.txt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassList:
    """Names in order, with their colours ("128 64 128") where the file gives some.

    Attributes:
        path: of the file.
        names, colours: of equal length; `colours` may be None.
        numbers: the file's number for each class, where it numbers them; ascending.
    """

    path: str
    names: tuple[str, ...]
    colours: tuple[str, ...] | None = None
    numbers: tuple[int, ...] | None = None

    @property
    def from_one(self) -> bool:
        """The numbers are 1, 2, 3 …"""
        return self.numbers == tuple(range(1, len(self.names) + 1))

    @property
    def has_gaps(self) -> bool:
        """The numbers are neither those nor 0, 1, 2 …"""
        return self.numbers is not None and not self.from_one and self.numbers != tuple(range(len(self.names)))

    @classmethod
    def numbered(cls, path: str, names: Mapping[int, str]) -> ClassList:
        """A list by the file's numbers."""
        return cls(path, tuple(names[number] for number in sorted(names)), numbers=tuple(sorted(names)))


def class_lists(tree: Tree) -> list[ClassList]:
    """The lists of classes that lie under the root; those nearest to it first."""
    paths = [path for path in tree.ending(".txt", ".csv", ".json", ".names") if _NAMES.fullmatch(basename(path))]
    found = []
    for path in sorted(paths, key=lambda path: (path.count("/"), path))[:50]:
        file = tree.root / path
        try:
            text = file.read_bytes().decode("utf-8-sig") if file.stat().st_size <= _MAX_BYTES else ""
            read = _read(path, text)
        except DescriptionsError as error:
            _log.warning("%s: %s, and is not used", file, error.what)
            continue
        except (OSError, ValueError, KeyError, TypeError, csv.Error, RecursionError):
            continue
        if read is not None and read.names:
            found.append(read)
    return found


def _read(path: str, text: str) -> ClassList | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if path.lower().endswith(".json"):
        return _of_json(path, json.loads(text))
    for pattern, name, colour in ((_CAMVID, 4, 1), (_CVAT, 1, 2)):
        rows = [pattern.fullmatch(line) for line in lines if not line.startswith("#")]
        if rows and all(rows):
            names = tuple(row[name].strip() for row in rows if row)
            colours = tuple(f"{row[colour]} {row[colour + 1]} {row[colour + 2]}" for row in rows if row)
            return ClassList(path, names, colours)
    header = lines[0].lower() if lines else ""
    delimiter = "\t" if "\t" in header else ","
    if delimiter in header and any(word in re.split(r"[\t,]", header) for word in ("name", "class")):
        rows_of = list(csv.DictReader(io.StringIO("\n".join([header, *lines[1:]])), delimiter=delimiter))
        if not rows_of:
            return None
        key = "name" if "name" in rows_of[0] else "class"
        names = tuple(row[key].strip() for row in rows_of)
        if all(channel in rows_of[0] for channel in "rgb"):
            colours = tuple(" ".join(str(int(row[channel])) for channel in "rgb") for row in rows_of)
            return ClassList(path, names, colours)
        numbers = [(row.get("idx") or row.get("index") or row.get("id") or "").strip() for row in rows_of]
        if all(number.isdecimal() for number in numbers) and len(set(numbers)) == len(numbers):
            return ClassList.numbered(path, {int(number): name for number, name in zip(numbers, names, strict=True)})
        return ClassList(path, names)
    listed = plain_names(text)
    numbered = {number: name for _, number, name in listed if number is not None}
    return ClassList.numbered(path, numbered) if numbered else ClassList(path, tuple(name for *_, name in listed))


def _of_json(path: str, content: Any) -> ClassList | None:
    """A list of names, a table of names by number, or of numbers by name."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return ClassList(path, tuple(content))
    if isinstance(content, dict) and content:
        if all(str(key).isdecimal() and isinstance(name, str) for key, name in content.items()):
            numbered = {int(key): name for key, name in content.items()}
        elif all(type(number) is int for number in content.values()):
            numbered = {number: name for name, number in content.items()}
        else:
            return None
        if min(numbered) >= 0:
            return ClassList.numbered(path, numbered)
    return None
