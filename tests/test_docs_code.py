"""The Python and TOML of the pages that have no test of their own: it runs, or is read as what it is shown to be."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_FEWER = {"steps=300": "steps=1, batch_size=2, crop=32", "short_edge=480": "short_edge=48"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (_DOCS / page).read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def place(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Toy shards, a bank and a photograph, in the current folder."""
    from labelmerge.demo.datasets import write_worlds

    roots = write_worlds(tmp_path / "data", 2, seed=0)
    monkeypatch.chdir(tmp_path)
    assert not run(
        "shard", "cityscapes", "--root", roots["cityscapes"], "--split", "train", "--out", "shards-out"
    ).exit_code
    assert not run("embed", "cityscapes", "camvid", "--encoder", "offline", "--out", "bank").exit_code
    Image.new("RGB", (64, 48), "green").save("photo.jpg")
    return tmp_path


def test_python_of_banks_and_of_notebooks_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    (code,) = [block for block in blocks("bank.md", "python") if "Bank.load" in block]
    for block in (code, *blocks("python.md", "python")):
        for whole, fewer in _FEWER.items():
            block = block.replace(whole, fewer)
        exec(compile(block, "docs", "exec"), names)
    assert names["vectors"].shape == (19, names["bank"].dim)
    assert names["run"].steps == 1 and names["measured"].name == "cityscapes-train"
    assert names["classes"].shape == names["road"].shape == (48, 64) and set(names["classes"].ravel()) <= set(range(19))
    shown = capsys.readouterr().out
    for comment in re.findall(r"print\(.*\)  # (\(.*)", "".join(blocks("python.md", "python"))):
        assert comment in shown, comment


@pytest.mark.parametrize("page", ["training.md", "methods.md"])
def test_settings_are_read_as_a_run_reads_them(page: str, tmp_path: Path) -> None:
    from labelmerge.train.config import load_config

    (text,) = blocks(page, "toml")
    (tmp_path / "mine.toml").write_text(text)
    config = load_config("tiny", tmp_path / "mine.toml")
    assert config.crop == 512 and dict(config.views)["cityscapes"]["short_edge"] == 1024


def test_a_comparison_is_toml() -> None:
    (text,) = blocks("evaluation.md", "toml")
    assert set(tomllib.loads(text)) == {"vary", "needs", "settings", "first"}
