"""Some of a set's classes: the others' pixels don't count, and nothing is taken for them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from labelmerge.errors import UsageError, did_you_mean
from labelmerge.evaluate.sets import EvalSet
from labelmerge.labels import LabelSpace
from labelmerge.shardset.samples import LabelledImage
from labelmerge.tasks.semantic import Semantic


@dataclass(frozen=True)
class Classes:
    """Which classes of the sets are measured.

    Attributes:
        only: names, or ``DATASET:NAME`` for those of one dataset; none: all.
        leave_out: the same, of those that are not.
    """

    only: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.only or self.leave_out)

    def to_json(self) -> dict[str, Any]:
        """What the protocol says: nothing where all classes are measured."""
        return {name: list(value) for name, value in vars(self).items() if value}

    def of(self, sets: Sequence[EvalSet]) -> list[EvalSet]:
        """The sets with these classes alone. Names are compared whatever their case.

        Raises:
            UsageError: no set has a class of some name, or a set is left with fewer than two.
        """
        if not self:
            return list(sets)
        if self.only and self.leave_out:
            raise UsageError("the classes are chosen, or some are left out: not both at once")
        named = self.only or self.leave_out
        wanted = {name.casefold() for name in named}
        known = {form for data in sets for name in data.space.names for form in (name, f"{data.dataset}:{name}")}
        folded = {name.casefold() for name in known}
        if missing := [name for name in named if name.casefold() not in folded]:
            raise UsageError(f"no set has a class {missing[0]!r}", fix=did_you_mean(missing[0], known))
        chosen = []
        for data in sets:
            space = data.space
            kept = [
                (index, name)
                for index, name in zip(space.indices, space.names, strict=True)
                if bool({name.casefold(), f"{data.dataset}:{name}".casefold()} & wanted) == bool(self.only)
            ]
            if len(kept) < 2:
                raise UsageError(
                    f"{data.name} is left with {len(kept)} of its classes, and a pixel needs two to choose from",
                    fix="Leave the set out, or choose more",
                )
            chosen.append(_with(data, LabelSpace(space.name, *map(tuple, zip(*kept, strict=True)))))
        return chosen


def names_in_words(names: Sequence[str]) -> str | None:
    """Names in the form that --only and --leave-out take; None for an empty list."""
    quoted = ('"{}"'.format(name.replace('"', '""')) if "," in name or name.startswith('"') else name for name in names)
    return ", ".join(quoted) or None


def names_of(words: str) -> tuple[str, ...]:
    """``"road, car"``: names between commas, which those in double quotes may have themselves, or on lines.

    Raises UsageError if no name is given.
    """
    names = (" ".join(name.split()) for row in csv.reader(words.splitlines(), skipinitialspace=True) for name in row)
    if not (found := tuple(filter(None, names))):
        raise UsageError(f"no class is named in {words!r}", fix='Write names, such as "road, car"')
    return found


def _with(data: EvalSet, space: LabelSpace) -> EvalSet:
    """A set whose other classes are "no label"."""
    if space == data.space:
        return data
    table = np.full(np.iinfo(data.space.dtype).max + 1, data.space.ignore_index, data.space.dtype)
    table[list(space.indices)] = space.indices
    ignored, whole = space.ignore_index, Semantic(data.space)

    def read(number: int, instances: bool, depth: bool) -> LabelledImage:
        sample = data.read(number, instances, depth)
        if sample.mask is None:
            return sample
        whole.positions(sample)  # a value that is no class of the set at all is not one that is left out
        mask = table[sample.mask]
        if ignored != data.space.ignore_index:  # of the wider masks of more than 254 classes
            mask = np.where(mask == data.space.ignore_index, ignored, mask).astype(space.dtype)
        return cast(LabelledImage, replace(cast(Any, sample), mask=mask))

    return replace(data, space=space, read=read)
