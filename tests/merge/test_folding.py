"""`merge --into`: the concepts of one dataset's labels for all."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import labelmerge
from labelmerge.errors import UsageError
from labelmerge.merge.folding import fold
from labelmerge.merge.taxonomy import Entry, Taxonomy

Run = Callable[..., Result]


def sets(taxonomy: Taxonomy) -> dict[str, set[str]]:
    return {f"{entry.key[0]} {entry.name}": set(entry.concepts) for entry in taxonomy.entries}


def test_what_a_label_stands_for_becomes_one() -> None:
    found = fold(
        Taxonomy(
            [
                Entry(("old", 0), "Sky", ("sky",)),
                Entry(("old", 1), "Car", ("car", "bus", "train")),
                Entry(("old", 2), "Bus", ("bus",)),  # narrower than Car, so buses are its
                Entry(("new", 0), "train", ("train",)),
                Entry(("new", 1), "vehicle", ("bus", "car", "train", "boat")),
                Entry(("new", 2), "wheels", ("car", "train")),
                Entry(("new", 3), "dog", ("dog",)),
            ]
        ),
        "old",
    )
    assert sets(found.taxonomy) == {
        "old Sky": {"sky"},
        "old Car": {"car", "bus"},
        "old Bus": {"bus"},
        "new train": {"car"},
        "new vehicle": {"bus", "car", "boat"},
        "new wheels": {"car"},
        "new dog": {"dog"},
    }
    assert found.taxonomy.concepts == ("sky", "car", "bus", "boat", "dog")
    assert [entry.name for entry in found.within] == ["train", "wheels"]
    assert [entry.name for entry in found.across] == ["vehicle"]
    assert [entry.name for entry in found.outside] == ["dog"]
    with pytest.raises(UsageError, match="no labels of 'odl' are merged here. Did you mean old"):
        fold(found.taxonomy, "odl")


def test_names_that_are_taken_get_numbers() -> None:
    labels = [
        ("a", 0, "Mouse", "animal"),
        ("a", 1, "mouse", "device"),
        ("a", 2, "tap", "faucet"),
        ("b", 0, "tap", "tap"),
    ]
    found = fold(Taxonomy(Entry((dataset, index), name, (what,)) for dataset, index, name, what in labels), "a")
    assert found.taxonomy.concepts == ("mouse", "mouse 1", "tap 2", "tap")
    assert [entry.concepts for entry in found.outside] == [("tap",)]


def test_a_table_for_datasets_of_the_shipped_kind(tmp_path: Path, run: Run) -> None:
    bank = tmp_path / "bank"
    labelmerge.embed_labels(["camvid", "kitti"], bank, encoder="offline")
    result = run("merge", "--bank", bank, "--into", "camvid", "--out", tmp_path / "merge")
    assert result.exit_code == 0
    assert "Into the classes of camvid: 18 labels of other datasets, and not 1 that have nothing" in result.output
    with (tmp_path / "merge/taxonomy.csv").open(newline="") as stream:
        of = {(row["dataset"], row["name"]): row["concepts"] for row in csv.DictReader(stream)}
    assert {of["kitti", name] for name in ("car", "bus", "truck", "train")} == {of["camvid", "Car"]} == {"car"}
    assert of["kitti", "sidewalk"] == of["camvid", "Pavement"] == "pavement"
    assert of["kitti", "rider"] == of["camvid", "Bicyclist"] and of["kitti", "terrain"] == "terrain"
    # Such a table is read as any other.
    again = run("merge", "--bank", bank, "--taxonomy", tmp_path / "merge/taxonomy.csv", "--out", tmp_path / "again")
    assert again.exit_code == 0 and "0 one within the other, 0 overlapping" in again.output
    assert run("merge", "--bank", bank, "--into", "voc", "--out", tmp_path / "no").exit_code == 2
    assert not (tmp_path / "no/taxonomy.csv").exists()
