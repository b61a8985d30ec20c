"""MDP: every equation against a slow one in float64; its memory, its mixing, and its runs."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from labelmerge.errors import ConfigError
from labelmerge.evaluate.evaluate import evaluate
from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.methods.mdp import losses as mdp_losses
from labelmerge.methods.mdp.learner import MDPLearner
from labelmerge.methods.mdp.losses import (
    cell_counts,
    image_means,
    neighbours,
    pixel_losses,
    pixels_with_positives,
    prototype_losses,
    prototypes_of,
)
from labelmerge.methods.mdp.mixing import mixed
from labelmerge.methods.mdp.settings import MdpSettings
from labelmerge.methods.method import TrainingData, Vocabulary, find_method
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs
from labelmerge.train.loop import train

from ..train.conftest import STREETS
from ..train.test_train_ranks import two_processes
from ..weights import same, weights
from .test_usss import _RUN, two

__all__ = ["two"]  # a fixture

OWN = MdpSettings(projection_dim=8, projection_features=12, prototype_memory=3, key_momentum=0.9)
CONFIG = TrainConfig(
    method="mdp", method_settings=OWN, steps=4, batch_size=4, crop=32, lr=5e-3, log_every=2, checkpoint_every=2
)

PIXEL = CONFIG.changed(contrast="pixel", mix="none", sparse_weight=0.0)


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Unit embeddings [2, 5, 3, 4] on a grid, masks [2, 12, 16] of 4 classes, and unit prototypes [4, 5]."""
    draw = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(2, 5, 3, 4, generator=draw), dim=1)
    return embeddings, torch.randint(-1, 4, (2, 12, 16), generator=draw), normalize(torch.randn(4, 5, generator=draw))


