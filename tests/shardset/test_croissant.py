"""croissant.json is what mlcroissant accepts, and what it loads are the samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labelmerge.sharding.shard import shard
from labelmerge.shardset.croissant import croissant, write_croissant
from labelmerge.shardset.manifest import read_manifest

if TYPE_CHECKING:
    from tests.sharding.conftest import Own

Samples = Callable[[Path], dict[str, dict[str, Any]]]

# In a process of its own, because it fixes the folder of its cache when imported, and warns.
LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlcroissant
def plain(value):
    return value.decode() if isinstance(value, bytes) else [value.mode, *value.size]
dataset = mlcroissant.Dataset(sys.argv[1])
records = {one.id: list(dataset.records(one.id)) for one in dataset.metadata.record_sets}
issues = dataset.metadata.ctx.issues
found = {"errors": list(map(str, issues.errors)), "warnings": list(map(str, issues.warnings)), "records": records}
print(json.dumps(found, default=plain))
"""


def test_mlcroissant_accepts_it_and_loads_every_record(own: Own, tmp_path: Path, read_samples: Samples) -> None:
    pytest.importorskip("mlcroissant")
    own.pairs(3)
    folder = shard(own.recipe, own.root, "train", tmp_path / "out", samples_per_shard=2).folder
    assert folder is not None
    write_croissant(folder, read_manifest(folder)[0])
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder / "croissant.json")],
        env={**os.environ, "CROISSANT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = json.loads(result.stdout)
    assert loaded["errors"] == []
    # What a recipe may leave unsaid, as this one does, or never says.
    for warning in loaded["warnings"]:
        assert any(name in warning for name in ("citeAs", "datePublished", "version", "license")), warning
    records, samples = loaded["records"], read_samples(folder)
    found = {record["samples/key"]: json.loads(record["samples/json"]) for record in records["samples"]}
    assert {key: json.loads(data["present"]) for key, data in found.items()} == {
        key: sample["json"]["present"] for key, sample in samples.items()
    }
    assert [record["images/image"] for record in records["images"]] == [["RGB", 16, 12]] * 3
    assert [record["masks/mask"] for record in records["masks"]] == [["L", 16, 12]] * 3
    assert [record["classes/name"] for record in records["classes"]] == ["road", "car", "sky"]


def test_it_follows_from_the_manifest_and_names_no_place(own: Own, tmp_path: Path) -> None:
    own.pairs(3)
    recipe = (
        'title = "My \\"streets\\""\nlicence = "CC BY 4.0"\nhomepage = "https://example.org"\nimage_format = "png"\n'
    )
    own.write_recipe(recipe + own.recipe.text)
    texts = []
    for name in ("one", "two"):
        folder = shard(own.recipe, own.root, "train", tmp_path / name, samples_per_shard=2).folder
        assert folder is not None
        write_croissant(folder, read_manifest(folder)[0])
        texts.append((folder / "croissant.json").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0] and str(own.folder) not in texts[0]
    data = json.loads(texts[0])
    manifest = read_manifest(tmp_path / "one/my_streets/train")[0]
    assert (data["name"], data["license"], data["url"]) == ("my_streets-train", "CC BY 4.0", "https://example.org")
    tars = {entry["name"]: entry["sha256"] for entry in manifest["shards"]}
    assert {one["name"]: one["sha256"] for one in data["distribution"] if one["@type"] == "cr:FileObject"} == tars
    (images,) = (one for one in data["distribution"] if one["@id"] == "png-files")
    assert images["includes"] == "my_streets-train-" + "[0-9]" * 9 + ".png"
    assert "255 where there is no label" in texts[0]


def test_what_the_recipe_does_not_say_is_not_said(own: Own, tmp_path: Path) -> None:
    own.pairs(1)
    folder = shard(own.recipe, own.root, "train", tmp_path).folder
    assert folder is not None
    manifest = read_manifest(folder)[0]
    data = croissant(manifest)
    del manifest["label_space"]["indices"]  # which may be left out where they are 0, 1, 2, …
    assert croissant(manifest) == data
    assert not {"license", "url", "creator", "datePublished", "version", "citeAs"} & data.keys()
