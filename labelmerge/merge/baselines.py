"""Other ways to merge, as banks: the baselines that sentence embeddings are compared with, and a person's own table.

A way to merge is nothing but a set of label vectors. Training, evaluation and prediction don't know which it is: all
else stays equal, so a table of them compares the label vectors and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from labelmerge.bank.bank import ONE_HOT, Bank
from labelmerge.errors import BankError, UsageError
from labelmerge.labels import LabelKey
from labelmerge.merge.mapping import read_mapping
from labelmerge.names import prompt_name

MERGES = ("embedding", "naive", "name", "table")
"""The ways to merge, by name (`merged_bank`)."""

BY_NAME, BY_TABLE = f"{ONE_HOT} by name", f"{ONE_HOT} by table"
"""The `encoder` of a bank merged by name and by table; a naive merge's is `ONE_HOT`."""

_MAX_SHOWN = 5


def merged_bank(bank: Bank, merge: str, train_datasets: Sequence[str], mapping: Path | None = None) -> Bank:
    """The bank that a way to merge trains with.

    Args:
        bank: the labels and their embeddings.
        merge: ``embedding``: the bank itself or, with a mapping, `overruled_bank`; ``naive``: `one_hot_bank`; ``name``:
            `name_bank`; ``table``: `table_bank`, which needs a mapping.
        train_datasets: those that the model is trained on.
        mapping: a mapping table (`labelmerge.merge.mapping`).

    Raises:
        UsageError: no such way to merge; a mapping is missing, or there is one that is not used.
        BankError: the bank lacks one of the datasets; the mapping is wrong or doesn't fit.
    """
    if merge not in MERGES:
        raise UsageError(f"no way to merge is called {merge!r}", fix=f"Known: {', '.join(MERGES)}")
    if merge == "table" and mapping is None:
        raise UsageError(
            "the merge by table needs a mapping", fix="`labelmerge merge` writes one to begin with: --mapping FILE"
        )
    if mapping is not None and merge in ("naive", "name"):
        raise UsageError(f"the merge {merge!r} has no use for a mapping", fix="Use --merge table or embedding")
    groups = read_mapping(mapping, dict(zip(bank.keys, bank.names, strict=True))) if mapping is not None else {}
    if merge == "naive":
        return one_hot_bank(bank, train_datasets)
    if merge == "name":
        return name_bank(bank, train_datasets)
    if merge == "table":
        return table_bank(bank, train_datasets, groups)
    return overruled_bank(bank, groups) if groups else bank


def one_hot_bank(bank: Bank, train_datasets: Sequence[str]) -> Bank:
    """The naive merge: every label of every training dataset is a class of its own.

    With M classes, class m has the basis vector e_m and a text of its own, so that no two of them are one column. A
    label of another dataset, which only evaluation sees, has the normalised mean of the basis vectors of the classes
    that a training label with the same `prompt_name` belongs to; where none has it, zeros, which nothing is similar to.

    Args:
        bank: whose keys and names to take.
        train_datasets: those that the model is trained on.

    Returns:
        A bank with vectors float32 [len(bank), M].

    Raises:
        BankError: `bank` lacks one of the training datasets.
    """
    training = bank.for_datasets(train_datasets)
    return _basis_bank(bank, dict(zip(training.keys, _own_texts(training), strict=True)), ONE_HOT)


def name_bank(bank: Bank, train_datasets: Sequence[str]) -> Bank:
    """The merge by name: training labels with the same `prompt_name` are one class.

    Otherwise as `one_hot_bank`; a label of another dataset has the vector of the class with its name.
    """
    training = bank.for_datasets(train_datasets)
    return _basis_bank(bank, dict(zip(training.keys, map(prompt_name, training.names), strict=True)), BY_NAME)


def table_bank(bank: Bank, train_datasets: Sequence[str], groups: Mapping[LabelKey, str]) -> Bank:
    """A person's merge: training labels of one group are one class.

    Otherwise as `one_hot_bank`; a label of another dataset belongs to the group that the table gives it or, where the
    table doesn't have its dataset, to those of its name.

    Args:
        bank: whose keys and names to take.
        train_datasets: those that the model is trained on; the table must have all of their labels.
        groups: the group of each label, as `labelmerge.merge.mapping.read_mapping` returns them.

    Raises:
        BankError: `bank` or the table lacks one of the training datasets.
    """
    training = bank.for_datasets(train_datasets)
    missing = sorted({dataset for dataset, index in training.keys if (dataset, index) not in groups})
    if missing:
        raise BankError(
            f"the mapping lacks labels of {', '.join(missing)}",
            fix="Add their rows; `labelmerge merge` writes a mapping of all labels of a bank",
        )
    return _basis_bank(bank, {key: groups[key] for key in training.keys}, BY_TABLE, groups)


