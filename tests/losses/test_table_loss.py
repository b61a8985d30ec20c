"""The losses that know relations between labels: against the literal ones, in float64, and what each option means."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labelmerge.losses import LabelTable, chunked, pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.losses.bilinear import bilinear_matrix_on

from .. import meta_device
from . import reference
from .reference import random_table
from .test_pixel_loss import assert_same, sample


@pytest.fixture(autouse=True)
def small(one_thread: None) -> None:
    """All that is computed here."""


def plain_table(columns: int, **more: Any) -> LabelTable:
    """Each label its own column, against all others: what no table means."""
    return LabelTable(torch.eye(columns, dtype=torch.bool), torch.ones(columns, columns, dtype=torch.float64), **more)


def relabelled(targets: Tensor, labels: int, seed: int = 0) -> Tensor:
    random = torch.randint(labels, targets.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(targets == 255, targets, random)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    low=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    counts=st.tuples(st.integers(1, 6), st.integers(1, 20)),
    soft=st.booleans(),
    chunk=st.sampled_from([1, 40, 1 << 20]),
    seed=st.integers(0, 1000),
)
def test_equals_the_literal_loss_with_any_table(
    batch: int, low: tuple[int, int], size: tuple[int, int], counts: tuple[int, int], soft: bool, chunk: int, seed: int
) -> None:
    v, columns, targets, tau = sample(batch, 4, low, size, counts[1], seed=seed)
    table = random_table(*counts, soft=soft, seed=seed)
    targets = relabelled(targets, counts[0], seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked._CHUNK, "cpu", chunk)
        assert_same(
            pixel_cosine_loss(v, columns, targets, tau, table=table),
            reference.pixel_loss(v, columns, targets, tau, 255, table=table),
            (v, columns, tau),
        )
        assert_same(
            trimmed_pixel_cosine_loss(v, columns, targets, tau, table=table),
            reference.trimmed_loss(v, columns, targets, tau, 255, table=table),
            (v, columns, tau),
        )


@pytest.mark.parametrize("soft", [False, True])
def test_losses_of_single_pixels_and_their_gradients(soft: bool) -> None:
    v, columns, targets, tau = sample(2, 4, (5, 6), (19, 21), 7)
    table, targets = random_table(4, 7, soft=soft, seed=0), relabelled(targets, 4)
    weights = torch.rand(targets.shape, dtype=torch.float64)
    ours = pixel_cosine_loss(v, columns, targets, tau, table=table, reduction="none")
    literal = reference.pixel_losses(v, columns, targets, tau, 255, table=table)
    torch.testing.assert_close(ours, literal)
    assert (ours[targets == 255] == 0).all()
    assert_same((ours * weights).sum(), (literal * weights).sum(), (v, columns, tau))


@pytest.mark.parametrize("soft", [False, True])
def test_gradients_by_finite_differences(soft: bool) -> None:
    v, columns, targets, tau = sample(1, 3, (3, 3), (7, 8), 5)
    table, targets = random_table(3, 5, soft=soft, seed=1), relabelled(targets, 3)

    def loss(v: Tensor, columns: Tensor, tau: Tensor) -> Tensor:
        return pixel_cosine_loss(v, columns, targets, tau, table=table)

    assert torch.autograd.gradcheck(loss, (v, columns, tau.detach().mul(5).requires_grad_()))


@pytest.mark.parametrize("soft", [False, True])
def test_a_column_for_each_label_is_the_plain_loss(soft: bool) -> None:
    v, columns, targets, tau = sample(3, 4, (4, 4), (16, 16), 5)
    table = plain_table(5, **({"target": torch.eye(5, dtype=torch.float64)} if soft else {}))
    allowed = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    own = allowed.gather(1, targets.clamp(max=4).flatten(1)).view_as(targets)
    for some, kept in ((None, targets), (allowed, targets.masked_fill(~own, 255))):
        ours = pixel_cosine_loss(v, columns, kept, tau, allowed=some, table=table)
        assert_same(ours, pixel_cosine_loss(v, columns, kept, tau, allowed=some), (v, columns, tau))


def test_own_labels_are_columns_of_other_sets_that_do_not_compete() -> None:
    v, columns, targets, tau = sample(2, 4, (4, 4), (16, 16), 6)
    sets = torch.tensor([0, 0, 0, 1, 1, 1])
    same = sets[:, None] == sets
    targets[0] = targets[0].where(targets[0] == 255, targets[0] % 3)
    targets[1] = targets[1].where(targets[1] == 255, targets[1] % 3 + 3)
    table = LabelTable(torch.eye(6, dtype=torch.bool), same.double())
    assert_same(
        pixel_cosine_loss(v, columns, targets, tau, table=table),
        pixel_cosine_loss(v, columns, targets, tau, allowed=same[[0, 3]]),
        (v, columns, tau),
    )


@pytest.mark.parametrize("soft", [False, True])
def test_allowed_columns_and_a_table_together(soft: bool) -> None:
    v, columns, targets, tau = sample(2, 4, (4, 4), (16, 16), 6)
    table, targets = random_table(4, 6, soft=soft, seed=3), relabelled(targets, 4)
    allowed = torch.stack([~table.positive[0], torch.ones(6, dtype=torch.bool)])
    reaches = (table.positive[None] & allowed[:, None]).any(-1)  # [B, L]
    if soft:
        reaches = ~(table.positive[None] & ~allowed[:, None]).any(-1)
    own = reaches.gather(1, targets.clamp(max=3).flatten(1)).view_as(targets)
    lost = ~own & (targets != 255)
    assert lost.any() and (own & (targets != 255)).any()
    losses = pixel_cosine_loss(v, columns, targets, tau, allowed=allowed, table=table, reduction="none")
    assert (losses[lost] == torch.inf).all() and losses[~lost].isfinite().all()
    for gradient in torch.autograd.grad(losses[~lost].sum(), (v, columns, tau)):
        assert gradient.isfinite().all()
    targets = targets.masked_fill(lost, 255)
    assert_same(
        pixel_cosine_loss(v, columns, targets, tau, allowed=allowed, table=table),
        reference.pixel_loss(v, columns, targets, tau, 255, allowed, table),
        (v, columns, tau),
    )


@settings(max_examples=40, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 6), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    share=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    soft=st.booleans(),
    chunk=st.sampled_from([1, 40, 1 << 20]),
    seed=st.integers(0, 1000),
)
def test_what_an_image_was_not_annotated_for_does_not_compete_there_and_stays_right(
    counts: tuple[int, int], size: tuple[int, int], share: float, soft: bool, chunk: int, seed: int
) -> None:
    v, columns, targets, tau = sample(3, 4, (4, 3), size, counts[1], seed=seed)
    table, targets = random_table(*counts, soft=soft, seed=seed), relabelled(targets, counts[0], seed)
    competing = torch.rand(3, counts[1], generator=torch.Generator().manual_seed(seed)) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked._CHUNK, "cpu", chunk)
        for loss, literal in (
            (pixel_cosine_loss, reference.pixel_loss),
            (trimmed_pixel_cosine_loss, reference.trimmed_loss),
        ):
            assert_same(
                loss(v, columns, targets, tau, table=table, competing=competing),
                literal(v, columns, targets, tau, 255, table=table, competing=competing),
                (v, columns, tau),
            )
    if share == 1:
        same = pixel_cosine_loss(v, columns, targets, tau, table=table, competing=competing)
        assert torch.equal(same, pixel_cosine_loss(v, columns, targets, tau, table=table))


def test_competing_needs_a_table_and_no_subset() -> None:
    v, columns, targets, tau = sample(2, 4, (4, 4), (16, 16), 6)
    every = torch.ones(2, 6, dtype=torch.bool)
    for more in ({}, {"allowed": every, "table": plain_table(6)}):
        with pytest.raises(ValueError, match="competing needs a table, and takes the place of allowed"):
            pixel_cosine_loss(v, columns, targets, tau, competing=every, **more)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"competing \(1, 6\) is not \[B, N\] = \[2, 6\]"):
        pixel_cosine_loss(v, columns, targets, tau, competing=every[:1], table=plain_table(6))


def test_what_is_excluded_may_be_anything() -> None:
    v, columns, _, tau = sample(1, 6, (4, 4), (16, 16), 5)
    table = plain_table(5)
    table.negative[0, [2, 4]] = 0
    table = LabelTable(table.positive, table.negative)
    targets = torch.zeros(1, 16, 16, dtype=torch.long)
    other = columns.detach().clone()
    other[[2, 4]] = F.normalize(torch.randn(2, 6, dtype=torch.float64), dim=1)
    values = [pixel_cosine_loss(v, each, targets, tau, table=table) for each in (columns, other)]
    assert values[0] == values[1]
    grad = torch.autograd.grad(values[0], columns)[0]
    assert (grad[[2, 4]] == 0).all() and (grad[[0, 1, 3]] != 0).any(1).all()


def test_positives_of_equal_vectors_share_what_the_label_gets() -> None:
    v, columns, _, tau = sample(1, 6, (4, 4), (16, 16), 4)
    columns = columns.detach().clone()
    columns[1] = columns[0]
    positive = torch.eye(4, dtype=torch.bool)
    positive[0, 1] = True
    table = LabelTable(positive, torch.ones(4, 4, dtype=torch.float64))
    targets = torch.zeros(1, 16, 16, dtype=torch.long)
    columns.requires_grad_()
    losses = pixel_cosine_loss(v, columns, targets, tau, table=table, reduction="none")
    full = F.normalize(F.interpolate(v, (16, 16), mode="bilinear"), dim=1)
    s = torch.einsum("nc,bchw->bnhw", columns, full) / tau
    wanted = s[:, [0, 2, 3]] + torch.tensor([2.0, 1, 1]).log()[:, None, None]  # the pair counts as one, of weight 2
    torch.testing.assert_close(losses, -wanted.log_softmax(1)[:, 0])
    grad = torch.autograd.grad(losses.sum(), columns)[0]
    torch.testing.assert_close(grad[0], grad[1])


def test_half_a_negative_is_half_a_column() -> None:
    v, columns, _, tau = sample(1, 6, (4, 4), (16, 16), 2)
    targets = torch.zeros(1, 16, 16, dtype=torch.long)
    halves = torch.cat([columns, columns[1:]])
    half = LabelTable(torch.tensor([[True, False, False]]), torch.tensor([[0, 0.5, 0.5]], dtype=torch.float64))
    assert_same(
        pixel_cosine_loss(v, halves, targets, tau, table=half),
        pixel_cosine_loss(v, columns, targets, tau),
        (v, columns, tau),
    )


@pytest.mark.parametrize("rest", ["nothing competes", "all are right"])
@pytest.mark.parametrize("tau", [1e-3, 0.07, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_competition_loss_and_gradient_are_zero(rest: str, tau: float, dtype: torch.dtype) -> None:
    v, columns, targets, _ = sample(2, 4, (3, 3), (12, 12), 5)
    v, columns = (each.detach().to(dtype).requires_grad_() for each in (v, columns))
    warmth = torch.tensor(tau, dtype=dtype, requires_grad=True)
    positive = torch.ones(5, 5).bool() if rest == "all are right" else torch.eye(5).bool()
    table = LabelTable(positive, torch.zeros(5, 5))
    for loss in (pixel_cosine_loss, trimmed_pixel_cosine_loss):
        value = loss(v, columns, targets, warmth, table=table)
        assert value == 0
        for gradient in torch.autograd.grad(value, (v, columns, warmth)):
            assert (gradient == 0).all()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("tau", [1e-4, 100.0])
def test_extreme_temperatures(tau: float, soft: bool) -> None:
    v, columns, targets, _ = sample(1, 4, (5, 5), (20, 20), 6)
    table, targets = random_table(4, 6, soft=soft, seed=2), relabelled(targets, 4)
    v, columns = v.detach().float().requires_grad_(), columns.detach().float()
    ours = pixel_cosine_loss(v, columns, targets, tau, table=table)
    literal = reference.pixel_loss(v.double(), columns.double(), targets, tau, 255, table=table)
    torch.testing.assert_close(ours.double(), literal, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(ours, v)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_smaller_floats_even_under_autocast(dtype: torch.dtype) -> None:
    v, columns, targets, tau = sample(2, 16, (6, 6), (24, 24), 6)
    table, targets = random_table(4, 6, soft=False, seed=4), relabelled(targets, 4)
    v = v.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = pixel_cosine_loss(v, columns, targets.to(torch.uint8), tau, table=table)
    literal = reference.pixel_loss(v.double(), columns, targets, tau, 255, table=table)
    torch.testing.assert_close(ours, literal.float(), rtol=1e-5, atol=1e-6)
    (mine,), (theirs,) = torch.autograd.grad(ours, v), torch.autograd.grad(literal, v)
    assert mine.dtype == dtype
    torch.testing.assert_close(mine, theirs, rtol=1e-2 if dtype != torch.float32 else 1e-4, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("some_allowed", [False, True])
def test_a_device_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, soft: bool, some_allowed: bool) -> None:
    meta_device.prepare(monkeypatch)
    v, columns, targets, tau = (meta_device.without_content(each) for each in sample(2, 4, (5, 6), (20, 24), 7))
    v.requires_grad_()
    table = random_table(4, 7, soft=soft, seed=0).to("meta")
    allowed = torch.empty(2, 7, dtype=torch.bool, device="meta") if some_allowed else None

    def step() -> Tensor:
        loss = trimmed_pixel_cosine_loss(v, columns, targets, tau, allowed=allowed, table=table)
        return torch.autograd.grad(loss, v)[0]

    step()  # what belongs to the sizes is copied once
    with meta_device.Watch() as watch:
        assert step().shape == v.shape
    bilinear_matrix_on.cache_clear()
    assert watch.found == []


def test_no_tensor_has_a_number_for_each_pixel_and_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest that is made, counted by torch itself: of 64·64·50 numbers, a chunk of some rows."""
    monkeypatch.setitem(chunked._CHUNK, "cpu", 1 << 14)
    v, columns, targets, tau = sample(1, 4, (16, 16), (64, 64), 50)
    table = plain_table(50)
    sizes: list[int] = []

    class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(each.numel() for each in tree_leaves(out) if isinstance(each, Tensor))
            return out

    with Largest():  # type: ignore[no-untyped-call]
        torch.autograd.grad(pixel_cosine_loss(v, columns, targets, tau, table=table), v)
    assert max(sizes) <= max(1 << 14, 50 * 16 * 16)  # `low` is the other large one


