"""The losses of depth against loops over pixels in float64."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelmerge.methods.depth.losses import Targets, aligned, depth_errors, gradient_errors, normalised

Array = np.ndarray[Any, Any]


def case(seed: int, height: int = 9, width: int = 7, images: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and depths, some unknown; the last image has next to none."""
    rng = np.random.default_rng(seed)
    depths = rng.integers(1, 40, (images, height, width)) * rng.integers(1, 900)
    depths[rng.random(depths.shape) < 0.3] = 0
    depths[-1, 1:] = 0
    return torch.from_numpy(rng.standard_normal(depths.shape)), torch.from_numpy(depths)


def slow_normalised(depths: Array) -> tuple[Array, bool]:
    known = sorted(float(value) for value in depths.flat if value > 0)
    if len(known) < 2 or known[0] == known[-1]:
        return np.zeros(depths.shape), False
    cut = math.floor(0.1 * len(known))
    inner = known[cut : len(known) - cut]
    if inner[0] == inner[-1]:
        inner = known
    mean = sum(inner) / len(inner)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in inner) / len(inner))
    return np.where(depths > 0, (depths - mean) / deviation, 0.0), True


def slow_losses(predicted: Array, depths: Array, how: str, trim: float, scales: int) -> tuple[float, float]:
    target, usable = slow_normalised(depths)
    if not usable:
        return 0.0, 0.0
    places = [place for place in np.ndindex(depths.shape) if depths[place] > 0]
    p, t = [float(predicted[place]) for place in places], [float(target[place]) for place in places]
    scale: Any = 1.0
    shift: Any = 0.0
    if how == "least_squares":
        (scale, shift), *_ = np.linalg.lstsq(np.stack([p, np.ones(len(p))], 1), np.array(t), rcond=None)
        if scale <= 0:
            scale = float(np.std(t) / np.std(p))
            shift = float(np.mean(t) - scale * np.mean(p))
    elif how == "spread":
        lower = (len(p) - 1) // 2
        middle, own = sorted(p)[lower], sorted(t)[lower]
        scale = sum(abs(x - own) for x in t) / sum(abs(x - middle) for x in p)
        shift = own - scale * middle
    error = {place: scale * float(predicted[place]) + shift - float(target[place]) for place in places}
    sizes = sorted(abs(value) for value in error.values())
    kept = sizes[: len(sizes) - math.floor(trim * len(sizes))]
    slopes = 0.0
    for number in range(scales):
        step = 2**number
        seen = [(y, x) for y, x in places if y % step == 0 and x % step == 0]
        total = 0.0
        for y, x in seen:
            for below in ((y + step, x), (y, x + step)):
                if below in error:
                    total += abs(error[below] - error[y, x])
        slopes += total / max(1, len(seen))
    return sum(kept) / len(kept), slopes


@given(
    st.integers(0, 10**6),
    st.sampled_from(["least_squares", "spread", "normalised"]),
    st.sampled_from([0.0, 0.2, 0.5]),
)
def test_losses_are_those_of_loops(seed: int, how: str, trim: float) -> None:
    predicted, depths = case(seed)
    targets = normalised(depths, torch.float64)
    fitted = aligned(predicted, targets, how)
    found = depth_errors(fitted, targets, trim), gradient_errors(fitted, targets, 4)
    for image in range(len(depths)):
        wanted = slow_losses(predicted[image].numpy(), depths[image].numpy(), how, trim, 4)
        assert [float(each[image]) for each in found] == pytest.approx(wanted, rel=2e-3, abs=1e-6)


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-50, 50), st.sampled_from(["least_squares", "spread"]))
def test_no_scale_or_shift_of_a_prediction_changes_anything(seed: int, scale: float, shift: float, how: str) -> None:
    predicted, depths = case(seed)
    targets = normalised(depths, torch.float64)
    one, other = (aligned(each, targets, how) for each in (predicted, predicted * scale + shift))
    for loss in (depth_errors, partial(gradient_errors, scales=3)):
        assert torch.allclose(loss(one, targets), loss(other, targets), rtol=1e-2, atol=1e-3)


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_no_unit_of_the_depths_changes_anything(seed: int, unit: int) -> None:
    _, depths = case(seed)
    one, other = normalised(depths, torch.float64), normalised(depths * unit, torch.float64)
    assert torch.allclose(one.values, other.values, atol=1e-9) and torch.equal(one.known, other.known)


