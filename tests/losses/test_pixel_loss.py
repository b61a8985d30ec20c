"""The exact loss against the literal one, in float64: values and gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from labelmerge.losses import chunked, pixel, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.losses.pixel import _InnerProducts

from . import reference


@pytest.fixture(autouse=True)
def small(one_thread: None) -> None:
    """All that is computed here."""


def sample(
    batch: int,
    channels: int,
    low: tuple[int, int],
    size: tuple[int, int],
    count: int,
    *,
    seed: int = 0,
    ignore: int = 255,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Float64 v, labels, targets (a quarter of them without a label) and tau; all but the targets want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    v = normal(batch, channels, *low) * 3
    labels = F.normalize(normal(count, channels), dim=1)
    targets = torch.randint(count, (batch, *size), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.25] = ignore
    tau = torch.tensor(0.07, dtype=torch.float64)
    return v.requires_grad_(), labels.requires_grad_(), targets, tau.requires_grad_()


def assert_same(ours: Tensor, literal: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, literal, rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(literal, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(2, 5),
    low=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    count=st.integers(1, 6),
    chunk=st.sampled_from([1, 40, 1 << 20]),
    seed=st.integers(0, 1000),
)
def test_equals_the_literal_loss_at_any_size(
    batch: int, channels: int, low: tuple[int, int], size: tuple[int, int], count: int, chunk: int, seed: int
) -> None:
    v, labels, targets, tau = sample(batch, channels, low, size, count, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked._CHUNK, "cpu", chunk)
        assert_same(
            pixel_cosine_loss(v, labels, targets, tau),
            reference.pixel_loss(v, labels, targets, tau, 255),
            (v, labels, tau),
        )
        assert_same(
            trimmed_pixel_cosine_loss(v, labels, targets, tau),
            reference.trimmed_loss(v, labels, targets, tau, 255),
            (v, labels, tau),
        )


def test_losses_of_single_pixels_and_their_gradients() -> None:
    v, labels, targets, tau = sample(2, 4, (5, 6), (19, 21), 5)
    weights = torch.rand(targets.shape, dtype=torch.float64)
    ours = pixel_cosine_loss(v, labels, targets, tau, reduction="none")
    literal = reference.pixel_losses(v, labels, targets, tau, 255)
    torch.testing.assert_close(ours, literal)
    assert (ours[targets == 255] == 0).all()
    assert_same((ours * weights).sum(), (literal * weights).sum(), (v, labels, tau))


def test_softmax_over_the_allowed_labels_only() -> None:
    v, labels, targets, tau = sample(3, 4, (4, 4), (16, 16), 5)
    allowed = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    own = allowed.gather(1, targets.clamp(max=4).flatten(1)).view_as(targets)
    targets = targets.masked_fill(~own, 255)
    assert (targets[2] == 255).all()
    ours = pixel_cosine_loss(v, labels, targets, tau, allowed=allowed)
    assert_same(ours, reference.pixel_loss(v[:2], labels, targets[:2], tau, 255, allowed[:2]), (v, labels, tau))


@pytest.mark.parametrize("loss", [pixel_cosine_loss, trimmed_pixel_cosine_loss])
def test_no_label_at_all_is_zero_with_zero_gradients(loss: Any) -> None:
    v, labels, targets, tau = sample(2, 4, (3, 3), (12, 12), 3)
    value = loss(v, labels, torch.full_like(targets, 255), tau)
    assert value == 0
    for gradient in torch.autograd.grad(value, (v, labels, tau)):
        assert (gradient == 0).all()


def test_one_image_without_labels_does_not_change_the_rest() -> None:
    v, labels, targets, tau = sample(2, 4, (3, 3), (12, 12), 3)
    targets[1] = 255
    both = pixel_cosine_loss(v, labels, targets, tau)
    torch.testing.assert_close(both, pixel_cosine_loss(v[:1], labels, targets[:1], tau))


def test_more_than_255_labels() -> None:
    v, labels, targets, tau = sample(1, 8, (4, 4), (16, 16), 300, ignore=65535)
    targets[0, 0, :4] = torch.tensor([254, 255, 256, 299])
    assert_same(
        pixel_cosine_loss(v, labels, targets.to(torch.uint16), tau, 65535),
        reference.pixel_loss(v, labels, targets, tau, 65535),
        (v, labels, tau),
    )
    with pytest.raises(ValueError, match="ignore_index 255 is also one of the 300 classes"):
        pixel_cosine_loss(v, labels, targets, tau)


def test_as_many_labels_as_a_16_bit_mask_can_tell_apart() -> None:
    v, labels, targets, tau = sample(1, 4, (2, 2), (3, 3), 65535, ignore=65535)
    targets[0, 0] = torch.tensor([0, 65534, 65535])
    assert_same(
        pixel_cosine_loss(v, labels, targets.to(torch.uint16), tau, 65535),
        reference.pixel_loss(v, labels, targets, tau, 65535),
        (v, labels, tau),
    )


@pytest.mark.parametrize("tau", [1e-4, 100.0])
def test_extreme_temperatures(tau: float) -> None:
    v, labels, targets, _ = sample(1, 4, (5, 5), (20, 20), 6)
    v, labels = v.detach().float().requires_grad_(), labels.detach().float()
    ours = pixel_cosine_loss(v, labels, targets, tau)
    literal = reference.pixel_loss(v.double(), labels.double(), targets, tau, 255)
    torch.testing.assert_close(ours.double(), literal, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(ours, v)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_smaller_floats_are_computed_in_float32_even_under_autocast(dtype: torch.dtype) -> None:
    v, labels, targets, tau = sample(2, 16, (6, 6), (24, 24), 6)
    v = v.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = pixel_cosine_loss(v, labels, targets, tau)
    literal = reference.pixel_loss(v.double(), labels, targets, tau, 255)
    torch.testing.assert_close(ours, literal.float(), rtol=1e-5, atol=1e-6)
    (mine,), (theirs,) = torch.autograd.grad(ours, v), torch.autograd.grad(literal, v)
    assert mine.dtype == dtype
    torch.testing.assert_close(mine, theirs, rtol=1e-2 if dtype != torch.float32 else 1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero", "opposite", "huge"])
def test_degenerate_embeddings_keep_everything_finite(kind: str) -> None:
    v = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    if kind == "zero":
        v = torch.zeros_like(v)
    elif kind == "opposite":  # halfway between two of them, the mixture vanishes
        v = v[:, :, :1, :1] * torch.tensor([1.0, -1.0]).repeat(2)
        v = v.expand(1, 8, 4, 4).contiguous()
    else:
        v = v * 1e12
    v.requires_grad_()
    labels = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    loss = pixel_cosine_loss(v, labels, torch.randint(5, (1, 12, 12)), 0.07)
    (gradient,) = torch.autograd.grad(loss, v)
    assert 0 <= loss.item() < 2 / 0.07 + math.log(5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("piece", [(1, 1), (1, 40), (1, 1 << 17), (9, 1 << 17)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 5, 3, 7), (3, 4, 6, 6), (1, 3, 1, 4), (2, 3, 5, 1), (1, 2, 1, 1)])
def test_inner_products_in_pieces_have_the_bits_of_whole_maps_and_of_autograd(
    shape: tuple[int, int, int, int],
    layout: torch.memory_format,
    piece: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixel, "_piece", lambda v: piece)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(shape, generator=generator).contiguous(memory_format=layout).requires_grad_()
    u = v.detach().clone().requires_grad_()
    found = _InnerProducts.apply(v)
    plain = [(u * u).sum(1), (u[..., :-1] * u[..., 1:]).sum(1), (u[:, :, :-1] * u[:, :, 1:]).sum(1)]
    plain.append((u[:, :, :-1, :-1] * u[:, :, 1:, 1:] + u[:, :, :-1, 1:] * u[:, :, 1:, :-1]).sum(1) / 2)
    for mine, theirs in zip(found, plain, strict=True):
        assert torch.equal(mine, theirs)
    into = [torch.randn(each.shape, generator=generator) for each in plain]
    torch.autograd.backward(found, into)
    torch.autograd.backward(plain, into)
    assert v.grad is not None and u.grad is not None and torch.equal(v.grad, u.grad)


def test_the_share_that_is_dropped() -> None:
    v, labels, targets, tau = sample(1, 4, (3, 3), (10, 10), 3)
    targets = torch.zeros_like(targets)
    targets[0, 0, :5] = 255  # 95 labelled pixels: of 0.3 · 95 = 28.5, 28 go
    losses = pixel_cosine_loss(v, labels, targets, tau, reduction="none")[targets != 255].sort().values
    torch.testing.assert_close(trimmed_pixel_cosine_loss(v, labels, targets, tau), losses[:67].mean())
    torch.testing.assert_close(trimmed_pixel_cosine_loss(v, labels, targets, tau, drop=0.0), losses.mean())


def test_ties_drop_neither_more_nor_fewer() -> None:
    v = torch.ones(1, 2, 2, 2, requires_grad=True)  # every pixel has the same loss
    loss = trimmed_pixel_cosine_loss(v, torch.eye(2), torch.zeros(1, 5, 5, dtype=torch.long), 0.5, drop=0.5)
    torch.testing.assert_close(loss, torch.tensor(math.log(2.0)))


def test_a_loss_without_gradients_leaves_nothing_behind_that_has_none() -> None:
    # A size that no other test has: what belongs to a size is kept.
    v, labels, targets = torch.ones(1, 4, 3, 5), torch.eye(4), torch.zeros(1, 17, 19, dtype=torch.long)
    with torch.inference_mode():
        before = pixel_cosine_loss(v, labels, targets, 0.1)
    after = pixel_cosine_loss(v.requires_grad_(), labels, targets, 0.1)
    (gradient,) = torch.autograd.grad(after, v)
    assert after == before and gradient.shape == v.shape


def test_only_what_wants_gradients_gets_them() -> None:
    v, labels, targets, _ = sample(1, 4, (3, 3), (9, 9), 3)
    pixel_cosine_loss(v, labels.detach(), targets, 0.07).backward()  # type: ignore[no-untyped-call]
    assert v.grad is not None and labels.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(3, 5)}, "v .* and labels"),
        ({"targets": torch.zeros(2, 9, 9, dtype=torch.long)}, "targets"),
        ({"allowed": torch.ones(1, 4, dtype=torch.bool)}, "allowed"),
    ],
    ids=["labels", "targets", "allowed"],
)
def test_shapes_that_do_not_fit(change: dict[str, Tensor], message: str) -> None:
    arguments: dict[str, Any] = {
        "v": torch.zeros(1, 4, 3, 3),
        "labels": torch.zeros(3, 4),
        "targets": torch.zeros(1, 9, 9, dtype=torch.long),
        "tau": 0.07,
    }
    with pytest.raises(ValueError, match=message):
        pixel_cosine_loss(**{**arguments, **change})


def test_drop_out_of_range() -> None:
    with pytest.raises(ValueError, match="drop"):
        trimmed_pixel_cosine_loss(
            torch.zeros(1, 2, 1, 1), torch.eye(2), torch.zeros(1, 2, 2, dtype=torch.long), 0.07, drop=1.0
        )
