"""Label vectors in the formats of other programs: out of a bank, and into one."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmerge.bank.bank import IMPORTED, WORD_TEMPLATE, Bank, Vectors
from labelmerge.bank.store import INDEX, bank_lock, read_index
from labelmerge.errors import BankError, RecipeError, UsageError
from labelmerge.files import read_text, whole_or_nothing, write_bytes, write_text
from labelmerge.labels import LabelKey, LabelSpace
from labelmerge.names import prompt_name
from labelmerge.text import csv_text, csv_value, delimiter_of

FORMATS = (".npy", ".safetensors", ".csv")
NAMES_HEADER = ("dataset", "index", "name", "text")
_UNIT = 1e-3  # float16 rounds a unit vector's length to within this
_SAME = 1e-6
_MAX_PROBLEMS = 8


def export_bank(bank: Bank, out: Path) -> list[Path]:
    """Write a bank in the format that the ending of `out` names.

    - ``.npy``: float32 [N, D]; beside it ``<stem>.names.csv``, a row ``dataset,index,name,text`` for each row of it.
    - ``.safetensors``: the tensor ``embeddings``, float32 [N, D]; the metadata has ``labels``, a JSON list of
      ``[dataset, index, name, text]``, and ``version``, ``encoder``, ``identity`` and ``prompt``. A bank that keeps
      several vectors for a label has them as ``sentences``, float32 [P, D], with ``sentence_rows``, int64 [P].
    - ``.csv``: ``dataset,index,name,text,tokens,truncated`` and the vector as ``e0`` … ``e<D-1>``.

    Returns:
        The files written.

    Raises:
        UsageError: another ending. OutputError: they can't be written.
    """
    labels = [[*key, name, text] for key, name, text in zip(bank.keys, bank.names, bank.texts, strict=True)]
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, bank.vectors, allow_pickle=False)
        names = out.with_name(f"{out.stem}.names.csv")
        with whole_or_nothing((names, out)):
            write_text(names, csv_text([list(NAMES_HEADER), *labels]))
            write_bytes(out, buffer.getvalue())
        return [out, names]
    if out.suffix == ".safetensors":
        write_bytes(out, _safetensors(bank, labels))
        return [out]
    if out.suffix == ".csv":
        header = [*NAMES_HEADER, "tokens", "truncated", *(f"e{column}" for column in range(bank.dim))]
        rows = zip(labels, bank.tokens, bank.truncated, bank.vectors, strict=True)
        # The shortest digits that give back the same float32.
        body = [[*label, tokens, int(cut), *map(str, vector)] for label, tokens, cut, vector in rows]
        write_text(out, csv_text([header, *body]))
        return [out]
    raise UsageError(f"{out.name!r} names no format", fix=f"End it with {', '.join(FORMATS)}")


def _safetensors(bank: Bank, labels: list[list[Any]]) -> bytes:
    from safetensors.numpy import save

    tensors: dict[str, npt.NDArray[Any]] = {"embeddings": np.ascontiguousarray(bank.vectors)}
    if bank.parts is not None:
        tensors["sentences"], tensors["sentence_rows"] = map(np.ascontiguousarray, bank.sentences())
    about = {
        "labels": json.dumps(labels, ensure_ascii=False),
        "version": bank.version,
        "encoder": bank.encoder,
        "identity": json.dumps(dict(bank.identity), sort_keys=True),
        "prompt": bank.prompt,
    }
    return bytes(save(tensors, about))


@dataclass(frozen=True)
class Import:
    """What `import_vectors` did.

    Attributes:
        version: the bank's version now.
        new: whether it was not there before.
        back: whether it was, and was not the newest: an earlier version that is the newest again.
        labels: how many labels came in.
        datasets: how many labels each dataset of the bank has now.
        dim: D.
        rescaled: how many vectors were brought to unit length.
    """

    version: str
    new: bool
    back: bool
    labels: int
    datasets: dict[str, int]
    dim: int
    rescaled: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def import_vectors(
    vectors: Path, names: Path, out: Path, *, made_by: str, dataset: str | None = None, normalise: bool = False
) -> Import:
    """Put foreign label vectors into a bank.

    They are compared with vectors of the same `made_by` only: no encoder is known that could be asked for more, so that
    is the user's word. Datasets that the bank holds and that don't come in stay in it.

    Args:
        vectors: ``.npy``, floats [N, D].
        names: what its rows are: a CSV with the column ``name`` and, if there are any, ``dataset``, ``index`` and
            ``text``; or a text file of one name a line.
        out: the bank's folder; made where there is none.
        made_by: what made the vectors, in words.
        dataset: of all rows, where `names` doesn't say; the index is then the row's number, unless `names` says.
        normalise: bring vectors to unit length; without it those that have another length are refused.

    Raises:
        UsageError: `made_by` is empty, or no dataset is named.
        BankError: the files can't be used; the message says why. Or the bank holds other vectors.
        OutputError: the bank can't be written.
    """
    made_by = " ".join(made_by.split())
    if not made_by:
        raise UsageError("say what made the vectors", fix="--made-by 'my encoder, version 2'")
    rows, rescaled = _read_vectors(vectors, normalise)
    labels = _read_names(names, dataset, len(rows), vectors)
    texts = _texts(labels, rows, names)
    order = sorted(labels)
    place = {key: row for row, key in enumerate(labels)}
    _check_spaces(labels, names)
    with bank_lock(out):
        known = [entry["version"] for entry in read_index(out)] if (out / INDEX).exists() else []
        current = Bank.load(out) if known else None
        identity: dict[str, Any] = {
            "spec": IMPORTED,
            "model": f"{IMPORTED}: {made_by}",
            "weights_sha256": None,
            "activation": None,
            "tokenizer": None,
            "versions": {},
        }
        bank = Bank(
            encoder=IMPORTED,
            identity=identity,
            prompt=WORD_TEMPLATE,
            keys=order,
            names=[labels[key][0] for key in order],
            texts=[texts[key] for key in order],
            vectors=rows[[place[key] for key in order]],
            tokens=[0] * len(order),
            truncated=[False] * len(order),
        )
        if current is not None:
            if not current.same_encoder(bank) or current.dim != bank.dim:
                raise BankError(
                    f"holds {current.dim}-dimensional vectors of {current.identity.get('model')}, not "
                    f"{bank.dim}-dimensional ones of {identity['model']}",
                    where=out,
                    fix="Choose another --out",
                )
            bank = _joined(current, bank)
        version = bank.save_locked(out)
    back = version in known[:-1]
    return Import(version, version not in known, back, len(labels), bank.count_by_dataset(), bank.dim, rescaled)


def _joined(current: Bank, bank: Bank) -> Bank:
    """`bank`, and the datasets of `current` that it lacks."""
    coming = set(bank.datasets())
    stay = [key for key in current.keys if key[0] not in coming]
    if not stay:
        return bank
    rest = current.for_keys(stay)
    keys = [*bank.keys, *rest.keys]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    names, texts = [*bank.names, *rest.names], [*bank.texts, *rest.texts]
    vectors = np.concatenate([bank.vectors, rest.vectors])
    # A word has one vector: where two datasets' differ, the one that comes in is told apart.
    taken = {text: rest.vectors[row] for row, text in enumerate(rest.texts)}
    for row, (dataset, index) in enumerate(bank.keys):
        if texts[row] in taken and np.abs(taken[texts[row]] - bank.vectors[row]).max() > _SAME:
            texts[row] = f"{texts[row]} ({dataset} {index})"
    return Bank(
        encoder=bank.encoder,
        identity=bank.identity,
        prompt=bank.prompt,
        keys=[keys[row] for row in order],
        names=[names[row] for row in order],
        texts=[texts[row] for row in order],
        vectors=vectors[order],
        tokens=[0] * len(keys),
        truncated=[False] * len(keys),
    )


def _read_vectors(path: Path, normalise: bool) -> tuple[Vectors, int]:
    """float32 [N, D] of unit length, and how many had another."""
    try:
        data = np.load(path, allow_pickle=False)
    except OSError as error:
        raise BankError(f"can't be read ({error.strerror or error})", where=path) from error
    except (ValueError, EOFError) as error:
        raise BankError("is not a .npy file of numbers", where=path, fix="Write it with numpy.save") from error
    if not isinstance(data, np.ndarray):
        raise BankError("holds several arrays, not one", where=path, fix="Write it with numpy.save")
    if data.ndim != 2 or not data.size or not np.issubdtype(data.dtype, np.floating):
        shape = " x ".join(map(str, data.shape)) or "a single number"
        raise BankError(f"is {data.dtype} of {shape}, not floats [labels, dimensions]", where=path)
    rows = data.astype(np.float64)
    if bad := np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
        raise BankError(f"has values that are not finite in row {_some(bad)}", where=path)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if empty := np.flatnonzero(largest == 0).tolist():
        raise BankError(f"has only zeros in row {_some(empty)}", where=path)
    rows /= largest  # squares of very large or small numbers are none
    scaled = np.linalg.norm(rows, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        lengths = (scaled * largest)[:, 0]
    other = np.flatnonzero(np.abs(lengths - 1) > _UNIT).tolist()
    if other and not normalise:
        raise BankError(
            f"{len(other)} of {len(rows)} vectors are not of unit length (row {other[0]} has {lengths[other[0]]:.4g})",
            where=path,
            fix="--normalise makes them so",
        )
    return (rows / scaled).astype(np.float32), len(other)


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:_MAX_PROBLEMS])) + (", …" if len(rows) > _MAX_PROBLEMS else "")


def _read_names(path: Path, dataset: str | None, count: int, vectors: Path) -> dict[LabelKey, tuple[str, str]]:
    """Name and text (empty where there is none) of every row's label, in the order of the rows."""
    text = read_text(path, BankError)
    if path.suffix.lower() in (".csv", ".tsv"):
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
            table = [{key: csv_value(value or "") for key, value in row.items() if key is not None} for row in reader]
        except csv.Error as error:
            raise BankError(f"can't be read as CSV ({error})", where=path) from error
        if "name" not in (reader.fieldnames or ()):
            raise BankError("has no column 'name'", where=path, fix=f"The first line is {','.join(NAMES_HEADER)}")
    else:
        table = [{"name": line} for line in text.splitlines()]
    if len(table) != count:
        raise BankError(f"names {len(table)} labels, but {vectors} has {count} rows", where=path)
    labels: dict[LabelKey, tuple[str, str]] = {}
    first: dict[tuple[str, str], int] = {}
    problems = []
    for number, row in enumerate(table):
        name, owner = " ".join(row["name"].split()), (row.get("dataset") or dataset or "").strip()
        index = row.get("index", "").strip() or str(number)
        if not owner:
            raise UsageError(f"{path} doesn't say which dataset its labels are of", fix="--dataset NAME says it")
        if not name:
            problems.append(f"row {number} has no name")
        elif not (index.isascii() and index.isdigit()):
            problems.append(f"row {number}: the index {index!r} is not a whole number")
        elif (owner, name) in first:
            problems.append(f"row {number}: {owner} has {name!r} in row {first[owner, name]} already")
        elif (owner, int(index)) in labels:
            problems.append(f"row {number}: {owner} has a label {index} already")
        else:
            first[owner, name] = number
            labels[owner, int(index)] = (row["name"].strip(), (row.get("text") or "").strip())
    if problems:
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise BankError("; ".join(problems[:_MAX_PROBLEMS]) + more, where=path)
    return labels


