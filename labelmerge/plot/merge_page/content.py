"""What the merge page's script draws from: the labels, their classes, what contains what, and what to check."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import Bank
from labelmerge.colours import SHAPES, dataset_styles
from labelmerge.merge.clustering import seriation
from labelmerge.merge.label_lines import LabelLine
from labelmerge.merge.report import Member, MergeReport, Pair
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.names import prompt_name, sentence
from labelmerge.plot.groups import group_names
from labelmerge.plot.layout import flat_map
from labelmerge.plot.map import map_groups
from labelmerge.plot.similarity import named_blocks

# matplotlib's colours for light and dark paper, from far to near: even in lightness, which every eye tells apart.
_RAMPS = {"light": "PuBu", "dark": "magma"}
_RAMP_STEPS = 33
_BLOCKS = 30  # of the heat map that have a name, at most
_LEAST_QUANTILE = 0.02  # of the cosines: those below are not told apart
_PALE_QUANTILE = 0.5  # likewise: those below have the palest colour, since half of all pairs have nothing in common


class _Numbers:
    """Strings as numbers, in the order in which they first come."""

    def __init__(self) -> None:
        self.number_of: dict[str, int] = {}

    def __getitem__(self, word: str) -> int:
        return self.number_of.setdefault(word, len(self.number_of))


def page_data(
    report: MergeReport, taxonomy: Taxonomy, bank: Bank, lines: Sequence[LabelLine], seed: int
) -> dict[str, Any]:
    """What the page's script draws from, ready for JSON.

    A label is named by its row, a class by its place in ``classes``: those of several datasets stand first, and there
    are as many as ``merged`` says. Meanings and kinds of evidence are numbers in ``meanings`` and ``evidence``.

    ``cosines`` holds those of every two of the K distinct texts, the upper triangle row by row without the diagonal, as
    bytes in base64: 0 is ``low`` or less, 255 is 1. That is 2.7 MB at 2,000 texts. The colours of the heat map begin at
    the byte ``pale``, and its ``blocks`` are where `named_blocks` of ``order`` begin and end, and what they are called.
    ``groups`` are places on the map, with the names of what lies around them.

    Args:
        report: what `merge_report` says of `taxonomy`.
        taxonomy: the sets of the bank's labels, and what says so.
        bank: the labels.
        lines: a line for each label, in the bank's order.
        seed: of the map.
    """
    _, vectors, column = bank.columns()
    places, order = flat_map(vectors, seed), seriation(bank)
    low, packed = pack_cosines(vectors)
    pale = min(float(np.quantile(np.frombuffer(packed, np.uint8), _PALE_QUANTILE)), 254.0) if packed else 0.0
    styles = dataset_styles(list(report.datasets))
    number = {name: place for place, name in enumerate(report.datasets)}
    row_of = {line.member.key: row for row, line in enumerate(lines)}
    classes, class_of = _classes(report, lines)
    meanings, evidence = _Numbers(), _Numbers()
    concept = {name: place for place, name in enumerate(taxonomy.concepts)}

    def label(line: LabelLine, place: int) -> list[Any]:
        member, entry = line.member, taxonomy[line.member.key]
        return [
            *(number[member.dataset], member.index, member.name, prompt_name(member.name), place),
            *(class_of[member.key], meanings[meaning(member)]),
            *(evidence[entry.evidence], _rounded(entry.confidence), entry.note),
            *((row_of[line.nearest.key], _rounded(line.cosine)) if line.nearest else (None, None)),
            *(member.pixels, member.boxes),
        ]

    def class_entry(name: str, members: Sequence[Member], lowest: float | None) -> list[Any]:
        entries = [taxonomy[member.key] for member in members]
        words, sure = _grounds(entries)
        return [name, [concept[each] for each in members[0].concepts], _rounded(lowest), evidence[words], sure]

    def pair(two: Pair) -> list[Any]:
        return [row_of[two.a.key], row_of[two.b.key], _rounded(two.cosine), two.relation]

    return {
        "datasets": [{"name": name, "colour": styles[name].colour, "shape": styles[name].shape} for name in number],
        "shapes": SHAPES,
        "labels": [label(line, int(place)) for line, place in zip(lines, column, strict=True)],
        "concepts": list(taxonomy.concepts),
        "classes": [class_entry(*each) for each in classes],
        "merged": len(report.groups),
        "meanings": list(meanings.number_of),
        "covers": [
            [
                class_of[cover.parents[0].key],
                [
                    [
                        class_of[part.members[0].key],
                        _rounded(part.cosine),
                        evidence[part.evidence],
                        _rounded(part.confidence),
                    ]
                    for part in cover.parts
                ],
                int(cover.rest),
            ]
            for cover in report.covers
        ],
        "doubts": [row_of[doubt.member.key] for doubt in report.doubts],
        "pairs": {
            "same-name": [pair(each) for each in report.same_name],
            "other-name": [pair(each) for each in report.other_name],
            "near-misses": [pair(each) for each in report.near_misses],
            "same-dataset": [pair(each) for each in report.same_dataset],
        },
        "evidence": list(evidence.number_of),
        "counted": counted_kinds(lines),
        "places": [_place(place) for place in places],
        "groups": [[*_place(places[group].mean(axis=0)), name] for group, name in _map_groups(bank, places, column)],
        "order": order.tolist(),
        "blocks": named_blocks(bank, order, _BLOCKS) if len(bank) > _BLOCKS else [],
        "low": low,
        "pale": pale,
        "cosines": base64.b64encode(packed).decode(),
        "ramps": {theme: _ramp(name) for theme, name in _RAMPS.items()},
    }


def counted_kinds(lines: Iterable[LabelLine]) -> list[str]:
    """What the shards hold of the labels: pixels, boxes, both or nothing."""
    members = [line.member for line in lines]
    return [kind for kind in ("pixels", "boxes") if any(getattr(member, kind) for member in members)]


def _place(place: npt.NDArray[np.float64]) -> list[float]:
    """On the map, downwards."""
    return [round(float(place[0]), 4), round(1 - float(place[1]), 4)]


def _map_groups(
    bank: Bank, places: npt.NDArray[np.float64], column: npt.NDArray[np.int64]
) -> list[tuple[npt.NDArray[np.int64], str]]:
    """What lies together on the map, and its name."""
    groups = map_groups(places)
    names = group_names(bank, [np.flatnonzero(np.isin(column, group)) for group in groups]) if groups else []
    return list(zip(groups, names, strict=True))


Class = tuple[str, tuple[Member, ...], float | None]


def _classes(report: MergeReport, lines: Sequence[LabelLine]) -> tuple[list[Class], dict[tuple[str, int], int]]:
    """All classes as name, labels and lowest cosine, the report's groups first, and the class of each label."""
    classes: list[Class] = [(group.name, group.members, group.lowest) for group in report.groups]
    own: dict[frozenset[str], list[Member]] = {}
    for line in lines:
        if not line.group:
            own.setdefault(frozenset(line.member.concepts), []).append(line.member)
    for members in own.values():
        concepts = members[0].concepts
        name = concepts[0] if len(concepts) == 1 else prompt_name(members[0].name)
        classes.append((name, tuple(members), None))
    return classes, {m.key: number for number, (_, members, _) in enumerate(classes) for m in members}


