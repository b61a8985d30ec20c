"""Classes that a dataset was not annotated for, from its recipe to the columns of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from labelmerge.methods.method import find_method
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs


def test_a_recipe_says_which_classes_never_compete(run: Any, shards: Path, bank: Path, tmp_path: Path) -> None:
    path = shards / "streets/train/manifest.json"
    manifest = json.loads(path.read_text())
    text = f'annotated = ["road", "sky"]\n{manifest["recipe"]["text"]}'
    manifest["recipe"] |= {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(manifest))
    config = TrainConfig(merge="text")
    columns = read_inputs([shards], bank, None, config, find_method("ssiw"), Ranks()).columns
    streets = list(columns.tables).index("streets")
    assert [columns.texts[place] for place in columns.unannotated[streets].nonzero()[0]] == ["car"]
    assert columns.unannotated.sum() == 1
    words = ["train", "--shards", shards, "--bank", bank, "--out", tmp_path / "run", "--merge", "text"]
    words += ["--steps", 2, "--batch-size", 3, "--crop", 32, "--device", "cpu"]
    assert run(*words).exit_code == 0
