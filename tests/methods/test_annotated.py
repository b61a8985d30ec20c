"""What an image was not annotated for is neither right nor wrong in any method: against slow references."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from labelmerge.labels import IGNORE
from labelmerge.loading.batch import Batch
from labelmerge.methods.lmseg.learner import LmsegLearner
from labelmerge.methods.lmseg.losses import WEIGHT_UNIT, class_losses, match, matching_costs
from labelmerge.methods.mdp.learner import MDPLearner
from labelmerge.methods.mdp.losses import cell_counts, prototype_losses
from labelmerge.methods.mdp.mixing import mixed
from labelmerge.methods.method import Learner, TrainingData, find_method
from labelmerge.methods.usss.learner import USSSLearner
from labelmerge.methods.usss.losses import supervised_sums
from labelmerge.model.build import build_model
from labelmerge.processes import Ranks
from labelmerge.train.config import TrainConfig
from labelmerge.train.inputs import read_inputs

from ..loading.toy_shards import Toy, toy_bank
from ..train.test_annotated import recipe
from .test_lmseg_losses import SETTINGS, drawn, image_sums

# `streets` says it image by image, `yards` of the whole set, though its masks have what it was not annotated for, too.
LISTS = {0: (0, 1), 1: (0, 1, 2), 2: (), 3: (3,), 4: (1, 3), 5: (0, 1, 2, 3)}
STREETS = Toy("streets", ("road", "sky", "car", "tree"), annotated=LISTS)
YARDS = Toy("yards", ("tree", "road", "hut"), changes={"recipe": recipe('annotated = ["tree"]')})
ROOMS = Toy("rooms", ("cup", "car", "wall"))
TOYS = (STREETS, YARDS, ROOMS)


def begun(method: str, tmp_path: Path, **changes: Any) -> tuple[Any, list[Batch], Mapping[str, tuple[str, ...]]]:
    """A learner at its beginning, the batches of two steps, and which names each image was not annotated for."""
    for toy in TOYS:
        toy.write(tmp_path / "shards")
    toy_bank(TOYS).save(tmp_path / "bank")
    config = TrainConfig.from_dict({"method": method, "merge": "text", "batch_size": 9, "crop": 32, **changes})
    found = find_method(method)
    inputs = read_inputs([tmp_path / "shards"], tmp_path / "bank", None, config, found, Ranks())
    torch.manual_seed(0)
    learner: Learner = found.build(config.method_settings, inputs.vocabulary, lambda dim: build_model("tiny", dim))
    device = torch.device("cpu")
    learner.prepare(TrainingData(inputs.bank, inputs.columns, inputs.mixture.sources, Ranks(), device, 0, 0))
    batches = [pickle.loads(pickle.dumps(inputs.mixture.batch(step)[0])).to(device) for step in (0, 1)]
    absent = {}
    for key in {key for batch in batches for key in batch.keys}:
        dataset, _, number = key.split("-")
        names = {toy.name: toy.names for toy in TOYS}[dataset]
        listed = {"streets": LISTS[int(number)], "yards": (0,), "rooms": (0, 1, 2)}[dataset]
        absent[key] = tuple(name for place, name in enumerate(names) if place not in listed)
    assert any(absent.values()) and not all(absent.values())
    return learner, batches, absent


def test_usss_a_class_that_was_not_annotated_competes_at_its_own_pixels_alone(tmp_path: Path) -> None:
    learner, batches, absent = begun("usss", tmp_path, decoder_features=12, cross_weight=0.0, within_weight=0.0)
    assert isinstance(learner, USSSLearner)
    for batch in batches:
        ours = learner(batch)
        features = learner.model(learner.model.normalise(batch.images)).double()
        wanted = torch.zeros(3, dtype=torch.float64)
        for row, key in enumerate(batch.keys):
            space = learner.spaces.index(batch.datasets[row])
            toy = next(each for each in TOYS if each.name == batch.datasets[row])
            logits = learner.decoders[space].double()(features[row : row + 1])
            learner.decoders[space].float()
            wide = interpolate(logits, batch.masks.shape[1:], mode="bilinear", align_corners=False)[0]
            for y, x in torch.nonzero(batch.masks[row] != IGNORE).tolist():
                own = int(learner._class_of[batch.masks[row, y, x]])
                some = [k for k, name in enumerate(toy.names) if k == own or name not in absent[key]]
                wanted[int(batch.dataset_ids[row])] += wide[some, y, x].logsumexp(0) - wide[own, y, x]
        assert torch.allclose(ours.sum(0).double(), wanted, rtol=1e-4)
    torch.autograd.backward(ours.sum())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.decoders.parameters())


def test_usss_without_competitors_there_is_no_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    targets = torch.zeros(1, 8, 8, dtype=torch.long)
    loss = supervised_sums(logits, targets, torch.tensor([[True, True, True]]))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("closed", [[False, True, False, True], [True] * 4, [False, False, True, False]])
def test_mdp_prototypes_of_what_was_not_annotated_are_no_competitors(closed: list[bool]) -> None:
    draw = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(5, 3, 4, generator=draw), dim=0)
    masks = torch.randint(-1, 4, (12, 16), generator=draw)
    masks[masks == 2] = IGNORE
    prototypes, known = normalize(torch.randn(4, 5, generator=draw), dim=1), torch.tensor([True, True, False, True])
    slow = 0.0
    for y in range(12):
        for x in range(16):
            if (own := int(masks[y, x])) == IGNORE:
                continue
            z = embeddings[:, y // 4, x // 4].double()
            scores = {k: float(z @ prototypes[k].double()) / 0.2 for k in (0, 1, 3) if k == own or not closed[k]}
            slow -= scores[own] - math.log(sum(map(math.exp, scores.values())))
    leaf = embeddings.requires_grad_()
    counts = cell_counts(masks[None], 4, 3, 4)[0]
    ours = prototype_losses(leaf, counts, prototypes, known, 0.2, torch.tensor(closed))
    assert float(ours.detach()) == pytest.approx(slow, rel=1e-5, abs=1e-5)
    torch.autograd.backward(ours)
    assert leaf.grad is not None and leaf.grad.isfinite().all()


@pytest.mark.parametrize("prototypes", ["label", "concept"])
def test_mdp_an_image_closes_what_it_was_not_annotated_for_under_any_name(prototypes: str, tmp_path: Path) -> None:
    changes = {"projection_dim": 8, "projection_features": 12, "mix": "none", "prototypes": prototypes}
    learner, (batch, _), absent = begun("mdp", tmp_path, **changes)
    assert isinstance(learner, MDPLearner)
    plain = learner.mix(batch, torch.Generator().manual_seed(0))
    assert plain.closed is not None
    name_of = {(toy.name, index): name for toy in TOYS for index, name in enumerate(toy.names)}
    for row, key in enumerate(batch.keys):
        dataset = batch.datasets[row]
        own = {name for (whose, _), name in name_of.items() if whose == dataset} - set(absent[key])
        expected = {
            learner.class_of_key[label]
            for label, name in name_of.items()
            if name in absent[key] and not (label[0] == dataset and name in own)
        }
        assert set(plain.closed[row].nonzero()[:, 0].tolist()) == expected
    second = plain.others[0]
    found, known = learner.prototypes
    wanted = torch.zeros(1, dtype=torch.float64)
    for view in (plain, second):
        embeddings = normalize(learner.projection(learner.model(learner.model.normalise(view.images))), dim=1).double()
        for row in range(len(batch)):
            for y, x in torch.nonzero(view.masks[row] != IGNORE).tolist():
                own_class = int(view.masks[row, y, x])
                z = embeddings[row, :, y * embeddings.shape[2] // 32, x * embeddings.shape[3] // 32]
                scores = found.double() @ z / learner.settings.prototype_temperature
                some = known & ~plain.closed[row]
                some[own_class] = True
                wanted += scores[some].logsumexp(0) - scores[own_class]
    assert float(learner(plain)[0].detach().sum()) == pytest.approx(float(wanted.detach()), rel=1e-4)


@pytest.mark.parametrize("mix", ["region", "pixel"])
def test_mdp_what_is_mixed_in_keeps_its_own_list(mix: str, tmp_path: Path) -> None:
    changes = {"projection_dim": 8, "projection_features": 12, "mix": mix, "mix_share": 1.0}
    learner, (batch, _), _ = begun("mdp", tmp_path, **changes)
    closed = learner._closed(batch)
    assert closed is not None
    view = replace(batch, masks=learner._targets(batch.masks), others=(), closed=closed)
    numbers = batch.dataset_ids.tolist()
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    one, into = mixed(view, draws[0], learner.settings, numbers, Ranks())
    whole, also = mixed(replace(view, closed=None), draws[1], learner.settings, numbers, Ranks())
    assert torch.equal(one.images, whole.images) and one.closed is not None and torch.equal(one.closed, closed)
    assert into.closed is not None and one.shares is not None and into.shares is not None
    assert torch.equal(torch.where(into.masks != IGNORE, into.masks, one.masks), whole.masks if mix == "region" else
                       torch.where(also.masks != IGNORE, also.masks, whole.masks))  # fmt: skip
    for row in range(len(batch)):
        inside = into.masks[row] != IGNORE
        partners = [
            other for other in range(len(batch))
            if numbers[other] != numbers[row] and torch.equal(view.masks[other][inside], into.masks[row][inside])
        ]  # fmt: skip
        assert any(torch.equal(into.closed[row], closed[other]) for other in partners) or not inside.any()
        if mix == "region":
            assert (one.masks[row][inside] == IGNORE).all() and float(one.shares[row]) == float(into.shares[row]) == 1
    # Where nothing is closed, cut-in masks of their own come to the same loss.
    open_ = mixed(replace(view, closed=torch.zeros_like(closed)), torch.Generator().manual_seed(3),
                  learner.settings, numbers, Ranks())  # fmt: skip
    learner._remember([view])
    pairs = [replace(first, others=(first, more, more)) for first, more in (open_, (whole, also))]
    apart, together = pairs
    assert torch.allclose(learner(apart), learner(together), rtol=1e-4)
    assert torch.equal(learner.units(apart), learner.units(together))


def slow_class(logits: Tensor, wanted: int, closed: list[bool]) -> float:
    e = [math.exp(each) for each in logits.tolist()]
    nothing = len(e) - 1
    may = {k for k, shut in enumerate(closed) if shut}
    if wanted == nothing:
        return -math.log(sum(e[k] for k in {nothing, *may}) / sum(e))
    return -math.log(e[wanted] / sum(each for k, each in enumerate(e) if k == wanted or k not in may))


@pytest.mark.parametrize("closed", [[False, True, False], [True, True, True], [False, False, False]])
def test_lmseg_queries_may_be_what_was_not_annotated(closed: list[bool]) -> None:
    shut = torch.tensor(closed)
    for seed in range(4):
        outputs, targets = drawn(seed)
        costs, plain = (matching_costs(outputs, targets, targets.labels, SETTINGS, each) for each in (shut, None))
        p = outputs.classes.softmax(-1)[..., targets.labels]
        own = class_losses(outputs.classes[:, :, None].expand(-1, -1, 3, -1), targets.labels.expand(2, 5, 3), shut)
        assert torch.allclose(costs - plain, p - (-own).exp())
        wanted = 0.0
        for layer, cost in enumerate(costs.numpy()):
            target_of = dict(zip(*(each.tolist() for each in match(cost)), strict=True))
            for query in range(5):
                logits, inside = outputs.classes[layer, query], outputs.masks[layer, query] > 0
                lost = inside & ~targets.known[2::4, 2::4]
                nothing = (3, 0.0 if 2 * lost.sum() > inside.sum() else 0.1)
                word, weight = (int(targets.labels[target_of[query]]), 1.0) if query in target_of else nothing
                wanted += WEIGHT_UNIT * weight * slow_class(logits, word, closed)
        assert float(image_sums(outputs, targets, targets.labels, SETTINGS, shut)[0]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("classifier", ["text", "heads", "union"])
def test_lmseg_closes_the_words_that_an_image_was_not_annotated_for(classifier: str, tmp_path: Path) -> None:
    changes = {"queries": 4, "query_dim": 16, "attention_heads": 2, "decoder_layers": 1, "classifier": classifier}
    learner, (batch, _), absent = begun("lmseg", tmp_path, **changes)
    assert isinstance(learner, LmsegLearner)
    closed = learner._closed(batch)
    assert closed is not None
    for row, key in enumerate(batch.keys):
        toy = next(each for each in TOYS if each.name == batch.datasets[row])
        names = learner.vocabulary.texts if classifier == "union" else toy.names
        assert [names[k] for k in closed[row].nonzero()[:, 0].tolist()] == [n for n in names if n in absent[key]]
    torch.autograd.backward(learner(batch).sum())
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())
