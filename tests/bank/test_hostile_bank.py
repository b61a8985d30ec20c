"""Versions of a bank that say what no bank can, with hashes that are right: refused in one line, within bounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError

from ..loading.toy_shards import Toy, toy_bank

TOY = Toy("streets", ("road", "sky", "car"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_bank([TOY]).save(tmp_path / "bank")
    return tmp_path / "bank"


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> Path:
    (path,) = folder.glob("*.parquet")
    pq.write_table(change(pq.read_table(path)), path, **options)
    index = json.loads((folder / "bank.json").read_text())
    index["versions"][0]["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "bank.json").write_text(json.dumps(index))
    return path


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def vectors(table: pa.Table, change: Callable[[np.ndarray[Any, Any]], object]) -> pa.Table:
    column = table["embedding"].combine_chunks()
    rows = column.values.to_numpy().reshape(-1, column.type.list_size).copy()
    change(rows)
    flat = pa.array(rows.reshape(-1), pa.float32())
    return with_column(table, "embedding", pa.FixedSizeListArray.from_arrays(flat, column.type.list_size))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_vectors_that_are_no_numbers_or_no_unit(value: float, folder: Path) -> None:
    rewrite(folder, lambda table: vectors(table, lambda rows: rows.__setitem__((1, 0), value)))
    with pytest.raises(BankError, match="vectors are not of unit length, or no numbers"):
        Bank.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(0, 0),
        lambda table: table.slice(0, 2),
        lambda table: table.drop_columns(["text"]),
        lambda table: with_column(table, "text", pa.array([None] * len(table), pa.string())),
        lambda table: with_column(table, "text", pa.array([1] * len(table))),
        lambda table: with_column(table, "index", pa.array([-1, 0, 1])),
        lambda table: with_column(table, "index", pa.array([0, 0, 0])),
        lambda table: with_column(table, "index", pa.array(["a"] * 3)),
        lambda table: with_column(table, "embedding", pa.array([[1.0]] * 3)),
        lambda table: with_column(table, "tokens", pa.array([[1]] * 3)),
        lambda table: table.replace_schema_metadata({}),
        lambda table: table.replace_schema_metadata({"labelmerge": "[" * 5000}),
        lambda table: table.replace_schema_metadata({"labelmerge": "{}"}),
    ],
)
def test_tables_of_another_form(change: Callable[[pa.Table], pa.Table], folder: Path) -> None:
    path = rewrite(folder, change)
    with pytest.raises(BankError) as caught:
        Bank.load(folder)
    assert str(path) in str(caught.value) or "bank.json" in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:100], lambda data: b"PAR1" * 4, lambda _: b""]
)
def test_files_that_are_no_parquet(damage: Callable[[bytes], bytes], folder: Path) -> None:
    (path,) = folder.glob("*.parquet")
    path.write_bytes(damage(path.read_bytes()))
    index = json.loads((folder / "bank.json").read_text())
    index["versions"][0]["file_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "bank.json").write_text(json.dumps(index))
    with pytest.raises(BankError, match="is not a bank version"):
        Bank.load(folder)


def test_what_unfolds_is_refused_before_it_does(folder: Path) -> None:
    text = "x" * 1_000_000
    path = rewrite(folder, lambda table: with_column(table, "text", pa.array([text] * len(table))))
    assert len(path.read_bytes()) < 200_000 and Bank.load(folder).texts[0] == text
    many = 20_000
    table = pq.read_table(path)
    small = with_column(table, "text", pa.array(["x"] * 3))
    small = pa.concat_tables([small.slice(0, 1)] * many).combine_chunks()
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(many, np.int32)), pa.array([text]))
    path = rewrite(folder, lambda _: with_column(small, "text", codes))
    assert len(path.read_bytes()) < 500_000
    with pytest.raises(BankError, match="is not a bank version"):
        Bank.load(folder)
