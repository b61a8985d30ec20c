"""`labelmerge eval` of runs that give depths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelmerge.bank.bank import Bank
from labelmerge.errors import BankError, ShardError, UsageError
from labelmerge.evaluate.depths import DepthLimits
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.methods.depth.learner import DepthLearner
from labelmerge.methods.depth.settings import DepthSettings
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.predictor import LabelList
from labelmerge.methods.restore import load_trained
from labelmerge.model.build import build_model
from labelmerge.model.checkpoint import save_checkpoint
from labelmerge.model.views import Views
from labelmerge.shardset.shardset import ShardSet
from labelmerge.tasks.depth import Depth

from ..loading.toy_shards import Toy, toy_bank
from ..train.test_train_ranks import two_processes

STREETS = Toy("streets", ("road", "sky", "car"), depth=True, corrupt=(2,))
PICTURES = Toy("pictures", ("tree", "road"), "image", count=3, depth=True)
SHALLOW = Toy("shallow", ("road", "sky", "car"))
OTHERS = Toy("others", ("cup", "cat"), depth=True, count=2)
DIM = 16
OWN = Views(short_edge=0)


def depth_run(folder: Path, bank: Bank, labels: str) -> Path:
    """A run with one checkpoint of an untrained model that sees labels, or doesn't."""
    torch.manual_seed(0)
    settings = DepthSettings(depth_labels=labels, depth_features=16)
    keys = tuple((("streets", place),) for place in range(3))
    vocabulary = Vocabulary(DIM, ("streets",), ("road", "sky", "car"), keys)
    learner = DepthLearner(settings, vocabulary, build_model("tiny", 16))
    if learner.labels is not None:
        torch.nn.init.normal_(learner.labels.projection.weight)
    save_checkpoint(
        folder,
        step=7,
        tensors=learner.state_dict(),
        model={"name": "tiny", "embedding_dim": 16},
        state={},
        config={"method": "depth", **vars(settings)},
        meta={"bank_version": bank.version, "encoder": bank.encoder, "manifests": {}, **vocabulary.to_meta()},
        bank_folder_writer=bank.save_copy,
        taxonomy=None,
        keep=2,
    )
    return folder


@pytest.fixture
def world(tmp_path: Path) -> Path:
    for toy in (STREETS, PICTURES, SHALLOW, OTHERS):
        toy.write(tmp_path / toy.name)
    bank = toy_bank([STREETS, PICTURES, SHALLOW], DIM)
    for labels in ("none", "masks"):
        depth_run(tmp_path / labels, bank, labels)
    return tmp_path


def test_every_set_with_depths_is_measured_and_nothing_else(world: Path, run: Callable[..., Any]) -> None:
    out = world / "results.json"
    shards = [world / toy.name for toy in (STREETS, PICTURES, SHALLOW)]
    words = ["--short-edge", 0, "--device", "cpu", "--task", "depth"]
    done = run("eval", "--checkpoint", world / "none", "--shards", *shards, "--out", out, *words)
    assert done.exit_code == 0, done.output
    assert "AbsRel %" in done.output and "mIoU" not in done.output
    found = json.loads(out.read_text())
    assert [(each["dataset"], each["images"], each["skipped"]) for each in found["sets"]] == [
        ("pictures", 3, 0),
        ("streets", 5, 1),
    ]
    assert found["harmonic_mean"] is None and "confusion" not in found and found["sets"][1]["miou"] is None
    assert "alignment" in found["protocol"] and found["protocol"]["labels_as_input"] is False
    assert sorted(path.name for path in world.glob("results*")) == ["results.json"]

    trained = load_trained(world / "none")
    data, task = ShardSet.open(world / "streets/streets/train"), Depth(STREETS.space)
    zeros = LabelList(("a",), ("a",), (None,), np.zeros((1, DIM), np.float32))
    predictor = trained.predictor(zeros, OWN)
    samples = [data.read(number, depth=True) for number in (0, 1, 3, 4, 5)]
    wanted = task.figures(task.total([task.count(each, predictor.depth(each.image)) for each in samples]))
    assert found["sets"][1]["depth"] == wanted.to_json()


def test_labels_are_the_masks_of_the_set(world: Path) -> None:
    found = evaluate(world / "masks", [world / "streets"], None, world / "r.json", views=OWN, device="cpu")
    trained = load_trained(world / "masks")
    labels = LabelList.of(STREETS.space, Bank.load(world / "masks/checkpoints/step-000007/bank"))
    data, task, predictor = (
        ShardSet.open(world / "streets/streets/train"),
        Depth(STREETS.space),
        trained.predictor(labels, OWN),
    )
    samples = [data.read(number, depth=True) for number in (0, 1, 3, 4, 5)]
    counts = [task.count(each, predictor.depth(each.image, task.labels_of(each))) for each in samples]
    assert found.sets[0].depth == task.figures(task.total(counts))
    image, blank = samples[0].image, np.full(STREETS.size, -1)
    assert np.abs(predictor.depth(image, blank) - predictor.depth(image, task.labels_of(samples[0]))).max() > 1e-3


