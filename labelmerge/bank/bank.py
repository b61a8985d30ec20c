"""The embedding bank: versioned label vectors in a folder, keyed by (dataset, index).

A bank is ``bank.json``, the list of versions, and one immutable ``v<NNNN>-<hash8>.parquet`` for each. docs/bank.md has
every field.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.prompt import Prompt
from labelmerge.bank.store import (
    INDEX,
    PROBE,
    bank_lock,
    find_version,
    identity_key,
    last_number,
    read_index,
    read_version,
    shown_identity,
    shown_versions,
    version_bytes,
    version_name,
    write_index,
)
from labelmerge.catalog import Kept
from labelmerge.errors import BankError, did_you_mean
from labelmerge.files import write_bytes
from labelmerge.labels import LabelKey, LabelSpace, summed_up
from labelmerge.text import counted, some
from labelmerge.urls import url_of

if TYPE_CHECKING:
    from labelmerge.encoders.encoders import TextEncoder

Vectors = npt.NDArray[np.float32]

WORD_TEMPLATE = "{name}"
"""The prompt of a bank of bare words."""
IMPORTED, ONE_HOT = "imported", "one-hot"
"""The `encoder` of a bank of foreign vectors, and how that of a bank of basis vectors begins."""
_PROBE_COSINE = 0.9999  # other devices and releases move a vector by 1e-6; another model or activation by far more


@dataclass(frozen=True, eq=False)
class Bank:
    """One version of a bank in memory: N labels, their texts and their vectors of D dimensions.

    Rows are in ascending order of key, so that the same labels make the same bank in whatever order they came.

    Attributes:
        encoder: the spec that the vectors were asked for with, e.g. ``"offline"``.
        identity: what made the vectors: ``model``, ``weights_sha256``, ``activation`` and ``tokenizer`` say whether two
            encoders are the same; ``spec`` and ``versions`` (of packages) are for people.
        prompt: the templates of the texts, one a line (`labelmerge.bank.prompt.Prompt`); `WORD_TEMPLATE` for bare
            words.
        keys: ``(dataset, index)`` of every row.
        names: the official class names.
        texts: what was encoded. Rows with the same text have the same vector: a merged label. A text of several lines
            is as many sentences, and its vector the normalised mean of theirs.
        vectors: float32 [N, D], rows of unit length; zeros where a label has no vector (in one-hot banks only).
        tokens: how many tokens each text has, or the longest of its sentences, special ones included.
        truncated: whether the encoder saw only the beginning of a text, or of one of its sentences.
        probe: vector of `PROBE`, float32 [D]; empty where the vectors come from no encoder.
        version: ``v<NNNN>-<hash8>``; a bank that no folder holds yet is version 1 of itself.
        folder: where it was loaded from or saved to.
        parts: the vectors of each label's sentences, float32 [its sentences, D], rows of unit length; None where only
            their means were kept.
        kept: what the wider labels of a user's own datasets keep, if anything (`labelmerge.catalog.Recipe.kept`).
    """

    encoder: str
    identity: Mapping[str, Any]
    prompt: str
    keys: Sequence[LabelKey]
    names: Sequence[str]
    texts: Sequence[str]
    vectors: Vectors
    tokens: Sequence[int]
    truncated: Sequence[bool]
    probe: Vectors = field(default_factory=lambda: np.zeros(0, np.float32))
    version: str = ""
    folder: Path | None = None
    parts: Sequence[Vectors] | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = [self.keys, self.names, self.texts, self.tokens, self.truncated, self.parts or self.keys]
        if (
            self.vectors.ndim != 2
            or self.vectors.dtype != np.float32
            or {len(c) for c in columns} != {len(self.vectors)}
        ):
            raise ValueError("a bank needs one key, name, text, token count and float32 row for each label")
        if any(a >= b for a, b in zip(self.keys, self.keys[1:], strict=False)):
            raise ValueError("the labels of a bank must be different and in ascending order")
        if not self.version:
            object.__setattr__(self, "version", version_name(1, self.content_hash))

    def __repr__(self) -> str:
        labels = f"{len(self):,} labels of {counted(len(self.datasets()), 'dataset')}"
        return f"Bank({labels}, {self.dim} dimensions, {self.encoder}, {self.version})"

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (64 hexadecimal digits) of keys, names, texts and the encoder's identity, alike on every machine."""
        rows = [[*key, name, text] for key, name, text in zip(self.keys, self.names, self.texts, strict=True)]
        content: list[Any] = [identity_key(self.identity), self.prompt, rows]
        if self.parts is not None:
            content.append("parts")
        if self.kept:
            content.append({"kept": self.kept})
        if not self.probe.size:  # no encoder makes these vectors from the texts
            content.append(hashlib.sha256(self.vectors.astype("<f4").tobytes()).hexdigest())
        return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()

    @cached_property
    def described(self) -> tuple[bool, ...]:
        """Whether each text says more than its prompt does without a description; never in banks of no encoder."""
        if not self.probe.size:
            return (False,) * len(self)
        bare = Prompt.stored(self.prompt)
        return tuple(text != bare.text(name, "") for name, text in zip(self.names, self.texts, strict=True))

    @property
    def truncated_labels(self) -> tuple[str, ...]:
        """The labels of which the encoder did not see the whole text, as ``<dataset>:<index> <name>``."""
        rows = zip(self.keys, self.names, self.truncated, strict=True)
        return tuple(f"{dataset}:{index} {name}" for (dataset, index), name, cut in rows if cut)

    @cached_property
    def _position(self) -> dict[LabelKey, int]:
        return {key: position for position, key in enumerate(self.keys)}

    def __contains__(self, key: object) -> bool:
        return key in self._position

    def positions(self, keys: Iterable[LabelKey]) -> npt.NDArray[np.int64]:
        """The rows of these labels, int64 [n].

        Raises:
            BankError: labels that the bank lacks; the message has the command that adds them.
        """
        keys = list(keys)
        missing = list(dict.fromkeys(key for key in keys if key not in self._position))
        if missing:
            raise BankError(
                f"the bank ({self.version}) has no vector for {summed_up(missing, self.datasets())}",
                where=self.folder,
                fix=self._how_to_add(dict.fromkeys(dataset for dataset, _ in missing)),
            )
        return np.array([self._position[key] for key in keys], dtype=np.int64)

    def _how_to_add(self, datasets: Iterable[str]) -> str:
        if self.encoder == IMPORTED:
            return "`labelmerge bank import` adds labels to a bank of foreign vectors"
        if self.encoder.startswith(ONE_HOT):
            return (
                "Its classes are those of a merge: embed the labels into the bank that it was made of, and train again"
            )
        local = self.folder is not None and url_of(self.folder) is None
        made = f"`labelmerge embed {' '.join(datasets)} --out {self.folder if local else 'BANK'}` adds them"
        given = "" if local else " to a bank of yours, which --bank BANK gives"
        return f"{made}{given}; a dataset of your own is named by the path of its recipe"

    def refuse_other_names(self, space: LabelSpace) -> None:
        """Make sure that the bank means the same classes as a label space, and not others of the same numbers.

        Labels that the bank lacks are not compared.

        Raises:
            BankError: names differ; the message has the first of them.
        """
        rows = ((key, name, self._position.get(key)) for key, name in zip(space.keys, space.names, strict=True))
        other = [
            f"{key[1]} is {name!r} in the data, {self.names[row]!r} in the bank"
            for key, name, row in rows
            if row is not None and self.names[row].split() != name.split()
        ]
        if other:
            differ = f"{counted(len(other), 'class', 'classes')} of {space.name}"
            raise BankError(
                f"the bank ({self.version}) and the data name {differ} differently: {some(other, separator='; ')}",
                where=self.folder,
                fix="They were made from different class lists: make the shards again, or embed again",
            )

    def rows(self, keys: Iterable[LabelKey]) -> Vectors:
        """The vectors of these labels, float32 [n, D]. Raises BankError where labels are missing."""
        vectors: Vectors = self.vectors[self.positions(keys)]
        return vectors

    def datasets(self) -> list[str]:
        """The datasets whose labels are here, sorted."""
        return sorted({dataset for dataset, _ in self.keys})

    def count_by_dataset(self) -> dict[str, int]:
        """How many labels each dataset has here, by name."""
        return dict(sorted(Counter(dataset for dataset, _ in self.keys).items()))

    def for_dataset(self, name: str) -> Bank:
        """The rows of one dataset. Raises BankError where there are none."""
        return self.for_datasets([name])

    def for_datasets(self, names: Sequence[str]) -> Bank:
        """The rows of these datasets as a bank of their own. Raises BankError where one has none."""
        have = self.datasets()
        if missing := [name for name in dict.fromkeys(names) if name not in have]:
            near = did_you_mean(missing[0], have) if len(missing) == 1 else f"It has {', '.join(have)}."
            by_path = all(Path(name).stem in have for name in missing)  # as `embed` takes them
            raise BankError(
                f"the bank ({self.version}) has no labels of {some(map(repr, missing), len(missing))}",
                where=self.folder,
                fix=f"Did you mean {some(Path(name).stem for name in missing)}?"
                if by_path
                else f"{near} {self._how_to_add(missing)}",
            )
        return self.for_keys([key for key in self.keys if key[0] in names])

    def for_keys(self, keys: Iterable[LabelKey]) -> Bank:
        """The rows of these labels as a bank of their own. Raises BankError where labels are missing."""
        positions = sorted(set(self.positions(keys).tolist()))

        def pick(column: Sequence[Any]) -> list[Any]:
            return [column[position] for position in positions]

        return replace(
            self,
            keys=pick(self.keys),
            names=pick(self.names),
            texts=pick(self.texts),
            vectors=self.vectors[positions],
            tokens=pick(self.tokens),
            truncated=pick(self.truncated),
            version="",
            folder=None,
            parts=None if self.parts is None else pick(self.parts),
            kept={key[0]: self.kept[key[0]] for key in pick(self.keys) if key[0] in self.kept},
        )

    def sentences(self) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """All vectors of a bank that keeps several for a label: float32 [P, D], and the row of each, int64 [P].

        Where it doesn't, these are `vectors`, one for each row.
        """
        if self.parts is None:
            return self.vectors, np.arange(len(self))
        return np.concatenate(self.parts), np.repeat(np.arange(len(self)), [len(part) for part in self.parts])

    def columns(self) -> tuple[list[str], Vectors, npt.NDArray[np.int64]]:
        """The merged labels: distinct texts in order of first appearance.

        Returns:
            The K texts; their vectors, float32 [K, D]; the column of every row, int64 [N].
        """
        first: dict[str, int] = {}
        column = np.empty(len(self), dtype=np.int64)
        rows: list[int] = []
        for row, text in enumerate(self.texts):
            if text not in first:
                first[text] = len(rows)
                rows.append(row)
            column[row] = first[text]
        return list(first), self.vectors[rows], column

    def same_encoder(self, other: Bank) -> bool:
        """Whether vectors of the two banks may be compared."""
        return identity_key(self.identity) == identity_key(other.identity)

    def check_encoder(self, encoder: TextEncoder) -> None:
        """Make sure that `encoder` speaks this bank's language: the same identity, and the same vector for `PROBE`.

        Raises:
            BankError: it does not; the message shows both.
        """
        ours, theirs = identity_key(self.identity), identity_key(encoder.identity)
        if ours != theirs:
            raise BankError(
                f"the bank was made by {shown_identity(self.identity)}, "
                f"but the encoder is {shown_identity(encoder.identity)}",
                where=self.folder,
                fix=(
                    "Restore what it was made by, or embed into another folder"
                    if encoder.spec == self.encoder
                    else f"Use `--encoder {self.encoder}`, or embed into another folder"
                ),
            )
        probe = encoder.encode([PROBE])[0]
        cosine = float(probe @ self.probe) if probe.shape == self.probe.shape else 0.0
        if cosine < _PROBE_COSINE:
            raise BankError(
                f"the encoder {shown_identity(encoder.identity)} no longer gives the vector it gave when the bank was "
                f"made (cosine {cosine:.4f}; made with {shown_versions(self.identity)}, "
                f"now {shown_versions(encoder.identity)})",
                where=self.folder,
                fix="Embed into another folder",
            )

    @classmethod
    def load(cls, folder: str | Path, version: str | None = None) -> Bank:
        """Read a version from a bank folder, here or at a URL: the newest, or the one named (in full, or ``v0002``).

        Raises:
            BankError: no bank, no such version, or a damaged one.
            RemoteError: it is at a URL, and can't be had.
        """
        folder = Path(folder)
        versions = read_index(folder)
        entry = versions[-1] if version is None else find_version(versions, version, folder)
        return cls(**read_version(folder, entry))

    def save(self, folder: str | Path) -> str:
        """Make this the newest version of a bank folder, which is made where there is none; returns its name.

        Content that a version there already has adds none: that version becomes the newest again. Another process that
        is writing there is waited for.

        Raises:
            OutputError: it can't be written. BankError: what is there is damaged.
        """
        with bank_lock(Path(folder)):
            return self.save_locked(Path(folder))

    def save_locked(self, folder: Path, own: Iterable[str] | None = None) -> str:
        """`save`, for who holds the folder's `bank_lock`; `own` are the datasets whose texts are a user's own."""
        versions = read_index(folder) if (folder / INDEX).exists() else []
        about = {} if own is None else {"own": sorted(own)}
        for entry in versions:
            if entry["content_sha256"] == self.content_hash:
                if entry is not versions[-1] or not about.items() <= entry.items():
                    write_index(folder, [*(other for other in versions if other is not entry), entry | about])
                return str(entry["version"])
        return self._write(folder, versions, version_name(1 + last_number(folder), self.content_hash), about)

    def save_copy(self, folder: str | Path) -> None:
        """Make a bank folder that holds just this version, under its own name; raises OutputError."""
        self._write(Path(folder), [], self.version, {})

    def _write(self, folder: Path, versions: list[dict[str, Any]], version: str, about: Mapping[str, Any]) -> str:
        data = version_bytes(self, version)
        # The index comes last: a file that it doesn't name is the rest of an interrupted run and no version yet.
        write_bytes(folder / f"{version}.parquet", data)
        entry = {
            "version": version,
            "content_sha256": self.content_hash,
            "file_sha256": hashlib.sha256(data).hexdigest(),
            "encoder": self.encoder,
            "identity": dict(self.identity),
            "prompt": self.prompt,
            "several": "average" if self.parts is None else "keep",
            "dim": self.dim,
            "labels": len(self),
            "datasets": self.count_by_dataset(),
            **about,
        }
        write_index(folder, [*versions, entry])
        return version