def test_prototypes_are_means_of_image_means(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    embeddings, masks, _ = drawn
    masks[1][masks[1] == 2] = IGNORE
    masks[0][masks[0] == 3] = IGNORE
    masks[1][masks[1] == 3] = IGNORE
    masks[0, 0, 0] = 1  # a single pixel is an image's word as much as many are
    means, present = image_means(embeddings, cell_counts(masks, 4, 3, 4))
    slow: dict[int, list[np.ndarray]] = {}
    for n in range(2):
        for c in range(4):
            own = [
                embeddings[n, :, y // 4, x // 4].double().numpy()
                for y in range(12) for x in range(16) if masks[n, y, x] == c
            ]  # fmt: skip
            assert present[n, c] == bool(own)
            if own:
                slow.setdefault(c, []).append(np.mean(own, axis=0))
                assert np.allclose(means[n, c].numpy(), slow[c][-1])
    memory, images = means.sum(0)[None], present.sum(0)[None]
    prototypes, known = prototypes_of(memory, images)
    assert known.tolist() == [True, True, True, False]
    for c, of_images in slow.items():
        mean = np.mean(of_images, axis=0)
        assert np.allclose(prototypes[c].numpy(), mean / np.linalg.norm(mean))


def test_losses_equal_slow_ones(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    embeddings, masks, prototypes = drawn
    known, tau, w = torch.tensor([True, True, False, True]), 0.2, 0.3
    mask = masks[0].where(masks[0] != 2, IGNORE)
    counts = cell_counts(mask[None], 4, 3, 4)[0]
    near = neighbours(prototypes, known, 1)
    plain = sparse = 0.0
    for y in range(12):
        for x in range(16):
            if (c := int(mask[y, x])) == IGNORE:
                continue
            z = embeddings[0, :, y // 4, x // 4].double()
            scores = {k: float(z @ prototypes[k].double()) / tau for k in (0, 1, 3)}
            log_p = {k: s - math.log(sum(map(math.exp, scores.values()))) for k, s in scores.items()}
            closest = max((k for k in (0, 1, 3) if k != c), key=lambda k: float(prototypes[k] @ prototypes[c]))
            plain, sparse = plain - log_p[c], sparse - w * log_p[closest]
    both = prototype_losses(embeddings[0], torch.stack([counts, w * (near.T @ counts)]), prototypes, known, tau)
    assert both.tolist() == pytest.approx([plain, sparse], rel=1e-5)
    assert neighbours(prototypes, known, 9).sum(1).tolist() == [2, 2, 0, 2]  # no more than there are, never itself


def test_with_all_classes_known_it_is_cross_entropy_and_classes_may_change_places(
    drawn: tuple[Tensor, Tensor, Tensor],
) -> None:
    embeddings, masks, prototypes = drawn
    known, counts = torch.ones(4, dtype=torch.bool), cell_counts(masks, 4, 3, 4)[1]
    wide = embeddings[1:].repeat_interleave(4, 2).repeat_interleave(4, 3)
    logits = torch.einsum("cd,bdhw->bchw", prototypes, wide) / 0.07
    expected = torch.nn.functional.cross_entropy(logits, masks[1:], ignore_index=IGNORE, reduction="sum")
    ours = prototype_losses(embeddings[1], counts, prototypes, known, 0.07)
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)
    turned = torch.tensor([2, 0, 3, 1])
    again = prototype_losses(embeddings[1], counts[turned], prototypes[turned], known, 0.07)
    assert float(again) == pytest.approx(float(ours), rel=1e-5)


def test_pixel_to_pixel_equals_a_slow_one(
    drawn: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eq. 2, pixel by pixel."""
    embeddings, masks, _ = drawn
    masks[1][masks[1] == 3] = IGNORE  # a class of the first view alone
    tau, sums, with_positives = 0.2, [], 0
    for own, other in ((0, 1), (1, 0)):
        keys = [(y, x) for y in range(12) for x in range(16) if masks[other, y, x] != IGNORE]
        total = 0.0
        for y in range(12):
            for x in range(16):
                z = embeddings[own, :, y // 4, x // 4].double().numpy()
                scores = {
                    (v, u): float(z @ embeddings[other, :, v // 4, u // 4].double().numpy()) / tau for v, u in keys
                }
                whole = math.log(sum(map(math.exp, scores.values())))
                positive = [scores[k] - whole for k in keys if masks[other][k] == masks[own, y, x] != IGNORE]
                total -= sum(positive) / max(len(positive), 1)
                with_positives += bool(positive)
        sums.append(total)
    counts = cell_counts(masks, 4, 3, 4)
    for chunk in (4096, 5):  # all at once, or in chunks
        monkeypatch.setattr(mdp_losses, "_CHUNK", chunk)
        leaf = embeddings.clone().requires_grad_()
        ours = [pixel_losses(leaf[i], embeddings[1 - i], counts[i], counts[1 - i], tau) for i in (0, 1)]
        assert [float(each.detach()) for each in ours] == pytest.approx(sums, rel=1e-5)
        torch.autograd.backward(ours[0])
        assert leaf.grad is not None and leaf.grad[0].any() and not leaf.grad[1].any()
    assert pixels_with_positives(masks[:1], masks[1:], 4).tolist() == [with_positives]
    nothing = pixel_losses(embeddings[0], embeddings[1], counts[0], torch.zeros_like(counts[1]), tau)
    assert float(nothing) == 0


def test_pixel_to_pixel_with_one_positive_is_infonce() -> None:
    """Eq. 1."""
    keys = normalize(torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(0)), dim=0)
    query = normalize(torch.tensor([1.0, 2, 0, 1, -1]), dim=0)[:, None, None]
    own, others = torch.tensor([[1.0], [0]]), torch.tensor([[0.0, 1, 0, 0], [1, 0, 1, 1]])
    scores = (keys[:, 0].T @ query[:, 0, 0] / 0.07).double()
    expected = -math.log(float(scores[1].exp() / scores.exp().sum()))
    assert float(pixel_losses(query, keys, own, others, 0.07)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ConfigError, match="knows no mixing and no sparse coding: set mix = none and sparse_weight = 0"):
        replace(OWN, contrast="pixel")


def begun(two: tuple[Path, Path], config: TrainConfig) -> tuple[MDPLearner, list[Batch]]:
    """A learner at its beginning, and the batches of four steps."""
    inputs = read_inputs([two[0]], two[1], "train", config, find_method("mdp"), Ranks())
    torch.manual_seed(0)
    learner = find_method("mdp").build(config.method_settings, inputs.vocabulary, lambda dim: build_model("tiny", dim))
    assert isinstance(learner, MDPLearner)
    device = torch.device("cpu")
    learner.prepare(TrainingData(inputs.bank, inputs.columns, inputs.mixture.sources, Ranks(), device, 0, 0))
    return learner, [inputs.mixture.batch(step)[0].to(device) for step in range(4)]


def test_the_ring_forgets_the_oldest_batch_and_gradients_reach_queries_alone(two: tuple[Path, Path]) -> None:
    learner, batches = begun(two, CONFIG)
    draws = torch.Generator().manual_seed(0)
    alone = []
    for batch in batches:
        query = learner.mix(batch, draws)
        alone.append(learner.memory[batch.step % 3].clone())
    assert all(part.any() for part in alone)
    assert torch.equal(learner.memory, torch.stack([alone[3], alone[1], alone[2]]))
    assert learner.images.sum() > 0 and learner.memory.shape == (3, 5, 8)
    sums, units = learner(query), learner.units(query)
    assert sums.shape == units.shape == (2, 2) and units[0].sum() <= 2 * 4 * 32 * 32
    torch.autograd.backward(sums.sum())
    assert all(p.grad is not None for p in (*learner.model.parameters(), *learner.projection.parameters()))
    assert all(p.grad is None for p in (*learner.key_model.parameters(), *learner.key_projection.parameters()))
    key, query_weight = (part.get_parameter("0.weight") for part in (learner.key_projection, learner.projection))
    before = key.clone()
    with torch.no_grad():
        query_weight.add_(1.0)
    assert learner.after_step(3)["prototypes"] == 5
    assert torch.allclose(key - before, torch.tensor(0.1), atol=1e-6)


def test_samples_are_mixed_with_those_of_the_other_dataset(two: tuple[Path, Path]) -> None:
    learner, (batch, *_) = begun(two, CONFIG)
    numbers = batch.dataset_ids.tolist()
    settings = replace(OWN, mix="region", mix_share=1.0)
    first, into = mixed(batch, torch.Generator().manual_seed(1), settings, numbers, Ranks())
    assert first.shares is not None and first.shares.tolist() == [1] * 4 and (into.masks == IGNORE).all()
    for row in range(4):
        changed = (first.images[row] != batch.images[row]).any(0)
        assert 0.05 < changed.float().mean() < 0.6
        sources = [j for j in range(4) if numbers[j] != numbers[row]]
        fits = [
            j for j in sources
            if torch.equal(first.images[row][:, changed], batch.images[j][:, changed])
            and torch.equal(first.masks[row][changed], batch.masks[j][changed])
        ]  # fmt: skip
        assert fits and torch.equal(first.masks[row][~changed], batch.masks[row][~changed])
    settings = replace(OWN, mix="pixel", mix_share=1.0)
    first, into = mixed(batch, torch.Generator().manual_seed(1), settings, numbers, Ranks())
    assert first.shares is not None and into.shares is not None
    for row, share in enumerate(first.shares.tolist()):
        assert 0 < share < 1 and float(into.shares[row]) == pytest.approx(1 - share)
        fits = [
            j for j in range(4)
            if numbers[j] != numbers[row]
            and (share * batch.images[row].double() + (1 - share) * batch.images[j].double() - first.images[row])
            .abs().max() < 0.51
            and torch.equal(into.masks[row], batch.masks[j])
        ]  # fmt: skip
        assert len(fits) == 1 and torch.equal(first.masks[row], batch.masks[row])
    nothing, _ = mixed(batch, torch.Generator().manual_seed(1), replace(OWN, mix_share=0.0), numbers, Ranks())
    assert torch.equal(nothing.images, batch.images) and torch.equal(nothing.masks, batch.masks)


def test_the_loss_of_mixed_pixels_is_the_weighted_sum_of_both(two: tuple[Path, Path]) -> None:
    """Eq. 7."""
    config = CONFIG.changed(mix="pixel", mix_share=1.0, sparse_weight=0.0)
    learner, (batch, *_) = begun(two, config)
    query = learner.mix(batch, torch.Generator().manual_seed(0))
    second, into_first, into_second = query.others
    assert query.shares is not None

    def with_masks(a: Batch, b: Batch) -> Tensor:
        plain = [replace(view, shares=None, others=()) for view in (a, b)]
        out: Tensor = learner(replace(plain[0], others=(plain[1],)))
        return out

    for row, share in enumerate(query.shares.tolist()):
        pick = [view.part(row, row + 1) for view in (query, second, into_first, into_second)]
        other = float(second.shares[row]) if second.shares is not None else 0.0
        whole = float(learner(replace(pick[0], others=tuple(pick[1:]))).detach().sum())
        blank = replace(pick[1], masks=torch.full_like(pick[1].masks, IGNORE))
        none = replace(pick[0], masks=blank.masks)
        parts = [
            float(with_masks(*pair).detach().sum())
            for pair in ((pick[0], blank), (pick[2], blank), (none, pick[1]), (none, pick[3]))
        ]
        expected = share * parts[0] + (1 - share) * parts[1] + other * parts[2] + (1 - other) * parts[3]
        assert whole == pytest.approx(expected, rel=1e-4)


def test_labels_of_one_concept_may_share_a_prototype() -> None:
    vocabulary = Vocabulary(4, ("a", "b"), ("road", "sky", "cup"), ((("a", 0), ("b", 1)), (("a", 1),), (("b", 0),)))
    model = build_model("tiny", 12)
    by_label, by_concept = (MDPLearner(replace(OWN, prototypes=how), vocabulary, model) for how in ("label", "concept"))
    assert by_label.class_of_key == {("a", 0): 0, ("a", 1): 1, ("b", 0): 2, ("b", 1): 3}
    assert by_concept.classes == 3 and by_concept.class_of_key[("a", 0)] == by_concept.class_of_key[("b", 1)]


def test_a_killed_run_ends_as_a_whole_one_and_its_encoder_begins_another(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    shards, bank = two
    whole = train([shards], bank, tmp_path / "whole", config=CONFIG, device="cpu")
    words = [str(shards), str(bank), str(tmp_path / "killed"), json.dumps(CONFIG.to_dict())]
    killed = subprocess.run([sys.executable, "-P", "-c", _RUN, *words, "3"], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert same(weights(train([shards], bank, tmp_path / "killed", config=CONFIG, device="cpu")), weights(whole))

    val = replace(STREETS, split="val", count=2).write(tmp_path / "val")
    results = evaluate(whole.run, [val], bank, tmp_path / "results.json", device="cpu")
    assert results.sets[0].images == 2

    tuned = TrainConfig(
        steps=1, batch_size=2, crop=32, lr=0.0, init=str(whole.run), encoder_only=True, epochs=0.1
    ).changed(temperature_lr=0.0)
    other = train([shards], bank, tmp_path / "tuned", config=tuned, device="cpu")
    assert torch.equal(weights(other)["model.net.fuse.0.weight"], weights(whole)["model.net.fuse.0.weight"])


@pytest.mark.parametrize("config", [CONFIG, PIXEL], ids=["prototype", "pixel"])
def test_two_processes_equal_one(config: TrainConfig, two: tuple[Path, Path], tmp_path: Path) -> None:
    shards, bank = two
    config = config.changed(optimizer="sgd", lr=1e-2)
    alone = train([shards], bank, tmp_path / "alone", config=config, device="cpu")
    pieces = train([shards], bank, tmp_path / "pieces", config=replace(config, accumulate=2), device="cpu")
    start = weights(train([shards], bank, tmp_path / "begun", config=config.changed(steps=1, lr=0.0), device="cpu"))
    words = [str(shards), str(bank), str(tmp_path / "two"), json.dumps(config.to_dict()), "-"]
    for process in two_processes(_RUN, *words):
        assert process.returncode == 0, process.stderr
    ours = weights(alone)
    moved = max(float((ours[key] - start[key]).abs().max()) for key in ours if "memory" not in key)
    for theirs in (weights(tmp_path / "two/checkpoints/step-000004"), weights(pieces)):
        assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-4 * moved
