"""`evaluate` and `labelmerge eval` on shards whose truth is made from the model's own predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labelmerge.bank.bank import Bank
from labelmerge.compare.records import read_results
from labelmerge.errors import (
    BankError,
    CheckpointError,
    LabelmergeError,
    OutputError,
    SampleError,
    ShardError,
    UsageError,
)
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.evaluate.sets import choose_splits
from labelmerge.files import sha256_file
from labelmerge.labels import LabelSpace
from labelmerge.methods.inference import CosinePredictor, segment
from labelmerge.methods.restore import load_trained
from labelmerge.model.checkpoint import load_checkpoint
from labelmerge.model.views import Views

STREETS = LabelSpace("streets", (0, 3, 7), ("road", "car", "sky"))
ROOMS = LabelSpace.of("rooms", ["wall", "floor", "counter"])
SIZES = [(24, 33), (40, 17), (16, 16)]


def labels_of(*spaces: LabelSpace) -> list[tuple[str, int, str, str]]:
    return [
        (space.name, i, name, f"About {name}.")
        for space in spaces
        for i, name in zip(space.indices, space.names, strict=True)
    ]


def images(seed: int) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [
        np.kron(rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3)), np.ones((8, 8, 1))).astype(np.uint8)[:h, :w]
        for h, w in SIZES
    ]


@pytest.fixture
def world(tmp_path: Path, tools: Any) -> Path:
    """bank, run, and shards of two sets. In `streets` a strip of each truth is another class, and one is unlabelled."""
    bank = tools.bank(labels_of(STREETS, ROOMS))
    bank.save(tmp_path / "bank")
    tools.run(tmp_path / "run", bank)
    model = load_trained(tmp_path / "run").learner.model
    for number, space in enumerate((STREETS, ROOMS)):
        samples = []
        for image in images(number):
            seen = segment(model, image, bank.rows(space.keys), tau=1)
            mask = np.array(space.indices, np.uint8)[seen]
            if space is STREETS:
                mask[:3] = np.array(space.indices, np.uint8)[(seen[:3] + 1) % 3]
                mask[-4:] = 255
            samples.append((tools.png(image), tools.png(mask)))
        tools.split(tmp_path / "shards" / space.name / "val", space, samples)
    return tmp_path


def test_results_are_those_of_a_loop(world: Path) -> None:
    results = evaluate(world / "run", [world / "shards"], world / "bank", world / "results.json")
    rooms, streets = results.sets
    assert (rooms.name, streets.name) == ("rooms-val", "streets-val")
    assert rooms.metrics.miou == rooms.metrics.pixel_accuracy == 1.0
    # What is not the strip is right, and the strip all wrong.
    strip = sum(3 * width for _, width in SIZES)
    labelled = sum((height - 4) * width for height, width in SIZES)
    assert streets.metrics.pixel_accuracy == pytest.approx(1 - strip / labelled)
    assert streets.confusion.sum() == labelled
    bank = Bank.load(world / "bank")
    model = load_trained(world / "run").learner.model
    seen = [segment(model, image, bank.rows(STREETS.keys), tau=1) for image in images(0)]
    truth = np.concatenate([np.vstack([(s[:3] + 1) % 3, s[3:-4]]).ravel() for s in seen])
    found = np.concatenate([s[:-4].ravel() for s in seen])
    ious = [((truth == k) & (found == k)).sum() / ((truth == k) | (found == k)).sum() for k in range(3)]
    np.testing.assert_allclose(streets.metrics.iou, ious)
    assert results.harmonic_mean == pytest.approx(2 / (1 + 1 / np.mean(ious)))


def test_the_file_says_everything(world: Path) -> None:
    results = evaluate(
        world / "run", [world / "shards"], world / "bank", world / "r.json", views=Views(20, (0.5, 1), flip=True)
    )
    data = json.loads((world / "r.json").read_text())
    assert data == results.to_json()
    assert data["format"] == "labelmerge-results/1"
    protocol = data["protocol"]
    assert (protocol["short_edge"], protocol["scales"], protocol["flip"]) == (20, [0.5, 1], True)
    bank = Bank.load(world / "bank")
    assert protocol["bank"]["version"] == bank.version
    assert protocol["checkpoint"] == {
        "hash": load_checkpoint(world / "run").hash,
        "step": 7,
        "model": "tiny",
        "merge": None,
    }
    rooms, streets = data["sets"]
    assert [(row["name"], row["index"]) for row in streets["classes"]] == [("road", 0), ("car", 3), ("sky", 7)]
    assert streets["classes"][1]["text"] == "car: An image of car. About car."
    assert streets["images"] == 3 and streets["skipped"] == 0
    with np.load(world / "r.confusion.npz") as matrices:
        np.testing.assert_array_equal(matrices["streets-val"], results.sets[1].confusion)
    # The views are really used.
    model = load_trained(world / "run").learner.model
    vectors, views = bank.rows(ROOMS.keys), Views(20, (0.5, 1), True)
    seen = [segment(model, image, vectors, tau=0.1, views=views) for image in images(1)]
    np.testing.assert_array_equal(
        results.sets[0].metrics.predicted_pixels, np.bincount(np.concatenate([s.ravel() for s in seen]), minlength=3)
    )


def test_short_edge_is_by_default_the_runs(world: Path, tools: Any) -> None:
    tools.run(world / "other", None, config={"short_edge": 24})
    shown = evaluate(world / "other", [world / "shards/rooms"], world / "bank", world / "r.json").protocol
    assert shown["short_edge"] == 24
    own = evaluate(
        world / "other", [world / "shards/rooms"], world / "bank", world / "r.json", views=Views(short_edge=0)
    ).protocol
    assert own["short_edge"] == 0


def test_corrupt_samples_are_counted(world: Path, tools: Any) -> None:
    image, mask = images(1)[0], np.zeros(SIZES[0], np.uint8)
    broken = [
        (b"no png", tools.png(mask)),
        (tools.png(image), tools.png(mask[1:])),
        (tools.png(image), tools.png(mask + 9)),
    ]
    folder = tools.split(world / "more/rooms/val", ROOMS, [*broken, (tools.png(image), tools.png(mask))])
    (result,) = evaluate(world / "run", [folder], world / "bank", world / "r.json").sets
    assert result.images == 1 and len(result.skipped) == 3
    assert "mask values [9] are not classes of rooms" in result.skipped[2][1]
    with pytest.raises(ShardError, match="none of 3 images has a labelled pixel"):
        evaluate(
            world / "run", [tools.split(world / "bad/rooms/val", ROOMS, broken)], world / "bank", world / "bad.json"
        )
    assert not (world / "bad.json").exists()


def test_an_image_too_large_for_memory_is_one_sample(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CosinePredictor.classes

    def too_large(self: CosinePredictor, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        if image.shape[0] == SIZES[1][0]:
            raise SampleError("does not fit into the memory of cpu")
        return plain(self, image)

    monkeypatch.setattr(CosinePredictor, "classes", too_large)
    (result,) = evaluate(world / "run", [world / "shards/rooms"], world / "bank", world / "r.json").sets
    assert result.images == 2
    assert result.skipped == [("rooms-val-000000001", "does not fit into the memory of cpu")]


def test_what_is_ignored_and_confused_is_stated(world: Path) -> None:
    results = evaluate(world / "run", [world / "shards/streets"], world / "bank", world / "r.json")
    (entry,) = results.to_json()["sets"]
    ignored, pixels = sum(4 * width for _, width in SIZES), sum(height * width for height, width in SIZES)
    assert entry["ignored_pixels"] == ignored and entry["ignored_share"] == pytest.approx(ignored / pixels)
    assert entry["labelled_pixels"] == pixels - ignored
    absent = [row["name"] for row in entry["classes"] if row["truth_pixels"] == 0]
    assert entry["classes_without_truth"] == absent
    worst = entry["confused"][0]
    matrix = results.sets[0].confusion.copy()
    np.fill_diagonal(matrix, 0)
    assert worst["pixels"] == matrix.max() and f"{worst['truth']}" in results.table()
    from PIL import Image

    with Image.open(results.picture_path(results.sets[0])) as picture:
        assert min(picture.size) > 200


def test_without_a_bank_the_checkpoints_own_is_used(world: Path, tools: Any) -> None:
    given = evaluate(world / "run", [world / "shards"], world / "bank", world / "given.json")
    own = evaluate(world / "run", [world / "shards"], None, world / "own.json")
    assert own.to_json()["sets"] == given.to_json()["sets"]
    tools.run(world / "other", tools.bank([("rooms", 0, "wall", "")]))
    with pytest.raises(BankError, match=r"no vector for .* `labelmerge embed rooms --out BANK` adds them"):
        evaluate(world / "other", [world / "shards"], None, world / "r.json")
    tools.run(world / "bare", None)
    with pytest.raises(CheckpointError, match="carries no bank. Give --bank"):
        evaluate(world / "bare", [world / "shards"], None, world / "r.json")


def test_the_report_reads_what_was_written(world: Path) -> None:
    results = evaluate(world / "run", [world / "shards"], None, world / "r.json", views=Views(window=12))
    measured = read_results(world / "r.json")
    assert {name: entry.figures["miou"] for name, entry in measured.sets.items()} == {
        result.name: result.metrics.miou for result in results.sets
    }
    assert measured.protocol["window"] == 12 and measured.checkpoint["step"] == 7
    assert measured.sets["streets-val"].data == results.sets[1].data.source["manifest_sha256"]


def test_results_that_find_no_place_leave_nothing(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        raise OutputError("no space left on the device", where=path)

    with pytest.raises(OutputError, match="file is where a folder must go"):
        evaluate(world / "run", [world / "shards"], None, world / "shards/streets/val/manifest.json/r.json")
    monkeypatch.setattr("labelmerge.evaluate.record.write_json", full)
    before = sorted(world.rglob("*"))
    with pytest.raises(OutputError, match="no space left"):
        evaluate(world / "run", [world / "shards"], None, world / "new/r.json")
    assert sorted(world.rglob("*")) == before
    (world / "r.confusion.npz").write_bytes(b"an earlier one's")
    with pytest.raises(OutputError, match="no space left"):
        evaluate(world / "run", [world / "shards"], None, world / "r.json")
    assert sorted(world.rglob("*")) == sorted([*before, world / "r.confusion.npz"])


def test_what_was_trained_on_is_said(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    (meta,) = (world / "run").rglob("meta.json")
    content = json.loads(meta.read_text())
    own = sha256_file(world / "shards/streets/val/manifest.json")
    for seen, said in (
        (own, "this split"),
        ("0" * 64, "other shards of this name: make sure that the images are others, too"),
    ):
        caplog.clear()
        meta.write_text(json.dumps({**content, "manifests": {"streets/val": seen, "rooms/train": "1" * 64}}))
        evaluate(world / "run", [world / "shards"], None, world / "r.json")
        assert [record.getMessage() for record in caplog.records if "trained on" in record.getMessage()] == [
            f"streets val: the model was trained on {said}"
        ]


def test_limit_spreads_over_the_set(world: Path) -> None:
    result = evaluate(world / "run", [world / "shards"], world / "bank", world / "r.json", limit=2)
    assert [measured.images for measured in result.sets] == [2, 2]


def test_classes_with_one_text_are_said_to_be_one(world: Path, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    twins = LabelSpace.of("twins", ["pavement", "road", "pavement"])
    rows = [("twins", i, name, "") for i, name in enumerate(twins.names)]
    tools.bank(rows).save(world / "twin-bank")
    samples = [(tools.png(images(0)[0]), tools.png(np.full(SIZES[0], 2, np.uint8)))]
    folder = tools.split(world / "more/twins/val", twins, samples)
    (result,) = evaluate(world / "run", [folder], world / "twin-bank", world / "r.json").sets
    assert "can't be told apart" in caplog.text
    assert [row.get("predicted_as") for row in result.to_json()["classes"]] == [None, None, 0]
    assert result.metrics.predicted_pixels[2] == 0


def test_split_preference(world: Path, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = world / "shards"
    for split in ("train", "test"):
        tools.split(shards / "rooms" / split, ROOMS, [(b"", b"")])
    assert choose_splits([shards], None) == [shards / "rooms/val", shards / "streets/val"]
    rooms = shards / "rooms"
    assert choose_splits([rooms], "train") == choose_splits([rooms / "train"], None) == [rooms / "train"]
    assert [len(choose_splits([rooms, rooms / name], None)) for name in ("val", "train")] == [1, 2]
    monkeypatch.chdir(shards)
    both = [Path("rooms/train"), Path("rooms/val")]  # relative, as a user gives them
    assert choose_splits(both, None) == both
    (shards / "rooms/val/manifest.json").unlink()
    (shards / "rooms/val/rooms-val-000000.tar").unlink()
    assert choose_splits([shards / "rooms"], None) == [shards / "rooms/test"]


def other_encoder(world: Path, tools: Any) -> None:
    tools.bank(labels_of(STREETS, ROOMS), weights="f" * 64).save(world / "bank")


def other_dimension(world: Path, tools: Any) -> None:
    tools.run(world / "run", None)
    (world / "bank/bank.json").unlink()
    tools.bank(labels_of(STREETS, ROOMS), dim=5).save(world / "bank")


def lacking_label(world: Path, tools: Any) -> None:
    tools.bank(labels_of(STREETS, ROOMS)[:-1]).save(world / "bank")


def another_name(world: Path, tools: Any) -> None:
    *others, (dataset, index, _, text) = labels_of(STREETS, ROOMS)
    tools.bank([*others, (dataset, index, "desk", text)]).save(world / "bank")


def boxes_only(world: Path, tools: Any) -> None:
    tools.split(world / "shards/boxes/val", LabelSpace.of("boxes", ["a"]), [(b"", None)], annotation_type="box")


def no_labels(world: Path, tools: Any) -> None:
    tools.split(world / "shards/blank/test", LabelSpace.of("blank", ["a"]), [(b"", b"")], labelled=False)


def the_same_twice(world: Path, tools: Any) -> None:
    tools.split(world / "shards/again/rooms/val", ROOMS, [(b"", b"")])
    (world / "shards/again/rooms").rename(world / "shards/sub")
    manifest = world / "shards/sub/val/manifest.json"
    assert json.loads(manifest.read_text())["dataset"] == "rooms"


def empty_shards(world: Path, tools: Any) -> None:
    import shutil

    shutil.rmtree(world / "shards")
    (world / "shards").mkdir()


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (other_encoder, BankError, r"made by offline \(weights ffff.* trained with offline \(weights 0000"),
        (other_dimension, BankError, r"have 5 dimensions, the checkpoint's pixel embeddings 8"),
        (lacking_label, BankError, "no vector for 1 label: rooms 2"),
        (another_name, BankError, "1 class of rooms differently: 2 is 'counter' in the data, 'desk' in the bank"),
        (the_same_twice, ShardError, "rooms val is given twice"),
        (empty_shards, ShardError, "no shards here"),
    ],
)
def test_faults(
    world: Path,
    tools: Any,
    spoil: Callable[[Path, Any], None],
    error: type[LabelmergeError],
    message: str,
) -> None:
    spoil(world, tools)
    with pytest.raises(error, match=message):
        evaluate(world / "run", [world / "shards"], world / "bank", world / "r.json")
    assert not (world / "r.json").exists()


@pytest.mark.parametrize(
    ("spoil", "folder", "message"),
    [
        (boxes_only, "boxes", "boxes val has boxes but no masks"),
        (no_labels, "blank", "no pixel of blank test is labelled"),
    ],
)
def test_sets_without_masks_are_left_out(
    world: Path,
    tools: Any,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path, Any], None],
    folder: str,
    message: str,
) -> None:
    whole = evaluate(world / "run", [world / "shards"], world / "bank", world / "whole.json")
    spoil(world, tools)
    with caplog.at_level("INFO", logger="labelmerge"):
        others = evaluate(world / "run", [world / "shards"], world / "bank", world / "others.json")
    assert f"left out: {message}" in caplog.text
    assert [result.name for result in others.sets] == [result.name for result in whole.sets]
    with pytest.raises(ShardError, match=message):
        evaluate(world / "run", [world / "shards" / folder], world / "bank", world / "r.json")
    assert not (world / "r.json").exists()


def test_faults_of_options(world: Path) -> None:
    args = (world / "run", [world / "shards"], world / "bank")
    with pytest.raises(UsageError, match="limit of 0"):
        evaluate(*args, world / "r.json", limit=0)
    with pytest.raises(UsageError, match="scales"):
        evaluate(*args, world / "r.json", views=Views(scales=(0,)))
    with pytest.raises(OutputError, match="a folder is where a file must go"):
        evaluate(*args, world / "shards")
    for path in world.glob("shards/*/*/manifest.json"):
        with pytest.raises(OutputError, match="manifest.json: is there already, and holds no results"):
            evaluate(*args, path)


def test_another_prompt_is_said(world: Path, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    tools.bank(labels_of(STREETS, ROOMS), prompt="{name}").save(world / "words")
    evaluate(world / "run", [world / "shards/rooms"], world / "words", world / "r.json")
    assert "the bank's texts are made as '{name}'" in caplog.text


def test_command(world: Path, run: Callable[..., Any]) -> None:
    args = ("--checkpoint", world / "run", "--bank", world / "bank", "--device", "cpu")
    sets = (world / "shards/rooms", world / "shards/streets")
    result = run("eval", "--shards", *sets, *args, "--out", world / "r.json", "--per-class", "--scales", "0.5,1")
    assert result.exit_code == 0, result.output
    assert "rooms-val" in result.stdout and "harmonic mean" in result.stdout and "counter" in result.stdout
    assert result.stdout.splitlines()[-2].startswith("Wrote ")
    result = run("eval", "--shards", *sets, *args, "--out", world / "r.json", "--json")
    data = json.loads(result.stdout)
    assert data == json.loads((world / "r.json").read_text())
    assert not math.isnan(data["harmonic_mean"])
    result = run("eval", "--shards", world / "none", *args, "--out", world / "no.json")
    assert result.exit_code == 1 and result.stderr.startswith("Error: ") and "no such folder" in result.stderr
    result = run("eval", "--shards", *sets, *args, "--out", world / "no.json", "--scales", "big")
    assert result.exit_code == 2 and "list of numbers" in result.stderr
