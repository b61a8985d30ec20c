from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.bank.versions import compare, list_versions, prune, summarise, two_versions
from labelmerge.errors import BankError, UsageError

MakeBank = Callable[..., Bank]
ROWS = {
    ("a", 0): ("road: For cars.", [1.0, 0]),
    ("a", 1): ("sky: Above.", [0, 1.0]),
    ("b", 7): ("road: For cars.", [1.0, 0]),
}


@pytest.fixture
def folder(make_bank: MakeBank, tmp_path: Path) -> Path:
    """Three versions: two labels, three, and one label edited."""
    make_bank({key: row for key, row in ROWS.items() if key[0] == "a"}).save(tmp_path / "bank")
    make_bank(ROWS).save(tmp_path / "bank")
    make_bank({**ROWS, ("a", 1): ("sky: Blue.", [0.6, 0.8])}).save(tmp_path / "bank")
    return tmp_path / "bank"


def test_versions_are_listed(folder: Path) -> None:
    versions = list_versions(folder)
    assert [version.version[:5] for version in versions] == ["v0001", "v0002", "v0003"]
    assert [version.labels for version in versions] == [2, 3, 3]
    assert [version.newest for version in versions] == [False, False, True]
    file = folder / f"{versions[0].version}.parquet"
    assert versions[0].bytes == file.stat().st_size and versions[1].datasets == {"a": 2, "b": 1}
    file.unlink()
    assert list_versions(folder)[0].bytes is None


def test_a_version_in_numbers(make_bank: MakeBank) -> None:
    bank = replace(make_bank(ROWS), truncated=[False, True, False])
    found = summarise(bank)
    assert (found.labels, found.texts, found.shared, found.vectors, found.dim) == (3, 2, 2, 3, 2)
    assert (found.longest, found.missing_descriptions) == (3, 0) and found.truncated_labels == ("a:1 sky",)
    kept = replace(bank, parts=[np.eye(2, dtype=np.float32)] * 3, version="")
    assert (summarise(kept).several, summarise(kept).vectors) == ("keep", 6)
    assert summarise(replace(bank, prompt="{name}", version="")).missing_descriptions is None


def test_what_changed_between_versions(folder: Path) -> None:
    found = compare(*two_versions(folder))
    (edit,) = found.edited
    assert (edit.dataset, edit.index, edit.old_text, edit.text) == ("a", 1, "sky: Above.", "sky: Blue.")
    assert edit.cosine == pytest.approx(0.8)
    assert (found.added, found.removed, found.moved, found.unchanged) == ((), (), (), 2)
    assert found.comparable and not found.about
    first, last = two_versions(folder, "v0001", "v0002")
    assert [label.text for label in compare(first, last).added] == ["road: For cars."]
    assert [(label.dataset, label.index) for label in compare(last, first).removed] == [("b", 7)]
    with pytest.raises(BankError, match="has no version before v0001"):
        two_versions(folder, new="v0001")
    with pytest.raises(BankError, match="no version 'v0009'"):
        two_versions(folder, "v0009")


def test_vectors_of_other_encoders_are_not_compared(make_bank: MakeBank) -> None:
    bank = make_bank(ROWS)
    other = replace(bank, identity={**bank.identity, "weights_sha256": "1"}, encoder="new", version="")
    found = compare(bank, other)
    assert not found.comparable and found.about == {"encoder": ("made", "new"), "weights_sha256": ("0", "1")}
    assert [change.cosine for change in found.moved] == [None] * 3 and found.unchanged == 0
    turned = replace(bank, vectors=np.roll(bank.vectors, 1, axis=1), version="")
    assert [change.cosine for change in compare(bank, turned).moved] == [0, 0, 0]


def test_old_versions_go_and_the_newest_stays(folder: Path, make_bank: MakeBank) -> None:
    names = [version.version for version in list_versions(folder)]
    (folder / "v0009-12345678.parquet").write_bytes(b"left")  # of a run that was killed before it wrote the index
    (folder / ".bank.json.x.tmp").write_bytes(b"left")
    tried = prune(folder, keep=1, check=True)
    assert tried.removed == tuple(names[:2]) and len(list(folder.iterdir())) == 6 and not tried.done
    done = prune(folder, keep=1)
    assert (done.removed, done.kept, done.bytes) == (tried.removed, (names[2],), tried.bytes)
    assert done.leftovers == (".bank.json.x.tmp", "v0009-12345678.parquet")
    assert sorted(path.name for path in folder.iterdir()) == ["bank.json", f"{names[2]}.parquet"]
    assert Bank.load(folder).version == names[2]
    assert prune(folder, keep=5).removed == ()


def test_numbers_are_not_given_twice(folder: Path, make_bank: MakeBank) -> None:
    make_bank(ROWS).save(folder)  # the second version is the newest again
    prune(folder, keep=1)
    assert make_bank({("c", 0): ("car", [1.0, 0])}).save(folder).startswith("v0004-")


def test_nothing_goes_while_the_newest_is_damaged(folder: Path) -> None:
    newest = folder / f"{list_versions(folder)[-1].version}.parquet"
    newest.write_bytes(newest.read_bytes()[:-1])
    for check in (True, False):
        with pytest.raises(BankError, match="damaged"):
            prune(folder, keep=1, check=check)
    assert len(list(folder.glob("*.parquet"))) == 3


def test_named_versions_go(folder: Path) -> None:
    assert [name[:5] for name in prune(folder, versions=["v0002"]).removed] == ["v0002"]
    with pytest.raises(BankError, match="v0003-.* is the newest version, which stays"):
        prune(folder, versions=["v0001", "v0003"])
    with pytest.raises(BankError, match="no version 'v0002'"):
        prune(folder, versions=["v0002"])
    for keep, versions in ((0, []), (1, ["v0001"])):
        with pytest.raises(UsageError, match="1 or more"):
            prune(folder, keep=keep, versions=versions)
    assert len(list_versions(folder)) == 2
    with pytest.raises(BankError, match="no bank here"):
        prune(folder / "nowhere", keep=1)
    assert not (folder / "nowhere").exists()
