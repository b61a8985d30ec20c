"""What names from files may do to terminals, spreadsheets and pages: nothing."""

from __future__ import annotations

import csv
import io
import json
import logging
import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.bank.exchange import export_bank, import_vectors
from labelmerge.descriptions import Description, read_descriptions, write_descriptions
from labelmerge.files import write_json, write_text
from labelmerge.merge.relations import Relation, relations_table
from labelmerge.merge.taxonomy import Entry, Taxonomy, read_taxonomy
from labelmerge.parsing import parse_json
from labelmerge.predict.queries import read_labels
from labelmerge.text import aligned, csv_cell, csv_text, csv_value, harmless_markdown, printable_json, printable_lines

EVIL = (
    "=HYPERLINK(\"http://x\",\"car\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''=1", "＝1", "-",
    "\x1b]0;owned\x07car", "car\u202egnp", "a\nb", "\x9b2Jcar", "<img src=x onerror=alert(1)>", "a|b", "[a](http://x)",
)  # fmt: skip
options, cli = import_module("labelmerge.cli.options"), import_module("labelmerge.cli.main").cli
HARMFUL = "\x1b\x07\x9b\u202e\u2066\u200f\x7f\r"


def test_cells_come_back_and_are_no_formulas() -> None:
    letters = random.Random(0)
    texts = [*EVIL, "", "road", "-0.5", "1e-3", "+7", "'road'"]
    texts += ["".join(letters.choices("'=+-@\t\r 1a＝", k=letters.randint(0, 5))) for _ in range(3000)]
    for text in texts:
        assert csv_value(csv_cell(text)) == text
        cell = csv_cell(text)
        assert cell[:1] not in "=+-@\t\r＝" or not cell or _is_number(cell), cell
    assert csv_cell(-0.25) == "-0.25" and csv_cell("1e-3") == "1e-3" and csv_cell(None) == "None"
    rows = list(csv.reader(io.StringIO(csv_text([texts]), newline="")))
    assert [csv_value(cell) for cell in rows[0]] == texts


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def assert_harmless(table: str) -> None:
    for row in csv.reader(io.StringIO(table, newline="")):
        assert all(cell[:1] not in tuple("=+-@\t\r＝") or _is_number(cell) for cell in row), row


def test_files_for_spreadsheets_give_true_names_back(tmp_path: Path) -> None:
    names = [name for name in EVIL if name == " ".join(name.split())]
    path = tmp_path / "mine.csv"
    rows = [Description(n, name, description=name, note=name, concepts="car") for n, name in enumerate(names)]
    write_descriptions(path, rows)
    assert_harmless(path.read_text())
    assert read_descriptions(path) == rows
    assert [query.name for query in read_labels(path)] == names

    entries = [Entry(("mine", n), name, ("car",), "person", 1.0, name) for n, name in enumerate(names)]
    table = Taxonomy(entries, ("car",)).table()
    assert_harmless(table)
    path.write_text(table)
    found = read_taxonomy(path, {entry.key: entry.name for entry in entries})
    assert [(entry.name, entry.note) for entry in found.entries] == [(name, name) for name in names]
    assert_harmless(relations_table([Relation(entries[0], "same", entries[1], 1.0)]))


def test_a_banks_tables_give_true_names_back(tmp_path: Path) -> None:
    from .loading.toy_shards import Toy, toy_bank

    bank = toy_bank([Toy("mine", ("=1+1", "-2", "@x"))])
    for out in ("v.csv", "v.npy"):
        for path in export_bank(bank, tmp_path / out):
            if path.suffix == ".csv":
                assert_harmless(path.read_text())
    import_vectors(tmp_path / "v.npy", tmp_path / "v.names.csv", tmp_path / "bank", made_by="me")
    assert list(Bank.load(tmp_path / "bank").names) == ["=1+1", "-2", "@x"]


@pytest.mark.parametrize("name", EVIL)
def test_nothing_harmful_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = aligned([[name, "1"], ["road", "22"]])
    assert len({len(line) for line in lines}) == 1 and not set("".join(lines)) & set(HARMFUL + "\n")
    options.say({"name": name, name: [name]}, False, f"one\n{name}")
    options.say({"name": name, name: [name]}, True, "")
    out = capsys.readouterr().out
    assert not set(out) & set(HARMFUL)
    assert json.loads(out.partition("{")[1] + out.partition("{")[2]) == {"name": name, name: [name]}
    assert json.loads(printable_json([name, "\U000e0001"])) == [name, "\U000e0001"]
    assert printable_lines(name).replace("\n", "").isprintable()


def test_nothing_harmful_is_logged(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("stats")
    def command() -> None:
        logging.getLogger("labelmerge.x").warning("skipped %s", "".join(EVIL))
        raise OSError(5, "broken", "\x1b[2Jfile")

    monkeypatch.setattr(type(cli), "get_command", lambda *_: command)
    result = run("stats")
    assert result.exit_code == 1 and not set(result.stderr) & set(HARMFUL)


def test_nothing_comes_of_names_in_markdown() -> None:
    for name in EVIL:
        text = harmless_markdown(name)
        assert "<" not in text and not set(text) & set(HARMFUL + "\n") and "[" not in text.replace("\\[", "")


def test_file_names_that_are_no_text_can_be_noted(tmp_path: Path) -> None:
    for name in ("a\udcff.jpg", 'a"\udcfe\\'):
        shown = name.encode(errors="backslashreplace").decode()
        write_json(tmp_path / "x.json", {"name": name})
        assert parse_json((tmp_path / "x.json").read_bytes()) == {"name": shown}
        write_text(tmp_path / "x.txt", name)
        assert (tmp_path / "x.txt").read_text() == shown
