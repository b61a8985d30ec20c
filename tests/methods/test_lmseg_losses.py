"""LMSeg's losses and matching: closed forms, slow references in float64, and what they must not depend on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labelmerge.methods.lmseg.losses import (
    WEIGHT_UNIT,
    Outputs,
    class_units,
    dice_loss,
    focal_loss,
    match,
    matching_costs,
    projection_loss,
    sums_of_images,
)
from labelmerge.methods.lmseg.settings import LmsegSettings
from labelmerge.methods.lmseg.targets import Targets

SETTINGS = LmsegSettings(queries=5, query_dim=8, attention_heads=1)


def test_closed_forms() -> None:
    logits, targets = torch.zeros(1, 64), torch.zeros(1, 64)
    targets[0, :16] = 1
    assert focal_loss(logits, targets, torch.ones(64)).item() == pytest.approx(0.1083042, abs=1e-7)
    assert dice_loss(logits.sigmoid(), targets).item() == pytest.approx(0.6530612, abs=1e-7)


def test_projection_by_hand() -> None:
    logits = torch.full((4, 6), -50.0)
    logits[1:3, 2:5] = 50.0  # rows 1–2, columns 2–4, at stride 4
    right = torch.tensor([8.0, 4.0, 20.0, 12.0])
    assert projection_loss(logits, right, 4).item() == pytest.approx(0, abs=1e-6)
    wide = torch.tensor([0.0, 4.0, 20.0, 12.0])  # 3 of 5 columns: 1 − 7/9
    assert projection_loss(logits, wide, 4).item() == pytest.approx((2 / 9) / 2, abs=1e-6)
    tiny = torch.tensor([9.0, 5.0, 9.5, 5.5])  # between centres: the nearest logit
    assert 0 < projection_loss(logits, tiny, 4).item() < 1


def image_sums(outputs: Outputs, targets: Targets, places: Tensor, settings_: LmsegSettings,
               closed: Tensor | None = None) -> Tensor:  # fmt: skip
    """The sums of one image alone."""
    return sums_of_images([outputs], [targets], [places], settings_, [closed])[0]


def drawn(seed: int, *, queries: int = 5, targets: int = 3, layers: int = 2, words: int = 4) -> tuple[Outputs, Targets]:
    rng = torch.Generator().manual_seed(seed)
    masks = torch.randn(layers, queries, 3, 4, generator=rng, dtype=torch.float64) * 2
    classes = torch.randn(layers, queries, words, generator=rng, dtype=torch.float64)
    number = torch.randint(0, targets + 1, (12, 16), generator=rng)
    number[0, :targets] = torch.arange(1, targets + 1)
    known = torch.rand(12, 16, generator=rng) < 0.8
    known[0] = True
    regions = (number == torch.arange(1, targets + 1)[:, None, None]) & known
    labels = torch.randint(0, words - 1, (targets,), generator=rng)
    return Outputs(classes, masks, 4), Targets(labels, regions, None, known)


def focal(logit: float, target: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if target else -0.75 * p**2 * math.log(1 - p)


def slow_masks(logits: Tensor, target: Tensor, known: Tensor) -> tuple[float, float]:
    """Focal and dice of one mask, pixel by pixel."""
    total, both, x, y, count = 0.0, 0.0, 0.0, 0.0, 0
    for logit, wanted, here in zip(logits.flatten(), target.flatten(), known.flatten(), strict=True):
        if here:
            p = 1 / (1 + math.exp(-logit))
            total, count = total + focal(float(logit), bool(wanted)), count + 1
            both, x, y = both + p * bool(wanted), x + p, y + bool(wanted)
    return total / count, 1 - (2 * both + 1) / (x + y + 1)


def test_masks_are_projected_once_for_all_boxes() -> None:
    torch.manual_seed(0)
    masks = torch.randn(2, 3, 5, 7)
    boxes = torch.tensor([[0.0, 0, 9, 9], [3, 4, 27, 12], [8, 1, 9, 2], [20, 2, 28, 20]])
    each = projection_loss(masks[:, :, None], boxes, 4)
    assert each.shape == (2, 3, 4)
    for t, query, n in itertools.product(range(2), range(3), range(4)):
        assert each[t, query, n] == projection_loss(masks[t, query], boxes[n], 4)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000))
def test_costs_are_those_of_the_slow_way(seed: int) -> None:
    outputs, targets = drawn(seed)
    costs = matching_costs(outputs, targets, targets.labels, SETTINGS)
    known, regions = targets.known[2::4, 2::4], targets.masks[:, 2::4, 2::4]
    for layer, query, n in itertools.product(range(2), range(5), range(3)):
        focal_, dice = slow_masks(outputs.masks[layer, query], regions[n], known)
        p = outputs.classes[layer, query].softmax(0)[targets.labels[n]].item()
        assert costs[layer, query, n].item() == pytest.approx(-p + 20 * focal_ + dice, rel=1e-9)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 5), st.integers(1, 5))
def test_matching_is_the_cheapest_assignment(seed: int, targets: int, queries: int) -> None:
    costs = np.random.default_rng(seed).normal(size=(queries, targets))
    rows, columns = match(costs)
    fewer = min(queries, targets)
    best = min(
        sum(costs[q, t] for q, t in zip(some, which, strict=True))
        for some in itertools.permutations(range(queries), fewer)
        for which in itertools.combinations(range(targets), fewer)
    )
    assert len(rows) == len(set(rows.tolist())) == len(set(columns.tolist())) == fewer
    assert costs[rows, columns].sum() == pytest.approx(best)


def slow_sums(outputs: Outputs, targets: Targets) -> list[float]:
    """Eq. 3 of one image: every layer matched, every query and pixel in turn."""
    sums = [0.0, 0.0, 0.0, 0.0]
    costs = matching_costs(outputs, targets, targets.labels, SETTINGS).numpy()
    nothing = outputs.classes.shape[-1] - 1
    for layer, cost in enumerate(costs):
        target_of = dict(zip(*(each.tolist() for each in match(cost)), strict=True))
        for query in range(outputs.masks.shape[1]):
            logits = outputs.classes[layer, query]
            low = outputs.masks[layer, query]
            if query in target_of:
                wanted, weight = int(targets.labels[target_of[query]]), 1.0
                full = torch.nn.functional.interpolate(low[None, None], (12, 16), mode="bilinear")[0, 0]
                own = slow_masks(full, targets.masks[target_of[query]], targets.known)
                sums[1] += 20 * own[0]
                sums[2] += own[1]
            else:
                inside = low > 0
                lost = inside & ~targets.known[2::4, 2::4]
                wanted, weight = nothing, 0.0 if 2 * lost.sum() > inside.sum() else 0.1
            sums[0] -= WEIGHT_UNIT * weight * math.log(logits.softmax(0)[wanted].item())
    return sums


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 1, 3, 5, 7]))
def test_sums_are_those_of_the_slow_way(seed: int, count: int) -> None:
    outputs, targets = drawn(seed, targets=count)
    got = image_sums(outputs, targets, targets.labels, SETTINGS)
    assert got.tolist() == pytest.approx(slow_sums(outputs, targets), rel=1e-6)
    matched = min(count, 5)
    assert class_units(count, SETTINGS) == WEIGHT_UNIT * matched + WEIGHT_UNIT // 10 * (5 - matched)


def test_images_together_are_images_alone() -> None:
    drawings = [drawn(seed, targets=count) for seed, count in ((1, 3), (2, 0), (3, 7))]
    outputs, targets = [each for each, _ in drawings], [each for _, each in drawings]
    together = sums_of_images(outputs, targets, [each.labels for each in targets], SETTINGS, [None] * 3)
    alone = [image_sums(own, goal, goal.labels, SETTINGS) for own, goal in drawings]
    assert torch.equal(torch.stack(together), torch.stack(alone))


def test_what_is_unknown_changes_nothing() -> None:
    """Logits all of whose pixels are void: neither loss, nor gradient, nor matching."""
    outputs, targets = drawn(3)
    known = torch.zeros(12, 16, dtype=torch.bool)
    known[:, :6] = True  # a bilinear logit at column 3 reaches back to pixel 10 at most
    targets = Targets(targets.labels, targets.masks & known, None, known)
    other = outputs.masks.clone()
    other[..., 3] = torch.randn(2, 5, 3, dtype=torch.float64).abs() * -9
    changed = Outputs(outputs.classes, other.requires_grad_(), 4)
    same = Outputs(outputs.classes, torch.cat([outputs.masks[..., :3], -outputs.masks[..., 3:].abs()], -1), 4)
    got, wanted = (image_sums(each, targets, targets.labels, SETTINGS) for each in (changed, same))
    assert torch.equal(got, wanted)
    got.sum().backward()  # type: ignore[no-untyped-call]
    assert other.grad is not None and not other.grad[..., 3].any() and other.grad[..., :2].any()


def test_a_query_over_the_unknown_may_name_anything() -> None:
    outputs, targets = drawn(5, queries=2, targets=0, layers=1)
    masks = torch.full((1, 2, 3, 4), -5.0, dtype=torch.float64)
    masks[0, 0, :, 2:], masks[0, 1, :, :2] = 5.0, 5.0
    known = torch.ones(12, 16, dtype=torch.bool)
    known[:, 8:] = False
    classes = outputs.classes.clone().requires_grad_()
    targets = Targets(targets.labels, targets.masks, None, known)
    image_sums(Outputs(classes, masks, 4), targets, targets.labels, SETTINGS).sum().backward()  # type: ignore[no-untyped-call]
    assert classes.grad is not None and not classes.grad[0, 0].any() and classes.grad[0, 1].any()


def test_the_order_of_queries_and_words_does_not_matter() -> None:
    outputs, targets = drawn(9)
    order, words = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([2, 0, 1, 3])
    got = image_sums(outputs, targets, targets.labels, SETTINGS)
    queries = Outputs(outputs.classes[:, order], outputs.masks[:, order], 4)
    assert image_sums(queries, targets, targets.labels, SETTINGS).tolist() == pytest.approx(got.tolist())
    renamed = Outputs(outputs.classes[..., words], outputs.masks, 4)
    assert image_sums(renamed, targets, words.argsort()[targets.labels], SETTINGS).tolist() == pytest.approx(
        got.tolist()
    )


def test_boxes_teach_extents() -> None:
    outputs, _ = drawn(2, targets=0)
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 4.0, 16.0, 12.0]], dtype=torch.float64)
    known = torch.ones(12, 16, dtype=torch.bool)
    targets = Targets(torch.tensor([0, 1]), torch.zeros(0, 12, 16, dtype=torch.bool), boxes, known)
    costs = matching_costs(outputs, targets, targets.labels, SETTINGS)
    for layer, query, n in itertools.product(range(2), range(5), range(2)):
        p = outputs.classes[layer, query].softmax(0)[n]
        wanted = -p + projection_loss(outputs.masks[layer, query], boxes[n], 4)
        assert costs[layer, query, n].item() == pytest.approx(wanted.item())
    sums = image_sums(outputs, targets, targets.labels, SETTINGS)
    pairs = [(layer, *pair) for layer in range(2) for pair in zip(*match(costs[layer].numpy()), strict=True)]
    total = sum(projection_loss(outputs.masks[layer, query], boxes[n], 4).item() for layer, query, n in pairs)
    assert len(pairs) == 4 and sums[1] == sums[2] == 0 and sums[3].item() == pytest.approx(total)
