"""The method depth: what it learns, its second input, and that resuming and sharing change nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from labelmerge.errors import ConfigError
from labelmerge.labels import IGNORE
from labelmerge.methods.depth.labels import LabelInput
from labelmerge.methods.depth.learner import DepthLearner
from labelmerge.methods.depth.method import METHOD
from labelmerge.methods.depth.settings import DepthSettings
from labelmerge.methods.method import Vocabulary
from labelmerge.methods.predictor import LabelList
from labelmerge.model.build import build_model
from labelmerge.model.ema import copy_of
from labelmerge.model.views import Views
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, toy_bank
from ..train.test_loop import kill_in_step_five
from ..train.test_train_ranks import two_processes

STREETS = Toy("streets", ("road", "sky", "car"), depth=True)
PARTS = Toy("parts", ("tree", "road"), "noisy_mask", count=5, colours=(3, 0), depth=True)
PICTURES = Toy("pictures", ("tree", "road"), "image", count=5, depth=True)
SHALLOW = Toy("shallow", ("road", "sky", "car"))
DIM = 6


def config(**settings: Any) -> TrainConfig:
    common: dict[str, Any] = {"batch_size": 4, "crop": 32, "scale_min": 0.9, "scale_max": 1.2, "log_every": 2}
    return TrainConfig.from_dict({"method": "depth", "steps": 6, "checkpoint_every": 3, **common, **settings})


@pytest.fixture
def world(tmp_path: Path) -> Path:
    for toy in (STREETS, PARTS):
        toy.write(tmp_path / "shards")
    toy_bank([STREETS, PARTS, PICTURES, SHALLOW]).save(tmp_path / "bank")
    return tmp_path


def weights(run: Path, step: int = 6) -> dict[str, Tensor]:
    return safetensors.torch.load_file(run / f"checkpoints/step-{step:06d}/model.safetensors")


def learner(labels: str = "masks", model: str = "tiny", **settings: Any) -> DepthLearner:
    torch.manual_seed(0)
    made = DepthSettings(depth_labels=labels, depth_features=16, **settings)
    return DepthLearner(made, Vocabulary(DIM, ("streets",), (), ()), build_model(model, 16)).eval()


def list_of(vectors: Tensor) -> LabelList:
    names = tuple(f"label {number}" for number in range(len(vectors)))
    return LabelList(names, names, (None,) * len(names), vectors.numpy())


@pytest.mark.parametrize("labels", ["none", "masks"])
def test_it_learns_what_is_near(labels: str, world: Path) -> None:
    run = train(
        [world / "shards/streets"], world / "bank", world / "run", device="cpu",
        config=config(steps=60, lr=3e-3, batch_size=6, checkpoint_every=60, depth_labels=labels, log_every=10),
    )  # fmt: skip
    log = [json.loads(line) for line in (run.run / "log.jsonl").read_text().splitlines()]
    assert set(log[0]["parts"]) == {"depth", "gradient"}
    assert log[-1]["parts"]["depth"] < 0.6 * log[0]["parts"]["depth"]


@pytest.mark.parametrize("labels", ["none", "masks"])
def test_a_killed_run_goes_on_to_the_same_bits(labels: str, world: Path) -> None:
    settings = config(depth_labels=labels, ema=0.9, optimizer="adamw", ranking_weight=1.0, normal_weight=1.0)
    whole = train([world / "shards"], world / "bank", world / "whole", config=settings, device="cpu")
    kill_in_step_five(world / "shards", world / "bank", world / "killed", settings)
    resumed = train([world / "shards"], world / "bank", world / "killed", config=settings, device="cpu")
    one, other = weights(whole.run), weights(resumed.run)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert ("labels.projection.weight" in one) == (labels == "masks")


_TRAIN = """
import json, sys
from pathlib import Path
import torch
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

