"""Banks of the baselines that sentence embeddings are compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from labelmerge.describe.prompts import prompt_name
from labelmerge.embed.bank import Bank

ONE_HOT = "one-hot"
"""The `encoder` of a naive merge's bank."""


def one_hot_bank(bank: Bank, train_datasets: Sequence[str]) -> Bank:
    """The naive merge: every label of every training dataset is a class of its own.

    With M labels in `train_datasets`, training label m has the basis vector e_m and a text of its own, so that no two
    of them are one column. A label of another dataset, which only evaluation sees, has the normalised mean of the basis
    vectors of the training labels with the same `prompt_name`; where none has it, zeros, which nothing is similar to.

    Args:
        bank: whose keys and names to take.
        train_datasets: those that the model is trained on.

    Returns:
        A bank with vectors float32 [len(bank), M].

    Raises:
        BankError: `bank` lacks one of the training datasets.
    """
    training = bank.for_datasets(train_datasets)
    column = {key: number for number, key in enumerate(training.keys)}
    named: dict[str, list[int]] = {}
    for number, name in enumerate(training.names):
        named.setdefault(prompt_name(name), []).append(number)
    vectors = np.zeros((len(bank), len(training)), dtype=np.float32)
    texts = []
    for row, (key, name) in enumerate(zip(bank.keys, bank.names, strict=True)):
        meant = [column[key]] if key in column else named.get(prompt_name(name), [])
        vectors[row, meant] = 1 / np.sqrt(len(meant)) if meant else 0
        dataset, index = key
        texts.append(f"{prompt_name(name)} ({dataset} {index})")
    classes = json.dumps([[*key, name] for key, name in zip(training.keys, training.names, strict=True)])
    return Bank(
        encoder=ONE_HOT,
        identity={
            "spec": ONE_HOT,
            "model": ONE_HOT,
            "weights_sha256": hashlib.sha256(classes.encode()).hexdigest(),
            "activation": "none",
            "tokenizer": "none",
            "versions": {},
        },
        prompt="{name} ({dataset} {index})",
        keys=bank.keys,
        names=bank.names,
        texts=texts,
        vectors=vectors,
        tokens=[0] * len(bank),
        truncated=[False] * len(bank),
    )
