"""A bank on disk: the list of versions, the lock, and a version's file."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmerge.catalog import KEPT
from labelmerge.errors import BankError, OutputError, near_path
from labelmerge.files import locked, output_faults, sweep_temporaries, write_json
from labelmerge.parsing import parse_json
from labelmerge.remote import local_file
from labelmerge.urls import url_of

if TYPE_CHECKING:
    import pyarrow as pa

    from labelmerge.bank.bank import Bank

FORMAT = "labelmerge-bank/1"
INDEX = "bank.json"
LOCK = ".lock"
PROBE = "sidewalk: An image of sidewalk. A paved path for people on foot beside a road."
_ENTRY = {
    **dict.fromkeys(("content_sha256", "file_sha256", "encoder", "prompt"), str),
    **dict.fromkeys(("identity", "datasets"), dict),
    **dict.fromkeys(("dim", "labels"), int),
}
_COLUMNS = ("dataset", "index", "name", "text", "text_sha256", "tokens", "truncated", "embedding")
_TEXTS = ("dataset", "name", "text", "text_sha256")
_MOST_VALUES = 1 << 26  # numbers in one column
_MOST_BYTES = 1 << 28  # of one column's texts, or a row group
PARTS = "parts"  # a column that only banks with several vectors for a label have
_VERSION = re.compile(r"v(\d{4,})-([0-9a-f]{8})")
_IDENTITY = ("model", "weights_sha256", "activation", "tokenizer")
_ODD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
_ANEW = "Restore the file, or remove the folder and make the bank again with `labelmerge embed`"


@contextmanager
def bank_lock(folder: Path, *, sweep: bool = True) -> Iterator[None]:
    """Be the only process that writes a bank's folder, which is made where there is none; others are waited for.

    Who reads and then writes holds it all the while, so that two at once lose nothing. Readers need none: the index
    appears by one rename, and names only files that are complete.

    Args:
        folder: the bank.
        sweep: remove what killed writers left.

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
            if sweep:
                sweep_temporaries(folder)
            yield
        finally:
            held.close()
            with suppress(OSError):
                folder.rmdir()  # only if nothing came of it


def text_sha256(text: str) -> str:
    """The SHA-256 of a text in UTF-8: 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The versions of a bank folder, which may be at a URL, newest last, never empty. Raises BankError, RemoteError."""
    path = folder / INDEX
    try:
        data = parse_json(local_file(path).read_bytes())
        if data["format"] != FORMAT:
            raise BankError(f"has format {data['format']!r}, not {FORMAT!r}", where=path)
        versions: list[dict[str, Any]] = data["versions"]
        for entry in versions:
            _number(entry["version"])
            for key, kind in _ENTRY.items():
                if not isinstance(entry[key], kind):
                    raise TypeError(f"{key} is of another type")
    except (FileNotFoundError, NotADirectoryError):
        out = "BANK" if url_of(folder) else folder
        near = "" if folder.exists() else near_path(folder)
        fix = near or f"`labelmerge embed DATASET… --out {out}` makes one"
        raise BankError("no bank here", where=folder, fix=fix) from None
    except OSError as error:
        raise BankError(f"can't be read ({error.strerror})", where=path) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BankError(f"damaged ({error})", where=path, fix=_ANEW) from error
    if not versions:
        raise BankError("lists no versions", where=path, fix=_ANEW)
    return versions


def find_version(versions: Sequence[dict[str, Any]], name: str, folder: Path) -> dict[str, Any]:
    """The entry of a version, named in full, as ``v0002`` or as ``2``. Raises BankError where there is none."""
    number = name.removeprefix("v")
    wanted = int(number) if number.isascii() and number.isdigit() else None
    found = [entry for entry in versions if name == entry["version"] or wanted == _number(entry["version"])]
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
    recorded = parse_json(path.read_bytes()).get("last_number", 0)
    return max(*numbers, recorded if isinstance(recorded, int) else 0)


def write_index(folder: Path, versions: Sequence[Mapping[str, Any]]) -> None:
    """Make these the versions of a bank folder, newest last. Numbers are never given twice. Raises OutputError."""
    number = max(last_number(folder), *(_number(entry["version"]) for entry in versions))
    write_json(folder / INDEX, {"format": FORMAT, "last_number": number, "versions": versions})


