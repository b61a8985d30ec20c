"""The nearest labels in other datasets: of every label, and of given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.errors import UsageError, did_you_mean
from labelmerge.labels import LabelKey
from labelmerge.merge.clustering import cosines_of
from labelmerge.names import prompt_name


@dataclass(frozen=True)
class Label:
    """A label and its official name."""

    dataset: str
    index: int
    name: str


@dataclass(frozen=True)
class Neighbour:
    """Labels of one text, and how near they are.

    Attributes:
        name: their commonest `prompt_name`.
        labels: those of other datasets than the label that was asked for.
        cosine: with it.
    """

    name: str
    labels: tuple[Label, ...]
    cosine: float

    @property
    def datasets(self) -> tuple[str, ...]:
        """Whose labels they are, each dataset once."""
        return _datasets(self.labels)


@dataclass(frozen=True)
class Neighbourhood:
    """A label, or all labels of a name that share a text, and what is nearest in other datasets.

    Attributes:
        name: the commonest `prompt_name` of `labels`.
        labels: what was asked for.
        neighbours: nearest first.
    """

    name: str
    labels: tuple[Label, ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """Whose labels were asked for, each dataset once."""
        return _datasets(self.labels)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def nearest_elsewhere(bank: Bank) -> list[tuple[int | None, float | None]]:
    """For every label, the row of the nearest label of another dataset and their cosine; None where there is none.

    Among equals the first in the bank's order.
    """
    dataset = np.unique([name for name, _ in bank.keys], return_inverse=True)[1]
    cosines = np.where(dataset[:, None] == dataset[None], -np.inf, cosines_of(bank.vectors))
    nearest = cosines.argmax(axis=1)
    best = cosines[np.arange(len(bank)), nearest]
    return [
        (int(row), float(cosine)) if np.isfinite(cosine) else (None, None)
        for row, cosine in zip(nearest, best, strict=True)
    ]


def find_neighbours(bank: Bank, label: str, count: int = 8) -> list[Neighbourhood]:
    """Find what is nearest to a label in other datasets.

    Labels that share a text are listed together, since they share a vector.

    Args:
        bank: the labels.
        label: ``DATASET:NAME`` or ``DATASET:INDEX`` for one label, or a NAME for all labels called so, in any case,
            by their official names or as they read in a sentence.
        count: how many neighbours.

    Returns:
        One neighbourhood for each text that these labels have: *mouse* is two of them.

    Raises:
        UsageError: no such label or dataset; the message suggests the near ones.
    """
    texts, vectors, column = bank.columns()
    rows_of: list[list[int]] = [[] for _ in texts]
    for row, place in enumerate(column):
        rows_of[place].append(row)
    asked: dict[int, list[int]] = {}
    for row in find_rows(bank, label):
        asked.setdefault(int(column[row]), []).append(row)
    found = []
    for place, rows in asked.items():
        own = {bank.keys[row][0] for row in rows}
        cosines = np.clip(vectors @ vectors[place], -1, 1)
        neighbours: list[Neighbour] = []
        for other in np.argsort(-cosines, kind="stable").tolist():
            there = [
                row for row in rows_of[other] if row not in rows and (len(own) > 1 or bank.keys[row][0] not in own)
            ]
            if there and len(neighbours) < count:
                neighbours.append(Neighbour(_name(bank, there), _labels(bank, there), float(cosines[other])))
        found.append(Neighbourhood(_name(bank, rows), _labels(bank, rows), tuple(neighbours)))
    return found


def find_rows(bank: Bank, label: str) -> list[int]:
    """The rows that `label` names. Raises UsageError if there are none."""
    rows = _called(bank, range(len(bank)), label)
    dataset, colon, name = label.partition(":")
    if rows or not colon:
        if not rows:
            raise _no_label(bank, range(len(bank)), label)
        return rows
    dataset, name = dataset.strip(), name.strip()
    own = [row for row, key in enumerate(bank.keys) if key[0] == dataset]
    if not own:
        raise UsageError(f"{label!r}: no dataset {dataset!r} in the bank", fix=did_you_mean(dataset, bank.datasets()))
    key: LabelKey = (dataset, int(name) if name.isascii() and name.isdigit() else -1)
    rows = [int(bank.positions([key])[0])] if key in bank else _called(bank, own, name)
    if not rows:
        raise _no_label(bank, own, name, f" of {dataset}")
    return rows


def _called(bank: Bank, rows: Sequence[int], name: str) -> list[int]:
    wanted = name.strip().casefold()
    return [row for row in rows if wanted in (bank.names[row].casefold(), prompt_name(bank.names[row]).casefold())]


def _no_label(bank: Bank, rows: Sequence[int], name: str, where: str = "") -> UsageError:
    near = did_you_mean(name, {prompt_name(bank.names[row]) for row in rows})
    if near.startswith("Known"):  # a list of a thousand names helps nobody
        near = "`labelmerge merge` makes a page of all labels"
    return UsageError(f"no label {name!r}{where} in the bank", fix=near)


def _labels(bank: Bank, rows: Sequence[int]) -> tuple[Label, ...]:
    return tuple(Label(*bank.keys[row], bank.names[row]) for row in rows)


def _name(bank: Bank, rows: Sequence[int]) -> str:
    names = [prompt_name(bank.names[row]) for row in rows]
    return max(dict.fromkeys(names), key=names.count)


def neighbours_text(found: Sequence[Neighbourhood]) -> str:
    """The neighbourhoods as text: a line for each neighbour, with its cosine, name and datasets."""
    lines = []
    for neighbourhood in found:
        lines.append(f"{neighbourhood.name} ({', '.join(neighbourhood.datasets)})")
        wide = max((len(neighbour.name) for neighbour in neighbourhood.neighbours), default=0)
        lines += [
            f"  {neighbour.cosine:6.3f}  {neighbour.name:<{wide}}  {', '.join(neighbour.datasets)}"
            for neighbour in neighbourhood.neighbours
        ]
        if not neighbourhood.neighbours:
            lines.append("  no other dataset to look in: neighbours are labels of others")
    return "\n".join(lines)


def _datasets(labels: Sequence[Label]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label.dataset for label in labels))
