"""The embedding bank: versioned label vectors in a folder, keyed by (dataset, index).

A bank is ``bank.json``, the list of versions, and one immutable ``v<NNNN>-<hash8>.parquet`` for each. docs/bank.md has
every field.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.prompt import Prompt
from labelmerge.errors import BankError, OutputError, did_you_mean
from labelmerge.files import locked, output_faults, write_bytes, write_json
from labelmerge.labels import LabelKey

if TYPE_CHECKING:
    from labelmerge.encoders.encoders import TextEncoder

Vectors = npt.NDArray[np.float32]

FORMAT = "labelmerge-bank/1"
INDEX = "bank.json"
LOCK = ".lock"
PROBE = "sidewalk: An image of sidewalk. A paved path for people on foot beside a road."
WORD_TEMPLATE = "{name}"
"""The prompt of a bank of bare words."""
IMPORTED, ONE_HOT = "imported", "one-hot"
"""The `encoder` of a bank of foreign vectors, and how that of a bank of basis vectors begins."""
_PROBE_COSINE = 0.9999  # other devices and releases move a vector by 1e-6; another model or activation by far more
_IDENTITY = ("model", "weights_sha256", "activation", "tokenizer")
_ENTRY = {
    **dict.fromkeys(("content_sha256", "file_sha256", "encoder", "prompt"), str),
    **dict.fromkeys(("identity", "datasets"), dict),
    **dict.fromkeys(("dim", "labels"), int),
}
_COLUMNS = ("dataset", "index", "name", "text", "text_sha256", "tokens", "truncated", "embedding")
_PARTS = "parts"  # a column that only banks with several vectors for a label have
_VERSION = re.compile(r"v(\d{4,})-([0-9a-f]{8})")
_MAX_LABELS_SHOWN = 5
_ANEW = "Restore the file, or remove the folder and make the bank anew with `labelmerge embed`"


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
            object.__setattr__(self, "version", _version(1, self.content_hash))

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
        missing = [key for key in keys if key not in self._position]
        if missing:
            shown = ", ".join(f"{dataset} {index}" for dataset, index in missing[:_MAX_LABELS_SHOWN])
            more = f" and {len(missing) - _MAX_LABELS_SHOWN} more" if len(missing) > _MAX_LABELS_SHOWN else ""
            raise BankError(
                f"the bank ({self.version}) has no vector for {len(missing)} labels: {shown}{more}",
                where=self.folder,
                fix=self._how_to_add(dict.fromkeys(dataset for dataset, _ in missing)),
            )
        return np.array([self._position[key] for key in keys], dtype=np.int64)

    def _how_to_add(self, datasets: Iterable[str]) -> str:
        if self.encoder == IMPORTED:
            return "`labelmerge bank import` adds labels to a bank of foreign vectors"
        if self.encoder.startswith(ONE_HOT):
            return (
                "Its classes are those of a merge: embed the labels into the bank that it was made of, and train anew"
            )
        own = "; a dataset of your own is named by the path of its recipe"
        return f"`labelmerge embed {' '.join(datasets)} --out {self.folder or 'BANK'}` adds them{own}"

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
        for name in names:
            if name not in have:
                raise BankError(
                    f"the bank ({self.version}) has no labels of {name!r}",
                    where=self.folder,
                    fix=f"{did_you_mean(name, have)} {self._how_to_add([name])}",
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
                f"the bank was made by {_show(self.identity)}, but the encoder is {_show(encoder.identity)}",
                where=self.folder,
                fix=(
                    "Restore what it was made by, or embed into another folder"
                    if encoder.spec == self.encoder
                    else f"Use `--encoder {self.encoder}`, or embed into another folder"
                ),
            )
        cosine = float(encoder.encode([PROBE])[0] @ self.probe)
        if cosine < _PROBE_COSINE:
            raise BankError(
                f"the encoder {_show(encoder.identity)} no longer gives the vector it gave when the bank was made "
                f"(cosine {cosine:.4f}; made with {_show_versions(self.identity)}, "
                f"now {_show_versions(encoder.identity)})",
                where=self.folder,
                fix="Embed into another folder",
            )

    @classmethod
    def load(cls, folder: str | Path, version: str | None = None) -> Bank:
        """Read a version from a bank folder: the newest, or the one named (in full, or ``v0002``).

        Raises:
            BankError: no bank, no such version, or a damaged one.
        """
        folder = Path(folder)
        versions = read_index(folder)
        return _read_version(folder, versions[-1] if version is None else find_version(versions, version, folder))

    def save(self, folder: str | Path) -> str:
        """Make this the newest version of a bank folder, which is made where there is none; returns its name.

        Content that a version there already has adds none: that version becomes the newest again. Another process that
        is writing there is waited for.

        Raises:
            OutputError: it can't be written. BankError: what is there is damaged.
        """
        with bank_lock(Path(folder)):
            return self.save_locked(Path(folder))

    def save_locked(self, folder: Path) -> str:
        """`save`, for who holds the folder's `bank_lock`."""
        versions = read_index(folder) if (folder / INDEX).exists() else []
        for entry in versions:
            if entry["content_sha256"] == self.content_hash:
                if entry is not versions[-1]:
                    write_index(folder, [*(other for other in versions if other is not entry), entry])
                return str(entry["version"])
        return self._write(folder, versions, _version(1 + last_number(folder), self.content_hash))

    def save_copy(self, folder: str | Path) -> None:
        """Make a bank folder that holds just this version, under its own name; raises OutputError."""
        self._write(Path(folder), [], self.version)

    def _write(self, folder: Path, versions: list[dict[str, Any]], version: str) -> str:
        data = _to_parquet(self, version)
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
        }
        write_index(folder, [*versions, entry])
        return version


