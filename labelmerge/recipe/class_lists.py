"""Files that say what the values or colours of masks are called, as people put them beside their masks."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from posixpath import basename
from typing import Any

from labelmerge.recipe.tree import Tree

_NAMES = re.compile(
    r"(class(es)?(_?names?)?|labels?(_?names?)?|codes|names|categories|objectInfo150|label_?map|label_?colou?rs|"
    r"class_dict(_seg)?|colou?r_?map|id2label|obj)\.(txt|csv|json|names)",
    re.I,
)
_MAX_BYTES = 1 << 20
_CAMVID = re.compile(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)\s+(\S.*)", re.ASCII)  # label_colors.txt
_CVAT = re.compile(r"([^:#]+):(\d+),(\d+),(\d+):.*", re.ASCII)  # labelmap.txt


@dataclass(frozen=True)
class ClassList:
    """Names in order, with their colours ("128 64 128") where the file gives some.

    Attributes:
        path: of the file.
        names, colours: of equal length; `colours` may be None.
        from_one: the file numbers its classes, and begins with 1.
    """

    path: str
    names: tuple[str, ...]
    colours: tuple[str, ...] | None = None
    from_one: bool = False


def class_lists(tree: Tree) -> list[ClassList]:
    """The lists of classes that lie under the root; those nearest to it first."""
    paths = [path for path in tree.ending(".txt", ".csv", ".json", ".names") if _NAMES.fullmatch(basename(path))]
    found = []
    for path in sorted(paths, key=lambda path: (path.count("/"), path))[:50]:
        file = tree.root / path
        try:
            text = file.read_bytes().decode("utf-8-sig") if file.stat().st_size <= _MAX_BYTES else ""
            read = _read(path, text)
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
        key = "name" if "name" in rows_of[0] else "class"
        names = tuple(row[key].strip() for row in rows_of)
        if all(channel in rows_of[0] for channel in "rgb"):
            colours = tuple(" ".join(str(int(row[channel])) for channel in "rgb") for row in rows_of)
            return ClassList(path, names, colours)
        numbers = [row.get("idx") or row.get("index") or row.get("id") for row in rows_of]
        return ClassList(path, names, from_one=numbers[0] == "1")
    return ClassList(path, tuple(lines))


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
        first = min(numbered)
        if first in (0, 1) and sorted(numbered) == list(range(first, first + len(numbered))):
            return ClassList(path, tuple(numbered[number] for number in sorted(numbered)), from_one=first == 1)
    return None
