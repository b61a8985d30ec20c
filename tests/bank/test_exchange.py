from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from labelmerge.bank.bank import Bank
from labelmerge.bank.exchange import export_bank, import_vectors
from labelmerge.errors import BankError, OutputError, RecipeError, UsageError

ROWS = {
    ("a", 0): ('road: "For" cars, all.', [1.0, 2, 3]),
    ("a", 1): ("sky: Above.", [0, 1.0, 0.1]),
    ("b", 7): ('road: "For" cars, all.', [1.0, 2, 3]),
}
UNIT = np.array([[1, 0], [0.6, 0.8], [0, 1]])


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    return make_bank(ROWS)


def test_npy_goes_out_and_comes_back(bank: Bank, tmp_path: Path) -> None:
    array, names = export_bank(bank, tmp_path / "x" / "vectors.npy")
    np.testing.assert_array_equal(np.load(array), bank.vectors)
    assert names.name == "vectors.names.csv"
    done = import_vectors(array, names, tmp_path / "bank", made_by="another program")
    assert (done.labels, done.datasets, done.dim, done.rescaled, done.new) == (3, {"a": 2, "b": 1}, 3, 0, True)
    again = Bank.load(tmp_path / "bank")
    assert (again.keys, again.names, again.texts) == (bank.keys, bank.names, bank.texts)
    np.testing.assert_allclose(again.vectors, bank.vectors, atol=1e-7)
    assert again.encoder == "imported" and not again.same_encoder(bank)
    assert not import_vectors(array, names, tmp_path / "bank", made_by="another program").new


def test_safetensors(bank: Bank, tmp_path: Path) -> None:
    kept = replace(bank, parts=[bank.vectors[[row, row]] for row in range(3)], version="")
    (path,) = export_bank(kept, tmp_path / "vectors.safetensors")
    with safe_open(path, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("embeddings"), bank.vectors)
        assert file.get_tensor("sentences").shape == (6, 3)
        assert file.get_tensor("sentence_rows").tolist() == [0, 0, 1, 1, 2, 2]
        about = file.metadata()
    assert json.loads(about["labels"])[2] == ["b", 7, "road", ROWS["b", 7][0]]
    assert about["version"] == kept.version and json.loads(about["identity"])["model"] == "made"


