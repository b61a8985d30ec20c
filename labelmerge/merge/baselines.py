"""The label vectors that a way to merge trains with, as a bank.

Training, evaluation and prediction know no other difference between ways to merge than these vectors and the sets of a
taxonomy: all else stays equal, so a table of runs compares the merges and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from labelmerge.bank.bank import ONE_HOT, Bank
from labelmerge.errors import BankError
from labelmerge.labels import LabelKey
from labelmerge.merge.taxonomy import Taxonomy
from labelmerge.names import prompt_name

BY_NAME, BY_TABLE = f"{ONE_HOT} by name", f"{ONE_HOT} by table"
"""The `encoder` of a bank merged by name and by table; a naive merge's is `ONE_HOT`."""


def merged_bank(bank: Bank, merge: str, train_datasets: Sequence[str], taxonomy: Taxonomy | None = None) -> Bank:
    """The bank that a way to merge trains with.

    Args:
        bank: the labels and their embeddings.
        merge: ``text``: the bank itself; ``naive``: `one_hot_bank`; ``name``: `name_bank`; ``table``: `table_bank`;
            others: `shared_bank`.
        train_datasets: those that the model is trained on.
        taxonomy: the sets of the bank's labels; needed for all but ``text``, ``naive`` and ``name``.

    Raises:
        BankError: the bank or the taxonomy lacks one of the datasets.
    """
    if merge == "text":
        return bank
    if merge == "naive":
        return one_hot_bank(bank, train_datasets)
    if merge == "name":
        return name_bank(bank, train_datasets)
    assert taxonomy is not None
    return (table_bank if merge == "table" else shared_bank)(bank, train_datasets, taxonomy)


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
    return _basis_bank(bank, {key: (text,) for key, text in _own_texts(training).items()}, ONE_HOT)


def name_bank(bank: Bank, train_datasets: Sequence[str]) -> Bank:
    """The merge by name: training labels with the same `prompt_name` are one class.

    Otherwise as `one_hot_bank`; a label of another dataset has the vector of the class with its name.
    """
    training = bank.for_datasets(train_datasets)
    words = {key: (prompt_name(name),) for key, name in zip(training.keys, training.names, strict=True)}
    return _basis_bank(bank, words, BY_NAME)


def table_bank(bank: Bank, train_datasets: Sequence[str], taxonomy: Taxonomy) -> Bank:
    """A merge by a hand-made table: each concept that a training label may stand for is a class.

    Otherwise as `one_hot_bank`; a label of another dataset belongs to the concepts that the table gives it or, where
    the table doesn't have its dataset, to those of its name. A label of several concepts has the normalised mean of
    their basis vectors.

    Args:
        bank: whose keys and names to take.
        train_datasets: those that the model is trained on; the table must have all of their labels.
        taxonomy: the table.

    Raises:
        BankError: `bank` or the table lacks one of the training datasets.
    """
    training = bank.for_datasets(train_datasets)
    _refuse_missing(training, taxonomy)
    concepts = {key: taxonomy[key].concepts for key in training.keys}
    others = {key: taxonomy[key].concepts for key in bank.keys if key in taxonomy and key not in concepts}
    return _basis_bank(bank, concepts, BY_TABLE, others)


