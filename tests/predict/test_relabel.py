"""`labelmerge relabel` on the three datasets of docs/merged.md."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.catalog import load_descriptions, load_recipe
from labelmerge.errors import BankError, LabelmergeError, ShardError, TaxonomyError, UsageError
from labelmerge.inspect.verify import verify
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.predict import relabel as module
from labelmerge.predict import rewriting
from labelmerge.predict.relabel import relabel
from labelmerge.predict.splitting import Relabelled, relabel_mask
from labelmerge.sharding.shard import shard
from labelmerge.shardset.manifest import read_manifest
from labelmerge.shardset.shardset import ShardSet

from ..companies import COUNTS, draw, recipes
from ..shardset.web_server import serving

TAXONOMY = """dataset,index,name,concepts
depot,0,road,road
depot,1,vehicle,car;bus;other vehicle
depot,2,sky,sky
gate,0,car,car
gate,1,bus,bus
gate,2,person,person
yard,0,bus,bus
yard,1,car,car
"""
CONCEPTS = ("road", "car", "bus", "other vehicle", "sky", "person")


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """shards of three datasets, a run that knows their labels, and a taxonomy."""
    draw(tmp_path)
    labels = []
    for dataset, path in recipes(tmp_path).items():
        recipe = load_recipe(path)
        labels += [(dataset, row.index, row.name, row.description) for row in load_descriptions(recipe)]
        for split in COUNTS[dataset]:
            shard(recipe, tmp_path / dataset, split, tmp_path / "shards")
    tools.run(tmp_path / "run", tools.bank(labels))
    (tmp_path / "taxonomy.csv").write_text(TAXONOMY)
    return tmp_path


def go(world: Path, out: str = "one", **settings: Any) -> module.RelabelReport:
    settings = {"checkpoint": world / "run", "device": "cpu", **settings}
    return relabel([world / "shards"], world / "taxonomy.csv", world / out, **settings)


def test_images_keep_what_they_were_annotated_for(world: Path) -> None:
    recipe = world / "depot.toml"
    recipe.write_text(recipe.read_text().replace("[ids]", 'annotated = "lists.csv"\n[ids]'))
    (world / "depot/lists.csv").write_text("image,annotated\n0,road;vehicle\n1,sky\n")
    shutil.rmtree(world / "shards/depot")
    for split in COUNTS["depot"]:
        shard(load_recipe(recipe), world / "depot", split, world / "shards")
    go(world, confidence=0)
    assert verify([world / "one"]).problems == ()
    opened, before = (ShardSet.open(world / out / "depot/train") for out in ("one", "shards"))
    assert opened.own_lists and before.read(0).annotated == frozenset({0, 1})
    assert opened.read(0).annotated == frozenset(range(4)) and opened.read(1).annotated == frozenset({4})
    assert not ShardSet.open(world / "one/gate/train").own_lists


def samples(folder: Path) -> Iterator[Any]:
    opened = ShardSet.open(folder)
    return (opened.read(number, instances=True) for number in range(len(opened)))


def test_all_shards_are_in_one_space_and_say_what_was_predicted(world: Path) -> None:
    report = go(world, confidence=0)
    assert verify([world / "one"]).problems == ()
    assert report.space.names == CONCEPTS and report.space.name == "taxonomy"
    folders = [split.folder for split in report.splits]
    assert {ShardSet.open(folder).space for folder in folders} == {report.space}
    about = {f"{split.dataset}/{split.split}": read_manifest(split.folder)[0] for split in report.splits}
    assert about["depot/val"]["annotated"] == ["road", "car", "bus", "other vehicle", "sky"]
    assert about["gate/train"]["annotated"] == ["car", "bus"], "as its recipe says"
    assert about["gate/train"]["things"] == ["car", "bus", "person"]
    yard = about["yard/train"]
    assert (yard["annotation_type"], yard["annotated"], yard["things"]) == ("noisy_mask", *[["car", "bus"]] * 2)
    hows = {label["name"]: label["how"] for label in about["depot/train"]["relabel"]["labels"]}
    assert hows == {"road": "annotated", "vehicle": "predicted", "sky": "annotated"}
    assert {label["how"] for label in yard["relabel"]["labels"]} == {"predicted"}
    assert yard["relabel"]["checkpoint"]["hash"] == report.checkpoint
    assert about["gate/train"]["relabel"]["checkpoint"] is None, "nothing was asked of the model"


def test_labels_are_kept_and_split_within_their_sets(world: Path) -> None:
    go(world, confidence=0)
    for old, new in zip(samples(world / "shards/depot/train"), samples(world / "one/depot/train"), strict=True):
        assert (new.image == old.image).all() and new.meta["source"] == old.meta["source"]
        for index, concepts in ((0, {0}), (1, {1, 2, 3}), (2, {4}), (255, {255})):
            assert set(np.unique(new.mask[old.mask == index])) <= concepts
    for old, new in zip(samples(world / "shards/gate/train"), samples(world / "one/gate/train"), strict=True):
        assert (new.mask == np.select([old.mask == 0, old.mask == 1], [1, 2], 255)).all()
        assert (new.instances == old.instances).all() and len(new.meta["segments"]) == 2
    boxed = 0
    for old, new in zip(samples(world / "shards/yard/train"), samples(world / "one/yard/train"), strict=True):
        inside = np.zeros(new.mask.shape, dtype=bool)
        for (x0, y0, x1, y1), index in zip(old.boxes.astype(int), old.box_classes, strict=True):
            inside[y0:y1, x0:x1] = True
            assert set(np.unique(new.mask[y0:y1, x0:x1])) <= {{0: 2, 1: 1}[int(index)], 255}
        assert (new.mask[~inside] == 255).all() and new.box_classes.tolist() == [1, 2]
        boxed += int((new.mask != 255).sum())
    assert boxed


def test_shards_at_a_url_are_relabelled_the_same(
    world: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELMERGE_CACHE", str(world / "cache"))
    words = ("--taxonomy", world / "taxonomy.csv", "--checkpoint", world / "run", "--device", "cpu")
    with serving(world / "shards") as web:
        for source, out in ((world / "shards/depot", "here"), (f"{web.url}/depot", "there")):
            assert (result := run("relabel", source, "--out", world / out, *words)).exit_code == 0, result.output
        exported = run("export", web.url + "/depot", "--format", "coco-panoptic", "--out", world / "coco")
        assert exported.exit_code == 0 and list(world.glob("coco/train/*.jpg")), exported.output
    here, there = (
        {path.relative_to(world / out): path.read_bytes() for path in (world / out).rglob("*") if path.is_file()}
        for out in ("here", "there")
    )
    assert here == there and len(here) > 4


def test_boxes_become_masks_one_by_one(world: Path, run: Callable[..., Any]) -> None:
    words = ["relabel", world / "shards", "--taxonomy", world / "taxonomy.csv", "--out", world / "one", "--instances"]
    refused = run(*words)
    assert refused.exit_code == 2 and "only a model" in refused.stderr
    result = run(*words, "--checkpoint", world / "run", "--confidence", "0", "--least-cover", "0.01")
    assert result.exit_code == 0 and "masks of boxes: " in result.stdout, result.output
    assert verify([world / "one"]).problems == ()
    yard = ShardSet.open(world / "one/yard/train")
    assert yard.has_segments and yard.annotation_type == "noisy_mask" and yard.things
    found = [yard.read(number, instances=True) for number in range(len(yard))]
    assert any(sample.segments for sample in found)
    for sample in found:
        assert sample.instances is not None and sample.mask is not None
        for segment in sample.segments:
            assert (sample.mask[sample.instances == segment["id"]] == segment["class_index"]).all()
    assert not ShardSet.open(world / "one/depot/train").has_segments
    assert (
        "there already"
        in run(*words, "--checkpoint", world / "run", "--confidence", "0", "--least-cover", "0.01").stdout
    )


def test_boxes_become_masks_in_labels_of_their_own(world: Path, run: Callable[..., Any]) -> None:
    words = ["relabel", world / "shards", "--checkpoint", world / "run", "--out", world / "own"]
    assert "Give --taxonomy, or --instances" in run(*words).stderr
    result = run(*words, "--instances", "--confidence", "0", "--least-cover", "0.01")
    assert result.exit_code == 0 and "left out: depot train has masks already" in result.stdout, result.output
    assert "with labels of their own" in result.stdout and verify([world / "own"]).problems == ()
    old, new = (ShardSet.open(world / out / "yard/train") for out in ("shards", "own"))
    assert new.space == old.space and new.annotation_type == "noisy_mask" and new.has_segments
    masks = 0
    for before, after in zip(samples(old.folder), samples(new.folder), strict=True):
        assert after.box_classes.tolist() == before.box_classes.tolist()
        for segment in after.segments:
            inside = after.instances == segment["id"]
            assert (after.mask[inside] == segment["class_index"]).all() and segment["class_index"] in before.box_classes
            masks += 1
    assert masks and "there already" in run(*words, "--instances", "--confidence", "0", "--least-cover", "0.01").stdout


def test_labels_that_the_run_lacks_come_from_another_bank(world: Path, run: Callable[..., Any], tools: Any) -> None:
    (checkpoint,) = (world / "run/checkpoints").iterdir()
    full = Bank.load(checkpoint / "bank")
    full.save(world / "bank")
    small = full.for_keys([key for key in full.keys if key[0] != "yard"])
    tools.run(world / "without", small)
    words = ["relabel", world / "shards/yard", "--instances", "--confidence", 0, "--out", world / "own"]
    without = [*words, "--checkpoint", world / "without"]
    said = run(*without).stderr
    assert "yard is not in it" in said and "--out BANK` adds them" in said and not (world / "own").exists()
    result = run(*without, "--bank", world / "bank")
    assert result.exit_code == 0 and verify([world / "own"]).problems == (), result.output
    manifest, _ = read_manifest(world / "own/yard/train")
    assert manifest["relabel"]["checkpoint"]["bank_version"] == full.version
    with pytest.raises(UsageError, match="a bank is for a model"):
        go(world, checkpoint=None, bank=world / "bank")


def test_without_a_model_what_is_open_is_ignored_and_said(world: Path, run: Callable[..., Any]) -> None:
    words = ["relabel", world / "shards", "--taxonomy", world / "taxonomy.csv", "--out", world / "one"]
    result = run(*words, "--name", "company")
    assert result.exit_code == 0, result.stderr
    assert "WARNING: depot train: 1 label stands for several concepts and lost 2,240 pixels" in result.stdout
    assert verify([world / "one"]).problems == ()
    for old, new in zip(samples(world / "shards/depot/train"), samples(world / "one/depot/train"), strict=True):
        assert (new.mask[old.mask == 1] == 255).all()
    assert ShardSet.open(world / "one/yard/train").annotation_type == "box"
    assert ShardSet.open(world / "one/yard/train").space.name == "company"
    assert "there already" in run(*words, "--name", "company").stdout
    assert json.loads(run(*words, "--name", "company", "--json").stdout)["checkpoint"] is None


def test_bad_samples_are_counted_and_a_killed_run_goes_on(
    world: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tar = world / "shards/depot/train/depot-train-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"\x89PNG\r\n", b"\x89PGN\r\n", 1))
    made: list[Relabelled] = []

    def killed(*arguments: Any) -> Relabelled:
        if len(made) == 6:
            raise KeyboardInterrupt
        made.append(relabel_mask(*arguments))
        return made[-1]

    monkeypatch.setattr(rewriting, "relabel_mask", killed)
    with pytest.raises(KeyboardInterrupt):
        go(world)
    left = sorted(str(path.relative_to(world / "one")) for path in (world / "one").rglob("*.tar"))
    assert left == ["depot/train/depot-train-000000.tar", "depot/val/depot-val-000000.tar"]
    assert sorted(path.name for path in (world / "one").iterdir()) == ["depot"]
    monkeypatch.undo()
    report = go(world)
    assert [split.kept for split in report.splits] == [True, True, False, False]
    first = report.splits[0]
    assert first.images == 3 and len(first.skipped) == 1 and "depot-train-000000000" in first.skipped[0][0]
    (warning,) = (record.getMessage() for record in caplog.records if "sha256" in record.getMessage())
    assert warning.startswith(f"{tar} does not match the manifest's sha256, and is read all the same")
    assert verify([world / "one"]).problems == ()


@pytest.mark.parametrize(
    ("settings", "table", "error", "message"),
    [
        ({}, TAXONOMY.replace("depot,2,sky,sky\n", ""), TaxonomyError, r"depot 2 .sky. is missing"),
        ({}, TAXONOMY.replace("depot,2,sky", "depot,2,heaven"), TaxonomyError, "line 4: depot 2 is 'sky'"),
        ({}, TAXONOMY[: TAXONOMY.index("gate")], TaxonomyError, "has no row for gate"),
        ({}, TAXONOMY + "other,0,tram,tram\n", BankError, "no label of 1 concept: tram. .*: other is not in this one"),
        ({"confidence": 1.5}, TAXONOMY, UsageError, "confidence is 1.5"),
        ({"out": "shards"}, TAXONOMY, UsageError, "would replace"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    world: Path, settings: dict[str, Any], table: str, error: type[LabelmergeError], message: str
) -> None:
    (world / "taxonomy.csv").write_text(table)
    with pytest.raises(error, match=message):
        go(world, **settings)
    assert not (world / "one").exists()


def test_a_recipe_that_makes_no_sense_is_said_before_anything_is_written(world: Path) -> None:
    file = world / "shards/gate/train/manifest.json"
    manifest = json.loads(file.read_text())
    text = manifest["recipe"]["text"] + '\n[[variants]]\nnombre = "x"\n'
    manifest["recipe"] = {**manifest["recipe"], "text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    file.write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match="gate.*malformed where it says which classes are things"):
        go(world)
    assert not (world / "one").exists()


def test_where_no_sample_can_be_relabelled_nothing_is_left(world: Path) -> None:
    for tar in (world / "shards/depot/train").glob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b"\x89PNG\r\n", b"\x89PGN\r\n"))
    with pytest.raises(ShardError, match="no sample could be relabelled"):
        relabel([world / "shards/depot/train"], world / "taxonomy.csv", world / "new/one")
    assert not (world / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--confidence", "0.9"], "--confidence is for a model. Give --checkpoint too, or leave it out"),
        (["--flip"], "--flip is for a model"),
        (["--device", "cpu"], "--device is for a model"),
        (["--least-cover", "0.3"], "--least-cover is for masks of boxes. Give --instances too"),
    ],
)
def test_options_without_effect_are_refused(
    world: Path, run: Callable[..., Any], words: list[str], message: str
) -> None:
    result = run("relabel", world / "shards", "--taxonomy", world / "taxonomy.csv", "--out", world / "one", *words)
    assert result.exit_code == 2 and message in result.stderr and not (world / "one").exists()


def test_without_a_taxonomy_the_runs_own_is_named(world: Path) -> None:
    with pytest.raises(UsageError, match="Give --taxonomy, or --instances for masks"):
        relabel([world / "shards"], None, world / "one", checkpoint=world / "run")
    (checkpoint,) = (world / "run/checkpoints").iterdir()
    own = checkpoint / "taxonomy.csv"
    own.write_text(TAXONOMY)
    meta = json.loads((checkpoint / "meta.json").read_text())
    meta["sha256"]["taxonomy.csv"] = hashlib.sha256(own.read_bytes()).hexdigest()
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UsageError, match=f"Give --taxonomy {own}, which the run was trained with, or another"):
        relabel([world / "shards"], None, world / "one", checkpoint=world / "run")


def test_another_request_is_not_mixed_in(world: Path) -> None:
    go(world)
    with pytest.raises(ShardError, match="holds other shards already"):
        go(world, confidence=0.9)
    with pytest.raises(ShardError, match="holds other shards already"):
        go(world, name="other")


def test_what_other_datasets_name_and_this_one_does_not_is_around_its_things(world: Path) -> None:
    trained: Any = SimpleNamespace(checkpoint=SimpleNamespace(taxonomy_file=world / "taxonomy.csv"))
    bank = Bank.load(load_checkpoint(world / "run").bank_folder or world)
    yard = ShardSet.open(world / "shards/yard/train").space
    assert module._elsewhere(trained, bank, yard) == [("depot", 0), ("depot", 2), ("gate", 2)]
    trained.checkpoint.taxonomy_file = None
    assert module._elsewhere(trained, bank, yard) == []
