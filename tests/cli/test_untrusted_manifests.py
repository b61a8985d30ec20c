"""Every command that reads shards refuses the same manifests: none opens a file that one names outside its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..loading.toy_shards import Toy, toy_bank

if TYPE_CHECKING:
    from tests.conftest import Run

TOY = Toy("streets", ("road", "sky", "car"))
READERS = {
    "train": ("train", "--shards", "{shards}", "--bank", "{bank}", "--out", "{out}", "--steps", "1", "--device", "cpu"),
    "eval": ("eval", "--shards", "{shards}", "--bank", "{bank}", "--checkpoint", "{run}", "--out", "{out}.json"),
    "stats": ("stats", "{shards}"),
    "export": ("export", "{shards}", "--format", "coco-panoptic", "--out", "{out}"),
    "verify": ("verify", "{shards}"),
    "finish": ("verify", "--finish", "{shards}"),
}


def spoilt(manifest: dict[str, Any], fault: str) -> dict[str, Any]:
    shard = manifest["shards"][0]
    return {
        "a path": {**manifest, "shards": [{**shard, "name": "../../../secret.tar"}]},
        "an absolute path": {**manifest, "shards": [{**shard, "name": "/secret.tar"}]},
        "a name twice": {**manifest, "shards": [shard, shard]},
        "a negative size": {**manifest, "shards": [{**shard, "samples": -1}]},
        "a member's path": {**manifest, "members": ["json", "png", "../mask.png"]},
        "a split's path": {**manifest, "split": "../train"},
        "another recipe": {**manifest, "recipe": {**manifest["recipe"], "text": 'role = "eval"'}},
        "other classes": {**manifest, "label_space": {**manifest["label_space"], "names": ["a", "b", "c"]}},
    }[fault]


WORDS = {
    "a path": "'../../../secret.tar' is not the name of a shard",
    "an absolute path": "'/secret.tar' is not the name of a shard",
    "a name twice": "a name occurs twice",
    "a negative size": "streets-train-000000.tar has a negative size",
    "a member's path": "'members' is not a list of names",
    "a split's path": "'split' must be lower case letters",
    "another recipe": "the text does not match its sha256",
    "other classes": "hash",
}


@pytest.mark.parametrize("fault", WORDS)
@pytest.mark.parametrize("reader", READERS)
def test_a_manifest_that_makes_no_sense_is_refused(run: Run, tmp_path: Path, reader: str, fault: str) -> None:
    folder = TOY.write(tmp_path / "a/b/shards")
    (tmp_path / "a" / "secret.tar").write_bytes((folder / "streets-train-000000.tar").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(spoilt(manifest, fault)))
    toy_bank([TOY]).save(tmp_path / "bank")
    if reader == "finish":
        (folder / ".unfinished").mkdir()
    for name in ("model.safetensors", "config.toml", "meta.json"):  # which are not looked into before manifests
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    places = {"shards": tmp_path / "a/b/shards", **{name: tmp_path / name for name in ("bank", "run", "out")}}
    result = run(*(word.format(**places) for word in READERS[reader]))
    assert result.exit_code == 1
    assert WORDS[fault] in result.output
    assert "manifest.json" in result.output
