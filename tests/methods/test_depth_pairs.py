"""The losses of pairs of pixels against loops in float64, and which pairs are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelmerge.methods.depth.losses import normalised
from labelmerge.methods.depth.pairs import (
    Pairs,
    across,
    angle_error,
    anywhere,
    edges,
    normal_errors,
    normals,
    order_error,
    ranking_errors,
)

Array = np.ndarray[Any, Any]
HEIGHT, WIDTH = 24, 20


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(seed: int, images: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions, depths of which some are unknown, and images with edges."""
    rng = np.random.default_rng(seed)
    depths = np.full((images, HEIGHT, WIDTH), 500) + 40 * np.arange(WIDTH)
    depths[:, :, WIDTH // 2 :] = 900 + 25 * np.arange(HEIGHT)[:, None]
    depths[:, :3, :4] = 0
    pictures = rng.integers(0, 30, (images, 3, HEIGHT, WIDTH))
    pictures[:, :, HEIGHT // 2 :, 3:] += 200
    predicted = depths / 300 + rng.standard_normal(depths.shape) * 0.05
    return torch.from_numpy(predicted), torch.from_numpy(depths), torch.from_numpy(pictures)


def slow_order(fitted: Array, depths: Array, pairs: Pairs) -> float:
    total = 0.0
    for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        difference, ratio = fitted.flat[a] - fitted.flat[b], depths.flat[a] / depths.flat[b]
        if 1 / 1.03 < ratio < 1.03:
            total += difference**2
        else:
            total += math.log(1 + math.exp(-difference if ratio > 1 else difference))
    return total / max(1, len(pairs.first))


def slow_normal(depths: Array, y: int, x: int, focal: float) -> Array:
    def point(row: int, column: int) -> Array:
        z = depths[row, column]
        return np.array([(column - (WIDTH - 1) / 2) * z / focal, (row - (HEIGHT - 1) / 2) * z / focal, z])

    normal = np.cross(point(y, x + 2) - point(y, x - 2), point(y + 2, x) - point(y - 2, x))
    return np.asarray(normal / np.linalg.norm(normal))


@given(st.integers(0, 10**6))
def test_order_is_that_of_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depths = rng.integers(100, 130, (HEIGHT, WIDTH))
    fitted = rng.standard_normal(depths.shape)
    pairs = anywhere(torch.ones(depths.size, dtype=torch.bool), 60, generator(seed))
    found = order_error(torch.from_numpy(fitted).flatten(), torch.from_numpy(depths).flatten(), pairs)
    assert float(found) == pytest.approx(slow_order(fitted, depths, pairs), rel=1e-9)


@given(st.integers(0, 10**6))
def test_normals_and_their_angles_are_those_of_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (rng.uniform(1, 3, (HEIGHT, WIDTH)) for _ in range(2))
    maps = [normals(torch.from_numpy(each)[None], 17.0)[0] for each in (one, other)]
    places = [
        (int(y), int(x)) for y, x in zip(rng.integers(2, HEIGHT - 2, 30), rng.integers(2, WIDTH - 2, 30), strict=True)
    ]
    for found, depths in zip(maps, (one, other), strict=True):
        for y, x in places:
            assert found[:, y, x].numpy() == pytest.approx(slow_normal(depths, y, x, 17.0), abs=1e-9)
        assert not found[:, :2].any() and not found[:, :, -2:].any()
    flat = torch.tensor([y * WIDTH + x for y, x in places])
    pairs, chosen = Pairs(flat[:15], flat[15:]), torch.arange(15) % 3 > 0
    wanted = []
    for k in range(15):
        cosines = [
            slow_normal(each, *places[k], 17.0) @ slow_normal(each, *places[k + 15], 17.0) for each in (one, other)
        ]
        wanted.append(abs(cosines[0] - cosines[1]))
    found = angle_error(maps[0].flatten(1), maps[1].flatten(1), pairs, chosen)
    assert float(found) == pytest.approx(np.mean([w for w, c in zip(wanted, chosen.tolist(), strict=True) if c]))


@pytest.mark.parametrize("turned", [False, True])
def test_pairs_lie_across_an_edge(turned: bool) -> None:
    image = torch.zeros(3, 60, 60)
    image[:, :, 30:] = 1
    pairs = across(*edges(image.transpose(1, 2) if turned else image), (2, 30), generator())
    a, b = ((each % 60, each // 60) if turned is False else (each // 60, each % 60) for each in pairs)
    assert torch.equal(a[1], b[1]), "on a line across the edge"
    third = len(a[0]) // 3
    assert third > 100
    sides = ((a[0] < 30).long() - (b[0] < 30).long()).reshape(3, -1)  # near edges, points lie on their own side
    assert not sides[0].any() and sides[1].all() and not sides[2].any()
    assert int((a[0] - 29.5).abs().max()) <= 5, "30 pixels of 448 are 4 of 60"


def test_an_edge_that_slants_is_crossed_at_a_right_angle() -> None:
    """Rows go down, as the angle does: LeReS's code has the rows the wrong way round."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    strength, angle = edges(torch.sigmoid((x + 2 * y - 120) / 4)[None])
    inside = (strength > 0.1 * strength.max()) & (y > 30) & (y < 50)
    assert torch.rad2deg(angle[inside]).mean() == pytest.approx(math.degrees(math.atan2(2, 1)), abs=1)
    pairs = across(strength, angle, (100, 150), generator())
    first, second = (each.double() for each in pairs)
    dy = (second / 80).floor() - (first / 80).floor()
    dx = second - first - 80 * dy
    assert (dx.square() + dy.square()).sqrt().mean() > 8
    assert ((2 * dx - dy) / math.sqrt(5)).abs().mean() < 2, "they lie along (1, 2)"


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_pairs_anywhere_are_of_known_pixels_and_none_twice(seed: int, count: int) -> None:
    known = torch.from_numpy(np.random.default_rng(seed).random(50) < 0.6)
    pairs = anywhere(known, count, generator(seed))
    every = torch.cat(pairs)
    assert known[every].all() and len(torch.unique(every)) == len(every)
    assert len(pairs.first) == min(count, int(known.sum()) // 2)


def test_the_order_of_the_truth_costs_less_than_the_reverse() -> None:
    _, depths, images = scene(0)
    targets = normalised(depths, torch.float64)
    right, wrong = (ranking_errors(sign * targets.values, targets, depths, images) for sign in (1, -1))
    assert (right < 0.5).all() and (wrong > right + 0.5).all()
    assert (ranking_errors(0 * targets.values, targets, depths, images) < math.log(2) + 1e-9).all()


def test_a_surface_that_is_right_up_to_scale_and_shift_has_the_right_angles() -> None:
    predicted, depths, images = scene(1)
    targets = normalised(depths, torch.float64)
    for scale, shift in ((1, 0), (0.01, 7), (3, -5000)):
        assert normal_errors(depths * scale + shift, targets, depths, images, 60).max() < 1e-4
    assert normal_errors(predicted, targets, depths, images, 60).min() > 0.05


def test_what_is_unknown_and_who_else_is_in_the_batch_changes_nothing() -> None:
    predicted, depths, images = scene(2)
    targets = normalised(depths, torch.float64)
    other = predicted.where(depths > 0, 1e3)
    losses: tuple[Callable[..., torch.Tensor], ...] = ranking_errors, partial(normal_errors, field_of_view=60)
    for loss in losses:
        found = loss(predicted, targets, depths, images)
        assert found.min() > 0 and torch.allclose(loss(other, targets, depths, images), found)
        alone = normalised(depths[1:], torch.float64)
        assert torch.equal(loss(predicted[1:], alone, depths[1:], images[1:]), found[1:])


def test_images_that_teach_nothing() -> None:
    depths = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.int32)
    depths[1] = 9
    depths[2] = 9
    depths[2, 0, 0] = 90
    images = torch.zeros(3, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    targets = normalised(depths)
    predicted = torch.randn(depths.shape, requires_grad=True)
    losses = ranking_errors(predicted, targets, depths, images), normal_errors(predicted, targets, depths, images, 60)
    assert losses[0][:2].tolist() == losses[1][:2].tolist() == [0, 0] and losses[0][2] > 0
    (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), predicted)
    assert gradient.isfinite().all() and not gradient[:2].any()


def test_flat_predictions_have_finite_gradients() -> None:
    _, depths, images = scene(3)
    targets = normalised(depths)
    predicted = torch.zeros(depths.shape, requires_grad=True)
    loss = ranking_errors(predicted, targets, depths, images) + normal_errors(predicted, targets, depths, images, 60)
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    assert gradient.isfinite().all() and gradient.any()
