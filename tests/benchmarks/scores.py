"""Weighted average precision and F1 of scored pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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