@pytest.mark.parametrize(
    ("checkpoint", "shards", "tasks", "kind", "message"),
    [
        ("none", "shallow", (), ShardError, "shallow train has no depths"),
        ("none", "streets", ("panoptic",), UsageError, "gives depths, and no labels. Leave out --task panoptic"),
        ("masks", "pictures", (), ShardError, "pictures-train has no masks, and the run takes labels"),
        ("masks", "others", (), BankError, "others"),
    ],
)
def test_what_can_not_be_measured_is_one_line(
    checkpoint: str, shards: str, tasks: tuple[Any, ...], kind: type[Exception], message: str, world: Path
) -> None:
    with pytest.raises(kind, match=message):
        evaluate(world / checkpoint, [world / shards], None, world / "r.json", tasks=tasks, views=OWN, device="cpu")
    assert not (world / "r.json").exists()


def test_limits_are_no_views() -> None:
    """Both are keys of one protocol, and `compare` looks there for what was measured before."""
    assert not Views().to_json().keys() & DepthLimits("nyu-eigen", 2).to_json().keys()


def test_crop_and_cap_are_those_of_the_command(world: Path, run: Callable[..., Any]) -> None:
    out = world / "results.json"
    words = ["--short-edge", 0, "--device", "cpu", "--depth-crop", "nyu-eigen", "--depth-max", "2"]
    done = run("eval", "--checkpoint", world / "none", "--shards", world / "streets", "--out", out, *words)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert [found["protocol"][key] for key in ("crop", "depth_crop", "depth_max")] == ["whole image", "nyu-eigen", 2]
    assert "--depth-crop nyu-eigen --depth-max 2" in found["reproduce"]
    height, width = STREETS.size
    rows, columns = (slice(int(low * side / whole), int(high * side / whole))
                     for low, high, side, whole in ((45, 471, height, 480), (41, 601, width, 640)))  # fmt: skip
    data = ShardSet.open(world / "streets/streets/train")
    depths = [data.read(number, depth=True).depth for number in (0, 1, 3, 4, 5)]
    inside = [depth[rows, columns] for depth in depths if depth is not None]
    assert found["sets"][0]["depth"]["pixels"] == sum(int(((depth > 0) & (depth <= 2000)).sum()) for depth in inside)
    assert any((depth > 2000).any() for depth in inside)


def test_limits_that_have_no_meaning_are_refused(world: Path, tools: Any) -> None:
    manifest = world / "streets/streets/train/manifest.json"
    content = json.loads(manifest.read_text())
    content["depth"]["unit"] = "relative"
    manifest.write_text(json.dumps(content))
    labels = tools.run(world / "labels", tools.bank([("streets", 0, "road", "")]))
    for checkpoint, limits, message in (
        (world / "none", {"depth_max": 10.0}, "depths of streets-train are right up to a factor"),
        (world / "none", {"depth_max": -1.0}, "--depth-max -1 is not a distance"),
        (labels, {"depth_crop": "nyu-eigen"}, "Leave out --depth-crop and --depth-max"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(checkpoint, [world / "streets"], None, world / "r.json", views=OWN, device="cpu", **limits)
    assert not (world / "r.json").exists()


def test_runs_of_labels_have_no_depths_and_runs_of_depths_no_labels(
    world: Path, tools: Any, run: Callable[..., Any]
) -> None:
    labels = tools.run(world / "labels", tools.bank([("streets", 0, "road", "")]))
    with pytest.raises(UsageError, match="gives labels, and no depths"):
        evaluate(labels, [world / "streets"], None, world / "r.json", tasks=["depth"], device="cpu")
    with pytest.raises(UsageError, match="Leave out --mixed"):
        evaluate(world / "none", [world / "streets"], None, world / "r.json", mixed=True, device="cpu")
    with pytest.raises(UsageError, match="depths of windows don't fit together"):
        evaluate(world / "none", [world / "streets"], None, world / "r.json", views=Views(window=16), device="cpu")


_EVAL = """
import sys
from pathlib import Path
from labelmerge.evaluate.depths import DepthLimits
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.model.views import Views
evaluate(Path(sys.argv[1]), [Path(sys.argv[2])], None, Path(sys.argv[3]), views=Views(short_edge=0), device="cpu")
"""


def test_two_processes_measure_the_same_bits(world: Path) -> None:
    one = evaluate(world / "masks", [world / "streets"], None, world / "one.json", views=OWN, device="cpu")
    for process in two_processes(_EVAL, world / "masks", world / "streets", world / "two.json"):
        assert process.returncode == 0, process.stderr
    assert json.loads((world / "two.json").read_text())["sets"] == one.to_json()["sets"]
