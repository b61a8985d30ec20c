"""Shards at a URL, as commands take them; and where a URL can't go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelmerge import remote

from ..shardset.web_server import Web, serving
from .test_train_command import QUICK


@pytest.fixture
def web(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0.0,))
    monkeypatch.chdir(tmp_path)
    with serving(shards) as web:
        yield web


def test_a_run_and_its_results_are_the_same_as_with_local_shards(
    run: Any, shards: Path, bank: Path, web: Web, tmp_path: Path
) -> None:
    weights = "checkpoints/step-000002/model.safetensors"
    for name, where in (("local", str(shards)), ("remote", web.url)):
        trained = run("train", "--shards", where, "--bank", bank, "--out", name, *QUICK)
        assert trained.exit_code == 0, trained.output
        out = tmp_path / f"{name}.json"
        measured = run(
            *("eval", "--checkpoint", name, "--shards", f"{where}/streets/train", "--out", out, "--device", "cpu")
        )
        assert measured.exit_code == 0, measured.output
    assert (tmp_path / "local" / weights).read_bytes() == (tmp_path / "remote" / weights).read_bytes()
    local, there = (json.loads((tmp_path / f"{name}.json").read_text())["sets"] for name in ("local", "remote"))
    assert json.dumps(there).count(web.url) == 1
    assert json.dumps(there).replace(web.url, str(shards)) == json.dumps(local)
    again = run("train", "--shards", web.url, "--bank", bank, "--out", "remote", *QUICK)
    assert again.exit_code == 0 and "the run is finished" in again.stderr
    kept = b"".join(path.read_bytes() for path in (tmp_path / "remote").rglob("*") if path.is_file())
    assert f"{web.url}/streets/train".encode() in kept and str(tmp_path / "cache").encode() not in kept


def test_stats_and_verify(run: Any, shards: Path, web: Web) -> None:
    assert run("stats", web.url).output == run("stats", shards).output
    listed, known = (json.loads(run("verify", where, "--json").stdout) for where in (web.url, shards))
    assert json.dumps(listed).replace(web.url, str(shards)) == json.dumps(known)
    name = next(shards.rglob("*.tar")).name
    web.faults = {name: ["changed"] * 9}
    for path in Path("cache/shards").iterdir():
        path.unlink()
    assert "its content does not match its sha256 (2 downloads)" in run("verify", web.url).output
    refused = run("verify", "--finish", web.url)
    assert refused.exit_code == 1 and "is a URL" in refused.stderr


def test_compare_plans_runs_by_url(run: Any, bank: Path, web: Web) -> None:
    args = ("compare", "--shards", web.url, "--bank", bank, "--eval-shards", f"{web.url}/streets/train", "--out", "c")
    planned = run(*args, "--vary", "seed=1", "--device", "cpu", "--print")
    assert planned.exit_code == 0, planned.output
    assert f"--shards {web.url} " in planned.output and f"--shards {web.url}/streets/train " in planned.output


def test_urls_in_the_environment_keep_their_colons(run: Any, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMERGE_SHARDS", f"{web.url}/a:mine:s3://bucket/b:{web.url}")
    shown = json.loads(run("config", "--json").stdout)
    assert shown["cache"] == {"LABELMERGE_CACHE": os.environ["LABELMERGE_CACHE"]}
    assert "shards at a URL" in run("config").output
    given = shown["shared"]["shards"]["value"]
    assert given == [f"{web.url}/a", "mine", "s3://bucket/b", web.url]


@pytest.mark.parametrize(
    "args",
    [
        ("embed", "camvid", "--out", "s3://bucket/bank"),
        ("train", "--shards", "s", "--bank", "hf://datasets/a/b", "--out", "run"),
        ("train", "--shards", "s", "--bank", "bank", "--out", "gs://bucket/run"),
        ("eval", "--checkpoint", "s3://bucket/run", "--shards", "s", "--out", "r.json"),
        ("predict", "a.png", "--checkpoint", "run", "--out", "s3://bucket/masks"),
        ("merge", "camvid", "--out", "s3://bucket/merge"),
        ("shard", "camvid", "--root", "camvid", "--out", "s3://bucket/shards"),
        ("report", "s3://bucket/run", "--out", "report"),
    ],
)
def test_a_url_elsewhere_is_refused_and_no_folder_is_named_like_one(
    args: tuple[str, ...], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    url = next(arg for arg in args if "://" in arg)
    assert result.exit_code == 2 and f"{url}: only shards are read at a URL" in result.stderr
    assert not list(tmp_path.iterdir())