def _check_spaces(labels: dict[LabelKey, tuple[str, str]], path: Path) -> None:
    """Raise RecipeError, with the file, where a dataset's indices don't fit a mask."""
    for dataset in sorted({owner for owner, _ in labels}):
        own = sorted((index, name) for (owner, index), (name, _) in labels.items() if owner == dataset)
        try:
            LabelSpace(dataset, tuple(index for index, _ in own), tuple(name for _, name in own))
        except RecipeError as error:
            raise RecipeError(f"{dataset}: {error.what}", where=path, fix=error.fix) from None


def _texts(labels: dict[LabelKey, tuple[str, str]], vectors: Vectors, path: Path) -> dict[LabelKey, str]:
    """A text for every label: its own; else its word, told apart where the word has several vectors."""
    by_text: dict[str, list[int]] = {}
    keys = list(labels)
    for row, (name, text) in enumerate(labels.values()):
        by_text.setdefault(text or prompt_name(name), []).append(row)
    texts: dict[LabelKey, str] = {}
    for text, rows in by_text.items():
        same = bool((np.abs(vectors[rows] - vectors[rows[0]]) <= _SAME).all())
        if not same and any(labels[keys[row]][1] for row in rows):
            raise BankError(
                f"rows {_some(rows)} have one text and different vectors: {text!r}",
                where=path,
                fix="Labels with the same text are one class, so their vectors must be the same",
            )
        for row in rows:
            dataset, index = keys[row]
            texts[dataset, index] = text if same else f"{text} ({dataset} {index})"
    return texts
