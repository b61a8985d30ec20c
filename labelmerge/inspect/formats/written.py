"""What every format's writer is given and gives back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from labelmerge.colours import Palette
from labelmerge.inspect.merged import MergedSets, MergedSplit

NO_MASKS = "has boxes, but no masks: `labelmerge relabel --checkpoint RUN` makes some"
"""Why a box dataset can't be in files of masks."""


@dataclass
class Request:
    """What is to be written.

    Attributes:
        sets: the splits that the format can hold.
        into: an empty folder.
        palette: uint8 ``[C, 3]``.
        things: classes that are things.
        images: whether to write images too.
        segments: YOLO: outlines, not boxes.
        counts: what was written, by what it is called.
    """

    sets: MergedSets
    into: Path
    palette: Palette
    things: set[int]
    images: bool
    segments: bool = True
    counts: Counter[str] = field(default_factory=Counter)


class Format(Protocol):
    """A module of `labelmerge.inspect.formats`."""

    def refuse(self, each: MergedSplit, segments: bool) -> str | None:
        """Why a split can't be in such files, with outlines or (YOLO) without; None where it can."""

    def write(self, request: Request) -> Iterator[None]:
        """Write everything; yields after every image."""