def eye(count: int) -> Tensor:
    return torch.eye(count, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.eye(2), torch.ones(2, 2)), r"positive is not bool \[L, N\] but torch.float32 \[2, 2\]"),
        ((eye(2)[0], torch.ones(2)), r"positive is not bool \[L, N\] but torch.bool \[2\]"),
        ((eye(2), torch.ones(2, 3)), r"negative is not float \[2, 2\], as positive, but torch.float32 \[2, 3\]"),
        ((eye(2), eye(2)), "negative is not float .* but torch.bool"),
        ((eye(3)[:, :2], torch.ones(3, 2)), r"label 2 has no positive column \(1 of 3 labels have none\)"),
        ((eye(2), torch.tensor([[1, 0], [1.5, 1]])), r"negative\[1, 0\] = 1.5 is not within 0..1"),
        ((eye(2), torch.tensor([[1, math.nan], [1, 1]])), r"negative\[0, 1\] = nan is not within 0..1"),
        ((eye(2), torch.ones(2, 2), torch.full((2, 2), 0.5)), r"target\[0, 1\] = 0.5 is below 0, or is not positive"),
        ((eye(2), torch.ones(2, 2), torch.eye(2) / 2), "the sum of target of label 0 = 0.5 is not 1"),
    ],
)
def test_a_table_that_cannot_be(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelTable(*arguments)


def test_a_negative_that_is_positive_is_not_read() -> None:
    table = LabelTable(eye(2), torch.where(eye(2), torch.nan, 1.0))
    v, columns, targets, tau = sample(1, 4, (3, 3), (6, 6), 2)
    torch.testing.assert_close(
        pixel_cosine_loss(v, columns, targets, tau, table=table), pixel_cosine_loss(v, columns, targets, tau)
    )


def test_a_table_that_does_not_fit() -> None:
    v, columns, targets, tau = sample(1, 4, (3, 3), (6, 6), 3)
    with pytest.raises(ValueError, match=r"the table \[2, 2\] is not \[L, N\] with N = 3"):
        pixel_cosine_loss(v, columns, targets, tau, table=plain_table(2))
    with pytest.raises(ValueError, match="the table is on meta, v on cpu: take it there once, by table.to"):
        pixel_cosine_loss(v, columns, targets, tau, table=plain_table(3).to("meta"))
    with pytest.raises(ValueError, match="ignore_index 1 is also one of the 3 labels"):
        pixel_cosine_loss(v, columns, targets, tau, 1, table=plain_table(3))


def test_a_table_goes_to_a_device_and_stays_where_it_is() -> None:
    table = plain_table(3)
    assert table.to("cpu") is table
    there = table.to("meta")
    assert all(each.is_meta for each in (there.positive, there.negative, there.bias, there.columns, there.counts))
    assert there.target is None and there.wanted is None
