"""The lists of images that some datasets give for each split: a text file of one entry a line, or a MATLAB file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from labelmerge.errors import LayoutError
from labelmerge.sharding.pictures import matlab
from labelmerge.sharding.source.source import Source

# What may follow a name in a list of several columns: VOC's flags (-1, 0, 1), or the path of another file.
_SECOND = re.compile(r"[+-]?[01]|\S*[/.]\S*")


def key_of(entry: str) -> str:
    """An entry as two spellings of it are compared: whatever the slashes, and the Unicode form of its letters."""
    return unicodedata.normalize("NFC", entry.replace("\\", "/"))


@dataclass
class ImageList:
    """The images that a list names.

    A line is an entry as a whole, blanks and all: `img (1)` is not `img`. Only where no line with blanks is an image's
    entry, and what follows the first word is a flag or a path on every one, the first words are the entries.

    Attributes:
        path: of the list, under the root.
        lines: its lines, each once, in its order.
    """

    path: str
    lines: tuple[str, ...]
    _found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keys = {key_of(entry) for line in self.lines for entry in (line, line.split()[0])}

    def offer(self, entries: Iterable[str], path: str) -> bool:
        """Take note of an image that has these entries; whether the list may mean it."""
        hits = {entry for entry in entries if key_of(entry) in self._keys}
        for entry in hits:
            self._found.setdefault(key_of(entry), []).append((entry, path))
        return bool(hits)

    def chosen(self) -> tuple[set[str], list[str]]:
        """The paths of the listed images, and the entries that belong to no image; to be asked when all are offered."""
        spaced = [line.split() for line in self.lines if len(line.split()) > 1]
        names = list(self.lines)
        if spaced and not any(key_of(line) in self._found for line in self.lines if len(line.split()) > 1):
            firsts = [words[0] for words in spaced]
            second = all(_SECOND.fullmatch(word) for words in spaced for word in words[1:])
            if second and len(set(firsts)) == len(firsts) and len({len(words) for words in spaced}) == 1:
                names = [line.split()[0] for line in self.lines]
        chosen: set[str] = set()
        missing = []
        for name in names:
            found = self._found.get(key_of(name), [])
            exact = [path for entry, path in found if entry == name]
            if not exact and len({entry for entry, _ in found}) == 1:
                exact = [path for _, path in found]
            chosen.update(exact)
            if not exact:
                missing.append(name)
        return chosen, sorted(set(missing))


def read_list(source: Source, path: str) -> ImageList:
    """Read a list. Raises LayoutError where it can't be read, or names nothing."""
    if path.endswith(".mat"):
        names = matlab.texts(matlab.load(source.root / path, source.word, fault=LayoutError))
        lines = ["/".join(filter(None, name.split("/"))) for name in names]
    else:
        try:
            text = (source.root / path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise LayoutError(f"can't be read as a list ({error})", where=source.root / path) from error
        lines = [line.strip().lstrip("/") for line in text.splitlines()]
    lines = [line for line in lines if line.strip()]
    if not lines and not path.endswith(".mat"):
        raise LayoutError("is a list of images, but names none", where=source.root / path)
    return ImageList(path, tuple(dict.fromkeys(lines)))
