"""The merge report, label by label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from labelmerge.bank.bank import Bank
from labelmerge.merge.neighbours import nearest_elsewhere
from labelmerge.merge.report import Member, MergeReport


@dataclass(frozen=True)
class LabelLine:
    """One label of the report.

    Attributes:
        member: the label.
        group: the number of its group in ``report.groups``, from 1; 0 for a label that is alone.
        nearest: the label of another dataset with the largest cosine; None where the bank has one dataset only.
        cosine: with `nearest`.
    """

    member: Member
    group: int
    nearest: Member | None
    cosine: float | None

    def to_json(self) -> dict[str, Any]:
        nearest = None
        if self.nearest is not None:
            nearest = {
                "dataset": self.nearest.dataset,
                "index": self.nearest.index,
                "name": self.nearest.name,
                "cosine": self.cosine,
            }
        return {**asdict(self.member), "group": self.group, "nearest": nearest}


def label_lines(report: MergeReport, bank: Bank) -> list[LabelLine]:
    """A line for every label, in the bank's order."""
    group_of = {m.key: number for number, group in enumerate(report.groups, start=1) for m in group.members}
    members = {m.key: m for m in (*report.alone, *(m for group in report.groups for m in group.members))}
    return [
        LabelLine(members[key], group_of.get(key, 0), None if row is None else members[bank.keys[row]], cosine)
        for key, (row, cosine) in zip(bank.keys, nearest_elsewhere(bank), strict=True)
    ]
