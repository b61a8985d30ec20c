"""An edited taxonomy, carried over to a bank that has grown: what a person changed stays, the rest is found anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from labelmerge.bank.bank import Bank
from labelmerge.errors import TaxonomyError
from labelmerge.merge.merges import by_concepts, refuse_equal_texts
from labelmerge.merge.nearness import Encode
from labelmerge.merge.taxonomy import PERSON, Entry, Taxonomy, read_taxonomy


@dataclass(frozen=True)
class Edit:
    """A row that a person changed.

    Attributes:
        entry: as it is now.
        found: the concepts that would be found for it.
    """

    entry: Entry
    found: tuple[str, ...]


@dataclass(frozen=True)
class Carried:
    """A taxonomy of all of a bank's labels, with a person's edits.

    Attributes:
        taxonomy: of all labels.
        edits: the rows that are as the person wrote them.
        new: the datasets that the person's table had no rows of.
    """

    taxonomy: Taxonomy
    edits: tuple[Edit, ...]
    new: tuple[str, ...]


def carry_edits(bank: Bank, file: Path, encode: Encode | None = None) -> Carried:
    """The taxonomy that `by_concepts` finds, but for the rows that a person changed in an earlier one.

    A row counts as changed where its set is not the one that is found for the datasets of the table alone. Where labels
    of further datasets divide a concept (*vehicle*, once *truck* is there as well), the row gets all of its parts: it
    stands for what it stood for. Concepts that nobody else has stay as they are.

    Args:
        bank: the labels, of the table's datasets and of others.
        file: the table (`read_taxonomy`).
        encode: see `labelmerge.merge.attachment.attach`.

    Raises:
        TaxonomyError: the table is wrong, names labels that the bank lacks, or tells equal texts apart.
    """
    table = read_taxonomy(file, dict(zip(bank.keys, bank.names, strict=True)))
    if not table.datasets:
        raise TaxonomyError("it has no rows", where=file)
    before, now = by_concepts(bank.for_datasets(table.datasets), encode), by_concepts(bank, encode)
    parts = _parts(before, now)
    entries, edits = [], []
    for found in now.entries:
        entry = table[found.key] if found.key in table else None
        if entry is None or set(entry.concepts) == set(before[found.key].concepts):
            entries.append(found)
            continue
        concepts = dict.fromkeys(part for concept in entry.concepts for part in parts.get(concept, (concept,)))
        said = PERSON in entry.evidence.split("+")
        entry = replace(
            entry,
            concepts=tuple(concepts),
            evidence=entry.evidence if said else PERSON,
            confidence=entry.confidence if said else 1.0,
            note="" if entry.note == before[entry.key].note else entry.note,  # which is of what was found
        )
        entries.append(entry)
        edits.append(Edit(entry, found.concepts))
    taxonomy = Taxonomy(entries, now.concepts)
    refuse_equal_texts(bank, taxonomy, file)
    new = tuple(dataset for dataset in bank.datasets() if dataset not in table.datasets)
    return Carried(taxonomy, tuple(edits), new)


def _parts(before: Taxonomy, now: Taxonomy) -> dict[str, tuple[str, ...]]:
    """What has become of each concept of a taxonomy in one of more labels: the concepts that the same labels have."""
    rows = [now.rows[entry.key] for entry in before.entries]
    owners = [tuple(column.nonzero()[0]) for column in now.sets[rows].T]
    parts = {}
    for concept, column in zip(before.concepts, before.sets.T, strict=True):
        own = tuple(column.nonzero()[0])
        found = tuple(name for name, theirs in zip(now.concepts, owners, strict=True) if theirs == own)
        if concept in found:
            parts[concept] = found
    return parts
