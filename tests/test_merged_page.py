"""docs/merged.md, from three datasets to a trainer, run as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from .companies import DOCS, draw, recipes

_PAGE = DOCS.read_text()


def test_the_whole_road(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(recipes(tmp_path)) == ["depot", "gate", "yard"]
    draw(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ labelmerge (.+)$", _PAGE, flags=re.MULTILINE)
    assert len(commands) == 14
    for command in commands:
        result = run(*shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.stderr}"
        assert "WARNING" not in result.stdout, command
    assert len(list(Path("merged/images").glob("*/*"))) == 12, "boxes have become masks"
    blocks = re.findall(r"```python\n(.*?)```", _PAGE, flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        if "_base_" not in block:
            done = subprocess.run([sys.executable, "-P", "-c", block], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    _read_as_mmengine_does(next(block for block in blocks if "_base_" in block))


def _read_as_mmengine_does(text: str) -> None:
    """Its configurations: `{{ fileDirname }}` is filled in, then the file is run; `{{_base_.x}}` is x of the base."""
    base: dict[str, Any] = {}
    fragment = Path("merged/mmseg.py").read_text()
    assert "{{ fileDirname }}" in fragment
    exec(fragment.replace("{{ fileDirname }}", "merged"), base)
    config: dict[str, Any] = {}
    exec(re.sub(r"\{\{_base_\.(\w+)\}\}", lambda name: repr(base[name[1]]), text), config)
    assert config["_base_"] == ["merged/mmseg.py"]
    assert config["model"]["decode_head"] == {"num_classes": len(base["metainfo"]["classes"]), "ignore_index": 255}
    found = 0
    for each in config["train_dataloader"]["dataset"]["datasets"]:
        images = Path(each["data_root"], each["data_prefix"]["img_path"])
        masks = Path(each["data_root"], each["data_prefix"]["seg_map_path"])
        for image in images.glob(f"*{each['img_suffix']}"):
            assert (masks / f"{image.stem}{each['seg_map_suffix']}").is_file()
            found += 1
    assert found == 10
