"""Shards, banks and runs at URLs, as commands take them; and where a URL can't go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from labelmerge import network

from ..shardset.web_server import Web, serving
from .test_train_command import QUICK


@pytest.fixture
def web(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(network, "PAUSES", (0.0,))
    monkeypatch.chdir(tmp_path)
    with serving(shards) as web:
        yield web


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_a_run_and_its_results_are_the_same_as_with_all_in_local_folders(
    run: Any, shards: Path, bank: Path, web: Web, memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    weights = "checkpoints/step-000002/model.safetensors"
    memory.put(str(bank), "/it/bank", recursive=True)
    for name, where, its_bank in (("local", str(shards), bank), ("remote", web.url, "memory://it/bank")):
        trained = run("train", "--shards", where, "--bank", its_bank, "--out", name, *QUICK)
        assert trained.exit_code == 0, trained.output
        checkpoint = name if name == "local" else "memory://it/run"
        memory.put(str(tmp_path / name), "/it/run", recursive=True)
        out = tmp_path / f"{name}.json"
        measured = run(
            *("eval", "--checkpoint", checkpoint, "--shards", f"{where}/streets/train", "--out", out, "--device", "cpu")
        )
        assert measured.exit_code == 0, measured.output
    assert "--checkpoint memory://it/run --shards http://127" in (tmp_path / "remote.json").read_text()
    assert (tmp_path / "local" / weights).read_bytes() == (tmp_path / "remote" / weights).read_bytes()
    local, there = (json.loads((tmp_path / f"{name}.json").read_text())["sets"] for name in ("local", "remote"))
    assert json.dumps(there).count(web.url) == 1
    assert json.dumps(there).replace(web.url, str(shards)) == json.dumps(local)
    again = run("train", "--shards", web.url, "--bank", "memory://it/bank", "--out", "remote", *QUICK)
    assert again.exit_code == 0 and "the run is finished" in again.stderr
    kept = b"".join(path.read_bytes() for path in (tmp_path / "remote").rglob("*") if path.is_file())
    assert f"{web.url}/streets/train".encode() in kept and b'bank = "memory://it/bank"' in kept
    assert str(tmp_path / "cache").encode() not in kept
    begun = run("train", "--shards", shards, "--bank", bank, "--out", "more", *QUICK, "--init", "memory://it/run")
    assert begun.exit_code == 0, begun.output
    origin = json.loads(next(Path("more").rglob("meta.json")).read_text())["init"]
    assert origin["checkpoint"] == "memory://it/run/checkpoints/step-000002"


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
    folder = os.environ["LABELMERGE_CACHE"]
    assert shown["cache"] == {"cache": {"value": folder, "from": "LABELMERGE_CACHE"}}
    assert "whatever is at a URL" in run("config").output
    given = shown["shared"]["shards"]["value"]
    assert given == [f"{web.url}/a", "mine", "s3://bucket/b", web.url]


@pytest.mark.parametrize("args", [("recipe", "s3://bucket/raw"), ("push", "s3://bucket/run", "s3://other/run")])
def test_what_has_to_be_here_says_so(args: tuple[str, ...], run: Any) -> None:
    refused = run(*args)
    assert refused.exit_code == 2 and f"{args[1]}: only a folder of this machine can be taken here" in refused.stderr


def test_the_cache_is_named_in_the_file(run: Any, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LABELMERGE_CACHE")
    monkeypatch.delenv("LABELMERGE_CACHE_GB", raising=False)
    (tmp_path / "project/below").mkdir(parents=True)
    (tmp_path / "project/labelmerge.toml").write_text('cache = "kept"\ncache_gb = 0.5\n')
    monkeypatch.chdir(tmp_path / "project/below")
    shown = json.loads(run("config", "--json").stdout)["cache"]
    assert shown["cache"]["value"] == str(tmp_path / "project/kept") and shown["cache_gb"]["value"] == "0.5"
    assert run("stats", web.url).exit_code == 0 and (tmp_path / "project/kept/urls").is_dir()
    assert "LABELMERGE_CACHE" not in os.environ and "LABELMERGE_CACHE_GB" not in os.environ
    monkeypatch.setenv("LABELMERGE_CACHE", str(tmp_path / "other"))
    assert run("stats", web.url).exit_code == 0 and (tmp_path / "other/urls").is_dir()
    for text, what in (
        ("cache = 3", "the path of a folder"),
        ("cache_gb = 'x'", "a number"),
        ("cache_bg = 1", "Did you mean cache_gb"),
    ):
        (tmp_path / "project/labelmerge.toml").write_text(text + "\n")
        refused = run("stats", web.url)
        assert refused.exit_code == 1 and what in refused.stderr and "labelmerge.toml" in refused.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("embed", "camvid", "--out", "s3://bucket/bank"),
        ("bank", "prune", "hf://datasets/a/b", "--keep", "1"),
        ("train", "--shards", "s", "--bank", "bank", "--out", "gs://bucket/run"),
        ("eval", "--checkpoint", "run", "--shards", "s", "--out", "s3://bucket/r.json"),
        ("compare", "--shards", "s", "--bank", "bank", "--out", "s3://bucket/runs"),
        ("describe", "camvid", "--out", "s3://bucket/descriptions"),
        ("bank", "export", "bank", "--out", "s3://bucket/v.npy"),
        ("export", ".", "--format", "hf", "--out", "s3://bucket/one"),
        ("plot", "map", "--bank", "bank", "--out", "s3://bucket/map.png"),
        ("demo", "--out", "s3://bucket/demo"),
        ("recipe", ".", "--out", "s3://bucket/recipe"),
        ("relabel", ".", "--out", "s3://bucket/relabelled", "--taxonomy", "t.csv"),
        ("predict", "a.png", "--checkpoint", "run", "--out", "s3://bucket/masks"),
        ("merge", "camvid", "--out", "s3://bucket/merge"),
        ("shard", "camvid", "--root", "camvid", "--out", "s3://bucket/shards"),
        ("report", "run", "--out", "s3://bucket/report"),
    ],
)
def test_a_url_elsewhere_is_refused_and_no_folder_is_named_like_one(
    args: tuple[str, ...], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    url = next(arg for arg in args if "://" in arg)
    assert result.exit_code == 2 and f"{url}: only local folders can be written to" in result.stderr
    assert "labelmerge push DIR URL" in result.stderr
    assert not list(tmp_path.iterdir())