@contextmanager
def bank_lock(folder: Path) -> Iterator[None]:
    """Be the only process that writes a bank's folder, which is made where there is none; others are waited for.

    Who reads and then writes holds it all the while, so that two at once lose nothing. Readers need none: the index
    appears by one rename, and names only files that are complete.

    Raises:
        OutputError: no permission, or something in the way.
    """
    with ExitStack() as held:
        while True:
            with output_faults(folder):
                folder.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(locked(folder / LOCK, "the bank", wait=True))
                break
            except OutputError as error:
                # Whoever was waited for came to nothing, and took its empty folder away.
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
        try:
            yield
        finally:
            held.close()
            with suppress(OSError):
                folder.rmdir()  # only if nothing came of it


def identity_key(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an encoder's identity that decides whether two encoders are the same."""
    return {key: identity.get(key) for key in _IDENTITY}


def text_sha256(text: str) -> str:
    """The SHA-256 of a text in UTF-8: 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The versions of a bank folder, newest last, never empty. Raises BankError."""
    path = folder / INDEX
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise BankError(f"has format {data['format']!r}, not {FORMAT!r}", where=path)
        versions: list[dict[str, Any]] = data["versions"]
        for entry in versions:
            _number(entry["version"])
            for key, kind in _ENTRY.items():
                if not isinstance(entry[key], kind):
                    raise TypeError(f"{key} is of another type")
    except (FileNotFoundError, NotADirectoryError):
        raise BankError(
            "no bank here", where=folder, fix=f"`labelmerge embed DATASET… --out {folder}` makes one"
        ) from None
    except OSError as error:
        raise BankError(f"can't be read ({error.strerror})", where=path) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BankError(f"damaged ({error})", where=path, fix=_ANEW) from error
    if not versions:
        raise BankError("lists no versions", where=path, fix=_ANEW)
    return versions


def find_version(versions: Sequence[dict[str, Any]], name: str, folder: Path) -> dict[str, Any]:
    """The entry of a version, named in full or as ``v0002``. Raises BankError where there is none."""
    found = [entry for entry in versions if name in (entry["version"], entry["version"].partition("-")[0])]
    if not found:
        known = ", ".join(entry["version"] for entry in versions)
        raise BankError(f"no version {name!r}", where=folder, fix=f"It has {known}")
    return found[0]


def last_number(folder: Path) -> int:
    """The highest number that a version of this folder ever had, also of those that are gone; 0 for a new folder."""
    path = folder / INDEX
    if not path.exists():
        return 0
    numbers = [_number(entry["version"]) for entry in read_index(folder)]
    recorded = json.loads(path.read_text(encoding="utf-8")).get("last_number", 0)
    return max(*numbers, recorded if isinstance(recorded, int) else 0)


def write_index(folder: Path, versions: Sequence[Mapping[str, Any]]) -> None:
    """Make these the versions of a bank folder, newest last. Numbers are never given twice. Raises OutputError."""
    number = max(last_number(folder), *(_number(entry["version"]) for entry in versions))
    write_json(folder / INDEX, {"format": FORMAT, "last_number": number, "versions": versions})


def _version(number: int, content_hash: str) -> str:
    return f"v{number:04d}-{content_hash[:8]}"


def _number(version: str) -> int:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    return int(match.group(1))


def _show(identity: Mapping[str, Any]) -> str:
    key = identity_key(identity)
    return f"{key['model']} (weights {str(key['weights_sha256'])[:12]}, {key['activation']}, {key['tokenizer']})"


def _show_versions(identity: Mapping[str, Any]) -> str:
    return ", ".join(f"{package} {version}" for package, version in dict(identity.get("versions", {})).items())


def _to_parquet(bank: Bank, version: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(bank.vectors.reshape(-1), pa.float32())
    table = pa.table(
        {
            "dataset": pa.array([dataset for dataset, _ in bank.keys], pa.string()),
            "index": pa.array([index for _, index in bank.keys], pa.int32()),
            "name": pa.array(bank.names, pa.string()),
            "text": pa.array(bank.texts, pa.string()),
            "text_sha256": pa.array([text_sha256(text) for text in bank.texts], pa.string()),
            "tokens": pa.array(bank.tokens, pa.int32()),
            "truncated": pa.array(bank.truncated, pa.bool_()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, bank.dim),
        }
    )
    if bank.parts is not None:
        ends = np.cumsum([0, *(len(part) for part in bank.parts)])
        rows = pa.FixedSizeListArray.from_arrays(pa.array(bank.sentences()[0].reshape(-1), pa.float32()), bank.dim)
        table = table.append_column(_PARTS, pa.ListArray.from_arrays(pa.array(ends, pa.int32()), rows))
    about = {
        "format": FORMAT,
        "version": version,
        "encoder": bank.encoder,
        "identity": dict(bank.identity),
        "prompt": bank.prompt,
        "probe": {"text": PROBE, "vector": bank.probe.tolist()} if bank.probe.size else None,
    }
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"labelmerge": json.dumps(about, ensure_ascii=False)}), out)
    return out.getvalue()


