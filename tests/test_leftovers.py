"""What processes that were killed leave is swept by the next that writes there, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelmerge.bank.bank import Bank
from labelmerge.files import atomic_folder, whole_or_nothing
from labelmerge.sharding.finish import finish_all
from labelmerge.sharding.resume import WHOLE, working_folder
from labelmerge.train.run import lock_run

from .loading.toy_shards import Toy, toy_bank


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_of_an_embed(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    toy_bank([Toy("mine", ("a", "b"))]).save(folder)
    for name in (".v0002-12345678.parquet.x1.tmp", ".bank.json.x2.tmp"):
        (folder / name).write_bytes(b"half")
    (folder / "notes.tmp").write_text("mine")
    toy_bank([Toy("mine", ("a", "b", "c"))]).save(folder)
    assert left_in(folder) == [] and (folder / "notes.tmp").exists() and len(Bank.load(folder)) == 3


def test_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("checkpoints/.step-000003.abc", "checkpoints/.step-000001.old", "checkpoints/step-000002"):
        (run / name / "bank").mkdir(parents=True)
    (run / ".log.jsonl.abc.tmp").write_text("half")
    with lock_run(run):
        assert left_in(run) == [".lock"]
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000002"]


def test_of_parts_and_of_finishing_them(tmp_path: Path, run: Callable[..., Any]) -> None:
    toy = Toy("mine", ("a", "b"))
    toy.write(tmp_path)
    split = tmp_path / "mine" / "train"
    (split / ".unfinished").mkdir()
    (split / ".unfinished" / "000000.json").write_text("{}")
    (split / ".manifest.json.abc.tmp").write_text("half")
    report = finish_all([tmp_path])
    assert len(report.finished) == 1 and left_in(split) == []
    work = tmp_path / "mine" / ".train-work"
    (work / "part-1-of-2" / "tables").mkdir(parents=True)
    (work / "part-2-of-2.lock").write_text("")
    with working_folder(split, WHOLE):
        assert not list(work.glob("part-*"))
    assert not work.exists()


def test_what_fails_takes_away_what_it_made_and_not_what_others_made_beside_it(tmp_path: Path) -> None:
    (tmp_path / "merge.json").write_text("before")
    with (
        pytest.raises(KeyboardInterrupt),
        whole_or_nothing(tmp_path / name for name in ("merge.html", "merge.json", "bank")),
    ):
        for name in ("merge.html", "merge.json", "another.html"):
            (tmp_path / name).write_text("now")
        for name in ("bank", "another-run/checkpoints"):
            (tmp_path / name).mkdir(parents=True)
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another-run", "another.html", "merge.json"]
    with pytest.raises(KeyboardInterrupt), whole_or_nothing([tmp_path / "new/deep/merge.html", tmp_path / "new/x"]):
        (tmp_path / "new/deep").mkdir(parents=True)
        (tmp_path / "new/deep/merge.html").write_text("now")
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()


def test_of_an_export(tmp_path: Path) -> None:
    """A process that was killed leaves a half folder; one that still writes keeps its own."""
    for name in (".out.killed.tmp", ".output.others.tmp"):
        (tmp_path / name / "images").mkdir(parents=True)
    with atomic_folder(tmp_path / "out") as first:
        (first / "mine").write_text("1")
        assert left_in(tmp_path) == sorted([".output.others.tmp", first.name])
        with atomic_folder(tmp_path / "out") as second:
            assert first.is_dir() and first != second
        with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "other"):
            raise KeyboardInterrupt
        (tmp_path / "out").rmdir()
    assert left_in(tmp_path) == [".output.others.tmp"] and (tmp_path / "out/mine").read_text() == "1"