def test_csv(bank: Bank, tmp_path: Path) -> None:
    (path,) = export_bank(bank, tmp_path / "vectors.csv")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["text"] == ROWS["a", 0][0] and rows[2]["index"] == "7"
    read = np.array([[row[f"e{column}"] for column in range(3)] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(read, bank.vectors)
    with pytest.raises(UsageError, match="'vectors.pt' names no format. End it with .npy"):
        export_bank(bank, tmp_path / "vectors.pt")
    with pytest.raises(OutputError):
        export_bank(bank, path / "vectors.npy")


def put(tmp_path: Path, array: Any, names: str = "road\nsky\ncar\n", suffix: str = ".txt", **options: Any) -> Bank:
    np.save(tmp_path / "v.npy", array)
    (tmp_path / f"n{suffix}").write_text(names)
    options = {"made_by": "mine", "dataset": "a", **options}
    import_vectors(tmp_path / "v.npy", tmp_path / f"n{suffix}", tmp_path / "bank", **options)
    return Bank.load(tmp_path / "bank")


@pytest.mark.parametrize(
    ("names", "suffix"),
    [("index;name\n4;road\n1;sky\n7;car\n", ".csv"), ("index\tname\n4\troad\n1\tsky\n7\tcar\n", ".tsv")],
)
def test_names_as_spreadsheets_save_them(names: str, suffix: str, tmp_path: Path) -> None:
    bank = put(tmp_path, np.eye(3, dtype=np.float32), names, suffix)
    assert dict(zip(bank.keys, bank.names, strict=True)) == {("a", 4): "road", ("a", 1): "sky", ("a", 7): "car"}


def test_a_list_of_names_is_enough(tmp_path: Path) -> None:
    bank = put(tmp_path, UNIT.astype(np.float16))
    assert bank.keys == [("a", 0), ("a", 1), ("a", 2)] and list(bank.texts) == ["road", "sky", "car"]
    np.testing.assert_allclose(np.linalg.norm(bank.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(bank.vectors, UNIT, atol=1e-3)


def test_other_lengths_are_brought_to_one_on_request(tmp_path: Path) -> None:
    with pytest.raises(
        BankError, match=r"3 of 3 vectors are not of unit length \(row 0 has 2\). --normalise makes them"
    ):
        put(tmp_path, 2 * UNIT)
    for factor in (2, 1e308, 1e-308):  # squares of the last two overflow, or vanish
        np.testing.assert_allclose(put(tmp_path, factor * UNIT, normalise=True).vectors, UNIT, atol=1e-6)


def test_words_with_several_vectors_are_told_apart(tmp_path: Path) -> None:
    names = "dataset,index,name\nx,3,Mouse\ny,0,mouse\nz,5,mouse\n"
    bank = put(tmp_path, UNIT[[0, 1, 1]], names, ".csv", dataset=None)
    assert list(bank.texts) == ["mouse (x 3)", "mouse (y 0)", "mouse (z 5)"]
    other = put(tmp_path / "..", UNIT[[1, 1, 0]], names.replace("z,5,mouse", "z,5,cat"), ".csv", dataset=None)
    assert list(other.texts) == ["mouse", "mouse", "cat"]


def test_datasets_join_and_vectors_count_as_content(tmp_path: Path) -> None:
    first = put(tmp_path, UNIT)
    both = put(tmp_path, UNIT[::-1], dataset="b")
    assert both.count_by_dataset() == {"a": 3, "b": 3}
    np.testing.assert_array_equal(both.rows(first.keys), first.vectors)
    # "road" points elsewhere now, so it is another class; "sky" is the same one.
    assert both.texts[both.keys.index(("b", 0))] == "road (b 0)" and both.texts[both.keys.index(("b", 1))] == "sky"
    changed = put(tmp_path, UNIT[[0, 0, 0]])
    assert changed.version.startswith("v0003-")  # the same names with other vectors
    np.save(tmp_path / "v.npy", UNIT)
    for went_back in (True, False):
        again = import_vectors(tmp_path / "v.npy", tmp_path / "n.txt", tmp_path / "bank", made_by="mine", dataset="a")
        assert (again.version, again.new, again.back) == (both.version, False, went_back)
    with pytest.raises(BankError, match="holds 2-dimensional vectors of imported: mine, not 2-dim.*imported: theirs"):
        put(tmp_path, UNIT, made_by="theirs")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (UNIT.astype(int), "is int64 of 3 x 2, not floats"),
        (UNIT[0], "is float64 of 2, not floats"),
        (np.float32(3), "is float32 of a single number"),
        (UNIT[:0], "of 0 x 2"),
        (UNIT[:2], "names 3 labels, but .*v.npy has 2 rows"),
        (np.array([[1, 0], [np.nan, 0], [np.inf, 1]]), "values that are not finite in row 1, 2"),
        (np.array([[1, 0], [0, 0], [0, 1.0]]), "has only zeros in row 1"),
        (np.array([["a"]]), "not floats"),
    ],
)
def test_arrays_that_are_no_vectors(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(BankError, match=message):
        put(tmp_path, array)
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    ("names", "suffix", "message"),
    [
        ("road\nsky\nroad\n", ".txt", "row 2: a has 'road' in row 0 already"),
        ("road\n\ncar\n", ".txt", "row 1 has no name"),
        (
            "index,name\n0,road\n0,sky\nx,car\n",
            ".csv",
            "row 1: a has a label 0 already; row 2: the index 'x' is not a whole",
        ),
        ("index,label\n0,road\n1,sky\n2,car\n", ".csv", "has no column 'name'"),
        ("name,text\nroad,t\nsky,t\ncar,u\n", ".csv", "rows 0, 1 have one text and different vectors: 't'"),
        ('name\n"road\nsky\ncar\n', ".csv", "can't be read as CSV"),
        ("index,label\n0,road\n1,sky\n2,car\n", ".CSV", "has no column 'name'"),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, names: str, suffix: str, message: str) -> None:
    with pytest.raises(BankError, match=message):
        put(tmp_path, UNIT, names, suffix)


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="doesn't say which dataset.*--dataset NAME"):
        put(tmp_path, UNIT, dataset=None)
    with pytest.raises(UsageError, match="say what made the vectors"):
        put(tmp_path, UNIT, made_by=" ")
    with pytest.raises(RecipeError, match="does not fit a 16-bit mask"):
        put(tmp_path, UNIT, "index,name\n0,road\n1,sky\n70000,car\n", ".csv")
    (tmp_path / "v.npy").write_bytes(b"no array")
    with pytest.raises(BankError, match="is not a .npy file of numbers"):
        import_vectors(tmp_path / "v.npy", tmp_path / "n.txt", tmp_path / "bank", made_by="mine")
    np.savez(tmp_path / "v.npz", UNIT)
    with pytest.raises(BankError, match="holds several arrays"):
        import_vectors(tmp_path / "v.npz", tmp_path / "n.txt", tmp_path / "bank", made_by="mine")
    assert not (tmp_path / "bank").exists()
