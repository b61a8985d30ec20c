"""The exception tree: every fault of the input, the data or the run that a user can mend.

LabelmergeError
├── UsageError           an option or a name on the command line is wrong (exit 2)
├── RecipeError          a recipe TOML or a label space is wrong
├── DescriptionsError    a descriptions CSV is wrong
├── EncoderError         the text encoder is not available or is another than the bank's
├── BankError            an embedding bank is missing, damaged or of another kind
├── TaxonomyError        a concept graph, a taxonomy or a mapping table is wrong
├── LayoutError          a dataset on disk isn't laid out as its recipe says
├── SampleError          one sample is unusable: recorded and skipped by the shard writer
├── ShardError           shards are missing, damaged or disagree with their manifest
├── ConfigError          a training configuration is wrong
├── CheckpointError      a checkpoint is missing, damaged or doesn't fit
├── RemoteError          what is at a URL can't be reached, or is not as it should be
└── OutputError          something could not be written (no space, no permission)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from labelmerge.urls import mirror_root, path_or_url


class LabelmergeError(Exception):
    """One clear message in one line: where (path, line or id), what is wrong, and how to fix it.

    Args:
        what: what is wrong, without a closing full stop.
        where: the path (or ``path:line``, or id) at fault; one that stands for a URL is shown as that.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    @property
    def place(self) -> str:
        """`where` as people know it."""
        is_path = isinstance(self.where, Path) or str(self.where).startswith(str(mirror_root()))  # maybe with a line
        return path_or_url(Path(str(self.where))) if is_path else str(self.where or "")

    def __str__(self) -> str:
        text = f"{self.place}: {self.what}" if self.where is not None else self.what
        return printable(f"{text}. {self.fix}" if self.fix else text)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(cls: type[LabelmergeError], what: str, where: str | Path | None, fix: str | None) -> LabelmergeError:
    return cls(what, where=where, fix=fix)


class UsageError(LabelmergeError):
    """An option or a name on the command line is wrong."""

    exit_code = 2


class RecipeError(LabelmergeError):
    """A recipe TOML or a label space is wrong."""


class DescriptionsError(LabelmergeError):
    """A descriptions CSV is wrong."""


class EncoderError(LabelmergeError):
    """The text encoder is not available, or is another than the bank's."""


class BankError(LabelmergeError):
    """An embedding bank is missing, damaged or of another kind."""


class TaxonomyError(LabelmergeError):
    """A concept graph, a taxonomy or a mapping table is wrong."""


class LayoutError(LabelmergeError):
    """A dataset on disk isn't laid out as its recipe says."""


class SampleError(LabelmergeError):
    """One sample is unusable: the shard writer records it and goes on."""


class ShardError(LabelmergeError):
    """Shards are missing, damaged or disagree with their manifest."""


class ConfigError(LabelmergeError):
    """A training configuration is wrong."""


class CheckpointError(LabelmergeError):
    """A checkpoint is missing, damaged or doesn't fit."""


class RemoteError(LabelmergeError):
    """What is at a URL can't be reached, or is not as it should be."""


class OutputError(LabelmergeError):
    """Something could not be written: no space, no permission."""


def printable(text: str) -> str:
    """A line with names from disk or from annotation files in it, as a terminal may see it: no control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(word: str) -> str:
    """A word as it can stand in a list with commas: in quotes where it has some itself, and is not quoted already."""
    bare = "," in word and word[:1] not in "\"'" and "(" not in word
    return f'"{word}"' if bare else word


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence that answers a wrong name: the near ones, or all of them when none is near."""
    names = sorted(known)
    by_lower = {one.lower(): one for one in reversed(names)}
    near = [by_lower[one] for one in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
    if len(name) > 1:  # a single letter is in most of them
        near += [n for n in names if name.lower() in n.lower() and n not in near]
    shown = [quoted(one) for one in near[:3] or names]
    return f"Did you mean {' or '.join(shown)}?" if near else f"Known: {', '.join(shown)}."


def near_path(path: Path, folder: bool = True) -> str:
    """The sentence that answers a path where no folder (or file) lies, by those called nearly so; "" if none is."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir() is folder)
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=2, cutoff=0.7)
    return f"Did you mean {' or '.join(quoted(str(path.parent / name)) for name in near)}?" if near else ""
