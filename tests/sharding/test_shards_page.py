"""docs/shards.md: its examples run as they stand, and it names every field."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from labelmerge.catalog import load_recipe
from labelmerge.sharding.shard import shard
from labelmerge.shardset.croissant import CROISSANT
from labelmerge.shardset.manifest import MANIFEST
from labelmerge.shardset.meta import BOX_TYPES, SAMPLE_TYPES, SEGMENT_TYPES, SOURCE_TYPES

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.sharding.conftest import Own

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "shards.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def here(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's shards in it."""
    own.pairs(3)
    shard(own.recipe, own.root, "train", tmp_path / "shards", samples_per_shard=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# webdataset leaves tars for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("library", ["tarfile", "webdataset", "datasets"])
def test_examples(here: Path, library: str) -> None:
    pytest.importorskip(library)
    (code,) = (code for code in EXAMPLES if re.search(rf"^(import|from) {library}", code, re.MULTILINE))
    found: dict[str, object] = {}
    exec(code, found)
    assert np.asarray(found["mask"]).shape == (12, 16)
    assert found.get("boxes", []) == []


def test_the_croissant_example(here: Path) -> None:
    pytest.importorskip("mlcroissant")
    (code,) = (code for code in EXAMPLES if "mlcroissant" in code)
    ending = "\nassert mask.size == (16, 12) and meta['height'] == 12\n"
    environment = {**os.environ, "CROISSANT_CACHE": str(here / "cache")}
    subprocess.run([sys.executable, "-c", code + ending], env=environment, check=True, capture_output=True)


def test_commands_and_the_way_back(run: Run, here: Path, own: Own) -> None:
    # What lies at a URL is read in tests/shardset, from servers of their own.
    commands = [each for each in re.findall(r"^\$ labelmerge (.+)$", PAGE, re.MULTILINE) if "://" not in each]
    assert len(commands) == 3
    for command in commands:
        result = run(*shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.stderr}"
    (recipe,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (here / "my_coco.toml").write_text(recipe)
    (here / "my_streets.csv").write_bytes((own.folder / "my_streets.csv").read_bytes())
    report = shard(load_recipe(here / "my_coco.toml"), here / "coco", "train", here / "again")
    assert (report.written, report.skipped) == (3, ())


def test_every_field_and_file_is_named() -> None:
    for types in (SAMPLE_TYPES, SOURCE_TYPES, BOX_TYPES, SEGMENT_TYPES):
        for name in types:
            assert f"`{name}`" in PAGE, name
    assert MANIFEST in PAGE and CROISSANT in PAGE
