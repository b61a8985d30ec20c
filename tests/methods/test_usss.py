"""USSS: its losses against slow ones, its centroids, and runs with hidden labels."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from labelmerge.errors import CheckpointError, ConfigError, UsageError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import IGNORE
from labelmerge.methods.method import TrainingData, Vocabulary, find_method
from labelmerge.methods.restore import load_trained
from labelmerge.methods.usss.learner import USSSLearner
from labelmerge.methods.usss.losses import entropy_sums, supervised_sums
from labelmerge.methods.usss.settings import UsssSettings
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, toy_bank, write_split
from ..train.conftest import STREETS
from ..train.test_train_ranks import two_processes
from ..weights import same, weights

ROOMS = Toy("rooms", ("wall", "car"), colours=(3, 2))
FEW = {"streets": 2, "rooms": 3}
CONFIG = TrainConfig(
    method="usss", method_settings=UsssSettings(label_embeddings="random", entropy_dim=8, decoder_features=12),
    steps=4, batch_size=4, crop=32, lr=5e-3, log_every=2, checkpoint_every=2, labelled=FEW,
)  # fmt: skip

MOVING = CONFIG.changed(centroid_decay=0.5, centroid_steps=2)
JOINT = CONFIG.changed(cross_weight=0.0, within_weight=0.0)

_RUN = """
import json, os, signal, sys
from pathlib import Path
import torch
from labelmerge.loading.mixture import Mixture
from labelmerge.train.config import TrainConfig
from labelmerge.train.loop import train

shards, bank, out, config, kill = sys.argv[1:]
if kill != "-":
    batch = Mixture.batch
    Mixture.batch = lambda self, step: os.kill(os.getpid(), signal.SIGKILL) if step == int(kill) else batch(self, step)
torch.set_num_threads(1)
train([Path(shards)], Path(bank), Path(out), config=TrainConfig.from_dict(json.loads(config)), device="cpu")
"""


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Shards and bank of two datasets with masks."""
    for toy in (STREETS, ROOMS):
        toy.write(tmp_path / "shards")
    toy_bank([STREETS, ROOMS]).save(tmp_path / "bank")
    return tmp_path / "shards", tmp_path / "bank"


def upsampled_to(side: int) -> Callable[[Tensor], Tensor]:
    return partial(interpolate, size=(side, side), mode="bilinear", align_corners=False)


def test_losses_equal_slow_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, projected = (torch.randn(2, k, 3, 4, generator=draw) for k in (5, 6))
    targets = torch.randint(-1, 5, (2, 12, 16), generator=draw)
    points = torch.nn.functional.normalize(torch.randn(4, 6, generator=draw), dim=1)
    wide = interpolate(logits.double(), (12, 16), mode="bilinear", align_corners=False)
    upsampled = partial(interpolate, size=(12, 16), mode="bilinear", align_corners=False)
    tall = upsampled(projected.double())  # E(F(x)), upsampled first
    inside = torch.rand(2, 12, 16, generator=draw) < 0.5
    ce = entropy = entropy_inside = 0.0
    certain = torch.zeros(2, len(points), dtype=torch.float64)  # sums of probabilities inside
    for b in range(2):
        for y in range(12):
            for x in range(16):
                if (label := int(targets[b, y, x])) != IGNORE:
                    scores = wide[b, :, y, x].tolist()
                    ce -= scores[label] - math.log(sum(map(math.exp, scores)))
                similar = [float(tall[b, :, y, x] @ point.double()) for point in points]
                whole = sum(map(math.exp, similar))
                h = -sum(math.exp(s) / whole * math.log(math.exp(s) / whole) for s in similar)
                entropy, entropy_inside = entropy + h, entropy_inside + h * bool(inside[b, y, x])
                if inside[b, y, x]:
                    certain[b] += torch.tensor(similar, dtype=torch.float64).softmax(0)
    assert float(supervised_sums(logits, targets)) == pytest.approx(ce, rel=1e-5)
    assert float(entropy_sums(projected, points, upsampled)) == pytest.approx(entropy, rel=1e-5)
    assert float(entropy_sums(projected, points, upsampled, inside=inside)) == pytest.approx(entropy_inside, rel=1e-5)
    balanced = entropy_inside
    for b in range(2):
        pixels = int(inside[b].sum())
        balanced += 0.3 * pixels * sum(p * math.log(p) for p in (certain[b] / pixels).tolist())
    assert float(entropy_sums(projected, points, upsampled, 0.3, inside)) == pytest.approx(balanced, rel=1e-5)


