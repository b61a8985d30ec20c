"""How two labels of different datasets are related: by comparing the sets of concepts that they may stand for.

Relations that follow from sets can't contradict each other: if a contains b and b contains c, a contains c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.text import csv_text

HEADER = (
    *("a_dataset", "a_index", "a_name", "relation", "b_dataset", "b_index", "b_name"),
    *("evidence", "confidence", "iou"),
)
SAME, CONTAINS, PART_OF, OVERLAPS = "same", "contains", "part_of", "overlaps"


@dataclass(frozen=True)
class Relation:
    """``a`` is `kind` ``b``: `SAME`, `CONTAINS`, `PART_OF` (a lies within b) or `OVERLAPS`.

    Attributes:
        evidence: what says so, of both labels' evidence.
        confidence: the product of both labels' confidences.
        iou: intersection over union of the two sets: how much the labels have in common, 1 where they are the same.
    """

    a: Entry
    kind: str
    b: Entry
    iou: float

    @property
    def evidence(self) -> str:
        words = dict.fromkeys(word for entry in (self.a, self.b) for word in entry.evidence.split("+"))
        return "+".join(words)

    @property
    def confidence(self) -> float:
        return self.a.confidence * self.b.confidence


def relations(taxonomy: Taxonomy) -> Iterator[Relation]:
    """All related pairs of labels of different datasets, each once, the label with the smaller key first."""
    sets = taxonomy.sets.astype(np.float32)
    shared = sets @ sets.T
    sizes = sets.sum(axis=1)
    dataset = np.unique([entry.key[0] for entry in taxonomy.entries], return_inverse=True)[1]
    related = np.triu((shared > 0) & (dataset[:, None] != dataset[None]), 1)
    for a, b in zip(*map(np.ndarray.tolist, np.nonzero(related)), strict=True):
        both = shared[a, b]
        if both == sizes[a]:
            kind = SAME if both == sizes[b] else PART_OF
        else:
            kind = CONTAINS if both == sizes[b] else OVERLAPS
        iou = float(both / (sizes[a] + sizes[b] - both))
        yield Relation(taxonomy.entries[a], kind, taxonomy.entries[b], iou)


def relations_table(found: Sequence[Relation]) -> str:
    """Relations as CSV with the columns `HEADER`."""
    rows = [
        (
            *(*each.a.key, each.a.name, each.kind, *each.b.key, each.b.name),
            *(each.evidence, f"{each.confidence:.2f}", f"{each.iou:.4f}"),
        )
        for each in found
    ]
    return csv_text([HEADER, *rows])
