"""Label spaces: the ordered classes of one dataset, and the one rule for pixels without a label.

A label is known everywhere by its key ``(dataset, index)``, such as ``("ade20k", 0)``: equal names in different
datasets never collide.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.errors import RecipeError, ShardError
from labelmerge.names import prompt_name
from labelmerge.text import counted, some

LabelKey = tuple[str, int]

IGNORE = -1
"""The target of a pixel or box without a label, in every batch. Not 255: a mixture may have more labels than that."""

_IGNORE_8BIT = 255
_IGNORE_16BIT = 65535
_MAX_8BIT_CLASSES = 254


@dataclass(frozen=True)
class LabelSpace:
    """The ordered classes of one dataset.

    Attributes:
        name: the dataset, e.g. ``"cityscapes"``.
        indices: the value of each class in a class mask, strictly ascending; usually 0..N-1, with gaps where only
            some classes of a longer official list are in use (Open Images).
        names: the official class names, one for each index.
    """

    name: str
    indices: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.indices:
            raise RecipeError("the label space has no classes", where=self.name)
        if len(self.indices) != len(self.names):
            raise RecipeError(f"{len(self.indices)} indices but {len(self.names)} names", where=self.name)
        if list(self.indices) != sorted(set(self.indices)) or self.indices[0] < 0:
            raise RecipeError("class indices must be different and ascending from 0 or above", where=self.name)
        if self.indices[-1] >= _IGNORE_16BIT:
            raise RecipeError(
                f"class index {self.indices[-1]} does not fit a 16-bit mask",
                where=self.name,
                fix=f"Use indices below {_IGNORE_16BIT}",
            )

    @classmethod
    def of(cls, name: str, names: Sequence[str]) -> LabelSpace:
        """The usual space: classes numbered 0..N-1."""
        return cls(name, tuple(range(len(names))), tuple(names))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def ignore_index(self) -> int:
        """The mask value that means "no label": 255, or 65535 in a 16-bit space."""
        return _IGNORE_8BIT if self.indices[-1] < _MAX_8BIT_CLASSES else _IGNORE_16BIT

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The dtype of this space's class masks."""
        return np.uint8 if self.ignore_index == _IGNORE_8BIT else np.uint16

    @property
    def keys(self) -> tuple[LabelKey, ...]:
        return tuple((self.name, index) for index in self.indices)

    @cached_property
    def hash(self) -> str:
        """Content hash of name, indices and names: 16 hexadecimal digits."""
        text = json.dumps([self.name, self.indices, self.names], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _position(self) -> dict[int, int]:
        return {index: position for position, index in enumerate(self.indices)}

    def name_of(self, index: int) -> str:
        """The name of the class with this mask value; KeyError if there is none."""
        return self.names[self._position[index]]

    def indices_of(self, names: Container[str] | None) -> frozenset[int]:
        """The indices of the classes with these names; None: of all."""
        every = zip(self.indices, self.names, strict=True)
        return frozenset(index for index, name in every if names is None or name in names)

    def __contains__(self, index: object) -> bool:
        return index in self._position

    def lookup(self, targets: Mapping[int, int], ignore: int) -> npt.NDArray[np.int64]:
        """A table ``[ignore_index + 1]`` from mask value to ``targets[mask value]``; `ignore` where there is none."""
        table = np.full(self.ignore_index + 1, ignore, dtype=np.int64)
        for index in self.indices:
            table[index] = targets.get(index, ignore)
        return table

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "hash": self.hash, "names": list(self.names), "indices": list(self.indices)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelSpace:
        """The inverse of `to_json`; raises RecipeError where the hash and the content disagree."""
        names = data["names"]
        space = cls(data["name"], tuple(data.get("indices", range(len(names)))), tuple(names))
        if space.hash != data["hash"]:
            raise RecipeError("the label space's hash does not match its content", where=space.name)
        return space


def names_of(spaces: Iterable[LabelSpace]) -> dict[LabelKey, str]:
    """The names of all labels of several splits. Raises ShardError where two splits of a dataset differ in one."""
    names: dict[LabelKey, str] = {}
    for space in spaces:
        for key, name in zip(space.keys, space.names, strict=True):
            if (other := names.setdefault(key, name)) != name:
                raise ShardError(
                    f"class {key[1]} is {other!r} in one split and {name!r} in another",
                    where=space.name,
                    fix="Make their shards again with one recipe",
                )
    return names


class LabelNames:
    """A list of labels, in which those of another list are found by key and name.

    A dataset's class list may have been written anew in another order, and then a number is another class.
    """

    def __init__(self, labels: Iterable[tuple[LabelKey, str]]) -> None:
        self._name = {key: " ".join(name.split()) for key, name in labels}
        self._key: dict[tuple[str, str], LabelKey] = {}
        for key, name in self._name.items():
            self._key.setdefault((key[0], name), key)

    def __contains__(self, key: object) -> bool:
        return key in self._name

    def find(self, key: LabelKey, name: str) -> LabelKey | None:
        """The key that a label has in this list: its own where the name is the same, or reads the same in a sentence
        and no label of the dataset has exactly this name; otherwise the one with this name. None if there is no match.
        """
        name = " ".join(name.split())
        mine = self._name.get(key)
        if mine == name:
            return key
        same = self._key.get((key[0], name))
        return key if same is None and mine is not None and prompt_name(mine) == prompt_name(name) else same


def summed_up(missing: Sequence[LabelKey], have: Iterable[str], most: int = 5) -> str:
    """Labels that are missing somewhere, in few words: ``136 labels: mapillary is not there (65 labels); kitti 3, …``.

    Args:
        missing: their keys.
        have: the datasets that have some labels there; the others are summed up.
        most: how many single labels are named.
    """
    there = set(have)
    by_dataset = Counter(dataset for dataset, _ in missing if dataset not in there)
    whole = [f"{dataset} is not in it ({counted(number, 'label')})" for dataset, number in by_dataset.items()]
    single = [f"{dataset} {index}" for dataset, index in missing if dataset in there]
    return f"{counted(len(missing), 'label')}: " + "; ".join([*whole, *([some(single, most)] if single else [])])
