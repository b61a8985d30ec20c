from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import labelmerge.bank.store as bank_module
from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, OutputError

ROWS = {
    ("a", 0): ("road: An image of road. For cars.", [1.0, 0, 0]),
    ("a", 1): ("sky: An image of sky.", [0, 1.0, 0]),
    ("b", 7): ("road: An image of road. For cars.", [1.0, 0, 0]),
}


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    return make_bank(ROWS)


def test_what_is_saved_is_loaded(bank: Bank, tmp_path: Path) -> None:
    version = bank.save(tmp_path / "bank")
    again = Bank.load(tmp_path / "bank")
    assert again.version == version == f"v0001-{bank.content_hash[:8]}"
    assert (again.keys, again.names, again.texts) == (bank.keys, bank.names, bank.texts)
    assert (again.tokens, again.truncated, again.identity) == (bank.tokens, bank.truncated, bank.identity)
    np.testing.assert_array_equal(again.vectors, bank.vectors)
    assert again.content_hash == bank.content_hash and again.same_encoder(bank)


def test_the_file_is_as_documented(bank: Bank, tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / f"{bank.save(tmp_path)}.parquet")
    assert [f"{field.name}: {field.type}" for field in table.schema] == [
        "dataset: string",
        "index: int32",
        "name: string",
        "text: string",
        "text_sha256: string",
        "tokens: int32",
        "truncated: bool",
        "embedding: fixed_size_list<element: float>[3]",
    ]
    about = json.loads(table.schema.metadata[b"labelmerge"])
    assert about["format"] == "labelmerge-bank/1" and about["probe"]["text"] == bank_module.PROBE


def test_versions_are_immutable_and_the_same_content_is_the_same_version(bank: Bank, tmp_path: Path) -> None:
    first = bank.save(tmp_path)
    content = (tmp_path / f"{first}.parquet").read_bytes()
    assert bank.save(tmp_path) == first
    second = bank.for_dataset("a").save(tmp_path)
    assert second.startswith("v0002-") and Bank.load(tmp_path).version == second
    assert (tmp_path / f"{first}.parquet").read_bytes() == content
    assert len(Bank.load(tmp_path, first)) == len(Bank.load(tmp_path, "v0001")) == 3
    assert bank.save(tmp_path) == first and Bank.load(tmp_path).version == first  # asked for last, so the newest again
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_packages_and_paths_are_no_content(bank: Bank) -> None:
    elsewhere = replace(bank, identity={**bank.identity, "spec": "/elsewhere", "versions": {"torch": "9"}}, version="")
    assert elsewhere.version == bank.version
    assert replace(bank, identity={**bank.identity, "weights_sha256": "1"}, version="").version != bank.version


def test_a_copy_keeps_the_name_of_the_version(bank: Bank, tmp_path: Path) -> None:
    bank.for_dataset("a").save(tmp_path / "bank")
    bank.save(tmp_path / "bank")
    Bank.load(tmp_path / "bank").save_copy(tmp_path / "copy")
    copy = Bank.load(tmp_path / "copy")
    assert copy.version == Bank.load(tmp_path / "bank").version and copy.version.startswith("v0002-")
    assert copy.for_dataset("b").save(tmp_path / "copy").startswith("v0003-")


def test_an_interrupted_save_leaves_the_bank_as_it_was(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bank.for_dataset("a").save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(bank_module, "write_json", lambda path, data: (_ for _ in ()).throw(OutputError("no space left")))
        with pytest.raises(OutputError):
            bank.save(tmp_path)
    assert Bank.load(tmp_path).version == first
    bank.save(tmp_path)
    assert len(Bank.load(tmp_path)) == 3


def test_rows_come_as_asked_and_missing_labels_name_the_command(bank: Bank, tmp_path: Path) -> None:
    np.testing.assert_array_equal(bank.rows([("b", 7), ("a", 1)]), [[1, 0, 0], [0, 1, 0]])
    bank.save(tmp_path)
    with pytest.raises(
        BankError, match=r"no vector for 2 labels: c is not in it .1 label.; a 2.*labelmerge embed a c --out"
    ) as error:
        Bank.load(tmp_path).rows([("a", 1), ("a", 2), ("c", 0)])
    assert str(tmp_path) in str(error.value)
    with pytest.raises(BankError, match="no labels of 'c'"):
        bank.for_dataset("c")


def test_equal_texts_are_one_column(bank: Bank) -> None:
    texts, vectors, column = bank.columns()
    assert texts == [ROWS["a", 0][0], ROWS["a", 1][0]]
    np.testing.assert_array_equal(vectors, [[1, 0, 0], [0, 1, 0]])
    assert column.tolist() == [0, 1, 0]
    assert bank.described == (True, False, True)
    assert bank.count_by_dataset() == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder, file: file.write_bytes(file.read_bytes()[:-100]), "damaged"),
        (lambda folder, file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]), "damaged"),
        (lambda folder, file: file.unlink(), "can't be read"),
        (lambda folder, file: (folder / "bank.json").write_text("{"), "damaged"),
        (lambda folder, file: (folder / "bank.json").write_text("[]"), "damaged"),
        (lambda folder, file: (folder / "bank.json").write_text("[" * 20000), "damaged.*remove the folder"),
        (lambda folder, file: (folder / "bank.json").write_text('{"format": "x"}'), "has format 'x'"),
        (
            lambda folder, file: (folder / "bank.json").write_text('{"format": "labelmerge-bank/1", "versions": []}'),
            "no versions",
        ),
        (
            lambda folder, file: (folder / "bank.json").write_text(
                (folder / "bank.json").read_text().replace('"labels": 3', '"labels": "3"')
            ),
            "damaged .labels is of another type",
        ),
        (
            lambda folder, file: (folder / "bank.json").write_text(
                (folder / "bank.json").read_text().replace('"dim"', '"dimension"')
            ),
            "damaged .'dim'",
        ),
        (lambda folder, file: (folder / "bank.json").unlink(), "no bank here.*labelmerge embed"),
    ],
    ids=[
        "truncated",
        "flipped bit",
        "gone",
        "not JSON",
        "other JSON",
        "deep JSON",
        "other format",
        "empty",
        "odd field",
        "no field",
        "no index",
    ],
)
def test_a_damaged_bank_is_refused(
    bank: Bank, tmp_path: Path, damage: Callable[[Path, Path], object], message: str
) -> None:
    file = tmp_path / f"{bank.save(tmp_path)}.parquet"
    damage(tmp_path, file)
    with pytest.raises(BankError, match=message):
        Bank.load(tmp_path)


def test_an_unknown_version_is_refused(bank: Bank, tmp_path: Path) -> None:
    bank.save(tmp_path)
    with pytest.raises(BankError, match="no version 'v0009'. It has v0001-"):
        Bank.load(tmp_path, "v0009")


def test_all_missing_datasets_are_named_at_once(bank: Bank) -> None:
    with pytest.raises(BankError, match=r"no labels of 'c', 'd'\. It has a, b\. `labelmerge embed c d --out"):
        bank.for_datasets(["c", "a", "d"])
    with pytest.raises(BankError, match=r"no labels of 'x/a.toml'\. Did you mean a\?$"):
        bank.for_datasets(["x/a.toml"])
