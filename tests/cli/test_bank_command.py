"""`labelmerge bank …`: what it says, to people and to programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank

from ..loading.toy_shards import Toy, toy_bank

STREETS, VILLAGE = Toy("streets", ("road", "sky", "car")), Toy("village", tuple(f"thing {n}" for n in range(12)))


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    toy_bank([STREETS]).save(tmp_path / "bank")
    toy_bank([Toy("streets", ("road", "sky", "truck")), VILLAGE]).save(tmp_path / "bank")
    return tmp_path / "bank"


def test_list_and_show(run: Any, bank: Path) -> None:
    listed = run("bank", "list", bank)
    assert listed.exit_code == 0, listed.output
    lines = listed.stdout.splitlines()
    assert lines[0].split() == ["version", "labels", "datasets", "dim", "size", "encoder", "prompt"]
    assert lines[2].split()[1:4] == ["15", "2", "16"] and lines[-1] == f"2 versions in {bank}; commands use the last"
    versions = json.loads(run("bank", "list", bank, "--json").stdout)["versions"]
    assert [version["newest"] for version in versions] == [False, True]
    shown = run("bank", "show", bank, "--version", "v0001", "--dataset", "streets")
    assert "labels       3 with 3 distinct texts" in shown.stdout and "streets 2 car\n    car" in shown.stdout
    data = json.loads(run("bank", "show", bank, "--dataset", "streets", "--json").stdout)
    assert data["labels"] == 15 and [row["name"] for row in data["rows"]] == ["road", "sky", "truck"]


def test_diff(run: Any, bank: Path) -> None:
    text = run("bank", "diff", bank).stdout
    assert "+ village: 12 labels" in text and "~ streets 2 car -> truck  cosine" in text
    assert "    - car\n    + truck" in text and "12 added, 0 removed, 1 edited, 2 unchanged" in text
    data = json.loads(run("bank", "diff", bank, "v0002", "v0001", "--json").stdout)
    assert len(data["removed"]) == 12 and data["edited"][0]["name"] == "car"


def test_export_import_prune(run: Any, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    exported = run("bank", "export", bank, "--out", out, "--dataset", "streets")
    assert exported.exit_code == 0 and f"to {out} and {tmp_path / 'vectors.names.csv'}" in exported.stdout
    made_by = ("--names", tmp_path / "vectors.names.csv", "--made-by", "a friend")
    imported = run("bank", "import", out, *made_by, "--out", tmp_path / "other")
    assert imported.exit_code == 0 and "3 vectors of 16 dimensions\nMade v0001-" in imported.stdout
    np.testing.assert_allclose(Bank.load(tmp_path / "other").vectors, np.load(out), atol=1e-6)

    assert run("bank", "prune", bank).exit_code == 2
    tried = run("bank", "prune", bank, "--keep", 1, "--check")
    assert "v0001-" in tried.stdout and "would be freed, 1 version stays" in tried.stdout
    assert json.loads(run("bank", "prune", bank, "--keep", 1, "--json").stdout)["done"] is True
    assert "1 version in" in run("bank", "list", bank).stdout


def test_mistakes_are_one_line(run: Any, bank: Path, tmp_path: Path) -> None:
    for args, message in (
        (("list", tmp_path / "nothing"), "no bank here"),
        (("show", bank, "--version", "v0009"), "no version 'v0009'. It has v0001-"),
        (("diff", bank, "v0001", "v0009"), "no version 'v0009'"),
        (("show", bank, "--dataset", "street"), "no labels of 'street'. Did you mean streets?"),
        (("prune", bank, "v0002"), "is the newest version, which stays"),
    ):
        result = run("bank", *args)
        assert result.exit_code == 1 and message in result.stderr and "Traceback" not in result.output
        assert len(result.stderr.strip().splitlines()) == 1


def test_help_imports_no_torch_and_neither_does_looking(bank: Path) -> None:
    for args in (["bank", "diff", "--help"], ["bank", "diff", str(bank)]):
        code = (
            "import sys; from labelmerge.cli.main import cli; cli(sys.argv[1:], standalone_mode=False); "
            "assert 'torch' not in sys.modules"
        )
        result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
