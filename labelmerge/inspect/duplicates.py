"""The same image twice: within a split, in several, or, worst, in what is trained on and what is evaluated on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.urls import path_or_url

LEAK, SHARED, WITHIN = "leak", "shared", "within"

_MAX_EXAMPLES = 3
_RECORD = np.dtype([("first", "<u8"), ("second", "<u8"), ("split", "<i4"), ("number", "<i4")])


@dataclass(frozen=True)
class Overlap:
    """Images that two splits have in common.

    Attributes:
        kind: ``leak``: trained on in the first, evaluated on in the second; ``shared``: any other two splits;
            ``within``: first and second are the same split.
        first, second: the splits' folders.
        images: of the first, that are in the second too; within a split, how many too many.
        examples: keys of a few such pairs.
    """

    kind: str
    first: str
    second: str
    images: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        folder, dataset, split: whose.
        trained_on: whether `labelmerge train` would; else they are there to be evaluated on.
    """

    folder: Path
    dataset: str
    split: str
    trained_on: bool

    def key(self, number: int) -> str:
        return f"{self.dataset}-{self.split}-{number:09d}"


class Found:
    """The images of all splits by hash: 24 bytes for each, so that millions fit."""

    def __init__(self) -> None:
        self._pieces: list[npt.NDArray[np.void]] = []

    def add(self, split: int, numbers: Sequence[int], hashes: bytes) -> None:
        """Take in images of the split with this index: their numbers, and the first 16 bytes of their SHA-256."""
        piece = np.empty(len(numbers), _RECORD)
        halves = np.frombuffer(hashes, "<u8").reshape(-1, 2)
        piece["first"], piece["second"], piece["split"], piece["number"] = halves[:, 0], halves[:, 1], split, numbers
        self._pieces.append(piece)

    def overlaps(self, splits: Sequence[Images]) -> tuple[Overlap, ...]:
        """Every two splits with images in common, and every one with images twice: leaks first, then by folder."""
        pairs: dict[tuple[int, int], _Pair] = defaultdict(_Pair)
        for copies in self._copies():
            by_split = {split: [number for _, number in group] for split, group in groupby(copies, lambda c: c[0])}
            for split, numbers in by_split.items():
                if len(numbers) > 1:
                    pairs[split, split].add(len(numbers) - 1, numbers[0], numbers[1])
            for a, b in combinations(by_split, 2):
                first, second = (b, a) if splits[b].trained_on and not splits[a].trained_on else (a, b)
                pairs[first, second].add(len(by_split[first]), by_split[first][0], by_split[second][0])
        found = [
            Overlap(
                kind=_kind(splits[a], splits[b]),
                first=path_or_url(splits[a].folder),
                second=path_or_url(splits[b].folder),
                images=pair.images,
                examples=tuple((splits[a].key(one), splits[b].key(two)) for one, two in pair.examples),
            )
            for (a, b), pair in pairs.items()
        ]
        order = (LEAK, SHARED, WITHIN)
        return tuple(sorted(found, key=lambda overlap: (order.index(overlap.kind), overlap.first, overlap.second)))

    def _copies(self) -> Iterator[list[tuple[int, int]]]:
        """(split, number) of all copies of an image, for every image that is there more than once."""
        if not self._pieces:
            return
        records = np.concatenate(self._pieces)
        records = records[np.lexsort((records["number"], records["split"], records["second"], records["first"]))]
        same = (records["first"][1:] == records["first"][:-1]) & (records["second"][1:] == records["second"][:-1])
        starts = np.flatnonzero(np.diff(same.astype(np.int8), prepend=0, append=0) == 1)
        ends = np.flatnonzero(np.diff(same.astype(np.int8), prepend=0, append=0) == -1)
        for start, end in zip(starts, ends, strict=True):
            copies = records[start : end + 1]
            yield list(zip(copies["split"].tolist(), copies["number"].tolist(), strict=True))


@dataclass
class _Pair:
    images: int = 0
    examples: list[tuple[int, int]] = field(default_factory=list)

    def add(self, images: int, one: int, two: int) -> None:
        self.images += images
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append((one, two))


def _kind(first: Images, second: Images) -> str:
    if first is second:
        return WITHIN
    return LEAK if first.trained_on and not second.trained_on else SHARED
