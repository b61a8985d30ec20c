"""The README's example of a dataset of one's own, run as it stands there."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

_README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def _section(title: str) -> str:
    return _README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _draw_dataset(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            mask = np.full((48, 64), 255, np.uint8)
            mask[10:] = 0
            mask[20:, : rng.integers(10, 40)] = 1
            mask[30:40, 40:60] = 2
            image = np.stack([mask * 60 + 30] * 3, axis=-1) + rng.integers(0, 20, (48, 64, 3))
            for kind, array, suffix in (("images", image.astype(np.uint8), "jpg"), ("masks", mask, "png")):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / kind / split / f"{number}.{suffix}")


def test_the_example_of_an_own_dataset_runs(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = _section("Your own dataset")
    files = re.findall(r"`([a-z_]+\.(?:toml|csv))`:\n\n```\w+\n(.*?)```", section, flags=re.DOTALL)
    assert [name for name, _ in files] == ["my_streets.toml", "my_streets.csv"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    _draw_dataset(tmp_path / "my_streets")
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ labelmerge (.+)$", section, flags=re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        result = run(*shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.stderr}"
    assert (tmp_path / "my_results.json").is_file()
    assert list((tmp_path / "my_masks").glob("*.png"))


def test_every_page_and_picture_that_the_readme_names_exists() -> None:
    root = Path(__file__).resolve().parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", _README):
        assert target.startswith("http") or (root / target).is_file(), target


def test_every_command_the_readme_shows_exists() -> None:
    commands = importlib.import_module("labelmerge.cli.main").COMMANDS
    shown = set(re.findall(r"^\$ labelmerge (\w+)", _README, flags=re.MULTILINE))
    assert shown <= set(commands)
    assert {"shard", "verify", "embed", "merge", "train", "eval", "predict"} <= shown
