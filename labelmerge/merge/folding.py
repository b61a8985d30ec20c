"""Wider concepts: all that a label of one dataset stands for becomes one, so that more labels of others have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from labelmerge.errors import UsageError, did_you_mean
from labelmerge.merge.taxonomy import Entry, Taxonomy
from labelmerge.names import prompt_name


@dataclass(frozen=True)
class Folded:
    """A taxonomy with one dataset's classes for concepts.

    Attributes:
        taxonomy: of the same labels.
        within: labels of other datasets that are one of the classes.
        across: those that are several of them, or one and something else besides.
        outside: labels that fit none of these classes; they keep their concepts.
    """

    taxonomy: Taxonomy
    within: tuple[Entry, ...]
    across: tuple[Entry, ...]
    outside: tuple[Entry, ...]


def fold(taxonomy: Taxonomy, dataset: str) -> Folded:
    """Make one concept of all that each label of a dataset stands for.

    CamVid's *Car* stands for cars, buses, trucks and trains; folded into CamVid, Cityscapes' *bus* is that, too. A
    concept that several of the dataset's labels stand for goes to the one that stands for fewest. The concepts are
    named after the labels, and come first, in the dataset's order.

    Args:
        taxonomy: any.
        dataset: one of its datasets.

    Raises:
        UsageError: the taxonomy has no such dataset.
    """
    if dataset not in taxonomy.datasets:
        raise UsageError(f"no labels of {dataset!r} are merged here", fix=did_you_mean(dataset, taxonomy.datasets))
    own = [entry for entry in taxonomy.entries if entry.key[0] == dataset]
    owner: dict[str, Entry] = {}
    for entry in sorted(own, key=lambda entry: (len(entry.concepts), entry.key)):
        for concept in entry.concepts:
            owner.setdefault(concept, entry)
    names = _names(own, [concept for concept in taxonomy.concepts if concept not in owner])
    new = {concept: names[owner[concept]] if concept in owner else concept for concept in taxonomy.concepts}
    entries = [
        replace(entry, concepts=tuple(dict.fromkeys(new[concept] for concept in entry.concepts)))
        for entry in taxonomy.entries
    ]
    folded = set(names.values())
    others = [entry for entry in entries if entry.key[0] != dataset]
    inside = [entry for entry in others if folded & set(entry.concepts)]
    return Folded(
        Taxonomy(entries, [*names.values(), *new.values()]),
        within=tuple(entry for entry in inside if len(entry.concepts) == 1),
        across=tuple(entry for entry in inside if len(entry.concepts) > 1),
        outside=tuple(entry for entry in others if not folded & set(entry.concepts)),
    )


def _names(labels: Sequence[Entry], taken: Sequence[str]) -> dict[Entry, str]:
    """What the concepts of labels are called: as they read in a sentence, with their index where that is taken."""
    used = {name.casefold() for name in taken}
    names = {}
    for entry in labels:
        name = prompt_name(entry.name).replace(";", ",")  # which separates concepts in a table
        if name.casefold() in used:
            name = f"{name} {entry.key[1]}"
        while name.casefold() in used:
            name += "'"
        used.add(name.casefold())
        names[entry] = name
    return names
