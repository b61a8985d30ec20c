"""The versions of a bank: which there are, what one holds, what changed between two, and which may go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelmerge.bank.bank import Bank
from labelmerge.bank.store import bank_lock, find_version, identity_key, read_index, write_index
from labelmerge.errors import BankError, UsageError
from labelmerge.files import output_faults
from labelmerge.remote import list_files
from labelmerge.urls import url_of

_SAME = 1 - 1e-6  # the cosine of a vector with itself, rounding allowed for


@dataclass(frozen=True)
class Version:
    """One version of a bank folder.

    Attributes:
        version: its name.
        newest: whether commands use it where none is named.
        labels: how many.
        datasets: how many labels each has.
        dim: D.
        encoder: the spec that was asked for.
        prompt: the templates of its texts.
        several: whether labels of several sentences ``keep`` all vectors or have their ``average``.
        bytes: the size of its file; None where it is gone.
    """

    version: str
    newest: bool
    labels: int
    datasets: Mapping[str, int]
    dim: int
    encoder: str
    prompt: tuple[str, ...]
    several: str
    bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_versions(folder: Path) -> list[Version]:
    """The versions of a bank folder, here or at a URL, newest last. Raises BankError, RemoteError."""
    entries = read_index(folder)
    sizes = _sizes(folder)
    return [
        Version(
            version=entry["version"],
            newest=entry is entries[-1],
            labels=int(entry["labels"]),
            datasets=entry["datasets"],
            dim=int(entry["dim"]),
            encoder=entry["encoder"],
            prompt=tuple(entry["prompt"].split("\n")),
            several=entry.get("several", "average"),
            bytes=sizes.get(f"{entry['version']}.parquet"),
        )
        for entry in entries
    ]


def _sizes(folder: Path) -> dict[str, int]:
    """The bytes of the files in a folder, by name."""
    if url := url_of(folder):
        return {name: entry.size for name, entry in list_files(url).items() if entry.size is not None}
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}


@dataclass(frozen=True)
class Summary:
    """What one version holds.

    Attributes:
        version, encoder, dim: of the bank.
        identity: what made the vectors (`labelmerge.bank.bank.Bank.identity`).
        prompt, several: as in `Version`.
        labels: how many.
        datasets: how many labels each has.
        texts: how many distinct texts, that is, classes of a training on all datasets.
        shared: how many labels share their text with a label of another dataset.
        vectors: how many vectors in all, sentences counted one by one where they are kept.
        missing_descriptions: how many labels have nothing but the bare prompt; None for words and for no encoder's
            vectors.
        longest: the tokens of the longest text.
        truncated_labels: the labels of which the encoder did not see the whole text.
    """

    version: str
    encoder: str
    identity: Mapping[str, Any]
    dim: int
    prompt: tuple[str, ...]
    several: str
    labels: int
    datasets: Mapping[str, int]
    texts: int
    shared: int
    vectors: int
    missing_descriptions: int | None
    longest: int
    truncated_labels: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(bank: Bank) -> Summary:
    """What a version holds, in numbers."""
    owners: dict[str, set[str]] = {}
    for (dataset, _), text in zip(bank.keys, bank.texts, strict=True):
        owners.setdefault(text, set()).add(dataset)
    says_more = bank.probe.size and ("{description}" in bank.prompt or "{sentence}" in bank.prompt)
    return Summary(
        version=bank.version,
        encoder=bank.encoder,
        identity=dict(bank.identity),
        dim=bank.dim,
        prompt=tuple(bank.prompt.split("\n")),
        several="average" if bank.parts is None else "keep",
        labels=len(bank),
        datasets=bank.count_by_dataset(),
        texts=len(owners),
        shared=sum(len(owners[text]) > 1 for text in bank.texts),
        vectors=len(bank.sentences()[0]),
        missing_descriptions=bank.described.count(False) if says_more else None,
        longest=max(bank.tokens, default=0),
        truncated_labels=bank.truncated_labels,
    )


@dataclass(frozen=True)
class Change:
    """A label that is in two versions, but not the same.

    Attributes:
        dataset, index: its key.
        old_name, name: its names.
        old_text, text: its texts.
        cosine: of its two vectors; None where they can't be compared.
    """

    dataset: str
    index: int
    old_name: str
    name: str
    old_text: str
    text: str
    cosine: float | None


@dataclass(frozen=True)
class Label:
    """A label that is in one of two versions only."""

    dataset: str
    index: int
    name: str
    text: str


@dataclass(frozen=True)
class Difference:
    """What changed from one version to another.

    Attributes:
        old, new: their names.
        added, removed: labels that only one of them has, in the order of their keys.
        edited: labels whose text or name changed, those whose vectors moved farthest first.
        moved: labels whose text is the same and whose vector is not: another encoder, or a mapping.
        unchanged: how many labels are the same.
        comparable: whether one encoder made both, so that vectors can be compared.
        about: what else changed, by name: ``encoder``, ``prompt``, ``several``, ``dim``, and what is in them.
    """

    old: str
    new: str
    added: tuple[Label, ...]
    removed: tuple[Label, ...]
    edited: tuple[Change, ...]
    moved: tuple[Change, ...]
    unchanged: int
    comparable: bool
    about: Mapping[str, tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(old: Bank, new: Bank) -> Difference:
    """What changed between two versions of a bank, or two banks."""
    comparable = old.same_encoder(new) and old.dim == new.dim
    places = {key: row for row, key in enumerate(old.keys)}
    edited, moved, added, unchanged = [], [], [], 0
    for row, key in enumerate(new.keys):
        if key not in places:
            added.append(Label(*key, new.names[row], new.texts[row]))
            continue
        before = places.pop(key)
        cosine = float(np.clip(old.vectors[before] @ new.vectors[row], -1, 1)) if comparable else None
        change = Change(*key, old.names[before], new.names[row], old.texts[before], new.texts[row], cosine)
        if (change.old_name, change.old_text) != (change.name, change.text):
            edited.append(change)
        elif cosine is None or (cosine < _SAME and not np.array_equal(old.vectors[before], new.vectors[row])):
            moved.append(change)
        else:
            unchanged += 1
    return Difference(
        old=old.version,
        new=new.version,
        added=tuple(added),
        removed=tuple(Label(*key, old.names[row], old.texts[row]) for key, row in sorted(places.items())),
        edited=tuple(_farthest_first(edited)),
        moved=tuple(_farthest_first(moved)),
        unchanged=unchanged,
        comparable=comparable,
        about=dict(_changed_settings(old, new)),
    )


def _farthest_first(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: 0 if change.cosine is None else change.cosine)


def _changed_settings(old: Bank, new: Bank) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, ours, theirs in (
        ("encoder", old.encoder, new.encoder),
        ("prompt", old.prompt, new.prompt),
        ("several", *("average" if bank.parts is None else "keep" for bank in (old, new))),
        ("dim", str(old.dim), str(new.dim)),
        *((key, value, identity_key(new.identity)[key]) for key, value in identity_key(old.identity).items()),
    ):
        if ours != theirs:
            yield name, (str(ours), str(theirs))


def two_versions(folder: Path, old: str | None = None, new: str | None = None) -> tuple[Bank, Bank]:
    """Two versions to compare: those named, or the newest (for `new`) and the one before it in the list (for `old`).

    Raises:
        BankError: no such version, or there is only one.
    """
    names = [entry["version"] for entry in read_index(folder)]
    later = Bank.load(folder, new)
    if old is None:
        place = names.index(later.version)
        if place == 0:
            raise BankError(f"has no version before {later.version}", where=folder)
        old = names[place - 1]
    return Bank.load(folder, old), later


@dataclass(frozen=True)
class Pruned:
    """What `prune` removed, or would.

    Attributes:
        removed: the versions, in the order of the list.
        kept: those that stay, newest last.
        leftovers: files that no version needs: of interrupted runs.
        bytes: the size of all that.
        done: whether it was removed; false where that was only tried.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    leftovers: tuple[str, ...]
    bytes: int
    done: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def prune(folder: Path, keep: int | None = None, versions: Sequence[str] = (), *, check: bool = False) -> Pruned:
    """Remove old versions of a bank, never the newest, and what interrupted runs left.

    The index goes first and the files after it, so that an interruption leaves files that no version needs, never a
    version without its file. Numbers of removed versions are not given again. Runs carry their own copy of the version
    that they were trained with. Texts that only removed versions had are encoded anew when they come back.

    Args:
        folder: the bank.
        keep: how many of the newest stay; None for all that `versions` doesn't name.
        versions: which go, in full or as ``v0002``.
        check: only say what would go.

    Raises:
        UsageError: `keep` is below 1, or given together with `versions`.
        BankError: no such version, or it is the newest; or the newest can't be read.
        OutputError: something can't be removed.
    """
    if keep is not None and (keep < 1 or versions):
        raise UsageError("give the versions to remove, or how many to keep (1 or more), not both")
    with nullcontext() if check else bank_lock(folder, sweep=False):  # what is swept is counted below
        entries = read_index(folder)
        names = [entry["version"] for entry in entries]
        if keep is not None:
            going = names[: max(len(names) - keep, 0)]
        else:
            going = [find_version(entries, name, folder)["version"] for name in versions]
            if names[-1] in going:
                raise BankError(f"{names[-1]} is the newest version, which stays", where=folder)
        Bank.load(folder)  # a damaged newest version may have to be replaced by one of those that would go
        staying = [entry for entry in entries if entry["version"] not in going]
        kept = [entry["version"] for entry in staying]
        files = {f"{name}.parquet" for name in names}
        leftovers = sorted(
            path.name
            for path in folder.iterdir()
            if path.is_file()
            and (path.suffix == ".parquet" or (path.name.startswith(".") and path.suffix == ".tmp"))
            and path.name not in files
        )
        gone = [folder / name for name in [*(f"{name}.parquet" for name in going), *leftovers]]
        gone = [path for path in gone if path.exists()]
        size = sum(path.stat().st_size for path in gone)
        if not check:
            if going:
                write_index(folder, staying)
            for path in gone:
                with output_faults(path):
                    path.unlink(missing_ok=True)
    return Pruned(tuple(name for name in names if name in going), tuple(kept), tuple(leftovers), size, not check)
