"""`embed` says which texts it replaces, and never a user's own by those that ship, unless asked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.descriptions import HEADER

Run = Callable[..., Result]


def _own_words(folder: Path) -> Path:
    folder.mkdir()
    row = next(row for row in load_descriptions(load_recipe("camvid")) if row.name == "Car")
    (folder / "camvid.csv").write_text(f"{','.join(HEADER[:3])}\n{row.index},Car,A car is a thing with an engine.\n")
    return folder


def test_a_text_that_changes_is_named_with_the_labels_it_leaves(run: Run, tmp_path: Path) -> None:
    bank, words = tmp_path / "bank", _own_words(tmp_path / "words")
    assert run("embed", "camvid", "cityscapes", "--encoder", "offline", "--out", bank).exit_code == 0
    before = Bank.load(bank)
    changed = run("embed", "camvid", "--descriptions", words, "--out", bank)
    assert "Another text: camvid:8 Car; no longer that of cityscapes:car" in changed.output, changed.output

    refused = run("embed", "camvid", "--out", bank)
    assert refused.exit_code == 2
    assert "your own texts for 1 label of camvid (camvid:Car)" in refused.stderr
    assert "--shipped" in refused.stderr
    assert "engine" in " ".join(Bank.load(bank).texts)

    assert run("embed", "cityscapes", "--out", bank).exit_code == 0  # another dataset changes nothing of this
    assert run("embed", "camvid", "--out", bank).exit_code == 2
    back = run("embed", "camvid", "--shipped", "--out", bank)
    assert "Another text: camvid:8 Car; now that of cityscapes:car" in back.output, back.output
    assert Bank.load(bank).texts == before.texts
    assert run("embed", "camvid", "--out", bank).exit_code == 0  # nothing is anybody's own any more