def version_name(number: int, content_hash: str) -> str:
    return f"v{number:04d}-{content_hash[:8]}"


def _number(version: str) -> int:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    return int(match.group(1))


def read_version(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the bank of a version is made of, by the names of `Bank`'s attributes. Raises BankError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{entry['version']}.parquet"
    try:
        data = local_file(path, entry["file_sha256"]).read_bytes()
    except OSError as error:
        raise BankError(f"can't be read ({error.strerror or 'missing'})", where=path, fix=_ANEW) from error
    if hashlib.sha256(data).hexdigest() != entry["file_sha256"]:
        raise BankError(f"damaged: its content is not what {INDEX} says", where=path, fix=_ANEW)
    try:
        # Without threads of its own: one that still runs when the interpreter ends aborts it, rarely.
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(_TEXTS), pre_buffer=False)
        _refuse_bomb(file.metadata, entry)
        _refuse_types(file.schema_arrow)
        table = file.read(use_threads=False)
        _refuse_long_texts(table)
        about = parse_json(table.schema.metadata[b"labelmerge"])
        columns = {name: table[name].combine_chunks() for name in _COLUMNS}
        dim = columns["embedding"].type.list_size
        vectors = _numbers(columns["embedding"].values).astype(np.float32).reshape(-1, dim)
        rows = {name: columns[name].to_pylist() for name in _COLUMNS if name != "embedding"}
        parts = None
        if PARTS in table.column_names:
            column = table[PARTS].combine_chunks()
            flat = _numbers(column.flatten().flatten()).astype(np.float32).reshape(-1, dim)
            parts = np.split(flat, np.cumsum(_numbers(column.value_lengths()))[:-1])
        probe = np.array(about["probe"]["vector"] if about["probe"] else [], dtype=np.float32)
        _refuse_odd(rows, vectors, parts, probe)
        kept = about.get("kept", {})
        if not isinstance(kept, dict) or not set(kept) <= set(rows["dataset"]) or not set(kept.values()) <= {*KEPT}:
            raise ValueError("what its wider labels keep is damaged")
        return dict(
            encoder=about["encoder"],
            identity=about["identity"],
            prompt=about["prompt"],
            keys=list(zip(rows["dataset"], rows["index"], strict=True)),
            names=rows["name"],
            texts=rows["text"],
            vectors=vectors,
            tokens=rows["tokens"],
            truncated=rows["truncated"],
            probe=probe,
            version=str(entry["version"]),
            folder=folder,
            parts=parts,
            kept=kept,
        )
    # Arrow raises an OSError about damaged headers, and what it gives is not yet known to be a bank.
    except (pa.ArrowException, OSError, MemoryError, *_ODD) as error:
        raise BankError(f"is not a bank version ({error})", where=path, fix=_ANEW) from error


def _numbers(array: pa.Array) -> npt.NDArray[Any]:
    """The values of an Arrow array of numbers. Its own `to_numpy` imports pandas, which takes half a second."""
    if array.null_count:
        raise ValueError(f"{array.null_count} numbers are missing")
    values = np.frombuffer(array.buffers()[1] or b"", dtype=array.type.to_pandas_dtype())
    return values[array.offset : array.offset + len(array)]


def version_bytes(bank: Bank, version: str) -> bytes:
    """The file of a version, which `read_version` reads."""
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
        table = table.append_column(PARTS, pa.ListArray.from_arrays(pa.array(ends, pa.int32()), rows))
    about = {
        "format": FORMAT,
        "version": version,
        "encoder": bank.encoder,
        "identity": dict(bank.identity),
        "prompt": bank.prompt,
        "probe": {"text": PROBE, "vector": bank.probe.tolist()} if bank.probe.size else None,
        **({"kept": dict(sorted(bank.kept.items()))} if bank.kept else {}),
    }
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"labelmerge": json.dumps(about, ensure_ascii=False)}), out)
    return out.getvalue()


