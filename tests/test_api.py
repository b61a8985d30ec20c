"""`import labelmerge`: the steps as functions. docs/python.md runs in test_docs_code.py, and segmenting in predict/."""

from __future__ import annotations

from pathlib import Path

import pytest

import labelmerge as lm
from labelmerge.errors import UsageError

from .loading.toy_shards import Toy, toy_bank

STREETS = Toy("streets", ("road", "sky", "car"), count=4)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    monkeypatch.chdir(tmp_path)
    STREETS.write(tmp_path / "shards")
    toy_bank([STREETS]).save(tmp_path / "bank")
    return tmp_path


def test_paths_are_texts_and_settings_words(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = lm.train_run(["shards"], "bank", "run", preset="tiny", steps=2, batch_size=2, crop=32, device="cpu")
    assert (run.steps, run.run) == (2, Path("run"))
    results = lm.evaluate_run("run", "shards/streets", "r.json", split="train", examples=1, device="cpu")
    assert repr(results).startswith("set ") and "streets-train" in repr(results) and repr(results).endswith("r.json")
    assert capsys.readouterr().err == "", "nothing is shown unasked"
    again = lm.evaluate_run("run", Path("shards"), Path("s.json"), bank="bank", split="train", progress=True)
    assert again.harmonic_mean == results.harmonic_mean
    assert "evaluating streets train: 100%" in capsys.readouterr().err
    assert lm.train_run("shards", "bank", "run", config="run/config.toml", progress=True).seconds < 1


def test_what_is_opened_says_in_a_line_what_it_is(place: Path) -> None:
    assert repr(lm.open_bank("bank")).startswith("Bank(3 labels of 1 dataset, 16 dimensions, toy, v0001-")
    shards = lm.open_shards("shards/streets/train")
    assert repr(shards) == "ShardSet(streets train: 4 samples, 3 classes, mask, 'shards/streets/train')"
    assert shards.read(0).path == ""


def test_lists_of_names_are_merged_without_a_bank(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.txt").write_text("automobile\nperson\n")
    Path("other.csv").write_text("name,description\ncar,\nrider,\n")
    taxonomy = lm.merge_labels("mine.txt", "other.csv")
    assert repr(taxonomy) == "Taxonomy(4 labels of mine, other: 3 concepts)"
    found = {(pair.a.name, pair.kind, pair.b.name) for pair in lm.relations(taxonomy)}
    assert found == {("automobile", "same", "car"), ("person", "contains", "rider")}
    assert {path.name for path in place.iterdir()} == {"mine.txt", "other.csv", "shards", "bank"}
    bank = lm.embed_labels("mine.txt", "own", encoder="offline", progress=True)
    assert len(bank) == 2 and "loading the encoder" in capsys.readouterr().err
    assert lm.merge_labels(bank=bank).table() == lm.merge_labels("mine", bank="own").table()


def test_nothing_to_merge_is_said() -> None:
    with pytest.raises(UsageError, match="nothing to merge"):
        lm.merge_labels()