def _grounds(entries: Iterable[Entry]) -> tuple[str, float]:
    """What says that labels are one class, and how sure the least sure of them is."""
    entries = list(entries)
    words = dict.fromkeys(word for entry in entries for word in entry.evidence.split("+"))
    return "+".join(words), _rounded(min(entry.confidence for entry in entries)) or 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def pack_cosines(vectors: npt.NDArray[np.float32]) -> tuple[float, bytes]:
    """The least cosine that is told apart, and the upper triangle of all cosines as bytes (see `page_data`)."""
    upper = np.clip(vectors @ vectors.T, -1, 1)[np.triu_indices(len(vectors), 1)]
    low = min(float(np.quantile(upper, _LEAST_QUANTILE)), 0.99) if upper.size else 0.0
    return low, np.round(np.clip((upper - low) / (1 - low), 0, 1) * 255).astype(np.uint8).tobytes()


def meaning(member: Member) -> str:
    """What a label's text says beyond the bare prompt: the description, or nothing."""
    bare = sentence(member.name, "")
    return member.text[len(bare) :].strip() if member.text.startswith(bare) else ""


def _ramp(name: str) -> list[list[int]]:
    from matplotlib import colormaps

    ramp: npt.NDArray[np.uint8] = colormaps[name](np.linspace(0, 1, _RAMP_STEPS), bytes=True)[:, :3]
    return [[int(c) for c in colour] for colour in ramp]