torch.set_num_threads(1)
shards, bank, out, config = sys.argv[1:]
train([Path(shards)], Path(bank), Path(out), config=TrainConfig.from_dict(json.loads(config)), device="cpu")
"""


@pytest.mark.parametrize("labels", ["masks"])
def test_two_processes_and_pieces_are_one(labels: str, world: Path) -> None:
    settings = config(depth_labels=labels, steps=3, optimizer="sgd", lr=1e-2, ranking_weight=1.0, normal_weight=1.0)
    one = train([world / "shards"], world / "bank", world / "one", config=settings, device="cpu")
    pieces = dataclasses.replace(settings, accumulate=2)
    parts = train([world / "shards"], world / "bank", world / "parts", config=pieces, device="cpu")
    for process in two_processes(
        _TRAIN, world / "shards", world / "bank", world / "two", json.dumps(settings.to_dict())
    ):
        assert process.returncode == 0, process.stderr
    whole = weights(one.run, 3)
    for other in (weights(parts.run, 3), weights(world / "two", 3)):
        for key, value in whole.items():
            assert torch.allclose(value, other[key], atol=1e-5), key


def test_images_without_labels_teach_depth_and_sets_without_depths_are_left_out(
    world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PICTURES.write(world / "unlabelled")
    SHALLOW.write(world / "unlabelled")
    with caplog.at_level("INFO"):
        run = train([world / "unlabelled"], world / "bank", world / "run", config=config(steps=2), device="cpu")
    assert "shallow is left out: its shards have no depths (depth.png)" in caplog.text
    assert set(json.loads((run.run / "log.jsonl").read_text().splitlines()[-1])["datasets"]) == {"pictures"}


@pytest.mark.parametrize(
    ("toys", "settings", "message"),
    [
        ([SHALLOW], {}, "nothing to train on: shallow is left out: its shards have no depths"),
        ([PICTURES], {"depth_labels": "masks"}, "no loss for image samples in depth_labels = 'masks'"),
        (
            [dataclasses.replace(STREETS, changes={"depth": {"unit": "mm", "known_pixels": 0}})],
            {},
            "no pixel has a known",
        ),
        (
            [dataclasses.replace(STREETS, changes={"class_pixels": {}})],
            {"depth_labels": "masks"},
            "no pixel has a label",
        ),
        ([STREETS], {"depth_trim": 1.0}, "depth_trim must be below 1"),
        ([STREETS], {"depth_alignment": "affine"}, "depth_alignment"),
    ],
)
def test_what_can_not_be_learned_is_one_line(
    toys: list[Toy], settings: dict[str, Any], message: str, world: Path
) -> None:
    for toy in toys:
        toy.write(world / "other")
    with pytest.raises(ConfigError, match=message):
        train([world / "other"], world / "bank", world / "run", config=config(**settings), device="cpu")
    assert not (world / "run").exists()


def test_settings_that_count_for_nothing_are_told(caplog: pytest.LogCaptureFixture) -> None:
    METHOD.check(DepthSettings(gradient_weight=0, gradient_scales=2, field_of_view=90), [], toy_bank([STREETS]))
    METHOD.check(DepthSettings(gradient_scales=2, field_of_view=90, normal_weight=1), [], toy_bank([STREETS]))
    assert caplog.messages == [
        "gradient_scales = 2 has no effect: gradient_weight is 0",
        "field_of_view = 90 has no effect: normal_weight is 0",
    ]


@pytest.mark.parametrize("model", ["tiny", "timm:resnet10t"])
def test_labels_are_added_as_a_convolution_of_their_vectors_would(model: str) -> None:
    """The paper's 1 × 1 convolution of [H, W, C] embeddings, and here a table of projected vectors."""
    one = learner(model=model)
    assert one.labels is not None
    nn.init.normal_(one.labels.projection.weight)
    images, vectors = torch.rand(2, 3, 33, 42), torch.randn(4, DIM)
    maps = torch.randint(-1, 4, (2, 33, 42))
    one.labels.show(maps, vectors)
    with torch.no_grad():
        found = one.depths(images)

        literal = torch.cat([torch.zeros(1, DIM), vectors])[maps + 1].permute(0, 3, 1, 2)  # [B, C, H, W]
        first = next(part for part in one.model.net.modules() if isinstance(part, nn.Conv2d))
        first._forward_hooks.clear()

        def add(conv: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            height, width = inputs[0].shape[2:]
            padded = nn.functional.pad(literal, (0, width - 42, 0, height - 33))
            assert one.labels is not None
            small = nn.functional.interpolate(padded, out.shape[2:], mode="nearest-exact")
            return out + nn.functional.conv2d(small, one.labels.projection.weight[:, :, None, None])

        first.register_forward_hook(add)
        assert torch.allclose(found, one.depths(images), atol=1e-5)


def test_a_network_that_sees_labels_begins_as_the_one_that_does_not() -> None:
    with_labels, without = learner("masks"), learner("none")
    with_labels.load_state_dict({**without.state_dict(), "labels.projection.weight": torch.zeros(24, DIM)})
    fresh = learner("masks")
    assert fresh.labels is not None
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in without.state_dict().items())
    fresh.labels.show(torch.randint(-1, 3, (1, 32, 32)), torch.randn(3, DIM))
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(fresh.depths(images), without.depths(images))


def test_the_order_of_labels_means_nothing_and_their_vectors_everything() -> None:
    one = learner()
    assert one.labels is not None
    nn.init.normal_(one.labels.projection.weight)
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    classes = np.random.default_rng(1).integers(-1, 5, (30, 41))
    vectors, order = torch.randn(5, DIM), torch.tensor([3, 0, 4, 1, 2])
    place = np.array([*order.argsort().tolist(), IGNORE])
    views = Views(short_edge=0)
    depth = one.predictor(list_of(vectors), views).depth(image, classes)
    shuffled = one.predictor(list_of(vectors[order]), views).depth(image, place[classes])
    np.testing.assert_allclose(depth, shuffled, atol=1e-6)
    assert (
        depth.shape == (30, 41)
        and np.abs(depth - one.predictor(list_of(vectors[order]), views).depth(image, classes)).max() > 1e-3
    )


def test_a_copy_has_its_own_labels() -> None:
    """As an average of the weights has, and a second run in one process."""
    one = learner()
    assert one.labels is not None
    other = copy_of(one)
    assert other.labels is not None and other.labels is not one.labels
    nn.init.normal_(other.labels.projection.weight)
    images, shown = torch.rand(1, 3, 32, 32), (torch.zeros(1, 32, 32, dtype=torch.long), torch.ones(1, DIM))
    for each in (one, other):
        assert each.labels is not None
        each.labels.show(*shown)
    assert not torch.allclose(one.depths(images), other.depths(images))
    assert torch.equal(one.depths(images), learner("none").depths(images))


def test_several_views_are_brought_together() -> None:
    one = learner("none")
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    labels = list_of(torch.zeros(1, DIM))
    mirrored = [one.predictor(labels, Views(short_edge=0, flip=True)).depth(each) for each in (image, image[:, ::-1])]
    np.testing.assert_allclose(mirrored[0], mirrored[1][:, ::-1], atol=1e-5)
    assert abs(float(mirrored[0].mean())) < 1e-3


def test_networks_without_a_first_convolution_are_refused() -> None:
    model = build_model("tiny", 8)
    model.net = nn.Sequential(nn.Conv2d(8, 8, 1))
    with pytest.raises(ConfigError, match="has no first convolution that labels could be added to"):
        LabelInput(DIM, model)
