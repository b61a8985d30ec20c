"""What the demo's models came to, as figures and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelmerge.demo.worlds import unseen_labels
from labelmerge.text import aligned

MERGED = ("naive", "words", "sentences", "concepts")
SINGLE = "single"
METRICS = ("seen", "unseen", "camvid", "village", "harmonic")
ROW_NAMES = {
    "single": "one dataset, mean",
    "best": "one dataset, best",
    "naive": "naive merge",
    "words": "words",
    "sentences": "sentences",
    "concepts": "concepts",
}


@dataclass(frozen=True)
class Scores:
    """What one trained model came to.

    Attributes:
        method: ``naive``, ``words``, ``sentences``, ``concepts``, or ``single/<dataset>``.
        iou: by held-out dataset and label; 0..1.
        miou: by held-out dataset.
        harmonic: mean of the two.
        seen, unseen: mean IoU over the labels of both sets that are, and are not, in the training data.
        seconds: of training.
    """

    method: str
    iou: Mapping[str, Mapping[str, float]]
    miou: Mapping[str, float]
    harmonic: float
    seen: float
    unseen: float
    seconds: float

    def metrics(self) -> dict[str, float]:
        """By the names in `METRICS`."""
        return {"seen": self.seen, "unseen": self.unseen, "harmonic": self.harmonic, **self.miou}

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Mean:
    """A figure over several runs: its mean, and its sample standard deviation where there was more than one."""

    value: float
    spread: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        known = np.asarray(values, dtype=np.float64)
        return cls(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else None)

    def percent(self) -> str:
        """As it stands in a table: ``41.3`` or ``41.3 ± 2.0``, in per cent."""
        spread = "" if self.spread is None else f" ± {100 * self.spread:.1f}"
        return f"{100 * self.value:.1f}{spread}"


def scores_of(method: str, results: Mapping[str, Any], seconds: float) -> Scores:
    """Read seen and unseen labels off the content of a results.json."""
    iou = {
        entry["dataset"]: {row["name"]: row["iou"] for row in entry["classes"] if row["iou"] is not None}
        for entry in results["sets"]
    }
    groups: dict[bool, list[float]] = {True: [], False: []}
    for dataset, by_name in iou.items():
        for name, value in by_name.items():
            groups[name in unseen_labels(dataset)].append(value)
    return Scores(
        method=method,
        iou=iou,
        miou={entry["dataset"]: float(entry["miou"]) for entry in results["sets"]},
        harmonic=float(results["harmonic_mean"]),
        seen=mean(groups[False]),
        unseen=mean(groups[True]),
        seconds=seconds,
    )


def table(result: Mapping[str, Any]) -> str:
    """The results as plain text, in per cent."""
    head = ("mIoU, %", "seen labels", "unseen labels", "camvid", "village", "harmonic mean")
    body = [
        (ROW_NAMES[row], *(Mean.of(figures[name]).percent() for name in METRICS))
        for row, figures in result["rows"].items()
    ]
    return "\n".join(aligned([head, *body]))


def mean(values: Sequence[float] | Iterator[float]) -> float:
    """The mean of the values; 0 where there are none."""
    known = list(values)
    return float(np.mean(known)) if known else 0.0
