"""`merge --edits`: a person's rows in a bank that has grown."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import labelmerge
from labelmerge.merge.merge import write_merge
from labelmerge.merge.report import merge_report

Run = Callable[..., Result]
Sets = dict[tuple[str, str], set[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of two lists and its merge, and the bank `grown-bank` that has a third, too."""
    folder = tmp_path_factory.mktemp("made")
    for name, words in (("a", "person\ncar\nroad"), ("b", "human\nvehicle\nroad"), ("c", "rider\ntruck\nsky\nchild")):
        (folder / f"{name}.txt").write_text(words)
    bank = labelmerge.embed_labels([f"{folder}/a.txt", f"{folder}/b.txt"], folder / "bank", encoder="offline")
    taxonomy = labelmerge.merge_labels(bank=bank)
    write_merge(merge_report(bank, taxonomy), taxonomy, bank, folder / "merge")
    shutil.copytree(folder / "bank", folder / "grown-bank")
    labelmerge.embed_labels(f"{folder}/c.txt", folder / "grown-bank")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what was made, to work in."""
    shutil.copytree(made, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def rows(file: str) -> dict[tuple[str, str], dict[str, str]]:
    with Path(file).open(newline="") as stream:
        return {(row["dataset"], row["name"]): row for row in csv.DictReader(stream)}


def sets(file: str) -> Sets:
    return {key: set(row["concepts"].split(";")) for key, row in rows(file).items()}


def edit(old: str, new: str) -> None:
    text = Path("merge/taxonomy.csv").read_text()
    assert text.count(old) == 1
    Path("mine.csv").write_text(text.replace(old, new))


def test_edited_rows_stay_and_all_others_are_as_without_them(place: Path, run: Run) -> None:
    assert sets("merge/taxonomy.csv")["b", "vehicle"] == {"vehicle", "car"}
    edit("a,1,car,car,", "a,1,car,vehicle,")
    assert run("merge", "--bank", "grown-bank", "--out", "anew").exit_code == 0
    result = run("merge", "--bank", "grown-bank", "--edits", "mine.csv", "--out", "grown")
    assert result.exit_code == 0, result.stderr
    anew, grown = sets("anew/taxonomy.csv"), sets("grown/taxonomy.csv")
    assert anew["a", "car"] == {"car"} and "truck" in anew["b", "vehicle"]
    # `vehicle` was what b's label may be besides cars, and trucks were among it
    assert grown.pop(("a", "car")) == {"vehicle", "truck"} == anew["b", "vehicle"] - {anew.pop(("a", "car")).pop()}
    assert grown == anew
    row = rows("grown/taxonomy.csv")["a", "car"]
    assert (row["evidence"], row["confidence"]) == ("person", "1.00")
    assert "Kept as you wrote it: a's car (" in result.stdout and "found: car)" in result.stdout
    assert "Found for datasets that the table lacked: c\n" in result.stdout


def test_words_of_ones_own_stay_as_they_are(place: Path, run: Run) -> None:
    edit("a,2,road,road,", "a,2,road,my own road;road,")
    assert run("merge", "--bank", "grown-bank", "--edits", "mine.csv", "--out", "grown").exit_code == 0
    assert sets("grown/taxonomy.csv")["a", "road"] == {"my own road", "road"}


def test_nothing_edited_is_what_is_found(place: Path, run: Run) -> None:
    result = run("merge", "--bank", "bank", "--edits", "merge/taxonomy.csv", "--out", "again")
    assert "Nothing edited" in result.stdout
    assert Path("again/taxonomy.csv").read_bytes() == Path("merge/taxonomy.csv").read_bytes()


def test_what_a_table_leaves_out_is_said(place: Path, run: Run) -> None:
    result = run("merge", "--bank", "grown-bank", "--taxonomy", "merge/taxonomy.csv", "--out", "old")
    assert "left out: c, which merge/taxonomy.csv has no rows of; --edits finds them" in result.stderr
    assert {dataset for dataset, _ in rows("old/taxonomy.csv")} == {"a", "b"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--taxonomy", "merge/taxonomy.csv"], "--edits goes with --merge concepts"),
        (["--merge", "text"], "--edits goes with --merge concepts"),
        (["--crops", "2"], "--crops is how many images of --shards"),
        (["--images", "2"], "--images is how many --checkpoint looks at"),
    ],
)
def test_what_doesnt_go_together_is_refused(place: Path, run: Run, more: list[str], message: str) -> None:
    result = run("merge", "--bank", "bank", "--edits", "merge/taxonomy.csv", "--out", "no", *more)
    assert result.exit_code == 2 and message in result.stderr
    assert not Path("no").exists()


def test_equal_texts_cant_be_told_apart(place: Path, run: Run) -> None:
    edit("a,2,road,road,", "a,2,road,lane,")
    result = run("merge", "--bank", "bank", "--edits", "mine.csv", "--out", "no")
    assert result.exit_code == 1 and "a 2 is 'lane', b 2 is 'road'" in result.stderr and not Path("no").exists()