def _basis_bank(
    bank: Bank, class_of: Mapping[LabelKey, str], encoder: str, others: Mapping[LabelKey, str] | None = None
) -> Bank:
    """A bank of basis vectors.

    Args:
        class_of: the class of each training label.
        others: the classes of labels that are no training label's, where they are known.
    """
    column = {text: number for number, text in enumerate(dict.fromkeys(class_of.values()))}
    named: dict[str, dict[int, None]] = {}
    for key, name in zip(bank.keys, bank.names, strict=True):
        if key in class_of:
            named.setdefault(prompt_name(name), {})[column[class_of[key]]] = None
    vectors = np.zeros((len(bank), len(column)), dtype=np.float32)
    texts = []
    for row, (key, name, own) in enumerate(zip(bank.keys, bank.names, _own_texts(bank), strict=True)):
        text = class_of.get(key) or (others or {}).get(key)
        if text is not None:
            meant = [column[text]] if text in column else []
        else:
            meant = list(named.get(prompt_name(name), {}))
            # A name of one class is that class; one of several is a meaning of its own, between them.
            text = list(column)[meant[0]] if len(meant) == 1 else own
        vectors[row, meant] = 1 / np.sqrt(len(meant)) if meant else 0
        texts.append(text)
    classes = json.dumps([[*key, text] for key, text in class_of.items()])
    return Bank(
        encoder=encoder,
        identity={
            "spec": encoder,
            "model": encoder,
            "weights_sha256": hashlib.sha256(classes.encode()).hexdigest(),
            "activation": "none",
            "tokenizer": "none",
            "versions": {},
        },
        prompt="{class}",
        keys=bank.keys,
        names=bank.names,
        texts=texts,
        vectors=vectors,
        tokens=[0] * len(bank),
        truncated=[False] * len(bank),
    )


def _own_texts(bank: Bank) -> list[str]:
    """A text for each label that no other label has."""
    return [
        f"{prompt_name(name)} ({dataset} {index})" for (dataset, index), name in zip(bank.keys, bank.names, strict=True)
    ]


def overruled_bank(bank: Bank, groups: Mapping[LabelKey, str]) -> Bank:
    """The embeddings, overruled by a person: labels of one group share one vector, whatever their texts are.

    It is the normalised mean of the vectors of the group's distinct texts, and their text is those texts, one a line: a
    label of several sentences. What the table doesn't have keeps its text and vector, but follows a label of the same
    text that the table has: equal texts stay one vector.

    Labels of other groups are kept apart by their vectors. Equal texts can't be, so a table that puts them in different
    groups is refused: only other words say what sets them apart.

    Args:
        bank: embeddings of texts.
        groups: the group of each label, as `labelmerge.merge.mapping.read_mapping` returns them.

    Raises:
        BankError: labels with one text are in different groups.
    """
    texts_of: dict[str, dict[str, int]] = {}  # of a group: its texts, and a row that has each
    group_of: dict[str, tuple[str, LabelKey]] = {}
    clashes = []
    for row, (key, text) in enumerate(zip(bank.keys, bank.texts, strict=True)):
        if key not in groups:
            continue
        group, first = group_of.setdefault(text, (groups[key], key))
        if group != groups[key]:
            clashes.append(f"{_show(first)} is {group!r}, {_show(key)} is {groups[key]!r}")
        texts_of.setdefault(group, {}).setdefault(text, row)
    if clashes:
        more = f"; and {len(clashes) - _MAX_SHOWN} more" if len(clashes) > _MAX_SHOWN else ""
        raise BankError(
            f"the mapping tells labels apart whose texts are the same: {'; '.join(clashes[:_MAX_SHOWN])}{more}",
            where=bank.folder,
            fix="Put them in one group, or give one of them another description and embed it",
        )
    vectors = bank.vectors.copy()
    texts = list(bank.texts)
    tokens, truncated = list(bank.tokens), list(bank.truncated)
    parts = None if bank.parts is None else list(bank.parts)
    joint: dict[str, tuple[str, list[int]]] = {}
    for own in texts_of.values():
        ordered = dict(sorted(own.items()))
        for text in ordered:
            joint[text] = ("\n".join(ordered), list(ordered.values()))
    for row, text in enumerate(bank.texts):
        if text in joint and len(joint[text][1]) > 1:
            texts[row], rows = joint[text]
            mean = bank.vectors[rows].astype(np.float64).mean(axis=0)
            vectors[row] = mean / np.linalg.norm(mean)
            tokens[row] = max(bank.tokens[place] for place in rows)
            truncated[row] = any(bank.truncated[place] for place in rows)
            if parts is not None and bank.parts is not None:
                parts[row] = np.concatenate([bank.parts[place] for place in rows])
    return replace(
        bank,
        texts=texts,
        vectors=vectors,
        tokens=tokens,
        truncated=truncated,
        version="",
        folder=None,
        parts=parts,
    )


def _show(key: LabelKey) -> str:
    return f"{key[0]} {key[1]}"
