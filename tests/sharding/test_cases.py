"""Inputs as people have them, from the scripts beside this checkout where they are at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labelmerge.catalog import load_recipe
from labelmerge.sharding.outcome import ShardReport
from labelmerge.sharding.shard import shard

from .. import conftest


def made(case: str, tmp_path: Path, folder: str | None = None) -> ShardReport:
    """The shards of one case's input."""
    cases = conftest._SHARED / "cases"
    if not cases.is_dir():
        pytest.skip("the input cases (../shared/cases) are not beside this checkout")
    subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(cases)!r}); "
         f"exec(open({str(cases / f'make_{case}.py')!r}).read())"],
        check=True, env={**os.environ, "CASES_OUT": str(tmp_path)}, timeout=60,
    )  # fmt: skip
    root = tmp_path / (folder or case)
    return shard(load_recipe(root / "set.toml"), root, "train", tmp_path / "out")


@pytest.mark.parametrize(
    ("case", "folder", "written", "skipped"),
    [
        ("03", None, 2, 0),
        ("04", None, 1, 0),
        ("05", None, 2, 0),
        ("08", None, 2, 0),
        ("09", None, 2, 0),
        ("10", None, 1, 0),
        ("13", None, 1, 3),
        ("18", None, 2, 0),
        ("22", None, 6, 0),
        ("32", None, 2, 1),
        ("42", "42a", 1, 0),
        ("42", "42b", 1, 0),
        ("43", None, 2, 0),
        ("47", None, 2, 0),
    ],
)
def test_a_case(case: str, folder: str | None, written: int, skipped: int, tmp_path: Path) -> None:
    report = made(case, tmp_path, folder)
    assert (report.written, len(report.skipped)) == (written, skipped), report.skipped


def test_the_notes_of_cases(tmp_path: Path) -> None:
    notes: dict[str, Any] = made("03", tmp_path).notes
    assert notes["images_with_orientation_tag"] == 1