def shared_bank(bank: Bank, train_datasets: Sequence[str], taxonomy: Taxonomy) -> Bank:
    """The embeddings, with one vector for the labels of one class, whatever their texts are.

    The vector is the normalised mean of the vectors of the distinct texts that training labels of the class have; their
    text is those texts, one a line. A label of another dataset shares the vector if its set equals the class's, as far
    as training labels tell concepts apart, or if its text is one of the class's. Other labels keep their own.

    Args:
        bank: embeddings of texts.
        train_datasets: those that the model is trained on.
        taxonomy: the sets of their labels, and of other datasets where it has them.

    Raises:
        BankError: `bank` or the taxonomy lacks one of the training datasets.
    """
    training = bank.for_datasets(train_datasets)
    _refuse_missing(training, taxonomy)
    rows = taxonomy.rows
    told = taxonomy.sets[[rows[key] for key in training.keys]]
    kept = told.any(axis=0)
    classes: dict[bytes, dict[str, int]] = {}
    for key, own in zip(training.keys, told[:, kept], strict=True):
        row = int(bank.positions([key])[0])
        classes.setdefault(np.packbits(own).tobytes(), {}).setdefault(bank.texts[row], row)
    joint: dict[str, tuple[str, list[int]]] = {}
    of_class: dict[bytes, tuple[str, list[int]]] = {}
    for number, texts in classes.items():
        ordered = dict(sorted(texts.items()))
        of_class[number] = "\n".join(ordered), list(ordered.values())
        for text in ordered:
            joint.setdefault(text, of_class[number])
    vectors, texts_of = bank.vectors.copy(), list(bank.texts)
    tokens, truncated = list(bank.tokens), list(bank.truncated)
    parts = None if bank.parts is None else list(bank.parts)
    trained = set(training.keys)
    for row, key in enumerate(bank.keys):
        # A set that no training label has shares nothing: every class has a concept, so none is without a bit.
        own = taxonomy.sets[rows[key]][kept] if key in rows else np.zeros(0, dtype=np.bool_)
        shared = of_class.get(np.packbits(own).tobytes()) or (None if key in trained else joint.get(bank.texts[row]))
        if shared is None or len(shared[1]) == 1 and bank.texts[row] == shared[0]:
            continue
        texts_of[row], firsts = shared
        mean = bank.vectors[firsts].astype(np.float64).mean(axis=0)
        vectors[row] = mean / np.linalg.norm(mean)
        tokens[row] = max(bank.tokens[place] for place in firsts)
        truncated[row] = any(bank.truncated[place] for place in firsts)
        if parts is not None and bank.parts is not None:
            parts[row] = np.concatenate([bank.parts[place] for place in firsts])
    return replace(
        bank,
        texts=texts_of,
        vectors=vectors,
        tokens=tokens,
        truncated=truncated,
        version="",
        folder=None,
        parts=parts,
    )


def _refuse_missing(training: Bank, taxonomy: Taxonomy) -> None:
    """Raise BankError where a taxonomy lacks labels of the training datasets."""
    if missing := sorted({key[0] for key in training.keys if key not in taxonomy}):
        raise BankError(
            f"the taxonomy lacks labels of {', '.join(missing)}",
            fix="`labelmerge merge --bank BANK --edits TAXONOMY --out DIR` finds them and keeps your edits",
        )


def _basis_bank(
    bank: Bank,
    classes: Mapping[LabelKey, tuple[str, ...]],
    encoder: str,
    others: Mapping[LabelKey, tuple[str, ...]] | None = None,
) -> Bank:
    """A bank of basis vectors.

    Args:
        classes: the classes of each training label.
        others: the classes of labels that no training dataset has, where they are known.
    """
    column = {text: number for number, text in enumerate(dict.fromkeys(c for own in classes.values() for c in own))}
    named: dict[str, dict[int, None]] = {}
    for key, name in zip(bank.keys, bank.names, strict=True):
        for own in classes.get(key, ()):
            named.setdefault(prompt_name(name), {})[column[own]] = None
    vectors = np.zeros((len(bank), len(column)), dtype=np.float32)
    texts = []
    own_texts = _own_texts(bank)
    for row, (key, name) in enumerate(zip(bank.keys, bank.names, strict=True)):
        concepts = classes.get(key) or (others or {}).get(key)
        if concepts is not None:
            meant = [column[concept] for concept in concepts if concept in column]
            text = concepts[0] if len(concepts) == 1 else own_texts[key]
        else:
            meant = list(named.get(prompt_name(name), {}))
            # A name of one class is that class; one of several is a meaning of its own, between them.
            text = list(column)[meant[0]] if len(meant) == 1 else own_texts[key]
        vectors[row, meant] = 1 / np.sqrt(len(meant)) if meant else 0
        texts.append(text)
    content = json.dumps([[*key, *own] for key, own in classes.items()])
    return Bank(
        encoder=encoder,
        identity={
            "spec": encoder,
            "model": encoder,
            "weights_sha256": hashlib.sha256(content.encode()).hexdigest(),
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
        kept=bank.kept,
    )


def _own_texts(bank: Bank) -> dict[LabelKey, str]:
    """A text for each label that no other label has."""
    return {key: f"{prompt_name(name)} ({key[0]} {key[1]})" for key, name in zip(bank.keys, bank.names, strict=True)}