def test_the_entropy_of_no_preference_is_ln_k_and_of_certainty_zero() -> None:
    points = torch.eye(3)
    assert float(entropy_sums(torch.zeros(1, 3, 2, 2), points, upsampled_to(4))) == pytest.approx(16 * math.log(3))
    sure = torch.tensor([200.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert float(entropy_sums(sure, points, upsampled_to(4))) == pytest.approx(0, abs=1e-6)


def test_pixels_at_one_label_are_told_from_pixels_at_many() -> None:
    points, far = torch.eye(4), 100.0
    one = torch.tensor([far, 0, 0, 0]).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    many = (far * torch.eye(4)).view(4, 2, 2)[None].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert float(entropy_sums(one, points, upsampled_to(8), 0.5)) == pytest.approx(0, abs=1e-3)
    assert float(entropy_sums(many, points, upsampled_to(8), 0.5)) == pytest.approx(-0.5 * 64 * math.log(4), rel=1e-3)


def test_without_entropy_it_is_joint_training(two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    run = train([shards], bank, tmp_path / "run", config=JOINT, device="cpu")
    lines = [json.loads(line) for line in (run.run / "log.jsonl").read_text().splitlines()]
    assert set(lines[-1]["parts"]) == {"ce_streets", "ce_rooms"}
    # With images that nobody learns from it is the same run, bit for bit.
    Toy("photos", ("road", "sky", "car"), "image").write(shards)
    again = train([shards], bank, tmp_path / "again", config=JOINT, device="cpu")
    assert same(weights(run), weights(again))
    assert not any("entropy" in key or "embeddings" in key for key in weights(run))

    # And it is what a plain loop with one head for each dataset does.
    method = find_method("usss")
    inputs = read_inputs([shards], bank, "train", JOINT, method, Ranks())
    torch.manual_seed(JOINT.seed)
    model = build_model("tiny", 12)
    heads = [torch.nn.Conv2d(12, count, 1) for count in (2, 3)]  # rooms, streets
    trained = [*model.parameters(), *(p for head in heads for p in head.parameters())]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": JOINT.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=JOINT.lr)
    own = [[row for row, key in enumerate(inputs.columns.labels) if key[0] == name] for name in ("rooms", "streets")]
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = JOINT.lr * (1 - step / 4) ** 0.9
        (batch,) = [each.to(torch.device("cpu")) for each in inputs.mixture.batch(step)]
        features = model(model.normalise(batch.images))
        loss = torch.zeros(())
        for head, name, rows in zip(heads, ("rooms", "streets"), own, strict=True):
            which = [i for i, each in enumerate(batch.datasets) if each == name]
            targets = torch.tensor([rows.index(int(m)) if m >= 0 else -100 for m in batch.masks[which].flatten()])
            logits = interpolate(head(features[which]), (32, 32), mode="bilinear", align_corners=False)
            loss = loss + torch.nn.functional.cross_entropy(logits.permute(0, 2, 3, 1).flatten(0, 2), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    ours = weights(run)
    for key, value in model.state_dict().items():
        assert torch.allclose(value, ours[f"model.{key}"], atol=2e-4), key


def test_hidden_masks_reach_no_loss(two: tuple[Path, Path], tmp_path: Path) -> None:
    """They are replaced by noise, the labelled ones left alone: equal weights."""
    shards, bank = two
    run = train([shards], bank, tmp_path / "run", config=CONFIG, device="cpu")
    inputs = read_inputs([shards], bank, "train", CONFIG, find_method("usss"), Ranks())
    (chosen,) = [s.chosen for s in inputs.mixture.sources if s.dataset == "streets"]
    assert chosen is not None and len(chosen) == 2
    noisy = Toy("streets", STREETS.names, seed=5)
    samples = [STREETS.sample(number) for number in range(6)]
    for number in set(range(6)) - set(chosen):
        samples[number][1]["mask.png"] = noisy.sample(number)[1]["mask.png"]
    assert samples[next(iter(set(range(6)) - set(chosen)))][1] != STREETS.sample(1)[1]
    write_split(shards / "streets/train", STREETS, samples)
    again = train([shards], bank, tmp_path / "again", config=CONFIG, device="cpu")
    assert same(weights(run), weights(again))


def test_entropy_trains_the_encoder_and_no_decoder(two: tuple[Path, Path]) -> None:
    shards, bank = two
    inputs = read_inputs([shards], bank, "train", CONFIG, find_method("usss"), Ranks())
    learner = find_method("usss").build(CONFIG.method_settings, inputs.vocabulary, lambda dim: build_model("tiny", dim))
    assert isinstance(learner, USSSLearner)
    device = torch.device("cpu")
    learner.prepare(TrainingData(inputs.bank, inputs.columns, inputs.mixture.sources, Ranks(), device, 0, 0))
    assert learner.terms == (
        "ce_rooms", "cross_rooms/unlabelled", "within_rooms/unlabelled",
        "ce_streets", "cross_streets/unlabelled", "within_streets/unlabelled",
    )  # fmt: skip
    (batch,) = [each.to(device) for each in inputs.mixture.batch(0)]
    units, sums = learner.units(batch), learner(batch)
    assert units[1].tolist() == [0, 1024, 0, 0] and units[3, 2] == (batch.masks[2] != IGNORE).sum()
    torch.autograd.backward((sums[1] + sums[2] + sums[4] + sums[5]).sum())
    assert not any(p.grad is not None and p.grad.any() for p in learner.decoders.parameters())
    assert learner.entropy is not None and learner.entropy.weight.grad is not None
    assert learner.entropy.weight.grad.any() and learner.model.get_parameter("net.head.weight").grad is not None
    # Cross: the other dataset's labels, of which rooms has 2 and streets 3.
    features = learner.model(learner.model.normalise(batch.images[1:2]))
    other = learner.embeddings[2:, 0]  # streets' labels
    expected = entropy_sums(learner.entropy(features), other, upsampled_to(32))
    assert float(sums[1, 1].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)

    small = read_inputs(
        [shards], bank, "train", CONFIG.changed(scale_min=0.3, scale_max=0.6), find_method("usss"), Ranks()
    )
    (padded,) = [each.to(device) for each in small.mixture.batch(0)]
    top, bottom, left, right = padded.shown[1]
    assert int(learner.units(padded)[1, 1]) == (bottom - top) * (right - left) < 1024
    features = learner.entropy(learner.model(learner.model.normalise(padded.images[1:2])))
    inside = torch.zeros(1, 32, 32, dtype=torch.bool)
    inside[:, top:bottom, left:right] = True
    expected = entropy_sums(features, other, upsampled_to(32), inside=inside)
    assert float(learner(padded)[1, 1].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_killed_run_ends_as_a_whole_one_and_two_processes_equal_one(two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    whole = train([shards], bank, tmp_path / "whole", config=MOVING, device="cpu")
    words = [str(shards), str(bank), str(tmp_path / "killed"), json.dumps(MOVING.to_dict())]
    killed = subprocess.run([sys.executable, "-P", "-c", _RUN, *words, "3"], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert same(weights(train([shards], bank, tmp_path / "killed", config=MOVING, device="cpu")), weights(whole))
    # SGD, whose steps are proportional to gradients: Adam's blow differences of rounding in tiny gradients up.
    sgd = MOVING.changed(optimizer="sgd", lr=1e-2)
    whole = train([shards], bank, tmp_path / "sgd", config=sgd, device="cpu")
    words[2:] = [str(tmp_path / "two"), json.dumps(sgd.to_dict())]
    for process in two_processes(_RUN, *words, "-"):
        assert process.returncode == 0, process.stderr
    ours, theirs = weights(whole), weights(tmp_path / "two/checkpoints/step-000004")
    begun = weights(train([shards], bank, tmp_path / "begun", config=sgd.changed(steps=1, lr=0.0), device="cpu"))
    moved = max(float((ours[key].float() - begun[key].float()).abs().max()) for key in ours)
    assert max(float((ours[key].float() - theirs[key].float()).abs().max()) for key in ours) < 2e-5 * moved


def test_a_decoder_answers_for_its_own_dataset(run: Any, two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    result = train([shards], bank, tmp_path / "run", config=JOINT.changed(steps=60, labelled={}), device="cpu")
    val = replace(STREETS, split="val", count=3).write(tmp_path / "val")
    results = evaluate(result.run, [val], bank, tmp_path / "results.json", device="cpu")
    assert results.sets[0].metrics.pixel_accuracy > 0.6 and results.protocol["decision"] == "largest logit"
    Image.fromarray(np.full((20, 30, 3), 90, dtype=np.uint8)).save(tmp_path / "photo.png")
    predict = ("predict", tmp_path / "photo.png", "--checkpoint", result.run, "--device", "cpu")
    done = run(*predict, "--out", tmp_path / "masks", "--labels", "streets:sky, streets:road")
    assert done.exit_code == 0, done.output
    refused = run(*predict, "--out", tmp_path / "more", "--labels", "streets:sky, rooms:wall")
    assert refused.exit_code and "no one decoder knows all of these labels" in refused.output
    assert "Traceback" not in refused.output and not (tmp_path / "more").exists()


def test_labels_that_never_occurred_are_passed_over(run: Any, tmp_path: Path) -> None:
    rare = Toy("streets", ("road", "sky", "car", "tram"), colours=(0, 1, 2, 3))
    samples = [rare.sample(number) for number in range(12)]
    kept = [each for each in samples if 3 not in np.asarray(Image.open(io.BytesIO(each[1]["mask.png"])))]
    folder = write_split(tmp_path / "shards/streets/train", rare, kept[:4])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["class_pixels"] = {"0": 9, "1": 9, "2": 9}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    toy_bank([rare]).save(tmp_path / "bank")
    config = JOINT.changed(labelled={}, steps=1)
    result = train([tmp_path / "shards"], tmp_path / "bank", tmp_path / "run", config=config, device="cpu")
    val = replace(rare, split="val", count=6).write(tmp_path / "val")
    results = evaluate(result.run, [val], None, tmp_path / "results.json", device="cpu")
    assert results.sets[0].images == 6
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    predict = ("predict", tmp_path / "photo.png", "--checkpoint", result.run, "--device", "cpu")
    refused = run(*predict, "--out", tmp_path / "masks", "--labels", "streets:tram")
    assert refused.exit_code and "none of these labels occurred in training" in refused.output


def test_words_find_the_decoder_that_has_them() -> None:
    vocabulary = Vocabulary(4, ("a", "b"), ("road", "sky", "cup"), ((("a", 0), ("b", 1)), (("a", 1),), (("b", 0),)))
    learner = USSSLearner(UsssSettings(decoder_features=3), vocabulary, build_model("tiny", 3))
    assert [decoder.out_channels for decoder in learner.decoders] == [2, 2]
    from labelmerge.methods.predictor import LabelList
    from labelmerge.model.views import Views

    def asked(*texts: str) -> Any:
        return LabelList(texts, texts, (None,) * len(texts), np.eye(len(texts), 4, dtype=np.float32))

    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    predictor = learner.eval().predictor(asked("cup", "road"), Views(short_edge=0))
    ((rows, scores),) = predictor.scores(image)
    with torch.inference_mode():
        features = learner.model(learner.model.normalise(torch.from_numpy(image).permute(2, 0, 1)[None]))
        logits = interpolate(learner.decoders[1](features), (16, 16), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(scores, logits, atol=1e-4)
    several = learner.predictor(asked("cup", "road"), Views(short_edge=0, window=8, window_stride=0.5, flip=True))
    for _, probabilities in several.probabilities(image):
        assert torch.allclose(probabilities.sum(0), torch.ones(16), atol=1e-5)
    with pytest.raises(UsageError, match="no one decoder"):
        learner.predictor(asked("cup", "sky"), Views())


def test_a_trained_checkpoint_comes_back(two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    run = train([shards], bank, tmp_path / "run", config=CONFIG.changed(steps=1), device="cpu")
    assert same(load_trained(run.run).learner.state_dict(), weights(run))


def test_centroids_that_cannot_be_had_leave_nothing_behind(two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    config = CONFIG.changed(label_embeddings="centroids", supervised=[str(tmp_path / "nowhere")])
    with pytest.raises(CheckpointError, match="nowhere: no such run or checkpoint"):
        train([shards], bank, tmp_path / "run", config=config, device="cpu")
    assert not (tmp_path / "run").exists()


def test_settings_that_count_for_nothing_are_told(two: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    usss, vague = find_method("usss"), CONFIG.changed(supervised=["run"])
    inputs = read_inputs([two[0]], two[1], "train", vague, usss, Ranks())
    usss.check(vague.method_settings, inputs.mixture.sources, inputs.bank)
    assert caplog.messages.pop() == "supervised is for centroids, and label_embeddings = random has none"


def test_unlabelled_images_without_a_loss_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Of one dataset there are no other labels."""
    config = CONFIG.changed(within_weight=0.0, labelled={"streets": 2})
    with pytest.raises(ConfigError, match="no unlabelled image would teach anything"):
        train([two[0] / "streets"], two[1], tmp_path / "run", config=config, device="cpu")
    assert not (tmp_path / "run").exists()