@pytest.mark.parametrize("how", ["least_squares", "spread"])
def test_a_right_prediction_has_no_error(how: str) -> None:
    _, depths = case(3)
    targets = normalised(depths, torch.float64)
    fitted = aligned(depths * 0.3 + 5.0, targets, how)
    assert depth_errors(fitted, targets).max() < 1e-5 and gradient_errors(fitted, targets, 4).max() < 1e-5


def test_normalised_depths_are_those_of_leres() -> None:
    """Of 1 … 20 the middle 16 have the mean 10.5 and the variance (16² - 1) / 12."""
    targets = normalised(torch.arange(1, 21).view(1, 4, 5), torch.float64)
    wanted = (torch.arange(1, 21, dtype=torch.float64) - 10.5) / math.sqrt(255 / 12)
    assert torch.allclose(targets.values.view(-1), wanted)


def test_images_that_teach_nothing() -> None:
    depths = torch.zeros(4, 5, 5, dtype=torch.int32)
    depths[1, 2, 2] = 7  # one pixel
    depths[2] = 9  # a wall
    depths[3] = 9
    depths[3, 0, 0] = 10  # the middle 80 % are the same
    targets = normalised(depths)
    assert targets.usable.tolist() == [False, False, False, True]
    predicted = torch.randn(4, 5, 5, requires_grad=True)
    for how in ("least_squares", "spread"):
        fitted = aligned(predicted, targets, how)
        loss = depth_errors(fitted, targets) + gradient_errors(fitted, targets, 4)
        assert loss[:3].tolist() == [0, 0, 0] and loss[3] > 0
        (gradient,) = torch.autograd.grad(loss.sum(), predicted)
        assert gradient.isfinite().all() and not gradient[:3].any() and gradient[3].any()


@pytest.mark.parametrize("how", ["least_squares", "spread"])
@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_prediction_that_is_the_same_everywhere_has_a_gradient(how: str, value: float) -> None:
    _, depths = case(5)
    targets = normalised(depths)
    predicted = torch.full(depths.shape, value, requires_grad=True)
    fitted = aligned(predicted, targets, how)
    (gradient,) = torch.autograd.grad(depth_errors(fitted, targets).sum(), predicted)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("how", ["least_squares", "spread"])
def test_gradients_are_the_slopes_of_the_losses(how: str) -> None:
    predicted, depths = case(11, 5, 4, 2)
    targets = normalised(depths, torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        fitted = aligned(values, targets, how)
        return depth_errors(fitted, targets, 0.2).sum() + 0.5 * gradient_errors(fitted, targets, 3).sum()

    assert torch.autograd.gradcheck(loss, predicted.clone().requires_grad_(), eps=1e-7, atol=1e-4)


def test_gradients_lead_from_the_wrong_sign_to_the_right_one() -> None:
    """Least squares alone would turn a prediction round, and teach images of one batch opposite things."""
    torch.manual_seed(0)
    depths = torch.arange(1, 101).view(1, 10, 10)
    targets = normalised(depths, torch.float64)
    predicted = (-targets.values + 0.3 * torch.randn(1, 10, 10, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([predicted], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = depth_errors(aligned(predicted, targets, "least_squares"), targets).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
    both = torch.stack([predicted.detach().flatten(), targets.values.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_unknown_pixels_change_nothing() -> None:
    predicted, depths = case(8)
    other = predicted + torch.randn_like(predicted) * (depths == 0) * 100
    targets: Targets = normalised(depths, torch.float64)
    for how in ("least_squares", "spread"):
        pairs = [aligned(each, targets, how) for each in (predicted, other)]
        for loss in (depth_errors, partial(gradient_errors, scales=4)):
            one, two = (loss(fitted, targets) for fitted in pairs)
            assert torch.allclose(one, two, atol=1e-12)
