"""The pairs of labels of bench_words.py, and the average precision and F1 of scores, with a weight for each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmerge.labels import LabelKey
from labelmerge.names import prompt_name

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PAIRS = Path(__file__).with_name("word_pairs.csv")


@dataclass(frozen=True)
class Pair:
    """One row of the file of pairs."""

    a: LabelKey
    name_a: str
    b: LabelKey
    name_b: str
    relation: str
    kind: str

    def __str__(self) -> str:
        return f"{self.a[0]} *{prompt_name(self.name_a)}* – {self.b[0]} *{prompt_name(self.name_b)}*"


def read_pairs(path: Path = PAIRS) -> list[Pair]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            Pair(
                (row["dataset_a"], int(row["index_a"])),
                row["name_a"],
                (row["dataset_b"], int(row["index_b"])),
                row["name_b"],
                row["relation"],
                row["kind"],
            )
            for row in csv.DictReader(stream)
        ]


def counts_above(scores: Floats, positive: Bools, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """For every distinct score, highest first: the score, and the weight of the positives and of all at or above it."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits, all_ = np.cumsum((weights * positive)[order]), np.cumsum(weights[order])
    return scores[order][last], hits[last], all_[last]


def average_precision(scores: Floats, positive: Bools, weights: Floats) -> float:
    """The mean precision at the score of each positive; equal scores are one threshold."""
    _, hits, all_ = counts_above(scores, positive, weights)
    return float(np.sum(np.diff(hits, prepend=0) * hits / np.maximum(all_, 1e-12)) / hits[-1])


def best_f1(scores: Floats, positive: Bools, weights: Floats) -> tuple[float, float]:
    """The highest F1 that a threshold can reach, and that threshold."""
    thresholds, hits, all_ = counts_above(scores, positive, weights)
    values = 2 * hits / (all_ + hits[-1])
    return float(values.max()), float(thresholds[np.argmax(values)])


def f1(chosen: Bools, positive: Bools, weights: Floats) -> float:
    """2 · hits / (chosen + positive)."""
    return float(2 * np.sum(weights * (chosen & positive)) / np.sum(weights * (chosen.astype(int) + positive)))
