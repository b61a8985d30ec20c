"""What unlabelled images teach SSIW, against slow references; its runs, hidden masks, processes."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from labelmerge.errors import ConfigError
from labelmerge.labels import IGNORE
from labelmerge.loading.mixture import Mixture
from labelmerge.methods.method import TrainingData, find_method
from labelmerge.methods.mixing import partners, rectangle
from labelmerge.methods.ssiw import unlabelled
from labelmerge.methods.ssiw.unlabelled import Choices, consistency_sums, entropy_loss, with_strong_views
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs
from labelmerge.train.loop import train

from ..loading.toy_shards import Toy, toy_bank, write_split
from ..train.conftest import STREETS
from ..train.test_train_ranks import two_processes
from ..weights import same, weights
from .test_usss import _RUN, FEW, ROOMS, two

__all__ = ["two"]  # a fixture

PLAIN = TrainConfig(steps=4, batch_size=8, crop=32, lr=5e-3, log_every=2, checkpoint_every=2, labelled=FEW)
ENTROPY, CONSISTENCY = (
    PLAIN.changed(unlabelled=how, confidence=0.3, unlabelled_warmup=2) for how in ("entropy", "consistency")
)


def test_the_losses_equal_slow_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    embeddings, tau = torch.randn(5, 2, 3, generator=draw), torch.tensor(0.2)
    vectors = normalize(torch.randn(4, 5, generator=draw), dim=1)
    own = torch.tensor([True, True, False, False])
    others = torch.tensor([[False, True, True, True], [False, False, True, True]])

    def h(v: torch.Tensor, columns: torch.Tensor) -> float:
        cosines = [float(v.double() @ u.double() / v.double().norm()) / 0.2 for u in vectors[columns]]
        whole = sum(map(math.exp, cosines))
        return -sum(math.exp(c) / whole * (c - math.log(whole)) for c in cosines)

    pixels = [embeddings[:, y, x] for y in range(2) for x in range(3)]
    expected = sum(h(v, own) + (h(v, others[0]) + h(v, others[1])) / 2 for v in pixels) / 6
    assert float(entropy_loss(embeddings, vectors, own, others, tau)) == pytest.approx(expected, rel=1e-5)
    alone = sum(h(v, own) for v in pixels) / 6
    assert float(entropy_loss(embeddings, vectors, own, others[:0], tau)) == pytest.approx(alone, rel=1e-5)

    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[:3, 1:6] = True  # of the six cells, 2 × 2 pixels each: 2, 4, 4 in the upper row, 1, 2, 2 in the lower one
    weighted = sum(w * h(v, own) for w, v in zip((2, 4, 4, 1, 2, 2), pixels, strict=True)) / 15
    some = entropy_loss(embeddings, vectors, own, others[:0], tau, inside)
    assert float(some) == pytest.approx(weighted, rel=1e-5)

    found = torch.tensor([[[0, 1, IGNORE], [1, 1, 0]]])
    slow = 0.0
    for v, column in zip(pixels, found.flatten().tolist(), strict=True):
        if column != IGNORE:
            cosines = [float(v.double() @ u.double() / v.double().norm()) / 0.2 for u in vectors[:2]]
            slow += math.log(sum(map(math.exp, cosines))) - cosines[column]
    got = consistency_sums(embeddings[None], vectors, found, own[None], tau)
    assert got.shape == (1,) and float(got) == pytest.approx(slow, rel=1e-5)


def test_partners_are_whom_the_draws_prefer_and_rectangles_have_their_size() -> None:
    draws = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4], [0.9, 0.1, 0.8]])
    may = torch.tensor([[False, False, True], [True, False, True], [False, False, False]])
    assert partners(draws, [0, 1, 2], [0, 1, 2], may) == [2, 2, -1]
    assert partners(draws, [1], [2, 0], may[1:2, [2, 0]]) == [0]  # by place, whatever the order of rows
    for u in torch.rand(50, 4, generator=torch.Generator().manual_seed(1)).tolist():
        down, across = rectangle(u, 40, 60, 0.1, 0.4)
        area = (down.stop - down.start) * (across.stop - across.start) / 2400
        assert 0.08 < area < 0.44 and 0 <= down.start and down.stop <= 40 and across.stop <= 60


def test_strong_views_are_labelled_by_the_weak_ones(two: tuple[Path, Path]) -> None:
    unpadded = CONSISTENCY.changed(scale_min=1.5)
    inputs = read_inputs([two[0]], two[1], "train", unpadded, find_method("ssiw"), Ranks())
    (batch,) = [each.to(torch.device("cpu")) for each in inputs.mixture.batch(0)]
    vectors, own = torch.from_numpy(inputs.columns.vectors), torch.from_numpy(inputs.columns.allowed)
    choices = Choices.of(inputs.mixture.sources, own)
    assert choices.names == ("rooms", "rooms/unlabelled", "streets", "streets/unlabelled")
    assert torch.equal(choices.own[0], choices.own[1]) and [len(each) for each in choices.others] == [1] * 4
    torch.manual_seed(0)
    teacher, tau = build_model("tiny", vectors.shape[1]).eval(), torch.tensor(0.07)
    before = batch.images.clone()
    mixed, sure = with_strong_views(
        batch, torch.Generator().manual_seed(3), teacher, vectors, choices, tau, 0.0, Ranks()
    )
    assert torch.equal(batch.images, before) and sure == 1
    changed = 0
    for i, kind in enumerate(batch.annotation_types):
        if kind != "image":
            assert torch.equal(mixed.images[i], before[i]) and torch.equal(mixed.masks[i], batch.masks[i])
            continue
        assert not torch.equal(mixed.images[i], before[i])
        weak = normalize(teacher(teacher.normalise(before[i : i + 1])), dim=1)[0]
        scores = torch.einsum("nc,chw->nhw", vectors, weak).masked_fill(
            ~choices.own[batch.dataset_ids[i]][:, None, None], -9
        )
        labels = scores.argmax(0).repeat_interleave(4, 0).repeat_interleave(4, 1)
        apart = mixed.masks[i] != labels
        partner = next(j for j in range(8) if j != i and batch.datasets[j] == batch.datasets[i])
        elsewhere = normalize(teacher(teacher.normalise(before[partner : partner + 1])), dim=1)[0]
        scores = torch.einsum("nc,chw->nhw", vectors, elsewhere)
        scores = scores.masked_fill(~choices.own[batch.dataset_ids[i]][:, None, None], -9)
        theirs = scores.argmax(0).repeat_interleave(4, 0).repeat_interleave(4, 1)
        assert torch.equal(mixed.masks[i][apart], theirs[apart])  # what was cut in was found there
        changed += bool(apart.any())
    assert changed
    nothing, share = with_strong_views(
        batch, torch.Generator().manual_seed(3), teacher, vectors, choices, torch.tensor(10.0), 0.99, Ranks()
    )
    assert share == 0 and (nothing.masks[1] == IGNORE).all()


@pytest.mark.parametrize("merge", ["naive", "concepts"])
def test_images_may_be_what_their_own_dataset_knows(merge: str, two: tuple[Path, Path], tmp_path: Path) -> None:
    """Also where another dataset has labels of the same names, which are other columns or the same ones."""
    shards, _ = two
    town = Toy("town", STREETS.names, seed=3)
    town.write(shards)
    Toy("photos", STREETS.names, "image").write(shards)
    toy_bank([STREETS, ROOMS, town]).save(tmp_path / "three")
    config = ENTROPY.changed(merge=merge, negatives="all", labelled={"streets": 2, "town": 2})
    inputs = read_inputs([shards], tmp_path / "three", "train", config, find_method("ssiw"), Ranks())
    allowed = torch.from_numpy(inputs.columns.allowed)
    choices = Choices.of(inputs.mixture.sources, allowed)
    assert choices.names == ("photos", "rooms", "streets", "streets/unlabelled", "town", "town/unlabelled")
    rooms, streets, of_town = allowed[[1, 2, 4]]
    assert torch.equal(streets, of_town) == (merge == "concepts")
    assert torch.equal(choices.own[1:], torch.stack([rooms, streets, streets, of_town, of_town]))
    assert torch.equal(choices.own[0], streets)  # the first with these names
    lists = [rooms, streets] if merge == "concepts" else [rooms, streets, of_town]
    for own, others in zip(choices.own, choices.others, strict=True):
        assert [each.tolist() for each in others] == [each.tolist() for each in lists if not torch.equal(each, own)]


def test_nothing_is_found_in_padding(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlabelled, "_CUT", 0.0)
    small = CONSISTENCY.changed(scale_min=0.3, scale_max=0.6, confidence=0.0)
    inputs = read_inputs([two[0]], two[1], "train", small, find_method("ssiw"), Ranks())
    learner = find_method("ssiw").build(small.method_settings, inputs.vocabulary, lambda dim: build_model("tiny", dim))
    device = torch.device("cpu")
    learner.prepare(TrainingData(inputs.bank, inputs.columns, inputs.mixture.sources, Ranks(), device, 0, 0))
    (batch,) = [each.to(device) for each in inputs.mixture.batch(0)]
    mixed = learner.mix(batch, torch.Generator())
    pixels = [0] * 4
    for i, kind in enumerate(batch.annotation_types):
        if kind == "image":
            top, bottom, left, right = batch.shown[i]
            inside = torch.zeros(32, 32, dtype=torch.bool)
            inside[top:bottom, left:right] = True
            assert torch.equal(mixed.masks[i] != IGNORE, inside) and not inside.all()
            pixels[int(batch.dataset_ids[i])] += int(inside.sum())
    assert learner.after_step(0)["sure"] == 1
    assert learner.units(mixed)[-1].tolist() == pixels


@pytest.mark.parametrize("config", [ENTROPY, CONSISTENCY], ids=["entropy", "consistency"])
def test_hidden_masks_teach_nothing_and_a_killed_run_goes_on(
    config: TrainConfig, two: tuple[Path, Path], tmp_path: Path
) -> None:
    shards, bank = two
    whole = train([shards], bank, tmp_path / "whole", config=config, device="cpu")
    lines = [json.loads(line) for line in (whole.run / "log.jsonl").read_text().splitlines()]
    how = config.method_settings.unlabelled
    assert lines[-1]["parts"][how] > 0 and lines[-1]["parts"]["hd"] > 0
    words = [str(shards), str(bank), str(tmp_path / "killed"), json.dumps(config.to_dict())]
    killed = subprocess.run([sys.executable, "-P", "-c", _RUN, *words, "3"], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    resumed = train([shards], bank, tmp_path / "killed", config=config, device="cpu")
    assert same(weights(resumed), weights(whole))
    assert any(key.startswith("average.") for key in weights(whole)) == (how == "consistency")

    inputs = read_inputs([shards], bank, "train", config, find_method("ssiw"), Ranks())
    chosen = {source.dataset: source.chosen for source in inputs.mixture.sources if source.chosen is not None}
    for toy in (STREETS, ROOMS):
        samples, noise = [toy.sample(number) for number in range(6)], replace(toy, seed=7)
        for number in set(range(6)) - set(chosen[toy.name]):
            samples[number][1]["mask.png"] = noise.sample(number)[1]["mask.png"]
        write_split(shards / toy.name / "train", toy, samples)
    again = train([shards], bank, tmp_path / "noise", config=config, device="cpu")
    assert same(weights(again), weights(whole))


def test_two_processes_equal_one(two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    config = CONSISTENCY.changed(optimizer="sgd", lr=1e-2, confidence=0.0)
    alone = train([shards], bank, tmp_path / "alone", config=config, device="cpu")
    begun = weights(train([shards], bank, tmp_path / "begun", config=config.changed(steps=1, lr=0.0), device="cpu"))
    words = [str(shards), str(bank), str(tmp_path / "two"), json.dumps(config.to_dict()), "-"]
    for process in two_processes(_RUN, *words):
        assert process.returncode == 0, process.stderr
    ours, theirs = weights(alone), weights(tmp_path / "two/checkpoints/step-000004")
    moved = max(float((ours[key] - begun[key]).abs().max()) for key in ours)
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 2e-5 * moved


def test_without_images_it_is_refused_and_without_the_option_nothing_changes(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    shards, bank = two
    with pytest.raises(ConfigError, match="there are no unlabelled images, which unlabelled = 'entropy'"):
        train([shards], bank, tmp_path / "none", config=ENTROPY.changed(labelled={}), device="cpu")
    plain = train([shards], bank, tmp_path / "plain", config=PLAIN, device="cpu")
    photos = Toy("photos", ("road", "sky", "car"), "image").write(shards)
    again = train([shards, photos], bank, tmp_path / "again", config=PLAIN, device="cpu")
    assert same(weights(plain), weights(again))
    inputs = read_inputs([shards], bank, "train", ENTROPY, find_method("ssiw"), Ranks())
    assert isinstance(inputs.mixture, Mixture)
    assert Choices.of(inputs.mixture.sources, torch.from_numpy(inputs.columns.allowed)).names[0] == "photos"