def _read_version(folder: Path, entry: Mapping[str, Any]) -> Bank:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{entry['version']}.parquet"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BankError(f"can't be read ({error.strerror})", where=path, fix=_ANEW) from error
    if hashlib.sha256(data).hexdigest() != entry["file_sha256"]:
        raise BankError(f"damaged: its content is not what {INDEX} says", where=path, fix=_ANEW)
    try:
        # Without threads of its own: one that still runs when the interpreter ends aborts it, rarely.
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
        about = json.loads(table.schema.metadata[b"labelmerge"])
        columns = {name: table[name].combine_chunks() for name in _COLUMNS}
        dim = columns["embedding"].type.list_size
        vectors = columns["embedding"].values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
        rows = {name: columns[name].to_pylist() for name in _COLUMNS if name != "embedding"}
        parts = None
        if _PARTS in table.column_names:
            column = table[_PARTS].combine_chunks()
            flat = column.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, dim)
            parts = np.split(flat, np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))[:-1])
        return Bank(
            encoder=about["encoder"],
            identity=about["identity"],
            prompt=about["prompt"],
            keys=list(zip(rows["dataset"], rows["index"], strict=True)),
            names=rows["name"],
            texts=rows["text"],
            vectors=vectors,
            tokens=rows["tokens"],
            truncated=rows["truncated"],
            probe=np.array(about["probe"]["vector"] if about["probe"] else [], dtype=np.float32),
            version=str(entry["version"]),
            folder=folder,
            parts=parts,
        )
    except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BankError(f"is not a bank version ({error})", where=path, fix=_ANEW) from error
