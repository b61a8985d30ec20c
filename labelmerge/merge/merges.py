"""The ways to merge, each a taxonomy: by concepts, as the paper does, or one of the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from labelmerge.bank.bank import Bank
from labelmerge.errors import TaxonomyError, UsageError, did_you_mean
from labelmerge.merge.attachment import attach
from labelmerge.merge.choices import MERGES
from labelmerge.merge.clustering import calibrated_threshold, same_meaning
from labelmerge.merge.concepts import distinct_concepts, sets_of
from labelmerge.merge.evidence import Confusion, with_pixels
from labelmerge.merge.lexicon import kept_in
from labelmerge.merge.nearness import Encode
from labelmerge.merge.taxonomy import Entry, Taxonomy, read_taxonomy
from labelmerge.names import prompt_name
from labelmerge.text import some


def taxonomy_of(merge: str, bank: Bank, file: Path | None = None, *, encode: Encode | None = None) -> Taxonomy:
    """The taxonomy of a way to merge.

    Args:
        merge: ``concepts``: `by_concepts`, or what `file` says; ``text``: equal texts are one class (Yin et al.);
            ``similar``: `by_similarity`; ``name``: equal `prompt_name`s are one class; ``naive``: every label is a
            class of its own; ``table``: what `file` says.
        bank: the labels.
        file: a table (`read_taxonomy`). ``table`` needs one; with one, ``concepts`` is what it says. Datasets that it
            lacks can't be trained on.
        encode: see `labelmerge.merge.attachment.attach`.

    Raises:
        UsageError: unknown way to merge; a table is missing, or one is given that is not used.
        TaxonomyError: the table is wrong or doesn't fit.
    """
    if merge not in MERGES:
        raise UsageError(f"unknown merge {merge!r}", fix=did_you_mean(merge, MERGES))
    if merge == "table" and file is None:
        raise UsageError(
            "the merge by table needs a table", fix="`labelmerge merge` writes one to begin with: --taxonomy FILE"
        )
    if file is not None and merge not in ("table", "concepts"):
        raise UsageError(f"the merge {merge!r} has no use for a table", fix="Use --merge concepts or table")
    if file is not None:
        return _from_table(bank, file, merge)
    if merge == "concepts":
        return by_concepts(bank, encode)
    if merge == "similar":
        return by_similarity(bank)
    form: dict[str, Callable[[int], str]] = {
        "text": lambda row: bank.texts[row],
        "name": lambda row: prompt_name(bank.names[row]),
        "naive": lambda row: "{}:{}".format(*bank.keys[row]),
    }
    return _partition(bank, [form[merge](row) for row in range(len(bank))], merge)


def by_concepts(bank: Bank, encode: Encode | None = None, seen: Sequence[Confusion] = ()) -> Taxonomy:
    """Every label's set of concepts: those below its attachments, less those that its own dataset names more closely.

    The concepts are those that the labels of the bank tell apart.

    Args:
        bank: the labels.
        encode: see `labelmerge.merge.attachment.attach`.
        seen: what pictures say (`labelmerge.merge.evidence.with_pixels`).
    """
    graph, attachments = attach(bank, encode)
    if seen:
        graph, attachments, _ = with_pixels(bank, graph, attachments, seen)
    datasets = [dataset for dataset, _ in bank.keys]
    but = [attachment.but for attachment in attachments]
    sets = sets_of([attachment.concepts for attachment in attachments], datasets, graph, kept_in(bank), but)
    concepts, membership = distinct_concepts(sets, graph)
    return Taxonomy(
        (
            Entry(
                key,
                name,
                tuple(concepts[place] for place in row.nonzero()[0]),
                attachment.evidence,
                attachment.confidence,
                attachment.note,
            )
            for key, name, row, attachment in zip(bank.keys, bank.names, membership, attachments, strict=True)
        ),
        concepts,
    )


def by_similarity(bank: Bank, threshold: float | None = None) -> Taxonomy:
    """Labels of different datasets whose texts are similar are one class; groups grow by complete linkage.

    Args:
        bank: the labels.
        threshold: the cosine from which on two texts mean the same; None for `calibrated_threshold`.

    Raises:
        UsageError: a threshold that is not a cosine.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise UsageError(f"the threshold is {threshold}: it must be from -1 to 1")
    limit = calibrated_threshold(bank) if threshold is None else threshold
    words = [""] * len(bank)
    for rows in same_meaning(bank, limit):
        names = [prompt_name(bank.names[row]) for row in rows]
        for row in rows:
            words[row] = f"{max(dict.fromkeys(names), key=names.count)} {rows[0]}"
    return _partition(bank, words, "text")


def _partition(bank: Bank, words: Sequence[str], evidence: str) -> Taxonomy:
    """The taxonomy in which labels of one word are one class, which is named readably and uniquely."""
    first: dict[str, int] = {}
    for row, word in enumerate(words):
        first.setdefault(word, row)
    used: set[str] = set()
    name_of: dict[str, str] = {}
    for word, row in first.items():
        own = prompt_name(bank.names[row]).replace(";", ",")
        dataset, index = bank.keys[row]
        name_of[word] = next(n for n in (own, f"{own} ({dataset})", f"{own} ({dataset} {index})") if n not in used)
        used.add(name_of[word])
    return Taxonomy(
        Entry(key, name, (name_of[word],), evidence)
        for key, name, word in zip(bank.keys, bank.names, words, strict=True)
    )


def _from_table(bank: Bank, file: Path, merge: str) -> Taxonomy:
    table = read_taxonomy(file, dict(zip(bank.keys, bank.names, strict=True)))
    if merge == "concepts":
        refuse_equal_texts(bank, table, file)
    return table


def refuse_equal_texts(bank: Bank, table: Taxonomy, file: Path) -> None:
    """Raise TaxonomyError where a table tells labels apart whose texts, and so whose vectors, are equal."""
    first: dict[str, Entry] = {}
    clashes = []
    for key, text in zip(bank.keys, bank.texts, strict=True):
        if key not in table or len(table[key].concepts) > 1:
            continue
        entry = table[key]
        other = first.setdefault(text, entry)
        if other.concepts != entry.concepts:
            clashes.append(f"{_shown(other)}, {_shown(entry)}")
    if clashes:
        raise TaxonomyError(
            f"it tells labels apart whose texts are the same: {some(clashes, separator='; ')}",
            where=file,
            fix="Give them one concept, or give one of them another description and embed it",
        )


def _shown(entry: Entry) -> str:
    return f"{entry.key[0]} {entry.key[1]} is {entry.concepts[0]!r}"