def _refuse_bomb(metadata: Any, entry: Mapping[str, Any]) -> None:
    """Raise ValueError where a file holds more than its entry in the index says, or more than any bank does.

    Args:
        metadata: pyarrow's, of the file: it is looked at before anything is unpacked.
        entry: of the index.
    """
    rows, dim = metadata.num_rows, entry["dim"]
    if rows != entry["labels"]:
        raise ValueError(f"{rows} labels, but {INDEX} says {entry['labels']}")
    if not 0 < dim <= _MOST_VALUES or rows * dim > _MOST_VALUES:
        raise ValueError(f"{rows} vectors of {dim} dimensions")
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.total_byte_size > _MOST_BYTES:
            raise ValueError(f"{group.total_byte_size} bytes unpacked")
        if any(group.column(place).num_values > _MOST_VALUES for place in range(group.num_columns)):
            raise ValueError(f"more than {_MOST_VALUES} values")


def _refuse_types(schema: Any) -> None:
    """Raise TypeError where a column's type is not what a bank writes."""
    import pyarrow.types as types

    wanted = {
        **{name: (types.is_string, types.is_large_string, types.is_dictionary) for name in _TEXTS},
        **{name: (types.is_integer,) for name in ("index", "tokens")},
        "truncated": (types.is_boolean,),
        "embedding": (types.is_fixed_size_list,),
    }
    for name, kinds in wanted.items():
        kind = schema.field(name).type
        if not any(is_kind(kind) for is_kind in kinds):
            raise TypeError(f"{name} is {kind}")


def _refuse_long_texts(table: Any) -> None:
    """Raise ValueError where texts are long together, each of which the file may hold once and name many times."""
    for name in _TEXTS:
        chunks = table[name].chunks
        told = [hasattr(chunk, "dictionary") for chunk in chunks]
        at_most = (len(c) * c.dictionary.nbytes if named else c.nbytes for c, named in zip(chunks, told, strict=True))
        if sum(at_most) <= _MOST_BYTES:
            continue
        import pyarrow.compute as pc  # a tenth of a second, which small banks need not spend

        long = 0
        for chunk, named in zip(chunks, told, strict=True):
            taken = pc.binary_length(chunk.dictionary).take(chunk.indices) if named else None
            long += chunk.nbytes if taken is None else pc.sum(taken).as_py() or 0
        if long > _MOST_BYTES:
            raise ValueError(f"{long} bytes of {name}")


_UNIT = 1e-3  # how far a vector's length may be from 1


def _refuse_odd(
    rows: Mapping[str, Sequence[Any]],
    vectors: npt.NDArray[np.float32],
    parts: Sequence[npt.NDArray[np.float32]] | None,
    probe: npt.NDArray[np.float32],
) -> None:
    """Raise ValueError where a version's content is not as `Bank` promises it."""
    if any(value is None for column in rows.values() for value in column):
        raise ValueError("fields are empty")
    if min(rows["index"], default=0) < 0 or min(rows["tokens"], default=0) < 0:
        raise ValueError("numbers below 0")
    keys = list(zip(rows["dataset"], rows["index"], strict=True))
    if any(a >= b for a, b in zip(keys, keys[1:], strict=False)):
        raise ValueError("its labels are not different and in ascending order")
    if not len(vectors) or vectors.shape[1] == 0:
        raise ValueError("it has no vectors")
    if parts is not None and {len(part) > 0 for part in parts} != {True}:
        raise ValueError("a label has no sentences")
    if not np.isfinite(probe).all():
        raise ValueError("the probe's vector is not finite")
    for each in (vectors, *([np.concatenate(parts)] if parts is not None else [])):
        lengths = np.linalg.norm(each.astype(np.float64), axis=1)
        if not (np.isfinite(lengths) & ((np.abs(lengths - 1) < _UNIT) | (lengths == 0))).all():
            raise ValueError("vectors are not of unit length, or no numbers")


def identity_key(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an encoder's identity that decides whether two encoders are the same."""
    return {key: identity.get(key) for key in _IDENTITY}


def shown_identity(identity: Mapping[str, Any]) -> str:
    """An encoder's identity, for messages."""
    key = identity_key(identity)
    return f"{key['model']} (weights {str(key['weights_sha256'])[:12]}, {key['activation']}, {key['tokenizer']})"


def shown_versions(identity: Mapping[str, Any]) -> str:
    """The versions of the packages that an encoder was run by, for messages."""
    return ", ".join(f"{package} {version}" for package, version in dict(identity.get("versions", {})).items())
