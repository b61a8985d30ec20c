"""Comparisons of runs that give depths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelmerge.compare.asked import Comparison
from labelmerge.compare.named import comparison_of, load_named
from labelmerge.compare.plan import make_plan
from labelmerge.compare.report import report_runs
from labelmerge.errors import ShardError, UsageError

from ..loading.toy_shards import Toy, toy_bank

STREETS = Toy("streets", ("road", "sky", "car"), depth=True)
SHALLOW = Toy("shallow", ("road", "sky", "car"))


@pytest.fixture
def asked(tmp_path: Path) -> Comparison:
    shards = STREETS.write(tmp_path / "shards")
    toy_bank([STREETS, SHALLOW]).save(tmp_path / "bank")
    return Comparison(
        out=tmp_path / "out", vary=["seed=0", "seed=1"], eval_shards=[shards], shards=[shards], bank=tmp_path / "bank",
        preset="tiny", settings={"steps": "2", "batch_size": "4", "crop": "32"}, device="cpu",
    )  # fmt: skip


def test_table_9_is_one_command(asked: Comparison) -> None:
    plan = make_plan(comparison_of(load_named("table9"), asked, {}))
    names = [job.variant.name for job in plan.jobs]
    assert names == ["none+seed=0", "none+seed=1", "masks+seed=0", "masks+seed=1"]
    assert all("method=depth" in job.train for job in plan.jobs)


def test_depths_are_not_compared_with_labels(asked: Comparison, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="some variants give depths and others labels"):
        make_plan(replace(asked, vary=["method=depth", "method=ssiw"]))
    shallow = SHALLOW.write(tmp_path / "other")
    with pytest.raises(ShardError, match="shallow train has no depths"):
        make_plan(replace(asked, vary=["method=depth"], eval_shards=[shallow]))


def test_the_report_marks_the_smallest_error(asked: Comparison, tmp_path: Path, run: Callable[..., Any]) -> None:
    """Of two runs, trained and measured for real."""
    for seed in (0, 1):
        out = tmp_path / f"run-{seed}"
        words = [
            "--shards",
            asked.shards[0],
            "--bank",
            asked.bank,
            "--out",
            out,
            "--method",
            "depth",
            "--preset",
            "tiny",
        ]
        words += ["--steps", 2, "--set", "batch_size=4", "crop=32", f"seed={seed}", "--device", "cpu"]
        assert (done := run("train", *words)).exit_code == 0, done.output
        words = ["--checkpoint", out, "--shards", asked.shards[0], "--out", out / "results.json", "--device", "cpu"]
        assert (done := run("eval", *words)).exit_code == 0, done.output
    found = [json.loads((tmp_path / f"run-{s}/results.json").read_text())["sets"][0]["depth"] for s in (0, 1)]
    report = report_runs([tmp_path / "run-0", tmp_path / "run-1"], tmp_path / "report")
    table = report.tables[0]
    assert table.title == "Depth" and table.columns[3:] == ["streets-train: AbsRel", "streets-train: δ1"]
    best = min((0, 1), key=lambda place: found[place]["abs_rel"])
    assert [row[3].best for row in table.rows] == [place == best for place in (0, 1)]
    assert "Results" not in [each.title for each in report.tables] and not report.notes
